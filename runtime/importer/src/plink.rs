//! PLINK 1 binary genotypes: `.bed`, with `.bim` (variants) and `.fam` (individuals) beside it.
//!
//! *In*: the three files. *Out*: one variant after the other, and its codes. *Refuses*: by file, and line or variant: what is no such file, one
//! that lists individuals first (`plink --make-bed` writes the usual order), a line of another shape, an individual named twice, files
//! that do not go together. An individual's id is the second column of `.fam`, which must differ from all others'.
//!
//! Source: <https://www.cog-genomics.org/plink/1.9/formats#bed>. Two bits for each genotype, the first of four in the lowest: 0 two of the
//! first allele of `.bim`, 1 missing, 2 one of each, 3 two of the second. Neither allele is said to be the reference's.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};

use crate::codes::{MISSING, MISSING_BYTE};

const MAGIC: [u8; 3] = [0x6c, 0x1b, 0x01];
const INDIVIDUALS_FIRST: [u8; 3] = [0x6c, 0x1b, 0x00];
/// Longest line of `.bim` or `.fam`.
const MAX_LINE: u64 = 1 << 20;

/// A file that can be read elsewhere.
pub(crate) type Input = Box<dyn Read + Send>;

/// An opened set of files.
pub(crate) struct Bed {
    bed: BufReader<Input>,
    bim: BufReader<Input>,
    names: (String, String),
    samples: Vec<String>,
    record: BedRecord,
}

/// One variant.
#[derive(Default)]
pub(crate) struct BedRecord {
    pub(crate) contig: String,
    /// 1-based; 0 where it is nowhere.
    pub(crate) position: u64,
    pub(crate) first: String,
    pub(crate) second: String,
    genotypes: Vec<u8>,
}

/// The name of the file beside a `.bed`.
#[must_use]
pub fn beside(bed: &str, ending: &str) -> String {
    format!("{}.{ending}", bed.strip_suffix(".bed").unwrap_or(bed))
}

/// Whether these are the first bytes of such a file.
pub(crate) fn is_bed(start: &[u8]) -> bool {
    start.starts_with(&MAGIC[..2])
}

fn wrong(why: String) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

impl Bed {
    /// `name`: of the `.bed`. `bim` and `fam`: the files beside it.
    pub(crate) fn open(name: &str, bed: Input, (bim, fam): (Input, Input)) -> Result<Self> {
        let mut bed = BufReader::with_capacity(1 << 20, bed);
        let mut magic = [0; 3];
        bed.read_exact(&mut magic)?;
        match magic {
            MAGIC => {}
            INDIVIDUALS_FIRST => {
                return Err(wrong("it lists individuals first: write it anew with `plink --make-bed`".to_owned()));
            }
            _ => return Err(wrong("it does not begin as a PLINK 1 .bed does".to_owned())),
        }
        let (mut people, bim) = (BufReader::with_capacity(1 << 16, fam), BufReader::with_capacity(1 << 16, bim));
        let (fam, bim_name) = (beside(name, "fam"), beside(name, "bim"));
        let (mut samples, mut known, mut number) = (Vec::new(), HashSet::new(), 0_u64);
        while let Some(line) = line(&mut people, &fam, &mut number)? {
            let id = line.split_whitespace().nth(1);
            let id =
                id.ok_or_else(|| wrong(format!("{fam}, line {number}: there is no second column, the individual's id")))?;
            if !known.insert(id.to_owned()) {
                return Err(wrong(format!("{fam}, line {number}: the individual `{id}` is named twice: ids must differ")));
            }
            samples.push(id.to_owned());
        }
        if samples.is_empty() {
            return Err(wrong(format!("{fam}: it names no individual")));
        }
        let genotypes = vec![0; samples.len().div_ceil(4)];
        let record = BedRecord { genotypes, ..BedRecord::default() };
        Ok(Self { bed, bim, names: (name.to_owned(), bim_name), samples, record })
    }

    pub(crate) fn samples(&self) -> &[String] {
        &self.samples
    }

    /// The next variant, which is line `number` of the `.bim`.
    pub(crate) fn next(&mut self, number: u64) -> Result<Option<&BedRecord>> {
        let Self { bed, bim, names: (name, bim_name), record, .. } = self;
        let mut at = number.saturating_sub(1);
        let Some(text) = line(bim, bim_name, &mut at)? else {
            return match bed.fill_buf()?.is_empty() {
                true => Ok(None),
                false => {
                    Err(wrong(format!("{name} holds more variants than {bim_name} lists, or more individuals than its .fam")))
                }
            };
        };
        let shape =
            || wrong(format!("{bim_name}, line {at}: it has not six columns: contig, name, distance, position, two alleles"));
        let mut columns = text.split_whitespace();
        let mut column = || columns.next().ok_or_else(shape);
        let (contig, _, _, position, first, second) = (column()?, column()?, column()?, column()?, column()?, column()?);
        let position: i64 =
            position.parse().map_err(|_| wrong(format!("{bim_name}, line {at}: `{position}` is no position")))?;
        // The numbers that PLINK gives the other human chromosomes.
        let contig = match contig {
            "23" | "25" | "XY" => "X",
            "24" => "Y",
            "26" => "MT",
            contig => contig,
        };
        contig.clone_into(&mut record.contig);
        record.position = u64::try_from(position).unwrap_or(0);
        record.first = first.to_ascii_uppercase();
        record.second = second.to_ascii_uppercase();
        let short = |error: Error| match error.kind() {
            ErrorKind::UnexpectedEof => wrong(format!("it ends within the genotypes of {bim_name}'s line {at}")),
            _ => error,
        };
        bed.read_exact(&mut record.genotypes).map_err(short)?;
        Ok(Some(record))
    }
}

