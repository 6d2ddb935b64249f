//! `vestibule log`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::leaf::nothing;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{BUNDLE_TYPE, Trust, TrustError};
use vestibule_runtime::home::{COORDINATOR, Coordinator, HomeError, LEDGER, LOG_KEY, seal_of};
use vestibule_runtime::ledger::Seal;
use vestibule_runtime::log::{self, Found, Source, Verified};

use crate::failure::{Exit, Failure, coded};
use crate::files::{public_key, read_bytes, rfc3339, with_passphrase, write};
use crate::html::transparency;
use crate::show;

#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// What a site logged, oldest first.
    Show {
        #[command(flatten)]
        site: Folder,
        /// The last so many only.
        #[arg(long)]
        last: Option<u64>,
    },
    /// The transparency report, for the people in the data: who asked what and why, what it cost and what left, each line with its proof.
    Report {
        #[command(flatten)]
        site: Folder,
        /// Also write it as a page.
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Write all that the site knows of one job into a folder, for an oversight body: a Five Safes RO-Crate.
    Crate {
        #[command(flatten)]
        site: Folder,
        /// The job's id.
        job: JobId,
        /// A new folder.
        out: PathBuf,
    },
    /// Write the log as files for an oversight body to keep and to check, in the form of C2SP's tlog-tiles, without its details.
    Export {
        /// The site's folder, or a copy of it.
        dir: PathBuf,
        /// A new folder.
        out: PathBuf,
    },
    /// Verify a site's log and ledger, offline: hash every leaf again, recompute the ledger from the leaves, check every signature.
    Verify {
        #[command(flatten)]
        site: Folder,
        /// The consortium's trust bundle, from somewhere else than the folder: it says whose the log is, and who witnesses it.
        #[arg(long)]
        bundle: Option<PathBuf>,
        /// The fingerprint of the consortium's roots, compared by phone or on paper. Without it the bundle is believed for the roots that it names itself.
        #[arg(long)]
        consortium: Option<Digest>,
    },
}

/// A site's folder, and what opens its sealed records.
#[derive(Debug, clap::Args)]
pub(crate) struct Folder {
    /// The site's folder, or a copy of it.
    dir: PathBuf,
    /// The folder of the site's keys, where it is not `keys` in that folder. Without them what is sealed (names, reasons, signed words, what was
    /// released) is left out.
    #[arg(long)]
    keys: Option<PathBuf>,
}

impl Folder {
    fn seal(&self) -> Result<Option<Seal>> {
        with_passphrase(|passphrase| seal_of(&self.dir, self.keys.as_deref(), passphrase), HomeError::code)
    }

    fn source(&self) -> Result<Source> {
        Ok(Source::new(self.dir.join(LEDGER), self.seal()?))
    }
}

impl Log {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Show { site, last } => show(&site, last, json),
            Self::Export { dir, out } => {
                let done =
                    log::export(&Source::new(dir.join(LEDGER), None), &out).map_err(|error| coded(error.code(), error))?;
                let text = format!("{} leaves of {} in {} files, in {}", done.size, done.origin, done.files, out.display());
                let document = json!({ "origin": done.origin, "leaves": done.size, "files": done.files });
                println!("{}", if json { document.to_string() } else { text });
                Ok(())
            }
            Self::Crate { site, job, out } => {
                let done = log::ro_crate(&site.dir, site.seal()?, job, &out).map_err(|error| coded(error.code(), error))?;
                let text = format!("{} lines of the log and {} releases, in {}", done.lines, done.releases, out.display());
                println!("{}", if json { json!({ "lines": done.lines, "releases": done.releases }).to_string() } else { text });
                Ok(())
            }
            Self::Report { site, html } => report(&site, html, json),
            Self::Verify { site, bundle, consortium } => verify(&site, bundle.as_deref(), consortium, json),
        }
    }
}

fn show(site: &Folder, last: Option<u64>, json: bool) -> Result<()> {
    let lines = log::read(&site.source()?, last).map_err(|error| coded(error.code(), error))?;
    if json {
        println!("{}", serde_json::to_string(&lines)?);
        return Ok(());
    }
    let rows = lines.into_iter().map(|line| {
        let (kind, rest) = log::words(&line.leaf.event);
        let mut details = line.details;
        if let Some(serde_json::Value::Object(details)) = &mut details {
            // The signed terms are for `--json` and `log crate`.
            details.remove("manifest");
        }
        let gone = if line.sealed { "(sealed)" } else { "(erased)" };
        let details = details.map(|details| details.to_string()).or_else(|| line.leaf.details.map(|_| gone.to_owned()));
        vec![line.number.to_string(), rfc3339(line.leaf.at_ms), kind, rest, details.unwrap_or_default()]
    });
    println!("{}", show::grid(&["leaf", "time (UTC)", "what", "", "details"], rows));
    Ok(())
}

