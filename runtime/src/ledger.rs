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
//! noise that was drawn the first time, for whoever asks and at no cost: averaging needs other draws, and those are paid for.

mod booking;
mod queue;
mod recovery;
mod schema;
mod seal;
mod serving;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, Leaf, nothing};
use vestibule_protocol::log::proof::LeafProof;
use vestibule_protocol::message::Receipt;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;

use self::booking::Asked;
pub use self::queue::{Kind, Waiting};
pub use self::recovery::Recovered;
pub use self::seal::Seal;
use crate::admission::Verified;
use crate::policy::Admitted;
use crate::{delay, log};

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

/// One population's account.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The population: a dataset's own name unless its recipe says otherwise.
    pub population: Name,
    /// What may ever be spent.
    pub cap: Rho,
    /// The delta of the cap. A tenth of it is for the moments of releases.
    pub cap_delta: f64,
    /// What the moments of all releases have added to delta, in 10^-15.
    pub moments_femto: u64,
    /// Charged.
    pub spent: Rho,
    /// Held by jobs that have not ended, beyond what they were charged.
    pub reserved: Rho,
    /// Its jobs, oldest first.
    pub jobs: Vec<JobAccount>,
}

impl Account {
    /// An amount of this account as epsilon, at the part of its delta that is not for the moments of releases.
    #[must_use]
    pub fn epsilon(&self, rho: Rho) -> f64 {
        rho.epsilon(self.cap_delta * delay::SUMS_DELTA)
    }
}

/// One job's part of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct JobAccount {
    /// The job.
    pub job: JobId,
    /// The dataset it read.
    pub dataset: Name,
    /// Who signed it, unless that was erased.
    pub researcher: Option<Name>,
    /// Its title, unless that was erased.
    pub title: Option<String>,
    /// Reserved at its first round that cost something.
    pub reserved: Rho,
    /// Charged.
    pub spent: Rho,
    /// Rounds answered, the free ones among them.
    pub rounds: u32,
    /// Whether it has ended.
    pub ended: bool,
}

/// What the ledger refuses, or cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The cap.
    #[error("the budget of `{population}` does not hold another {asked}: {left} is left")]
    OverBudget {
        /// The population.
        population: Name,
        /// What the job would reserve.
        asked: Rho,
        /// What is left.
        left: Rho,
    },
    /// The researcher's own cap.
    #[error("the researcher's part of the budget of `{population}` does not hold another {asked}")]
    OverResearcher {
        /// The population.
        population: Name,
        /// What the job would reserve.
        asked: Rho,
    },
    /// The project's own cap.
    #[error("the charter's budget at this site does not hold another {asked}")]
    OverCharter {
        /// What the job would reserve.
        asked: Rho,
    },
    /// The dataset was paid from another account before.
    #[error(
        "dataset `{dataset}` is paid from the account `{was}`: what was spent stays spent, so its population cannot change"
    )]
    OtherPopulation {
        /// The dataset.
        dataset: Name,
        /// Its account.
        was: String,
    },
    /// The job's rounds ask for more than the job reserved.
    #[error("round {round} asks for more than is left of the job's own budget")]
    OverJob {
        /// The round.
        round: u32,
    },
    /// Same id, other terms.
    #[error("another manifest was admitted under this job id")]
    OtherManifest,
    /// Same number, other round.
    #[error("another round was charged under the number {round}")]
    OtherRound {
        /// The round.
        round: u32,
    },
    /// A round was left out.
    #[error("round {found} was offered where round {expected} is next")]
    Order {
        /// What was offered.
        found: u32,
        /// What is next.
        expected: u32,
    },
    /// There is no answer yet.
    #[error("round {round} has no answer that could leave")]
    NotSettled {
        /// The round.
        round: u32,
    },
    /// A person must look at it first.
    #[error("round {round} waits for a person")]
    NotReviewed {
        /// The round.
        round: u32,
    },
    /// Its bytes were removed.
    #[error("the release of round {round} is no longer kept at this site, and is never drawn again")]
    Retired {
        /// The round.
        round: u32,
    },
    /// The job has ended here.
    #[error("the job has ended at this site")]
    Ended,
    /// The database.
    #[error("ledger {path}: {why}")]
    Database {
        /// Its file.
        path: PathBuf,
        /// What SQLite says.
        why: String,
    },
}

