//! How far an ingest is, on disk: what a killed one goes on from.
//!
//! *In*: what was read, what the report says so far, where the tiles lie. *Out*: the same, in the next run. Encrypted, since it counts
//! people's genotypes. *Refuses* (and the ingest begins anew): the journal of other inputs, or of another key.

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use vestibule_importer::{IngestReport, Place};

use super::super::StoreKey;
use super::super::tiles::Places;
use super::IngestError;
use super::record::Read;

const FILE: &str = "journal";

/// One checkpoint.
#[derive(Serialize, Deserialize)]
pub(super) struct Journal {
    /// What is ingested, as the key hashes it.
    pub(super) inputs: String,
    /// Variant files that are done, or taken over.
    pub(super) files: usize,
    /// How far the next one is.
    pub(super) place: Place,
    pub(super) report: IngestReport,
    pub(super) read: Read,
    /// What was noted of the file that is not done.
    pub(super) noted: IngestReport,
    pub(super) tiles: Places,
}

impl Journal {
    /// The journal of a version, if it is one of these inputs.
    pub(super) fn read(dir: &Dir, key: &StoreKey, inputs: &str) -> Option<Self> {
        let journal: Self = postcard::from_bytes(&key.decrypt(&dir.read(FILE).ok()?)?).ok()?;
        (journal.inputs == inputs).then_some(journal)
    }

    /// Puts it on disk in place of the one before.
    pub(super) fn write(&self, dir: &Dir, key: &StoreKey, version: &str) -> Result<(), IngestError> {
        let fail = |why: String| IngestError::Io { what: FILE.to_owned(), why };
        let bytes = postcard::to_stdvec(self).map_err(|error| fail(error.to_string()))?;
        let sealed = key.encrypt(version, &bytes).map_err(fail)?;
        crate::home::replace(dir, FILE, &sealed).map_err(|error| IngestError::io(FILE, &error))?;
        super::sync(dir).map_err(|error| IngestError::io(FILE, &error))
    }

    /// It is not needed any more.
    pub(super) fn remove(dir: &Dir) -> std::io::Result<()> {
        if dir.exists(FILE) { dir.remove_file(FILE) } else { Ok(()) }
    }
}
