//! VCF and BCF (by noodles), and PLINK's `.bed`: from records to dosages of catalogue variants.
//!
//! *In*: a variant file, plain or bgzipped, and the catalogues. *Out*: [`Batch`]es of its individuals' codes. Runs in an importer.
//! *Refuses*: a file that is cut or malformed, by file and record. What does not match is noted and left out:
//! contigs match with and without `chr`; an ALT among several counts by its own index; REF and ALT the other way round are
//! turned; a record that would match on the other strand is not guessed at; of two records of a variant the first holds. A block of a gVCF that is
//! like the reference (ALT `<NON_REF>` or `<*>`, up to INFO `END`), or a record without ALT, says of every variant in it that there are no copies,
//! where the genotype's quality (GQ) is good enough.

mod opened;
mod record;
mod seen;
mod site;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use noodles_vcf as vcf;
use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::Catalogue;

pub(crate) use self::opened::Opened;
pub use self::seen::Seen;
use self::site::{Match, find, within};
use crate::config::ConfigError;
use crate::message::Bytes;
use crate::plink::Input;
use crate::report::{IngestReport, Notes};

/// Opens a variant file of any format. `beside`: a `.bed`'s `.bim` and `.fam`.
pub(crate) fn open(name: &str, file: Input, beside: impl FnOnce() -> (Input, Input)) -> Result<Opened, ConfigError> {
    guarded(name, || Opened::new(name, file, beside))
}

/// What some records of a file hold.
#[derive(Default, Serialize, Deserialize)]
pub struct Batch {
    /// Records of the file that were read, with those of earlier batches.
    pub records: u64,
    /// Catalogue and variant, each once in a file.
    pub found: Vec<(u32, u32)>,
    /// For each of those the codes of the file's samples, four to a byte.
    pub codes: Bytes,
    /// The same of catalogues whose genotypes are known.
    pub known: Vec<(u32, u32)>,
    /// What was left out or changed.
    pub notes: Notes,
    /// Whether there may be more.
    pub more: bool,
}

/// How far a file was read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Place {
    /// Records that were read.
    pub records: u64,
    /// Variants of this file that were seen: a second record of the same variant is left out.
    here: Seen,
}

impl Place {
    /// Nothing of it.
    #[must_use]
    pub fn start(catalogues: &[Arc<Catalogue>]) -> Self {
        Self { records: 0, here: Seen::new(catalogues) }
    }

    /// Marks a variant of this file; whether it is one, and was not marked before.
    pub fn mark(&mut self, found: (u32, u32)) -> bool {
        self.here.mark(found)
    }

    /// The variants of this file that were seen.
    #[must_use]
    pub const fn seen(&self) -> &Seen {
        &self.here
    }
}

/// What is asked of a variant file.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) catalogues: &'a [Arc<Catalogue>],
    /// Of each catalogue, whether the genotypes at its variants are known: they are not said again.
    pub(crate) known: &'a [bool],
    /// Of a block that is like the reference.
    pub(crate) least_quality: i32,
}

/// A variant file that is being read.
pub(crate) struct VariantFile<'a> {
    name: String,
    opened: Opened,
    header: vcf::Header,
    /// Samples of the file.
    people: usize,
    asked: Asked<'a>,
    place: Place,
    /// What the batch holds so far.
    report: IngestReport,
    found: Vec<(u32, u32)>,
    known: Vec<(u32, u32)>,
    codes: Vec<u8>,
    /// One record's codes.
    scratch: Vec<u8>,
    /// Records that an earlier run took in.
    skip: u64,
}

/// Most records of a batch.
const STEP: usize = 1_024;
/// A batch whose codes take more is ended.
const STEP_BYTES: usize = 4 << 20;

impl<'a> VariantFile<'a> {
    /// Reads on behind `place`.
    pub(crate) fn new(name: &str, opened: Opened, asked: Asked<'a>, place: Place) -> Self {
        let (header, people) = (opened.header(), opened.samples().len());
        let (report, skip) = (IngestReport::default(), place.records);
        let (name, found, known, codes, scratch) = (name.to_owned(), vec![], vec![], vec![], vec![]);
        Self { name, opened, header, people, asked, place, report, found, known, codes, scratch, skip }
    }

