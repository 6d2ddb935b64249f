//! Booking a round that is asked for the first time.
//!
//! *In*: a verified round, the purse it is paid from, the transaction it is booked in. *Out*: an account, a job, a reservation and a
//! charge; or the answer to the same request, if that has left. *Refuses*: what would pass a cap of the account, of the researcher or of
//! the job; a dataset whose people were others before.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::release::{Release, most_bytes};

use super::{LedgerError, Purse, Seal, Settled, database, find_job, schema, settle, stored};
use crate::admission::Verified;
use crate::delay;
use crate::policy::Admitted;

/// A round that is asked for the first time.
pub(super) struct Asked<'a> {
    verified: &'a Verified,
    columns: &'a [String],
    hold: Option<&'a (String, serde_json::Value)>,
    purse: &'a Purse,
    rho: Rho,
    /// The researcher's name, as the ledger's rows have it.
    researcher: String,
    /// What is asked, and all that decides its answer, as the ledger's rows have them.
    round_digest: Digest,
    request: Digest,
    since: Duration,
}

impl<'a> Asked<'a> {
    /// For `rho`, at `since` (1970).
    pub(super) fn new(admitted: &'a Admitted, purse: &'a Purse, rho: Rho, seal: &Seal, since: Duration) -> Self {
        Self {
            verified: admitted.verified(),
            columns: admitted.columns(),
            hold: admitted.hold(),
            purse,
            rho,
            researcher: seal.name(admitted.verified().researcher()),
            round_digest: seal.keyed(admitted.verified().round_digest()),
            request: seal.keyed(request(admitted, purse)),
            since,
        }
    }

    fn job(&self) -> JobId {
        self.verified.signed().manifest().job
    }

    /// Enters the account's terms and the job.
    pub(super) fn open(&self, tx: &Transaction<'_>) -> Result<(), LedgerError> {
        let (purse, signed) = (self.purse, self.verified.signed());
        let dataset = signed.manifest().dataset.as_str();
        terms(tx, &signed.manifest().dataset, purse, self.now_ms())?;
        let event = Event::Job {
            job: self.job(),
            manifest: signed.digest(),
            charter: signed.manifest().charter,
            dataset: signed.manifest().dataset.clone(),
            population: purse.population.clone(),
        };
        let (researcher, title) = (self.verified.researcher(), &signed.manifest().title);
        let catalogues: Vec<&Name> = signed.manifest().catalogues.iter().map(|catalogue| &catalogue.name).collect();
        let mut lists: Vec<String> =
            signed.manifest().catalogues.iter().map(|catalogue| catalogue.sha256.to_string()).collect();
        lists.sort();
        let lists = lists.join(" ");
        let details = serde_json::json!({ "researcher": researcher, "title": title, "columns": self.columns, "catalogues": catalogues,
                "manifest": String::from_utf8_lossy(self.verified.envelope()) });
        let leaf = self.log(tx, event, Some(&details))?;
        let sql = "INSERT INTO job(job, manifest, dataset, researcher, admitted, leaf, charter, component, columns, catalogues, until_ms)
                   VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let row = params![
            self.job().to_string(),
            signed.digest().to_string(),
            dataset,
            self.researcher,
            self.now(),
            leaf,
            signed.manifest().charter.to_string(),
            signed.manifest().component.sha256.to_string(),
            self.columns.join(" "),
            lists,
            signed.over().saturating_mul(1_000)
        ];
        tx.execute(sql, row).map_err(database(tx)).map(|_| ())
    }

