//! A variant file, opened: by its content VCF, BCF or PLINK's `.bed`, plain or bgzipped.
//!
//! *In*: a file. *Out*: whose genotypes it has; its records, one after the other. *Refuses*: what is none of these, a header or a record that says more of its length, or of its
//! names, than is there.

use std::io::{BufRead, BufReader, Cursor, Error, ErrorKind, Read};

use noodles_bcf as bcf;
use noodles_bgzf as bgzf;
use noodles_vcf as vcf;

use super::record::Record;
use crate::config::ConfigError;
use crate::plink::{Bed, Input, is_bed};

/// A file of either format, by its content.
pub(crate) enum Opened {
    Vcf(vcf::io::Reader<Box<dyn BufRead>>, vcf::Header, Box<vcf::Record>),
    /// Its records, the header, a record and its bytes.
    Bcf(Box<dyn BufRead>, vcf::Header, Box<(bcf::Record, Vec<u8>)>),
    Bed(Box<Bed>),
}

impl Opened {
    pub(super) fn new(name: &str, input: Input, beside: impl FnOnce() -> (Input, Input)) -> Result<Self, ConfigError> {
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
            let head = bcf_head(&mut input).map_err(|error| fail("its header cannot be read", &error))?;
            let header = bcf::io::Reader::from(head.as_slice()).read_header();
            let header = header.map_err(|error| fail("its header cannot be read", &error))?;
            return Ok(Self::Bcf(input, header, Box::default()));
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
    pub(super) fn header(&self) -> vcf::Header {
        match self {
            Self::Vcf(_, header, _) | Self::Bcf(_, header, _) => header.clone(),
            Self::Bed(_) => vcf::Header::default(),
        }
    }

    /// The next record, which is the file's record `number`.
    pub(super) fn next(&mut self, number: u64) -> std::io::Result<Option<Record<'_>>> {
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

/// Reads the head of a BCF file: nine bytes, of which the last four say how long its header is, and that header. noodles 0.94 makes room for as many names
/// as a line numbers (`IDX`), before it has seen them.
fn bcf_head(input: &mut dyn BufRead) -> std::io::Result<Vec<u8>> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidData, why);
    let mut head = Vec::new();
    (&mut *input).take(BCF_HEAD).read_to_end(&mut head)?;
    let length = head.last_chunk().filter(|_| head.len() as u64 == BCF_HEAD).map(|length| u32::from_le_bytes(*length));
    let length = u64::from(length.ok_or(ErrorKind::UnexpectedEof)?);
    if length > MAX_HEADER_LINE {
        return Err(wrong(format!("it says that it has {length} bytes, and {MAX_HEADER_LINE} are the most")));
    }
    let text = usize::try_from(BCF_HEAD).unwrap_or_default();
    if input.take(length).read_to_end(&mut head)? as u64 != length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    for (line, number) in head.get(text..).unwrap_or_default().split(|byte| *byte == b'\n').zip(1_u64..) {
        if let Some(index) = largest_index(line).filter(|index| *index > MAX_INDEX) {
            return Err(wrong(format!("line {number}: its `IDX` is {index}, and {MAX_INDEX} is the most")));
        }
    }
    Ok(head)
}

/// Magic, version, length of the header.
const BCF_HEAD: u64 = 9;
/// Names of a BCF file: contigs, and what filters and fields are called.
const MAX_INDEX: u64 = (1 << 22) - 1;

/// The largest number behind an `IDX=` of a line, wherever it stands, and whatever else stands with it.
fn largest_index(line: &[u8]) -> Option<u64> {
    let starts =
        line.windows(KEY.len()).enumerate().filter(|(_, window)| *window == KEY).map(|(at, _)| at.saturating_add(KEY.len()));
    let number = |start: usize| {
        let value = line.get(start..)?.split(|byte| b",>".contains(byte)).next()?;
        let digits = value.iter().filter(|byte| byte.is_ascii_digit()).map(|digit| u64::from(digit & 15));
        digits.fold(None, |number: Option<u64>, digit| Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit)))
    };
    starts.filter_map(number).max()
}

const KEY: &[u8] = b"IDX=";

/// Reads a BCF record's bytes, its two lengths before it. `false` at the end. noodles 0.94 makes room for whatever a record says of its length, up to
/// 8 GiB, before a byte of it is there.
fn whole_record(input: &mut dyn Read, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
    bytes.clear();
    (&mut *input).take(8).read_to_end(bytes)?;
    let cut = || Error::from(ErrorKind::UnexpectedEof);
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
    let wrong = |why: &str| Err(Error::new(ErrorKind::InvalidData, why));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> Result<Opened, ConfigError> {
        let mut file = b"BCF\x02\x02".to_vec();
        file.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        file.extend(text.as_bytes());
        Opened::new("a.bcf", Box::new(Cursor::new(file)), || unreachable!("a .bed"))
    }

    #[test]
    fn a_bcf_header_that_numbers_names_beyond_all_that_there_are_is_refused_by_its_line() {
        let text = |index: &str| {
            format!(
                "##fileformat=VCFv4.2\n##FILTER=<ID=PASS,Description=\"p\",IDX=0>\n##contig=<ID=1,IDX={index}>\n\
                 #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tA\n\0"
            )
        };
        assert_eq!(open(&text("0")).unwrap().samples(), ["A"]);
        assert_eq!(open(&text(&MAX_INDEX.to_string())).unwrap().samples(), ["A"]);
        for index in ["4194304", "555555155", "99999999999999999999999", "\"4194304\"", "+4194304", "0,IDX=4194304"] {
            let error = open(&text(index)).err().unwrap().0;
            assert!(error.contains("a.bcf") && error.contains("line 3: its `IDX` is "), "{index}: {error}");
        }
    }

    #[test]
    fn a_bcf_header_that_says_too_much_of_its_length_is_refused() {
        for (length, says) in [(u32::MAX, "are the most"), (100, "unexpected end")] {
            let file = [b"BCF\x02\x02".as_slice(), &length.to_le_bytes(), b"##fileformat=VCFv4.2\n"].concat();
            let error = Opened::new("a.bcf", Box::new(Cursor::new(file)), || unreachable!("a .bed")).err().unwrap().0;
            assert!(error.contains(says), "{error}");
        }
    }
}
