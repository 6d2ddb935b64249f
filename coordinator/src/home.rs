//! The coordinator's folder: settings, key, database, documents.
//!
//! *In*: a path, and the key's passphrase if it has one. *Out*: [`Home`]. *Refuses*: a folder that another daemon uses, unknown
//! settings, a wrong passphrase.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vestibule_protocol::digest::{Digest, DigestError};
use vestibule_protocol::key::{KeyError, SecretKey};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role, TOKEN_SECONDS};
use vestibule_protocol::trust::{Trust, TrustError};
use vestibule_sandbox::CodeCache;
use zeroize::Zeroizing;

use crate::analyses::Folder;
use crate::store::{Store, StoreError};

/// `coordinator.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where sites dial: UDP.
    pub quic: String,
    /// Where researchers call: TCP.
    pub api: String,
    /// Where sites dial that no UDP comes from: TCP.
    pub tunnel: Option<String>,
    /// How sites reach `quic` from outside; by default the same.
    pub public_quic: Option<String>,
    /// How sites reach `tunnel` from outside; by default the same.
    pub public_tunnel: Option<String>,
    /// How researchers reach `api` from outside; by default the same.
    pub public_api: Option<String>,
    /// Longest that one call of an analysis (compiling, `plan`, `next`) may take, in seconds.
    pub max_public_seconds: u32,
    /// Calls of analyses that run at the same time; one person has all but one of these places at most.
    pub public_places: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let (quic, api) = ("127.0.0.1:7443".to_owned(), "127.0.0.1:7480".to_owned());
        let (max_public_seconds, public_places) = (30, 2);
        Self {
            quic,
            api,
            tunnel: None,
            public_quic: None,
            public_tunnel: None,
            public_api: None,
            max_public_seconds,
            public_places,
        }
    }
}

const SETTINGS_TEMPLATE: &str = "\
# Settings of this coordinator. Port 0 takes any free port; run/addresses.json says which.
quic = \"127.0.0.1:7443\"   # where sites dial (UDP)
api  = \"127.0.0.1:7480\"   # where researchers call (HTTP). Beyond this machine, put a TLS proxy before it
# tunnel    = \"0.0.0.0:443\"                              # where sites dial whose network lets no UDP out (TCP, TLS)
# public_quic = \"coordinator.example.org:7443\"          # what invitations tell sites
# public_tunnel = \"coordinator.example.org:443\"         # the same
max_public_seconds = 30     # compiling, `plan` and `next` of an analysis: each may take so long
public_places = 2           # of those, how many run at the same time; one person has one place less
# public_api  = \"https://coordinator.example.org\"       # what invitations tell researchers
";

/// The addresses that a running daemon listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// `host:port` for sites.
    pub quic: String,
    /// `host:port` for sites that no UDP comes from.
    pub tunnel: Option<String>,
    /// Base URL for researchers.
    pub api: String,
}

/// The folder, opened.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    settings: Settings,
    key: SecretKey,
}

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
            Self::Store(error) => error.code(),
            Self::Trust(error) => error.code(),
            Self::NoConsortium(_) => "consortium-missing",
        }
    }
}

impl Home {
    /// Makes a new coordinator in `path`.
    ///
    /// # Errors
    /// There is one already; the folder cannot be written.
    pub fn init(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let io = |source| HomeError::Io { path: path.to_owned(), source };
        if path.join("coordinator.toml").exists() {
            return Err(HomeError::Exists(path.to_owned()));
        }
        for folder in ["keys", "blobs", "run", "code"] {
            std::fs::create_dir_all(path.join(folder)).map_err(io)?;
        }
        let file = path.join("keys/coordinator.pem");
        let key_error = |source| HomeError::Key { path: file.clone(), source };
        let pem = fresh_key().and_then(|key| key.to_pem(passphrase)).map_err(key_error)?;
        write_private(&file, pem.as_bytes()).map_err(io)?;
        // Last: a folder with settings is a whole coordinator.
        write_private(&path.join("coordinator.toml"), SETTINGS_TEMPLATE.as_bytes()).map_err(io)?;
        Self::open(path, passphrase)
    }

    /// Opens a coordinator's folder.
    ///
    /// # Errors
    /// Missing or malformed files; a passphrase that is missing or wrong.
    pub fn open(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let file = path.join("coordinator.toml");
        if !file.exists() {
            return Err(HomeError::Missing(path.to_owned()));
        }
        let read =
            |file: &Path| std::fs::read_to_string(file).map_err(|source| HomeError::Io { path: file.to_owned(), source });
        let settings =
            toml::from_str(&read(&file)?).map_err(|error| HomeError::Settings { path: file, why: error.to_string() })?;
        let file = path.join("keys/coordinator.pem");
        let text = Zeroizing::new(read(&file)?);
        let key = SecretKey::from_pem(&text, passphrase).map_err(|source| HomeError::Key { path: file, source })?;
        Ok(Self { path: path.to_owned(), settings, key })
    }

