//! The coordinator's database: who may come, what was asked, what was released. SQLite, one file, synced.
//!
//! *In*: checked things. *Out*: the same after any restart. *Trusts*: its callers' checks. *Refuses*: names and job ids that are
//! taken by something else, invitations that were used, more components than a person may have. All calls block, for a sync of
//! the disk if they write: `writer` is one thread, and what comes together is synced together; `readers` look beside it.

mod components;
mod ends;
mod jobs;
mod members;
mod readers;
mod schema;
mod types;
mod writer;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};
use vestibule_protocol::name::Name;

pub use types::{Job, JobSite, JobState, NewJob, PersonRequest, Place, Proven, Request, StoredRound, Summary};

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    writer: writer::Writer,
    readers: readers::Readers,
}

/// What the database refuses, or cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The name is taken.
    #[error("the name `{0}` is taken: choose another, and one that looks otherwise")]
    NameTaken(Name),
    /// Nobody has the name.
    #[error("nobody has joined as `{0}`, and nobody is invited as that")]
    NameUnknown(Name),
    /// The invitation was used, has expired, or never was.
    #[error("the invitation is unknown, was used already, or has expired: ask for a new one")]
    Invitation,
    /// Same id, other manifest.
    #[error("another manifest was submitted under this job id")]
    OtherManifest,
    /// More components than a person may have.
    #[error("you have {used} bytes of components that your jobs name, of {most}: with this one it would be more")]
    Components {
        /// What the person's jobs name.
        used: u64,
        /// What a person may have.
        most: u64,
    },
    /// No room on the disk.
    #[error("the coordinator's disk is full")]
    Full,
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
            Self::NameUnknown(_) => "name-unknown",
            Self::Invitation => "invitation-unknown",
            Self::OtherManifest => "job-differs",
            Self::Components { .. } => "component-quota",
            Self::Full => "coordinator-disk",
            Self::Database(_) => "coordinator-database",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Database(error.to_string()),
        }
    }
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// It cannot be opened, or its durability settings cannot be had.
    pub fn open(path: &Path) -> Result<Self> {
        let writer = writer::Writer::start(schema::open(path)?)?;
        Ok(Self(Arc::new(Ends { writer, readers: readers::Readers::new(path.to_owned()) })))
    }

    fn write<T: Send + 'static>(&self, body: impl FnOnce(&Connection) -> Result<T> + Send + 'static) -> Result<T> {
        self.0.writer.write(body)
    }

    fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.0.readers.read(body)
    }
}

#[cfg(test)]
mod tests;