    /// Reads some more records.
    pub(crate) fn advance(&mut self) -> Result<Batch, ConfigError> {
        let name = self.name.clone();
        let more = guarded(&name, || {
            for _ in 0..STEP {
                if !self.record()? {
                    return Ok(false);
                }
                if self.codes.len() >= STEP_BYTES {
                    break;
                }
            }
            Ok(true)
        })?;
        let (records, notes) = (self.place.records, std::mem::take(&mut self.report.notes));
        let (found, known) = (std::mem::take(&mut self.found), std::mem::take(&mut self.known));
        let codes = Bytes(std::mem::take(&mut self.codes));
        Ok(Batch { records, found, codes, known, notes, more })
    }

    fn record(&mut self) -> Result<bool, ConfigError> {
        let Self { name, opened, header, people, asked, place: Place { records, here }, .. } = self;
        let Self { report, found, known, codes, scratch, skip, .. } = self;
        let Asked { catalogues, least_quality, known: are_known } = *asked;
        let is_known = |(catalogue, _): (u32, u32)| are_known.get(catalogue as usize).copied().unwrap_or(false);
        let number = if *skip > 0 { records.saturating_sub(*skip) } else { *records }.saturating_add(1);
        let fail = |why: &dyn std::fmt::Display| {
            ConfigError(format!("{name}, record {number}: {why}; is the file damaged or cut short?"))
        };
        let Some(record) = opened.next(number).map_err(|error| fail(&error))? else { return Ok(false) };
        if *skip > 0 {
            *skip = skip.saturating_sub(1);
            return Ok(true);
        }
        *records = number;
        let site = record.site(header).map_err(|error| fail(&error))?;
        let Some(site) = site else { return Ok(true) };
        let place = || format!("{name}, record {number}: {}:{}", site.contig, site.position);
        if let Some(end) = site.block {
            let matches = within(catalogues, &site, end);
            if !matches.is_empty() {
                let start = codes.len();
                let read = record.reference_codes(header, *people, least_quality, scratch, codes);
                let Some(odd) = read.map_err(|error| fail(&error))? else {
                    report.note("records without genotypes (GT), left out", place);
                    return Ok(true);
                };
                report.note_many("genotypes of blocks like the reference, of too low a quality, taken for missing", odd, place);
                let end = codes.len();
                for variant in matches.iter().map(|found| found.variant).filter(|variant| here.mark(*variant)) {
                    if is_known(variant) {
                        known.push(variant);
                        continue;
                    }
                    found.push(variant);
                    codes.extend_from_within(start..end);
                }
                // Each variant has a copy of its own.
                codes.drain(start..end);
            }
            return Ok(true);
        }
        let matches = find(catalogues, &site);
        if matches.is_empty() {
            let kind = if find(catalogues, &site.other_strand()).is_empty() {
                "records that are in no catalogue, left out"
            } else {
                "records that would match on the other strand, left out"
            };
            report.note(kind, place);
        }
        for (place_in_record, Match { variant, allele }) in matches.into_iter().enumerate() {
            if !here.mark(variant) {
                report.note("further records of a variant, left out", place);
                continue;
            }
            let odd = match is_known(variant) {
                true => record.odd(header, *people, scratch),
                false => record.codes(header, *people, allele, scratch, codes),
            };
            let Some(odd) = odd.map_err(|error| fail(&error.0))? else {
                report.note("records without genotypes (GT), left out", place);
                break;
            };
            if is_known(variant) {
                known.push(variant)
            } else {
                found.push(variant)
            }
            if allele == 0 {
                report.note("records with ref and alt the other way round, turned", place);
            }
            if place_in_record == 0 {
                report.note_many("genotypes with more than two alleles, taken for missing", odd, place);
            }
        }
        Ok(true)
    }
}

/// noodles 0.94 panics at some damaged files. A panic in its reader leaves nothing of ours half done: the version that is being made is
/// thrown away with the error.
fn guarded<T>(name: &str, read: impl FnOnce() -> Result<T, ConfigError>) -> Result<T, ConfigError> {
    let damaged = || ConfigError(format!("{name}: it holds something malformed; is the file damaged?"));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged()))
}
