//! What the daemon and a cluster's nodes share: a folder of the site, and in it one for each round.
//!
//! ```text
//! FOLDER/lock              held by the daemon                   FOLDER/ID/rows     the encrypted file of the version, by another name
//! FOLDER/ID/key            the round's key, 0600                FOLDER/ID/part-N   sealed: what task N found
//! FOLDER/ID/tasks          sealed: what all tasks are told      FOLDER/ID/said-N   what the queue says where a task could not be started
//! ```
//!
//! *In*: a path that all nodes see. *Out*: [`RoundFolder`], 0700, named with 128 random bits and nothing else; gone when the round ends.
//! *Trusts*: the file system to show the site's files to its own user. *Refuses*: a folder that others may write to or put another in the place of, that is another account's, or that another daemon uses;
//! sums that do not open, which are removed as if they had never been there.

use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, OpenOptions, OpenOptionsExt as _, PermissionsExt as _};
use vestibule_protocol::digest::{hex, unhex};

use super::ExecutorError;
use super::seal::{RoundId, RoundKey, What};

/// The site's own folder, held.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    dir: Dir,
    _lock: File,
}

/// One round's.
#[derive(Debug)]
pub(super) struct RoundFolder {
    path: PathBuf,
    dir: Dir,
    key: RoundKey,
}

const KEY: &str = "key";
const TASKS: &str = "tasks";
/// The encrypted file of rows.
pub(super) const ROWS: &str = "rows";

fn partial_name(task: u32) -> String {
    format!("part-{task}")
}

/// Random bytes of the operating system.
fn random() -> Result<RoundId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(Error::other)?;
    Ok(bytes)
}

