//! One record's genotypes at one allele: from the bytes that noodles hands out to two-bit codes.
//!
//! *In*: the FORMAT part of a BCF or VCF record, how many samples the header names, which allele counts. *Out*: one code for
//! each sample: 0, 1, 2 of that allele, or 3 where it is missing. *Refuses*: fields that run past the record, another number of
//! samples than the header's, text that is no genotype. A genotype with any allele missing is missing; a haploid call
//! counts its one allele; more than two alleles are missing and counted.
//!
//! noodles reads everything else of a record. This field is nearly all of a file, and noodles 0.94 decodes it behind two
//! dynamic iterators (80 ns a genotype, measured) and stops the process at genotypes of 16 bits.
//! Sources: VCF 4.4 section 1.6.2 (`GT`), section 6.3.3 (typed values and genotypes in BCF 2.2).

use crate::codes::MISSING;

/// Genotypes that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// The alleles of one sample, while they are read.
#[derive(Clone, Copy)]
struct Call {
    alleles: u8,
    copies: u8,
    missing: bool,
}

impl Call {
    const NONE: Self = Self { alleles: 0, copies: 0, missing: false };

    fn add(&mut self, allele: Option<u32>, counted: u32) {
        self.alleles = self.alleles.saturating_add(1);
        match allele {
            None => self.missing = true,
            Some(allele) => self.copies = self.copies.saturating_add(u8::from(allele == counted)),
        }
    }

    /// The code, and whether there were too many alleles.
    const fn code(self) -> (u8, bool) {
        match self {
            Self { missing: true, .. } | Self { alleles: 0, .. } => (MISSING, false),
            Self { alleles: 1 | 2, copies, .. } => (copies, false),
            Self { .. } => (MISSING, true),
        }
    }
}

/// Appends the codes of a VCF record's samples. `field` is the place of `GT` in FORMAT. Returns how many had too many alleles.
pub(crate) fn vcf<'a>(
    samples: impl Iterator<Item = &'a str>,
    field: usize,
    people: usize,
    counted: u32,
    codes: &mut Vec<u8>,
) -> Result<u64, Malformed> {
    codes.clear();
    let mut odd = 0_u64;
    for sample in samples {
        let text = match field {
            0 => sample.split_once(':').map_or(sample, |(first, _)| first),
            _ => sample.split(':').nth(field).unwrap_or("."),
        };
        let code = match (text.as_bytes(), counted) {
            // Nearly all of them.
            (&[a @ b'0'..=b'9', b'/' | b'|', b @ b'0'..=b'9'], ..=9) => {
                u8::from(u32::from(a & 15) == counted) + u8::from(u32::from(b & 15) == counted)
            }
            _ => {
                let (code, too_many) = text_call(text, counted)?.code();
                odd = odd.saturating_add(u64::from(too_many));
                code
            }
        };
        codes.push(code);
    }
    if codes.len() == people { Ok(odd) } else { Err(Malformed("it has another number of samples than the header")) }
}

fn text_call(text: &str, counted: u32) -> Result<Call, Malformed> {
    let mut call = Call::NONE;
    // VCF 4.4 lets a phasing sign stand before the first allele too.
    for allele in text.strip_prefix(['/', '|']).unwrap_or(text).split(['/', '|']) {
        let allele = match allele {
            "." => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| Malformed("a genotype (GT) is not one"))?)
            }
            _ => return Err(Malformed("a genotype (GT) is not one")),
        };
        call.add(allele, counted);
    }
    Ok(call)
}

/// The genotypes of a BCF record's samples.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Bytes of a value.
    width: usize,
    /// Values of a sample.
    length: usize,
    values: &'a [u8],
}

impl<'a> Field<'a> {
    /// Finds them. `key` is the place of `GT` in the header's dictionary of strings. `None` where the record has no `GT`.
    pub(crate) fn find(mut source: &'a [u8], key: usize, people: usize) -> Result<Option<Self>, Malformed> {
        while !source.is_empty() {
            let found = integer(&mut source)?;
            let (width, length) = descriptor(&mut source)?;
            let bytes = people.checked_mul(length).and_then(|values| values.checked_mul(width)).ok_or(CUT)?;
            let (values, rest) = source.split_at_checked(bytes).ok_or(CUT)?;
            source = rest;
            if found == key {
                return Ok(Some(Self { width, length, values }));
            }
        }
        Ok(None)
    }

