//! VCF and BCF (by noodles), and PLINK's `.bed`: from records to dosages of catalogue variants.
//!
//! *In*: a variant file, plain or bgzipped, and the catalogues. *Out*: [`Batch`]es of its individuals' codes. Runs in an importer.
//! *Refuses*: a file that is cut or malformed, by file and record. What does not match is noted and left out:
//! contigs match with and without `chr`; an ALT among several counts by its own index; REF and ALT the other way round are
//! turned; a record that would match on the other strand is not guessed at; of two records of a variant the first holds. A block of a gVCF that is
//! like the reference (ALT `<NON_REF>` or `<*>`, up to INFO `END`), or a record without ALT, says of every variant in it that there are no copies,
//! where the genotype's quality (GQ) is good enough.

use std::io::{BufRead, BufReader, Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use noodles_bcf as bcf;
use noodles_bgzf as bgzf;
use noodles_vcf as vcf;
use noodles_vcf::variant::record::samples::series::Value;
use noodles_vcf::variant::record::{AlternateBases as _, Samples as _};
use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::Catalogue;

use crate::codes::{self, MISSING};
use crate::config::ConfigError;
use crate::genotypes::{self, Field, Malformed};
use crate::message::Bytes;
use crate::plink::{Bed, BedRecord, Input, is_bed};
use crate::report::{IngestReport, Notes};

/// Opens a variant file of any format. `beside`: a `.bed`'s `.bim` and `.fam`.
pub(crate) fn open(name: &str, file: Input, beside: impl FnOnce() -> (Input, Input)) -> Result<Opened, ConfigError> {
    guarded(name, || Opened::new(name, file, beside))
}

/// Which catalogue variants were seen: of each catalogue, how many variants it has, and a bit each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(Vec<(u32, Vec<u8>)>);

impl Seen {
    /// None of them.
    #[must_use]
    pub fn new(catalogues: &[Arc<Catalogue>]) -> Self {
        let none = |catalogue: &Arc<Catalogue>| {
            let count = catalogue.variants.len();
            (u32::try_from(count).unwrap_or(u32::MAX), vec![0; count.div_ceil(8)])
        };
        Self(catalogues.iter().map(none).collect())
    }

    /// Marks a variant; whether it is one, and was not marked before.
    pub fn mark(&mut self, (catalogue, variant): (u32, u32)) -> bool {
        let Some((count, bits)) = self.0.get_mut(catalogue as usize) else { return false };
        let byte = bits.get_mut(variant as usize / 8).filter(|_| variant < *count);
        byte.is_some_and(|byte| {
            let bit = 1 << (variant % 8);
            let new = *byte & bit == 0;
            *byte |= bit;
            new
        })
    }

    /// How many were marked.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().flat_map(|(_, bits)| bits).map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Whether a variant was marked.
    #[must_use]
    pub fn has(&self, (catalogue, variant): (u32, u32)) -> bool {
        let bits = self.0.get(catalogue as usize).map(|(_, bits)| bits);
        bits.and_then(|bits| bits.get(variant as usize / 8)).is_some_and(|byte| byte >> (variant % 8) & 1 == 1)
    }

    /// Marks all that the other, of the same catalogues, has marked.
    pub fn add(&mut self, other: &Self) {
        let to = self.0.iter_mut().flat_map(|(_, bits)| bits);
        to.zip(other.0.iter().flat_map(|(_, bits)| bits)).for_each(|(to, from)| *to |= from);
    }

    /// The same marks where catalogues lie in another order. `places`: for each catalogue, where it was before, if it was there. `None` where one that was
    /// there has another number of variants.
    #[must_use]
    pub fn moved(&self, catalogues: &[Arc<Catalogue>], places: &[Option<usize>]) -> Option<Self> {
        let mut moved = Self::new(catalogues);
        for ((to, bits), place) in moved.0.iter_mut().zip(places) {
            let Some(place) = place else { continue };
            let (from, known) = self.0.get(*place)?;
            if from != to || known.len() != bits.len() {
                return None;
            }
            bits.clone_from(known);
        }
        Some(moved)
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bits)| bits.len()).sum()
    }
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

