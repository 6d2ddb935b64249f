//! Step 8: the site's durable account of privacy. Charge before run; draw noise once; the same bytes on every retry.
//!
//! *In*: [`Admitted`] terms and the [`Purse`] they are paid from; later, the release made from them. *Out*: [`Charged`], the only key
//! to the data; stored releases, each with the moment before which it must not leave. *Trusts*: the disk's fsync. *Refuses*: what
//! would pass a cap (checked and booked in one transaction), another manifest under a known job id, another round under a known
//! number, rounds of a job that has ended.
//!
//! An account is a population's: all datasets about the same people, and all their versions, are paid from it. Within it a
//! researcher may have a cap of their own. A job reserves its whole budget with the first of its rounds that costs something, and
//! rounds are charged within that reservation. When the job ends, what no round was charged for goes back: no data was touched for
//! it. What was charged never goes back. The sum of open reservations and of charges never passes the cap, so the account is a
//! privacy filter for adaptively chosen rounds and jobs (Whitehouse, Ramdas, Rogers, Wu, ICML 2023). All amounts are whole numbers
//! of 10^-12 rho, and of 10^-15 for the small delta of each release's moment.
//!
//! A request that is the same in all that decides its answer (component, parameters, data, noise, limits, round) is answered with the
//! noise that was drawn the first time, for anyone who asks and at no cost: averaging needs other draws, and those are paid for.

mod account;
mod booking;
mod error;
mod logging;
mod queue;
mod recovery;
mod schema;
mod seal;
mod serving;
mod unpaid;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::leaf::{Event, Leaf, nothing};
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::release::most_bytes;
use vestibule_protocol::salt::{SALT_BYTES, Salt};

pub use self::account::{Account, JobAccount};
use self::booking::Asked;
pub use self::error::LedgerError;
pub use self::queue::{Kind, Waiting};
pub(crate) use self::queue::{Mark, MostHeld, Whose};
pub use self::recovery::Recovered;
pub use self::seal::Seal;
use crate::log;
use crate::policy::Admitted;

/// The site's ledger. Cheap to clone; one transaction at a time.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Mutex<Connection>>, Seal);

/// A round that was charged: the right to run it, once or again after a crash.
#[derive(Debug)]
pub struct Charged {
    admitted: Admitted,
    rho: Rho,
}

/// What a dataset's jobs are paid from.
#[derive(Debug, Clone, PartialEq)]
pub struct Purse {
    /// Whose data it is: the name of the account.
    pub population: Name,
    /// What may ever be spent on them.
    pub cap: Rho,
    /// The delta of the cap.
    pub delta: f64,
    /// What the small deltas of all releases' moments may add up to, in 10^-15.
    pub moments_femto: u64,
    /// What any one researcher may spend of it.
    pub researcher_cap: Option<Rho>,
    /// Which version of the data serves.
    pub version: String,
}

/// What became of a round, and the moment (milliseconds since 1970) before which nobody may learn of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The bytes to send; `None` where nothing was released, and never will be.
    pub release: Option<Vec<u8>>,
    /// When it may leave.
    pub leaves_ms: i64,
    /// Why a person must look at it first, if one must.
    pub hold: Option<String>,
}

/// What left of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departed {
    /// The leaf that says so.
    pub leaf: u64,
    /// Whether a release did, rather than the word that there is none.
    pub released: bool,
}

/// What the ledger says to an admitted round.
#[derive(Debug)]
pub enum Admission {
    /// Run it. The charge is on disk.
    Run(Box<Charged>),
    /// It was run, or one that is the same was. It will not be run again.
    Settled(Settled),
}

impl Charged {
    /// The terms that were charged.
    #[must_use]
    pub const fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// What the round was charged.
    #[must_use]
    pub const fn rho(&self) -> Rho {
        self.rho
    }
}