    /// Two alleles of one byte each for everybody, which nearly all are.
    pub(crate) fn pairs(&self) -> Option<&'a [u8]> {
        (self.width == 1 && self.length == 2).then_some(self.values)
    }

    /// The codes, as [`vcf`] gives them. Returns how many had too many alleles.
    pub(crate) fn codes(&self, people: usize, counted: u32, codes: &mut Vec<u8>) -> u64 {
        codes.clear();
        let samples = |width: usize| self.values.chunks_exact(self.length.saturating_mul(width).max(1));
        match (self.width, self.length) {
            (_, 0) | (0, _) => {
                codes.resize(people, MISSING);
                0
            }
            (1, _) => long(samples(1), counted, codes, |sample| sample.iter().map(|&byte| narrow(byte))),
            (2, _) => {
                let value = |two: &[u8]| {
                    two.try_into().map_or(Typed::Missing, |two| wide(i16::from_le_bytes(two).into(), i16::MIN.into()))
                };
                long(samples(2), counted, codes, |sample| sample.chunks_exact(2).map(value))
            }
            _ => {
                let value =
                    |four: &[u8]| four.try_into().map_or(Typed::Missing, |four| wide(i32::from_le_bytes(four), i32::MIN));
                long(samples(4), counted, codes, |sample| sample.chunks_exact(4).map(value))
            }
        }
    }
}

const CUT: Malformed = Malformed("a FORMAT field runs past the record's end");

fn take<'a>(source: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = source.split_at_checked(bytes).ok_or(CUT)?;
    *source = rest;
    Ok(taken)
}

/// Bytes of one value, and how many values.
fn descriptor(source: &mut &[u8]) -> Result<(usize, usize), Malformed> {
    let &[byte] = take(source, 1)? else { return Err(CUT) };
    let width = match byte & 15 {
        0 => 0,
        1 | 7 => 1,
        2 => 2,
        3 | 5 => 4,
        _ => return Err(Malformed("a FORMAT field is of no type that BCF 2.2 has")),
    };
    let length = match byte >> 4 {
        15 => integer(source)?,
        length => usize::from(length),
    };
    Ok((width, length))
}

/// One typed integer.
fn integer(source: &mut &[u8]) -> Result<usize, Malformed> {
    let &[byte] = take(source, 1)? else { return Err(CUT) };
    let value = match byte {
        0x11 => take(source, 1)?.first().map(|&byte| i64::from(byte.cast_signed())),
        0x12 => take(source, 2)?.try_into().ok().map(|bytes| i64::from(i16::from_le_bytes(bytes))),
        0x13 => take(source, 4)?.try_into().ok().map(|bytes| i64::from(i32::from_le_bytes(bytes))),
        _ => None,
    };
    value.and_then(|value| usize::try_from(value).ok()).ok_or(Malformed("a FORMAT field has no key or length"))
}

enum Typed {
    Allele(u32),
    Missing,
    End,
}

const fn narrow(byte: u8) -> Typed {
    match byte {
        0x81 => Typed::End,
        0 | 1 | 0x80 => Typed::Missing,
        byte => Typed::Allele((byte >> 1) as u32 - 1),
    }
}

fn wide(value: i32, missing: i32) -> Typed {
    if value == missing.saturating_add(1) {
        return Typed::End;
    }
    u32::try_from(value >> 1).ok().and_then(|allele| allele.checked_sub(1)).map_or(Typed::Missing, Typed::Allele)
}

fn long<'a, V: Iterator<Item = Typed>>(
    samples: impl Iterator<Item = &'a [u8]>,
    counted: u32,
    codes: &mut Vec<u8>,
    values: impl Fn(&'a [u8]) -> V,
) -> u64 {
    let mut odd = 0_u64;
    codes.extend(samples.map(|sample| {
        let mut call = Call::NONE;
        for value in values(sample) {
            match value {
                Typed::End => break,
                Typed::Missing => call.add(None, counted),
                Typed::Allele(allele) => call.add(Some(allele), counted),
            }
        }
        let (code, too_many) = call.code();
        odd = odd.saturating_add(u64::from(too_many));
        code
    }));
    odd
}

/// What a byte is: another allele, the counted one, the end of a shorter list, missing.
const OTHER: u8 = 0;
const COUNTED: u8 = 1;
const END: u8 = 2;
const NO: u8 = 3;