/// What a record is about.
struct Site {
    contig: String,
    position: u64,
    reference: String,
    alternates: Vec<String>,
    /// The last position of a block that is like the reference.
    block: Option<u64>,
}

impl Site {
    /// `None` for a record at no base (position 0, the telomere).
    fn of(record: &dyn vcf::variant::Record, header: &vcf::Header) -> std::io::Result<Option<Self>> {
        let contig = record.reference_sequence_name(header)?.to_owned();
        let Some(position) = record.variant_start().transpose()? else { return Ok(None) };
        let bases = record.reference_bases();
        let reference =
            bases.iter().map(|base| base.map(|base| char::from(base.to_ascii_uppercase()))).collect::<Result<_, _>>()?;
        let alternates = record.alternate_bases();
        let alternates = alternates.iter().map(|alt| alt.map(str::to_ascii_uppercase)).collect::<Result<Vec<_>, _>>()?;
        let like_the_reference = alternates.iter().all(|alt| alt == "<NON_REF>" || alt == "<*>");
        let block = if like_the_reference { Some(end(record, header, position.get() as u64)?) } else { None };
        Ok(Some(Self { contig, position: position.get() as u64, reference, alternates, block }))
    }

    fn other_strand(&self) -> Self {
        let alternates = self.alternates.iter().map(|alt| complement(alt)).collect();
        Self {
            contig: self.contig.clone(),
            position: self.position,
            reference: complement(&self.reference),
            alternates,
            block: None,
        }
    }
}

/// The last position of a record that begins at `start`: its INFO `END`, or where its REF ends. (A VCF's header is read for its samples only, so
/// that its numbers come as text.)
fn end(record: &dyn vcf::variant::Record, header: &vcf::Header, start: u64) -> std::io::Result<u64> {
    use vcf::variant::record::info::field::Value;
    let wrong = || std::io::Error::new(std::io::ErrorKind::InvalidData, "its END is no position behind its start");
    let given = match record.info().get(header, "END").transpose()?.flatten() {
        Some(Value::Integer(end)) => Some(u64::try_from(end).map_err(|_| wrong())?),
        Some(Value::String(end)) => Some(end.parse().map_err(|_| wrong())?),
        Some(_) => return Err(wrong()),
        None => None,
    };
    let end = given.unwrap_or_else(|| start.saturating_add(record.reference_bases().len() as u64).saturating_sub(1));
    if end < start { Err(wrong()) } else { Ok(end) }
}

/// A catalogue variant (of which catalogue, its number) that a record has: which of the record's alleles is the catalogue's ALT.
struct Match {
    variant: (u32, u32),
    allele: u32,
}

/// Catalogues and their variants are fewer than 2^32.
fn numbers(catalogue: usize, variant: usize) -> (u32, u32) {
    (u32::try_from(catalogue).unwrap_or(u32::MAX), u32::try_from(variant).unwrap_or(u32::MAX))
}

fn find(catalogues: &[Arc<Catalogue>], site: &Site) -> Vec<Match> {
    let mut found = Vec::new();
    let contig = site.contig.as_str();
    for (index, catalogue) in catalogues.iter().enumerate() {
        let other = contig.strip_prefix("chr").map_or_else(|| format!("chr{contig}"), str::to_owned);
        let here = |contig: &str| catalogue.slice(contig, site.position, site.position.saturating_add(1));
        let Some(range) = here(contig).or_else(|| here(&other)) else { continue };
        for place in range {
            let Some(variant) = catalogue.variants.get(place) else { continue };
            let straight = site.alternates.iter().position(|alt| *alt == variant.alternate);
            let allele = match straight.filter(|_| site.reference == variant.reference) {
                Some(alt) => u32::try_from(alt).unwrap_or(u32::MAX).saturating_add(1),
                None if site.reference == variant.alternate && site.alternates.contains(&variant.reference) => 0,
                None => continue,
            };
            found.push(Match { variant: numbers(index, place), allele });
        }
    }
    found
}

