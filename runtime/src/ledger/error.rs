//! What the ledger refuses, or cannot do.

use std::path::PathBuf;

use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;

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
    /// The release could not leave before the round's deadline.
    #[error("{0}")]
    TooLate(String),
    /// As many jobs wait for a person as may.
    #[error(
        "as many jobs of this researcher, or of this charter, wait for a person at this site as may: try again when some were decided"
    )]
    TooManyHeld,
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
            Self::TooLate(_) => "release-too-late",
            Self::TooManyHeld => "too-many-held",
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
