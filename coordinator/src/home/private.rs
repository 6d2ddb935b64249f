//! What keeps a coordinator's folder its user's own: with its files, others of the machine could read what people asked and what was
//! released, hold the database's locks, or take the daemon's.
//!
//! *In*: paths. *Out*: folders of mode 0700, files of mode 0600. *Refuses*: a folder or key that others may use or own.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{geteuid, umask};

use super::HomeError;

/// Whatever this process makes from now on is its user's alone.
pub(crate) fn close_what_is_made() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// A folder, and those on the way to it.
pub(super) fn make_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A new file, synced.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A folder or file must be this user's, and nobody else may use it.
pub(super) fn check(path: &Path) -> Result<(), HomeError> {
    let found = std::fs::metadata(path).map_err(|source| HomeError::Io { path: path.to_owned(), source })?;
    let open = |why, mend: String| Err(HomeError::Open { path: path.to_owned(), why, mend });
    let shown = path.display();
    if found.uid() != geteuid().as_raw() {
        return open("it is another user's", format!("chown -R $(id -u) {shown}"));
    }
    if found.mode() & 0o077 != 0 {
        return open("others of this machine may use it", format!("chmod go-rwx {shown}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_others_may_use_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("one/two");
        make_folder(&folder).unwrap();
        write_private(&folder.join("key"), b"secret").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&temp.path().join("one")), mode(&folder.join("key"))), (0o700, 0o700, 0o600));
        for path in [&folder, &folder.join("key")] {
            check(path).unwrap();
            let closed = mode(path);
            for open in [0o040, 0o020, 0o010, 0o004, 0o002, 0o001] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(closed | open)).unwrap();
                assert_eq!(check(path).unwrap_err().code(), "coordinator-open", "{open:o}");
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(closed)).unwrap();
            check(path).unwrap();
        }
        assert_eq!(check(&temp.path().join("none")).unwrap_err().code(), "coordinator-io");
    }
}