/// The catalogue variants that begin in a block which is like the reference.
fn within(catalogues: &[Arc<Catalogue>], site: &Site, end: u64) -> Vec<Match> {
    let mut found = Vec::new();
    let contig = site.contig.as_str();
    let other = contig.strip_prefix("chr").map_or_else(|| format!("chr{contig}"), str::to_owned);
    for (index, catalogue) in catalogues.iter().enumerate() {
        let here = |contig: &str| catalogue.slice(contig, site.position, end.saturating_add(1));
        let Some(range) = here(contig).or_else(|| here(&other)) else { continue };
        // Where the block begins it says what the reference is.
        let same = |variant: &vestibule_protocol::catalogue::Variant| {
            variant.position > site.position || variant.reference.chars().next() == site.reference.chars().next()
        };
        let range = range.filter(|place| catalogue.variants.get(*place).is_some_and(same));
        found.extend(range.map(|variant| Match { variant: numbers(index, variant), allele: 0 }));
    }
    found
}

fn complement(bases: &str) -> String {
    let base = |base| match base {
        'A' => 'T',
        'C' => 'G',
        'G' => 'C',
        'T' => 'A',
        other => other,
    };
    bases.chars().rev().map(base).collect()
}

/// A file of either format, by its content.
pub(crate) enum Opened {
    Vcf(vcf::io::Reader<Box<dyn BufRead>>, vcf::Header, Box<vcf::Record>),
    /// Its records, the header, a record and its bytes.
    Bcf(Box<dyn Read>, vcf::Header, Box<(bcf::Record, Vec<u8>)>),
    Bed(Box<Bed>),
}

impl Opened {
    fn new(name: &str, input: Input, beside: impl FnOnce() -> (Input, Input)) -> Result<Self, ConfigError> {
        let fail = |what: &str, error: &dyn std::fmt::Display| ConfigError(format!("{name}: {what}: {error}"));
        let mut input = BufReader::with_capacity(1 << 20, input);
        let start = input.fill_buf().map_err(|error| fail("it cannot be read", &error))?;
        if is_bed(start) {
            let bed = Bed::open(name, Box::new(input), beside()).map_err(|error| ConfigError(format!("{name}: {error}")))?;
            return Ok(Self::Bed(Box::new(bed)));
        }
        let gzip = start.starts_with(&[0x1f, 0x8b]);
        let workers = std::thread::available_parallelism().unwrap_or(std::num::NonZeroUsize::MIN);
        let mut input: Box<dyn BufRead> =
            if gzip { Box::new(bgzf::io::MultithreadedReader::with_worker_count(workers, input)) } else { Box::new(input) };
        let start = input.fill_buf().map_err(|error| fail("it cannot be decompressed", &error))?;
        if start.starts_with(b"BCF") {
            let mut reader = bcf::io::Reader::from(Box::new(input) as Box<dyn Read>);
            let header = reader.read_header().map_err(|error| fail("its header cannot be read", &error))?;
            return Ok(Self::Bcf(reader.into_inner(), header, Box::default()));
        }
        if !start.starts_with(b"##fileformat=VCF") {
            let why = "it does not begin with `##fileformat=VCF` or `BCF`, nor as a PLINK 1 .bed does";
            return Err(fail("it is neither VCF nor BCF", &why));
        }
        let head = head(&mut input).map_err(|error| fail("its header cannot be read", &error))?;
        let mut reader = vcf::io::Reader::new(Box::new(Cursor::new(head).chain(input)) as Box<dyn BufRead>);
        let header = reader.read_header().map_err(|error| fail("its header cannot be read", &error))?;
        Ok(Self::Vcf(reader, header, Box::default()))
    }

    pub(crate) fn samples(&self) -> Vec<String> {
        match self {
            Self::Vcf(_, header, _) | Self::Bcf(_, header, _) => header.sample_names().iter().cloned().collect(),
            Self::Bed(bed) => bed.samples().to_vec(),
        }
    }

