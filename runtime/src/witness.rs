//! This site as a witness: it cosigns other sites' checkpoints, and only ones that continue what it saw last.
//!
//! *In*: what a log asks (C2SP's `add-checkpoint`), the logs and witnesses that the trust bundle names, now. *Out*: a status as in C2SP's HTTP interface, with
//! signature lines, or with the checkpoint that was cosigned last. *Trusts*: its own small database, which is synced before it answers, where it is
//! the very file that this witness wrote: a copy of it has forgotten, and cosigns a log only after another witness has. *Refuses*: logs that it does
//! not know, signatures that do not hold, trees that do not begin with the last one: of these it keeps the request, which its log signed, as evidence, once
//! for each size, and of few sizes; more new checkpoints of one log than one log has.

mod place;
mod rate;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::note::{self, Kind, Verifier};
use vestibule_protocol::log::proof::AddCheckpoint;
use vestibule_protocol::log::tree;
use vestibule_protocol::message::Cosigned;
use vestibule_protocol::trust::Trust;

use self::place::Place;
use self::rate::Rate;

const SCHEMA: &str = "
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
CREATE TABLE IF NOT EXISTS seen(
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL CHECK(size >= 0), root BLOB NOT NULL CHECK(length(root) = 32),
  note TEXT NOT NULL, sure INTEGER NOT NULL CHECK(sure IN (0, 1))) STRICT;
CREATE TABLE IF NOT EXISTS evidence(
  origin TEXT NOT NULL, size INTEGER NOT NULL, at INTEGER NOT NULL, request TEXT NOT NULL, PRIMARY KEY(origin, size)) STRICT;
CREATE TABLE IF NOT EXISTS place(
  number INTEGER PRIMARY KEY CHECK(number = 0), inode TEXT NOT NULL, since INTEGER, seal BLOB NOT NULL) STRICT;
CREATE TRIGGER IF NOT EXISTS seen_grows BEFORE UPDATE ON seen WHEN NEW.size < OLD.size BEGIN SELECT RAISE(ABORT, 'backwards'); END;
";

/// Pieces of evidence that are kept of one log: two roots of one size prove that it forked.
const MAX_EVIDENCE: i64 = 16;
/// The answer of a witness that does not cosign now. Its body is the checkpoint that it cosigned last of the log, cosigned again at this moment, or that
/// it has seen nothing of it; empty where it cannot know.
pub const NOT_NOW: u16 = 428;
/// The answer to more than one log has to ask.
pub const TOO_MANY: u16 = 429;
/// How far the clocks of two members may be apart, in seconds.
pub const SKEW: u64 = 300;

/// What this site has seen of other sites' logs.
#[derive(Debug)]
pub struct Witness {
    connection: Mutex<Connection>,
    rate: Mutex<Rate>,
    key: SecretKey,
    name: String,
    /// From when on (1970) this memory is a copy, if it is one.
    copied: Option<u64>,
}

/// Who signs a log, and which other witnesses there are.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its keys; none of a log that is not known.
    pub log: Vec<Verifier>,
    /// Witnesses that are neither this one nor the log's own site.
    pub others: Vec<Verifier>,
}

impl Known {
    /// What a bundle says of a log, to the witness with that key.
    #[must_use]
    pub fn of(trust: &Trust, origin: &str, own: &PublicKey) -> Self {
        let Some(site) = trust.bundle().sites.iter().find(|site| site.log_origin == origin) else { return Self::default() };
        let theirs = trust.policy().of_site(site.name.as_str());
        let others = trust.policy().witnesses().iter().map(|(_, verifier)| verifier);
        let others = others.filter(|other| other.key != *own && !theirs.contains(other) && !trust.is_revoked(&other.key));
        Self { log: trust.logs(&site.name), others: others.cloned().collect() }
    }
}

/// What a witness does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stance {
    /// It cosigns what continues.
    Cosigns,
    /// It says what it has seen: its own log was not yet held against what others have seen.
    Remembers,
    /// Nothing: its own log is not what others have seen.
    Silent,
}

