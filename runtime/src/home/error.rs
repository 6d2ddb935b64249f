//! Why a site's folder cannot be used.

use std::path::PathBuf;

use vestibule_protocol::charter::CharterError;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::KeyError;
use vestibule_protocol::name::NameError;
use vestibule_protocol::trust::TrustError;

use crate::dataset::StorageError;
use crate::ledger::LedgerError;
use crate::policy::signed::PolicyError;

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is a site already.
    #[error("{0} holds a site already: choose another folder")]
    Exists(PathBuf),
    /// There is none.
    #[error("{0} holds no site: make one with `vestibule site init`")]
    Missing(PathBuf),
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
    /// A key that cannot be read.
    #[error("{path}: {source}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// A name that cannot be a file's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The data key does not open.
    #[error("{0} does not open with keys/store.pem: it was sealed with another key, or changed")]
    DataKey(PathBuf),
    /// A key that others than its owner may read.
    #[error("{path} may be read by others than its owner (mode {mode:o}): `chmod 600` it, and think of who has read it")]
    KeyMode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A folder, or a file in it, that other accounts may look into.
    #[error("{path} is open to other accounts of this machine (mode {mode:o}): `chmod -R go= ` the site's folder")]
    FolderMode {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A backup, and no site.
    #[error("{0} is a backup: make a site of it with `vestibule site restore`, which looks at all of it first")]
    IsBackup(PathBuf),
    /// A backup that is not what it was.
    #[error("{0} is not what it was when the backup was made: use another backup")]
    BackupChanged(PathBuf),
    /// Another daemon runs here.
    #[error("{0}: another `vestibule site run` is using this folder: stop it first")]
    InUse(PathBuf),
    /// The site has not joined a coordinator.
    #[error("{0}: this site has not joined a coordinator: use `vestibule site join` with the token that you were given")]
    NotJoined(PathBuf),
    /// A charter.
    #[error(transparent)]
    Charter(#[from] CharterError),
    /// A policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Another policy than the log says.
    #[error(
        "the log says that policy {0} holds, and the folder `policies` has another in its place: put back the one that the officers signed"
    )]
    PolicyDiffers(Digest),
    /// Another document than the log names.
    #[error("{0} is not the document that the log names: put back the one that was there, or restore the folder from a backup")]
    Differs(PathBuf),
    /// A trust bundle that does not follow from the pinned roots.
    #[error("{path}: {source}")]
    Trust {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: TrustError,
    },
    /// Another name, coordinator or consortium than the site joined.
    #[error(
        "{0}: the site's name, the coordinator's key and the consortium's fingerprint are not those that the site joined with: put back the file"
    )]
    Pin(PathBuf),
    /// Where rows are kept.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No such charter.
    #[error("no charter {0} is accepted here")]
    Unknown(Digest),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl HomeError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exists(_) => "site-exists",
            Self::Missing(_) => "site-missing",
            Self::Io { .. } => "site-io",
            Self::Settings { .. } => "site-settings",
            Self::Key { source, .. } => source.code(),
            Self::Name(_) => "site-name",
            Self::DataKey(_) => "data-key",
            Self::KeyMode { .. } => "key-mode",
            Self::FolderMode { .. } => "folder-mode",
            Self::IsBackup(_) => "site-backup",
            Self::BackupChanged(_) => "backup-changed",
            Self::InUse(_) => "site-in-use",
            Self::NotJoined(_) => "site-not-joined",
            Self::Charter(error) => error.code(),
            Self::Policy(error) => error.code(),
            Self::PolicyDiffers(_) => "policy-differs",
            Self::Differs(_) => "document-differs",
            Self::Trust { source, .. } => source.code(),
            Self::Pin(_) => "pin-differs",
            Self::Storage(error) => error.code(),
            Self::Unknown(_) => "charter-unknown",
            Self::Ledger(error) => error.code(),
        }
    }
}