    /// Empty where the format has none.
    fn header(&self) -> vcf::Header {
        match self {
            Self::Vcf(_, header, _) | Self::Bcf(_, header, _) => header.clone(),
            Self::Bed(_) => vcf::Header::default(),
        }
    }

    /// The next record, which is the file's record `number`.
    fn next(&mut self, number: u64) -> std::io::Result<Option<Record<'_>>> {
        Ok(match self {
            Self::Vcf(reader, _, record) => (reader.read_record(record)? > 0).then_some(Record::Vcf(record)),
            Self::Bcf(input, _, both) => {
                let (record, bytes) = &mut **both;
                let there = whole_record(input, bytes)? && bcf::io::Reader::from(bytes.as_slice()).read_record(record)? > 0;
                there.then_some(Record::Bcf(record))
            }
            Self::Bed(bed) => bed.next(number)?.map(Record::Bed),
        })
    }
}

/// Reads a BCF record's bytes, its two lengths before it. `false` at the end. noodles 0.94 makes room for whatever a record says of its length, up to
/// 8 GiB, before a byte of it is there.
fn whole_record(input: &mut dyn Read, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    bytes.clear();
    (&mut *input).take(8).read_to_end(bytes)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (lengths, _) = bytes.as_chunks::<4>();
    let length = match lengths {
        [] if bytes.is_empty() => return Ok(false),
        [site, samples] => u64::from(u32::from_le_bytes(*site)).saturating_add(u32::from_le_bytes(*samples).into()),
        _ => return Err(cut()),
    };
    let read = input.take(length).read_to_end(bytes)?;
    if read as u64 == length { Ok(true) } else { Err(cut()) }
}

/// The two lines of a VCF header that say something of use here: the version and the samples. noodles 0.96 refuses headers that the
/// specification allows (contigs named twice, lines about pedigrees), and nothing in them decides what a genotype is.
fn head(input: &mut dyn BufRead) -> std::io::Result<Vec<u8>> {
    let wrong = |why: &str| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    let mut kept = Vec::new();
    loop {
        let mut line = Vec::new();
        input.take(MAX_HEADER_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return wrong("it has no line that begins with `#CHROM`");
        }
        let last = line.starts_with(b"#CHROM");
        if !last && !line.starts_with(b"##") {
            return wrong("a line begins neither with `##` nor with `#CHROM`");
        }
        if last || kept.is_empty() {
            kept.extend_from_slice(&line);
        }
        if last {
            return Ok(kept);
        }
    }
}

/// Longest line of a header: the names of some millions of samples.
const MAX_HEADER_LINE: u64 = 256 << 20;

