//! Accounts, as the site's operator sees them.
//!
//! *In*: the ledger. *Out*: what each population's data have been spent on, and by which job.

use vestibule_protocol::job::JobId;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;

use super::{Ledger, LedgerError, database, schema};
use crate::delay;

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

impl Ledger {
    /// All accounts, by population.
    ///
    /// # Errors
    /// The database.
    pub fn accounts(&self) -> Result<Vec<Account>, LedgerError> {
        self.transaction(|tx| schema::accounts(tx).map_err(database(tx)))
    }
}
