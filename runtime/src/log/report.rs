//! The transparency report: what a site did with its data, for the people in them.
//!
//! *In*: the ledger's file, the charters that lie beside it. *Out*: [`Report`]: per project and job who, why, when, which columns, how much privacy
//! was spent, what was released and what was refused; each with its leaf and the proof that it is in the log's newest witnessed checkpoint.
//! *Trusts*: the file, which `log verify` is for. *Refuses*: to add anything: every number in it is a public term or left the site before.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::OptionalExtension as _;
use serde::Serialize;
use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, nothing};
use vestibule_protocol::log::proof::LeafProof;
use vestibule_protocol::log::replay::Replay;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::release::Release;
use vestibule_protocol::review::Subject;
use vestibule_protocol::words::Code;

use super::verify::LogCheckError;
use super::{Line, Source, inclusion, read};

/// What a site did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which log this is from.
    pub log: String,
    /// How many lines it has.
    pub leaves: u64,
    /// How many of them the newest kept checkpoint covers: what came later is proven by the next.
    pub proven: u64,
    /// What was spent of each population's data.
    pub accounts: Vec<Account>,
    /// The projects.
    pub projects: Vec<Project>,
    /// How many offers were refused or turned away, by code.
    pub refused: BTreeMap<Code, u64>,
    /// What people decided, and how often: about jobs, components and releases.
    pub decided: BTreeMap<String, u64>,
}

/// One population's account.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    /// Whose data.
    pub population: String,
    /// Spent, as epsilon at the account's delta.
    pub spent_epsilon: f64,
    /// What may ever be.
    pub cap_epsilon: f64,
    /// The delta of both.
    pub delta: f64,
}

/// One project.
#[derive(Debug, Clone, Serialize)]
pub struct Project {
    /// Its charter.
    pub charter: Digest,
    /// Its short name; a charter that is no longer here has none.
    pub name: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// What it is for, in plain words.
    pub summary: Option<String>,
    /// The same in codes.
    pub purpose: Vec<String>,
    /// Its jobs.
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    /// Its id.
    pub job: JobId,
    /// Its title, unless it was erased.
    pub title: Option<String>,
    /// Who signed it, unless that was erased.
    pub researcher: Option<String>,
    /// What it read.
    pub dataset: String,
    /// Which columns, unless that was erased.
    pub columns: Option<Vec<String>>,
    /// Of which catalogues it may have read genotypes, unless that was erased.
    pub catalogues: Option<Vec<String>>,
    /// When it was admitted, in milliseconds since 1970.
    pub admitted_ms: i64,
    /// The line of its admission.
    pub admitted: Proof,
    /// Its rounds.
    pub rounds: Vec<Round>,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// What it cost, in rho.
    pub rho: f64,
    /// The line of its charge.
    pub charged: Proof,
    /// The line of its answer, if it has left.
    pub settled: Option<Proof>,
    /// What left: statistics, and how many numbers of each.
    pub released: Vec<(String, usize)>,
}

/// Where something stands in the log.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// The line's number.
    pub leaf: u64,
    /// The line.
    pub line: String,
    /// A tlog-proof of it in the newest checkpoint that was kept; none where that is older.
    pub proof: Option<String>,
}

