//! The coordinator's folder: settings, key, database, documents.
//!
//! *In*: a path, and the key's passphrase if it has one. *Out*: [`Home`]. *Refuses*: a folder that another daemon uses or that others
//! of the machine may use, unknown settings, a wrong passphrase.

mod error;
mod members;
pub(crate) mod private;
mod settings;

use std::fs::{File, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use vestibule_protocol::key::{KeyError, SecretKey};
use vestibule_sandbox::CodeCache;
use zeroize::Zeroizing;

use crate::analyses::Folder;
use crate::store::Store;

pub use error::HomeError;
use private::write_private;
pub use settings::{Addresses, Settings};

/// The folder, opened.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    settings: Settings,
    key: SecretKey,
}

const FOLDERS: [&str; 4] = ["keys", "blobs", "run", "code"];

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
        for folder in FOLDERS {
            private::make_folder(&path.join(folder)).map_err(io)?;
        }
        let file = path.join("keys/coordinator.pem");
        let key_error = |source| HomeError::Key { path: file.clone(), source };
        let pem = fresh_key().and_then(|key| key.to_pem(passphrase)).map_err(key_error)?;
        write_private(&file, pem.as_bytes()).map_err(io)?;
        // Last: a folder with settings is a whole coordinator.
        write_private(&path.join("coordinator.toml"), settings::TEMPLATE.as_bytes()).map_err(io)?;
        Self::open(path, passphrase)
    }

    /// Opens a coordinator's folder.
    ///
    /// # Errors
    /// Missing or malformed files, or some that others may use; a passphrase that is missing or wrong.
    pub fn open(path: &Path, passphrase: Option<&str>) -> Result<Self, HomeError> {
        let file = path.join("coordinator.toml");
        if !file.exists() {
            return Err(HomeError::Missing(path.to_owned()));
        }
        // Who cannot come into the folder reaches nothing in it.
        private::check(path)?;
        for key in ["keys", "keys/coordinator.pem"] {
            private::check(&path.join(key))?;
        }
        let read =
            |file: &Path| std::fs::read_to_string(file).map_err(|source| HomeError::Io { path: file.to_owned(), source });
        let wrong = |why: String| HomeError::Settings { path: file.clone(), why };
        let settings: Settings = toml::from_str(&read(&file)?).map_err(|error| wrong(error.to_string()))?;
        settings.check().map_err(wrong)?;
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
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io)?;
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
}

fn fresh_key() -> Result<SecretKey, KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::Algorithm)?;
    SecretKey::from_seed(*seed)
}