impl Ledger {
    /// Opens or makes the ledger at `path`, whose records `seal` seals.
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or its durability settings cannot be had.
    pub fn open(path: &Path, seal: &Seal) -> Result<Self, LedgerError> {
        let connection = schema::open(path, seal).map_err(|why| LedgerError::Database { path: path.to_owned(), why })?;
        Ok(Self(Arc::new(Mutex::new(connection)), seal.clone()))
    }

    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held rolled its transaction back: the connection is as sound as after a crash.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut connection = self.connection();
        let path = PathBuf::from(connection.path().unwrap_or_default());
        let wrap = |error: rusqlite::Error| LedgerError::Database { path: path.clone(), why: error.to_string() };
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrap)?;
        let value = body(&transaction)?;
        transaction.commit().map_err(wrap)?;
        Ok(value)
    }

    /// Reserves the job's budget if this is its first round that costs something, charges the round, and returns once both are on disk;
    /// or returns what became of the round, or of one that is the same, earlier. `since` is the time since 1970. Terms that are
    /// [too late](Admitted::late) are not charged.
    ///
    /// # Errors
    /// See [`LedgerError`]. Nothing is booked then.
    pub fn charge(&self, admitted: Admitted, purse: &Purse, since: Duration) -> Result<Admission, LedgerError> {
        let verified = admitted.verified().clone();
        let (signed, index) = (verified.signed(), verified.index());
        let job = signed.manifest().job;
        let rho = signed.budget().round(verified.round().share_ppb()).charge();
        let asked = Asked::new(&admitted, purse, rho, &self.1, since);
        let answer = self.transaction(|tx| {
            let known = find_job(tx, job)?;
            if let Some(known) = &known
                && known.manifest != signed.digest()
            {
                return Err(LedgerError::OtherManifest);
            }
            if let Some(found) = find_round(tx, job, index)? {
                if found.digest != self.1.keyed(verified.round_digest()) {
                    return Err(LedgerError::OtherRound { round: index });
                }
                if found.retired {
                    return Err(LedgerError::Retired { round: index });
                }
                return match (found.settled, known.is_some_and(|known| known.ended)) {
                    (Some(settled), _) => Ok(Some(settled)),
                    (None, true) => Err(LedgerError::Ended),
                    // Charged, then this process died: no noised value has left memory, so it runs under the same charge.
                    (None, false) => Ok(None),
                };
            }
            let next = known.as_ref().map_or(0, |known| known.rounds);
            match known {
                Some(known) if known.ended => return Err(LedgerError::Ended),
                _ if next != index => return Err(LedgerError::Order { found: index, expected: next }),
                Some(_) => {}
                None => asked.open(tx)?,
            }
            match asked.repeated(tx)? {
                Some(settled) => Ok(Some(settled)),
                None => match admitted.too_late() {
                    Some(why) => Err(LedgerError::TooLate(why.to_owned())),
                    None => asked.book(tx).map(|()| None),
                },
            }
        })?;
        Ok(answer.map_or_else(|| Admission::Run(Box::new(Charged { admitted, rho })), Admission::Settled))
    }

    /// Counts that a charged round is begun: before any row is touched, and on disk when this returns. Returns how often it was. A round that is
    /// begun and neither [committed](Self::commit) nor [taken back](Self::taken_back) was lost with its process.
    ///
    /// # Errors
    /// The database. Then the round must not run.
    pub(crate) fn begin(&self, charged: &Charged) -> Result<u32, LedgerError> {
        let verified = charged.admitted.verified();
        let row = params![verified.signed().manifest().job.to_string(), verified.index()];
        self.transaction(|tx| {
            let sql = "INSERT INTO attempt(job, round, begun) VALUES(?1, ?2, 1)
                       ON CONFLICT(job, round) DO UPDATE SET begun = begun + 1 RETURNING begun";
            tx.query_row(sql, row, |row| row.get(0)).map_err(database(tx))
        })
    }

    /// A round that was begun ended in good order without having run to its end: it was not lost.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn taken_back(&self, job: JobId, round: u32) -> Result<(), LedgerError> {
        let row = params![job.to_string(), round];
        self.transaction(|tx| {
            let sql = "UPDATE attempt SET begun = begun - 1 WHERE job = ?1 AND round = ?2 AND begun > 0";
            tx.execute(sql, row).map_err(database(tx)).map(|_| ())
        })
    }

    /// Stores what a charged round released, or that it released nothing, and when that may be known; returns what counts: what
    /// was stored first.
    ///
    /// # Errors
    /// The database. Then nothing must leave.
    pub(crate) fn commit(
        &self,
        charged: &Charged,
        settled: &Settled,
        (code, evidence): (&str, Option<&serde_json::Value>),
    ) -> Result<Settled, LedgerError> {
        let verified = charged.admitted.verified();
        let (job, index) = (verified.signed().manifest().job, verified.index());
        self.transaction(|tx| {
            if let Some(first) = find_round(tx, job, index)?.and_then(|round| round.settled) {
                return Ok(first);
            }
            settle(tx, (job, index), most_bytes(verified.round().request()), settled, (code, evidence))?;
            Ok(settled.clone())
        })
    }

    /// Logs, once, that a settled round's answer may leave, now that its moment has come: before that, a leaf would tell that the round
    /// had ended. What the leaf says is what leaves, whatever is decided later.
    ///
    /// # Errors
    /// The database; a person must look at it first. Then nothing must leave.
    pub fn depart(&self, job: JobId, round: u32, since: Duration) -> Result<Departed, LedgerError> {
        self.transaction(|tx| {
            if let Some(departed) = departed(tx, job, round)? {
                return Ok(departed);
            }
            let settled =
                find_round(tx, job, round)?.and_then(|round| round.settled).ok_or(LedgerError::NotSettled { round })?;
            let released = match (&settled.release, &settled.hold) {
                (Some(_), Some(_)) => queue::release(tx, job, round)?.ok_or(LedgerError::NotReviewed { round })?,
                (release, _) => release.is_some(),
            };
            let release = settled.release.as_deref().filter(|_| released).unwrap_or_default();
            let event = Event::Settled { job, round, release: Digest::of(release) };
            // There always are some: the leaf is as long whether something left or not.
            let evidence = queue::evidence(tx, job, round)?.unwrap_or(serde_json::Value::Null);
            let leaf = append(tx, milliseconds(since).max(settled.leaves_ms), event, Some(&evidence))?;
            let sql = "INSERT INTO departure(job, round, leaf) VALUES(?1, ?2, ?3)";
            tx.execute(sql, params![job.to_string(), round, leaf]).map_err(database(tx))?;
            Ok(Departed { leaf: leaf.unsigned_abs(), released })
        })
    }

    /// What left of a round, if its answer has.
    ///
    /// # Errors
    /// The database.
    pub fn departed(&self, job: JobId, round: u32) -> Result<Option<Departed>, LedgerError> {
        self.transaction(|tx| departed(tx, job, round))
    }

    /// Ends a job: no further round is charged, and what no round was charged for is free again. Unknown jobs have ended already.
    ///
    /// # Errors
    /// The database.
    pub fn end(&self, job: JobId, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let sql = "UPDATE job SET ended = 1 WHERE job = ?1 AND ended = 0";
            if tx.execute(sql, [job.to_string()]).map_err(database(tx))? > 0 {
                append(tx, milliseconds(since), Event::Ended { job }, None)?;
            }
            queue::let_go(tx, job)
        })
    }
}