/// Appends the codes of samples of two alleles of one byte each, four codes to a byte.
pub(crate) fn pack_pairs(values: &[u8], counted: u32, out: &mut Vec<u8>) {
    // First allele in steps of four, second in steps of one.
    #[rustfmt::skip]
    const CODE: [u8; 16] = [
        0, 1, 0, MISSING,
        1, 2, 1, MISSING,
        MISSING, MISSING, MISSING, MISSING,
        MISSING, MISSING, MISSING, MISSING,
    ];
    let mut meaning = [NO; 256];
    for (byte, meaning) in (0_u8..=255).zip(&mut meaning) {
        *meaning = match narrow(byte) {
            Typed::End => END,
            Typed::Missing => NO,
            Typed::Allele(allele) if allele == counted => COUNTED,
            Typed::Allele(_) => OTHER,
        };
    }
    let of = |byte: u8| meaning.get(usize::from(byte)).copied().unwrap_or(NO);
    let code = |a: u8, b: u8| CODE.get(usize::from(of(a) << 2 | of(b))).copied().unwrap_or(MISSING);
    let one = |four: &[u8; 8]| {
        let [a, b, c, d, e, f, g, h] = *four;
        code(a, b) | code(c, d) << 2 | code(e, f) << 4 | code(g, h) << 6
    };
    let (many, _) = values.as_chunks::<{ 8 * WIDE }>();
    out.reserve(values.len().div_ceil(8));
    for wide in many {
        let (fours, _) = wide.as_chunks::<8>();
        // Nearly all of them: alleles 0 and 1 only, of which one is counted.
        let (bytes, usual) = two_alleles(wide, counted);
        if usual { out.extend_from_slice(&bytes) } else { out.extend(fours.iter().map(one)) }
    }
    let (fours, rest) = values.get(many.len().saturating_mul(8 * WIDE)..).unwrap_or_default().as_chunks::<8>();
    out.extend(fours.iter().map(one));
    if !rest.is_empty() {
        let (pairs, _) = rest.as_chunks::<2>();
        let last =
            pairs.iter().zip([0, 2, 4, 6]).fold(0xff_u8, |byte, (&[a, b], shift)| byte & !(3 << shift) | code(a, b) << shift);
        out.push(last);
    }
}

/// Fours of samples that are looked at together, without a branch.
const WIDE: usize = 8;