fn report(site: &Folder, html: Option<PathBuf>, json: bool) -> Result<()> {
    let report = log::report(&site.source()?, &site.dir.join("charters")).map_err(|error| coded(error.code(), error))?;
    if let Some(path) = html {
        write(&path, transparency::page(&report))?;
        eprintln!("wrote {}", path.display());
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
        return Ok(());
    }
    for account in &report.accounts {
        let (spent, cap) = (account.spent_epsilon, account.cap_epsilon);
        println!("{}: epsilon {spent:.3} of {cap:.3} was spent, for good (delta {:e})", account.population, account.delta);
    }
    let rows = report.projects.iter().flat_map(|project| {
        project.jobs.iter().map(|job| {
            let rho: f64 = job.rounds.iter().map(|round| round.rho).sum();
            let numbers: usize = job.rounds.iter().flat_map(|round| &round.released).map(|(_, numbers)| numbers).sum();
            vec![
                project.name.clone().unwrap_or_default(),
                rfc3339(job.admitted_ms),
                job.researcher.clone().unwrap_or_default(),
                job.title.clone().filter(|title| !title.is_empty()).unwrap_or_else(|| job.job.to_string()),
                job.columns.clone().unwrap_or_default().join(", "),
                format!("{rho:.6}"),
                numbers.to_string(),
                job.admitted.leaf.to_string(),
            ]
        })
    });
    println!(
        "{}",
        show::grid(&["project", "when (UTC)", "who", "question", "columns", "rho", "numbers released", "line"], rows)
    );
    for (code, count) in &report.refused {
        println!("refused {count} times: {code}");
    }
    for (what, count) in &report.decided {
        println!("people decided {count} times: {what}");
    }
    println!("{} lines, proven by witnesses up to {}", report.leaves, report.proven);
    Ok(())
}

/// Whose a log is.
struct Whose {
    /// The keys that sign it.
    keys: Vec<PublicKey>,
    /// The bundle that says so, and the site's name in it.
    trust: Option<(Trust, Name)>,
    /// How many of the bundle's roots signed it.
    signers: usize,
    /// The fingerprint that the bundles are held against, and whether it came from somewhere else than the folder.
    pinned: Option<Digest>,
    told: bool,
    /// Why the folder's own bundle is not believed.
    wrong: Option<Found>,
}

/// Who signs the log, and who witnesses it: as the bundle says, or as the folder does where none is given or none came yet.
fn whose(dir: &Path, source: &Source, bundle: Option<&Path>, consortium: Option<Digest>) -> Result<Whose> {
    let file = dir.join(COORDINATOR);
    let joined = file.exists().then(|| read_bytes(&file)).transpose()?;
    let joined = joined.map(|joined| Coordinator::read(&joined)).transpose();
    let joined = joined.map_err(|why| coded("site-settings", format!("{}: {why}", file.display())))?;
    let pinned = consortium.or(joined.as_ref().map(|joined| joined.consortium));
    let (mut wrong, mut found, mut signers) = (None, None, 0);
    match (bundle, pinned) {
        (Some(file), _) => {
            let failed = |error: TrustError| coded(error.code(), format!("{}: {error}", file.display()));
            let envelope = read_bytes(file)?;
            // Without a fingerprint from elsewhere, that of its own roots: the reader of the answer compares it.
            let trust = match consortium {
                Some(pinned) => Trust::first(&envelope, pinned).map_err(failed)?,
                None => Trust::stored(&envelope).map_err(failed)?,
            };
            signers = dsse::signers(&envelope, BUNDLE_TYPE, &trust.bundle().roots.keys).map_or(0, |signers| signers.len());
            found = Some(trust);
        }
        (None, Some(pinned)) => match log::believed(dir, source, pinned).map_err(|error| coded(error.code(), error))? {
            Ok(trust) => found = trust,
            Err(why) => wrong = Some(why),
        },
        (None, None) => {}
    }
    let named = found.zip(joined.map(|joined| joined.site));
    let logs = named.as_ref().map(|(trust, name)| trust.logs(name)).unwrap_or_default();
    if let (Some(file), [], Some((_, name))) = (bundle, logs.as_slice(), &named) {
        let why = format!("{}: the bundle names no site `{name}`, or its log was revoked", file.display());
        return Err(Failure::of(Exit::Refused, "site-not-member", why));
    }
    let keys = match logs.as_slice() {
        [] => vec![public_key(&dir.join(LOG_KEY))?],
        logs => logs.iter().map(|log| log.key).collect(),
    };
    Ok(Whose { keys, trust: named, signers, pinned, told: consortium.is_some(), wrong })
}

