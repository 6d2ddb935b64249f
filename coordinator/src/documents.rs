//! Public documents and components, by content.
//!
//! *In*: bytes, whole or piece by piece. *Out*: the same bytes by their SHA-256. *Refuses*: bytes of another digest than is asked
//! for, on the way in and out. What was begun and not kept is removed. All of it blocks.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;
use vestibule_protocol::digest::{Digest, Hashing, hex};

/// A document that nothing names is left alone for so long: what names it may be on its way.
const UNNAMED: Duration = Duration::from_secs(3_600);

/// The folder of documents.
#[derive(Debug, Clone)]
pub struct Documents(PathBuf);

/// Bytes that are still coming: a file that is gone when this is dropped, unless it was kept.
#[derive(Debug)]
pub struct Part {
    file: File,
    path: PathBuf,
    hashing: Hashing,
    bytes: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        // It is there no more where it was kept; a left-over is harmless, and removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Part {
    /// The next piece.
    ///
    /// # Errors
    /// The disk.
    pub fn write(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.file.write_all(piece)?;
        self.hashing.update(piece);
        self.bytes = self.bytes.saturating_add(piece.len() as u64);
        Ok(())
    }

    /// How many bytes have come.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of what has come.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hashing.clone().digest()
    }

    /// What has come.
    ///
    /// # Errors
    /// The disk.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        std::fs::read(&self.path)
    }
}

impl Documents {
    /// In this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(digest.hex())
    }

    /// The bytes of that digest, if they are here and whole.
    #[must_use]
    pub fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        std::fs::read(self.path(digest)).ok().filter(|bytes| Digest::of(bytes) == digest)
    }

    /// Whether they are here.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Their file and its length, to be passed on piece by piece: the one who gets them looks at the digest.
    ///
    /// # Errors
    /// They are not here; the disk.
    pub fn open(&self, digest: Digest) -> std::io::Result<(File, u64)> {
        let file = File::open(self.path(digest))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Begins to keep bytes that come piece by piece.
    ///
    /// # Errors
    /// The disk.
    pub fn begin(&self) -> std::io::Result<Part> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let path = self.0.join(format!("{}.part", hex(&random)));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Part { file, path, hashing: Hashing::default(), bytes: 0 })
    }

    /// Keeps what has come.
    ///
    /// # Errors
    /// The disk.
    pub fn keep(&self, part: Part) -> std::io::Result<Digest> {
        let digest = part.digest();
        if !self.has(digest) {
            part.file.sync_all()?;
            std::fs::rename(&part.path, self.path(digest))?;
        }
        Ok(digest)
    }

    /// Keeps bytes. Those that are here are not written again.
    ///
    /// # Errors
    /// The disk.
    pub fn put(&self, bytes: &[u8]) -> std::io::Result<Digest> {
        let digest = Digest::of(bytes);
        if !self.has(digest) {
            let mut part = self.begin()?;
            part.write(bytes)?;
            self.keep(part)?;
        }
        Ok(digest)
    }

    /// Removes bytes.
    pub fn remove(&self, digest: Digest) {
        // What is left is removed with all that nothing names.
        let _ = std::fs::remove_file(self.path(digest));
    }

    /// Removes all that nothing names and that has lain for a while; how many there were.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn remove_unnamed(&self, named: &HashSet<Digest>, now: SystemTime) -> std::io::Result<usize> {
        let mut removed: usize = 0;
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok());
            let lain = entry.metadata().and_then(|data| data.modified()).ok();
            let lain = lain.and_then(|since| now.duration_since(since).ok()).is_some_and(|lain| lain > UNNAMED);
            if lain && digest.is_none_or(|digest| !named.contains(&digest)) && std::fs::remove_file(entry.path()).is_ok() {
                removed = removed.saturating_add(1);
            }
        }
        Ok(removed)
    }

    /// A dictionary.
    #[must_use]
    pub fn dictionary(&self, digest: Digest) -> Option<Dictionary> {
        Dictionary::parse(&String::from_utf8(self.get(digest)?).ok()?).ok()
    }

    /// A catalogue.
    #[must_use]
    pub fn catalogue(&self, digest: Digest) -> Option<Arc<Catalogue>> {
        Catalogue::parse(&self.get(digest)?).ok().map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn pieces_are_kept_by_their_digest_and_what_is_dropped_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let documents = Documents::new(temp.path());
        let mut part = documents.begin().unwrap();
        part.write(b"ab").unwrap();
        part.write(b"c").unwrap();
        assert_eq!((part.bytes(), part.digest(), part.read().unwrap()), (3, Digest::of(b"abc"), b"abc".to_vec()));
        assert_eq!(documents.keep(part).unwrap(), Digest::of(b"abc"));
        assert_eq!(documents.get(Digest::of(b"abc")).unwrap(), b"abc");
        drop(documents.begin().unwrap());
        // The same again is not written again.
        documents.put(b"abc").unwrap();
        assert_eq!(names(temp.path()), [Digest::of(b"abc").hex()]);
        std::fs::write(temp.path().join(Digest::of(b"abc").hex()), b"abd").unwrap();
        assert_eq!(documents.get(Digest::of(b"abc")), None, "other bytes");
    }

    #[test]
    fn what_nothing_names_is_removed_after_an_hour_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let documents = Documents::new(temp.path());
        let named = HashSet::from([documents.put(b"named").unwrap()]);
        documents.put(b"unnamed").unwrap();
        // As a killed daemon leaves it.
        std::fs::write(temp.path().join("left.part"), b"half").unwrap();
        let now = SystemTime::now();
        assert_eq!(documents.remove_unnamed(&named, now + UNNAMED - Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(documents.remove_unnamed(&named, now + UNNAMED + Duration::from_secs(60)).unwrap(), 2);
        assert_eq!(names(temp.path()), [Digest::of(b"named").hex()]);
    }
}