/// Reports on a log; `charters` is the site's folder of charters.
///
/// # Errors
/// There is no ledger that could be read.
pub fn report(source: &Source, charters: &Path) -> Result<Report, LogCheckError> {
    let lines = read(source, None)?;
    let error = |why: rusqlite::Error| source.error(why);
    let connection = source.open()?;
    let sql = "SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1";
    let note: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional().map_err(error)?;
    let size = note.as_deref().and_then(|note| Checkpoint::parse(&(note.split("\n\n").next()?.to_owned() + "\n")));
    let size = size.map_or(0, |checkpoint| checkpoint.size);
    let proof = |leaf: u64| -> Result<Proof, LogCheckError> {
        let line = String::from_utf8_lossy(&super::leaf(&connection, leaf).map_err(error)?).into_owned();
        let Some(checkpoint) = note.clone().filter(|_| leaf < size) else { return Ok(Proof { leaf, line, proof: None }) };
        let hashes = inclusion(&connection, leaf, size).map_err(error)?;
        Ok(Proof { leaf, line, proof: Some(LeafProof { index: leaf, hashes, checkpoint }.text()) })
    };
    let (mut replay, mut refused, mut decided) = (Replay::default(), BTreeMap::new(), BTreeMap::new());
    for line in &lines {
        // A log that is not whole is for `log verify` to tell.
        let _ = replay.apply(&line.leaf);
        if let Event::Refused { code, .. } | Event::Rejected { code } = &line.leaf.event {
            *refused.entry(code.clone()).or_insert(0) += 1;
        }
        if let Event::Reviewed { subject, approved } = &line.leaf.event {
            let what = match subject {
                Subject::Job { .. } => "job",
                Subject::Component { .. } => "component",
                Subject::Release { .. } => "release",
            };
            *decided.entry(format!("{what} {}", if *approved { "approved" } else { "denied" })).or_insert(0) += 1;
        }
    }
    let mut jobs: Vec<_> = replay.jobs.iter().collect();
    jobs.sort_by_key(|(_, job)| job.leaf);
    let mut projects: Vec<Project> = Vec::new();
    for (id, job) in jobs {
        let rounds = job.rounds.iter().enumerate().map(|(index, round)| {
            let released = match round.settled {
                Some((_, release)) if release != nothing() => shape(&connection, *id, index).map_err(error)?,
                _ => vec![],
            };
            let settled = round.settled.map(|(leaf, _)| proof(leaf)).transpose()?;
            Ok(Round { rho: Rho::from_pico(round.rho_pico).value(), charged: proof(round.leaf)?, settled, released })
        });
        let rounds = rounds.collect::<Result<Vec<_>, LogCheckError>>()?;
        let line = usize::try_from(job.leaf).ok().and_then(|leaf| lines.get(leaf));
        let detail = |name: &str| line.and_then(|line| line.details.as_ref()?.get(name)).cloned();
        let list = |name: &str| detail(name).and_then(|list| serde_json::from_value(list).ok());
        let text = |name: &str| detail(name).and_then(|value| value.as_str().map(str::to_owned));
        let found = Job {
            job: *id,
            title: text("title"),
            researcher: text("researcher"),
            dataset: job.dataset.to_string(),
            columns: list("columns"),
            catalogues: list("catalogues"),
            admitted_ms: line.map_or(0, |line: &Line| line.leaf.at_ms),
            admitted: proof(job.leaf)?,
            rounds,
        };
        match projects.iter_mut().find(|project| project.charter == job.charter) {
            Some(project) => project.jobs.push(found),
            None => projects.push(Project { jobs: vec![found], ..project(charters, job.charter) }),
        }
    }
    let accounts = replay.accounts.iter().map(|(name, account)| {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let delta = account.cap_delta_femto as f64 / 1e15;
        let epsilon = |pico| Rho::from_pico(pico).epsilon(delta * crate::delay::SUMS_DELTA);
        let (spent_epsilon, cap_epsilon) = (epsilon(account.spent_rho_pico), epsilon(account.cap_rho_pico));
        Account { population: name.to_string(), spent_epsilon, cap_epsilon, delta }
    });
    let log = super::origin(&connection).map_err(error)?;
    Ok(Report { log, leaves: replay.leaves, proven: size, accounts: accounts.collect(), projects, refused, decided })
}

/// The names and lengths of what a round released.
fn shape(connection: &rusqlite::Connection, job: JobId, round: usize) -> rusqlite::Result<Vec<(String, usize)>> {
    let sql = "SELECT unseal('release', job || ' ' || round, bytes) FROM release WHERE job = ?1 AND round = ?2";
    let round = i64::try_from(round).unwrap_or(i64::MAX);
    let bytes: Option<Vec<u8>> = connection.query_row(sql, (job.to_string(), round), |row| row.get(0)).optional()?.flatten();
    let release = bytes.and_then(|bytes| serde_json::from_slice::<Release>(&bytes).ok());
    let statistics = release.map(|release| release.statistics).unwrap_or_default();
    Ok(statistics.into_iter().map(|statistic| (statistic.name, statistic.steps.len())).collect())
}

/// A project, from its charter if that is still here.
fn project(charters: &Path, digest: Digest) -> Project {
    let files = [".json", ".left.json"].map(|suffix| charters.join(format!("{}{suffix}", digest.hex())));
    let envelope = files.iter().find_map(|file| std::fs::read(file).ok());
    let signed = envelope.and_then(|envelope| SignedCharter::verify(&envelope).ok()).filter(|signed| signed.digest() == digest);
    let charter = signed.as_ref().map(SignedCharter::charter);
    Project {
        charter: digest,
        name: charter.map(|charter| charter.project.to_string()),
        title: charter.map(|charter| charter.title.to_string()),
        summary: charter.map(|charter| charter.summary.to_string()),
        purpose: charter
            .map(|charter| {
                [Some(charter.purpose.research.clone()), charter.purpose.disease.clone()].into_iter().flatten().collect()
            })
            .unwrap_or_default(),
        jobs: vec![],
    }
}