fn verify(site: &Folder, bundle: Option<&Path>, consortium: Option<Digest>, json: bool) -> Result<()> {
    let source = site.source()?;
    let Whose { keys, trust, signers, pinned, told, wrong } = whose(&site.dir, &source, bundle, consortium)?;
    let policy = trust.as_ref().map(|(trust, name)| (trust.policy(), name.as_str()));
    let Verified { origin, root, replay, checkpoints, witnessed, erased, sealed, mut found } =
        log::verify(&source, &keys, policy).map_err(|error| coded(error.code(), error))?;
    let whose = trust.as_ref().map(|(trust, name)| (trust, name));
    let documents =
        log::signatures((&site.dir, &source), &replay, pinned, whose).map_err(|error| coded(error.code(), error))?;
    found.extend(documents);
    if let Some(wrong) = wrong.filter(|wrong| !found.contains(wrong)) {
        found.push(wrong);
    }
    let settings = std::fs::read(site.dir.join("site.toml")).ok().map(|settings| Digest::of(&settings));
    let settings_changed = replay.settings.is_some() && settings != replay.settings;
    let roots = trust.as_ref().map(|(trust, _)| trust.bundle().roots.fingerprint());
    let key = replay.log_keys.last().map_or_else(|| keys.first().map(ToString::to_string), |(.., key)| Some(key.to_string()));
    let key = key.unwrap_or_default();
    let rounds = replay.jobs.values().flat_map(|job| &job.rounds);
    let releases = rounds.filter(|round| round.settled.is_some_and(|(_, release)| release != nothing())).count();
    if json {
        let accounts = replay.accounts.iter().map(|(name, account)| {
            json!({ "population": name, "spent_rho_pico": account.spent_rho_pico, "committed_rho_pico": account.committed_rho_pico,
                "cap_rho_pico": account.cap_rho_pico })
        });
        let document = json!({ "whole": found.is_empty(), "origin": origin, "leaves": replay.leaves, "root": root, "key": key,
            "checkpoints": checkpoints, "witnessed": witnessed, "erased": erased, "sealed": sealed, "jobs": replay.jobs.len(), "releases": releases,
            "accounts": accounts.collect::<Vec<_>>(), "roots": roots, "roots_signed": signers, "roots_pinned": told,
            "settings_changed": settings_changed, "found": found });
        println!("{document}");
    } else {
        println!("{origin}: {} leaves, root {root}", replay.leaves);
        println!(
            "signed by {key}; {checkpoints} checkpoints kept, witnessed up to {witnessed} leaves; details of {erased} erased"
        );
        for (name, account) in &replay.accounts {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let rho = |pico: u64| pico as f64 / 1e12;
            let (spent, cap) = (rho(account.spent_rho_pico), rho(account.cap_rho_pico));
            println!("{name}: {spent:.6} rho spent of {cap:.6}, recomputed from the leaves");
        }
        println!("{} jobs, {releases} releases", replay.jobs.len());
        match &trust {
            Some((trust, _)) if bundle.is_some() => {
                let needed = trust.bundle().roots.threshold;
                println!("by a bundle that {signers} of its roots signed ({needed} must), whose fingerprint is");
            }
            Some(_) => {
                println!("by the bundles in the folder, one after the other; the fingerprint of the last one's roots is")
            }
            None => println!("by the folder's own word alone: no bundle of a consortium is believed in it"),
        }
        if let Some(roots) = roots {
            println!("{roots}{}", if told { "" } else { ": compare it by phone, and give it as --consortium" });
        }
        if settings_changed {
            println!("site.toml is not what the daemon started with last");
        }
        if sealed > 0 {
            println!(
                "{sealed} sealed records (details, releases, signed words) were not opened: the site's keys are not here, name their folder with --keys"
            );
        }
        for problem in &found {
            println!("WRONG  {}: {}", problem.place, problem.why);
        }
        if found.is_empty() {
            println!(
                "the log is whole, and the ledger is what it says{}",
                if sealed > 0 { ", as far as it was opened" } else { "" }
            );
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        let text = if json { String::new() } else { format!("{} things are wrong with the log", found.len()) };
        Err(Failure::of(Exit::Refused, "log-not-whole", text))
    }
}
