//! A site's folder: settings, keys, data, ledger.
//!
//! ```text
//! site.toml          settings, written by people            charters/              projects that this site takes part in, and its terms
//! coordinator.json   whom to dial, from the invitation      ledger.sqlite          budgets, charges, releases
//! policies/          rules that the site's officers set     data/                  datasets, encrypted
//! keys/link.pem      the site's own key
//! keys/store.pem     what data.key is sealed with; that is what datasets are encrypted with
//! data.key           see there; the ledger's records too    blobs/, code/          components, and what was compiled of them
//! keys/log.pem       what the log's checkpoints are signed with; keys/log.pub: what they are verified with
//! keys/witness.pem   what other sites' checkpoints are cosigned with; witness.sqlite: how far each was
//! keys/*.next.pem    keys that the consortium is asked to put in the place of those
//! trust.json         the trust bundle that is believed      frozen.note            why the site is frozen, if it is
//! ```
//!
//! *In*: a path, and the passphrase of the keys if they have one. *Out*: [`Home`]: parsed settings, keys in memory, capability
//! handles to the folders. *Refuses*: a folder that is in use by another daemon, unknown settings, a wrong passphrase.

mod backup;
mod books;
mod keys;
mod rotation;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use serde::{Deserialize, Serialize};
use vestibule_protocol::charter::CharterError;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::{KeyError, PublicKey, SecretKey};
use vestibule_protocol::log::leaf::Purpose;
use vestibule_protocol::name::{Name, NameError};
use vestibule_protocol::trust::{Revoked, Trust, TrustError};
use zeroize::Zeroizing;

use crate::charter::{Accepted, Terms};
use crate::dataset::{Bucket, DataFolder, StorageError, StorageSettings, StoreKey};
use crate::delay::Costs;
use crate::executor::{Chosen, ExecutorSettings};
use crate::ledger::{Ledger, LedgerError, Seal};
use crate::policy::signed::PolicyError;
use crate::witness::Witness;
pub use backup::Backup;
pub use keys::seal_of;
use keys::{Folder, LEDGER_LABEL, STORE_KEY, data_key, derived, wrap};

/// A site's settings, as `site.toml` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Threads that run guests. 0: one for each processor.
    pub threads: usize,
    /// Largest epsilon that one job may ask for.
    pub max_epsilon_per_job: f64,
    /// Largest delta that one job may ask for.
    pub max_delta_per_job: f64,
    /// Most fuel that one partition may be given.
    pub max_fuel_per_partition: u64,
    /// Most memory that one instance may be given, in MiB.
    pub max_memory_mib: u32,
    /// Rounds that run at the same time.
    pub max_running_rounds: usize,
    /// Do not start on a kernel that cannot put up every wall around the processes in which guests run.
    pub require_walls: bool,
    /// Answers that follow from data leave at whole multiples of so many seconds since 1970. 0: when their delay is over.
    pub release_tick_seconds: u32,
    /// After so many seconds in which nothing was logged, the log says that it goes on, and is witnessed.
    pub heartbeat_seconds: u32,
    /// Details of the log (names, titles, reasons) are erased after so many days. The log itself stays.
    pub keep_details_days: u32,
    /// Releases' bytes are removed so many days after they were stored, if they have left. Their digests stay.
    pub keep_releases_days: u32,
    /// Components, and what was compiled of them, are removed when they were not used for so many days.
    pub keep_components_days: u32,
    /// The slowest that this machine runs guests: delays of releases follow from it.
    pub slowest: Costs,
    /// Keys and components that this site does not believe, whatever the consortium's trust bundle says.
    pub distrust: Revoked,
    /// Where the rows of datasets are kept, if not in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSettings>,
    /// Where rounds run.
    pub executor: ExecutorSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            max_epsilon_per_job: 4.0,
            max_delta_per_job: 1e-5,
            max_fuel_per_partition: 100_000_000,
            max_memory_mib: 256,
            max_running_rounds: 1,
            require_walls: false,
            release_tick_seconds: 0,
            heartbeat_seconds: 86_400,
            keep_details_days: 3_650,
            keep_releases_days: 365,
            keep_components_days: 365,
            slowest: Costs::default(),
            distrust: Revoked::default(),
            storage: None,
            executor: ExecutorSettings::default(),
        }
    }
}

