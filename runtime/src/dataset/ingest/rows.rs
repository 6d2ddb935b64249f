//! The making of one version: tables, then variant files, then rows in row groups of at most 1,024.
//!
//! *In*: a recipe and its sources, and the journal of a run that was killed. *Out*: the version's files, synced; the report.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cap_std::fs::{Dir, OpenOptions};

use super::super::config::{Config, Individuals};
use super::super::plink::Input;
use super::super::report::IngestReport;
use super::super::store::{self, RowWriter};
use super::super::table::People;
use super::super::tiles::Tiles;
use super::super::variants::{self, Place, ReadError, Seen, Target, VariantFile};
use super::super::withdrawal::Withdrawn;
use super::super::{StoreKey, Value};
use super::groups::Groups;
use super::journal::Journal;
use super::sources::{self, Sources};
use super::{IngestError, Progress, Tuning, documents, tables};

const SCRATCH: &str = "scratch";

/// All that a version is made from.
#[derive(Clone, Copy)]
pub(super) struct Making<'a> {
    pub(super) source: &'a Dir,
    pub(super) config: &'a Config,
    pub(super) sources: &'a Sources,
    pub(super) dir: &'a Dir,
    pub(super) version: &'a str,
    pub(super) inputs: &'a str,
    /// The inputs, and who of them is left out.
    pub(super) people: &'a str,
    pub(super) withdrawn: &'a Withdrawn,
    pub(super) key: &'a StoreKey,
    pub(super) tuning: Tuning,
}

