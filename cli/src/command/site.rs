//! `vestibule site`.

mod policy;
mod queue;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::log::leaf::{Event, Purpose};
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::trust::Rotation;
use vestibule_runtime::charter::Terms;
use vestibule_runtime::dataset::{self, Dataset, Importers, ingest, ingest_afresh};
use vestibule_runtime::home::{Home, HomeError};
use vestibule_runtime::link::Whose;
use vestibule_runtime::site::SiteError;
use vestibule_worker::Launch;

pub(crate) use self::queue::signed;
use super::daemon;
use crate::failure::{Failure, coded};
use crate::files::{now, passphrase, read, read_bytes, with_passphrase, write};
use crate::show;

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
        organisation: String,
        /// Where: an ISO 3166 code of two capital letters.
        #[arg(long)]
        country: String,
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
        why: String,
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
        why: String,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Charter {
    /// Take part in a project, under its charter and this site's own terms, which can only be narrower. Read it first: `vestibule charter show`.
    Accept {
        /// The site's folder.
        dir: PathBuf,
        /// The signed charter.
        charter: PathBuf,
        /// Less than the charter asks for: epsilon for all its jobs here.
        #[arg(long)]
        epsilon: Option<f64>,
        /// The only columns that it may read here.
        #[arg(long = "column")]
        columns: Vec<String>,
        /// A person looks at every release before it leaves.
        #[arg(long)]
        review: bool,
        /// Noised counts below this are released as 0. Costs no privacy, and makes results worse.
        #[arg(long, default_value_t = 0)]
        suppress_below: u32,
        /// Noised counts are released as multiples of this. Costs no privacy, and makes results worse.
        #[arg(long, default_value_t = 1)]
        round_to: u32,
    },
    /// The projects that this site takes part in.
    List {
        /// The site's folder.
        dir: PathBuf,
    },
    /// No longer take part. Holds at once; what was charged stays charged.
    Withdraw {
        /// The site's folder.
        dir: PathBuf,
        /// The charter's digest.
        charter: Digest,
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
    let id = std::fs::metadata("/proc/self").map_or(0, |process| std::os::unix::fs::MetadataExt::uid(&process));
    let details = json!({ "user": user, "uid": id, "on": details });
    let event = Event::Operator { command: command.to_owned() };
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

fn charters(command: Charter, json: bool) -> Result<()> {
    let log = |site: &Home, charter: Digest, project: &Name, accepted: bool, details: serde_json::Value| {
        let event = Event::Charter { charter, project: project.clone(), accepted };
        let logged = site.ledger().map_err(home)?.record(event, Some(&details), since_1970());
        logged.map_err(|error| coded(error.code(), error))
    };
    match command {
        Charter::Accept { dir, charter, epsilon, columns, review, suppress_below, round_to } => {
            let site = recorded(&dir, "charter-accept", json!({ "file": charter }))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "negative and impossible ones are refused"
            )]
            let epsilon_micro = epsilon.map(|epsilon| (epsilon * 1e6).round() as u64);
            let columns = (!columns.is_empty()).then(|| columns.into_iter().collect());
            let terms = Terms { epsilon_micro, columns, review, suppress_below, round_to };
            let accepted = site.accept(&read_bytes(&charter)?, terms.clone()).map_err(home)?;
            let (digest, project) = (accepted.signed().digest(), &accepted.signed().charter().project);
            log(&site, digest, project, true, json!(terms))?;
            let text = format!("takes part in {project}, under {digest}, for at most {:.6} rho", accepted.cap().value());
            print(json, &json!({ "project": project, "charter": digest, "cap_rho": accepted.cap().value() }), &text);
        }
        Charter::List { dir } => {
            let found = open(&dir)?.charters().map_err(home)?;
            let document = found.iter().map(|accepted| {
                let signed = accepted.signed();
                json!({ "project": signed.charter().project, "title": signed.charter().title, "charter": signed.digest(),
                    "until": signed.charter().not_after, "cap_rho": accepted.cap().value(), "terms": accepted.terms() })
            });
            let rows = found.iter().map(|accepted| {
                let charter = accepted.signed().charter();
                let cap = format!("{:.6}", accepted.cap().value());
                vec![
                    charter.project.to_string(),
                    charter.title.clone(),
                    charter.not_after.clone(),
                    cap,
                    accepted.signed().digest().to_string(),
                ]
            });
            let text = show::grid(&["project", "title", "until", "rho here", "charter"], rows);
            print(json, &json!(document.collect::<Vec<_>>()), &text);
        }
        Charter::Withdraw { dir, charter } => {
            let site = recorded(&dir, "charter-withdraw", json!({ "charter": charter }))?;
            let known = site.charters().map_err(home)?.into_iter().find(|accepted| accepted.signed().digest() == charter);
            site.leave(charter).map_err(home)?;
            if let Some(known) = known {
                log(&site, charter, &known.signed().charter().project, false, json!({}))?;
            }
            print(json, &json!({ "charter": charter }), &format!("no longer takes part in {charter}"));
        }
    }
    Ok(())
}

