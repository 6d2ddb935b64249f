//! The ledger's tables, and the settings without which they are not durable.
//!
//! *In*: a path. *Out*: an open database whose settings were read back. *Refuses*: a damaged file, settings that did not take.
//! The rules stand in the database itself: charges and releases are append-only, a release needs a charge, each of them a leaf of the log; what is committed
//! to jobs is kept by triggers and cannot pass the cap when a job reserves. What was computed from data, and what is about persons, is sealed: `bytes`,
//! `evidence`, `envelope`, the log's details. A researcher's name in `job` is a keyed hash of it,
//! and so are the digests of what was asked in `charge`.

use std::path::Path;
use std::str::FromStr;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior};
use vestibule_protocol::privacy::Rho;

use super::{Account, JobAccount, Seal};
use crate::log;

/// Which tables these are.
const VERSION: i64 = 6;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account(
  population TEXT PRIMARY KEY, cap_rho INTEGER NOT NULL CHECK(cap_rho >= 0), cap_delta REAL NOT NULL,
  committed_rho INTEGER NOT NULL DEFAULT 0 CHECK(committed_rho >= 0),
  cap_moments INTEGER NOT NULL CHECK(cap_moments >= 0), spent_moments INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS dataset(dataset TEXT PRIMARY KEY, population TEXT NOT NULL REFERENCES account(population)) STRICT;
CREATE TABLE IF NOT EXISTS job(
  job TEXT PRIMARY KEY CHECK(length(job) = 32), manifest TEXT NOT NULL, charter TEXT NOT NULL, dataset TEXT NOT NULL REFERENCES dataset(dataset),
  researcher TEXT NOT NULL, component TEXT NOT NULL, columns TEXT NOT NULL, catalogues TEXT NOT NULL, admitted INTEGER NOT NULL,
  leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number), ended INTEGER NOT NULL DEFAULT 0 CHECK(ended IN (0, 1))) STRICT;
CREATE TABLE IF NOT EXISTS reservation(
  job TEXT PRIMARY KEY REFERENCES job(job), rho INTEGER NOT NULL CHECK(rho > 0),
  leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number)) STRICT;
CREATE TABLE IF NOT EXISTS charge(
  job TEXT NOT NULL REFERENCES job(job), round INTEGER NOT NULL CHECK(round >= 0), round_digest TEXT NOT NULL,
  request TEXT NOT NULL, rho INTEGER NOT NULL CHECK(rho >= 0), moment INTEGER NOT NULL CHECK(moment >= 0),
  charged INTEGER NOT NULL, leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number), PRIMARY KEY(job, round)) STRICT;
CREATE INDEX IF NOT EXISTS charge_request ON charge(request);
CREATE TABLE IF NOT EXISTS release(
  job TEXT NOT NULL, round INTEGER NOT NULL, bytes BLOB NOT NULL, sha256 TEXT NOT NULL, leaves INTEGER NOT NULL, evidence BLOB, hold TEXT,
  PRIMARY KEY(job, round),
  FOREIGN KEY(job, round) REFERENCES charge(job, round)) STRICT;
CREATE TABLE IF NOT EXISTS attempt(
  job TEXT NOT NULL, round INTEGER NOT NULL, begun INTEGER NOT NULL CHECK(begun >= 0), PRIMARY KEY(job, round),
  FOREIGN KEY(job, round) REFERENCES charge(job, round)) STRICT;
CREATE TABLE IF NOT EXISTS departure(
  job TEXT NOT NULL, round INTEGER NOT NULL, leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number), PRIMARY KEY(job, round),
  FOREIGN KEY(job, round) REFERENCES release(job, round)) STRICT;
CREATE TABLE IF NOT EXISTS refusal(
  terms TEXT NOT NULL, code TEXT NOT NULL, leaf INTEGER NOT NULL REFERENCES log_leaf(number), PRIMARY KEY(terms, code)) STRICT;
CREATE TABLE IF NOT EXISTS rejection(
  hour INTEGER NOT NULL, code TEXT NOT NULL, leaf INTEGER NOT NULL REFERENCES log_leaf(number), PRIMARY KEY(hour, code)) STRICT;
CREATE TABLE IF NOT EXISTS waiting(
  number INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL UNIQUE, job TEXT NOT NULL, round INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN ('job', 'release')), since INTEGER NOT NULL,
  researcher TEXT NOT NULL, charter TEXT NOT NULL,
  leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number)) STRICT;
CREATE TABLE IF NOT EXISTS let_go(job TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS review(
  number INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, approved INTEGER NOT NULL CHECK(approved IN (0, 1)),
  envelope BLOB NOT NULL, leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number)) STRICT;
CREATE INDEX IF NOT EXISTS review_subject ON review(subject);
CREATE TABLE IF NOT EXISTS policy(
  version INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number)) STRICT;
