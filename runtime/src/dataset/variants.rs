//! VCF and BCF (by noodles): from records to dosages of catalogue variants.
//!
//! *In*: a variant file, plain or bgzipped, and the catalogues. *Out*: dosages, 2 bits each, of the individuals of one batch.
//! *Refuses*: a file that is cut or malformed, by file and record. What does not match is noted and left out:
//! contigs match with and without `chr`; an ALT among several counts by its own index; REF and ALT the other way round are
//! turned; a record that would match on the other strand is not guessed at; of two records of a variant the first holds.
//! A genotype with any allele missing is missing; a haploid call counts its one allele; more than two alleles are missing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use noodles_bcf as bcf;
use noodles_bgzf as bgzf;
use noodles_vcf as vcf;
use noodles_vcf::variant::record::AlternateBases as _;
use noodles_vcf::variant::record::Samples as _;
use noodles_vcf::variant::record::samples::series::Value as SeriesValue;
use vestibule_protocol::catalogue::Catalogue;

use super::config::ConfigError;
use super::pack::{self, BLOCK_BYTES, BLOCK_VARIANTS, MISSING_BYTE};
use super::report::IngestReport;
use super::store::blocks;

/// The genotypes of some individuals at all catalogue variants, packed.
pub(super) struct Genotypes {
    /// Where each individual's bytes are.
    people: HashMap<String, usize>,
    /// For each individual, all blocks of all catalogues.
    packed: Vec<u8>,
    bytes_per_person: usize,
    /// For each catalogue, where its first block lies in an individual's bytes.
    offsets: Vec<usize>,
}

impl Genotypes {
    /// All missing.
    pub(super) fn new(people: &[String], catalogues: &[Arc<Catalogue>]) -> Self {
        let mut offsets = Vec::new();
        let mut bytes = 0_usize;
        for catalogue in catalogues {
            offsets.push(bytes);
            bytes = bytes.saturating_add(blocks(catalogue.variants.len()).saturating_mul(BLOCK_BYTES));
        }
        let packed = vec![MISSING_BYTE; bytes.saturating_mul(people.len())];
        let people = people.iter().enumerate().map(|(place, id)| (id.clone(), place)).collect();
        Self { people, packed, bytes_per_person: bytes, offsets }
    }

    /// One individual's blocks.
    pub(super) fn of(&self, place: usize) -> &[u8] {
        let start = place.saturating_mul(self.bytes_per_person);
        self.packed.get(start..start.saturating_add(self.bytes_per_person)).unwrap_or_default()
    }

    fn set(&mut self, place: usize, catalogue: usize, variant: usize, dosage: u8) {
        let offset = self.offsets.get(catalogue).copied().unwrap_or(0);
        let block = (variant / BLOCK_VARIANTS).saturating_mul(BLOCK_BYTES);
        let start = place.saturating_mul(self.bytes_per_person).saturating_add(offset).saturating_add(block);
        if let Some(block) = self.packed.get_mut(start..start.saturating_add(BLOCK_BYTES)) {
            pack::set(block, variant % BLOCK_VARIANTS, dosage);
        }
    }
}

/// Bytes that one individual takes at all catalogues.
pub(super) fn bytes_per_person(catalogues: &[Arc<Catalogue>]) -> usize {
    catalogues.iter().map(|catalogue| blocks(catalogue.variants.len()).saturating_mul(BLOCK_BYTES)).sum()
}

/// The sample names of a file.
pub(super) fn samples(name: &str, input: impl Read + Send + 'static) -> Result<Vec<String>, ConfigError> {
    let opened = Opened::new(name, input)?;
    Ok(opened.header().sample_names().iter().cloned().collect())
}

/// Which catalogue variants were seen, over all files.
pub(super) struct Seen(Vec<Vec<bool>>);

impl Seen {
    pub(super) fn new(catalogues: &[Arc<Catalogue>]) -> Self {
        Self(catalogues.iter().map(|catalogue| vec![false; catalogue.variants.len()]).collect())
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().flatten().filter(|seen| **seen).count() as u64
    }
}