/// The codes of so many fours of samples, and whether they are right: whether all alleles are 0 or 1.
fn two_alleles(wide: &[u8; 8 * WIDE], counted: u32) -> ([u8; WIDE], bool) {
    const LOW: u64 = 0x0101_0101_0101_0101;
    // Without the phase allele 0 is 1, and allele 1 is 2: a copy of the counted one is a bit, here moved to the lowest.
    let shift = match counted {
        0 => 1,
        1 => 2,
        _ => return ([0; WIDE], false),
    };
    let (mut bytes, mut wrong) = ([0; WIDE], 0);
    let (fours, _) = wide.as_chunks::<8>();
    for (byte, four) in bytes.iter_mut().zip(fours) {
        let eight = u64::from_le_bytes(*four);
        let alleles = eight >> 1 & (LOW * 0x7f);
        wrong |= alleles & (LOW * 0xfc) | ((alleles ^ alleles >> 1) & LOW ^ LOW);
        let copies = eight >> shift & LOW;
        let sums = copies.wrapping_add(copies >> 8) & 0x0003_0003_0003_0003;
        *byte = (sums | sums >> 14 | sums >> 28 | sums >> 42).to_le_bytes()[0];
    }
    (bytes, wrong == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(samples: &[&str], counted: u32) -> Result<(Vec<u8>, u64), Malformed> {
        let mut codes = vec![9];
        vcf(samples.iter().copied(), 0, samples.len(), counted, &mut codes).map(|odd| (codes, odd))
    }

    #[test]
    fn text_of_every_kind_is_counted() {
        let samples = ["0/0", "0|1", "1/1:7", "./.", "./1", "1", "0", ".", "0/1/1", "|1|1", "/0/1", "10/1", "2/1"];
        assert_eq!(text(&samples, 1), Ok((vec![0, 1, 2, 3, 3, 1, 0, 3, 3, 2, 1, 1, 1], 1)));
        assert_eq!(text(&["10/1", "10|10", "1/0"], 10), Ok((vec![1, 2, 0], 0)));
        assert_eq!(text(&["0/1"], 0), Ok((vec![1], 0)));
        for bad in ["0/z", "", "0//1", "+1/0", "0/1/", "99999999999/0"] {
            assert!(text(&[bad], 1).is_err(), "{bad}");
        }
        let mut codes = vec![];
        assert!(vcf(["0/1"].into_iter(), 0, 2, 1, &mut codes).is_err());
        assert!(vcf(["0/1", "0/0"].into_iter(), 0, 1, 1, &mut codes).is_err());
        assert_eq!(vcf(["7:0/1", "8", "3:1/1:2"].into_iter(), 1, 3, 1, &mut codes), Ok(0));
        assert_eq!(codes, [1, 3, 2]);
    }

    /// A record with a field before `GT`, whose values have the given width.
    fn record(width: u8, samples: &[[i32; 3]]) -> Vec<u8> {
        let mut bytes = vec![0x11, 4, 0x11];
        bytes.extend(samples.iter().map(|_| 7));
        bytes.extend([0x12, 5, 0, 0x30 | width]);
        for value in samples.iter().flatten() {
            match width {
                1 => bytes.extend(i8::try_from(*value).unwrap_or(i8::MIN + 1).to_le_bytes()),
                2 => bytes.extend(i16::try_from(*value).unwrap_or(i16::MIN + 1).to_le_bytes()),
                _ => bytes.extend(if *value == i32::MAX { i32::MIN + 1 } else { *value }.to_le_bytes()),
            }
        }
        bytes
    }

    fn bcf(bytes: &[u8], key: usize, people: usize, counted: u32, codes: &mut Vec<u8>) -> Result<Option<u64>, Malformed> {
        Ok(Field::find(bytes, key, people)?.map(|field| field.codes(people, counted, codes)))
    }

    #[test]
    fn binary_of_every_width_is_counted() {
        const END: i32 = i32::MAX;
        let samples =
            [[2, 2, END], [2, 5, END], [4, 5, END], [0, 0, END], [0, 4, END], [4, END, END], [4, 4, 4], [6, 4, END], [END; 3]];
        for width in [1, 2, 3] {
            let mut codes = vec![9];
            let odd = bcf(&record(width, &samples), 5, samples.len(), 1, &mut codes);
            assert_eq!((odd, codes.as_slice()), (Ok(Some(1)), [0, 1, 2, 3, 3, 1, 3, 1, 3].as_slice()), "width {width}");
        }
        let mut codes = vec![];
        assert_eq!(bcf(&record(1, &samples), 6, samples.len(), 1, &mut codes), Ok(None));
        // Alleles above 62 need 16 bits.
        assert_eq!(bcf(&record(2, &[[400, 2, END]]), 5, 1, 199, &mut codes), Ok(Some(0)));
        assert_eq!(codes, [1]);
    }

    #[test]
    fn pairs_agree_with_the_general_way() {
        let mut bytes: Vec<u8> = (0..=255_u8).flat_map(|a| (0..=255_u8).flat_map(move |b| [a, b])).collect();
        // Fours of which all have two alleles, or all but one.
        let usual: Vec<u8> =
            (0..4_096_u32).flat_map(|n| (0..6).map(move |at| [2, 3, 4, 5][(n >> (2 * at) & 3) as usize])).collect();
        bytes.extend(&usual);
        bytes.extend(usual.chunks(8).zip((0..=255).cycle()).flat_map(|(eight, odd)| [&eight[..7], &[odd]].concat()));
        for counted in [0, 1, 62] {
            for length in [bytes.len(), bytes.len() - 2, bytes.len() - 4, bytes.len() - 6, 0] {
                let (mut fast, mut general, mut packed) = (vec![], vec![], vec![]);
                pack_pairs(&bytes[..length], counted, &mut fast);
                long(bytes[..length].chunks_exact(2), counted, &mut general, |sample| sample.iter().map(|&byte| narrow(byte)));
                crate::codes::pack(&general, &mut packed);
                assert!(fast == packed, "allele {counted}");
            }
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = record(2, &[[2, 4, 4], [2, 2, i32::MAX]]);
        let mut codes = vec![];
        assert!(bcf(&whole, 5, 2, 1, &mut codes).is_ok());
        for length in 1..whole.len() {
            let cut = bcf(whole.get(..length).unwrap(), 5, 2, 1, &mut codes);
            // The whole first field alone is a record without GT.
            assert!(cut.is_err() || (length == 5 && cut == Ok(None)), "{length}: {cut:?}");
        }
        for byte in 0..=255 {
            let _ = bcf(&[0x11, 5, byte, 1, 2, 3, 4], 5, 2, 1, &mut codes);
            let _ = bcf(&[byte, 5, 0x21, 1, 2, 3, 4], 5, 2, 1, &mut codes);
        }
    }
}
