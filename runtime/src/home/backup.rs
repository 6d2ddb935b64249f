//! A copy of a site's folder, without its keys: while the daemon runs, whole or not at all.
//!
//! *In*: the site's folder, a place where there is nothing yet. *Out*: a folder from which the site can be restored by anyone who has its keys; what lies in it
//! is sealed, or public. *Trusts*: SQLite's own way to copy a database that is written to. *Refuses*: a place that is taken, a dataset that is being
//! ingested: none is, while it copies, so that the versions that the ledger names are those that are copied. The ledger is copied first: what its leaves
//! name is in the folder by then. What was copied is listed and sealed as a whole, and a copy is no site: it becomes one by being restored, with the site's
//! keys, which looks at every byte first.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};

use serde::{Deserialize, Serialize};
use vestibule_protocol::digest::{Digest, hex, unhex};
use zeroize::Zeroizing;

use super::keys::{BACKUP_KEY, DATA_KEY, derived, unwrap_backup, wrap};
use super::{COORDINATOR, FROZEN, Home, HomeError, LEDGER};

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Backup {
    /// How many files.
    pub files: u64,
    /// How large they are together.
    pub bytes: u64,
}

const FILES: [&str; 3] = ["site.toml", COORDINATOR, FROZEN];
const FOLDERS: [&str; 4] = ["trust", "charters", "policies", "blobs"];
/// What was copied, sealed.
pub(super) const BACKUP: &str = "backup.json";
/// What the seal over a backup is derived for.
const SEAL_LABEL: &[u8] = b"vestibule/site/backup/1";
/// Held while a dataset is ingested or copied; not copied itself.
const LOCK: &str = "lock";

impl Home {
    /// Copies the site into `out`, but for its keys and what was compiled; without `data`, also but for its datasets.
    ///
    /// # Errors
    /// There is something at `out`; a dataset is being ingested; a file cannot be read or written. Then there is no `out`.
    pub fn backup(&self, out: &Path, data: bool) -> Result<Backup, HomeError> {
        let taken = |path: &Path| io(path)(std::io::Error::from(std::io::ErrorKind::AlreadyExists));
        let name = out.file_name().ok_or_else(|| taken(out))?;
        let mut part = name.to_owned();
        part.push(".part");
        let part = out.with_file_name(part);
        if out.exists() {
            return Err(taken(out));
        }
        // One that was left behind is not ours to remove.
        folder(&part)?;
        let copied = self.copy(&part, data).and_then(|copied| {
            sync(&part)?;
            std::fs::rename(&part, out).map_err(io(out))?;
            let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            sync(parent).map(|()| copied)
        });
        if copied.is_err() {
            // What cannot be removed says by its name what it is.
            let _ = std::fs::remove_dir_all(&part);
        }
        copied
    }

    fn copy(&self, part: &Path, data: bool) -> Result<Backup, HomeError> {
        let mut done = Copied { root: part.to_owned(), files: BTreeMap::new() };
        let (from, to) = (self.path.join("data"), part.join("data"));
        let sets = if data { held(&from)? } else { Vec::new() };
        // What the witness has seen is not copied: an older memory is none.
        done.add(&part.join(LEDGER), database(&self.path.join(LEDGER), &part.join(LEDGER))?);
        for name in FILES {
            if self.path.join(name).exists() {
                done.file(&self.path.join(name), &part.join(name))?;
            }
        }
        for name in FOLDERS {
            tree(&self.path.join(name), &part.join(name), &mut done)?;
        }
        // In another form than a site's, which takes the site's keys to undo.
        self.wrap_for_backup(&part.join(BACKUP_KEY))?;
        done.known(&part.join(BACKUP_KEY))?;
        folder(&part.join("code"))?;
        folder(&to)?;
        for (name, _held) in &sets {
            tree(&from.join(name), &to.join(name), &mut done)?;
        }
        let files = serde_json::to_string(&done.files).expect("paths and digests are always JSON");
        let seal = hex(hmac::sign(&seal_key(&self.data_key), files.as_bytes()).as_ref());
        let list = part.join(BACKUP);
        write(&list, &serde_json::to_vec(&Sealed { files, seal }).expect("two texts are always JSON"))?;
        Ok(done.count())
    }

