//! A public, ordered list of variants on one reference build. Genotypes are stored, asked for and summed by it.
//!
//! *In*: the bytes of a catalogue file. *Out*: [`Catalogue`], named by the SHA-256 of those bytes: the same digest means the same
//! variants in the same order. *Refuses*: anything out of order, doubled or malformed, with its line.
//!
//! The file is tab-separated text: `#catalogue<TAB>NAME`, `#build<TAB>BUILD`, a header line `contig position ref alt [af]`, then
//! one variant a line, contigs in one piece each, positions ascending (1-based). `af` is the alternate allele's frequency in
//! a public reference panel, or empty. A catalogue is never derived from private data.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::Name;
use crate::words::Label;

/// Most bytes of a catalogue file.
pub const MAX_CATALOGUE_BYTES: u64 = 256 << 20;
/// Most bytes of one allele.
const MAX_ALLELE_BYTES: usize = 1_000;
/// Most bytes of a contig's name.
const MAX_CONTIG_BYTES: usize = 200;

/// A stretch of a catalogue. Half open; positions are 1-based.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantSlice {
    /// The catalogue's name.
    pub catalogue: String,
    /// A contig, in the catalogue's spelling.
    pub contig: String,
    /// First position.
    pub start: u64,
    /// First position after the slice.
    pub end: u64,
}

/// One variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Contig.
    pub contig: String,
    /// Position, 1-based.
    pub position: u64,
    /// Reference allele.
    pub reference: String,
    /// Alternate allele: the one that dosages count.
    pub alternate: String,
    /// Its frequency in the catalogue's public reference panel.
    pub frequency: Option<f64>,
}

/// The list.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalogue {
    /// Its name.
    pub name: Name,
    /// Reference build, such as `GRCh38`.
    pub build: String,
    /// The variants, in order.
    pub variants: Vec<Variant>,
    /// SHA-256 of the file.
    pub digest: Digest,
    contigs: BTreeMap<String, Range<usize>>,
}

/// A catalogue that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("catalogue, line {line}: {why}")]
pub struct CatalogueError {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl CatalogueError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "catalogue-malformed"
    }
}

impl Catalogue {
    /// Reads a catalogue file.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, CatalogueError> {
        let fail = |line: usize, why: &str| Err(CatalogueError { line, why: why.to_owned() });
        let Ok(text) = std::str::from_utf8(bytes) else { return fail(1, "not UTF-8 text") };
        let mut lines = text.lines().enumerate().map(|(index, line)| (index.saturating_add(1), line));
        let mut head = |key: &str| -> Result<String, CatalogueError> {
            let line = lines.next();
            let value = line.and_then(|(_, line)| line.strip_prefix(key)?.strip_prefix('\t').map(str::to_owned));
            let at = line.map_or(1, |(number, _)| number);
            value.ok_or_else(|| CatalogueError { line: at, why: format!("`{key}`, a tab and a value must stand here") })
        };
        let name = head("#catalogue")?.parse().map_err(|error| CatalogueError { line: 1, why: format!("{error}") })?;
        let build =
            head("#build")?.parse::<Label>().map_err(|error| CatalogueError { line: 2, why: format!("{error}") })?.to_string();
        let with_frequency = match lines.next() {
            Some((_, "contig\tposition\tref\talt")) => false,
            Some((_, "contig\tposition\tref\talt\taf")) => true,
            _ => return fail(3, "the header must be `contig position ref alt` or `contig position ref alt af`, with tabs"),
        };
        let mut variants: Vec<Variant> = Vec::new();
        let mut contigs: BTreeMap<String, Range<usize>> = BTreeMap::new();
        for (number, line) in lines {
            let variant = variant(line, with_frequency).map_err(|why| CatalogueError { line: number, why: why.to_owned() })?;
            let index = variants.len();
            if let Some(last) = variants.last().filter(|last| last.contig == variant.contig) {
                let key = |v: &Variant| (v.position, v.reference.clone(), v.alternate.clone());
                if key(last) >= key(&variant) {
                    return fail(number, "variants of a contig must ascend by position, then ref, then alt, without repeats");
                }
            } else if contigs.contains_key(&variant.contig) {
                return fail(number, "a contig's variants must stand in one piece");
            }
            contigs.entry(variant.contig.clone()).or_insert(index..index).end = index.saturating_add(1);
            variants.push(variant);
        }
        if variants.is_empty() {
            return fail(4, "there is no variant");
        }
        Ok(Self { name, build, variants, digest: Digest::of(bytes), contigs })
    }

    /// The places of the variants with `start <= position < end`; `None` where the contig is not in the catalogue.
    #[must_use]
    pub fn slice(&self, contig: &str, start: u64, end: u64) -> Option<Range<usize>> {
        let range = self.contigs.get(contig)?;
        let variants = self.variants.get(range.clone())?;
        let at = |position: u64| range.start.saturating_add(variants.partition_point(|variant| variant.position < position));
        Some(at(start)..at(end.max(start)))
    }

    /// The contigs, in alphabetical order.
    pub fn contigs(&self) -> impl Iterator<Item = &str> {
        self.contigs.keys().map(String::as_str)
    }
}

