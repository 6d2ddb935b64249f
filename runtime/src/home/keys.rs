//! What the site's other secrets follow from: the data key, which lies in the folder, sealed with a key that lies apart from it.
//!
//! *In*: the site's folder and that of its keys, a passphrase where the keys have one. *Out*: the data key; what seals the ledger's records; another
//! store key in the place of the one that was. *Refuses*: keys that others than their owner may read, keys that do not open the data key.

use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, PermissionsExt as _};
use vestibule_protocol::key::SecretKey;
use zeroize::Zeroizing;

use super::{Home, HomeError, KEYS, replace};
use crate::dataset::StoreKey;
use crate::ledger::Seal;

pub(super) const STORE_KEY: &str = "keys/store.pem";
pub(super) const NEXT_STORE_KEY: &str = "keys/store.next.pem";
pub(super) const DATA_KEY: &str = "data.key";
/// The data key in a backup: sealed with the same key, and no data key until it is restored.
pub(super) const BACKUP_KEY: &str = "backup.key";
const OF_A_BACKUP: u8 = b'b';
/// What the ledger's secret is derived for.
pub(super) const LEDGER_LABEL: &[u8] = b"vestibule/site/ledger/1";

/// What opens the sealed records of the ledger in `dir`, a site's folder or a copy of it; `keys`: where its keys lie, if apart from it. `None` where no keys
/// lie in the folder and none are named.
///
/// # Errors
/// The keys cannot be read, or are others.
pub fn seal_of(path: &Path, keys: Option<&Path>, passphrase: Option<&str>) -> Result<Option<Seal>, HomeError> {
    let open = |path: &Path| {
        Dir::open_ambient_dir(path, ambient_authority()).map_err(|source| HomeError::Io { path: path.to_owned(), source })
    };
    let beside = path.join(KEYS);
    if keys.is_none() && !beside.join("store.pem").exists() {
        return Ok(None);
    }
    let keys = keys.unwrap_or(&beside);
    let (folder, keys) = (Folder { path, dir: &open(path)? }, Folder { path: keys, dir: &open(keys)? });
    let data_key = match folder.dir.exists(BACKUP_KEY) {
        true => of_backup(&folder, &keys, passphrase)?.1,
        false => data_key(&folder, &keys, passphrase)?,
    };
    Ok(Some(Seal::from_bytes(&derived(&data_key, LEDGER_LABEL))))
}

/// What datasets and records are sealed with: it stays where it is when what it belongs to moves.
pub(super) type DataKey = Box<Zeroizing<[u8; 32]>>;

/// A folder, and where it lies.
pub(super) struct Folder<'a> {
    pub(super) path: &'a Path,
    pub(super) dir: &'a Dir,
}

impl Folder<'_> {
    fn io(&self, file: &str) -> impl Fn(std::io::Error) -> HomeError {
        let path = self.path.join(file);
        move |source| HomeError::Io { path: path.clone(), source }
    }

    pub(super) fn dir(&self, name: &str) -> Result<Dir, HomeError> {
        self.dir.open_dir(name).map_err(self.io(name))
    }

    /// A secret key, which nobody but its owner may read.
    pub(super) fn key(&self, file: &str, passphrase: Option<&str>) -> Result<SecretKey, HomeError> {
        let path = self.path.join(file);
        let mode = self.dir.metadata(file).map_err(self.io(file))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(HomeError::KeyMode { path, mode: mode & 0o777 });
        }
        let text = Zeroizing::new(self.dir.read_to_string(file).map_err(self.io(file))?);
        SecretKey::from_pem(&text, passphrase).map_err(|source| HomeError::Key { path, source })
    }
}

/// The data key of a site's folder, opened with the store key in the folder of its keys.
pub(super) fn data_key(folder: &Folder<'_>, keys: &Folder<'_>, passphrase: Option<&str>) -> Result<DataKey, HomeError> {
    opened(folder, keys, passphrase).map(|(_, data_key)| data_key)
}

/// The store key that holds, and the data key that it opens.
pub(super) fn opened(
    folder: &Folder<'_>,
    keys: &Folder<'_>,
    passphrase: Option<&str>,
) -> Result<(StoreKey, DataKey), HomeError> {
    let sealed = folder.dir.read(DATA_KEY).map_err(folder.io(DATA_KEY))?;
    let mut store_key = StoreKey::from_bytes(*keys.key("store.pem", passphrase)?.seed());
    let opens = |key: &StoreKey| key.decrypt(&sealed).map(Zeroizing::new);
    let mut opened = opens(&store_key);
    // A rotation that was killed, or is under way: where the next key opens it, that one holds.
    if opened.is_none() && keys.dir.exists("store.next.pem") {
        store_key = StoreKey::from_bytes(*keys.key("store.next.pem", passphrase)?.seed());
        opened = opens(&store_key);
    }
    // It stays where it is when the folder that it belongs to moves.
    let data_key = opened.and_then(|opened| Some(Box::new(Zeroizing::new(opened.as_slice().try_into().ok()?))));
    let data_key = data_key.ok_or_else(|| HomeError::DataKey(folder.path.join(DATA_KEY)))?;
    Ok((store_key, data_key))
}