    /// Makes the site in `to` of a backup, with its keys, which lie in `keys`: after all of the backup was found to be what it was when it was made.
    ///
    /// # Errors
    /// There is something at `to`; the keys are others; a file of the backup is missing, or another than it was. Then there is no `to`.
    pub fn restore(backup: &Path, keys: &Path, to: &Path, passphrase: Option<&str>) -> Result<Backup, HomeError> {
        if to.exists() {
            return Err(io(to)(std::io::Error::from(std::io::ErrorKind::AlreadyExists)));
        }
        let mut part = to.file_name().ok_or_else(|| io(to)(std::io::ErrorKind::InvalidInput.into()))?.to_owned();
        part.push(".part");
        let part = to.with_file_name(part);
        folder(&part)?;
        let restored = Self::restored(backup, keys, &part, passphrase)
            .and_then(|done| std::fs::rename(&part, to).map_err(io(to)).map(|()| done));
        if restored.is_err() {
            let _ = std::fs::remove_dir_all(&part);
        }
        restored
    }

    fn restored(backup: &Path, keys: &Path, part: &Path, passphrase: Option<&str>) -> Result<Backup, HomeError> {
        let (store_key, data_key) = unwrap_backup(backup, keys, passphrase)?;
        let changed = |file: &Path| HomeError::BackupChanged(file.to_owned());
        let list = backup.join(BACKUP);
        let sealed: Sealed = serde_json::from_slice(&std::fs::read(&list).map_err(io(&list))?).map_err(|_| changed(&list))?;
        let seal: [u8; 32] = unhex(&sealed.seal).ok_or_else(|| changed(&list))?;
        hmac::verify(&seal_key(&data_key), sealed.files.as_bytes(), &seal).map_err(|_| changed(&list))?;
        let files: BTreeMap<String, (Digest, u64)> = serde_json::from_str(&sealed.files).map_err(|_| changed(&list))?;
        let mut done = Copied { root: part.to_owned(), files: BTreeMap::new() };
        for name in FOLDERS.into_iter().chain(["code", "data", "keys"]) {
            folder(&part.join(name))?;
        }
        for (name, known) in files.iter().filter(|(name, _)| *name != BACKUP_KEY) {
            let (from, to) = (backup.join(name), part.join(name));
            let parents = to.parent().map_or(Ok(()), |parent| DirBuilder::new().recursive(true).mode(0o700).create(parent));
            parents.map_err(io(&to))?;
            let found = file(&from, &to).map_err(|_| changed(&from))?;
            if found != *known {
                return Err(changed(&from));
            }
            done.add(&to, found);
        }
        for entry in std::fs::read_dir(keys).map_err(io(keys))? {
            let entry = entry.map_err(io(keys))?;
            if entry.file_type().map_err(io(keys))?.is_file() {
                file(&entry.path(), &part.join("keys").join(entry.file_name()))?;
            }
        }
        let dir = Dir::open_ambient_dir(part, ambient_authority()).map_err(io(part))?;
        wrap(&dir, &store_key, &data_key).map_err(io(&part.join(DATA_KEY)))?;
        Ok(done.count())
    }
}

/// The list of a backup's files, as text, and the seal over that.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    files: String,
    seal: String,
}

fn seal_key(data_key: &Zeroizing<[u8; 32]>) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, derived(data_key, SEAL_LABEL).as_slice())
}

/// What was copied so far: each file's digest and length, by its path in the copy.
struct Copied {
    root: PathBuf,
    files: BTreeMap<String, (Digest, u64)>,
}

