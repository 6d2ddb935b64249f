//! What a version was read from, kept with it, so that a later ingest need not read the same files again.
//!
//! *In*: of each variant file what it is known by, whose genotypes it has, what was found and noted in it. *Out*: the same, at the next ingest. Encrypted,
//! and bound to its version: it counts people's genotypes. *Refuses*: the record of another version, or of readers that read otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use vestibule_importer::{Note, Notes, Seen};
use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::digest::Digest;

use super::super::StoreKey;
use super::IngestError;
use super::marks::Known;

pub(super) const FILE: &str = "sources";
/// Counted up where a file's genotypes come to be read otherwise: then all files are read again.
const READING: u32 = 1;
/// Bytes of what was seen in which file, each different set once: beyond, it is known of no further file.
const MOST_SEEN: usize = 64 << 20;

/// The genotypes that a second file has otherwise.
pub(super) const CONTRADICTED: &str = "genotypes that another file gave differently, the first kept";

/// Whose genotypes files have: places in the keyed order, each different list once.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Lists(Vec<Vec<[u8; 16]>>);

/// What was read, file by file.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Read {
    pub(super) files: Vec<FileRecord>,
    /// Each different set once.
    seen: Vec<Seen>,
    /// All of them.
    pub(super) all: Seen,
    kinds: Vec<String>,
}

/// A variant file that was read.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct FileRecord {
    /// The file, and those beside it.
    pub(super) known: Vec<Known>,
    /// Whose genotypes it has.
    pub(super) list: u32,
    /// Of how many of them they were taken in.
    pub(super) wanted: u64,
    /// Its records.
    pub(super) records: u64,
    seen: Option<u32>,
    notes: Vec<(u32, Note)>,
}

/// A version's.
#[derive(Serialize, Deserialize)]
pub(in super::super) struct Record {
    reading: u32,
    version: String,
    pub(super) least_quality: i32,
    /// Which catalogues were read, in the order of the version's.
    pub(super) catalogues: Vec<Digest>,
    pub(super) lists: Lists,
    pub(super) read: Read,
}

/// Numbers lists by what is in them.
#[derive(Default)]
pub(super) struct Numbering(HashMap<Vec<u8>, u32>);

impl Lists {
    /// The number of a list.
    pub(super) fn number(&mut self, list: Vec<[u8; 16]>, numbering: &mut Numbering) -> u32 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, list.as_flattened()).as_ref().to_vec();
        *numbering.0.entry(digest).or_insert_with(|| {
            self.0.push(list);
            u32::try_from(self.0.len().saturating_sub(1)).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn get(&self, number: u32) -> &[[u8; 16]] {
        self.0.get(number as usize).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Read {
    pub(super) fn new(catalogues: &[Arc<Catalogue>]) -> Self {
        Self { files: vec![], seen: vec![], all: Seen::new(catalogues), kinds: vec![] }
    }

    /// What was seen in a file, where that is known.
    pub(super) fn seen(&self, file: &FileRecord) -> Option<&Seen> {
        self.seen.get(file.seen? as usize)
    }

    pub(super) fn notes(&self, file: &FileRecord) -> Notes {
        let kind = |kind: u32| self.kinds.get(kind as usize).cloned().unwrap_or_default();
        file.notes.iter().map(|(number, note)| (kind(*number), note.clone())).collect()
    }

    /// A file was read, or taken over. `seen` is already among [`Self::all`].
    pub(super) fn push(&mut self, file: FileRecord, seen: Option<&Seen>, notes: Notes) {
        let held: usize = self.seen.iter().map(Seen::bytes).sum();
        let place = seen.and_then(|seen| {
            let known = self.seen.iter().position(|known| known == seen);
            let room = held.saturating_add(seen.bytes()) <= MOST_SEEN;
            known.or_else(|| room.then(|| (self.seen.push(seen.clone()), self.seen.len().saturating_sub(1)).1))
        });
        let notes = notes.into_iter().map(|(kind, note)| (self.kind(kind), note)).collect();
        self.files.push(FileRecord { seen: place.and_then(|place| u32::try_from(place).ok()), notes, ..file });
    }

    fn kind(&mut self, kind: String) -> u32 {
        let place = self.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            self.kinds.push(kind);
            self.kinds.len().saturating_sub(1)
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

impl FileRecord {
    /// Of a file that was read, for [`Read::push`], which adds the rest.
    pub(super) const fn new(known: Vec<Known>, list: u32, wanted: u64, records: u64) -> Self {
        Self { known, list, wanted, records, seen: None, notes: vec![] }
    }

    pub(super) fn name(&self) -> &str {
        self.known.first().map_or("", |known| known.name.as_str())
    }
}

impl Record {
    pub(super) fn new(least_quality: i32, catalogues: &[Arc<Catalogue>], lists: Lists, read: Read) -> Self {
        let catalogues = catalogues.iter().map(|catalogue| catalogue.digest).collect();
        Self { reading: READING, version: String::new(), least_quality, catalogues, lists, read }
    }

    /// That of the version whose folder is `dir`; or why there is none.
    pub(in super::super) fn read(dir: &Dir, key: &StoreKey, version: &str) -> Result<Self, &'static str> {
        let sealed = dir.read(FILE).map_err(|_| "it does not say what it was read from")?;
        let plain = key.decrypt(&sealed).ok_or("what it says of its sources does not open")?;
        let record = postcard::from_bytes::<Self>(&plain).ok().filter(|record| record.reading == READING);
        record.filter(|record| record.version == version).ok_or("it was read by other readers")
    }

    /// For a version, as it is kept.
    pub(super) fn sealed(mut self, key: &StoreKey, version: &str) -> Result<Vec<u8>, IngestError> {
        version.clone_into(&mut self.version);
        let fail = |why: String| IngestError::Io { what: FILE.to_owned(), why };
        let bytes = postcard::to_stdvec(&self).map_err(|error| fail(error.to_string()))?;
        key.encrypt(version, &bytes).map_err(fail)
    }

    /// Keeps it with a version.
    pub(in super::super) fn write(self, dir: &Dir, key: &StoreKey, version: &str) -> Result<(), IngestError> {
        crate::home::replace(dir, FILE, &self.sealed(key, version)?).map_err(|error| IngestError::io(FILE, &error))
    }

    /// What is known of a file of that name.
    pub(super) fn known(&self) -> HashMap<&str, &Known> {
        self.read.files.iter().flat_map(|file| &file.known).map(|known| (known.name.as_str(), known)).collect()
    }
}