/// The name under which a witness' key signs.
#[must_use]
pub fn name_of(key: &PublicKey) -> String {
    let id = key.id().hex();
    format!("vestibule/witness/{}", id.get(..16).unwrap_or(&id))
}

/// How a witness' cosignatures are verified.
#[must_use]
pub fn verifier(key: PublicKey) -> Verifier {
    Verifier { name: name_of(&key), key, kind: Kind::Cosignature }
}

/// The file is there, and its owner's alone; made now if it must be `new`.
fn touch(path: &Path, new: bool) -> rusqlite::Result<()> {
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(!new).create_new(new).truncate(false).mode(0o600);
    file.open(path).map(|_| ()).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// What was seen of a log last.
struct Seen {
    size: u64,
    root: Digest,
    note: String,
    sure: bool,
}

impl Witness {
    /// Makes the database of a witness that is new. `secret` seals where it lies, and stays when the key is replaced.
    ///
    /// # Errors
    /// There is one already, or it cannot be made.
    pub fn create(path: &Path, key: SecretKey, secret: &[u8; 32]) -> rusqlite::Result<Self> {
        touch(path, true)?;
        Self::at(path, key, secret, None)
    }

    /// Opens the database at `path`, at `now` (1970). One that is not there, or that is a copy, has forgotten what it had seen.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, key: SecretKey, secret: &[u8; 32], now: u64) -> rusqlite::Result<Self> {
        touch(path, false)?;
        Self::at(path, key, secret, Some(now))
    }

    fn at(path: &Path, key: SecretKey, secret: &[u8; 32], now: Option<u64>) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        let copied = Place::of(path, secret)?.take(&connection, now)?;
        let name = name_of(&key.public());
        Ok(Self { connection: Mutex::new(connection), rate: Mutex::default(), key, name, copied })
    }

    /// That somebody has compared what is remembered with what the logs say, where no other witness could: it counts again.
    ///
    /// # Errors
    /// The database.
    pub fn vouch(path: &Path, secret: &[u8; 32]) -> rusqlite::Result<()> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute("UPDATE seen SET sure = 1", [])?;
        Place::of(path, secret)?.put(&connection, None)
    }

    /// This witness' key.
    #[must_use]
    pub fn key(&self) -> PublicKey {
        self.key.public()
    }

    /// Answers a log's request at `now` (seconds since 1970). `known` says who a log is.
    ///
    /// # Errors
    /// The database: nothing was cosigned.
    pub fn add(&self, request: &str, known: impl Fn(&str) -> Known, stance: Stance, now: u64) -> rusqlite::Result<Cosigned> {
        let answer = |status, body: String| Ok(Cosigned { status, body });
        let Some(asked) = AddCheckpoint::parse(request) else { return answer(400, String::new()) };
        let Some(origin) = asked.checkpoint.split('\n').next() else { return answer(400, String::new()) };
        let Known { log, others } = known(origin);
        if log.is_empty() {
            return answer(404, String::new());
        }
        let signed = note::open(&asked.checkpoint, &log).ok().filter(|(_, by)| !by.is_empty());
        let Some((text, _)) = signed else { return answer(403, String::new()) };
        let Some(new) = Checkpoint::parse(text).filter(|new| asked.old <= new.size) else { return answer(400, String::new()) };
        if stance == Stance::Silent {
            return answer(NOT_NOW, String::new());
        }
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let last = seen(&tx, origin)?;
        let sure = last.as_ref().map_or(self.copied.is_none(), |last| last.sure);
        if stance == Stance::Remembers {
            return answer(NOT_NOW, if sure { self.memory(origin, last.as_ref(), &log, now) } else { String::new() });
        }
        if !sure && !self.another(&asked.checkpoint, &others) {
            return answer(NOT_NOW, String::new());
        }
        let known_before = last.is_some();
        let Seen { size, root, note: last, .. } =
            last.unwrap_or(Seen { size: 0, root: Digest::of(b""), note: String::new(), sure });
        if asked.old != size {
            return answer(409, last);
        }
        let forked = new.size == size && new.root != root;
        if !forked && known_before && sure && new.size == size {
            // Nothing is new: nothing is written.
            return answer(200, note::cosign(text, &self.name, &self.key, now));
        }
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if !rate.take(origin, now) {
            return answer(TOO_MANY, String::new());
        }
        // As the log signed it, without what others may have added.
        let note = note::keep_known(&asked.checkpoint, &log).unwrap_or_default();
        if forked || !tree::is_consistent((size, &root), (new.size, &new.root), &asked.hashes) {
            let request = AddCheckpoint { checkpoint: note, ..asked }.text();
            let sql = "INSERT INTO evidence(origin, size, at, request) SELECT ?1, ?2, ?3, ?4
                       WHERE (SELECT COUNT(*) FROM evidence WHERE origin = ?1) < ?5 ON CONFLICT DO NOTHING";
            tx.execute(sql, params![new.origin, signed_64(new.size), signed_64(now), request, MAX_EVIDENCE])?;
            tx.commit()?;
            return answer(if forked { 409 } else { 422 }, last);
        }
        let line = note::cosign(text, &self.name, &self.key, now);
        let sql = "INSERT INTO seen(origin, size, root, note, sure) VALUES(?1, ?2, ?3, ?4, 1)
                   ON CONFLICT(origin) DO UPDATE SET size = ?2, root = ?3, note = ?4, sure = 1";
        tx.execute(sql, params![origin, signed_64(new.size), new.root.as_bytes(), note + &line])?;
        tx.commit()?;
        answer(200, line)
    }

    /// What was cosigned last, cosigned again: it is still the newest that was seen. Of a log of which nothing was, an empty tree.
    fn memory(&self, origin: &str, last: Option<&Seen>, log: &[Verifier], now: u64) -> String {
        let nothing = || {
            let text = Checkpoint { origin: origin.to_owned(), size: 0, root: Digest::of(b"") }.text();
            format!("{text}\n")
        };
        let note = last.map_or_else(nothing, |last| note::keep_known(&last.note, log).unwrap_or_default());
        let text = note.split("\n\n").next().map(|text| format!("{text}\n")).unwrap_or_default();
        note + &note::cosign(&text, &self.name, &self.key, now)
    }

    /// Whether another witness cosigned a checkpoint since this memory was copied.
    fn another(&self, note: &str, others: &[Verifier]) -> bool {
        let from = self.copied.unwrap_or(0).saturating_sub(SKEW);
        note::open(note, others).is_ok_and(|(_, by)| by.iter().any(|by| by.time >= from))
    }

    /// The logs, and how many leaves of each were cosigned last.
    ///
    /// # Errors
    /// The database.
    pub fn seen(&self) -> rusqlite::Result<Vec<(String, u64)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare("SELECT origin, size FROM seen ORDER BY origin")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?.collect()
    }

    /// Requests that logs signed, and that do not continue what was seen of them: origin and request.
    ///
    /// # Errors
    /// The database.
    pub fn evidence(&self) -> rusqlite::Result<Vec<(String, String)>> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection.prepare("SELECT origin, request FROM evidence ORDER BY origin, size")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }
}

fn seen(connection: &Connection, origin: &str) -> rusqlite::Result<Option<Seen>> {
    let read = |row: &rusqlite::Row<'_>| {
        let (size, root) = (row.get::<_, i64>(0)?.unsigned_abs(), Digest::from_bytes(row.get(1)?));
        Ok(Seen { size, root, note: row.get(2)?, sure: row.get(3)? })
    };
    connection.query_row("SELECT size, root, note, sure FROM seen WHERE origin = ?1", [origin], read).optional()
}

fn signed_64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