/// What a fresh `site.toml` says.
pub const SETTINGS_TEMPLATE: &str = "\
# Settings of this site. Every line is optional; these are the defaults.
threads = 0                            # threads that run guests; 0: one for each processor
max_epsilon_per_job = 4.0              # a job that asks for more is refused
max_delta_per_job = 1e-5
max_fuel_per_partition = 100_000_000   # wasmtime fuel, about one unit per instruction
max_memory_mib = 256                   # memory of one instance
max_running_rounds = 1                 # rounds that run at the same time; more of them share processors, and can be told from each other's length
require_walls = false                  # true: do not start where the kernel lacks Landlock or seccomp
release_tick_seconds = 0               # e.g. 60: results leave on the minute after their delay
heartbeat_seconds = 86_400             # after so long without a line, the log says that it goes on, and other sites witness it
keep_releases_days = 365               # what left is kept for so long, to be sent again and to answer the same question; its digest stays
keep_components_days = 365             # components that were not used for so long are removed
keep_details_days = 3650               # names, titles and reasons beside the log are erased after so long; the log itself stays
# The slowest that this machine runs guests, as `cargo speed` measures it: the delays that hide how long a round took follow from it.
[slowest]
fuel_ns = 30.0                         # a unit of fuel
mib_us = 1000.0                        # a MiB of memory that is touched for the first time
row_us = 1000.0                        # reading one individual, and a fresh instance
entry_ns = 50.0                        # a value, a dosage, an entry of the sums
# [distrust]                           # not believed here, whatever the consortium's trust bundle says
# keys = []                            # of people and sites, \"ed25519:...\"
# components = []                      # \"sha256:...\"
# [storage]                            # rows of datasets in S3-compatible storage, instead of here (docs/DATASETS.md)
# url = \"s3://bucket/prefix\"
# endpoint = \"https://host:port\"      # if it is not AWS
# region = \"eu-central-1\"
# credentials = \"keys/storage.toml\"   # access_key_id and secret_access_key; left out: the machine's own role
# Where rounds run: threads of this machine, or a cluster (docs/OPERATING.md, \"On a cluster\").
[executor]
kind = \"threads\"
";

/// Whom a site dials, from its invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinator {
    /// The name under which this site is registered.
    pub site: Name,
    /// `host:port` of the QUIC listener.
    pub quic: String,
    /// `host:port` where it takes QUIC inside of TLS, if it does: for networks that let no UDP out.
    pub tunnel: Option<String>,
    /// The coordinator's key: no other is accepted.
    pub key: PublicKey,
    /// The fingerprint of the consortium's roots: no other trust bundle is believed.
    pub consortium: Digest,
}

/// A site's folder, opened.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    dir: Dir,
    settings: Settings,
    executor: Chosen,
    link_key: SecretKey,
    data_key: Zeroizing<[u8; 32]>,
    log_key: SecretKey,
    witness_key: SecretKey,
    /// Keys that are to take the place of these.
    next: Vec<(Purpose, SecretKey)>,
    bucket: OnceLock<Arc<Bucket>>,
    ledger: OnceLock<Ledger>,
}

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
            Self::InUse(_) => "site-in-use",
            Self::NotJoined(_) => "site-not-joined",
            Self::Charter(error) => error.code(),
            Self::Policy(error) => error.code(),
            Self::PolicyDiffers(_) => "policy-differs",
            Self::Storage(error) => error.code(),
            Self::Unknown(_) => "charter-unknown",
            Self::Ledger(error) => error.code(),
        }
    }
}

/// The ledger and the log, in a site's folder.
pub const LEDGER: &str = "ledger.sqlite";
/// The public half of the log's key, in a site's folder.
pub const LOG_KEY: &str = "keys/log.pub";
/// The trust bundle that is believed, in a site's folder.
pub const TRUST: &str = "trust.json";
/// Whom the site dials, and under which name, in a site's folder.
pub const COORDINATOR: &str = "coordinator.json";
const KEYS: &str = "keys";
const FROZEN: &str = "frozen.note";
const WITNESS: &str = "witness.sqlite";
const FOLDERS: [&str; 6] = ["keys", "charters", "policies", "data", "blobs", "code"];

