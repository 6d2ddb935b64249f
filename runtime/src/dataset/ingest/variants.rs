//! The variant files of a version, read into tiles or taken over.
//!
//! *In*: the files, in order; everybody's row; the journal of a run that was killed. *Out*: [`Tiles`] with all genotypes, and what was [`Read`]. *Trusts*: no importer: what it says
//! is held to the catalogues and the file's samples. *Refuses*: an importer that says what none says; growing where a file that is read comes before one that is taken over and has
//! genotypes of it.

use std::sync::Arc;

use vestibule_importer::{Batch, Bytes, IngestReport, Notes, Place, Said, Seen, Task, beside};
use vestibule_protocol::catalogue::Catalogue;

use super::super::base::Base;
use super::super::import::{self, Reading};
use super::super::tiles::{Samples, Tiles};
use super::growth::Growth;
use super::journal::Journal;
use super::plan::{Later, Plan, Planned, Rows};
use super::record::{CONTRADICTED, FileRecord, Read};
use super::rows::{Making, SCRATCH, Stopped};
use super::{IngestError, Progress};

/// Before rows are written a checkpoint is made if so many times less than between two others was read since.
const LAST: u64 = 8;

/// What is read into, and what is told of it.
struct Taking<'a> {
    tiles: Tiles,
    read: Read,
    report: &'a mut IngestReport,
    /// What is noted of the file that is read.
    noted: IngestReport,
}

impl Making<'_> {
    /// Hands a variant file to an importer, which says whose genotypes it has.
    pub(super) fn open(&self, file: &str) -> Result<(Reading, Vec<String>), IngestError> {
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

    /// Reads the variant files into tiles, but for those that are taken over: `base` has these.
    pub(super) fn genotypes(
        &self,
        rows: Rows<'_>,
        (plan, base): (&mut Plan, Option<Base>),
        journal: Option<Journal>,
        report: &mut IngestReport,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Tiles, Read), Stopped> {
        let catalogues = self.sources.catalogues();
        let (done, mut place, read, noted, places) = match journal {
            Some(journal) => {
                *report = journal.report;
                (journal.files, journal.place, journal.read, journal.noted, journal.tiles)
            }
            None => (0, Place::start(&catalogues), Read::new(&catalogues), IngestReport::default(), vec![]),
        };
        let tiles = Tiles::new(self.scratch()?, self.scratch_key()?, rows.groups.slot_count(), self.tuning.memory, &places);
        let mut taking = Taking { tiles: tiles.on(base), read, report, noted };
        let later = self.growth.map(|growth| Later::new(plan, growth, &catalogues));
        let total = self.sources.variant_bytes;
        // Bytes of the files that were read, and of those that a checkpoint knows of.
        let (mut read, mut saved) = (0_u64, 0_u64);
        let count = plan.files.len();
        let Plan { files, lists, .. } = plan;
        for (index, planned) in files.iter_mut().enumerate() {
            let file = self.sources.variant_files.get(planned.number).map_or("", String::as_str);
            let length = self.source.metadata(file).map_err(|error| IngestError::io(file, &error))?.len();
            if index < done {
                read = read.saturating_add(length);
                saved = read;
                continue;
            }
            let old = self.growth.zip(planned.old).and_then(|(growth, old)| Some((growth, growth.file(old)?)));
            if let Some((growth, old)) = old.filter(|(growth, _)| !growth.lacks_a_catalogue()) {
                self.take_over(growth, old, planned, &catalogues, &mut taking);
                read = read.saturating_add(length);
                progress(Progress { stage: format!("taking over {file}"), done: read, total });
                continue;
            }
            let mut reading = match planned.reading.take() {
                Some(reading) => reading,
                None => self.open_again(file, lists.get(planned.list))?,
            };
            let list = lists.get(planned.list);
            let samples = Samples::new(list.iter().map(|order| rows.slot(order)));
            let wanted = list.iter().filter(|order| rows.slot(order).is_some()).count() as u64;
            let texts = self.sources.catalogues.iter().map(|(bytes, _)| Bytes(bytes.clone())).collect();
            let are_known: Vec<bool> = match old {
                Some((growth, _)) => growth.catalogues.iter().map(Option::is_some).collect(),
                None => vec![false; catalogues.len()],
            };
            // What it must not have, where it comes before one that is taken over.
            let later = later.as_ref().filter(|_| old.is_none()).and_then(|later| later.than(index, list));
            if let Some((growth, old)) = old
                && place.records == 0
                && taking.noted.notes.is_empty()
                && let Some(note) = growth.record.read.notes(old).remove(CONTRADICTED)
            {
                taking.note([(CONTRADICTED.to_owned(), note)].into());
            }
            let least_quality = self.least_quality();
            reading.say(&Task::Read { catalogues: texts, known: are_known.clone(), place: place.clone(), least_quality })?;
            let mut more = true;
            while more {
                let Said::Genotypes(batch) = reading.hear()? else { return Err(reading.lost().into()) };
                more = batch.more;
                let records = batch.records.saturating_sub(place.records);
                taking.report.records = taking.report.records.saturating_add(records);
                reading.records = batch.records;
                let Some(batch) = Checked::new(batch, &samples, &are_known, &mut place) else {
                    return Err(reading.lost().into());
                };
                if later.as_ref().is_some_and(|later| batch.found.iter().any(|found| later.has(*found))) {
                    return Err(Stopped::Unfit(format!(
                        "{file} comes before a file that it would take over, and has genotypes of it"
                    )));
                }
                self.take_in(file, batch, &samples, &mut taking)?;
                let bytes = read.saturating_add(reading.bytes_read());
                progress(Progress { stage: format!("reading {file}"), done: bytes, total });
                if !more {
                    let known = self.sources.known(planned.number).unwrap_or_default();
                    taking.end(FileRecord::new(known.to_vec(), planned.list, wanted, place.records), place.seen());
                    place = Place::start(&catalogues);
                }
                if bytes.saturating_sub(saved) >= self.tuning.checkpoint {
                    let files = if more { index } else { index.saturating_add(1) };
                    self.checkpoint(files, place.clone(), &mut taking)?;
                    saved = bytes;
                }
            }
            read = read.saturating_add(reading.bytes_read());
            reading.finish()?;
        }
        taking.report.variants_matched = taking.read.all.count();
        // What is cheaply read again is not saved.
        if count > 0 && read.saturating_sub(saved) >= self.tuning.checkpoint / LAST {
            self.checkpoint(count, place, &mut taking)?;
        }
        let Taking { tiles, read, .. } = taking;
        Ok((tiles, read))
    }

    /// Opens a file that was opened before, which has the same samples then.
    fn open_again(&self, file: &str, list: &[[u8; 16]]) -> Result<Reading, IngestError> {
        let (mut reading, samples) = self.open(file)?;
        let same = samples.len() == list.len() && samples.iter().zip(list).all(|(id, order)| self.key.order(id) == *order);
        if same { Ok(reading) } else { Err(reading.lost()) }
    }

    pub(super) fn least_quality(&self) -> i32 {
        self.config.variants.as_ref().map_or(0, |variants| variants.reference_quality)
    }

    /// What was told of a file is told again, and its genotypes lie in the tiles' base.
    fn take_over(
        &self,
        growth: &Growth,
        old: &FileRecord,
        planned: &Planned,
        catalogues: &[Arc<Catalogue>],
        taking: &mut Taking<'_>,
    ) {
        let notes = growth.record.read.notes(old);
        let seen = growth.seen(old, catalogues);
        if let Some(all) = seen.as_ref().map_or_else(|| growth.all_seen(catalogues), |seen| Some(seen.clone())) {
            taking.read.all.add(&all);
        }
        taking.report.records = taking.report.records.saturating_add(old.records);
        taking.report.take_in(notes.clone());
        let known = self.sources.known(planned.number).unwrap_or_default();
        let record = FileRecord::new(known.to_vec(), planned.list, old.wanted, old.records);
        taking.read.push(record, seen.as_ref(), told(notes, taking.report));
    }

    /// Puts a batch in place.
    fn take_in(&self, file: &str, batch: Checked, samples: &Samples, taking: &mut Taking<'_>) -> Result<(), Stopped> {
        taking.note(batch.notes);
        for found in batch.found.iter().chain(&batch.known) {
            taking.read.all.mark(*found);
        }
        let written = taking.tiles.write(samples, &batch.found, &batch.codes);
        let contradicted = written.map_err(|error| Stopped::io(SCRATCH, &error))?;
        let example = || {
            let variant = contradicted.at.and_then(|(catalogue, variant)| {
                self.sources.catalogues.get(catalogue as usize)?.1.variants.get(variant as usize)
            });
            variant.map_or_else(String::new, |variant| format!("{file}: {}:{}", variant.contig, variant.position))
        };
        let mut note = IngestReport::default();
        note.note_many(CONTRADICTED, contradicted.count, example);
        taking.note(note.notes);
        Ok(())
    }

    fn checkpoint(&self, files: usize, place: Place, taking: &mut Taking<'_>) -> Result<(), IngestError> {
        let places = taking.tiles.checkpoint().map_err(|error| IngestError::io(SCRATCH, &error))?;
        let (inputs, report) = (self.people.to_owned(), taking.report.clone());
        let (read, noted) = (taking.read.clone(), taking.noted.clone());
        Journal { inputs, files, place, report, read, noted, tiles: places }.write(self.dir, self.key, self.version)?;
        taking.tiles.keep();
        Ok(())
    }
}