impl Copied {
    fn add(&mut self, to: &Path, found: (Digest, u64)) {
        let name = to.strip_prefix(&self.root).unwrap_or(to).to_string_lossy().into_owned();
        self.files.insert(name, found);
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<(), HomeError> {
        let found = file(from, to)?;
        self.add(to, found);
        Ok(())
    }

    /// One that lies in the copy already.
    fn known(&mut self, to: &Path) -> Result<(), HomeError> {
        let found = known(to)?;
        self.add(to, found);
        Ok(())
    }

    fn count(&self) -> Backup {
        let bytes = self.files.values().fold(0_u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
        Backup { files: self.files.len() as u64, bytes }
    }
}

/// The datasets' folders, each with its lock, so that none is changed until they are dropped.
fn held(data: &Path) -> Result<Vec<(OsString, File)>, HomeError> {
    let mut sets = Vec::new();
    for entry in std::fs::read_dir(data).map_err(io(data))? {
        let entry = entry.map_err(io(data))?;
        let set = entry.path();
        if !entry.file_type().map_err(io(&set))?.is_dir() {
            continue;
        }
        let lock = File::options().create(true).truncate(false).write(true).open(set.join(LOCK)).map_err(io(&set))?;
        lock.try_lock()
            .map_err(|_| io(&set)(std::io::Error::other("it is being ingested or changed: back it up after that")))?;
        sets.push((entry.file_name(), lock));
    }
    Ok(sets)
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> HomeError + use<> {
    let path: PathBuf = path.to_owned();
    move |source| HomeError::Io { path: path.clone(), source }
}

/// Makes a folder that nobody but its owner can look into.
fn folder(path: &Path) -> Result<(), HomeError> {
    DirBuilder::new().mode(0o700).create(path).map_err(io(path))
}

fn sync(path: &Path) -> Result<(), HomeError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io(path))
}

/// Writes a new file, and syncs it.
fn write(to: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io(to))?;
    target.write_all(bytes).and_then(|()| target.sync_all()).map_err(io(to))
}

/// Copies a file, and syncs it. Returns what was copied: its digest and size.
fn file(from: &Path, to: &Path) -> Result<(Digest, u64), HomeError> {
    let mut source = File::open(from).map_err(io(from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io(to))?;
    let found = pass(&mut source, &mut target).map_err(io(to))?;
    target.sync_all().map_err(io(to)).map(|()| found)
}

/// A file's digest and size.
fn known(path: &Path) -> Result<(Digest, u64), HomeError> {
    File::open(path).and_then(|mut file| pass(&mut file, &mut std::io::sink())).map_err(io(path))
}

fn pass(from: &mut impl Read, to: &mut impl std::io::Write) -> std::io::Result<(Digest, u64)> {
    let (mut hash, mut bytes) = (aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer)?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { break };
        hash.update(piece);
        to.write_all(piece)?;
        bytes = bytes.saturating_add(piece.len() as u64);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok((Digest::from_bytes(digest), bytes))
}

/// Copies all files below a folder, but for locks.
fn tree(from: &Path, to: &Path, done: &mut Copied) -> Result<(), HomeError> {
    folder(to)?;
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(io(from))?);
        if kind.is_dir() {
            tree(&path, &to.join(entry.file_name()), done)?;
        } else if kind.is_file() && entry.file_name() != LOCK {
            done.file(&path, &to.join(entry.file_name()))?;
        }
    }
    sync(to)
}

/// Copies a database as it is at one moment, no matter who writes to it meanwhile. Returns the copy's digest and size.
fn database(from: &Path, to: &Path) -> Result<(Digest, u64), HomeError> {
    let wrong = |error: rusqlite::Error| io(from)(std::io::Error::other(error));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io(to))?;
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(wrong)?;
    source.busy_timeout(std::time::Duration::from_secs(10)).map_err(wrong)?;
    let mut target = Connection::open(to).map_err(wrong)?;
    let copying = Copying::new(&source, &mut target).map_err(wrong)?;
    // All pages in one step: of one moment. In a write-ahead log, writers need not wait for it.
    match copying.step(-1).map_err(wrong)? {
        StepResult::Done => {}
        other => return Err(io(from)(std::io::Error::other(format!("the database cannot be copied now ({other:?})")))),
    }
    drop(copying);
    target.close().map_err(|(_, error)| wrong(error))?;
    sync(to)?;
    known(to)
}
