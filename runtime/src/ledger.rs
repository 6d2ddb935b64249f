//! Step 8: the site's durable account of privacy. Charge before run; draw noise once; the same bytes on every retry.
//!
//! *In*: [`Admitted`] terms; later, the release made from them. *Out*: [`Charged`], the only key to the data; stored releases.
//! *Trusts*: the disk's fsync. *Refuses*: what would pass the dataset's cap (checked and booked in one transaction), another
//! manifest under a known job id, another round under a known number, rounds of a job that has ended.
//!
//! A job reserves its whole budget with its first round. Rounds are charged within that reservation. When the job ends, what no
//! round was charged for goes back: no data was touched for it. What was charged never goes back. The sum of open reservations
//! and of charges never passes the cap, so the account is a privacy filter for adaptively chosen rounds and jobs
//! (Whitehouse, Ramdas, Rogers, Wu, ICML 2023). All amounts are whole numbers of 10^-12 rho.

mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;

use crate::policy::Admitted;

/// The site's ledger. Cheap to clone; one transaction at a time.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Mutex<Connection>>);

/// A round that was charged: the right to run it, once or again after a crash.
#[derive(Debug)]
pub struct Charged {
    admitted: Admitted,
    rho: Rho,
}

/// What the ledger says to an admitted round.
#[derive(Debug)]
pub enum Admission {
    /// Run it. The charge is on disk.
    Run(Box<Charged>),
    /// It was run: these are the bytes, again.
    Released(Vec<u8>),
    /// It was run and nothing was released. It will not be run again.
    Nothing,
}

/// One dataset's account.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// The dataset.
    pub dataset: Name,
    /// What may ever be spent.
    pub cap: Rho,
    /// The delta at which the cap is shown as epsilon.
    pub cap_delta: f64,
    /// Charged.
    pub spent: Rho,
    /// Held by jobs that have not ended, beyond what they were charged.
    pub reserved: Rho,
    /// Its jobs, oldest first.
    pub jobs: Vec<JobAccount>,
}

/// One job's part of an account.
#[derive(Debug, Clone, PartialEq)]
pub struct JobAccount {
    /// The job.
    pub job: JobId,
    /// Who signed it, by the name this site gave.
    pub researcher: Name,
    /// Its title.
    pub title: String,
    /// Reserved at its first round.
    pub reserved: Rho,
    /// Charged.
    pub spent: Rho,
    /// Rounds charged.
    pub rounds: u32,
    /// Whether it has ended.
    pub ended: bool,
}