/// The store key, and the data key of a backup that it opens.
fn of_backup(folder: &Folder<'_>, keys: &Folder<'_>, passphrase: Option<&str>) -> Result<(SecretKey, DataKey), HomeError> {
    let store_key = keys.key("store.pem", passphrase)?;
    let sealed = folder.dir.read(BACKUP_KEY).map_err(folder.io(BACKUP_KEY))?;
    let opened = StoreKey::from_bytes(*store_key.seed()).decrypt(&sealed).map(Zeroizing::new);
    let data_key = opened.as_deref().and_then(|opened| opened.strip_suffix(&[OF_A_BACKUP])?.try_into().ok());
    let data_key = data_key.ok_or_else(|| HomeError::DataKey(folder.path.join(BACKUP_KEY)))?;
    Ok((store_key, Box::new(Zeroizing::new(data_key))))
}

/// The same, of the backup and the keys in these folders.
pub(super) fn unwrap_backup(backup: &Path, keys: &Path, passphrase: Option<&str>) -> Result<(SecretKey, DataKey), HomeError> {
    let open = |path: &Path| {
        Dir::open_ambient_dir(path, ambient_authority()).map_err(|source| HomeError::Io { path: path.to_owned(), source })
    };
    of_backup(&Folder { path: backup, dir: &open(backup)? }, &Folder { path: keys, dir: &open(keys)? }, passphrase)
}

/// A secret of its own for each use.
pub(super) fn derived(data_key: &Zeroizing<[u8; 32]>, label: &[u8]) -> Zeroizing<[u8; 32]> {
    use aws_lc_rs::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA256, data_key.as_slice());
    let mut out = Zeroizing::new([0; 32]);
    out.copy_from_slice(hmac::sign(&key, label).as_ref());
    out
}

/// Seals the data key with the store key, in the place of what was there.
pub(super) fn wrap(dir: &Dir, store_key: &SecretKey, data_key: &Zeroizing<[u8; 32]>) -> std::io::Result<()> {
    let sealed = StoreKey::from_bytes(*store_key.seed()).encrypt("data-key", data_key.as_slice());
    replace(dir, DATA_KEY, &sealed.map_err(std::io::Error::other)?)
}

impl Home {
    /// Writes the data key as a backup has it: with the store key that it is sealed with here.
    pub(super) fn wrap_for_backup(&self, to: &Path) -> Result<(), HomeError> {
        let plain = Zeroizing::new([self.data_key.as_slice(), &[OF_A_BACKUP]].concat());
        let sealed = self.store.encrypt("backup-key", &plain);
        let io = |source| HomeError::Io { path: to.to_owned(), source };
        std::fs::write(to, sealed.map_err(|why| io(std::io::Error::other(why)))?).map_err(io)
    }

    /// A new key takes the place of `keys/store.pem`, and the old one opens nothing that is here any more. Datasets stay as they are.
    ///
    /// # Errors
    /// The folder is in use, or cannot be written. Then the old key still holds.
    pub fn rotate_store_key(&self, passphrase: Option<&str>) -> Result<(), HomeError> {
        let _lock = self.lock()?;
        let io = |source| HomeError::Io { path: self.path.join(STORE_KEY), source };
        let key_error = |source| HomeError::Key { path: self.path.join(STORE_KEY), source };
        // The passphrase that the keys have, not one that nobody typed.
        let now = Zeroizing::new(self.dir.read_to_string(STORE_KEY).map_err(io)?);
        let now = SecretKey::from_pem(&now, passphrase).map_err(key_error)?;
        let sealed = self.dir.read(DATA_KEY).map_err(io)?;
        if StoreKey::from_bytes(*now.seed()).decrypt(&sealed).is_none() {
            // An earlier rotation was killed before its last step.
            self.dir.rename(NEXT_STORE_KEY, &self.dir, STORE_KEY).map_err(io)?;
        }
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|error| io(std::io::Error::other(error.to_string())))?;
        let new = SecretKey::from_seed(*seed).map_err(key_error)?;
        // The new key lies beside the old one first: whichever of the two opens the data key is the one that holds.
        replace(&self.dir, NEXT_STORE_KEY, new.to_pem(passphrase).map_err(key_error)?.as_bytes()).map_err(io)?;
        wrap(&self.dir, &new, &self.data_key).map_err(io)?;
        self.dir.rename(NEXT_STORE_KEY, &self.dir, STORE_KEY).map_err(io)
    }
}
