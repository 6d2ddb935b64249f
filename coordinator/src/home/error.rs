//! Why a coordinator's folder cannot be used.

use std::path::PathBuf;

use vestibule_protocol::key::KeyError;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::TrustError;

use crate::store::StoreError;

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is a coordinator already.
    #[error("{0} holds a coordinator already: choose another folder")]
    Exists(PathBuf),
    /// There is none.
    #[error("{0} holds no coordinator: make one with `vestibule coordinator init`")]
    Missing(PathBuf),
    /// Another daemon runs here.
    #[error("{0}: another `vestibule coordinator run` is using this folder: stop it first")]
    InUse(PathBuf),
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Settings that cannot be read.
    #[error("{path}: {why}")]
    Settings {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its line.
        why: String,
    },
    /// The key.
    #[error("{path}: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A folder or file that others of the machine may use.
    #[error("{path}: {why}: `{mend}`")]
    Open {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
        /// A command that mends it.
        mend: String,
    },
    /// A name that the consortium knows.
    #[error("the consortium's trust bundle names `{0}`: its roots have to leave it out first")]
    InBundle(Name),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A trust bundle.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// No consortium yet.
    #[error(
        "{0}: this coordinator does not know its consortium's roots yet: use `vestibule coordinator pin` with their fingerprint"
    )]
    NoConsortium(PathBuf),
}

impl HomeError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exists(_) => "coordinator-exists",
            Self::Missing(_) => "coordinator-missing",
            Self::InUse(_) => "coordinator-in-use",
            Self::Io { .. } => "coordinator-io",
            Self::Settings { .. } => "coordinator-settings",
            Self::Key { source, .. } => source.code(),
            Self::Open { .. } => "coordinator-open",
            Self::InBundle(_) => "name-in-bundle",
            Self::Store(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::NoConsortium(_) => "consortium-missing",
        }
    }
}