/// Salt for one release.
///
/// # Errors
/// The operating system has no randomness.
pub(crate) fn salt() -> Result<Salt, LedgerError> {
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| LedgerError::Database { path: "ledger".into(), why: error.to_string() })?;
    Ok(Salt::from_bytes(salt))
}

fn append(tx: &Transaction<'_>, at_ms: i64, event: Event, details: Option<&serde_json::Value>) -> Result<i64, LedgerError> {
    let number = log::append(tx, at_ms, event, details).map_err(database(tx))?;
    Ok(i64::try_from(number).unwrap_or(i64::MAX))
}

/// SQLite's integers are signed; sizes are far below 2^63.
fn whole(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn departed(tx: &Transaction<'_>, job: JobId, round: u32) -> Result<Option<Departed>, LedgerError> {
    let sql = "SELECT leaf, body FROM departure JOIN log_leaf ON number = leaf WHERE job = ?1 AND round = ?2";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let found = tx.query_row(sql, params![job.to_string(), round], read).optional().map_err(database(tx))?;
    Ok(found.map(|(leaf, body)| {
        let said = Leaf::parse(&body).map(|leaf| leaf.event);
        let released = matches!(said, Ok(Event::Settled { release, .. }) if release != nothing());
        Departed { leaf: leaf.unsigned_abs(), released }
    }))
}

fn milliseconds(since: Duration) -> i64 {
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Stores an answer, whose release no other of its round is longer than `most` bytes.
fn settle(
    tx: &Transaction<'_>,
    (job, round): (JobId, u32),
    most: usize,
    settled: &Settled,
    (code, evidence): (&str, Option<&serde_json::Value>),
) -> Result<(), LedgerError> {
    let bytes = settled.release.as_deref().unwrap_or_default();
    let sql = "INSERT INTO release(job, round, bytes, sha256, leaves, evidence, hold)
               VALUES(?1, ?2, seal('release', ?1 || ' ' || ?2, ?3, ?8), ?4, ?5, seal('evidence', ?1 || ' ' || ?2, ?6), ?7)";
    let evidence = serde_json::json!({ "code": code, "found": evidence }).to_string();
    let sha256 = Digest::of(bytes).to_string();
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let row = params![job.to_string(), round, bytes, sha256, settled.leaves_ms, evidence.as_bytes(), settled.hold, most];
    tx.execute(sql, row).map_err(database(tx)).map(|_| ())
}

struct KnownJob {
    manifest: Digest,
    reserved: Rho,
    spent: Rho,
    rounds: u32,
    ended: bool,
}

struct KnownRound {
    digest: Digest,
    settled: Option<Settled>,
    /// Something was released, whose bytes are no longer kept.
    retired: bool,
}

fn database(tx: &Transaction<'_>) -> impl Fn(rusqlite::Error) -> LedgerError {
    let path = PathBuf::from(tx.path().unwrap_or_default());
    move |error| LedgerError::Database { path: path.clone(), why: error.to_string() }
}

fn find_job(tx: &Transaction<'_>, job: JobId) -> Result<Option<KnownJob>, LedgerError> {
    let sql = "SELECT manifest, ended, reserved_rho, spent_rho, rounds FROM job_account WHERE job = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let (reserved, spent) = (schema::rho(row, 2)?, schema::rho(row, 3)?);
        Ok(KnownJob { manifest: schema::parsed(row, 0)?, ended: row.get(1)?, reserved, spent, rounds: row.get(4)? })
    };
    tx.query_row(sql, [job.to_string()], read).optional().map_err(database(tx))
}

fn find_round(tx: &Transaction<'_>, job: JobId, round: u32) -> Result<Option<KnownRound>, LedgerError> {
    let sql = "SELECT round_digest, unseal('release', job || ' ' || round, bytes), leaves, hold, sha256
               FROM charge LEFT JOIN release USING(job, round) WHERE job = ?1 AND round = ?2";
    let read = |row: &rusqlite::Row<'_>| {
        // No bytes: nothing was released, or they are no longer kept.
        let (release, leaves) = (row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, Option<i64>>(2)?);
        let (hold, sha256) = (row.get(3)?, row.get::<_, Option<String>>(4)?);
        let retired = release.is_none() && sha256.is_some_and(|sha256| sha256 != nothing().to_string());
        let settled = leaves.map(|leaves_ms| Settled { release, leaves_ms, hold });
        Ok(KnownRound { digest: schema::parsed(row, 0)?, settled, retired })
    };
    tx.query_row(sql, params![job.to_string(), round], read).optional().map_err(database(tx))
}

/// SQLite's integers are signed; rho above 2^63 units means no privacy at all and is stored as the largest.
fn stored(rho: Rho) -> i64 {
    i64::try_from(rho.pico()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