/// That nobody but root and this account can put another folder in this one's place: its owner, those of the folders above it, and no links.
fn owned(path: &Path) -> std::result::Result<(), String> {
    let found = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !found.is_dir() {
        return Err("it is no folder, or a link to one: name the folder itself".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != own {
        return Err(format!("it is another account's (uid {}): `chown` it to the daemon's", found.uid()));
    }
    let whole = std::fs::canonicalize(path).map_err(|error| error.to_string())?;
    for above in whole.ancestors().skip(1) {
        let found = std::fs::metadata(above).map_err(|error| error.to_string())?;
        if ![0, own].contains(&found.uid()) {
            return Err(format!("{} above it is another account's (uid {})", above.display(), found.uid()));
        }
        // In a sticky folder, such as /tmp, nobody renames what is another's.
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            return Err(format!("others may write to {} above it (mode {:o})", above.display(), found.mode() & 0o7777));
        }
    }
    Ok(())
}

impl Shared {
    /// Takes the folder for one daemon.
    pub(super) fn open(path: &Path) -> std::result::Result<Self, ExecutorError> {
        let folder = |why: String| ExecutorError::Folder { path: path.to_owned(), why };
        let io = |error: Error| folder(error.to_string());
        owned(path).map_err(folder)?;
        let dir = Dir::open_ambient_dir(path, ambient_authority()).map_err(io)?;
        let mode = dir.dir_metadata().map_err(io)?.permissions().mode();
        if mode & 0o022 != 0 {
            let mode = mode & 0o777;
            return Err(folder(format!("others than its owner may write to it (mode {mode:o}): `chmod 700` it")));
        }
        let lock = dir.open_with("lock", OpenOptions::new().create(true).write(true).mode(0o600)).map_err(io)?.into_std();
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(folder("another daemon is using it: each site needs a folder of its own".to_owned()))
            }
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// A new round's folder, with its key.
    pub(super) fn round(&self) -> Result<(RoundId, RoundFolder)> {
        let id = random()?;
        let name = hex(&id);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        self.dir.create_dir_with(&name, &builder)?;
        let dir = self.dir.open_dir(&name)?;
        let key = RoundKey::draw(id).map_err(Error::other)?;
        let folder = RoundFolder { path: self.path.join(name), dir, key };
        folder.write(KEY, folder.key.bytes())?;
        Ok((id, folder))
    }

    /// Rounds whose folders are there.
    pub(super) fn rounds(&self) -> Result<Vec<RoundId>> {
        let mut rounds = Vec::new();
        for entry in self.dir.entries()? {
            rounds.extend(entry?.file_name().to_str().and_then(unhex::<16>));
        }
        Ok(rounds)
    }

    /// Removes a round's folder, its key first.
    pub(super) fn remove(&self, id: RoundId) -> Result<()> {
        let name = hex(&id);
        match self.dir.remove_file(format!("{name}/{KEY}")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match self.dir.remove_dir_all(&name) {
            // A task that is being cancelled may still have written.
            Err(_) if self.dir.exists(&name) => self.dir.remove_dir_all(&name),
            _ => Ok(()),
        }
    }
}

impl RoundFolder {
    /// The folder as a node finds it.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let wrong = |why| Error::new(ErrorKind::InvalidData, why);
        let name = path.file_name().and_then(|name| name.to_str()).and_then(unhex::<16>);
        let id = name.ok_or_else(|| wrong("the folder's name is not a round's"))?;
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        let key = RoundKey::read(id, &dir.read(KEY)?).ok_or_else(|| wrong("the key is no key"))?;
        Ok(Self { path: path.to_owned(), dir, key })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Seals what tasks are told.
    pub(super) fn tell(&self, tasks: Vec<u8>) -> Result<()> {
        let sealed = self.key.seal(What::Tasks, tasks).ok_or_else(|| Error::other("the tasks cannot be sealed"))?;
        self.write(TASKS, &sealed)
    }

    /// What tasks are told.
    pub(super) fn told(&self) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        let sealed = self.dir.read(TASKS)?;
        self.key.open(What::Tasks, sealed).ok_or_else(|| Error::new(ErrorKind::InvalidData, "the tasks do not open"))
    }

    /// Whether a task's sums are there already.
    pub(super) fn has(&self, task: u32) -> bool {
        self.dir.exists(partial_name(task))
    }

    /// Seals what a task found, whole or not at all. Another attempt's, which is the same, is replaced.
    pub(super) fn found(&self, task: u32, plain: Vec<u8>) -> Result<()> {
        let sealed = self.key.seal(What::Partial(task), plain).ok_or_else(|| Error::other("sums cannot be sealed"))?;
        let part = format!("{}.{}", partial_name(task), hex(&random()?));
        self.write(&part, &sealed)?;
        self.dir.rename(&part, &self.dir, partial_name(task))?;
        self.dir.open(".")?.sync_all()
    }

    /// What a task found, if it is there. What does not open, or is longer than `most`, is removed: the task has found nothing.
    pub(super) fn partial(&self, task: u32, most: usize) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        let name = partial_name(task);
        let file = match self.dir.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // The nonce and the tag.
        let most = most.saturating_add(12 + 16) as u64;
        let mut sealed = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut sealed)?;
        let opened = if sealed.len() as u64 > most { None } else { self.key.open(What::Partial(task), sealed) };
        if opened.is_none() {
            tracing::error!(task, "what lay in the place of a task's sums is not what the task sealed; it is run again");
            self.dir.remove_file(&name)?;
        }
        Ok(opened)
    }

    /// What the queue wrote where a task could not be started: nothing of ours, since tasks are silent once they have seen data.
    pub(super) fn said(&self, task: u32) -> String {
        let mut bytes = Vec::new();
        let file = self.dir.open(format!("said-{task}"));
        let _ = file.and_then(|file| file.take(300).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }

    /// Writes a new file that only its owner may read, and syncs it.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.dir.open_with(name, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn shared() -> (tempfile::TempDir, Shared) {
        let temp = tempfile::tempdir().unwrap();
        let shared = Shared::open(temp.path()).unwrap();
        (temp, shared)
    }

    #[test]
    fn a_folder_is_one_daemons_and_nobody_elses_to_write_to() {
        let (temp, shared) = shared();
        let error = Shared::open(temp.path()).unwrap_err();
        assert!(error.code() == "executor-folder" && error.to_string().contains("another daemon"), "{error}");
        drop(shared);
        std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = Shared::open(temp.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(temp.path(), 0o700);
        // A link to it, and one that lies where others may put another in its place.
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(temp.path(), &link).unwrap();
        assert!(Shared::open(&link).unwrap_err().to_string().contains("a link to one"));
        let below = elsewhere.path().join("below");
        std::fs::create_dir(&below).unwrap();
        drop(Shared::open(&below).unwrap());
        mode(elsewhere.path(), 0o777);
        assert!(Shared::open(&below).unwrap_err().to_string().contains("above it (mode 777)"));
        mode(elsewhere.path(), 0o1777);
        drop(Shared::open(&below).unwrap());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&below, Some(65_534), None).unwrap();
            assert!(Shared::open(&below).unwrap_err().to_string().contains("another account's"));
        }
        assert_eq!(Shared::open(Path::new("/no/such/folder")).unwrap_err().code(), "executor-folder");
    }

    #[test]
    fn a_rounds_folder_is_closed_to_others_and_is_removed_whole() {
        let (temp, shared) = shared();
        let (id, folder) = shared.round().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&folder.path().join(KEY))), (0o700, 0o600));
        folder.tell(b"tasks".to_vec()).unwrap();
        let node = RoundFolder::find(folder.path()).unwrap();
        assert_eq!(node.told().unwrap().as_slice(), b"tasks");
        assert_eq!(shared.rounds().unwrap(), [id]);
        shared.remove(id).unwrap();
        assert!(!folder.path().exists() && node.told().is_err() && RoundFolder::find(folder.path()).is_err());
        // Again is no error, and other things are not touched.
        shared.remove(id).unwrap();
        assert!(temp.path().join("lock").exists());
        assert_eq!(shared.rounds().unwrap(), Vec::<RoundId>::new());
    }

    #[test]
    fn only_a_tasks_own_sums_are_read_as_its_own() {
        let (_temp, shared) = shared();
        let (_, folder) = shared.round().unwrap();
        let node = RoundFolder::find(folder.path()).unwrap();
        let read = |task| folder.partial(task, 4).unwrap().map(|plain| plain.to_vec());
        assert!(read(0).is_none() && !node.has(0));
        node.found(0, b"sums".to_vec()).unwrap();
        // A second attempt, which is the same.
        node.found(0, b"sums".to_vec()).unwrap();
        assert_eq!(read(0).unwrap(), b"sums");
        let path = |task: u32| folder.path().join(partial_name(task));
        let gone = |task: u32| read(task).is_none() && !path(task).exists();
        // Swapped.
        std::fs::copy(path(0), path(1)).unwrap();
        assert!(gone(1));
        // Forged.
        std::fs::write(path(1), b"sums").unwrap();
        assert!(gone(1));
        // Cut short.
        let whole = std::fs::read(path(0)).unwrap();
        std::fs::write(path(0), &whole[..whole.len() - 1]).unwrap();
        assert!(gone(0));
        // Longer than a round's can be.
        node.found(0, b"more sums".to_vec()).unwrap();
        assert!(gone(0));
        // Of another round.
        let (_, other) = shared.round().unwrap();
        other.found(0, b"sums".to_vec()).unwrap();
        std::fs::copy(other.path().join(partial_name(0)), path(0)).unwrap();
        assert!(gone(0));
        node.found(0, b"sums".to_vec()).unwrap();
        assert_eq!(read(0).unwrap(), b"sums");
        // Nothing is left of attempts.
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 2, "the key and one task's sums");
    }
}
