//! The making of one version: tables, then variant files, then rows in row groups of at most 1,024.
//!
//! *In*: a recipe and its sources, and the journal of a run that was killed. *Out*: the version's files, synced; the report.

use cap_std::fs::{Dir, OpenOptions};
use vestibule_importer::{Config, Individuals, IngestReport};
use vestibule_protocol::dictionary::Kind;

use super::super::base::{Base, Unfit};
use super::super::import::Importers;
use super::super::store::{self, RowWriter, Sink, Store};
use super::super::tiles::Tiles;
use super::super::withdrawal::Withdrawn;
use super::super::{DataFolder, StoreKey, Value};
use super::groups::Groups;
use super::growth::Growth;
use super::journal::Journal;
use super::people::{self, Gathering, People, Rules};
use super::plan::{Plan, Rows};
use super::record::{Read, Record};
use super::sources::Sources;
use super::spill::Spill;
use super::{IngestError, Progress, Tuning, documents, tables};

pub(super) const SCRATCH: &str = "scratch";

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
    /// What is taken over from.
    pub(super) growth: Option<&'a Growth>,
    /// Why nothing is.
    pub(super) unfit: Option<&'a str>,
    pub(super) key: &'a StoreKey,
    pub(super) tuning: Tuning,
}

/// Why no version was made.
pub(super) enum Stopped {
    Failed(IngestError),
    /// The version that serves cannot be grown from after all: everything is to be read.
    Unfit(String),
}

impl From<IngestError> for Stopped {
    fn from(error: IngestError) -> Self {
        Self::Failed(error)
    }
}

impl Stopped {
    pub(super) fn io(what: &str, error: &std::io::Error) -> Self {
        Unfit::of(error).map_or_else(|| Self::Failed(IngestError::io(what, error)), Self::Unfit)
    }
}

impl Making<'_> {
    /// Makes it, or goes on from `journal`. `store`: the rows of what is taken over from.
    pub(super) fn run(
        &self,
        journal: Option<Journal>,
        store: Option<Store>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<IngestReport, Stopped> {
        let mut report = IngestReport { changed: true, ..IngestReport::default() };
        let mappings = self.config.mappings(&self.sources.dictionary).map_err(IngestError::from)?;
        let mut gathering = Gathering::new(self.spill()?, self.key);
        tables::read(self, &mappings, &mut gathering, &mut report)?;
        let mut plan = Plan::new(self, &mut gathering)?;
        let rules = Rules {
            tables: &self.config.table,
            dictionary: &self.sources.dictionary,
            tables_only: self.config.variants.as_ref().is_some_and(|all| all.individuals == Individuals::Table),
            variants: !plan.files.is_empty(),
            withdrawn: self.withdrawn,
        };
        let mut people = gathering.merge(&rules, &mut report)?;
        report.variants = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len() as u64).sum();
        let groups = Groups::new(people.order(), self.config.approximate_size)?;
        plan.decide(self, people.order(), &mut report);
        let rows = Rows { order: people.order(), groups: &groups };
        let base = self.base(store, &plan, rows)?;
        let (tiles, read) = self.genotypes(rows, (&mut plan, base), journal, &mut report, progress)?;
        self.write(&groups, &mut people, &tables::constants(&mappings)?, &tiles)?;
        documents::write(self, &report, self.record(plan, read))?;
        let gone = || -> std::io::Result<()> {
            Journal::remove(self.dir)?;
            self.dir.remove_file(SCRATCH)?;
            self.dir.remove_file(people::FILE)?;
            super::sync(self.dir)
        };
        gone().map_err(|error| IngestError::io(self.version, &error))?;
        Ok(report)
    }

    /// What tiles begin with.
    fn base(&self, store: Option<Store>, plan: &Plan, rows: Rows<'_>) -> Result<Option<Base>, Stopped> {
        let Some((growth, store)) = self.growth.zip(store).filter(|_| plan.takes_over()) else { return Ok(None) };
        let base = Base::new(store, &growth.heads, growth.catalogues.clone(), plan.taken(rows));
        base.map(Some).map_err(|error| Stopped::Unfit(error.to_string()))
    }

    /// What was read, for the next ingest.
    fn record(&self, plan: Plan, mut read: Read) -> Option<Record> {
        // What was changed while it was read was read as nobody knows.
        read.files.iter_mut().flat_map(|file| &mut file.known).for_each(|known| known.settle(self.source));
        let record = || Record::new(self.least_quality(), &self.sources.catalogues(), plan.lists, read);
        (!plan.files.is_empty()).then(record)
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

    pub(super) fn scratch(&self) -> Result<std::fs::File, IngestError> {
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).write(true);
        let file = self.dir.open_with(SCRATCH, options).map_err(|error| IngestError::io(SCRATCH, &error))?;
        Ok(file.into_std())
    }

    pub(super) fn scratch_key(&self) -> Result<aws_lc_rs::aead::RandomizedNonceKey, IngestError> {
        self.key.scratch(self.version).map_err(|why| IngestError::Io { what: SCRATCH.to_owned(), why })
    }

    /// Writes the rows' file.
    fn write(&self, groups: &Groups, people: &mut People, constants: &[Option<Value>], tiles: &Tiles) -> Result<(), Stopped> {
        let sizes: Vec<usize> = self.sources.catalogues.iter().map(|(_, catalogue)| catalogue.variants.len()).collect();
        let key = self.key.version(self.version);
        let failed = |error: std::io::Error| Stopped::io(store::FILE, &error);
        let sink = Sink::new(self.data, self.dir).map_err(failed)?;
        let mut writer = RowWriter::new(sink, &key, &self.sources.dictionary, &sizes).map_err(failed)?;
        let kinds: Vec<&Kind> = self.sources.dictionary.columns.iter().map(|column| &column.kind).collect();
        let blocks: Vec<(usize, usize)> = sizes
            .iter()
            .enumerate()
            .flat_map(|(catalogue, &variants)| (0..store::blocks(variants)).map(move |block| (catalogue, block)))
            .collect();
        for (group, rows) in groups.iter().enumerate() {
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
            writer.group(&rows, (blocks.len(), &bytes)).map_err(failed)?;
        }
        writer.finish().and_then(|sink| sink.commit(self.dir)).map_err(failed)
    }
}
