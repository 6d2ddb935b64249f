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
//! trust/             bundles that were believed             frozen.note            why the site is frozen, if it is
//! ```
//!
//! *In*: a path, and the passphrase of the keys if they have one. *Out*: [`Home`]: parsed settings, keys in memory, capability
//! handles to the folders. *Refuses*: a folder that is in use by another daemon, unknown settings, a wrong passphrase.

mod backup;
mod believed;
mod books;
mod documents;
mod error;
mod keys;
mod rotation;
mod settings;

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::leaf::Purpose;
use zeroize::Zeroizing;

use crate::dataset::{Bucket, DataFolder, StoreKey};
use crate::executor::Chosen;
use crate::ledger::{Ledger, Seal};
use crate::witness::Witness;
pub use backup::Backup;
pub use believed::Coordinator;
pub(crate) use believed::{bundle_file, charter_file, terms_file};
pub use error::HomeError;
pub use keys::seal_of;
use keys::{Folder, LEDGER_LABEL, STORE_KEY, derived, opened, wrap};
pub use settings::{SETTINGS_TEMPLATE, Settings};

/// A site's folder, opened.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    dir: Dir,
    settings: Settings,
    executor: Chosen,
    link_key: SecretKey,
    /// What seals the data key.
    store: StoreKey,
    data_key: Box<Zeroizing<[u8; 32]>>,
    log_key: SecretKey,
    witness_key: SecretKey,
    /// Keys that are to take the place of these.
    next: Vec<(Purpose, SecretKey)>,
    bucket: OnceLock<Arc<Bucket>>,
    ledger: OnceLock<Ledger>,
}

/// The ledger and the log, in a site's folder.
pub const LEDGER: &str = "ledger.sqlite";
/// The public half of the log's key, in a site's folder.
pub const LOG_KEY: &str = "keys/log.pub";
/// Whom the site dials, and under which name, in a site's folder.
pub const COORDINATOR: &str = "coordinator.json";
const KEYS: &str = "keys";
/// What seals where the witness' memory lies is derived for.
const PLACE_LABEL: &[u8] = b"vestibule/site/witness/1";
const FROZEN: &str = "frozen.note";
const WITNESS: &str = "witness.sqlite";
const FOLDERS: [&str; 7] = ["keys", "trust", "charters", "policies", "data", "blobs", "code"];