    /// Takes the folder for one daemon, until the returned file is dropped.
    ///
    /// # Errors
    /// Another daemon has it.
    pub fn lock(&self) -> Result<File, HomeError> {
        let path = self.path.join("lock");
        let io = |source| HomeError::Io { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(HomeError::InUse(self.path.clone())),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Where compiled code is kept, sealed with a secret that is made when it is first needed and used for nothing else.
    ///
    /// # Errors
    /// The secret cannot be read or written.
    pub(crate) fn code_cache(&self) -> Result<CodeCache, HomeError> {
        let path = self.path.join("keys/code.key");
        let io = |source| HomeError::Io { path: path.clone(), source };
        if !path.exists() {
            let mut key = Zeroizing::new([0; 32]);
            getrandom::fill(key.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
            write_private(&path, key.as_slice()).map_err(io)?;
        }
        let key = Zeroizing::new(std::fs::read(&path).map_err(io)?);
        let wrong = || io(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not a key: remove it"));
        let key = Zeroizing::new(<[u8; 32]>::try_from(key.as_slice()).map_err(|_| wrong())?);
        Ok(CodeCache::new(Box::new(Folder(self.path.join("code"))), &key))
    }

    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn store(&self) -> Result<Store, HomeError> {
        Ok(Store::open(&self.path.join("coordinator.sqlite"))?)
    }

    /// Where the running daemon listens, if it says so.
    #[must_use]
    pub fn addresses(&self) -> Option<Addresses> {
        serde_json::from_slice(&std::fs::read(self.path.join("run/addresses.json")).ok()?).ok()
    }

    pub(crate) fn set_addresses(&self, addresses: &Addresses) -> Result<(), HomeError> {
        let path = self.path.join("run/addresses.json");
        let text = serde_json::to_vec(addresses).expect("two strings are always JSON");
        let part = path.with_extension("part");
        let write = || -> std::io::Result<()> {
            std::fs::write(&part, text)?;
            std::fs::rename(&part, &path)
        };
        write().map_err(|source| HomeError::Io { path, source })
    }

    /// The fingerprint of the consortium's roots.
    ///
    /// # Errors
    /// None was pinned yet.
    pub fn consortium(&self) -> Result<Digest, HomeError> {
        let path = self.path.join("consortium");
        let text = std::fs::read_to_string(&path).map_err(|_| HomeError::NoConsortium(self.path.clone()))?;
        text.trim().parse().map_err(|error: DigestError| HomeError::Settings { path, why: error.to_string() })
    }

    /// Pins the fingerprint of the consortium's roots: for good.
    ///
    /// # Errors
    /// Another was pinned before; the file cannot be written.
    pub fn pin(&self, consortium: Digest) -> Result<(), HomeError> {
        let path = self.path.join("consortium");
        match self.consortium() {
            Ok(pinned) if pinned == consortium => Ok(()),
            Ok(pinned) => Err(HomeError::Trust(TrustError::Fingerprint { found: consortium, pinned })),
            Err(_) => {
                let write = write_private(&path, format!("{consortium}\n").as_bytes());
                write.map_err(|source| HomeError::Io { path, source })
            }
        }
    }

    /// Publishes a trust bundle to everybody, if it is to be believed after the last one.
    ///
    /// # Errors
    /// It is not; the database.
    pub fn publish(&self, envelope: &[u8]) -> Result<Trust, HomeError> {
        let store = self.store()?;
        let trust = match store.bundle()? {
            Some(known) => Trust::stored(&known)?.next(envelope)?,
            None => Trust::first(envelope, self.consortium()?)?,
        };
        store.publish(trust.bundle().version, envelope)?;
        Ok(trust)
    }

    /// Makes a one-time token for a new site or researcher, good for a day from `now`.
    ///
    /// # Errors
    /// The name is taken; the database.
    pub fn invite(&self, role: Role, name: &Name, now: i64) -> Result<Zeroizing<String>, HomeError> {
        let key = fresh_key().map_err(|source| HomeError::Key { path: self.path.clone(), source })?;
        let running = self.addresses();
        let or = |public: &Option<String>, running: Option<String>, set: String| public.clone().or(running).unwrap_or(set);
        let invitation = Invitation {
            role,
            name: name.clone(),
            quic: or(&self.settings.public_quic, running.as_ref().map(|at| at.quic.clone()), self.settings.quic.clone()),
            tunnel: self.settings.public_tunnel.clone().or(running.as_ref().and_then(|at| at.tunnel.clone())),
            api: or(&self.settings.public_api, running.map(|at| at.api), format!("http://{}", self.settings.api)),
            coordinator: self.key.public(),
            consortium: self.consortium()?,
            expires: now.saturating_add(TOKEN_SECONDS),
        };
        self.store()?.invite(&invitation, key.public())?;
        Ok(invitation.to_token(&key))
    }
}

fn fresh_key() -> Result<SecretKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::Algorithm)?;
    SecretKey::from_seed(*seed)
}

fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