impl Making<'_> {
    /// Makes it, or goes on from `journal`.
    pub(super) fn run(
        &self,
        journal: Option<Journal>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<IngestReport, IngestError> {
        let mut report = IngestReport { changed: true, ..IngestReport::default() };
        let mappings = self.config.mappings(&self.sources.dictionary)?;
        let mut people = tables::read(self.source, self.config, self.sources, self.key, &mappings, &mut report)?;
        let (ids, files) = self.individuals(&people, &mut report)?;
        let order: Vec<[u8; 16]> = ids.iter().map(|id| self.key.order(id)).collect();
        let groups = Groups::new(&order, self.config.approximate_size)?;
        let tiles = self.genotypes((&ids, &groups), &files, journal, &mut report, progress)?;
        self.write((&ids, &groups), &mut people, &tables::constants(&mappings)?, &tiles)?;
        documents::write(self, &report)?;
        let gone = || -> std::io::Result<()> {
            Journal::remove(self.dir)?;
            self.dir.remove_file(SCRATCH)?;
            super::sync(self.dir)
        };
        gone().map_err(|error| IngestError::io(self.version, &error))?;
        Ok(report)
    }

    /// Everybody, in the keyed order of rows; and the variant files, in the order in which they are to be read.
    fn individuals(&self, people: &People, report: &mut IngestReport) -> Result<(Vec<String>, Vec<&str>), IngestError> {
        let mut with_genotypes = BTreeSet::new();
        let mut owners: Vec<Option<String>> = Vec::new();
        for file in &self.sources.variant_files {
            let samples = variants::samples(file, &|file| sources::plain(self.source.open(file)?.into_std(), self.key))?;
            owners.push(samples.first().filter(|_| samples.len() == 1).cloned());
            with_genotypes.extend(samples);
        }
        if self.config.variants.as_ref().is_some_and(|variants| variants.individuals == Individuals::Table) {
            let before = with_genotypes.len();
            with_genotypes.retain(|id| people.contains_key(id));
            let left_out = before.saturating_sub(with_genotypes.len());
            let why = || "`individuals = \"table\"` in [variants]".to_owned();
            report.note_many("individuals in a variant file and in no table, left out", left_out as u64, why);
        }
        let both = with_genotypes.iter().filter(|id| people.contains_key(*id)).count();
        report.with_table = people.len() as u64;
        report.with_genotypes = with_genotypes.len() as u64;
        if !self.sources.variant_files.is_empty() && !self.config.table.is_empty() {
            let (only_table, only_genotypes) = (people.len().saturating_sub(both), with_genotypes.len().saturating_sub(both));
            report.count("individuals in a table and in no variant file: dosages missing", only_table as u64);
            report.count("individuals in a variant file and in no table: values missing", only_genotypes as u64);
        }
        let mut ids: Vec<String> = people.keys().cloned().chain(with_genotypes).collect::<BTreeSet<_>>().into_iter().collect();
        let before = ids.len();
        ids.retain(|id| !self.withdrawn.has(&self.key.order(id)));
        report.count("individuals who withdrew, left out", before.saturating_sub(ids.len()) as u64);
        if ids.is_empty() {
            return Err(IngestError::Nobody);
        }
        ids.sort_by_cached_key(|id| self.key.order(id));
        report.individuals = ids.len() as u64;
        report.variants = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len() as u64).sum();
        let mut files: Vec<(&str, Option<String>)> =
            self.sources.variant_files.iter().map(String::as_str).zip(owners).collect();
        if files.iter().all(|(_, owner)| owner.is_some()) {
            // One file for each individual: in the rows' order, so that each tile is gone through once.
            files.sort_by_cached_key(|(_, owner)| owner.as_ref().map(|id| self.key.order(id)));
        }
        Ok((ids, files.into_iter().map(|(file, _)| file).collect()))
    }

    /// Reads the variant files into tiles.
    fn genotypes(
        &self,
        (ids, groups): (&[String], &Groups),
        files: &[&str],
        journal: Option<Journal>,
        report: &mut IngestReport,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Tiles, IngestError> {
        let catalogues = self.sources.catalogues();
        let rows: HashMap<&str, usize> = ids.iter().map(String::as_str).zip(groups.slots()).collect();
        let (done, mut place, mut seen, places) = match journal {
            Some(journal) => {
                *report = journal.report;
                (journal.files, journal.place, journal.seen, journal.tiles)
            }
            None => (0, Place::start(&catalogues), Seen::new(&catalogues), vec![]),
        };
        let mut tiles = Tiles::new(self.scratch()?, self.scratch_key()?, groups.slot_count(), self.tuning.memory, &places);
        let least_quality = self.config.variants.as_ref().map_or(0, |variants| variants.reference_quality);
        let total = self.sources.variant_bytes;
        let read = Arc::new(AtomicU64::new(0));
        let mut saved = 0;
        for (index, &file) in files.iter().enumerate() {
            if index < done {
                let length = self.source.metadata(file).map_err(|error| IngestError::io(file, &error))?.len();
                read.fetch_add(length, Ordering::Relaxed);
                saved = read.load(Ordering::Relaxed);
                continue;
            }
            let open = |file: &str| -> std::io::Result<Input> {
                let counted = Counted { input: self.source.open(file)?.into_std(), read: Arc::clone(&read) };
                sources::plain(counted, self.key)
            };
            let mut reading = VariantFile::open(file, &open, &rows, place)?;
            place = Place::start(&catalogues);
            loop {
                let mut target = Target { catalogues: &catalogues, tiles: &mut tiles, seen: &mut seen, report, least_quality };
                let more = reading.advance(&mut target).map_err(|error| match error {
                    ReadError::File(error) => error.into(),
                    ReadError::Scratch(error) => IngestError::io(SCRATCH, &error),
                })?;
                let bytes = read.load(Ordering::Relaxed);
                progress(Progress { stage: format!("reading {file}"), done: bytes, total });
                if bytes.saturating_sub(saved) >= self.tuning.checkpoint {
                    let (files, place) = if more { (index, reading.place()) } else { (index.saturating_add(1), place.clone()) };
                    self.checkpoint(files, place, report, &seen, &mut tiles)?;
                    saved = bytes;
                }
                if !more {
                    break;
                }
            }
        }
        report.variants_matched = seen.count();
        if !files.is_empty() {
            self.checkpoint(files.len(), place, report, &seen, &mut tiles)?;
        }
        Ok(tiles)
    }

    fn checkpoint(
        &self,
        files: usize,
        place: Place,
        report: &IngestReport,
        seen: &Seen,
        tiles: &mut Tiles,
    ) -> Result<(), IngestError> {
        let places = tiles.checkpoint().map_err(|error| IngestError::io(SCRATCH, &error))?;
        let (inputs, report, seen) = (self.people.to_owned(), report.clone(), seen.clone());
        Journal { inputs, files, place, report, seen, tiles: places }.write(self.dir, self.key, self.version)?;
        tiles.keep();
        Ok(())
    }

    fn scratch(&self) -> Result<std::fs::File, IngestError> {
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).write(true);
        let file = self.dir.open_with(SCRATCH, options).map_err(|error| IngestError::io(SCRATCH, &error))?;
        Ok(file.into_std())
    }

    fn scratch_key(&self) -> Result<aws_lc_rs::aead::RandomizedNonceKey, IngestError> {
        self.key.scratch(self.version).map_err(|why| IngestError::Io { what: SCRATCH.to_owned(), why })
    }

    /// Writes the rows' file.
    fn write(
        &self,
        (ids, groups): (&[String], &Groups),
        people: &mut People,
        constants: &[Option<Value>],
        tiles: &Tiles,
    ) -> Result<(), IngestError> {
        let sizes: Vec<usize> = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len()).collect();
        let file = self.dir.create(store::FILE).map_err(|error| IngestError::io(store::FILE, &error))?.into_std();
        let key = self.key.version(self.version);
        let failed = |error: std::io::Error| IngestError::io(store::FILE, &error);
        let mut writer = RowWriter::new(file, &key, &self.sources.dictionary, &sizes).map_err(failed)?;
        for (group, rows) in groups.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let ids = ids.get(rows).unwrap_or_default();
            let rows = ids.iter().map(|id| {
                let mut values = people.remove(id).unwrap_or_else(|| vec![Value::Missing; constants.len()]);
                for (value, constant) in values.iter_mut().zip(constants) {
                    *value = constant.unwrap_or(*value);
                }
                let place = u64::from_be_bytes(*self.key.order(id).first_chunk().expect("8 of 16 bytes"));
                (place, values)
            });
            let rows: Vec<(u64, Vec<Value>)> = rows.collect();
            let mut blocks = Vec::new();
            for (catalogue, &variants) in sizes.iter().enumerate() {
                for block in 0..store::blocks(variants) {
                    let bytes = tiles.blocks(catalogue, block, group, ids.len());
                    blocks.push(bytes.map_err(|error| IngestError::io(SCRATCH, &error))?);
                }
            }
            writer.group(group as u64, &rows, blocks).map_err(failed)?;
        }
        let file = writer.finish(groups.count() as u64).map_err(failed)?;
        file.sync_all().map_err(failed)
    }
}

/// Counts what is read, for the progress bar.
struct Counted<R> {
    input: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
