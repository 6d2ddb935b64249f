//! What a record is about, and which catalogue variants that is.
//!
//! *In*: a record's contig, position and alleles. *Out*: [`Match`]es. Contigs match with and without `chr`; REF and ALT also the other way round; the other strand
//! is not guessed at.

use std::sync::Arc;

use noodles_vcf as vcf;
use noodles_vcf::variant::record::AlternateBases as _;
use vestibule_protocol::catalogue::Catalogue;

/// What a record is about.
pub(super) struct Site {
    pub(super) contig: String,
    pub(super) position: u64,
    pub(super) reference: String,
    pub(super) alternates: Vec<String>,
    /// The last position of a block that is like the reference.
    pub(super) block: Option<u64>,
}

impl Site {
    /// `None` for a record at no base (position 0, the telomere).
    pub(super) fn of(record: &dyn vcf::variant::Record, header: &vcf::Header) -> std::io::Result<Option<Self>> {
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

    pub(super) fn other_strand(&self) -> Self {
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
pub(super) struct Match {
    pub(super) variant: (u32, u32),
    pub(super) allele: u32,
}

/// Catalogues and their variants are fewer than 2^32.
fn numbers(catalogue: usize, variant: usize) -> (u32, u32) {
    (u32::try_from(catalogue).unwrap_or(u32::MAX), u32::try_from(variant).unwrap_or(u32::MAX))
}

pub(super) fn find(catalogues: &[Arc<Catalogue>], site: &Site) -> Vec<Match> {
    let mut found = Vec::new();
    let contig = site.contig.as_str();
    for (index, catalogue) in catalogues.iter().enumerate() {
        let here = |contig: &str| catalogue.slice(contig, site.position, site.position.saturating_add(1));
        let Some(range) = here(contig).or_else(|| here(&other(contig))) else { continue };
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
pub(super) fn within(catalogues: &[Arc<Catalogue>], site: &Site, end: u64) -> Vec<Match> {
    let mut found = Vec::new();
    let contig = site.contig.as_str();
    for (index, catalogue) in catalogues.iter().enumerate() {
        let here = |contig: &str| catalogue.slice(contig, site.position, end.saturating_add(1));
        let Some(range) = here(contig).or_else(|| here(&other(contig))) else { continue };
        // Where the block begins it says what the reference is.
        let same = |variant: &vestibule_protocol::catalogue::Variant| {
            variant.position > site.position || variant.reference.chars().next() == site.reference.chars().next()
        };
        let range = range.filter(|place| catalogue.variants.get(*place).is_some_and(same));
        found.extend(range.map(|variant| Match { variant: numbers(index, variant), allele: 0 }));
    }
    found
}

/// How a contig may be called too.
fn other(contig: &str) -> String {
    contig.strip_prefix("chr").map_or_else(|| format!("chr{contig}"), str::to_owned)
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
