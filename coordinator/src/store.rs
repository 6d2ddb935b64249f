//! The coordinator's database: who may come, what was asked, what was released. SQLite, one file, synced.
//!
//! *In*: checked things. *Out*: the same after any restart. *Trusts*: its callers' checks. *Refuses*: names and job ids that are
//! taken by something else, invitations that were used.

mod jobs;
mod members;
mod schema;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::{Receipt, SiteRequest};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::Role;
use vestibule_protocol::words::{Country, Organisation};

use crate::round::SiteState;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Mutex<Connection>>);

/// What the database refuses, or cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The name is taken.
    #[error("the name `{0}` is taken: choose another, and one that looks otherwise")]
    NameTaken(Name),
    /// The invitation was used, has expired, or never was.
    #[error("the invitation is unknown, was used already, or has expired: ask for a new one")]
    Invitation,
    /// Same id, other manifest.
    #[error("another manifest was submitted under this job id")]
    OtherManifest,
    /// The database.
    #[error("coordinator.sqlite: {0}")]
    Database(String),
}

impl StoreError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NameTaken(_) => "name-taken",
            Self::Invitation => "invitation-unknown",
            Self::OtherManifest => "job-differs",
            Self::Database(_) => "coordinator-database",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Its rounds are under way.
    Running,
    /// Its report is here.
    Finished,
    /// It ended without one.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A job, as stored.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The manifest's envelope.
    pub envelope: Vec<u8>,
    /// Who owns it.
    pub owner: PublicKey,
    /// When it came, in seconds since 1970.
    pub submitted: i64,
    /// How it stands.
    pub state: JobState,
    /// Why it failed: a code and a sentence.
    pub error: Option<(String, String)>,
    /// Rounds begun.
    pub rounds: u32,
    /// Most rounds, by its plan.
    pub max_rounds: u32,
}

/// What a newcomer asks the consortium to know them as.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A site, with its keys.
    Site(SiteRequest),
    /// A researcher.
    Researcher(PersonRequest),
    /// An approver.
    Approver(PersonRequest),
}

/// A person, with their key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PersonRequest {
    /// Whom they work for.
    pub organisation: Organisation,
    /// Where: an ISO 3166 code of two letters.
    pub country: Country,
    /// Their key.
    pub key: PublicKey,
}

impl Request {
    const fn role(&self) -> Role {
        match self {
            Self::Site(_) => Role::Site,
            Self::Researcher(_) => Role::Researcher,
            Self::Approver(_) => Role::Approver,
        }
    }
}

/// A site's part in a job, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSite {
    /// Which site.
    pub site: Name,
    /// Its state in the current round.
    pub state: SiteState,
    /// Why it refused: a code and a sentence.
    pub reason: Option<(String, String)>,
}

/// A release, as stored, with the proof that it is in its site's witnessed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The round.
    pub round: u32,
    /// The site.
    pub site: Name,
    /// What it released: JSON.
    pub release: Vec<u8>,
    /// The proof.
    pub receipt: Receipt,
}

/// A round, as stored.
#[derive(Debug, Clone)]
pub struct StoredRound {
    /// The request, as JSON.
    pub request: Vec<u8>,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// It cannot be opened, or its durability settings cannot be had.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(schema::open(path)?))))
    }

    fn with<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        // A panic while the lock was held rolled its transaction back.
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = body(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
