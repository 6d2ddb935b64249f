//! Public documents and components, by content.
//!
//! *In*: bytes. *Out*: the same bytes by their SHA-256. *Refuses*: bytes of another digest than is asked for, on the way in and out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;
use vestibule_protocol::digest::Digest;

/// The folder of documents.
#[derive(Debug, Clone)]
pub struct Documents(PathBuf);

impl Documents {
    /// In this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// The bytes of that digest, if they are here and whole.
    #[must_use]
    pub fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(digest.hex())).ok().filter(|bytes| Digest::of(bytes) == digest)
    }

    /// Whether they are here.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.0.join(digest.hex()).exists()
    }

    /// Keeps bytes.
    ///
    /// # Errors
    /// The disk.
    pub fn put(&self, bytes: &[u8]) -> std::io::Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.0.join(digest.hex());
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let part = self.0.join(format!("{}.{}.part", digest.hex(), vestibule_protocol::digest::hex(&random)));
        let written = (|| {
            let mut file = std::fs::File::create_new(&part)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&part, &path)
        })();
        if written.is_err() {
            // What was begun is of no use; a left-over is harmless.
            let _ = std::fs::remove_file(&part);
        }
        written.map(|()| digest)
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
