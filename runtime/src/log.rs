//! The site's log: every step of every job, in an append-only Merkle tree, in the same file and the same transactions as what it is about.
//!
//! *In*: events, from the steps, inside the transaction that makes them true. *Out*: leaves; signed checkpoints; proofs. *Trusts*: the disk's
//! fsync, the clock only forwards (no leaf is earlier than the one before). *Refuses*: to change or to leave out a leaf: triggers stand in
//! the database, and witnesses remember its roots where anyone who owns the database cannot reach.

mod export;
mod folder;
mod read;
mod report;
mod ro_crate;
mod signatures;
mod verify;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, Leaf, commitment};
use vestibule_protocol::log::note::{self, Kind, Verifier};
use vestibule_protocol::log::tree::{self, Nodes};
use vestibule_protocol::salt::SALT_BYTES;

pub use export::{Exported, export};
pub(crate) use read::details;
pub use read::{Line, Source, read, words};
pub use report::{Account, Job, Project, Proof, Report, Round, report};
pub use ro_crate::{RoCrate, ro_crate};
pub use signatures::signatures;
pub use verify::{Found, LogCheckError, Verified, verify};

/// The log's tables. `log_node` holds the hashes of complete subtrees: every root and proof takes a few of them. `log_detail` holds salts and details,
/// sealed, and may be erased.
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log_origin(number INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE IF NOT EXISTS log_leaf(number INTEGER PRIMARY KEY, body BLOB NOT NULL CHECK(length(body) <= 65535)) STRICT;
CREATE TABLE IF NOT EXISTS log_node(
  level INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL CHECK(length(hash) = 32),
  PRIMARY KEY(level, number)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_detail(
  leaf INTEGER PRIMARY KEY REFERENCES log_leaf(number), sealed BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS log_checkpoint(size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS log_witness(name TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS log_leaf_next BEFORE INSERT ON log_leaf
  WHEN NEW.number <> (SELECT COALESCE(MAX(number) + 1, 0) FROM log_leaf)
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_leaf_fixed BEFORE UPDATE ON log_leaf BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_leaf_kept BEFORE DELETE ON log_leaf BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_node_fixed BEFORE UPDATE ON log_node BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_node_kept BEFORE DELETE ON log_node BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_origin_fixed BEFORE UPDATE ON log_origin BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS log_origin_kept BEFORE DELETE ON log_origin BEGIN SELECT RAISE(ABORT, 'append-only'); END;
";

/// The subtrees of a log that lies in a database.
struct Stored<'a>(&'a Connection);

impl Nodes for Stored<'_> {
    type Error = rusqlite::Error;

    fn node(&self, level: u32, number: u64) -> Result<Digest, Self::Error> {
        let mut statement = self.0.prepare_cached("SELECT hash FROM log_node WHERE level = ?1 AND number = ?2")?;
        statement.query_row(params![level, signed(number)], |row| row.get(0)).map(Digest::from_bytes)
    }
}

/// Draws the name of a new log. Clones of a site share it, which is how they are found out.
pub(crate) fn found(connection: &Connection) -> rusqlite::Result<()> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()))?;
    let origin = format!("vestibule/log/{}", vestibule_protocol::digest::hex(&bytes));
    connection.execute("INSERT INTO log_origin(origin) VALUES(?1)", [origin]).map(|_| ())
}

/// Which log this is.
pub(crate) fn origin(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT origin FROM log_origin ORDER BY number DESC LIMIT 1", [], |row| row.get(0))
}

/// All the names that the log has had, the present one last: it gets another when it goes on after a loss.
pub(crate) fn origins(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT origin FROM log_origin ORDER BY number")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// How many leaves there are.
pub(crate) fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("SELECT COALESCE(MAX(number) + 1, 0) FROM log_leaf")?;
    statement.query_row([], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

/// The moment of the last leaf, in milliseconds since 1970: the clock is never earlier than that.
pub(crate) fn last_ms(connection: &Connection) -> rusqlite::Result<i64> {
    let mut statement = connection.prepare_cached("SELECT body FROM log_leaf ORDER BY number DESC LIMIT 1")?;
    let body: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(body.and_then(|body| Leaf::parse(&body).ok()).map_or(0, |leaf| leaf.at_ms))
}

/// Appends a leaf; inside the transaction of what it is about. Returns its number. Details are the site's own.
pub(crate) fn append(connection: &Connection, at_ms: i64, event: Event, details: Option<&Value>) -> rusqlite::Result<u64> {
    let index = size(connection)?;
    let at_ms = at_ms.max(last_ms(connection)?);
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()))?;
    let details = details.map(Value::to_string);
    let leaf = Leaf { at_ms, event, details: details.as_deref().map(|details| commitment(&salt, details)) };
    let body = leaf.to_bytes();
    connection.prepare_cached("INSERT INTO log_leaf(number, body) VALUES(?1, ?2)")?.execute(params![signed(index), body])?;
    for (level, number, hash) in tree::completed(index, tree::leaf_hash(&body), &Stored(connection))? {
        let mut insert = connection.prepare_cached("INSERT INTO log_node(level, number, hash) VALUES(?1, ?2, ?3)")?;
        insert.execute(params![level, signed(number), hash.as_bytes()])?;
    }
    if let Some(details) = details {
        let sql = "INSERT INTO log_detail(leaf, sealed) VALUES(?1, seal('details', ?1, ?2))";
        connection.prepare_cached(sql)?.execute(params![signed(index), [&salt, details.as_bytes()].concat()])?;
    }
    Ok(index)
}

/// A leaf's bytes.
pub(crate) fn leaf(connection: &Connection, index: u64) -> rusqlite::Result<Vec<u8>> {
    connection.query_row("SELECT body FROM log_leaf WHERE number = ?1", [signed(index)], |row| row.get(0))
}

/// What the log is now.
pub(crate) fn checkpoint(connection: &Connection) -> rusqlite::Result<Checkpoint> {
    let size = size(connection)?;
    Ok(Checkpoint { origin: origin(connection)?, size, root: tree::root(size, &Stored(connection))? })
}

/// The root that the log had at an earlier size.
pub(crate) fn root_at(connection: &Connection, size: u64) -> rusqlite::Result<Digest> {
    tree::root(size, &Stored(connection))
}

/// That leaf `index` is in the first `size`.
pub(crate) fn inclusion(connection: &Connection, index: u64, size: u64) -> rusqlite::Result<Vec<Digest>> {
    tree::inclusion(index, size, &Stored(connection))
}

/// That the first `size` leaves begin with the first `old`.
pub(crate) fn consistency(connection: &Connection, old: u64, size: u64) -> rusqlite::Result<Vec<Digest>> {
    tree::consistency(old, size, &Stored(connection))
}

/// A checkpoint, signed by the log.
pub(crate) fn sign(checkpoint: &Checkpoint, key: &SecretKey) -> String {
    note::sign(&checkpoint.text(), &checkpoint.origin, key)
}

/// How a log's signatures are verified.
#[must_use]
pub fn verifier(origin: &str, key: vestibule_protocol::key::PublicKey) -> Verifier {
    Verifier { name: origin.to_owned(), key, kind: Kind::Log }
}

/// SQLite's integers are signed; a log never has 2^63 leaves.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
