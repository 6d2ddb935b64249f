//! The making of one version: tables, then variant files, then rows in row groups of at most 1,024.
//!
//! *In*: a recipe and its sources, and the journal of a run that was killed. *Out*: the version's files, synced; the report.

use cap_std::fs::{Dir, OpenOptions};
use vestibule_importer::{Batch, Bytes, Config, Individuals, IngestReport, Notes, Place, Said, Seen, Task, beside};
use vestibule_protocol::dictionary::Kind;

use super::super::import::{self, Importers, Reading};
use super::super::store::{self, RowWriter, Sink};
use super::super::tiles::{Samples, Tiles};
use super::super::withdrawal::Withdrawn;
use super::super::{DataFolder, StoreKey, Value};
use super::groups::Groups;
use super::journal::Journal;
use super::people::{self, Gathering, People, Rules};
use super::sources::Sources;
use super::spill::Spill;
use super::{IngestError, Progress, Tuning, documents, tables};

const SCRATCH: &str = "scratch";
/// Variant files whose importers are held from the first look at them until they are read; where there are more, each is opened twice.
const HELD: usize = 4;

/// A variant file, and its importer and samples where they are held.
type Opened<'a> = (&'a str, Option<(Reading, Vec<String>)>);

/// All that a version is made from.
#[derive(Clone, Copy)]
pub(super) struct Making<'a> {
    pub(super) data: &'a DataFolder,
    pub(super) importers: &'a Importers,
    pub(super) source: &'a Dir,
    pub(super) config: &'a Config,
    pub(super) config_text: &'a str,
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
        let mut gathering = Gathering::new(self.spill()?, self.key);
        tables::read(self, &mappings, &mut gathering, &mut report)?;
        let files = self.samples(&mut gathering)?;
        let rules = Rules {
            tables: &self.config.table,
            dictionary: &self.sources.dictionary,
            tables_only: self.config.variants.as_ref().is_some_and(|all| all.individuals == Individuals::Table),
            variants: !files.is_empty(),
            withdrawn: self.withdrawn,
        };
        let mut people = gathering.merge(&rules, &mut report)?;
        report.variants = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len() as u64).sum();
        let groups = Groups::new(people.order(), self.config.approximate_size)?;
        let tiles = self.genotypes((people.order(), &groups), files, journal, &mut report, progress)?;
        self.write(&groups, &mut people, &tables::constants(&mappings)?, &tiles)?;
        documents::write(self, &report)?;
        let gone = || -> std::io::Result<()> {
            Journal::remove(self.dir)?;
            self.dir.remove_file(SCRATCH)?;
            self.dir.remove_file(people::FILE)?;
            super::sync(self.dir)
        };
        gone().map_err(|error| IngestError::io(self.version, &error))?;
        Ok(report)
    }

    /// Where people are gathered.
    fn spill(&self) -> Result<Spill, IngestError> {
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(true).read(true).write(true);
        let file = self.dir.open_with(people::FILE, options).map_err(|error| IngestError::io(people::FILE, &error))?;
        let mut bytes = self.config.approximate_size.saturating_mul(64);
        for table in &self.config.table {
            // One that is not there is told of when it is read.
            bytes = bytes.saturating_add(self.source.metadata(&table.file).map_or(0, |metadata| metadata.len()));
        }
        Ok(Spill::new(file.into_std(), self.scratch_key()?, bytes, self.tuning.memory / 4))
    }

    /// Gathers whom the variant files name; and the files, in the order in which they are to be read.
    fn samples(&self, gathering: &mut Gathering<'_>) -> Result<Vec<Opened<'_>>, IngestError> {
        let mut files: Vec<(Opened<'_>, Option<[u8; 16]>)> = Vec::new();
        for file in &self.sources.variant_files {
            let (reading, samples) = self.open(file)?;
            let owner = samples.first().filter(|_| samples.len() == 1).map(|id| self.key.order(id));
            samples.iter().try_for_each(|id| gathering.sample(self.key.order(id)))?;
            let held = (self.sources.variant_files.len() <= HELD).then_some((reading, samples));
            files.push(((file.as_str(), held), owner));
        }
        if files.iter().all(|(_, owner)| owner.is_some()) {
            // One file for each individual: in the rows' order, so that each tile is gone through once.
            files.sort_by_key(|(_, owner)| *owner);
        }
        Ok(files.into_iter().map(|(file, _)| file).collect())
    }

    /// Hands a variant file to an importer, which says whose genotypes it has.
    fn open(&self, file: &str) -> Result<(Reading, Vec<String>), IngestError> {
        let (mut names, mut fam) = (vec![file.to_owned()], Bytes::default());
        if file.ends_with(".bed") {
            fam = import::whole(self.source, file, &beside(file, "fam"), self.key)?;
            names.push(beside(file, "bim"));
        }
        let mut reading = Reading::start(self.importers, self.source, &names, self.key)?;
        reading.say(&Task::Open { name: file.to_owned(), fam })?;
        match reading.hear()? {
            Said::Samples(samples) => Ok((reading, samples)),
            _ => Err(reading.lost()),
        }
    }

    /// Reads the variant files into tiles.
    fn genotypes(
        &self,
        (order, groups): (&[[u8; 16]], &Groups),
        files: Vec<Opened<'_>>,
        journal: Option<Journal>,
        report: &mut IngestReport,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Tiles, IngestError> {
        let catalogues = self.sources.catalogues();
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
        // Bytes of the files that were read, and of those that a checkpoint knows of.
        let (mut read, mut saved) = (0_u64, 0_u64);
        let count = files.len();
        for (index, (file, opened)) in files.into_iter().enumerate() {
            if index < done {
                let length = self.source.metadata(file).map_err(|error| IngestError::io(file, &error))?.len();
                read = read.saturating_add(length);
                saved = read;
                continue;
            }
            let (mut reading, samples) = match opened {
                Some(opened) => opened,
                None => self.open(file)?,
            };
            let samples = Samples::new(samples.iter().map(|sample| {
                let row = order.binary_search(&self.key.order(sample)).ok()?;
                Some(groups.slot(row))
            }));
            let texts = self.sources.catalogues.iter().map(|(bytes, _)| Bytes(bytes.clone())).collect();
            reading.say(&Task::Read { catalogues: texts, place: place.clone(), least_quality })?;
            let mut more = true;
            while more {
                let Said::Genotypes(batch) = reading.hear()? else { return Err(reading.lost()) };
                more = batch.more;
                let records = batch.records.saturating_sub(place.records);
                report.records = report.records.saturating_add(records);
                reading.records = batch.records;
                let Some(batch) = Checked::new(batch, &samples, &mut place) else { return Err(reading.lost()) };
                self.take_in(file, batch, &samples, (&mut tiles, &mut seen), report)?;
                let bytes = read.saturating_add(reading.bytes_read());
                progress(Progress { stage: format!("reading {file}"), done: bytes, total });
                if !more {
                    place = Place::start(&catalogues);
                }
                if bytes.saturating_sub(saved) >= self.tuning.checkpoint {
                    let files = if more { index } else { index.saturating_add(1) };
                    self.checkpoint(files, place.clone(), report, &seen, &mut tiles)?;
                    saved = bytes;
                }
            }
            read = read.saturating_add(reading.bytes_read());
            reading.finish()?;
        }
        report.variants_matched = seen.count();
        if count > 0 {
            self.checkpoint(count, place, report, &seen, &mut tiles)?;
        }
        Ok(tiles)
    }

    /// Puts a batch in place.
    fn take_in(
        &self,
        file: &str,
        batch: Checked,
        samples: &Samples,
        (tiles, seen): (&mut Tiles, &mut Seen),
        report: &mut IngestReport,
    ) -> Result<(), IngestError> {
        report.take_in(batch.notes);
        for found in &batch.found {
            seen.mark(*found);
        }
        let written = tiles.write(samples, &batch.found, &batch.codes);
        let contradicted = written.map_err(|error| IngestError::io(SCRATCH, &error))?;
        report.note_many("genotypes that another file gave differently, the first kept", contradicted.count, || {
            let variant = contradicted.at.and_then(|(catalogue, variant)| {
                self.sources.catalogues.get(catalogue as usize)?.1.variants.get(variant as usize)
            });
            variant.map_or_else(String::new, |variant| format!("{file}: {}:{}", variant.contig, variant.position))
        });
        Ok(())
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
        groups: &Groups,
        people: &mut People,
        constants: &[Option<Value>],
        tiles: &Tiles,
    ) -> Result<(), IngestError> {
        let sizes: Vec<usize> = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len()).collect();
        let key = self.key.version(self.version);
        let failed = |error: std::io::Error| IngestError::io(store::FILE, &error);
        let sink = Sink::new(self.data, self.dir).map_err(failed)?;
        let mut writer = RowWriter::new(sink, &key, &self.sources.dictionary, &sizes).map_err(failed)?;
        let kinds: Vec<&Kind> = self.sources.dictionary.columns.iter().map(|column| &column.kind).collect();
        let blocks: Vec<(usize, usize)> = sizes
            .iter()
            .enumerate()
            .flat_map(|(catalogue, &variants)| (0..store::blocks(variants)).map(move |block| (catalogue, block)))
            .collect();
        for (group, rows) in groups.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let mut rows = people.next(rows.len(), &kinds)?;
            for (_, values) in &mut rows {
                for (value, constant) in values.iter_mut().zip(constants) {
                    *value = constant.unwrap_or(*value);
                }
            }
            let bytes = |place: usize| {
                let (catalogue, block) = blocks.get(place).copied().unwrap_or_default();
                tiles.blocks(catalogue, block, group, rows.len())
            };
            writer.group(group as u64, &rows, (blocks.len(), &bytes)).map_err(failed)?;
        }
        writer.finish(groups.count() as u64).and_then(|sink| sink.commit(self.dir)).map_err(failed)
    }
}

/// A batch that is one of its file.
struct Checked {
    found: Vec<(u32, u32)>,
    codes: Vec<u8>,
    notes: Notes,
}

impl Checked {
    /// Each variant is one of a catalogue, and there once in a file; there are codes for each.
    fn new(batch: Batch, samples: &Samples, place: &mut Place) -> Option<Self> {
        let Batch { records, found, codes: Bytes(codes), notes, .. } = batch;
        let whole = found.len().checked_mul(samples.stride()) == Some(codes.len()) && records >= place.records;
        place.records = records;
        (whole && found.iter().all(|found| place.mark(*found))).then_some(Self { found, codes, notes })
    }
}
