//! `vestibule coordinator`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use vestibule_coordinator::{Home, HomeError, RunError};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::name::Name;
use vestibule_protocol::token::Role;

use super::daemon;
use crate::failure::coded;
use crate::files::{now, passphrase, read_bytes, with_passphrase};

#[derive(Debug, Subcommand)]
pub(crate) enum Coordinator {
    /// Make a coordinator in DIR. Its key is protected by the passphrase in VESTIBULE_PASSPHRASE, if there is one.
    Init {
        /// A new folder.
        dir: PathBuf,
    },
    /// Pin the consortium that it serves, by the fingerprint of its roots. Compare it by phone or on paper first.
    Pin {
        /// Its folder.
        dir: PathBuf,
        /// What `vestibule consortium new` printed.
        fingerprint: Digest,
    },
    /// All who joined, with the keys they ask to be known by: for `vestibule consortium add`.
    Requests {
        /// Its folder.
        dir: PathBuf,
    },
    /// Publish a trust bundle to all members, once enough roots have signed it.
    Publish {
        /// Its folder.
        dir: PathBuf,
        /// The bundle.
        bundle: PathBuf,
    },
    /// Run it until Ctrl-C or SIGTERM.
    Run {
        /// Its folder.
        dir: PathBuf,
    },
    /// Forget who joined, or is invited, under a NAME that was given by mistake: the name is free again. Whom the consortium's trust bundle
    /// names is revoked there instead.
    Forget {
        /// Its folder.
        dir: PathBuf,
        /// The name.
        name: Name,
    },
    /// Make a one-time token, good for 24 hours, with which a site, researcher or approver joins under NAME.
    Invite {
        /// Its folder.
        dir: PathBuf,
        /// Who is invited.
        role: Who,
        /// The name that the newcomer will have.
        name: Name,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Who {
    /// A site.
    Site,
    /// A researcher.
    Researcher,
    /// A person who reviews what others ask for.
    Approver,
}

impl Coordinator {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Init { dir } => {
                let passphrase = passphrase()?;
                let home =
                    Home::init(&dir, passphrase.as_deref().map(String::as_str)).map_err(|error| coded(error.code(), error))?;
                let key = home.key().public().to_string();
                if json {
                    println!("{}", serde_json::json!({ "dir": dir, "key": key }));
                } else {
                    println!("{key}");
                    eprintln!("made a coordinator in {}; its settings are in coordinator.toml", dir.display());
                }
                Ok(())
            }
            Self::Pin { dir, fingerprint } => {
                open(&dir)?.pin(fingerprint).map_err(|error| coded(error.code(), error))?;
                if json {
                    println!("{}", serde_json::json!({ "consortium": fingerprint }));
                } else {
                    println!("serves the consortium {fingerprint}");
                }
                Ok(())
            }
            Self::Requests { dir } => {
                let store = open(&dir)?.store().map_err(|error| coded(error.code(), error))?;
                let requests = store.requests().map_err(|error| coded(error.code(), error))?;
                println!("{}", if json { serde_json::to_string(&requests)? } else { serde_json::to_string_pretty(&requests)? });
                Ok(())
            }
            Self::Publish { dir, bundle } => {
                let trust = open(&dir)?.publish(&read_bytes(&bundle)?).map_err(|error| coded(error.code(), error))?;
                let (version, expires) = (trust.bundle().version, &trust.bundle().expires);
                if json {
                    println!("{}", serde_json::json!({ "version": version, "expires": expires }));
                } else {
                    println!("version {version} is published; it expires {expires}");
                }
                Ok(())
            }
            Self::Run { dir } => {
                let home = open(&dir)?;
                daemon(async |stop| vestibule_coordinator::run(home, stop).await, RunError::code)
            }
            Self::Forget { dir, name } => {
                open(&dir)?.forget(&name).map_err(|error| coded(error.code(), error))?;
                if json {
                    println!("{}", serde_json::json!({ "forgotten": name }));
                } else {
                    println!("{name} is forgotten: the name is free");
                }
                Ok(())
            }
            Self::Invite { dir, role, name } => {
                let role = match role {
                    Who::Site => Role::Site,
                    Who::Researcher => Role::Researcher,
                    Who::Approver => Role::Approver,
                };
                let token = open(&dir)?.invite(role, &name, now()).map_err(|error| coded(error.code(), error))?;
                if json {
                    println!("{}", serde_json::json!({ "token": *token }));
                } else {
                    println!("{}", *token);
                    eprintln!("good for 24 hours, once: hand it over in confidence");
                }
                Ok(())
            }
        }
    }
}

fn open(dir: &Path) -> Result<Home> {
    with_passphrase(|passphrase| Home::open(dir, passphrase), HomeError::code)
}