impl Home {
    /// Makes a new site in `path`: folders, settings, and keys that are protected by the passphrase, if one is given.
    ///
    /// # Errors
    /// There is one already; the folder cannot be written.
    pub fn init(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let io = |source| HomeError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(io)?;
        if dir.exists("site.toml") {
            return Err(HomeError::Exists(path.to_owned()));
        }
        for folder in FOLDERS {
            dir.create_dir_all(folder).map_err(io)?;
        }
        for name in ["link", "store", "log", "witness"] {
            let file = format!("keys/{name}.pem");
            let key_error = |source| HomeError::Key { path: path.join(&file), source };
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| io(std::io::Error::other(error.to_string())))?;
            let key = SecretKey::from_seed(seed).map_err(key_error)?;
            let pem = key.to_pem(passphrase).map_err(key_error)?;
            write_private(&dir, &file, pem.as_bytes()).map_err(|source| HomeError::Io { path: path.join(&file), source })?;
            if name == "log" {
                replace(&dir, LOG_KEY, key.public().to_pem().as_bytes()).map_err(io)?;
            }
        }
        let store_key = SecretKey::from_pem(&dir.read_to_string(STORE_KEY).map_err(io)?, passphrase)
            .map_err(|source| HomeError::Key { path: path.join(STORE_KEY), source })?;
        let mut data_key = Zeroizing::new([0; 32]);
        getrandom::fill(data_key.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
        wrap(&dir, &store_key, &data_key).map_err(io)?;
        // Last: a folder with settings is a whole site.
        write_private(&dir, "site.toml", SETTINGS_TEMPLATE.as_bytes()).map_err(io)?;
        Self::open(path, passphrase)
    }

