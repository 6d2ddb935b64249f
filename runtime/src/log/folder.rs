//! A folder that a command makes for what it writes, and nothing that was there before.
//!
//! *In*: where it is to be; files by their place in it. *Out*: the files. *Trusts*: the folder that it is to be in. *Refuses*: whatever is there already, a
//! link too: so nothing is ever written through a link, nor over a file.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::verify::LogCheckError;

/// A new folder, which nobody but its owner can write to or read.
#[derive(Debug)]
pub(super) struct NewFolder(PathBuf);

impl NewFolder {
    /// Makes it.
    pub(super) fn make(at: &Path) -> Result<Self, LogCheckError> {
        DirBuilder::new().mode(0o700).create(at).map_err(|why| {
            let exists = why.kind() == std::io::ErrorKind::AlreadyExists;
            let why = if exists { "something is there already: name a new folder".to_owned() } else { why.to_string() };
            LogCheckError::new(at, why)
        })?;
        Ok(Self(at.to_owned()))
    }

    /// Writes a file into it, once.
    pub(super) fn put(&self, file: &Path, bytes: &[u8]) -> Result<(), LogCheckError> {
        let path = self.0.join(file);
        let write = || {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            File::create_new(&path)?.write_all(bytes)
        };
        write().map_err(|why: std::io::Error| LogCheckError::new(&path, why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_or_over_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let (victim, link) = (temp.path().join("victim"), temp.path().join("link"));
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(temp.path(), &link).unwrap();
        for there in [&link, &victim, &temp.path().to_owned()] {
            assert!(NewFolder::make(there).unwrap_err().to_string().contains("already"));
        }
        let folder = NewFolder::make(&temp.path().join("new")).unwrap();
        folder.put(Path::new("a/b"), b"1").unwrap();
        assert!(folder.put(Path::new("a/b"), b"2").is_err());
        std::os::unix::fs::symlink(&victim, temp.path().join("new/c")).unwrap();
        assert!(folder.put(Path::new("c"), b"2").is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    }
}