/// The next line, which is not empty; `number` is counted up.
fn line(input: &mut impl BufRead, file: &str, number: &mut u64) -> Result<Option<String>> {
    let mut text = String::new();
    *number = number.saturating_add(1);
    let read = input.take(MAX_LINE).read_line(&mut text).map_err(|error| wrong(format!("{file}, line {number}: {error}")))?;
    if read == 0 {
        return Ok(None);
    }
    if text.trim().is_empty() {
        return Err(wrong(format!("{file}, line {number}: it is empty")));
    }
    Ok(Some(text))
}

impl BedRecord {
    /// Appends the codes of so many individuals, four to a byte, at its second (0) or first (1) allele, which are taken for the reference's and the
    /// other.
    pub(crate) fn codes(&self, people: usize, allele: u32, out: &mut Vec<u8>) {
        // For each two bits the copies of the allele that counts.
        let copies = if allele == 0 { [0, MISSING, 1, 2] } else { [2, MISSING, 1, 0] };
        let mut table = [0; 256];
        for (byte, codes) in (0_u8..=255).zip(&mut table) {
            let code = |shift: u8| copies.get(usize::from((byte >> shift) & 3)).copied().unwrap_or(MISSING) << shift;
            *codes = code(0) | code(2) | code(4) | code(6);
        }
        out.extend(self.genotypes.iter().map(|byte| table.get(usize::from(*byte)).copied().unwrap_or(MISSING_BYTE)));
        // Behind the last individual the format has zeros.
        if let Some(last) = out.last_mut().filter(|_| !people.is_multiple_of(4)) {
            *last |= MISSING_BYTE << (2 * (people % 4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAM: &str = "f a 0 0 0 -9\nf b 0 0 0 -9\ng\tc 0 0 0 -9\nf d 0 0 0 -9\nf e 0 0 0 -9\n";
    const BIM: &str = "1\trs1\t0\t100\tA\tg\n23 rs2 0.5 200 T C\n1 rs3 0 -5 C T\n";

    fn open(bed: &[u8], bim: &str, fam: &str) -> Result<Bed> {
        let input = |bytes: &[u8]| Box::new(std::io::Cursor::new(bytes.to_vec())) as Input;
        Bed::open("x.bed", input(bed), (input(bim.as_bytes()), input(fam.as_bytes())))
    }

    #[test]
    fn genotypes_are_read_at_either_allele() {
        let bytes = [&MAGIC[..], &[0b1110_0100, 0b11, 0, 0, 0xff, 0b01]].concat();
        let mut bed = open(&bytes, BIM, FAM).unwrap();
        assert_eq!(bed.samples(), ["a", "b", "c", "d", "e"]);
        let mut codes = vec![];
        let record = bed.next(1).unwrap().unwrap();
        assert_eq!(
            (record.contig.as_str(), record.position, record.first.as_str(), record.second.as_str()),
            ("1", 100, "A", "G")
        );
        record.codes(5, 1, &mut codes);
        assert_eq!(codes, [2 | MISSING << 2 | 1 << 4, 0xfc]);
        codes.clear();
        record.codes(5, 0, &mut codes);
        assert_eq!(codes, [MISSING << 2 | 1 << 4 | 2 << 6, 0xfc | 2]);
        assert_eq!(bed.next(2).unwrap().unwrap().contig, "X");
        assert_eq!(bed.next(3).unwrap().unwrap().position, 0);
        assert!(bed.next(4).unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = [&MAGIC[..], &[0; 6]].concat();
        let all = |bed: &[u8], bim: &str, fam: &str| -> Result<()> {
            let mut bed = open(bed, bim, fam)?;
            let mut number = 1;
            while bed.next(number)?.is_some() {
                number += 1;
            }
            Ok(())
        };
        all(&good, BIM, FAM).unwrap();
        let says = |bed: &[u8], bim: &str, fam: &str, want: &str| {
            let text = all(bed, bim, fam).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        };
        says(&good[..8], BIM, FAM, "ends within the genotypes of x.bim's line 3");
        says(&[&good[..], &[0]].concat(), BIM, FAM, "holds more variants than x.bim lists");
        says(&good, "1 rs1 0 100 A\n", FAM, "x.bim, line 1: it has not six columns");
        says(&good, "1 rs1 0 here A C\n", FAM, "x.bim, line 1: `here` is no position");
        says(&good, "\n", FAM, "x.bim, line 1: it is empty");
        says(&good, BIM, "f\n", "x.fam, line 1: there is no second column");
        says(&good, BIM, "f a\ng a\n", "x.fam, line 2: the individual `a` is named twice");
        says(&good, BIM, "", "x.fam: it names no individual");
        says(&[0x6c, 0x1b, 0, 0], BIM, FAM, "lists individuals first");
        says(b"BED", BIM, FAM, "does not begin");
    }
}