    /// Opens a site's folder.
    ///
    /// # Errors
    /// Missing or malformed files; a passphrase that is missing or wrong.
    pub fn open(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let dir = Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|source| HomeError::Io { path: path.to_owned(), source })?;
        if !dir.exists("site.toml") {
            return Err(HomeError::Missing(path.to_owned()));
        }
        let read = |file: &str| dir.read_to_string(file).map_err(|source| HomeError::Io { path: path.join(file), source });
        let wrong = |why: String| HomeError::Settings { path: path.join("site.toml"), why };
        let settings: Settings = toml::from_str(&read("site.toml")?).map_err(|error| wrong(error.to_string()))?;
        settings.slowest.check().map_err(|why| wrong(why.to_owned()))?;
        let executor = settings.executor.chosen().map_err(wrong)?;
        let (folder, keys) = (Folder { path, dir: &dir }, path.join(KEYS));
        let keys = Folder { path: &keys, dir: &folder.dir(KEYS)? };
        let (link_key, log_key, witness_key) =
            (keys.key("link.pem", passphrase)?, keys.key("log.pem", passphrase)?, keys.key("witness.pem", passphrase)?);
        let data_key = data_key(&folder, &keys, passphrase)?;
        let next = rotation::next(&keys, passphrase)?;
        Ok(Self {
            path: path.to_owned(),
            link_key,
            data_key,
            log_key,
            witness_key,
            next,
            settings,
            executor,
            dir,
            bucket: OnceLock::new(),
            ledger: OnceLock::new(),
        })
    }

    /// Takes the folder for one daemon, until the returned file is dropped.
    ///
    /// # Errors
    /// Another daemon has it.
    pub fn lock(&self) -> Result<File, HomeError> {
        let io = |source| HomeError::Io { path: self.path.join("lock"), source };
        let file = self.dir.open_with("lock", OpenOptions::new().create(true).write(true)).map_err(io)?.into_std();
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(HomeError::InUse(self.path.clone())),
            Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// Where the site lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its settings.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where its rounds run.
    pub(crate) const fn executor(&self) -> &Chosen {
        &self.executor
    }

    /// The key by which the coordinator knows it.
    #[must_use]
    pub const fn link_key(&self) -> &SecretKey {
        &self.link_key
    }

    /// The key that its log's checkpoints are signed with.
    #[must_use]
    pub const fn log_key(&self) -> &SecretKey {
        &self.log_key
    }

    /// The key that other sites' checkpoints are cosigned with.
    #[must_use]
    pub const fn witness_key(&self) -> &SecretKey {
        &self.witness_key
    }

    /// SHA-256 of the settings' file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn settings_digest(&self) -> Result<Digest, HomeError> {
        let path = self.path.join("site.toml");
        self.dir.read("site.toml").map(|bytes| Digest::of(&bytes)).map_err(|source| HomeError::Io { path, source })
    }

    /// What its datasets are encrypted with.
    #[must_use]
    pub fn store_key(&self) -> StoreKey {
        StoreKey::from_bytes(*self.data_key)
    }

    /// A secret of this site that seals compiled code and is used for nothing else.
    #[must_use]
    pub fn code_key(&self) -> [u8; 32] {
        *derived(&self.data_key, b"vestibule/site/code-cache/1")
    }

    /// What seals the ledger's records.
    #[must_use]
    pub fn seal(&self) -> Seal {
        Seal::from_bytes(&derived(&self.data_key, LEDGER_LABEL))
    }

    /// A folder of the site.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn folder(&self, name: &str) -> Result<Dir, HomeError> {
        self.dir.open_dir(name).map_err(|source| HomeError::Io { path: self.path.join(name), source })
    }

    /// Where the datasets lie. Which version of each serves, the ledger says.
    ///
    /// # Errors
    /// The folder or the ledger cannot be opened, or `[storage]` cannot be used.
    pub fn data(&self) -> Result<DataFolder, HomeError> {
        Ok(self.data_folder()?.by(Arc::new(self.ledger()?)))
    }

    fn data_folder(&self) -> Result<DataFolder, HomeError> {
        let dir = self.folder("data")?;
        let Some(settings) = &self.settings.storage else { return Ok(dir.into()) };
        let bucket = match self.bucket.get() {
            Some(bucket) => Arc::clone(bucket),
            None => {
                let bucket = Arc::new(Bucket::new(settings, &self.path)?);
                // Another thread may have been first.
                Arc::clone(self.bucket.get_or_init(|| bucket))
            }
        };
        Ok(DataFolder::new(dir, Some(bucket)))
    }

    /// The trust bundle that is believed, if one came yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trust(&self) -> Result<Option<Trust>, HomeError> {
        let path = self.path.join(TRUST);
        match self.dir.read(TRUST) {
            Ok(envelope) => {
                let wrong = |error: TrustError| HomeError::Settings { path, why: error.to_string() };
                Ok(Some(Trust::stored(&envelope).map_err(wrong)?.without(self.settings.distrust.clone())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// Keeps a bundle that is believed.
    pub(crate) fn set_trust(&self, envelope: &[u8]) -> Result<(), HomeError> {
        replace(&self.dir, TRUST, envelope).map_err(|source| HomeError::Io { path: self.path.join(TRUST), source })
    }

    /// What a witness showed that this log does not have, where the site is frozen.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn frozen(&self) -> Result<Option<String>, HomeError> {
        match self.dir.read_to_string(FROZEN) {
            Ok(shown) => Ok(Some(shown)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path: self.path.join(FROZEN), source }),
        }
    }

    /// No longer frozen: what the witness showed is kept under another name.
    pub(crate) fn thaw(&self) -> Result<(), HomeError> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let io = |source| HomeError::Io { path: self.path.join(FROZEN), source };
        self.dir.rename(FROZEN, &self.dir, format!("recovered-{now}.note")).map_err(io)
    }

    pub(crate) fn freeze(&self, shown: &str) -> Result<(), HomeError> {
        replace(&self.dir, FROZEN, shown.as_bytes()).map_err(|source| HomeError::Io { path: self.path.join(FROZEN), source })
    }

    /// Opens what this site remembers as a witness.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn witness(&self) -> Result<Witness, HomeError> {
        let path = self.path.join(WITNESS);
        let key = SecretKey::from_seed(*self.witness_key.seed())
            .map_err(|source| HomeError::Key { path: self.path.join("keys/witness.pem"), source })?;
        Witness::open(&path, key).map_err(|error| HomeError::Settings { path, why: error.to_string() })
    }

    /// Opens the ledger.
    ///
    /// # Errors
    /// It cannot be opened, or is damaged.
    pub fn ledger(&self) -> Result<Ledger, HomeError> {
        if let Some(ledger) = self.ledger.get() {
            return Ok(ledger.clone());
        }
        let ledger = Ledger::open(&self.path.join(LEDGER), &self.seal())?;
        // Another thread may have been first.
        Ok(self.ledger.get_or_init(|| ledger).clone())
    }

    /// Whom to dial.
    ///
    /// # Errors
    /// The site has not joined.
    pub fn coordinator(&self) -> Result<Coordinator, HomeError> {
        if !self.dir.exists(COORDINATOR) {
            return Err(HomeError::NotJoined(self.path.clone()));
        }
        let path = self.path.join(COORDINATOR);
        let text = self.dir.read(COORDINATOR).map_err(|source| HomeError::Io { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| HomeError::Settings { path, why: error.to_string() })
    }

    /// Remembers whom to dial.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_coordinator(&self, coordinator: &Coordinator) -> Result<(), HomeError> {
        let text = serde_json::to_vec_pretty(coordinator).expect("names, an address and a key are always JSON");
        replace(&self.dir, COORDINATOR, &text).map_err(|source| HomeError::Io { path: self.path.join(COORDINATOR), source })
    }

    /// A policy that was set, as it was signed.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn policy(&self, digest: Digest) -> Result<Vec<u8>, HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        self.dir.read(&file).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }

    /// Keeps a policy that is set.
    pub(crate) fn keep_policy(&self, digest: Digest, envelope: &[u8]) -> Result<(), HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        replace(&self.dir, &file, envelope).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }

    /// Takes part in a project from now on, under terms of its own.
    ///
    /// # Errors
    /// It is not a charter; the file cannot be written.
    pub fn accept(&self, envelope: &[u8], terms: Terms) -> Result<Accepted, HomeError> {
        let accepted = Accepted::new(envelope, terms)?;
        let stem = accepted.signed().digest().hex();
        let terms = serde_json::to_vec_pretty(accepted.terms()).expect("names and numbers are always JSON");
        for (file, bytes) in
            [(format!("charters/{stem}.terms.json"), terms.as_slice()), (format!("charters/{stem}.json"), envelope)]
        {
            replace(&self.dir, &file, bytes).map_err(|source| HomeError::Io { path: self.path.join(&file), source })?;
        }
        Ok(accepted)
    }

    /// No longer takes part in a project.
    ///
    /// # Errors
    /// It did not; the file cannot be removed.
    pub fn leave(&self, charter: Digest) -> Result<(), HomeError> {
        let (file, left) = (format!("charters/{}.json", charter.hex()), format!("charters/{}.left.json", charter.hex()));
        // It stays, for reports on what was done under it.
        self.dir.rename(&file, &self.dir, &left).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => HomeError::Unknown(charter),
            _ => HomeError::Io { path: self.path.join(&file), source },
        })
    }

    /// The charters that this site has accepted, by project. Read anew each time, so that a withdrawal holds at once.
    ///
    /// # Errors
    /// The folder or a file in it cannot be read.
    pub fn charters(&self) -> Result<Vec<Accepted>, HomeError> {
        let folder = self.path.join("charters");
        let io = |source| HomeError::Io { path: folder.clone(), source };
        let mut found = Vec::new();
        for entry in self.dir.read_dir("charters").map_err(io)? {
            let file = entry.map_err(io)?.file_name();
            let stem = file.to_str().and_then(|file| file.strip_suffix(".json")).filter(|stem| !stem.contains('.'));
            let Some(stem) = stem else { continue };
            let path = |suffix: &str| format!("charters/{stem}{suffix}");
            let terms = self.dir.read(path(".terms.json")).map_err(io)?;
            let terms = serde_json::from_slice(&terms)
                .map_err(|error| HomeError::Settings { path: self.path.join(path(".terms.json")), why: error.to_string() })?;
            found.push(Accepted::new(&self.dir.read(path(".json")).map_err(io)?, terms)?);
        }
        found.sort_by(|one, other| one.signed().charter().project.cmp(&other.signed().charter().project));
        Ok(found)
    }
}

