//! Step 7: components, by content: received in pieces, kept once, loaded into the sandbox.
//!
//! *In*: the digest and size that a verified manifest names, and pieces from the coordinator, who is not trusted. *Out*: the
//! component's bytes, whose digest was checked. An interrupted transfer goes on where it stopped. *Refuses*: more bytes than
//! announced, and bytes of another digest, which are thrown away; a second transfer beside one that goes on: it waits.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cap_std::fs::{Dir, OpenOptions};
use tokio::sync::OwnedMutexGuard;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::manifest::ComponentRef;
use vestibule_sandbox::CodeStore;

/// A component that could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// Other bytes than the manifest names.
    #[error("the component that was sent is not the one that the manifest names")]
    Digest,
    /// More bytes than announced.
    #[error("more bytes were sent than the manifest names")]
    TooLong,
    /// The disk.
    #[error("the component could not be stored: {0}")]
    Io(#[from] std::io::Error),
}

impl ComponentError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Digest => "component-digest",
            Self::TooLong => "component-too-long",
            Self::Io(_) => "component-io",
        }
    }
}

/// The folder of components.
#[derive(Debug)]
pub struct Components {
    folder: Dir,
    /// Held by the one that receives a component.
    turns: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

/// The right to receive a component: one transfer of it at a time.
#[derive(Debug)]
pub struct Turn {
    wanted: ComponentRef,
    _held: OwnedMutexGuard<()>,
}

/// A component on its way in.
#[derive(Debug)]
pub struct Incoming<'a> {
    folder: &'a Dir,
    turn: Turn,
    file: cap_std::fs::File,
    received: u64,
}

impl Components {
    /// In this folder.
    #[must_use]
    pub fn new(folder: Dir) -> Self {
        Self { folder, turns: Mutex::default() }
    }

