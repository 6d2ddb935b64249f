//! A copy of a site's folder, without its keys: while the daemon runs, whole or not at all.
//!
//! *In*: the site's folder, a place where there is nothing yet. *Out*: a folder from which the site can be restored by anyone who has its keys; what lies in it
//! is sealed, or public. *Trusts*: SQLite's own way to copy a database that is written to. *Refuses*: a place that is taken, a dataset that is being
//! ingested: none is, while it copies, so that the versions that the ledger names are those that are copied. The ledger is copied first: what its leaves
//! name is in the folder by then.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup as Copying, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{COORDINATOR, FROZEN, Home, HomeError, LEDGER};
use crate::home::keys::DATA_KEY;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Backup {
    /// How many files.
    pub files: u64,
    /// How large they are together.
    pub bytes: u64,
}

const FILES: [&str; 4] = ["site.toml", COORDINATOR, DATA_KEY, FROZEN];
const FOLDERS: [&str; 4] = ["trust", "charters", "policies", "blobs"];
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
        let mut done = Backup::default();
        let (from, to) = (self.path.join("data"), part.join("data"));
        let sets = if data { held(&from)? } else { Vec::new() };
        // What the witness has seen is not copied: an older memory is none.
        done.add(database(&self.path.join(LEDGER), &part.join(LEDGER))?);
        for name in FILES {
            if self.path.join(name).exists() {
                done.add(file(&self.path.join(name), &part.join(name))?);
            }
        }
        for name in FOLDERS {
            tree(&self.path.join(name), &part.join(name), &mut done)?;
        }
        folder(&part.join("code"))?;
        folder(&to)?;
        for (name, _held) in &sets {
            tree(&from.join(name), &to.join(name), &mut done)?;
        }
        Ok(done)
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

impl Backup {
    const fn add(&mut self, bytes: u64) {
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
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

/// Copies a file, and syncs it. Returns its size.
fn file(from: &Path, to: &Path) -> Result<u64, HomeError> {
    let mut source = File::open(from).map_err(io(from))?;
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io(to))?;
    let bytes = std::io::copy(&mut source, &mut target).map_err(io(to))?;
    target.sync_all().map_err(io(to)).map(|()| bytes)
}

/// Copies all files below a folder, but for locks.
fn tree(from: &Path, to: &Path, done: &mut Backup) -> Result<(), HomeError> {
    folder(to)?;
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(io(from))?);
        if kind.is_dir() {
            tree(&path, &to.join(entry.file_name()), done)?;
        } else if kind.is_file() && entry.file_name() != LOCK {
            done.add(file(&path, &to.join(entry.file_name()))?);
        }
    }
    sync(to)
}

/// Copies a database as it is at one moment, no matter who writes to it meanwhile. Returns the copy's size.
fn database(from: &Path, to: &Path) -> Result<u64, HomeError> {
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
    std::fs::metadata(to).map(|found| found.len()).map_err(io(to))
}
