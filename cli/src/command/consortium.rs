//! `vestibule consortium`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_coordinator::store::Request;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{BUNDLE_TYPE, Roots, Rotation, Trust};
use vestibule_protocol::words::Reason;

use crate::consortium::{self, Consortium as File};
use crate::failure::{Failure, coded};
use crate::files::{now, public_key, read, read_bytes, secret_key, write};
use crate::show;

const FILE: &str = "consortium.toml";
const BUNDLE: &str = "bundle.json";

#[derive(Debug, Subcommand)]
pub(crate) enum Consortium {
    /// Begin a consortium: DIR/consortium.toml, with the public keys of its roots. Prints their fingerprint, which everybody pins.
    New {
        /// A new folder.
        dir: PathBuf,
        /// Its name.
        #[arg(long)]
        name: Name,
        /// The roots' public keys.
        #[arg(long = "root", required = true)]
        roots: Vec<PathBuf>,
        /// How many of them must sign.
        #[arg(long)]
        threshold: u32,
        /// How many other sites must cosign a site's log.
        #[arg(long, default_value_t = 1)]
        witnesses: u32,
    },
    /// Write those who joined into consortium.toml. Compare the keys that it prints with their owners by phone.
    Add {
        /// The consortium's folder.
        dir: PathBuf,
        /// What `vestibule --json coordinator requests` printed.
        requests: PathBuf,
    },
    /// No longer believe a key or a component.
    Revoke {
        /// The consortium's folder.
        dir: PathBuf,
        /// A key (ed25519:...) or a component's digest (sha256:...).
        what: String,
        /// Why.
        #[arg(long)]
        why: Reason,
    },
    /// Let a person's new key take the place of the one they had, which counts until it is revoked. Ask them by phone whether they did it.
    Rotate {
        /// The consortium's folder.
        dir: PathBuf,
        /// What `vestibule key rotate` wrote.
        rotation: PathBuf,
    },
    /// Make the next bundle of consortium.toml, and sign it with one root's key: DIR/bundle.json.
    Issue {
        /// The consortium's folder.
        dir: PathBuf,
        /// A root's secret key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Sign the bundle with another root's key, after looking at it (`vestibule consortium show`).
    Sign {
        /// The consortium's folder.
        dir: PathBuf,
        /// A root's secret key.
        #[arg(long)]
        key: PathBuf,
    },
    /// What a bundle says, and which of its roots signed it.
    Show {
        /// The bundle.
        file: PathBuf,
    },
}

impl Consortium {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::New { dir, name, roots, threshold, witnesses } => new(&dir, &name, &roots, threshold, witnesses, json),
            Self::Add { dir, requests } => add(&dir, &requests, json),
            Self::Revoke { dir, what, why } => {
                let field = match (what.parse::<PublicKey>(), what.parse::<Digest>()) {
                    (Ok(_), _) => "key",
                    (_, Ok(_)) => "component",
                    _ => {
                        let why = format!("`{what}` is neither a key (ed25519:...) nor a component's digest (sha256:...)");
                        return Err(Failure::input("revoke-what", why));
                    }
                };
                let text = format!("\n[[revoked]]\n{field} = {what:?}\nwhy = {}\n", toml::Value::from(why.as_str()));
                append(&dir, &text)?;
                print(
                    json,
                    &json!({ "revoked": what }),
                    "written down: it holds once a new bundle is issued, signed and published",
                )
            }
            Self::Rotate { dir, rotation } => {
                let Rotation { former, key } = Rotation::verify(&read_bytes(&rotation)?)
                    .map_err(|error| coded(error.code(), format!("{}: {error}", rotation.display())))?;
                let path = dir.join(FILE);
                let whole = read(&path)? + &format!("\n[[rotated]]\nformer = \"{former}\"\nkey = \"{key}\"\n");
                // Whether anybody has the former key is seen before it is written down.
                File::parse(&whole)?.bundle(1, now())?;
                write(&path, whole)?;
                let text = format!(
                    "written down: {key}\ntakes the place of {former}\nonce a new bundle is issued, signed and published"
                );
                print(json, &json!({ "former": former, "key": key }), &text)
            }
            Self::Issue { dir, key } => {
                let (path, last) = (dir.join(BUNDLE), read_bytes(&dir.join(BUNDLE)).ok());
                let last =
                    last.map(|envelope| Trust::stored(&envelope)).transpose().map_err(|error| coded(error.code(), error))?;
                let version = last.map_or(1, |last| last.bundle().version.saturating_add(1));
                let bundle = File::parse(&read(&dir.join(FILE))?)?.bundle(version, now())?;
                let envelope = bundle.sign(&secret_key(&key)?).map_err(|error| coded(error.code(), error))?;
                write(&path, &envelope)?;
                let text = format!(
                    "version {version} is in {}: {} sites, {} persons; {} of the roots must sign it",
                    path.display(),
                    bundle.sites.len(),
                    bundle.persons.len(),
                    bundle.roots.threshold
                );
                print(json, &json!({ "version": version, "expires": bundle.expires }), &text)
            }
            Self::Sign { dir, key } => {
                let path = dir.join(BUNDLE);
                let envelope = dsse::add_signature(&read_bytes(&path)?, BUNDLE_TYPE, &secret_key(&key)?);
                write(&path, envelope.map_err(|error| coded(error.code(), error))?)?;
                show(&path, json)
            }
            Self::Show { file } => show(&file, json),
        }
    }
}