    /// Appends a leaf at the moment of the booking.
    fn log(&self, tx: &Transaction<'_>, event: Event, details: Option<&serde_json::Value>) -> Result<i64, LedgerError> {
        super::append(tx, self.now_ms(), event, details)
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.since.as_secs()).unwrap_or(i64::MAX)
    }

    /// The answer to the same request, if it has left; entered as this round's, at no cost. One that is still to leave is not known of:
    /// that this round is free would tell that the other has ended.
    pub(super) fn repeated(&self, tx: &Transaction<'_>) -> Result<Option<Settled>, LedgerError> {
        let sql = "SELECT unseal('release', job || ' ' || round, bytes), leaves FROM charge JOIN release USING(job, round) LEFT JOIN waiting USING(job, round)
                   WHERE request = ?1 AND length(bytes) > 0 AND leaves <= ?2 AND (hold IS NULL OR
                     (SELECT approved FROM review WHERE review.subject = waiting.subject ORDER BY review.number DESC LIMIT 1) = 1)
                   ORDER BY charge.rowid LIMIT 1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?));
        let found =
            tx.query_row(sql, params![self.request.to_string(), self.now_ms()], read).optional().map_err(database(tx))?;
        let Some((bytes, leaves_ms)) = found else { return Ok(None) };
        // A stored release that cannot be read is not given again: the round is charged and run.
        let Ok(first) = serde_json::from_slice::<Release>(&bytes) else { return Ok(None) };
        // Salt of its own: anyone who has the first does not thereby know whether this one was let
        // out.
        let (job, round, salt) = (self.job(), self.verified.index(), super::salt()?);
        let release = Release { job, round, charged_rho_pico: 0, salt, ..first };
        let bytes = serde_json::to_vec(&release).expect("names and numbers are always JSON");
        // What one project may have without a person's look, another may not.
        let settled = Settled { release: Some(bytes), leaves_ms, hold: self.hold.map(|(why, _)| why.clone()) };
        self.charge(tx, Rho::ZERO, 0)?;
        let evidence = serde_json::json!({ "repeated": true, "held": self.hold.map(|(_, about)| about) });
        let most = most_bytes(self.verified.round().request());
        settle(tx, (job, round), most, &settled, ("repeated", Some(&evidence)))?;
        Ok(Some(settled))
    }

    /// Reserves for the whole job, if nothing is reserved yet, and charges the round.
    pub(super) fn book(&self, tx: &Transaction<'_>) -> Result<(), LedgerError> {
        let whole = self.verified.signed().budget().rho();
        let population = || self.purse.population.clone();
        let known = find_job(tx, self.job())?;
        if known.as_ref().is_none_or(|job| job.reserved == Rho::ZERO) {
            let left = left(tx, &self.purse.population)?;
            if whole > left {
                return Err(LedgerError::OverBudget { population: population(), asked: whole, left });
            }
            let charter = self.verified.charter();
            let held = of_charter(tx, charter.signed().digest(), &self.purse.population)?;
            if held.checked_add(whole).is_none_or(|sum| sum > charter.cap()) {
                return Err(LedgerError::OverCharter { asked: whole });
            }
            if let Some(cap) = self.purse.researcher_cap {
                let committed = committed(tx, &self.purse.population, &self.researcher)?;
                if committed.checked_add(whole).is_none_or(|sum| sum > cap) {
                    return Err(LedgerError::OverResearcher { population: population(), asked: whole });
                }
            }
            let event = Event::Reserved { job: self.job(), rho_pico: stored(whole).unsigned_abs() };
            let row = params![self.job().to_string(), stored(whole), self.log(tx, event, None)?];
            tx.execute("INSERT INTO reservation(job, rho, leaf) VALUES(?1, ?2, ?3)", row).map_err(database(tx))?;
        }
        let spent = known.map_or(Rho::ZERO, |job| job.spent);
        if spent.checked_add(self.rho).is_none_or(|sum| sum > whole) {
            return Err(LedgerError::OverJob { round: self.verified.index() });
        }
        if moments_left(tx, &self.purse.population)? < delay::DELTA_FEMTO {
            return Err(LedgerError::OverBudget { population: population(), asked: Rho::ZERO, left: Rho::ZERO });
        }
        self.charge(tx, self.rho, delay::DELTA_FEMTO)
    }

    fn charge(&self, tx: &Transaction<'_>, rho: Rho, moment: u64) -> Result<(), LedgerError> {
        let event = Event::Charged {
            job: self.job(),
            round: self.verified.index(),
            rho_pico: stored(rho).unsigned_abs(),
            moment_femto: moment,
        };
        // What is asked follows from what was released before: a detail, which nobody can try
        // values against.
        let details = serde_json::json!({ "round_digest": self.verified.round_digest() });
        let leaf = self.log(tx, event, Some(&details))?;
        let sql = "INSERT INTO charge(job, round, round_digest, request, rho, moment, charged, leaf)
                   VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let row = params![
            self.job().to_string(),
            self.verified.index(),
            self.round_digest.to_string(),
            self.request.to_string(),
            stored(rho),
            femto(moment),
            self.now(),
            leaf
        ];
        tx.execute(sql, row).map_err(database(tx)).map(|_| ())
    }
}

