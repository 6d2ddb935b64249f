//! The log in the ledger's file: what is said in it apart from charges, what is erased beside it, and what others are shown of it.
//!
//! *In*: events, moments, cosigned notes. *Out*: checkpoints and proofs. *Trusts*: that the one who kept a note checked it. *Refuses*: nothing twice: the same refusal
//! is one leaf.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, Leaf};
use vestibule_protocol::log::proof::LeafProof;
use vestibule_protocol::message::Receipt;
use vestibule_protocol::words::Code;

use super::{Ledger, LedgerError, append, database, milliseconds, whole};
use crate::admission::Verified;
use crate::log;

impl Ledger {
    /// Logs that terms of an accepted researcher were refused: once for the same terms and code, whatever the round, so that nobody fills the log
    /// by offering one manifest under many numbers.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn refused(
        &self,
        verified: &Verified,
        code: &'static str,
        why: &str,
        since: Duration,
    ) -> Result<(), LedgerError> {
        let (job, manifest, round) = (verified.signed().manifest().job, verified.signed().digest(), verified.index());
        self.transaction(|tx| {
            let key = params![manifest.to_string(), code];
            let sql = "SELECT 1 FROM refusal WHERE terms = ?1 AND code = ?2";
            if tx.query_row(sql, key, |_| Ok(())).optional().map_err(database(tx))?.is_some() {
                return Ok(());
            }
            let details = serde_json::json!({ "researcher": verified.researcher(), "why": why });
            let event = Event::Refused { job, manifest, round, code: Code::own(code) };
            let leaf = append(tx, milliseconds(since), event, Some(&details))?;
            let row = params![manifest.to_string(), code, leaf];
            tx.execute("INSERT INTO refusal(terms, code, leaf) VALUES(?1, ?2, ?3)", row).map_err(database(tx))?;
            Ok(())
        })
    }

    /// Logs that an offer was turned away before its terms were verified: the first of its code in an hour.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn rejected(&self, code: &'static str, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let hour = i64::try_from(since.as_secs() / 3_600).unwrap_or(i64::MAX);
            let sql = "SELECT 1 FROM rejection WHERE hour = ?1 AND code = ?2";
            if tx.query_row(sql, params![hour, code], |_| Ok(())).optional().map_err(database(tx))?.is_some() {
                return Ok(());
            }
            let leaf = append(tx, milliseconds(since), Event::Rejected { code: Code::own(code) }, None)?;
            let sql = "INSERT INTO rejection(hour, code, leaf) VALUES(?1, ?2, ?3)";
            tx.execute(sql, params![hour, code, leaf]).map_err(database(tx)).map(|_| ())
        })
    }

    /// Logs what happened apart from jobs.
    ///
    /// # Errors
    /// The database.
    pub fn record(&self, event: Event, details: Option<&serde_json::Value>, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| append(tx, milliseconds(since), event, details).map(|_| ()))
    }

    /// Logs that a key of the site took another's place, once.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn rotated(&self, event: &Event, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let said = {
                let sql = "SELECT body FROM log_leaf WHERE instr(body, ?1) > 0";
                let mut statement = tx.prepare(sql).map_err(database(tx))?;
                let rows = statement.query_map([br#""kind":"rotated""#.as_slice()], |row| row.get::<_, Vec<u8>>(0));
                let bodies = rows.and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>).map_err(database(tx))?;
                bodies.iter().any(|body| Leaf::parse(body).is_ok_and(|leaf| leaf.event == *event))
            };
            if said { Ok(()) } else { append(tx, milliseconds(since), event.clone(), None).map(|_| ()) }
        })
    }

    /// Erases the details of all leaves before `before`, and says so in the log. The tree stays as it is. Returns how many were erased.
    ///
    /// # Errors
    /// The database.
    pub fn erase(&self, before: Duration, since: Duration) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            let oldest = "SELECT body FROM log_leaf WHERE number = (SELECT MIN(leaf) FROM log_detail)";
            let oldest: Option<Vec<u8>> = tx.query_row(oldest, [], |row| row.get(0)).optional().map_err(database(tx))?;
            let old = |body: &[u8]| Leaf::parse(body).is_ok_and(|leaf| leaf.at_ms < milliseconds(before));
            if !oldest.is_some_and(|body| old(&body)) {
                return Ok(0);
            }
            let sql = "DELETE FROM log_detail WHERE leaf IN
                       (SELECT number FROM log_leaf WHERE json_extract(CAST(body AS TEXT), '$.at_ms') < ?1)";
            let details = tx.execute(sql, [milliseconds(before)]).map_err(database(tx))? as u64;
            // A component's goes on counting for as long as its signer does.
            let sql = "UPDATE review SET envelope = x'' WHERE json_extract(subject, '$.kind') <> 'component' AND leaf IN
                       (SELECT number FROM log_leaf WHERE json_extract(CAST(body AS TEXT), '$.at_ms') < ?1)";
            tx.execute(sql, [milliseconds(before)]).map_err(database(tx))?;
            append(tx, milliseconds(since), Event::Erased { details }, None)?;
            Ok(details)
        })
    }

    /// Removes the bytes of releases whose moment was before `before` and that have left, and says so in the log, together with how many `components` were
    /// removed. Digests stay. Such a release is never drawn again. Returns how many there were.
    ///
    /// # Errors
    /// The database.
    pub fn retire(&self, before: Duration, components: u64, since: Duration) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            let sql = "UPDATE release SET bytes = x'', evidence = NULL WHERE leaves < ?1 AND length(bytes) > 0
                       AND EXISTS(SELECT 1 FROM departure WHERE departure.job = release.job AND departure.round = release.round)";
            let releases = tx.execute(sql, [milliseconds(before)]).map_err(database(tx))? as u64;
            if releases > 0 || components > 0 {
                append(tx, milliseconds(since), Event::Retired { releases, components }, None)?;
            }
            Ok(releases)
        })
    }

    /// The time that counts: the clock's, but never before the last leaf of the log. A clock that was set back revives nothing.
    ///
    /// # Errors
    /// The database.
    pub fn time(&self, clock: Duration) -> Result<Duration, LedgerError> {
        let last = self.transaction(|tx| log::last_ms(tx).map_err(database(tx)))?;
        Ok(clock.max(Duration::from_millis(last.unsigned_abs())))
    }

    /// The log as it is now, and its signed checkpoint.
    ///
    /// # Errors
    /// The database.
    pub fn checkpoint(&self, key: &SecretKey) -> Result<(Checkpoint, String), LedgerError> {
        let checkpoint = self.transaction(|tx| log::checkpoint(tx).map_err(database(tx)))?;
        let note = log::sign(&checkpoint, key);
        Ok((checkpoint, note))
    }

    /// That the log of `size` leaves begins with that of `old`.
    ///
    /// # Errors
    /// The database; it has fewer leaves.
    pub fn consistency(&self, old: u64, size: u64) -> Result<Vec<Digest>, LedgerError> {
        self.transaction(|tx| log::consistency(tx, old, size).map_err(database(tx)))
    }

    /// The root of the first `size` leaves, if there are as many.
    pub(crate) fn root_at(&self, size: u64) -> Result<Option<Digest>, LedgerError> {
        self.transaction(|tx| match log::size(tx) {
            Ok(have) if have < size => Ok(None),
            _ => log::root_at(tx, size).map(Some).map_err(database(tx)),
        })
    }

    /// How many leaves a witness cosigned last, as far as is known here; and that it is so many from now on.
    pub(crate) fn seen_by(&self, witness: &str, now: Option<u64>) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            if let Some(now) = now {
                let sql = "INSERT INTO log_witness(name, size) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET size = ?2";
                tx.execute(sql, params![witness, whole(now)]).map_err(database(tx))?;
            }
            let sql = "SELECT size FROM log_witness WHERE name = ?1";
            let size: Option<i64> = tx.query_row(sql, [witness], |row| row.get(0)).optional().map_err(database(tx))?;
            Ok(size.map_or(0, i64::unsigned_abs))
        })
    }

    /// Keeps a cosigned checkpoint.
    pub(crate) fn keep(&self, size: u64, note: &str) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let sql = "INSERT INTO log_checkpoint(size, note) VALUES(?1, ?2) ON CONFLICT(size) DO UPDATE SET note = ?2";
            tx.execute(sql, params![whole(size), note]).map_err(database(tx)).map(|_| ())
        })
    }

    /// The largest checkpoint that was kept.
    pub(crate) fn kept(&self) -> Result<Option<String>, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1";
            tx.query_row(sql, [], |row| row.get(0)).optional().map_err(database(tx))
        })
    }

    /// That a leaf is in the tree of a checkpoint of `size` leaves.
    ///
    /// # Errors
    /// The database; there is no such leaf.
    pub fn receipt(&self, leaf: u64, size: u64, checkpoint: &str) -> Result<Receipt, LedgerError> {
        self.transaction(|tx| {
            let body = log::leaf(tx, leaf).map_err(database(tx))?;
            let hashes = log::inclusion(tx, leaf, size).map_err(database(tx))?;
            let proof = LeafProof { index: leaf, hashes, checkpoint: checkpoint.to_owned() }.text();
            Ok(Receipt { leaf: String::from_utf8_lossy(&body).into_owned(), proof })
        })
    }
}