/// A record of either format.
enum Record<'a> {
    Vcf(&'a vcf::Record),
    Bcf(&'a bcf::Record),
    Bed(&'a BedRecord),
}

impl Record<'_> {
    /// `None` for a record at no base.
    fn site(&self, header: &vcf::Header) -> std::io::Result<Option<Site>> {
        match self {
            Self::Vcf(record) => Site::of(*record, header),
            Self::Bcf(record) => Site::of(*record, header),
            Self::Bed(BedRecord { position: 0, .. }) => Ok(None),
            // Neither allele is the reference's by the format: usually it is the second. Where it is not, the record is turned.
            Self::Bed(record) => Ok(Some(Site {
                contig: record.contig.clone(),
                position: record.position,
                reference: record.second.clone(),
                alternates: vec![record.first.clone()],
                block: None,
            })),
        }
    }

    /// Appends the samples' codes in a block that is like the reference: none, or missing where they have another allele or too low a quality, and of how
    /// many the quality was too low; `None` where there are no genotypes.
    fn reference_codes(
        &self,
        header: &vcf::Header,
        people: usize,
        least_quality: i32,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> std::io::Result<Option<u64>> {
        let malformed = |error: Malformed| std::io::Error::new(std::io::ErrorKind::InvalidData, error.0);
        if self.plain_codes(header, people, 1, scratch).map_err(malformed)?.is_none() {
            return Ok(None);
        }
        scratch.iter_mut().filter(|code| **code != 0).for_each(|code| *code = MISSING);
        let all: Box<dyn vcf::variant::record::Samples> = match self {
            Self::Vcf(record) => vcf::variant::Record::samples(*record)?,
            Self::Bcf(record) => vcf::variant::Record::samples(*record)?,
            Self::Bed(_) => return Ok(Some(0)),
        };
        let mut low = 0_u64;
        if let Some(qualities) = all.select(header, "GQ").transpose()? {
            for (code, quality) in scratch.iter_mut().zip(qualities.iter(header)) {
                let quality = match quality? {
                    Some(Value::Integer(quality)) => Some(quality),
                    // What is no number, a dot, is not known.
                    Some(Value::String(quality)) => quality.parse().ok(),
                    _ => None,
                };
                if *code == 0 && quality.is_some_and(|quality| quality < least_quality) {
                    *code = MISSING;
                    low = low.saturating_add(1);
                }
            }
        }
        codes::pack(scratch, out);
        Ok(Some(low))
    }

    /// Appends the samples' codes at one allele, and says how many had too many alleles; `None` where there are no genotypes.
    fn codes(
        &self,
        header: &vcf::Header,
        people: usize,
        allele: u32,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Option<u64>, Malformed> {
        match self {
            Self::Bed(record) => {
                record.codes(people, allele, out);
                return Ok(Some(0));
            }
            Self::Bcf(record) => {
                return bcf_genotypes(record, header, people, |field| match field.pairs() {
                    Some(pairs) => {
                        genotypes::pack_pairs(pairs, allele, out);
                        0
                    }
                    None => {
                        let odd = field.codes(people, allele, scratch);
                        codes::pack(scratch, out);
                        odd
                    }
                });
            }
            Self::Vcf(_) => {}
        }
        let odd = self.plain_codes(header, people, allele, scratch)?;
        if odd.is_some() {
            codes::pack(scratch, out);
        }
        Ok(odd)
    }

    /// How many samples have too many alleles; `None` where there are no genotypes.
    fn odd(&self, header: &vcf::Header, people: usize, scratch: &mut Vec<u8>) -> Result<Option<u64>, Malformed> {
        match self {
            Self::Bed(_) => Ok(Some(0)),
            Self::Bcf(record) => bcf_genotypes(record, header, people, |field| match field.pairs() {
                Some(_) => 0,
                None => field.codes(people, 1, scratch),
            }),
            Self::Vcf(_) => self.plain_codes(header, people, 1, scratch),
        }
    }

    /// The same as [`Self::codes`], a byte each.
    fn plain_codes(
        &self,
        header: &vcf::Header,
        people: usize,
        allele: u32,
        codes: &mut Vec<u8>,
    ) -> Result<Option<u64>, Malformed> {
        match self {
            Self::Bed(_) => Ok(None),
            Self::Vcf(record) => {
                let samples = record.samples();
                let Some(field) = samples.keys().iter().position(|key| key == "GT") else { return Ok(None) };
                let texts: Vec<_> = samples.iter().collect();
                genotypes::vcf(texts.iter().map(AsRef::as_ref), field, people, allele, codes).map(Some)
            }
            Self::Bcf(record) => bcf_genotypes(record, header, people, |field| field.codes(people, allele, codes)),
        }
    }
}

/// What `read` makes of the genotypes of a BCF record; `None` where it has none.
fn bcf_genotypes<T>(
    record: &bcf::Record,
    header: &vcf::Header,
    people: usize,
    read: impl FnOnce(&Field<'_>) -> T,
) -> Result<Option<T>, Malformed> {
    let Some(key) = header.string_maps().strings().get_index_of("GT") else { return Ok(None) };
    let samples = record.samples().map_err(|_| Malformed("its samples cannot be read"))?;
    if samples.len() != people {
        return Err(Malformed("it has another number of samples than the header"));
    }
    Ok(Field::find(samples.as_ref(), key, people)?.as_ref().map(read))
}