    /// Waits until nobody else receives this component. It may be here by then.
    pub async fn turn(&self, wanted: ComponentRef) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&wanted.sha256).and_then(Weak::upgrade);
            let turn = known.unwrap_or_default();
            turns.insert(wanted.sha256, Arc::downgrade(&turn));
            turn
        };
        Turn { wanted, _held: turn.lock_owned().await }
    }

    /// The bytes, if they are here and whole. A file whose content is not what its name says is removed.
    ///
    /// # Errors
    /// The disk.
    pub fn get(&self, wanted: ComponentRef) -> Result<Option<Vec<u8>>, ComponentError> {
        let name = wanted.sha256.hex();
        match self.folder.read(&name) {
            Ok(bytes) if Digest::of(&bytes) == wanted.sha256 => {
                used(&self.folder, &name)?;
                Ok(Some(bytes))
            }
            Ok(_) => {
                self.folder.remove_file(&name)?;
                Ok(None)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was not used since `before` (1970), also parts of transfers that nobody went on with. Returns how many files there were.
    ///
    /// # Errors
    /// The disk.
    pub fn retire(&self, before: std::time::Duration) -> Result<u64, ComponentError> {
        retire(&self.folder, before).map_err(ComponentError::Io)
    }

    /// Starts or continues to receive a component.
    ///
    /// # Errors
    /// The disk.
    pub fn receive(&self, turn: Turn) -> Result<Incoming<'_>, ComponentError> {
        let (name, most) = (part(turn.wanted), turn.wanted.bytes);
        let file = self.folder.open_with(&name, OpenOptions::new().append(true).create(true).read(true))?;
        let received = file.metadata()?.len();
        if received <= most {
            return Ok(Incoming { folder: &self.folder, turn, file, received });
        }
        file.set_len(0)?;
        Ok(Incoming { folder: &self.folder, turn, file, received: 0 })
    }
}

/// That a file was used just now.
fn used(folder: &Dir, name: &str) -> std::io::Result<()> {
    folder.open_with(name, OpenOptions::new().write(true))?.into_std().set_modified(std::time::SystemTime::now())
}

/// Removes the files of a folder that were not used since `before`.
fn retire(folder: &Dir, before: std::time::Duration) -> std::io::Result<u64> {
    let mut removed = 0;
    for entry in folder.entries()? {
        let entry = entry?;
        let modified = entry.metadata()?.modified()?.into_std();
        if modified.duration_since(std::time::UNIX_EPOCH).is_ok_and(|modified| modified < before) {
            entry.remove_file()?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn part(wanted: ComponentRef) -> String {
    format!("{}.part", wanted.sha256.hex())
}

impl Incoming<'_> {
    /// The first byte that is missing.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.received
    }

    /// Whether all bytes are here.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.received == self.turn.wanted.bytes
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// Too many bytes; the disk.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ComponentError> {
        let received = self.received.saturating_add(bytes.len() as u64);
        if received > self.turn.wanted.bytes {
            return Err(ComponentError::TooLong);
        }
        self.file.write_all(bytes)?;
        self.received = received;
        Ok(())
    }

    /// Checks the whole and keeps it.
    ///
    /// # Errors
    /// Another digest: what was received is thrown away. The disk.
    pub fn finish(self) -> Result<Vec<u8>, ComponentError> {
        let name = part(self.turn.wanted);
        self.file.sync_all()?;
        let mut bytes = Vec::new();
        self.folder.open(&name)?.read_to_end(&mut bytes)?;
        if Digest::of(&bytes) != self.turn.wanted.sha256 {
            self.folder.remove_file(&name)?;
            return Err(ComponentError::Digest);
        }
        self.folder.rename(&name, self.folder, self.turn.wanted.sha256.hex())?;
        Ok(bytes)
    }
}

/// Sealed code of compiled components, as files.
#[derive(Debug)]
pub struct CodeFolder(pub Dir);

impl CodeFolder {
    /// Removes what was not used since `before` (1970). Returns how many files there were.
    ///
    /// # Errors
    /// The disk.
    pub fn retire(&self, before: std::time::Duration) -> std::io::Result<u64> {
        retire(&self.0, before)
    }
}

impl CodeStore for CodeFolder {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        // Of a cache nothing is lost where that cannot be written down.
        let _ = used(&self.0, name);
        self.0.read(name).ok()
    }
    fn put(&self, name: &str, sealed: &[u8]) {
        // Only a cache: what cannot be stored is compiled again.
        if let Err(error) = crate::home::replace(&self.0, name, sealed) {
            tracing::warn!(%error, "compiled code could not be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(temp: &tempfile::TempDir) -> Components {
        Components::new(Dir::open_ambient_dir(temp.path(), cap_std::ambient_authority()).unwrap())
    }

    fn receive(components: &Components, wanted: ComponentRef) -> Result<Incoming<'_>, ComponentError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        components.receive(runtime.block_on(components.turn(wanted)))
    }

    #[tokio::test]
    async fn a_second_transfer_waits_for_the_first_and_another_component_does_not() {
        let temp = tempfile::tempdir().unwrap();
        let wanted = ComponentRef { sha256: Digest::of(b"component"), bytes: 9 };
        let other = ComponentRef { sha256: Digest::of(b"other"), bytes: 5 };
        let components = folder(&temp);
        let mut first = components.receive(components.turn(wanted).await).unwrap();
        first.push(b"comp").unwrap();
        let mut second = Box::pin(components.turn(wanted));
        tokio::select! {
            biased;
            _ = &mut second => panic!("two transfers of one component at a time"),
            () = std::future::ready(()) => {}
        }
        let mut beside = components.receive(components.turn(other).await).unwrap();
        beside.push(b"other").unwrap();
        beside.finish().unwrap();
        first.push(b"onent").unwrap();
        first.finish().unwrap();
        // It has its turn, and finds the component here.
        let second = second.await;
        assert_eq!(components.get(wanted).unwrap().unwrap(), b"component");
        drop(second);
        assert!(components.turns.lock().unwrap().values().all(|turn| turn.strong_count() == 0));
    }

    #[test]
    fn a_broken_transfer_goes_on_and_a_wrong_one_is_thrown_away() {
        let temp = tempfile::tempdir().unwrap();
        let wanted = ComponentRef { sha256: Digest::of(b"component"), bytes: 9 };
        let components = folder(&temp);
        assert!(components.get(wanted).unwrap().is_none());
        let mut incoming = receive(&components, wanted).unwrap();
        incoming.push(b"comp").unwrap();
        drop(incoming);
        let mut incoming = receive(&components, wanted).unwrap();
        assert_eq!((incoming.offset(), incoming.complete()), (4, false));
        assert_eq!(incoming.push(b"onents").unwrap_err().code(), "component-too-long");
        incoming.push(b"onent").unwrap();
        assert_eq!(incoming.finish().unwrap(), b"component");
        assert_eq!(components.get(wanted).unwrap().unwrap(), b"component");
        // Kept while it is used, and removed when it was not for long.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000);
        let path = temp.path().join(wanted.sha256.hex());
        let age = || std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        age();
        assert!(components.get(wanted).unwrap().is_some());
        assert_eq!(components.retire(now - std::time::Duration::from_secs(60)).unwrap(), 0);
        age();
        assert_eq!(components.retire(now - std::time::Duration::from_secs(60)).unwrap(), 1);
        assert!(components.get(wanted).unwrap().is_none());
        std::fs::write(&path, b"component").unwrap();
        // Damaged on disk: it is fetched again.
        std::fs::write(temp.path().join(wanted.sha256.hex()), b"compOnent").unwrap();
        assert!(components.get(wanted).unwrap().is_none());
        let mut incoming = receive(&components, wanted).unwrap();
        incoming.push(b"otherwise").unwrap();
        assert_eq!(incoming.finish().unwrap_err().code(), "component-digest");
        assert_eq!(receive(&components, wanted).unwrap().offset(), 0);
    }
}
