//! Codes of genotypes, two bits each: 0, 1 and 2 copies, 3 missing. The first of four sits in the lowest bits of a byte.
//!
//! *In*: codes, a byte each. *Out*: four to a byte.

/// The code of a missing genotype.
pub const MISSING: u8 = 3;
/// A byte of four missing genotypes.
pub const MISSING_BYTE: u8 = 0xff;

/// Appends codes, four to a byte; what the last byte has no code for is missing.
pub fn pack(codes: &[u8], out: &mut Vec<u8>) {
    let (fours, rest) = codes.as_chunks::<4>();
    out.extend(fours.iter().map(|[a, b, c, d]| a | b << 2 | c << 4 | d << 6));
    if !rest.is_empty() {
        out.push(rest.iter().zip([0, 2, 4]).fold(MISSING_BYTE, |byte, (code, shift)| byte & !(3 << shift) | code << shift));
    }
}