impl Taking<'_> {
    fn note(&mut self, notes: Notes) {
        self.noted.take_in(notes.clone());
        self.report.take_in(notes);
    }

    /// The file was read.
    fn end(&mut self, file: FileRecord, seen: &Seen) {
        let noted = std::mem::take(&mut self.noted);
        self.read.push(file, Some(seen), told(noted.notes, self.report));
    }
}

/// Notes with those of their examples that are shown, since no others need be kept.
fn told(mut notes: Notes, report: &IngestReport) -> Notes {
    for (kind, note) in &mut notes {
        let shown = report.notes.get(kind).map(|note| note.examples.as_slice()).unwrap_or_default();
        note.examples.retain(|example| shown.contains(example));
    }
    notes
}

/// A batch that is one of its file.
struct Checked {
    found: Vec<(u32, u32)>,
    codes: Vec<u8>,
    known: Vec<(u32, u32)>,
    notes: Notes,
}

impl Checked {
    /// Each variant is one of a catalogue, and there once in a file; there are codes for each of those that are not known.
    fn new(batch: Batch, samples: &Samples, are_known: &[bool], place: &mut Place) -> Option<Self> {
        let Batch { records, found, codes: Bytes(codes), known, notes, .. } = batch;
        let whole = found.len().checked_mul(samples.stride()) == Some(codes.len()) && records >= place.records;
        place.records = records;
        let is_known = |found: &(u32, u32)| are_known.get(found.0 as usize).copied().unwrap_or(false);
        let sound = found.iter().all(|found| !is_known(found) && place.mark(*found))
            && known.iter().all(|found| is_known(found) && place.mark(*found));
        (whole && sound).then_some(Self { found, codes, known, notes })
    }
}