/// Reads one file into `genotypes`. `report` is `Some` on the first pass only, so that nothing is noted twice.
pub(super) fn read(
    name: &str,
    input: impl Read + Send + 'static,
    catalogues: &[Arc<Catalogue>],
    genotypes: &mut Genotypes,
    seen: &mut Seen,
    mut report: Option<&mut IngestReport>,
) -> Result<(), ConfigError> {
    let mut opened = Opened::new(name, input)?;
    let header = opened.header().clone();
    let places: Vec<Option<usize>> = header.sample_names().iter().map(|sample| genotypes.people.get(sample).copied()).collect();
    // Variants of this file: a second record of the same variant is left out.
    let mut here = Seen::new(catalogues);
    let mut number = 0_u64;
    loop {
        number = number.saturating_add(1);
        let fail = |why: &dyn std::fmt::Display| {
            ConfigError(format!("{name}, record {number}: {why}; is the file damaged or cut short?"))
        };
        let Some(record) = opened.next().map_err(|error| fail(&error))? else { break };
        if let Some(report) = report.as_deref_mut() {
            report.records = report.records.saturating_add(1);
        }
        let contig = record.reference_sequence_name(&header).map_err(|error| fail(&error))?.to_owned();
        let Some(position) = record.variant_start() else { continue };
        let position = position.map_err(|error| fail(&error))?.get() as u64;
        let reference = bases(record.reference_bases().iter()).map_err(|error| fail(&error))?;
        let alternates = record.alternate_bases();
        let alternates: Vec<String> = alternates
            .iter()
            .map(|alt| alt.map(str::to_ascii_uppercase))
            .collect::<Result<_, _>>()
            .map_err(|error| fail(&error))?;
        let place = || format!("{name}, record {number}: {contig}:{position}");
        let matches = find(catalogues, &contig, position, &reference, &alternates);
        if matches.is_empty() {
            if let Some(report) = report.as_deref_mut() {
                let flipped = find(catalogues, &contig, position, &complement(&reference), &complement_all(&alternates));
                let kind = if flipped.is_empty() {
                    "records that are in no catalogue, left out"
                } else {
                    "records that would match on the other strand, left out"
                };
                report.note(kind, place);
            }
            continue;
        }
        let mut dosages: Vec<(usize, usize, usize)> = Vec::new();
        for found in matches {
            let seen_here = here.0.get_mut(found.catalogue).and_then(|seen| seen.get_mut(found.variant));
            match seen_here {
                Some(true) => {
                    if let Some(report) = report.as_deref_mut() {
                        report.note("further records of a variant, left out", place);
                    }
                    continue;
                }
                Some(seen) => *seen = true,
                None => continue,
            }
            if let Some(seen) = seen.0.get_mut(found.catalogue).and_then(|seen| seen.get_mut(found.variant)) {
                *seen = true;
            }
            if found.allele == 0
                && let Some(report) = report.as_deref_mut()
            {
                report.note("records with ref and alt the other way round, turned", place);
            }
            dosages.push((found.catalogue, found.variant, found.allele));
        }
        if dosages.is_empty() {
            continue;
        }
        let samples = record.samples().map_err(|error| fail(&error))?;
        let Some(series) = samples.select(&header, "GT").transpose().map_err(|error| fail(&error))? else {
            if let Some(report) = report.as_deref_mut() {
                report.note("records without genotypes (GT), left out", place);
            }
            continue;
        };
        let mut odd = 0_u64;
        for (value, place) in series.iter(&header).zip(&places) {
            let value = value.map_err(|error| fail(&error))?;
            let Some(place) = *place else { continue };
            let alleles = alleles(value).map_err(|error| fail(&error))?;
            if matches!(alleles, Alleles::TooMany) {
                odd = odd.saturating_add(1);
            }
            for &(catalogue, variant, allele) in &dosages {
                genotypes.set(place, catalogue, variant, alleles.dosage(allele));
            }
        }
        if let Some(report) = report.as_deref_mut() {
            report.note_many("genotypes with more than two alleles, taken for missing", odd, place);
        }
    }
    Ok(())
}

/// A catalogue variant that a record has: which of the record's alleles is the catalogue's ALT.
struct Match {
    catalogue: usize,
    variant: usize,
    allele: usize,
}