CREATE TABLE IF NOT EXISTS serving(
  dataset TEXT PRIMARY KEY, version TEXT NOT NULL, withdrawn TEXT NOT NULL, list BLOB NOT NULL,
  leaf INTEGER NOT NULL UNIQUE REFERENCES log_leaf(number)) STRICT;
CREATE TABLE IF NOT EXISTS unpaid(
  number INTEGER PRIMARY KEY, researcher TEXT NOT NULL, at_ms INTEGER NOT NULL, spent_ms INTEGER NOT NULL CHECK(spent_ms >= 0)) STRICT;
CREATE INDEX IF NOT EXISTS unpaid_researcher ON unpaid(researcher, at_ms);
CREATE VIEW IF NOT EXISTS job_account AS SELECT job.rowid AS number, job.*, dataset.population,
  COALESCE((SELECT rho FROM reservation WHERE reservation.job = job.job), 0) AS reserved_rho,
  COALESCE((SELECT SUM(rho) FROM charge WHERE charge.job = job.job), 0) AS spent_rho,
  (SELECT COUNT(*) FROM charge WHERE charge.job = job.job) AS rounds
  FROM job JOIN dataset USING(dataset);
CREATE TRIGGER IF NOT EXISTS reservation_cap BEFORE INSERT ON reservation
  WHEN (SELECT committed_rho + NEW.rho > cap_rho OR job_account.ended
        FROM job_account JOIN account USING(population) WHERE job = NEW.job)
  BEGIN SELECT RAISE(ABORT, 'over the cap'); END;
CREATE TRIGGER IF NOT EXISTS reservation_booked AFTER INSERT ON reservation
  BEGIN UPDATE account SET committed_rho = committed_rho + NEW.rho
    WHERE population = (SELECT population FROM job_account WHERE job = NEW.job); END;
CREATE TRIGGER IF NOT EXISTS charge_within BEFORE INSERT ON charge
  WHEN (SELECT ended OR reserved_rho < NEW.rho + spent_rho FROM job_account WHERE job = NEW.job)
  BEGIN SELECT RAISE(ABORT, 'over the reservation'); END;
CREATE TRIGGER IF NOT EXISTS charge_moment AFTER INSERT ON charge
  BEGIN UPDATE account SET spent_moments = spent_moments + NEW.moment
    WHERE population = (SELECT population FROM job_account WHERE job = NEW.job); END;
CREATE TRIGGER IF NOT EXISTS job_ended AFTER UPDATE OF ended ON job WHEN OLD.ended = 0 AND NEW.ended = 1
  BEGIN UPDATE account SET committed_rho = committed_rho
    - (SELECT reserved_rho - spent_rho FROM job_account WHERE job = NEW.job)
    WHERE population = (SELECT population FROM job_account WHERE job = NEW.job); END;
CREATE TRIGGER IF NOT EXISTS dataset_fixed BEFORE UPDATE ON dataset BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS dataset_kept BEFORE DELETE ON dataset BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS account_kept BEFORE DELETE ON account BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS reservation_fixed BEFORE UPDATE ON reservation BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS reservation_kept BEFORE DELETE ON reservation BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS job_fixed BEFORE UPDATE OF job, manifest, charter, dataset, researcher, component, columns, catalogues, admitted, leaf ON job
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS job_stays_ended BEFORE UPDATE OF ended ON job WHEN NEW.ended < OLD.ended
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS job_kept BEFORE DELETE ON job BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_fixed BEFORE UPDATE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS charge_kept BEFORE DELETE ON charge BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS attempt_fixed BEFORE UPDATE OF job, round ON attempt BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS attempt_kept BEFORE DELETE ON attempt BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS waiting_fixed BEFORE UPDATE ON waiting BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS waiting_kept BEFORE DELETE ON waiting BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS review_fixed BEFORE UPDATE OF number, subject, approved, leaf ON review BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS review_erased BEFORE UPDATE OF envelope ON review WHEN length(NEW.envelope) > 0
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS review_kept BEFORE DELETE ON review BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS policy_fixed BEFORE UPDATE ON policy BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS policy_kept BEFORE DELETE ON policy BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS serving_goes_on BEFORE UPDATE ON serving WHEN NEW.dataset <> OLD.dataset OR NEW.leaf <= OLD.leaf
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS serving_kept BEFORE DELETE ON serving BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS departure_fixed BEFORE UPDATE ON departure BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS departure_kept BEFORE DELETE ON departure BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS release_fixed BEFORE UPDATE OF job, round, sha256, leaves, hold ON release
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS release_retired BEFORE UPDATE OF bytes, evidence ON release
  WHEN length(NEW.bytes) > 0 OR NEW.evidence IS NOT NULL
    OR NOT EXISTS(SELECT 1 FROM departure WHERE departure.job = NEW.job AND departure.round = NEW.round)
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS release_kept BEFORE DELETE ON release BEGIN SELECT RAISE(ABORT, 'append-only'); END;
";

