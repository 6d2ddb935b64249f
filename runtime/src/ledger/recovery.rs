//! Going on after the log was lost: restored from a copy, or run twice.
//!
//! *In*: the checkpoint that a witness showed, how much of it this log still has, the terms of every account, the most that one job may reserve.
//! *Out*: a ledger in which all that the missing leaves can have spent is spent, and a log of a new name. *Trusts*: the witness' word for
//! how many leaves are missing. A job that was begun in them takes three at least (its admission, its reservation, a charge), and reserves no
//! more than the site ever allows; a job that was open may have spent all that it had reserved. *Refuses*: to go on under the old name:
//! only the consortium's roots can put the new one in its place.

use std::time::Duration;

use rusqlite::params;
use vestibule_protocol::digest::{Digest, hex};
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;

use super::booking::{self, femto};
use super::{Ledger, LedgerError, Purse, append, database, milliseconds, schema, stored};
use crate::{delay, log};

/// Leaves that the first charge of a new job takes: it is admitted, reserves, is charged.
const LEAVES_OF_A_JOB: u64 = 3;

/// What a recovery did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Leaves that the witness saw and this log does not have.
    pub missing: u64,
    /// What was booked as spent, by account.
    pub booked: Vec<(Name, Rho)>,
    /// The log's new name.
    pub origin: String,
}

impl Ledger {
    /// Books what the leaves that are missing can have spent, and gives the log a new name. `common`: how many leaves this log and the one
    /// that the witness saw are known to share.
    ///
    /// # Errors
    /// The database. Nothing is booked then.
    pub fn recover(
        &self,
        shown: &Checkpoint,
        common: u64,
        purses: &[(Name, Purse)],
        per_job: Rho,
        since: Duration,
    ) -> Result<Recovered, LedgerError> {
        let missing = shown.size.saturating_sub(common);
        let at_ms = milliseconds(since);
        self.transaction(|tx| {
            let sql = |error| database(tx)(error);
            let was = log::origin(tx).map_err(sql)?;
            let event = Event::Recovered { log: was, size: shown.size, root: shown.root, common };
            append(tx, at_ms, event, None)?;
            for (dataset, purse) in purses {
                booking::terms(tx, dataset, purse, at_ms)?;
            }
            let digest = Digest::of(shown.text().as_bytes());
            let charge = |job: &str, round: u32, rho: Rho, moment: u64| {
                let id = job.parse().unwrap_or(JobId::from_bytes([0; 16]));
                let (rho_pico, moment_femto) = (stored(rho).unsigned_abs(), moment);
                let event = Event::Charged { job: id, round, rho_pico, moment_femto };
                let leaf = append(tx, at_ms, event, None)?;
                let row = params![job, round, digest.to_string(), digest.to_string(), stored(rho), femto(moment), leaf];
                let sql = "INSERT INTO charge(job, round, round_digest, request, rho, moment, charged, leaf)
                           VALUES(?1, ?2, ?3, ?4, ?5, ?6, 0, ?7)";
                tx.execute(sql, row).map_err(database(tx))?;
                tx.execute("UPDATE job SET ended = 1 WHERE job = ?1", [job]).map_err(database(tx))?;
                append(tx, at_ms, Event::Ended { job: id }, None).map(|_| ())
            };
            // Jobs that were open: all that they had reserved.
            let open: Vec<(String, u32, Rho)> = {
                let sql = "SELECT job, rounds, reserved_rho - spent_rho FROM job_account WHERE ended = 0";
                let mut statement = tx.prepare(sql).map_err(database(tx))?;
                let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, schema::rho(row, 2)?)));
                rows.and_then(Iterator::collect).map_err(database(tx))?
            };
            for (job, rounds, rest) in open {
                charge(&job, rounds, rest, 0)?;
            }
            // Jobs that were begun since: as many as the leaves can hold, each at the most.
            let jobs = missing / LEAVES_OF_A_JOB;
            let mut booked = Vec::new();
            let mut accounts: Vec<(&Name, &Name)> =
                purses.iter().map(|(dataset, purse)| (&purse.population, dataset)).collect();
            accounts.sort();
            accounts.dedup_by_key(|(population, _)| *population);
            for (population, dataset) in accounts {
                let sum = Rho::from_pico(per_job.pico().saturating_mul(jobs));
                let rho = booking::left(tx, population)?.min(sum);
                let moment = booking::moments_left(tx, population)?.min(missing.saturating_mul(delay::DELTA_FEMTO));
                if rho == Rho::ZERO && moment == 0 {
                    continue;
                }
                let mut id = [0; 16];
                getrandom::fill(&mut id)
                    .map_err(|error| LedgerError::Database { path: "ledger".into(), why: error.to_string() })?;
                let job = JobId::from_bytes(id);
                let event = Event::Job {
                    job,
                    manifest: digest,
                    charter: digest,
                    dataset: dataset.clone(),
                    population: population.clone(),
                };
                let leaf = append(tx, at_ms, event, Some(&serde_json::json!({ "title": TITLE })))?;
                let sql = "INSERT INTO job(job, manifest, charter, dataset, researcher, component, columns, catalogues, admitted, until_ms, leaf)
                           VALUES(?1, ?2, ?2, ?3, '', '', '', '', 0, 0, ?4)";
                let row = params![job.to_string(), digest.to_string(), dataset.as_str(), leaf];
                tx.execute(sql, row).map_err(database(tx))?;
                if rho > Rho::ZERO {
                    let leaf = append(tx, at_ms, Event::Reserved { job, rho_pico: stored(rho).unsigned_abs() }, None)?;
                    let row = params![job.to_string(), stored(rho), leaf];
                    tx.execute("INSERT INTO reservation(job, rho, leaf) VALUES(?1, ?2, ?3)", row).map_err(database(tx))?;
                }
                charge(&job.to_string(), 0, rho, moment)?;
                booked.push((population.clone(), rho));
            }
            tx.execute("DELETE FROM log_witness", []).map_err(database(tx))?;
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes)
                .map_err(|error| LedgerError::Database { path: "ledger".into(), why: error.to_string() })?;
            let origin = format!("vestibule/log/{}", hex(&bytes));
            tx.execute("INSERT INTO log_origin(origin) VALUES(?1)", [&origin]).map_err(database(tx))?;
            Ok(Recovered { missing, booked, origin })
        })
    }

    /// The largest size at which a kept checkpoint is what this log still has: so much of it its witnesses saw too.
    ///
    /// # Errors
    /// The database.
    pub fn common(&self) -> Result<u64, LedgerError> {
        let sizes: Vec<(i64, String)> = self.transaction(|tx| {
            let mut statement = tx.prepare("SELECT size, note FROM log_checkpoint ORDER BY size DESC").map_err(database(tx))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(database(tx))
        })?;
        for (size, note) in sizes {
            let text = note.split("\n\n").next().map(|text| format!("{text}\n")).unwrap_or_default();
            let Some(kept) = Checkpoint::parse(&text) else { continue };
            if self.root_at(size.unsigned_abs())? == Some(kept.root) {
                return Ok(kept.size);
            }
        }
        Ok(0)
    }
}

const TITLE: &str = "what the leaves that were lost can have spent";