fn take_in(site: &Home, recipe: &Path, afresh: bool, json: bool) -> Result<()> {
    let text = read(recipe)?;
    let folder = recipe.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let source = Dir::open_ambient_dir(folder, ambient_authority())
        .map_err(|error| Failure::input("file-unreadable", format!("{}: {error}", folder.display())))?;
    let data = site.data().map_err(home)?;
    let style = ProgressStyle::with_template("{msg:40} {bar:30} {bytes}/{total_bytes} {eta}")?;
    let bar = ProgressBar::new(0).with_style(style);
    let mut progress = |progress: dataset::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
        bar.set_message(progress.stage);
    };
    let importers = Importers::new(Launch::this_importer(), site.settings().require_walls);
    for gap in importers.gaps().map_err(|error| coded(error.code(), error))? {
        eprintln!("{gap}: the files are read with fewer walls around");
    }
    let take_in = if afresh { ingest_afresh } else { ingest };
    let report = take_in(&source, &text, (&data, &site.store_key()), &importers, &mut progress);
    bar.finish_and_clear();
    let report = report.map_err(|error| coded(error.code(), format!("{}: {error}", recipe.display())))?;
    print(json, &serde_json::to_value(&report)?, &report.to_string());
    Ok(())
}

fn withdraw(site: &Home, name: &Name, mut ids: Vec<String>, file: Option<&Path>, undo: bool, json: bool) -> Result<()> {
    if let Some(file) = file {
        ids.extend(read(file)?.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned));
    }
    let (data, key) = (site.data().map_err(home)?, site.store_key());
    let failed = |error: dataset::IngestError| coded(error.code(), error);
    if undo {
        let found = dataset::readmit(&data, name, &ids, &key).map_err(failed)?;
        let text = format!("{found} of {} are let in again: ingest the dataset once more", ids.len());
        print(json, &json!({ "readmitted": found }), &text);
        return Ok(());
    }
    let dataset::Withdrawal { listed, removed } = dataset::withdraw(&data, name, &ids, &key).map_err(failed)?;
    let text = format!(
        "{listed} of {} are newly left out, from the next job on and at every ingest; {removed} rows were removed from the file",
        ids.len()
    );
    print(json, &json!({ "listed": listed, "removed": removed }), &text);
    Ok(())
}

fn datasets(site: &Home, json: bool) -> Result<()> {
    let data = site.data().map_err(home)?;
    let failed = |error: dataset::DatasetError| coded(error.code(), error);
    let mut found = Vec::new();
    for name in dataset::list(&data).map_err(failed)? {
        found.extend(Dataset::info_of(&data, &name).map_err(failed)?);
    }
    let places = found.iter().map(|info| Dataset::place_of(&data, &info.name).map(Option::unwrap_or_default));
    let places = places.collect::<Result<Vec<String>, _>>().map_err(failed)?;
    let documents = found.iter().zip(&places).map(|(info, place)| {
        let catalogues = info.catalogues.iter().map(|catalogue| {
            json!({ "name": catalogue.name, "digest": catalogue.digest, "build": catalogue.build, "variants": catalogue.variants.len() })
        });
        json!({ "name": info.name, "about": info.about, "approximate_size": info.approximate_size, "dictionary": info.dictionary.digest,
            "columns": info.dictionary.columns, "catalogues": catalogues.collect::<Vec<_>>(), "duo": info.duo, "conditions": info.conditions, "budget": info.budget, "rows": place })
    });
    let document = json!(documents.collect::<Vec<_>>());
    let rows = found.iter().zip(places).map(|(info, place)| {
        let catalogues: Vec<String> = info
            .catalogues
            .iter()
            .map(|catalogue| format!("{} ({} variants)", catalogue.name, catalogue.variants.len()))
            .collect();
        vec![info.name.to_string(), info.about.clone(), info.dictionary.columns.len().to_string(), catalogues.join(", "), place]
    });
    print(json, &document, &show::grid(&["dataset", "about", "columns", "catalogues", "rows"], rows));
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn femto(amount: u64) -> f64 {
    amount as f64 / 1e15
}

fn budget(site: &Home, json: bool) -> Result<()> {
    let accounts = site.ledger().map_err(home)?.accounts().map_err(|error| coded(error.code(), error))?;
    let document: Vec<_> = accounts
        .iter()
        .map(|account| {
            let jobs = account.jobs.iter().map(|job| {
                json!({ "job": job.job, "dataset": job.dataset, "researcher": job.researcher, "title": job.title, "reserved_rho": job.reserved.value(),
                    "spent_rho": job.spent.value(), "rounds": job.rounds, "ended": job.ended })
            });
            json!({ "population": account.population, "delta": account.cap_delta, "moments_delta": femto(account.moments_femto),
                "cap_rho": account.cap.value(), "cap_epsilon": account.epsilon(account.cap),
                "spent_rho": account.spent.value(), "spent_epsilon": account.epsilon(account.spent),
                "reserved_rho": account.reserved.value(), "jobs": jobs.collect::<Vec<_>>() })
        })
        .collect();
    let mut text = Vec::new();
    for account in &accounts {
        let delta = account.cap_delta;
        text.push(format!(
            "{}: spent epsilon {:.3} of {:.3} at delta {delta:e} (rho {:.6} of {:.6}; {:.6} reserved)",
            account.population,
            account.epsilon(account.spent),
            account.epsilon(account.cap),
            account.spent.value(),
            account.cap.value(),
            account.reserved.value()
        ));
        let rows = account.jobs.iter().map(|job| {
            let state = if job.ended { "ended" } else { "open" };
            vec![
                job.job.to_string(),
                job.dataset.to_string(),
                job.researcher.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                job.title.clone().unwrap_or_else(|| "-".to_owned()),
                job.rounds.to_string(),
                format!("{:.6}", job.spent.value()),
                state.to_owned(),
            ]
        });
        text.push(show::grid(&["job", "dataset", "researcher", "title", "rounds", "rho", ""], rows));
    }
    if accounts.is_empty() {
        text.push("nothing was spent".to_owned());
    }
    print(json, &json!(document), &text.join("\n"));
    Ok(())
}