fn variant(line: &str, with_frequency: bool) -> Result<Variant, &'static str> {
    let mut fields = line.split('\t');
    let mut field = || fields.next().filter(|field| !field.is_empty()).ok_or("a field is missing or empty");
    let contig = contig(field()?)?;
    let position =
        field()?.parse::<u64>().ok().filter(|position| *position > 0).ok_or("the position must be a number from 1")?;
    let reference = allele(field()?)?;
    let alternate = allele(field()?)?;
    if reference == alternate {
        return Err("ref and alt are the same");
    }
    let frequency = match fields.next() {
        None | Some("") => None,
        Some(text) if with_frequency => {
            let frequency = text.parse::<f64>().ok().filter(|frequency| (0.0..=1.0).contains(frequency));
            Some(frequency.ok_or("af must be a number from 0 to 1, or empty")?)
        }
        Some(_) => return Err("there are more fields than the header names"),
    };
    if fields.next().is_some() {
        return Err("there are more fields than the header names");
    }
    Ok(Variant { contig, position, reference, alternate, frequency })
}

fn contig(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= MAX_CONTIG_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(text.to_owned()) } else { Err("a contig's name has at most 200 visible ASCII characters") }
}

fn allele(text: &str) -> Result<String, &'static str> {
    let good = text.len() <= MAX_ALLELE_BYTES && text.bytes().all(|base| matches!(base, b'A' | b'C' | b'G' | b'T' | b'N'));
    if good { Ok(text.to_owned()) } else { Err("an allele is written with A, C, G, T and N, in upper case") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#catalogue\tarray\n#build\tGRCh37\ncontig\tposition\tref\talt\taf\n\
                        20\t100\tA\tC\t0.25\n20\t100\tA\tG\t\n20\t105\tAT\tA\t1\n3\t7\tG\tT\t0\n";

    #[test]
    fn slices_are_half_open() {
        let catalogue = Catalogue::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(catalogue.variants.len(), 4);
        assert_eq!(catalogue.variants[1].frequency, None);
        assert_eq!(catalogue.slice("20", 100, 105), Some(0..2));
        assert_eq!(catalogue.slice("20", 101, 106), Some(2..3));
        assert_eq!(catalogue.slice("20", 0, u64::MAX), Some(0..3));
        assert_eq!(catalogue.slice("20", 200, 100), Some(3..3));
        assert_eq!(catalogue.slice("3", 1, 8), Some(3..4));
        assert_eq!(catalogue.slice("chr20", 1, 8), None);
    }

    #[test]
    fn the_first_bad_line_is_named() {
        let bad = |from: &str, to: &str, line: usize| {
            let error = Catalogue::parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{error}");
        };
        bad("#catalogue\tarray", "array", 1);
        bad("#catalogue\tarray", "#catalogue\t../x", 1);
        bad("#build", "build", 2);
        bad("alt\taf", "alt\tfreq", 3);
        bad("20\t100\tA\tC", "20\t0\tA\tC", 4);
        bad("20\t100\tA\tC", "20\t100\tA\tA", 4);
        bad("20\t100\tA\tC", "20\t100\ta\tC", 4);
        bad("20\t100\tA\tC", "2\u{1b}0\t100\tA\tC", 4);
        bad("GRCh37", "GRCh37\u{1b}", 2);
        bad("0.25", "1.5", 4);
        bad("0.25", "0.25\tx", 4);
        bad("20\t100\tA\tG", "20\t100\tA\tC", 5);
        bad("20\t100\tA\tG", "20\t99\tA\tG", 5);
        bad("20\t105", "3\t105", 7);
        let empty = &GOOD[..GOOD.find("20\t100").unwrap()];
        assert_eq!(Catalogue::parse(empty.as_bytes()).unwrap_err().line, 4);
        assert_eq!(Catalogue::parse(b"\xff").unwrap_err().line, 1);
    }
}
