//! This site as a witness: it cosigns other sites' checkpoints, and only ones that continue what it saw last.
//!
//! *In*: what a log asks (C2SP's `add-checkpoint`), the logs that the trust bundle names, now. *Out*: a status as in C2SP's HTTP interface, with
//! signature lines, or with the checkpoint that was cosigned last. *Trusts*: its own small database, which is synced before it answers.
//! *Refuses*: logs that it does not know, signatures that do not hold, trees that do not begin with the last one: of these it keeps
//! the request, which its log signed, as evidence.

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

const SCHEMA: &str = "
PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 10000;
CREATE TABLE IF NOT EXISTS seen(
  origin TEXT PRIMARY KEY, size INTEGER NOT NULL CHECK(size >= 0), root BLOB NOT NULL CHECK(length(root) = 32),
  note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS evidence(origin TEXT NOT NULL, at INTEGER NOT NULL, request TEXT NOT NULL, UNIQUE(origin, request)) STRICT;
CREATE TRIGGER IF NOT EXISTS seen_grows BEFORE UPDATE ON seen WHEN NEW.size < OLD.size BEGIN SELECT RAISE(ABORT, 'backwards'); END;
";

/// What this site has seen of other sites' logs.
#[derive(Debug)]
pub struct Witness {
    connection: Mutex<Connection>,
    key: SecretKey,
    name: String,
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

impl Witness {
    /// Opens or makes the database at `path`.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path, key: SecretKey) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(SCHEMA)?;
        let name = name_of(&key.public());
        Ok(Self { connection: Mutex::new(connection), key, name })
    }

    /// Answers a log's request at `now` (seconds since 1970). `log` says how the log of an origin is verified.
    ///
    /// # Errors
    /// The database: nothing was cosigned.
    pub fn add(&self, request: &str, log: impl Fn(&str) -> Vec<Verifier>, now: u64) -> rusqlite::Result<Cosigned> {
        let answer = |status, body: String| Ok(Cosigned { status, body });
        let Some(asked) = AddCheckpoint::parse(request) else { return answer(400, String::new()) };
        let Some(origin) = asked.checkpoint.split('\n').next() else { return answer(400, String::new()) };
        let known = log(origin);
        if known.is_empty() {
            return answer(404, String::new());
        }
        let signed = note::open(&asked.checkpoint, &known).ok().filter(|(_, by)| !by.is_empty());
        let Some((text, _)) = signed else { return answer(403, String::new()) };
        let Some(new) = Checkpoint::parse(text).filter(|new| asked.old <= new.size) else { return answer(400, String::new()) };
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?.unsigned_abs(), Digest::from_bytes(row.get(1)?), row.get::<_, String>(2)?))
        };
        let last = tx.query_row("SELECT size, root, note FROM seen WHERE origin = ?1", [origin], read).optional()?;
        let (size, root, last) = last.unwrap_or((0, Digest::of(b""), String::new()));
        let evidence = || {
            let sql = "INSERT INTO evidence(origin, at, request) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![origin, signed_64(now), request])
        };
        if asked.old != size {
            return answer(409, last);
        }
        if new.size == size && new.root != root {
            evidence()?;
            tx.commit()?;
            return answer(409, last);
        }
        if !tree::is_consistent((size, &root), (new.size, &new.root), &asked.hashes) {
            evidence()?;
            tx.commit()?;
            return answer(422, last);
        }
        let line = note::cosign(text, &self.name, &self.key, now);
        let sql = "INSERT INTO seen(origin, size, root, note) VALUES(?1, ?2, ?3, ?4)
                   ON CONFLICT(origin) DO UPDATE SET size = ?2, root = ?3, note = ?4";
        // Kept as the log signed it and this witness, without what others may have added.
        let own = note::keep_known(&asked.checkpoint, &known).unwrap_or_default() + &line;
        tx.execute(sql, params![origin, signed_64(new.size), new.root.as_bytes(), own])?;
        tx.commit()?;
        answer(200, line)
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
        let mut statement = connection.prepare("SELECT origin, request FROM evidence ORDER BY rowid")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    }
}

