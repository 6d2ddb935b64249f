//! Tables, durability settings, and how small enums are written as words.
//!
//! *In*: a path. *Out*: connections of the one writer and of readers. *Refuses*: a database of another version, a disk whose settings
//! cannot be had, files that others may read (they are made for their owner alone).

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::str::FromStr;

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OpenFlags, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// Counts the versions of the tables.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS invitation(
  key TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, expires INTEGER NOT NULL, used_by TEXT) STRICT;
CREATE TABLE IF NOT EXISTS member(
  name TEXT PRIMARY KEY, role TEXT NOT NULL, key TEXT NOT NULL UNIQUE, joined INTEGER NOT NULL, request TEXT NOT NULL, card TEXT) STRICT;
CREATE TABLE IF NOT EXISTS bundle(version INTEGER PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS component(
  person TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL, uploaded INTEGER NOT NULL, PRIMARY KEY(person, digest)) STRICT;
CREATE INDEX IF NOT EXISTS component_digest ON component(digest);
CREATE TABLE IF NOT EXISTS job(
  job TEXT PRIMARY KEY, manifest TEXT NOT NULL, envelope BLOB NOT NULL, owner TEXT NOT NULL, submitted INTEGER NOT NULL,
  title TEXT NOT NULL, epsilon REAL NOT NULL, delta REAL NOT NULL,
  state TEXT NOT NULL, max_rounds INTEGER NOT NULL, code TEXT, why TEXT, report BLOB) STRICT;
CREATE INDEX IF NOT EXISTS job_owner ON job(owner, submitted);
CREATE INDEX IF NOT EXISTS job_running ON job(submitted) WHERE state = 'running';
CREATE TABLE IF NOT EXISTS job_document(
  job TEXT NOT NULL REFERENCES job(job), digest TEXT NOT NULL, PRIMARY KEY(job, digest)) STRICT;
CREATE INDEX IF NOT EXISTS job_document_digest ON job_document(digest);
CREATE TABLE IF NOT EXISTS plan(job TEXT PRIMARY KEY REFERENCES job(job), json BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS job_site(
  job TEXT NOT NULL REFERENCES job(job), site TEXT NOT NULL, state TEXT NOT NULL, code TEXT, why TEXT,
  asked INTEGER, closing INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(job, site)) STRICT;
CREATE INDEX IF NOT EXISTS job_site_closing ON job_site(site) WHERE closing = 1;
CREATE TABLE IF NOT EXISTS round(
  job TEXT NOT NULL REFERENCES job(job), round INTEGER NOT NULL, request BLOB NOT NULL,
  PRIMARY KEY(job, round)) STRICT;
CREATE TABLE IF NOT EXISTS release(
  job TEXT NOT NULL, round INTEGER NOT NULL, site TEXT NOT NULL, json BLOB NOT NULL, leaf TEXT NOT NULL, proof TEXT NOT NULL,
  PRIMARY KEY(job, round, site),
  FOREIGN KEY(job, round) REFERENCES round(job, round)) STRICT;
";

const PRAGMAS: [(&str, &str, &str); 5] = [
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", "2"),
    ("foreign_keys", "ON", "1"),
    ("trusted_schema", "OFF", "0"),
    ("busy_timeout", "10000", "10000"),
];

/// The connection of the one thread that writes.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    // What SQLite lays beside it has the same mode.
    let made = std::fs::File::options().create(true).append(true).mode(0o600).open(path);
    made.map_err(|error| StoreError::Database(error.to_string()))?;
    let connection = Connection::open(path)?;
    for (name, value, want) in PRAGMAS {
        connection.execute_batch(&format!("PRAGMA {name} = {value}"))?;
        let found = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, Value>(0))?;
        let found = match found {
            Value::Integer(number) => number.to_string(),
            Value::Text(text) => text,
            other => format!("{other:?}"),
        };
        if found != want {
            let why = format!("the setting {name} is {found}, where {want} is needed: is the folder on a local disk?");
            return Err(StoreError::Database(why));
        }
    }
    let tables: i64 = connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if tables > 0 && version != VERSION {
        return Err(StoreError::Database("it was made by another version of this program".to_owned()));
    }
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT"))?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA busy_timeout = 10000")?;
    Ok(connection)
}

/// An enum without fields, as the word that serde writes.
pub(super) fn word(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.trim_matches('"').to_owned()
}

pub(super) fn unword<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    serde_json::from_value(serde_json::Value::String(word))
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
