//! `vestibule site`.

mod budget;
mod charter;
mod data;
mod policy;
mod queue;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_protocol::log::leaf::{Event, Purpose};
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::trust::Rotation;
use vestibule_protocol::words::{Country, Label, Organisation, Reason};
use vestibule_runtime::home::{Home, HomeError};
use vestibule_runtime::link::Whose;
use vestibule_runtime::site::SiteError;

use self::budget::budget;
use self::charter::{Charter, charters};
use self::data::{datasets, take_in, withdraw};
pub(crate) use self::queue::signed;
use super::daemon;
use crate::failure::{Failure, coded};
use crate::files::{now, passphrase, with_passphrase, write};

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Make a site in DIR. Its keys are protected by the passphrase in VESTIBULE_PASSPHRASE, if there is one.
    Init {
        /// A new folder.
        dir: PathBuf,
    },
    /// Join a coordinator with the token that you were given.
    Join {
        /// The site's folder.
        dir: PathBuf,
        /// The token.
        token: String,
        /// Whose the site is.
        #[arg(long)]
        organisation: Organisation,
        /// Where: an ISO 3166 code of two capital letters.
        #[arg(long)]
        country: Country,
    },
    /// Run it until Ctrl-C or SIGTERM. It dials out; nothing listens.
    Run {
        /// The site's folder.
        dir: PathBuf,
    },
    /// Take in the data that a DATASET.toml describes. The dataset that served before serves until the new one is whole.
    Ingest {
        /// The site's folder.
        dir: PathBuf,
        /// The recipe; its files lie beside it.
        dataset: PathBuf,
        /// Read all files again, also those that the dataset was read from before and that seem the same.
        #[arg(long)]
        afresh: bool,
    },
    /// Leave individuals out, who withdrew their consent: from the next job on, and of the rows at rest.
    Withdraw {
        /// The site's folder.
        dir: PathBuf,
        /// The dataset.
        dataset: Name,
        /// Their ids, as the site's files have them.
        ids: Vec<String>,
        /// A file with an id on each line.
        #[arg(long)]
        file: Option<PathBuf>,
        /// Let them in again, who withdrew by mistake: the next ingest takes them in.
        #[arg(long)]
        undo: bool,
    },
    /// A new store key in the place of keys/store.pem: what the old one opens (backups, and copies of it) is no longer read by this site. The
    /// datasets are not ingested again. The daemon must be stopped.
    RotateStoreKey {
        /// The site's folder.
        dir: PathBuf,
    },
    /// Make new keys for the site's link, log and witness (or some of them), and write what asks the consortium's roots to put them in the place of the ones
    /// it has: OUT/link.json and so on, for `vestibule consortium rotate`. They are used from the first start on at which the bundle names them.
    RotateKeys {
        /// The site's folder.
        dir: PathBuf,
        /// A new folder.
        out: PathBuf,
        /// Its link's.
        #[arg(long)]
        link: bool,
        /// Its log's.
        #[arg(long)]
        log: bool,
        /// Its witness'.
        #[arg(long)]
        witness: bool,
    },
    /// The public key with which others encrypt files for this site, as Crypt4GH: `crypt4gh encrypt --recipient_pk`. `ingest` reads such files.
    Crypt4gh {
        /// The site's folder.
        dir: PathBuf,
    },
    /// The datasets, as the coordinator sees them.
    Datasets {
        /// The site's folder.
        dir: PathBuf,
    },
    /// What was spent of each dataset's budget, and by whom.
    Budget {
        /// The site's folder.
        dir: PathBuf,
    },
    /// Copy the site into OUT, without its keys, while the daemon runs: whole, or not at all. What lies in the copy is sealed, or public; it takes the keys to
    /// restore the site from it. Keep those elsewhere.
    Backup {
        /// The site's folder.
        dir: PathBuf,
        /// A new folder.
        out: PathBuf,
        /// Leave the datasets out: they can be ingested again.
        #[arg(long)]
        without_data: bool,
    },
    /// Let a frozen site go on, after it was restored from a copy or ran twice: books all that its lost leaves can have spent, and gives its
    /// log a new name, which the consortium's roots must put in place of the old one.
    Recover {
        /// The site's folder.
        dir: PathBuf,
    },
    /// Which projects this site takes part in.
    #[command(subcommand)]
    Charter(Charter),
    /// The rules by which this site admits, holds and refuses.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// What waits for a person: jobs before they run, releases before they leave.
    Queue {
        /// The site's folder.
        dir: PathBuf,
        /// Only this one, with what it would release.
        number: Option<u64>,
        /// Also what was decided.
        #[arg(long)]
        all: bool,
    },
    /// Say yes to what waits, with your own key.
    Approve {
        /// The site's folder.
        dir: PathBuf,
        /// Its number in the queue.
        number: u64,
        /// Your secret key, as an approver.
        #[arg(long)]
        key: PathBuf,
        /// Why.
        #[arg(long)]
        why: Reason,
        /// Say yes to the job's component instead, for this and all later jobs.
        #[arg(long)]
        component: bool,
    },
    /// Say no to what waits, with your own key. What was charged stays charged.
    Deny {
        /// The site's folder.
        dir: PathBuf,
        /// Its number in the queue.
        number: u64,
        /// Your secret key, as an approver.
        #[arg(long)]
        key: PathBuf,
        /// Why.
        #[arg(long)]
        why: Reason,
        /// Say no to the job's component instead, for this and all later jobs.
        #[arg(long)]
        component: bool,
    },
    /// Take in a review of a component that somebody whose word counts here signed elsewhere.
    Review {
        /// The site's folder.
        dir: PathBuf,
        /// What `vestibule review` wrote.
        review: PathBuf,
    },
}