fn find(catalogues: &[Arc<Catalogue>], contig: &str, position: u64, reference: &str, alternates: &[String]) -> Vec<Match> {
    let mut found = Vec::new();
    for (index, catalogue) in catalogues.iter().enumerate() {
        let other = contig.strip_prefix("chr").map_or_else(|| format!("chr{contig}"), str::to_owned);
        let here = |contig: &str| catalogue.slice(contig, position, position.saturating_add(1));
        let Some(range) = here(contig).or_else(|| here(&other)) else { continue };
        for place in range {
            let Some(variant) = catalogue.variants.get(place) else { continue };
            let straight =
                alternates.iter().position(|alt| *alt == variant.alternate).filter(|_| reference == variant.reference);
            let allele = match straight {
                Some(alt) => alt.saturating_add(1),
                None if reference == variant.alternate && alternates.contains(&variant.reference) => 0,
                None => continue,
            };
            found.push(Match { catalogue: index, variant: place, allele });
        }
    }
    found
}

enum Alleles {
    Missing,
    One(usize),
    Two(usize, usize),
    TooMany,
}

impl Alleles {
    fn dosage(&self, allele: usize) -> u8 {
        match *self {
            Self::Missing | Self::TooMany => 255,
            Self::One(a) => u8::from(a == allele),
            Self::Two(a, b) => u8::from(a == allele) + u8::from(b == allele),
        }
    }
}

fn alleles(value: Option<SeriesValue<'_>>) -> std::io::Result<Alleles> {
    let Some(SeriesValue::Genotype(genotype)) = value else { return Ok(Alleles::Missing) };
    let mut found = Alleles::Missing;
    for (count, allele) in genotype.iter().enumerate() {
        let (Some(allele), _) = allele? else { return Ok(Alleles::Missing) };
        found = match (count, found) {
            (0, _) => Alleles::One(allele),
            (1, Alleles::One(first)) => Alleles::Two(first, allele),
            _ => return Ok(Alleles::TooMany),
        };
    }
    Ok(found)
}

fn bases(bases: impl Iterator<Item = std::io::Result<u8>>) -> std::io::Result<String> {
    bases.map(|base| base.map(|base| char::from(base.to_ascii_uppercase()))).collect()
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

fn complement_all(alternates: &[String]) -> Vec<String> {
    alternates.iter().map(|alt| complement(alt)).collect()
}

/// A file of either format, by its content.
enum Opened {
    Vcf(vcf::io::Reader<Box<dyn BufRead>>, vcf::Header, Box<vcf::Record>),
    Bcf(bcf::io::Reader<Box<dyn Read>>, vcf::Header, Box<bcf::Record>),
}

impl Opened {
    fn new(name: &str, input: impl Read + Send + 'static) -> Result<Self, ConfigError> {
        let fail = |what: &str, error: &dyn std::fmt::Display| ConfigError(format!("{name}: {what}: {error}"));
        let mut input = BufReader::with_capacity(1 << 20, input);
        let gzip = input.fill_buf().map_err(|error| fail("it cannot be read", &error))?.starts_with(&[0x1f, 0x8b]);
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
            return Err(fail("it is neither VCF nor BCF", &"it does not begin with `##fileformat=VCF` or `BCF`"));
        }
        let mut reader = vcf::io::Reader::new(input);
        let header = reader.read_header().map_err(|error| fail("its header cannot be read", &error))?;
        Ok(Self::Vcf(reader, header, Box::default()))
    }

    const fn header(&self) -> &vcf::Header {
        match self {
            Self::Vcf(_, header, _) | Self::Bcf(_, header, _) => header,
        }
    }

    fn next(&mut self) -> std::io::Result<Option<&dyn vcf::variant::Record>> {
        Ok(match self {
            Self::Vcf(reader, _, record) => (reader.read_record(record)? > 0).then_some(&**record as &dyn vcf::variant::Record),
            Self::Bcf(reader, _, record) => (reader.read_record(record)? > 0).then_some(&**record as &dyn vcf::variant::Record),
        })
    }
}
