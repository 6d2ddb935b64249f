//! `vestibule key`: Ed25519 keys of people.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::trust::Rotation;

use crate::failure::{Failure, coded};
use crate::files::{passphrase, random, secret_key, write};
use crate::trust;

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key in FILE, and its public half in FILE.pub.
    ///
    /// Protected by the passphrase in VESTIBULE_PASSPHRASE, or by one that is asked for with --passphrase.
    New {
        /// Where to.
        file: PathBuf,
        /// Ask for a passphrase.
        #[arg(long)]
        passphrase: bool,
    },
    /// Say, with both keys, that a new key takes the place of the one you have: for `vestibule consortium rotate`. The old one counts until the
    /// roots revoke it.
    Rotate {
        /// The secret key that you have.
        former: PathBuf,
        /// The one that takes its place: `vestibule key new` made it.
        new: PathBuf,
        /// The rotation, for the consortium's roots.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Show a key's public half.
    Show {
        /// The secret key's file.
        file: PathBuf,
    },
}

impl Key {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::New { file, passphrase: ask } => {
                show(&make(&file, ask)?, json);
            }
            Self::Rotate { former, new, output } => {
                let (old, key) = (secret_key(&former)?, secret_key(&new)?);
                write(&output, Rotation::sign(&old, &key))?;
                trust::carry_over(&former, &new)?;
                if json {
                    let (former, key) = (old.public(), key.public());
                    println!("{}", serde_json::json!({ "former": former, "key": key, "file": output }));
                } else {
                    println!(
                        "{}\ntakes the place of {}\nonce the roots have put {} into a bundle",
                        key.public(),
                        old.public(),
                        output.display()
                    );
                }
            }
            Self::Show { file } => show(&secret_key(&file)?, json),
        }
        Ok(())
    }
}

/// Makes a key in a file that is not there yet, and its public half beside it.
pub(super) fn make(file: &Path, ask: bool) -> Result<SecretKey> {
    let passphrase = if ask { Some(rpassword::prompt_password("New passphrase: ")?.into()) } else { passphrase()? };
    let key = SecretKey::from_seed(random()?).map_err(|error| coded(error.code(), error))?;
    let pem = key.to_pem(passphrase.as_deref().map(String::as_str)).map_err(|error| coded(error.code(), error))?;
    let mut out = std::fs::File::options().write(true).create_new(true).mode(0o600).open(file).map_err(|error| {
        Failure::input("file-unwritable", format!("{}: {error}; keys are never written over", file.display()))
    })?;
    std::io::Write::write_all(&mut out, pem.as_bytes())?;
    write(&PathBuf::from(format!("{}.pub", file.display())), key.public().to_pem())?;
    Ok(key)
}

fn show(key: &SecretKey, json: bool) {
    let public = key.public();
    if json {
        println!("{}", serde_json::json!({ "public": public.to_string(), "id": public.id().to_string() }));
    } else {
        println!("{public}\n{}", public.id());
    }
}