fn signed_64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Seal};
    use std::time::Duration;
    use vestibule_protocol::log::leaf::Event;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    fn beat(ledger: &Ledger, times: u64) {
        (0..times).for_each(|second| ledger.record(Event::Heartbeat, None, Duration::from_secs(second)).unwrap());
    }

    /// What the log asks, whose last size at the witness it believes to be `old`.
    fn ask(ledger: &Ledger, old: u64) -> String {
        let (now, checkpoint) = ledger.checkpoint(&key(1)).unwrap();
        AddCheckpoint { old, hashes: ledger.consistency(old, now.size).unwrap(), checkpoint }.text()
    }

    #[test]
    fn a_witness_cosigns_what_goes_on_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
        let log = crate::log::verifier(&ledger.checkpoint(&key(1)).unwrap().0.origin, key(1).public());
        let known = |origin: &str| (origin == log.name).then(|| log.clone()).into_iter().collect();
        let open = || Witness::open(&temp.path().join("witness.sqlite"), key(2)).unwrap();
        let witness = open();
        beat(&ledger, 3);
        let cosigned = witness.add(&ask(&ledger, 0), known, 100).unwrap();
        assert_eq!(cosigned.status, 200);
        let (at_three, note) = ledger.checkpoint(&key(1)).unwrap();
        let verifiers = [verifier(key(2).public())];
        let whole = note + &cosigned.body;
        let (_, by) = note::open(&whole, &verifiers).unwrap();
        assert_eq!((by.len(), by[0].time), (1, 100));
        let backup = temp.path().join("backup.sqlite");
        ledger.connection().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
        beat(&ledger, 4);
        assert_eq!(witness.add(&ask(&ledger, 3), known, 101).unwrap().status, 200);
        // Again, and after a restart: the same is cosigned again.
        assert_eq!(open().add(&ask(&ledger, 7), known, 102).unwrap().status, 200);
        // A log that does not know how far the witness is, is shown its own checkpoint.
        let behind = witness.add(&ask(&ledger, 3), known, 103).unwrap();
        assert_eq!(behind.status, 409);
        let (text, by) = note::open(&behind.body, &verifiers).unwrap();
        assert_eq!((Checkpoint::parse(text).unwrap().size, by.len()), (7, 1));
        assert_eq!(witness.evidence().unwrap(), vec![]);
        // A restored backup that goes another way is a fork, of whatever length, and its request is kept.
        let restored = Ledger::open(&backup, &Seal::for_tests()).unwrap();
        restored.record(Event::Operator { command: "other".parse().unwrap() }, None, Duration::ZERO).unwrap();
        for (more, status) in [(3, 409), (5, 422)] {
            beat(&restored, more);
            let request = ask(&restored, 7);
            let found = witness.add(&request, known, 104).unwrap();
            assert_eq!((found.status, &found.body), (status, &behind.body), "what it cosigned last is what it shows");
            assert_eq!(witness.evidence().unwrap().last(), Some(&(log.name.clone(), request)));
        }
        // The log itself goes on.
        beat(&ledger, 1);
        assert_eq!(witness.add(&ask(&ledger, 7), known, 105).unwrap().status, 200);
        assert_eq!(at_three.size, 3);
    }

    #[test]
    fn strangers_and_nonsense_get_no_cosignature() {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
        beat(&ledger, 3);
        let witness = Witness::open(&temp.path().join("witness.sqlite"), key(2)).unwrap();
        let origin = ledger.checkpoint(&key(1)).unwrap().0.origin;
        let log = crate::log::verifier(&origin, key(1).public());
        let status = |request: &str, log: Option<Verifier>| {
            witness.add(request, |_| log.clone().into_iter().collect(), 1).unwrap().status
        };
        let good = ask(&ledger, 0);
        assert_eq!(status("old", Some(log.clone())), 400);
        assert_eq!(status(&good, None), 404);
        assert_eq!(status(&good, Some(crate::log::verifier(&origin, key(9).public()))), 403);
        assert_eq!(status(&good.replacen("old 0", "old 9", 1), Some(log.clone())), 400);
        assert_eq!(status(&good.replacen("old 0", "old 2", 1), Some(log.clone())), 409);
        let (text, rest) = good.split_once("\n\n").unwrap();
        assert_eq!(status(&format!("{text}\nAAAA\n\n{rest}"), Some(log.clone())), 400);
        assert_eq!(status(&good, Some(log)), 200);
    }
}