/// What the ledger refuses, or cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The cap.
    #[error("the budget of dataset `{dataset}` does not hold another {asked}: {left} is left")]
    OverBudget {
        /// The dataset.
        dataset: Name,
        /// What the job would reserve.
        asked: Rho,
        /// What is left.
        left: Rho,
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
            Self::OverJob { .. } => "round-over-job-budget",
            Self::OtherManifest => "job-differs",
            Self::OtherRound { .. } => "round-differs",
            Self::Order { .. } => "round-order",
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
    /// Opens or makes the ledger at `path`.
    ///
    /// # Errors
    /// It cannot be opened, is damaged, or its durability settings cannot be had.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let connection = schema::open(path).map_err(|why| LedgerError::Database { path: path.to_owned(), why })?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
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

    /// Sets a dataset's lifetime cap, as its site wrote it. Only grows what was spent never shrinks it.
    ///
    /// # Errors
    /// The database.
    pub fn set_cap(&self, dataset: &Name, cap: Rho, delta: f64) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let sql = "INSERT INTO account(dataset, cap_rho, cap_delta) VALUES(?1, ?2, ?3)
                       ON CONFLICT(dataset) DO UPDATE SET cap_rho = ?2, cap_delta = ?3";
            tx.execute(sql, params![dataset.as_str(), stored(cap), delta]).map_err(database(tx))?;
            Ok(())
        })
    }

    /// Reserves the job's budget if this is its first round, charges the round, and returns once both are on disk; or returns
    /// what became of the round earlier.
    ///
    /// # Errors
    /// See [`LedgerError`]. Nothing is booked then.
    pub fn charge(&self, admitted: Admitted, now: i64) -> Result<Admission, LedgerError> {
        let verified = admitted.verified().clone();
        let (signed, index) = (verified.signed(), verified.index());
        let (manifest, job) = (signed.manifest(), signed.manifest().job);
        let budget = signed.budget();
        let rho = budget.round(verified.round().share_ppb()).charge();
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
                return match (found.release, known.is_some_and(|known| known.ended)) {
                    (Some(bytes), _) if bytes.is_empty() => Ok(Some(Admission::Nothing)),
                    (Some(bytes), _) => Ok(Some(Admission::Released(bytes))),
                    (None, true) => Err(LedgerError::Ended),
                    // Charged, then this process died: no noised value has left memory, so it runs under the same charge.
                    (None, false) => Ok(None),
                };
            }
            match known {
                Some(known) if known.ended => return Err(LedgerError::Ended),
                Some(known) if known.rounds != index => {
                    return Err(LedgerError::Order { found: index, expected: known.rounds });
                }
                Some(_) => {}
                None if index != 0 => return Err(LedgerError::Order { found: index, expected: 0 }),
                None => {
                    let left = left(tx, &manifest.dataset)?;
                    if budget.rho() > left {
                        return Err(LedgerError::OverBudget { dataset: manifest.dataset.clone(), asked: budget.rho(), left });
                    }
                    let sql = "INSERT INTO job(job, manifest, dataset, researcher, title, reserved_rho, admitted)
                               VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                    let row = params![
                        job.to_string(),
                        signed.digest().to_string(),
                        manifest.dataset.as_str(),
                        verified.researcher().as_str(),
                        manifest.title,
                        stored(budget.rho()),
                        now
                    ];
                    tx.execute(sql, row).map_err(database(tx))?;
                }
            }
            let spent = find_job(tx, job)?.map_or(Rho::ZERO, |job| job.spent);
            if spent.checked_add(rho).is_none_or(|sum| sum > budget.rho()) {
                return Err(LedgerError::OverJob { round: index });
            }
            let sql = "INSERT INTO charge(job, round, round_digest, rho, charged) VALUES(?1, ?2, ?3, ?4, ?5)";
            tx.execute(sql, params![job.to_string(), index, verified.round_digest().to_string(), stored(rho), now])
                .map_err(database(tx))?;
            Ok(None)
        })?;
        Ok(answer.unwrap_or_else(|| Admission::Run(Box::new(Charged { admitted, rho }))))
    }

    /// Stores what a charged round released, or that it released nothing, and returns the bytes that count: those stored first.
    ///
    /// # Errors
    /// The database. Then the bytes must not leave.
    pub(crate) fn commit(
        &self,
        charged: &Charged,
        release: Option<&[u8]>,
        code: &str,
        now: i64,
    ) -> Result<Option<Vec<u8>>, LedgerError> {
        let verified = charged.admitted.verified();
        let (job, index) = (verified.signed().manifest().job, verified.index());
        self.transaction(|tx| {
            if let Some(bytes) = find_round(tx, job, index)?.and_then(|round| round.release) {
                return Ok((!bytes.is_empty()).then_some(bytes));
            }
            let bytes = release.unwrap_or_default();
            let sql = "INSERT INTO release(job, round, bytes, sha256, code, released) VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
            tx.execute(sql, params![job.to_string(), index, bytes, Digest::of(bytes).to_string(), code, now])
                .map_err(database(tx))?;
            Ok(release.map(<[u8]>::to_vec))
        })
    }

    /// Ends a job: no further round is charged, and what no round was charged for is free again. Unknown jobs have ended already.
    ///
    /// # Errors
    /// The database.
    pub fn end(&self, job: JobId) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            tx.execute("UPDATE job SET ended = 1 WHERE job = ?1 AND ended = 0", [job.to_string()]).map_err(database(tx))?;
            Ok(())
        })
    }

    /// All accounts, by dataset.
    ///
    /// # Errors
    /// The database.
    pub fn accounts(&self) -> Result<Vec<Account>, LedgerError> {
        self.transaction(|tx| schema::accounts(tx).map_err(database(tx)))
    }
}

struct KnownJob {
    manifest: Digest,
    spent: Rho,
    rounds: u32,
    ended: bool,
}

struct KnownRound {
    digest: Digest,
    /// Empty: nothing was released.
    release: Option<Vec<u8>>,
}

fn database(tx: &Transaction<'_>) -> impl Fn(rusqlite::Error) -> LedgerError {
    let path = PathBuf::from(tx.path().unwrap_or_default());
    move |error| LedgerError::Database { path: path.clone(), why: error.to_string() }
}

fn find_job(tx: &Transaction<'_>, job: JobId) -> Result<Option<KnownJob>, LedgerError> {
    let sql = "SELECT manifest, ended, (SELECT COALESCE(SUM(rho), 0) FROM charge WHERE charge.job = job.job),
                      (SELECT COUNT(*) FROM charge WHERE charge.job = job.job) FROM job WHERE job = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let manifest = schema::parsed(row, 0)?;
        Ok(KnownJob { manifest, ended: row.get(1)?, spent: schema::rho(row, 2)?, rounds: row.get(3)? })
    };
    tx.query_row(sql, [job.to_string()], read).optional().map_err(database(tx))
}

fn find_round(tx: &Transaction<'_>, job: JobId, round: u32) -> Result<Option<KnownRound>, LedgerError> {
    let sql = "SELECT round_digest, bytes FROM charge LEFT JOIN release USING(job, round) WHERE job = ?1 AND round = ?2";
    let read = |row: &rusqlite::Row<'_>| Ok(KnownRound { digest: schema::parsed(row, 0)?, release: row.get(1)? });
    tx.query_row(sql, params![job.to_string(), round], read).optional().map_err(database(tx))
}

fn left(tx: &Transaction<'_>, dataset: &Name) -> Result<Rho, LedgerError> {
    let sql = "SELECT MAX(cap_rho - committed_rho, 0) FROM account WHERE dataset = ?1";
    let found = tx.query_row(sql, [dataset.as_str()], |row| schema::rho(row, 0)).optional().map_err(database(tx))?;
    Ok(found.unwrap_or(Rho::ZERO))
}

/// SQLite's integers are signed; rho above 2^63 units means no privacy at all and is stored as the largest.
fn stored(rho: Rho) -> i64 {
    i64::try_from(rho.pico()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
