//! A record of any format: what it is about, and its samples' codes.
//!
//! *In*: a record as noodles reads it, or a `.bed`'s. *Out*: its [`Site`]; two-bit codes at one allele. *Refuses*: genotypes that are none, another number of samples than the header's.

use noodles_bcf as bcf;
use noodles_vcf as vcf;
use noodles_vcf::variant::record::Samples as _;
use noodles_vcf::variant::record::samples::series::Value;

use super::site::Site;
use crate::codes::{self, MISSING};
use crate::genotypes::{self, Field, Malformed};
use crate::plink::BedRecord;

/// A record of either format.
pub(super) enum Record<'a> {
    Vcf(&'a vcf::Record),
    Bcf(&'a bcf::Record),
    Bed(&'a BedRecord),
}

impl Record<'_> {
    /// `None` for a record at no base.
    pub(super) fn site(&self, header: &vcf::Header) -> std::io::Result<Option<Site>> {
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
    pub(super) fn reference_codes(
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
    pub(super) fn codes(
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
    pub(super) fn odd(&self, header: &vcf::Header, people: usize, scratch: &mut Vec<u8>) -> Result<Option<u64>, Malformed> {
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
