//! VCF and BCF (by noodles), and PLINK's `.bed`: from records to dosages of catalogue variants.
//!
//! *In*: a variant file, plain or bgzipped, and the catalogues. *Out*: codes of its individuals, in the tiles.
//! *Refuses*: a file that is cut or malformed, by file and record. What does not match is noted and left out:
//! contigs match with and without `chr`; an ALT among several counts by its own index; REF and ALT the other way round are
//! turned; a record that would match on the other strand is not guessed at; of two records of a variant the first holds. A block of a gVCF that is
//! like the reference (ALT `<NON_REF>` or `<*>`, up to INFO `END`), or a record without ALT, says of every variant in it that there are no copies,
//! where the genotype's quality (GQ) is good enough.

use std::collections::HashMap;
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

use super::config::ConfigError;
use super::genotypes::{self, Malformed};
use super::pack::MISSING;
use super::plink::{Bed, BedRecord, Input, is_bed};
use super::report::IngestReport;
use super::tiles::{Samples, Tiles};

/// Opens a file of the source folder.
pub(super) type Open<'a> = &'a dyn Fn(&str) -> std::io::Result<Input>;

/// The sample names of a file.
pub(super) fn samples(name: &str, open: Open<'_>) -> Result<Vec<String>, ConfigError> {
    Ok(guarded(name, || Opened::new(name, open))?.samples())
}

/// Which catalogue variants were seen, a bit each.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Seen(Vec<Vec<u8>>);

impl Seen {
    pub(super) fn new(catalogues: &[Arc<Catalogue>]) -> Self {
        Self(catalogues.iter().map(|catalogue| vec![0; catalogue.variants.len().div_ceil(8)]).collect())
    }

    /// Marks a variant; whether it was not marked before.
    fn mark(&mut self, found: &Match) -> bool {
        let byte = self.0.get_mut(found.catalogue).and_then(|bits| bits.get_mut(found.variant / 8));
        byte.is_some_and(|byte| {
            let bit = 1 << (found.variant % 8);
            let new = *byte & bit == 0;
            *byte |= bit;
            new
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().flatten().map(|byte| u64::from(byte.count_ones())).sum()
    }
}

/// What the reading of a file adds to.
pub(super) struct Target<'a> {
    pub(super) catalogues: &'a [Arc<Catalogue>],
    pub(super) tiles: &'a mut Tiles,
    pub(super) seen: &'a mut Seen,
    pub(super) report: &'a mut IngestReport,
    /// Of a block that is like the reference.
    pub(super) least_quality: i32,
}

/// Why a variant file was not read.
pub(super) enum ReadError {
    /// The file.
    File(ConfigError),
    /// Our own scratch file.
    Scratch(std::io::Error),
}

impl From<ConfigError> for ReadError {
    fn from(error: ConfigError) -> Self {
        Self::File(error)
    }
}

/// How far a file was read.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Place {
    records: u64,
    /// Variants of this file that were seen: a second record of the same variant is left out.
    here: Seen,
}

impl Place {
    /// Nothing of it.
    pub(super) fn start(catalogues: &[Arc<Catalogue>]) -> Self {
        Self { records: 0, here: Seen::new(catalogues) }
    }
}

/// A variant file that is being read.
pub(super) struct VariantFile {
    name: String,
    opened: Opened,
    header: vcf::Header,
    /// Samples of the file.
    people: usize,
    samples: Samples,
    place: Place,
    codes: Vec<u8>,
    /// Records that an earlier run took in.
    skip: u64,
}

/// Records that [`VariantFile::advance`] reads.
const STEP: usize = 1_024;

impl VariantFile {
    /// Opens it behind `place`. `rows`: the row of each individual that is wanted.
    pub(super) fn open(name: &str, open: Open<'_>, rows: &HashMap<&str, usize>, place: Place) -> Result<Self, ConfigError> {
        let opened = guarded(name, || Opened::new(name, open))?;
        let names = opened.samples();
        let samples = Samples::new(names.iter().map(|sample| rows.get(sample.as_str()).copied()));
        let (header, people) = (opened.header(), names.len());
        Ok(Self { name: name.to_owned(), opened, header, people, samples, skip: place.records, place, codes: Vec::new() })
    }