impl LedgerError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::OverBudget { .. } => "budget-exhausted",
            Self::OverResearcher { .. } => "researcher-budget-exhausted",
            Self::OverCharter { .. } => "charter-budget-exhausted",
            Self::OtherPopulation { .. } => "population-differs",
            Self::OverJob { .. } => "round-over-job-budget",
            Self::OtherManifest => "job-differs",
            Self::OtherRound { .. } => "round-differs",
            Self::Order { .. } => "round-order",
            Self::NotSettled { .. } => "round-not-settled",
            Self::NotReviewed { .. } => "round-not-reviewed",
            Self::Retired { .. } => "release-retired",
            Self::Ended => "job-ended",
            Self::Database { .. } => "ledger-database",
        }
    }
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
    /// or returns what became of the round, or of one that is the same, earlier. `since` is the time since 1970.
    ///
    /// # Errors
    /// See [`LedgerError`]. Nothing is booked then.
    pub fn charge(&self, admitted: Admitted, purse: &Purse, since: Duration) -> Result<Admission, LedgerError> {
        let verified = admitted.verified().clone();
        let (signed, index) = (verified.signed(), verified.index());
        let job = signed.manifest().job;
        let rho = signed.budget().round(verified.round().share_ppb()).charge();
        let asked = Asked::new(&admitted, purse, (rho, self.1.name(verified.researcher())), since);
        let answer = self.transaction(|tx| {
            let known = find_job(tx, job)?;
            if let Some(known) = &known
                && known.manifest != signed.digest()
            {
                return Err(LedgerError::OtherManifest);
            }
            if let Some(found) = find_round(tx, job, index)? {
                if found.digest != verified.round_digest() {
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
                None => asked.book(tx).map(|()| None),
            }
        })?;
        Ok(answer.map_or_else(|| Admission::Run(Box::new(Charged { admitted, rho })), Admission::Settled))
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
            settle(tx, (job, index), settled, (code, evidence))?;
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
            Ok(())
        })
    }

    /// Logs that terms of an accepted researcher were refused: once for the same terms and code, whatever the round, so that nobody fills the log
    /// by offering one manifest under many numbers.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn refused(&self, verified: &Verified, code: &str, why: &str, since: Duration) -> Result<(), LedgerError> {
        let (job, manifest, round) = (verified.signed().manifest().job, verified.signed().digest(), verified.index());
        self.transaction(|tx| {
            let key = params![manifest.to_string(), code];
            let sql = "SELECT 1 FROM refusal WHERE terms = ?1 AND code = ?2";
            if tx.query_row(sql, key, |_| Ok(())).optional().map_err(database(tx))?.is_some() {
                return Ok(());
            }
            let details = serde_json::json!({ "researcher": verified.researcher(), "why": why });
            let event = Event::Refused { job, manifest, round, code: code.to_owned() };
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
    pub(crate) fn rejected(&self, code: &str, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let hour = i64::try_from(since.as_secs() / 3_600).unwrap_or(i64::MAX);
            let sql = "SELECT 1 FROM rejection WHERE hour = ?1 AND code = ?2";
            if tx.query_row(sql, params![hour, code], |_| Ok(())).optional().map_err(database(tx))?.is_some() {
                return Ok(());
            }
            let leaf = append(tx, milliseconds(since), Event::Rejected { code: code.to_owned() }, None)?;
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

    /// All accounts, by population.
    ///
    /// # Errors
    /// The database.
    pub fn accounts(&self) -> Result<Vec<Account>, LedgerError> {
        self.transaction(|tx| schema::accounts(tx).map_err(database(tx)))
    }
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

fn settle(
    tx: &Transaction<'_>,
    (job, round): (JobId, u32),
    settled: &Settled,
    (code, evidence): (&str, Option<&serde_json::Value>),
) -> Result<(), LedgerError> {
    let bytes = settled.release.as_deref().unwrap_or_default();
    let sql = "INSERT INTO release(job, round, bytes, sha256, leaves, evidence, hold)
               VALUES(?1, ?2, seal('release', ?1 || ' ' || ?2, ?3), ?4, ?5, seal('evidence', ?1 || ' ' || ?2, ?6), ?7)";
    let evidence = serde_json::json!({ "code": code, "found": evidence }).to_string();
    let sha256 = Digest::of(bytes).to_string();
    let row = params![job.to_string(), round, bytes, sha256, settled.leaves_ms, evidence.as_bytes(), settled.hold];
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