fn print(json: bool, document: &serde_json::Value, text: &str) -> Result<()> {
    println!("{}", if json { document.to_string() } else { text.to_owned() });
    Ok(())
}

fn append(dir: &Path, text: &str) -> Result<()> {
    let path = dir.join(FILE);
    let whole = read(&path)? + text;
    File::parse(&whole)?;
    write(&path, whole)
}

fn new(dir: &Path, name: &Name, roots: &[PathBuf], threshold: u32, witnesses: u32, json: bool) -> Result<()> {
    let path = dir.join(FILE);
    if path.exists() {
        return Err(Failure::input("consortium-exists", format!("{} is there already: choose another folder", path.display())));
    }
    let keys = roots.iter().map(|path| public_key(path)).collect::<Result<Vec<_>>>()?;
    if !(1..=keys.len()).contains(&(threshold as usize)) {
        return Err(Failure::input("consortium-threshold", format!("of {} roots, 1 to {0} can be needed", keys.len())));
    }
    std::fs::create_dir_all(dir).map_err(|error| Failure::input("file-unwritable", format!("{}: {error}", dir.display())))?;
    write(&path, consortium::template(name, threshold, &keys, witnesses))?;
    let fingerprint = Roots { threshold, keys }.fingerprint();
    let text =
        format!("{fingerprint}\nis the fingerprint of the roots of `{name}`: tell it to every member by phone or on paper");
    print(json, &json!({ "fingerprint": fingerprint }), &text)
}

fn add(dir: &Path, requests: &Path, json: bool) -> Result<()> {
    let requests: Vec<(Name, Request)> = serde_json::from_slice(&read_bytes(requests)?)
        .map_err(|error| Failure::input("requests-malformed", format!("{}: {error}", requests.display())))?;
    let (text, names) = File::parse(&read(&dir.join(FILE))?)?.added(requests)?;
    append(dir, &text)?;
    let rows = names.iter().flat_map(|(name, keys)| {
        keys.iter()
            .zip(["link or own", "log", "witness"])
            .map(move |(key, what)| vec![name.to_string(), what.to_owned(), key.to_string()])
    });
    let table = show::grid(&["who", "which key", "compare by phone"], rows);
    let document: Vec<_> = names.iter().map(|(name, keys)| json!({ "name": name, "keys": keys })).collect();
    print(json, &json!(document), &table)
}

fn show(file: &Path, json: bool) -> Result<()> {
    let envelope = read_bytes(file)?;
    let failed = |error: &dyn std::fmt::Display, code: &str| coded(code, format!("{}: {error}", file.display()));
    let trust = Trust::stored(&envelope).map_err(|error| failed(&error, error.code()))?;
    let bundle = trust.bundle();
    let signers = dsse::signers(&envelope, BUNDLE_TYPE, &bundle.roots.keys).map_err(|error| failed(&error, error.code()))?;
    if json {
        let document = json!({ "bundle": bundle, "fingerprint": bundle.roots.fingerprint(), "signed_by": signers, "digest": trust.digest() });
        return print(true, &document, "");
    }
    println!("{}, version {}, issued {}, expires {}", bundle.consortium, bundle.version, bundle.issued, bundle.expires);
    println!("roots {}", bundle.roots.fingerprint());
    println!("signed by {} of {} roots; {} must", signers.len(), bundle.roots.keys.len(), bundle.roots.threshold);
    let sites = bundle
        .sites
        .iter()
        .map(|site| vec![site.name.to_string(), site.organisation.to_string(), site.country.to_string(), site.log.to_string()]);
    println!("\n{}", show::grid(&["site", "organisation", "country", "log key"], sites));
    let persons = bundle.persons.iter().map(|person| {
        let roles: Vec<String> = person.roles.iter().map(|role| format!("{role:?}").to_lowercase()).collect();
        vec![
            person.name.to_string(),
            person.organisation.to_string(),
            person.country.to_string(),
            roles.join(", "),
            person.key.to_string(),
        ]
    });
    println!("\n{}", show::grid(&["person", "organisation", "country", "roles", "key"], persons));
    println!("\n{}", bundle.witnesses);
    for key in &bundle.revoked.keys {
        println!("revoked {key}");
    }
    for component in &bundle.revoked.components {
        println!("revoked {component}");
    }
    Ok(())
}
