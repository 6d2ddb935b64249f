//! Genotypes at two bits each: 0, 1 and 2 are dosages, 3 is missing. The first of four sits in the lowest bits of a byte.
//!
//! *In*: dosages 0, 1, 2 or 255. *Out*: packed bytes, and dosages again. A block holds 4,096 variants in 1,024 bytes.

/// Variants of a block.
pub(super) const BLOCK_VARIANTS: usize = 4_096;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = BLOCK_VARIANTS / 4;
/// The code of a missing dosage.
pub(super) const MISSING: u8 = 3;
/// A byte of four missing dosages.
pub(super) const MISSING_BYTE: u8 = 0xff;

/// The four dosages of each byte.
static UNPACK: [[u8; 4]; 256] = {
    let mut table = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut place = 0;
        while place < 4 {
            let bits = (byte >> (2 * place)) & 3;
            #[expect(clippy::indexing_slicing, reason = "byte < 256 and place < 4")]
            {
                #[expect(clippy::cast_possible_truncation, reason = "two bits")]
                let bits = bits as u8;
                table[byte][place] = if bits == 3 { 255 } else { bits };
            }
            place += 1;
        }
        byte += 1;
    }
    table
};

/// The dosage at `place`: 0, 1, 2 or 255.
pub(super) fn get(block: &[u8], place: usize) -> u8 {
    let four = block.get(place / 4).and_then(|&byte| UNPACK.get(usize::from(byte)));
    four.and_then(|four| four.get(place % 4)).copied().unwrap_or(255)
}

/// Appends the dosages at `start..end` of a packed block.
pub(super) fn unpack(block: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
    let (first, last) = (start.div_ceil(4).saturating_mul(4).min(end), end / 4 * 4);
    out.extend((start..first).map(|place| get(block, place)));
    if first < last {
        for &byte in block.get(first / 4..last / 4).unwrap_or_default() {
            out.extend_from_slice(UNPACK.get(usize::from(byte)).unwrap_or(&[255; 4]));
        }
        out.extend((last..end).map(|place| get(block, place)));
    } else {
        out.extend((first..end).map(|place| get(block, place)));
    }
}

/// From rows of variants to rows of individuals: `source` holds one variant each `source_stride` bytes, `target` one
/// individual each `target_stride` bytes, in which the first of these variants goes into the byte at `start`. Whole fours of variants.
pub(super) fn transpose(source: &[u8], source_stride: usize, target: &mut [u8], target_stride: usize, start: usize) {
    let fours: Vec<[&[u8]; 4]> = source
        .chunks_exact(source_stride.saturating_mul(4))
        .filter_map(|four| {
            let mut rows = four.chunks_exact(source_stride);
            Some([rows.next()?, rows.next()?, rows.next()?, rows.next()?])
        })
        .collect();
    for (column, people) in target.chunks_mut(target_stride.saturating_mul(4)).enumerate() {
        for (person, row) in people.chunks_mut(target_stride).enumerate() {
            let shift = 2 * person;
            let row = row.get_mut(start..).unwrap_or_default();
            for (byte, four) in row.iter_mut().zip(&fours) {
                let [a, b, c, d] = four.map(|row| row.get(column).copied().unwrap_or(MISSING_BYTE) >> shift & 3);
                *byte = a | b << 2 | c << 4 | d << 6;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets the dosage at `place` of a packed block.
    fn set(block: &mut [u8], place: usize, dosage: u8) {
        let shift = 2 * (place % 4);
        let byte = &mut block[place / 4];
        *byte = (*byte & !(3 << shift)) | (dosage.min(3) << shift);
    }

    #[test]
    fn transposing_keeps_every_code() {
        for people in [1, 3, 4, 9, 64] {
            let (variants, stride) = (24_usize, 16_usize);
            let code = |variant: usize, person: usize| ((variant * 7 + person * 5 + variant / 3) % 4) as u8;
            let mut source = vec![MISSING_BYTE; variants * stride];
            for variant in 0..variants {
                for person in 0..people {
                    set(&mut source[variant * stride..], person, code(variant, person));
                }
            }
            let mut target = vec![0; people * 9];
            transpose(&source, stride, &mut target, 9, 3);
            for person in 0..people {
                let row = &target[person * 9..][..9];
                assert_eq!(row[..3], [0; 3]);
                for variant in 0..variants {
                    let want = code(variant, person);
                    assert_eq!(get(&row[3..], variant), if want == MISSING { 255 } else { want });
                }
            }
        }
    }

    #[test]
    fn every_stretch_comes_back() {
        let dosage = |place: usize| [0, 1, 2, 255][(place * 7 + place / 5) % 4];
        let mut block = vec![MISSING_BYTE; 16];
        for place in 0..64 {
            set(&mut block, place, dosage(place));
        }
        for start in 0..64 {
            for end in start..=64 {
                let mut out = vec![];
                unpack(&block, start, end, &mut out);
                let want: Vec<u8> = (start..end).map(dosage).collect();
                assert_eq!(out, want, "{start}..{end}");
            }
        }
        set(&mut block, 3, 2);
        set(&mut block, 3, 9);
        assert_eq!(get(&block, 3), 255);
    }
}