    /// How far it was read.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    /// Reads some more records. Whether there may be more still.
    pub(super) fn advance(&mut self, target: &mut Target<'_>) -> Result<bool, ReadError> {
        let name = self.name.clone();
        guarded(&name, || {
            for _ in 0..STEP {
                if !self.record(target)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    fn record(&mut self, target: &mut Target<'_>) -> Result<bool, ReadError> {
        let Self { name, opened, header, people, samples, place: Place { records, here }, codes, skip } = self;
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
        target.report.records = target.report.records.saturating_add(1);
        let site = record.site(header).map_err(|error| fail(&error))?;
        let Some(site) = site else { return Ok(true) };
        let place = || format!("{name}, record {number}: {}:{}", site.contig, site.position);
        if let Some(end) = site.block {
            let matches = within(target.catalogues, &site, end);
            if !matches.is_empty() {
                let codes_of = |codes: &mut Vec<u8>| record.reference_codes(header, *people, target.least_quality, codes);
                let Some(odd) = codes_of(codes).map_err(|error| fail(&error))? else {
                    target.report.note("records without genotypes (GT), left out", place);
                    return Ok(true);
                };
                target.report.note_many(
                    "genotypes of blocks like the reference, of too low a quality, taken for missing",
                    odd,
                    place,
                );
                for found in matches.iter().filter(|found| here.mark(found)) {
                    target.seen.mark(found);
                    let contradicted = target.tiles.write(found.catalogue, found.variant, samples, codes);
                    let kind = "genotypes that another file gave differently, the first kept";
                    target.report.note_many(kind, contradicted.map_err(ReadError::Scratch)?, place);
                }
            }
            return Ok(true);
        }
        let matches = find(target.catalogues, &site);
        if matches.is_empty() {
            let kind = if find(target.catalogues, &site.other_strand()).is_empty() {
                "records that are in no catalogue, left out"
            } else {
                "records that would match on the other strand, left out"
            };
            target.report.note(kind, place);
        }
        for (place_in_record, found) in matches.into_iter().enumerate() {
            if !here.mark(&found) {
                target.report.note("further records of a variant, left out", place);
                continue;
            }
            let odd = record.codes(header, *people, found.allele, codes).map_err(|error| fail(&error.0))?;
            let Some(odd) = odd else {
                target.report.note("records without genotypes (GT), left out", place);
                break;
            };
            target.seen.mark(&found);
            if found.allele == 0 {
                target.report.note("records with ref and alt the other way round, turned", place);
            }
            if place_in_record == 0 {
                target.report.note_many("genotypes with more than two alleles, taken for missing", odd, place);
            }
            let contradicted = target.tiles.write(found.catalogue, found.variant, samples, codes);
            let kind = "genotypes that another file gave differently, the first kept";
            target.report.note_many(kind, contradicted.map_err(ReadError::Scratch)?, place);
        }
        Ok(true)
    }
}

/// noodles 0.94 panics at some damaged files. A panic in its reader leaves nothing of ours half done: the version that is being made is
/// thrown away with the error.
fn guarded<T, E: From<ConfigError>>(name: &str, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let damaged = || ConfigError(format!("{name}: it holds something malformed; is the file damaged?"));
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged().into()))
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

/// A catalogue variant that a record has: which of the record's alleles is the catalogue's ALT.
struct Match {
    catalogue: usize,
    variant: usize,
    allele: u32,
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
            found.push(Match { catalogue: index, variant: place, allele });
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
        found.extend(range.map(|variant| Match { catalogue: index, variant, allele: 0 }));
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
enum Opened {
    Vcf(vcf::io::Reader<Box<dyn BufRead>>, vcf::Header, Box<vcf::Record>),
    Bcf(bcf::io::Reader<Box<dyn Read>>, vcf::Header, Box<bcf::Record>),
    Bed(Box<Bed>),
}

impl Opened {
    fn new(name: &str, open: Open<'_>) -> Result<Self, ConfigError> {
        let fail = |what: &str, error: &dyn std::fmt::Display| ConfigError(format!("{name}: {what}: {error}"));
        let input = open(name).map_err(|error| ConfigError(format!("{name}: {error}")))?;
        let mut input = BufReader::with_capacity(1 << 20, input);
        let start = input.fill_buf().map_err(|error| fail("it cannot be read", &error))?;
        if is_bed(start) {
            let bed = Bed::open(name, Box::new(input), open).map_err(|error| ConfigError(format!("{name}: {error}")))?;
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
            return Ok(Self::Bcf(reader, header, Box::default()));
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

    fn samples(&self) -> Vec<String> {
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
            Self::Bcf(reader, _, record) => (reader.read_record(record)? > 0).then_some(Record::Bcf(record)),
            Self::Bed(bed) => bed.next(number)?.map(Record::Bed),
        })
    }
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

    /// The samples' codes in a block that is like the reference: none, or missing where they have another allele or too low a quality, and of how many
    /// the quality was too low; `None` where there are no genotypes.
    fn reference_codes(
        &self,
        header: &vcf::Header,
        people: usize,
        least_quality: i32,
        codes: &mut Vec<u8>,
    ) -> std::io::Result<Option<u64>> {
        let malformed = |error: Malformed| std::io::Error::new(std::io::ErrorKind::InvalidData, error.0);
        if self.codes(header, people, 1, codes).map_err(malformed)?.is_none() {
            return Ok(None);
        }
        codes.iter_mut().filter(|code| **code != 0).for_each(|code| *code = MISSING);
        let all: Box<dyn vcf::variant::record::Samples> = match self {
            Self::Vcf(record) => vcf::variant::Record::samples(*record)?,
            Self::Bcf(record) => vcf::variant::Record::samples(*record)?,
            Self::Bed(_) => return Ok(Some(0)),
        };
        let Some(qualities) = all.select(header, "GQ").transpose()? else { return Ok(Some(0)) };
        let mut low = 0_u64;
        for (code, quality) in codes.iter_mut().zip(qualities.iter(header)) {
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
        Ok(Some(low))
    }

    /// The samples' codes at one allele, and how many had too many alleles; `None` where there are no genotypes.
    fn codes(&self, header: &vcf::Header, people: usize, allele: u32, codes: &mut Vec<u8>) -> Result<Option<u64>, Malformed> {
        match self {
            Self::Bed(record) => {
                record.codes(people, allele, codes);
                Ok(Some(0))
            }
            Self::Vcf(record) => {
                let samples = record.samples();
                let Some(field) = samples.keys().iter().position(|key| key == "GT") else { return Ok(None) };
                let texts: Vec<_> = samples.iter().collect();
                genotypes::vcf(texts.iter().map(AsRef::as_ref), field, people, allele, codes).map(Some)
            }
            Self::Bcf(record) => {
                let Some(key) = header.string_maps().strings().get_index_of("GT") else { return Ok(None) };
                let samples = record.samples().map_err(|_| Malformed("its samples cannot be read"))?;
                if samples.len() != people {
                    return Err(Malformed("it has another number of samples than the header"));
                }
                genotypes::bcf(samples.as_ref(), key, people, allele, codes)
            }
        }
    }
}