/// Writes a new file that only its owner may read, and syncs it.
fn write_private(dir: &Dir, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = dir.open_with(name, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file's content whole: a crash leaves the old or the new.
pub(crate) fn replace(dir: &Dir, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let part = format!("{name}.part");
    match dir.remove_file(&part) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write_private(dir, &part, bytes)?;
    dir.rename(&part, dir, name)
}

#[cfg(test)]
mod tests {
    use super::keys::NEXT_STORE_KEY;
    use super::*;

    #[test]
    fn a_site_is_made_once_and_opened_with_its_passphrase() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("site");
        assert_eq!(Home::open(&path, None).unwrap_err().code(), "site-io");
        let made = Home::init(&path, Some("secret")).unwrap();
        assert_eq!(Home::init(&path, Some("secret")).unwrap_err().code(), "site-exists");
        assert_eq!(made.settings(), &Settings::default());
        assert_eq!(Home::open(&path, None).unwrap_err().code(), "key-passphrase-needed");
        assert_eq!(Home::open(&path, Some("wrong")).unwrap_err().code(), "key-passphrase-wrong");
        let opened = Home::open(&path, Some("secret")).unwrap();
        assert_eq!(opened.link_key().public(), made.link_key().public());
        assert_eq!(opened.coordinator().unwrap_err().code(), "site-not-joined");
    }

    #[test]
    fn settings_with_an_unknown_name_are_refused_with_their_line() {
        let temp = tempfile::tempdir().unwrap();
        Home::init(temp.path(), None).unwrap();
        std::fs::write(temp.path().join("site.toml"), "threads = 1\nmax_epsilon = 9\n").unwrap();
        let error = Home::open(temp.path(), None).unwrap_err();
        assert_eq!(error.code(), "site-settings");
        assert!(error.to_string().contains("max_epsilon") && error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn costs_that_are_no_times_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        Home::init(temp.path(), None).unwrap();
        for wrong in ["-1.0", "nan", "inf"] {
            std::fs::write(temp.path().join("site.toml"), format!("[slowest]\nmib_us = {wrong}\n")).unwrap();
            let error = Home::open(temp.path(), None).unwrap_err();
            assert!(error.code() == "site-settings" && error.to_string().contains("slowest"), "{error}");
        }
    }

    #[test]
    fn charters_are_accepted_and_left() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::init(temp.path(), None).unwrap();
        let envelope = crate::charter::tests::charter().sign(&crate::admission::tests::researcher()).unwrap();
        let terms = Terms { epsilon_micro: Some(1_000_000), ..Terms::default() };
        let accepted = home.accept(&envelope, terms).unwrap();
        assert_eq!(home.accept(b"{}", Terms::default()).unwrap_err().code(), "envelope-malformed");
        assert_eq!(home.charters().unwrap(), std::slice::from_ref(&accepted));
        let digest = accepted.signed().digest();
        home.leave(digest).unwrap();
        assert_eq!(home.leave(digest).unwrap_err().code(), "charter-unknown");
        assert!(home.charters().unwrap().is_empty());
    }

    #[test]
    fn the_store_key_is_replaced_and_the_old_one_opens_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path();
        let home = Home::init(path, Some("secret")).unwrap();
        let (old, data_key) = (std::fs::read(path.join(STORE_KEY)).unwrap(), home.store_key().inputs(b"x"));
        home.rotate_store_key(Some("secret")).unwrap();
        let new = std::fs::read(path.join(STORE_KEY)).unwrap();
        assert!(new != old && !path.join(NEXT_STORE_KEY).exists());
        assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
        std::fs::write(path.join(STORE_KEY), &old).unwrap();
        assert_eq!(Home::open(path, Some("secret")).unwrap_err().code(), "data-key");
        // Killed after the data key was sealed anew, and before the new key was in its place.
        std::fs::write(path.join(NEXT_STORE_KEY), &new).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path.join(NEXT_STORE_KEY), mode).unwrap();
        assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
        // The next rotation ends it first: at no moment is the one key that opens overwritten.
        let opened = Home::open(path, Some("secret")).unwrap();
        assert_eq!(opened.rotate_store_key(None).unwrap_err().code(), "key-passphrase-needed");
        opened.rotate_store_key(Some("secret")).unwrap();
        assert!(!path.join(NEXT_STORE_KEY).exists());
        assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
        // Killed before the data key was sealed anew: the next key opens nothing, and the old one holds.
        std::fs::write(path.join(NEXT_STORE_KEY), &old).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path.join(NEXT_STORE_KEY), mode).unwrap();
        assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        Home::init(temp.path(), None).unwrap();
        let file = temp.path().join("keys/log.pem");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Home::open(temp.path(), None).unwrap_err();
        assert!(error.code() == "key-mode" && error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn two_daemons_cannot_share_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let home = Home::init(temp.path(), None).unwrap();
        let lock = home.lock().unwrap();
        assert_eq!(Home::open(temp.path(), None).unwrap().lock().unwrap_err().code(), "site-in-use");
        drop(lock);
        home.lock().unwrap();
    }
}
