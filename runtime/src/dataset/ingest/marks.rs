//! What a source file is known by, so that it need not be read to see that it is the same.
//!
//! *In*: an open file; what was known of it. *Out*: [`Known`]: its length, its digest, and its *mark*: device, inode, the moments of its last change. *Trusts*: the file system: one who
//! writes to a file moves the moment of its last change (`ctime`), which nobody can set. *Refuses*: a mark that is younger than the clock is sure of: such a file is
//! hashed again, as is one that was copied, moved or touched.
//!
//! A file whose mark is the same has the digest that was taken then, and no byte of it is read. One whose mark is another is hashed; where its digest is the same, it is the same.

use std::io::Read as _;

use aws_lc_rs::digest::{Context, SHA256};
use cap_std::fs::{Dir, Metadata, MetadataExt as _};
use serde::{Deserialize, Serialize};

/// A change within so long of the moment at which the file was marked may leave the mark as it is: clocks of file systems are coarse.
const COARSE_SECS: i64 = 2;

/// Where a file lies and when it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    device: u64,
    inode: u64,
    /// Seconds and nanoseconds.
    written: (i64, i64),
    changed: (i64, i64),
}

/// A file that was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) length: u64,
    mark: Mark,
    /// Whether no later change can have left the mark as it is.
    settled: bool,
    /// SHA-256; `None` where it was changed while it was read.
    digest: Option<[u8; 32]>,
}

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        let (written, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Self { device: metadata.dev(), inode: metadata.ino(), written, changed }
    }
}

impl Known {
    /// Hashes a file, unless it is `before`. `now`: seconds since 1970. `read`: is told how many bytes of how many were hashed.
    pub(super) fn of(
        source: &Dir,
        name: &str,
        before: Option<&Self>,
        now: i64,
        read: &mut dyn FnMut(u64, u64),
    ) -> std::io::Result<Self> {
        let mut file = source.open(name)?;
        let metadata = file.metadata()?;
        let (length, mark) = (metadata.len(), Mark::of(&metadata));
        if let Some(before) = before.filter(|before| before.settled && before.mark == mark && before.length == length)
            && before.digest.is_some()
        {
            return Ok(before.clone());
        }
        let settled = mark.changed.0.saturating_add(COARSE_SECS) < now;
        let (mut context, mut buffer, mut done) = (Context::new(&SHA256), vec![0; 1 << 20], 0_u64);
        loop {
            let bytes = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..bytes).filter(|bytes| !bytes.is_empty()) else { break };
            context.update(bytes);
            done = done.saturating_add(bytes.len() as u64);
            read(done, length);
        }
        let digest = context.finish().as_ref().try_into().ok();
        Ok(Self { name: name.to_owned(), length: done, mark, settled, digest })
    }

    /// Whether two hold the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.digest.is_some() && (self.digest, self.length, &self.name) == (other.digest, other.length, &other.name)
    }

    pub(super) const fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }

    /// Sees whether it is still what was hashed; where not, it is no file's.
    pub(super) fn settle(&mut self, source: &Dir) {
        let same = source.metadata(&self.name).is_ok_and(|metadata| Mark::of(&metadata) == self.mark);
        if !same {
            self.digest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;

    #[test]
    fn a_file_that_is_the_same_is_not_read_and_one_that_was_changed_is() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        let put = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).unwrap();
        put("a", "genotypes");
        let of = |before: Option<&Known>, now: i64| {
            let mut bytes = 0;
            let known = Known::of(&dir, "a", before, now, &mut |done, _| bytes = done).unwrap();
            (known, bytes)
        };
        let changed = dir.metadata("a").unwrap().ctime();
        // As young as its last change: another may follow that moves nothing.
        let (young, bytes) = of(None, changed + COARSE_SECS);
        assert_eq!(bytes, 9);
        let (old, bytes) = of(Some(&young), changed + COARSE_SECS + 1);
        assert_eq!(bytes, 9);
        let (same, bytes) = of(Some(&old), 0);
        assert!(bytes == 0 && same.is(&old) && old.is(&young));
        // Another mark and the same bytes; the same length and other bytes; moved into its place with the moment of its last writing kept.
        std::fs::copy(temp.path().join("a"), temp.path().join("b")).unwrap();
        std::fs::rename(temp.path().join("b"), temp.path().join("a")).unwrap();
        let (copied, bytes) = of(Some(&old), i64::MAX);
        assert!(bytes == 9 && copied.is(&old));
        put("c", "genotypeS");
        let written = dir.metadata("a").unwrap().modified().unwrap().into_std();
        std::fs::File::options().write(true).open(temp.path().join("c")).unwrap().set_modified(written).unwrap();
        std::fs::rename(temp.path().join("c"), temp.path().join("a")).unwrap();
        let (other, bytes) = of(Some(&copied), i64::MAX);
        assert!(bytes == 9 && !other.is(&copied));
        // Changed while it was read.
        let mut late = other.clone();
        late.settle(&dir);
        assert!(late.is(&other));
        std::fs::remove_file(temp.path().join("a")).unwrap();
        late.settle(&dir);
        assert!(!late.is(&other) && !late.is(&late.clone()));
    }
}