fn open(dir: &Path) -> Result<Home> {
    with_passphrase(|passphrase| Home::open(dir, passphrase), HomeError::code)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn home(error: HomeError) -> anyhow::Error {
    coded(error.code(), &error)
}

impl Site {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Init { dir } => {
                let passphrase = passphrase();
                let made = Home::init(&dir, passphrase.as_deref().map(String::as_str)).map_err(home)?;
                let key = made.link_key().public().to_string();
                print(
                    json,
                    &json!({ "dir": dir, "key": key }),
                    &format!("made a site in {}; its settings are in site.toml", dir.display()),
                );
                Ok(())
            }
            Self::Join { dir, token, organisation, country } => {
                let site = recorded(&dir, "join", json!({}))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let joined =
                    runtime.block_on(vestibule_runtime::link::join(&site, &token, Whose { organisation, country }, now()));
                let (name, consortium) = joined.map_err(|error| coded(error.code(), error))?;
                let text = format!(
                    "joined as {name}; the consortium's roots have the fingerprint\n{consortium}\ncompare it by phone with one of \
                     their holders, who will compare your site's keys with you"
                );
                print(json, &json!({ "name": name, "consortium": consortium }), &text);
                Ok(())
            }
            Self::Run { dir } => {
                let site = open(&dir)?;
                daemon(async |stop| vestibule_runtime::site::run(site, stop).await, SiteError::code)
            }
            Self::Ingest { dir, dataset, afresh } => {
                let site = recorded(&dir, "ingest", json!({ "recipe": dataset, "afresh": afresh }))?;
                take_in(&site, &dataset, afresh, json)
            }
            Self::Withdraw { dir, dataset, ids, file, undo } => {
                let site = recorded(&dir, if undo { "readmit" } else { "withdraw" }, json!({ "dataset": dataset }))?;
                withdraw(&site, &dataset, ids, file.as_deref(), undo, json)
            }
            Self::Datasets { dir } => datasets(&open(&dir)?, json),
            Self::RotateStoreKey { dir } => {
                let site = recorded(&dir, "rotate-store-key", json!({}))?;
                with_passphrase(|passphrase| site.rotate_store_key(passphrase), HomeError::code)?;
                print(
                    json,
                    &json!({ "rotated": "keys/store.pem" }),
                    "keys/store.pem is new; back it up apart from the data, and destroy the old one's copies",
                );
                Ok(())
            }
            Self::RotateKeys { dir, out, link, log, witness } => {
                let all = !(link || log || witness);
                let asked = [(Purpose::Link, link), (Purpose::Log, log), (Purpose::Witness, witness)];
                rotate(&dir, &out, asked.into_iter().filter(|(_, asked)| all || *asked).map(|(what, _)| what), json)
            }
            Self::Crypt4gh { dir } => {
                let public = open(&dir)?.store_key().crypt4gh().public();
                print(json, &json!({ "public": public }), public.trim_end());
                Ok(())
            }
            Self::Backup { dir, out, without_data } => {
                let site = recorded(&dir, "backup", json!({ "out": out, "data": !without_data }))?;
                let done = site.backup(&out, !without_data).map_err(home)?;
                let text = format!(
                    "{} files, {} bytes, in {}; they are of no use without keys/, which is not among them: keep that elsewhere",
                    done.files,
                    done.bytes,
                    out.display()
                );
                print(json, &json!(done), &text);
                Ok(())
            }
            Self::Recover { dir } => {
                let site = recorded(&dir, "recover", json!({}))?;
                let done = vestibule_runtime::site::recover(&site, since_1970()).map_err(|error| coded(error.code(), error))?;
                let booked = |(name, rho): &(Name, Rho)| json!({ "population": name, "rho": rho.value() });
                let list: Vec<_> = done.booked.iter().map(booked).collect();
                let mut text = vec![format!("{} leaves are lost; what they can have spent is booked as spent:", done.missing)];
                text.extend(done.booked.iter().map(|(name, rho)| format!("  {name}: {:.6} rho", rho.value())));
                text.push(format!("the log goes on as\n{}", done.origin));
                text.push("tell the consortium's roots: jobs are considered again once their trust bundle names it".to_owned());
                print(json, &json!({ "missing": done.missing, "booked": list, "log_origin": done.origin }), &text.join("\n"));
                Ok(())
            }
            Self::Budget { dir } => budget(&recorded(&dir, "budget", json!({}))?, json),
            Self::Charter(command) => charters(command, json),
            Self::Policy(command) => command.run(json),
            Self::Queue { dir, number, all } => queue::show(&dir, number, all, json),
            Self::Approve { dir, number, key, why, component } => {
                queue::decide(&dir, queue::Word { number, approved: true, key: &key, why, component }, json)
            }
            Self::Deny { dir, number, key, why, component } => {
                queue::decide(&dir, queue::Word { number, approved: false, key: &key, why, component }, json)
            }
            Self::Review { dir, review } => queue::import(&dir, &review, json),
        }
    }
}

