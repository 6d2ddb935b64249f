//! Genotypes at two bits each: 0, 1 and 2 are dosages, 3 is missing. The first of four sits in the lowest bits of a byte.
//!
//! *In*: dosages 0, 1, 2 or 255. *Out*: packed bytes, and dosages again. A block holds 4,096 variants in 1,024 bytes.

/// Variants of a block.
pub(super) const BLOCK_VARIANTS: usize = 4_096;
/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = BLOCK_VARIANTS / 4;
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

/// Sets the dosage at `place` of a packed block; anything but 0, 1 and 2 is missing. Places beyond the block are ignored.
pub(super) fn set(block: &mut [u8], place: usize, dosage: u8) {
    let Some(byte) = block.get_mut(place / 4) else { return };
    let shift = 2 * (place % 4);
    *byte = (*byte & !(3 << shift)) | (dosage.min(3) << shift);
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_comes_back() {
        let dosage = |place: usize| [0, 1, 2, 255][(place * 7 + place / 5) % 4];
        let mut block = vec![MISSING_BYTE; 16];
        for place in 0..64 {
            set(&mut block, place, dosage(place));
        }
        set(&mut block, 64, 1);
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