impl Home {
    /// Makes a new site in `path`: folders, settings, and keys that are protected by the passphrase, if one is given.
    ///
    /// # Errors
    /// There is one already; the folder cannot be written.
    pub fn init(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let io = |source| HomeError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(io)?;
        if dir.exists("site.toml") {
            return Err(HomeError::Exists(path.to_owned()));
        }
        // One that was there is closed too, now that it is a site's.
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(io)?;
        for folder in FOLDERS {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path.join(folder));
            made.map_err(io)?;
        }
        let mut witness_key = None;
        for name in ["link", "store", "log", "witness"] {
            let file = format!("keys/{name}.pem");
            let key_error = |source| HomeError::Key { path: path.join(&file), source };
            let mut seed = Zeroizing::new([0; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
            let key = SecretKey::from_seed(*seed).map_err(key_error)?;
            let pem = key.to_pem(passphrase).map_err(key_error)?;
            write_private(&dir, &file, pem.as_bytes()).map_err(|source| HomeError::Io { path: path.join(&file), source })?;
            if name == "log" {
                replace(&dir, LOG_KEY, key.public().to_pem().as_bytes()).map_err(io)?;
            }
            if name == "witness" {
                witness_key = Some(key);
            }
        }
        let store_key = SecretKey::from_pem(&Zeroizing::new(dir.read_to_string(STORE_KEY).map_err(io)?), passphrase)
            .map_err(|source| HomeError::Key { path: path.join(STORE_KEY), source })?;
        let mut data_key = Zeroizing::new([0; 32]);
        getrandom::fill(data_key.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
        wrap(&dir, &store_key, &data_key).map_err(io)?;
        Ledger::create(&path.join(LEDGER), &Seal::from_bytes(&derived(&data_key, LEDGER_LABEL)))?;
        let witness = path.join(WITNESS);
        let made = witness_key
            .ok_or_else(|| io(std::io::ErrorKind::NotFound.into()))
            .map(|key| Witness::create(&witness, key, &derived(&data_key, PLACE_LABEL)))?;
        made.map_err(|error| HomeError::Settings { path: witness, why: error.to_string() })?;
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
        if dir.exists(backup::BACKUP) {
            return Err(HomeError::IsBackup(path.to_owned()));
        }
        if !dir.exists("site.toml") {
            return Err(HomeError::Missing(path.to_owned()));
        }
        closed(path, &dir)?;
        let read = |file: &str| dir.read_to_string(file).map_err(|source| HomeError::Io { path: path.join(file), source });
        let wrong = |why: String| HomeError::Settings { path: path.join("site.toml"), why };
        let settings: Settings = toml::from_str(&read("site.toml")?).map_err(|error| wrong(error.to_string()))?;
        settings.check().map_err(wrong)?;
        let executor = settings.executor.chosen().map_err(wrong)?;
        let (folder, keys) = (Folder { path, dir: &dir }, path.join(KEYS));
        let keys = Folder { path: &keys, dir: &folder.dir(KEYS)? };
        let (link_key, log_key, witness_key) =
            (keys.key("link.pem", passphrase)?, keys.key("log.pem", passphrase)?, keys.key("witness.pem", passphrase)?);
        let (store, data_key) = opened(&folder, &keys, passphrase)?;
        let next = rotation::next(&keys, passphrase)?;
        Ok(Self {
            path: path.to_owned(),
            link_key,
            store,
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
        let file = self.dir.open_with("lock", OpenOptions::new().create(true).write(true).mode(0o600)).map_err(io)?.into_std();
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
        StoreKey::from_bytes(**self.data_key)
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

    /// Opens what this site remembers as a witness.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn witness(&self) -> Result<Witness, HomeError> {
        let path = self.path.join(WITNESS);
        let key = SecretKey::from_seed(*self.witness_key.seed())
            .map_err(|source| HomeError::Key { path: self.path.join("keys/witness.pem"), source })?;
        Witness::open(&path, key, &derived(&self.data_key, PLACE_LABEL), since_1970().as_secs())
            .map_err(|error| HomeError::Settings { path, why: error.to_string() })
    }

    /// That what it remembers as a witness was compared with the logs, after it was restored.
    ///
    /// # Errors
    /// A daemon runs; it cannot be written.
    pub fn vouch_witness(&self) -> Result<(), HomeError> {
        let _lock = self.lock()?;
        let path = self.path.join(WITNESS);
        Witness::vouch(&path, &derived(&self.data_key, PLACE_LABEL))
            .map_err(|error| HomeError::Settings { path, why: error.to_string() })
    }

    /// Opens the ledger.
    ///
    /// # Errors
    /// It is not there, cannot be opened, or is damaged.
    pub fn ledger(&self) -> Result<Ledger, HomeError> {
        if let Some(ledger) = self.ledger.get() {
            return Ok(ledger.clone());
        }
        let ledger = Ledger::open(&self.path.join(LEDGER), &self.seal())?;
        // Another thread may have been first.
        Ok(self.ledger.get_or_init(|| ledger).clone())
    }
}

/// Refuses a folder that other accounts of the machine can look into: they would read what is not theirs, and hold locks that stop the site.
fn closed(path: &Path, dir: &Dir) -> Result<(), HomeError> {
    let mode = |path: &Path, mode: u32| match mode & 0o077 {
        0 => Ok(()),
        _ => Err(HomeError::FolderMode { path: path.to_owned(), mode: mode & 0o777 }),
    };
    let io = |source| HomeError::Io { path: path.to_owned(), source };
    mode(path, dir.dir_metadata().map_err(io)?.permissions().mode())?;
    for name in [LEDGER, WITNESS, "lock"] {
        match dir.metadata(name) {
            Ok(found) => mode(&path.join(name), found.permissions().mode())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
    }
    Ok(())
}

/// By this machine's clock.
fn since_1970() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
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
mod tests;