/// Logs that the operator gives this command, before it does anything; opens the site.
fn recorded(dir: &Path, command: &str, details: serde_json::Value) -> Result<Home> {
    let site = open(dir)?;
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).unwrap_or_default();
    let id = rustix::process::getuid().as_raw();
    let details = json!({ "user": user, "uid": id, "on": details });
    let event = Event::Operator { command: Label::cut(command) };
    let ledger = site.ledger().map_err(home)?;
    ledger.record(event, Some(&details), since_1970()).map_err(|error| coded(error.code(), error))?;
    Ok(site)
}

/// Makes keys and writes rotations.
fn rotate(dir: &Path, out: &Path, asked: impl Iterator<Item = Purpose>, json: bool) -> Result<()> {
    let asked: Vec<Purpose> = asked.collect();
    let names: Vec<&str> = asked.iter().map(|what| what.name()).collect();
    let site = recorded(dir, "rotate-keys", json!({ "keys": names }))?;
    std::fs::create_dir_all(out).map_err(|error| Failure::input("file-unwritable", format!("{}: {error}", out.display())))?;
    let (mut document, mut text) = (serde_json::Map::new(), Vec::new());
    for what in asked {
        let envelope = with_passphrase(|passphrase| site.rotate(what, passphrase), HomeError::code)?;
        let Rotation { former, key } = Rotation::verify(&envelope).map_err(|error| coded(error.code(), error))?;
        let file = out.join(format!("{}.json", what.name()));
        write(&file, envelope)?;
        text.push(format!("{}: {key}\n  in the place of {former}, by {}", what.name(), file.display()));
        document.insert(what.name().to_owned(), json!({ "former": former, "key": key, "file": file }));
    }
    text.push("the roots compare them with you by phone; restart the site once it has their bundle, and have the former keys revoked after that".to_owned());
    print(json, &document.into(), &text.join("\n"));
    Ok(())
}

fn since_1970() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

fn print(json: bool, document: &serde_json::Value, text: &str) {
    if json {
        println!("{document}");
    } else {
        println!("{text}");
    }
}