/// Enters a dataset and the terms of the account that it is paid from; logs them where they are new or have changed.
pub(super) fn terms(tx: &Transaction<'_>, dataset: &Name, purse: &Purse, at_ms: i64) -> Result<(), LedgerError> {
    let Purse { population, cap, delta, moments_femto, .. } = purse;
    let sql = "SELECT cap_rho, cap_delta, cap_moments FROM account WHERE population = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, f64>(1)?, row.get::<_, i64>(2)?));
    let known = tx.query_row(sql, [population.as_str()], read).optional().map_err(database(tx))?;
    if known != Some((stored(*cap), *delta, femto(*moments_femto))) {
        let event = Event::Account {
            population: population.clone(),
            cap_rho_pico: stored(*cap).unsigned_abs(),
            cap_delta_femto: delta_femto(*delta),
            cap_moments_femto: *moments_femto,
        };
        super::append(tx, at_ms, event, None)?;
        let sql = "INSERT INTO account(population, cap_rho, cap_delta, cap_moments) VALUES(?1, ?2, ?3, ?4)
                   ON CONFLICT(population) DO UPDATE SET cap_rho = ?2, cap_delta = ?3, cap_moments = ?4";
        let row = params![population.as_str(), stored(*cap), delta, femto(*moments_femto)];
        tx.execute(sql, row).map_err(database(tx))?;
    }
    let (dataset_name, population) = (dataset.as_str(), population.as_str());
    tx.execute("INSERT OR IGNORE INTO dataset(dataset, population) VALUES(?1, ?2)", [dataset_name, population])
        .map_err(database(tx))?;
    let was: String = tx
        .query_row("SELECT population FROM dataset WHERE dataset = ?1", [dataset_name], |row| row.get(0))
        .map_err(database(tx))?;
    if was == population { Ok(()) } else { Err(LedgerError::OtherPopulation { dataset: dataset.clone(), was }) }
}

/// Digest of all that decides what a round's exact sums and its noise are.
fn request(admitted: &Admitted, purse: &Purse) -> Digest {
    let verified = admitted.verified();
    let manifest = verified.signed().manifest();
    let data = (&manifest.dataset, &purse.version, &manifest.dictionary, &manifest.catalogues);
    let noise = (manifest.noise, manifest.epsilon_micro, manifest.delta_femto);
    let made = (admitted.limits(), verified.charter().terms().rounding());
    let all = (&manifest.component, &manifest.params, data, noise, made, verified.round_digest());
    Digest::of(&serde_json::to_vec(&all).expect("names, texts and numbers are always JSON"))
}

pub(super) fn left(tx: &Transaction<'_>, population: &Name) -> Result<Rho, LedgerError> {
    let sql = "SELECT MAX(cap_rho - committed_rho, 0) FROM account WHERE population = ?1";
    let found = tx.query_row(sql, [population.as_str()], |row| schema::rho(row, 0)).optional().map_err(database(tx))?;
    Ok(found.unwrap_or(Rho::ZERO))
}

/// What is left for the moments of releases, in 10^-15 of delta.
pub(super) fn moments_left(tx: &Transaction<'_>, population: &Name) -> Result<u64, LedgerError> {
    let sql = "SELECT MAX(cap_moments - spent_moments, 0) FROM account WHERE population = ?1";
    let found: i64 = tx.query_row(sql, [population.as_str()], |row| row.get(0)).map_err(database(tx))?;
    Ok(found.unsigned_abs())
}

/// What a charter's jobs hold and have spent of an account.
fn of_charter(tx: &Transaction<'_>, charter: Digest, population: &Name) -> Result<Rho, LedgerError> {
    let sql = "SELECT COALESCE(SUM(CASE ended WHEN 0 THEN reserved_rho ELSE spent_rho END), 0)
               FROM job_account WHERE charter = ?1 AND population = ?2";
    tx.query_row(sql, params![charter.to_string(), population.as_str()], |row| schema::rho(row, 0)).map_err(database(tx))
}

/// What a researcher's jobs hold and have spent of an account.
fn committed(tx: &Transaction<'_>, population: &Name, researcher: &str) -> Result<Rho, LedgerError> {
    let sql = "SELECT COALESCE(SUM(CASE ended WHEN 0 THEN reserved_rho ELSE spent_rho END), 0)
               FROM job_account WHERE population = ?1 AND researcher = ?2";
    tx.query_row(sql, [population.as_str(), researcher], |row| schema::rho(row, 0)).map_err(database(tx))
}

/// A delta in 10^-15.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a delta is between 0 and 1")]
fn delta_femto(delta: f64) -> u64 {
    (delta * 1e15).round() as u64
}

pub(super) fn femto(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