/// Settings, and what each must read back as. Without `recursive_triggers`, INSERT OR REPLACE would walk round the triggers.
const PRAGMAS: [(&str, &str, &str); 7] = [
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    ("recursive_triggers", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("busy_timeout", "10000", "10000"),
    ("secure_delete", "ON", "1"),
];

pub(super) fn open(path: &Path, seal: &Seal) -> Result<Connection, String> {
    let mut connection = Connection::open(path).map_err(|error| error.to_string())?;
    seal.serve(&connection).map_err(|error| error.to_string())?;
    for (name, value, want) in PRAGMAS {
        let set = |row: &Row<'_>| row.get::<_, rusqlite::types::Value>(0);
        connection.execute_batch(&format!("PRAGMA {name} = {value}")).map_err(|error| error.to_string())?;
        let found = connection.query_row(&format!("PRAGMA {name}"), [], set).map_err(|error| error.to_string())?;
        let found = match found {
            rusqlite::types::Value::Integer(number) => number.to_string(),
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if found != want {
            return Err(format!("the setting {name} is {found}, where {want} is needed: is the folder on a local disk?"));
        }
    }
    let check: String = connection.query_row("PRAGMA quick_check", [], |row| row.get(0)).map_err(|error| error.to_string())?;
    if check != "ok" {
        return Err(format!("the file is damaged ({check}): restore it from a backup, then have its spending confirmed"));
    }
    make(&mut connection)?;
    Ok(connection)
}

/// Makes the tables of a new file; looks whether those of an old one are these.
fn make(connection: &mut Connection) -> Result<(), String> {
    let text = |error: rusqlite::Error| error.to_string();
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(text)?;
    let tables = "SELECT COUNT(*) FROM sqlite_schema WHERE type = 'table'";
    let tables: i64 = tx.query_row(tables, [], |row| row.get(0)).map_err(text)?;
    let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(text)?;
    match (tables, found) {
        (0, _) => {
            tx.execute_batch(log::SCHEMA).and_then(|()| tx.execute_batch(SCHEMA)).map_err(text)?;
            tx.execute_batch(&format!("PRAGMA user_version = {VERSION}")).map_err(text)?;
            log::found(&tx).map_err(text)?;
        }
        (_, VERSION) => {}
        (_, found) => return Err(format!("its tables are of version {found}, and this program knows version {VERSION} only")),
    }
    tx.commit().map_err(text)
}

pub(super) fn rho(row: &Row<'_>, column: usize) -> rusqlite::Result<Rho> {
    row.get::<_, i64>(column).map(|units| Rho::from_pico(units.unsigned_abs()))
}

pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error)))
}

pub(super) fn accounts(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Account>> {
    let mut jobs = tx.prepare(
        "SELECT job, reserved_rho, spent_rho, rounds, ended, dataset, unseal('details', log_detail.leaf, sealed)
         FROM job_account LEFT JOIN log_detail USING(leaf) WHERE population = ?1 ORDER BY number",
    )?;
    let mut accounts =
        tx.prepare("SELECT population, cap_rho, cap_delta, committed_rho, spent_moments FROM account ORDER BY population")?;
    let mut found = Vec::new();
    let mut rows = accounts.query([])?;
    while let Some(row) = rows.next()? {
        let population: String = row.get(0)?;
        let job = |row: &Row<'_>| {
            let (reserved, spent) = (rho(row, 1)?, rho(row, 2)?);
            let (job, rounds, ended, dataset) = (parsed(row, 0)?, row.get(3)?, row.get(4)?, parsed(row, 5)?);
            let details = log::details(row.get::<_, Option<Vec<u8>>>(6)?.as_deref()).unwrap_or_default();
            let text = |name: &str| details.get(name)?.as_str().map(str::to_owned);
            let researcher = text("researcher").and_then(|name| name.parse().ok());
            Ok(JobAccount { job, dataset, researcher, title: text("title"), reserved, spent, rounds, ended })
        };
        let jobs = jobs.query_map([&population], job)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let spent = jobs.iter().try_fold(Rho::ZERO, |sum, job| sum.checked_add(job.spent)).unwrap_or(Rho::from_pico(u64::MAX));
        let reserved = rho(row, 3)?.checked_sub(spent).unwrap_or(Rho::ZERO);
        let (cap, cap_delta) = (rho(row, 1)?, row.get(2)?);
        let moments_femto = row.get::<_, i64>(4)?.unsigned_abs();
        found.push(Account { population: parsed(row, 0)?, cap, cap_delta, moments_femto, spent, reserved, jobs });
    }
    Ok(found)
}
