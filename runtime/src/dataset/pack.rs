//! Genotypes at two bits each: 0, 1 and 2 are dosages, 3 is missing. The first of four sits in the lowest bits of a byte.
//!
//! *In*: dosages 0, 1, 2 or 255. *Out*: packed bytes, and dosages again. A block holds 4,096 variants in 1,024 bytes.

pub(super) use vestibule_importer::MISSING_BYTE;
#[cfg(test)]
pub(super) use vestibule_importer::{MISSING, pack};

/// Variants of a block.
pub(crate) const BLOCK_VARIANTS: usize = 4_096;
/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = BLOCK_VARIANTS / 4;
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

/// Individuals that are turned at once.
pub(super) const STEP: usize = 32;

/// From rows of variants to rows of individuals. `fours`: fours of variants, each a row of bytes of which those in `range` are turned, or missing for
/// everybody. `target`: for each of four individuals of each of those bytes, a byte for each four.
pub(super) fn transpose(fours: &[[Option<&[u8]>; 4]], range: std::ops::Range<usize>, target: &mut [u8]) {
    let width = fours.len();
    for (people, start) in target.chunks_mut(STEP.saturating_mul(width).max(1)).zip(range.step_by(STEP / 4)) {
        for (place, four) in fours.iter().enumerate() {
            let rows = four.map(|row| row.map_or(u64::MAX, |row| eight(row, start)));
            let turned = turn(rows).map(u64::to_le_bytes);
            for (byte, rows) in people.chunks_mut(width.saturating_mul(4)).enumerate() {
                for (row, bytes) in rows.chunks_exact_mut(width).zip(&turned) {
                    if let (Some(to), Some(from)) = (row.get_mut(place), bytes.get(byte)) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

/// The eight bytes from `start`, or as many as there are.
fn eight(row: &[u8], start: usize) -> u64 {
    let rest = row.get(start..).unwrap_or_default();
    if let Some(eight) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*eight);
    }
    let mut eight = [MISSING_BYTE; 8];
    eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(eight)
}

/// Turns each four-by-four square of codes: four rows of bytes, of which each holds the codes of four individuals.
const fn turn([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    const ONES: u64 = 0x3333_3333_3333_3333;
    const TWOS: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    let swap = ((a >> 2) ^ b) & ONES;
    (a, b) = (a ^ swap << 2, b ^ swap);
    let swap = ((c >> 2) ^ d) & ONES;
    (c, d) = (c ^ swap << 2, d ^ swap);
    let swap = ((a >> 4) ^ c) & TWOS;
    (a, c) = (a ^ swap << 4, c ^ swap);
    let swap = ((b >> 4) ^ d) & TWOS;
    (b, d) = (b ^ swap << 4, d ^ swap);
    [a, b, c, d]
}

/// Puts new codes where none is known. Returns how many are known otherwise, and the place of the first of them.
pub(super) fn merge(known: &mut [u8], new: &[u8]) -> (u64, Option<usize>) {
    let (mut count, mut first) = (0_u64, None);
    let mut at = 0_usize;
    let (eights, rest) = known.as_chunks_mut::<8>();
    let (new_eights, new_rest) = new.as_chunks::<8>();
    let mut one = |known: u64, new: u64| {
        let (merged, differ) = merged(known, new);
        if differ != 0 {
            count = count.saturating_add(u64::from(differ.count_ones()));
            first = first.or(Some(at.saturating_add(differ.trailing_zeros() as usize / 2)));
        }
        at = at.saturating_add(32);
        merged
    };
    for (known, new) in eights.iter_mut().zip(new_eights) {
        *known = one(u64::from_le_bytes(*known), u64::from_le_bytes(*new)).to_le_bytes();
    }
    if !rest.is_empty() {
        let merged = one(eight(rest, 0), eight(new_rest, 0)).to_le_bytes();
        rest.iter_mut().zip(merged).for_each(|(to, from)| *to = from);
    }
    (count, first)
}

/// The codes together, and a bit for each that differs.
const fn merged(known: u64, new: u64) -> (u64, u64) {
    const LOW: u64 = 0x5555_5555_5555_5555;
    let missing = known & known >> 1 & LOW;
    let unknown = new & new >> 1 & LOW;
    let mask = missing | missing << 1;
    let differ = known ^ new;
    ((known & !mask) | (new & mask), (differ | differ >> 1) & LOW & !missing & !unknown)
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
        for people in [1, 3, 4, 9, 32, 64, 131] {
            let (variants, stride) = (24_usize, usize::div_ceil(people, 4));
            let code = |variant: usize, person: usize| ((variant * 7 + person * 5 + variant / 3) % 4) as u8;
            let source: Vec<Vec<u8>> = (0..variants)
                .map(|variant| {
                    let mut row = vec![];
                    pack(&(0..people).map(|person| code(variant, person)).collect::<Vec<_>>(), &mut row);
                    row
                })
                .collect();
            // One variant is not there.
            let row = |variant: usize| (variant != 5).then_some(source[variant].as_slice());
            let fours: Vec<_> = (0..variants / 4).map(|four| [0, 1, 2, 3].map(|place| row(4 * four + place))).collect();
            let mut target = vec![0; stride * 4 * 6];
            transpose(&fours, 0..stride, &mut target);
            for person in 0..people {
                for variant in 0..variants {
                    let want = if variant == 5 { MISSING } else { code(variant, person) };
                    let found = get(&target[person * 6..][..6], variant);
                    assert_eq!(found, if want == MISSING { 255 } else { want }, "{people} {person} {variant}");
                }
            }
        }
    }

    #[test]
    fn what_is_known_holds_and_what_differs_is_counted() {
        for length in [1, 7, 8, 9, 40] {
            let mut known: Vec<u8> = (0..length).map(|n| (n * 37 + 11) as u8).collect();
            let new: Vec<u8> = (0..length).map(|n| (n * 91 + 200) as u8).collect();
            let (before, mut count, mut first) = (known.clone(), 0, None);
            for place in 0..length * 4 {
                let (a, b) = (get(&before, place), get(&new, place));
                if a != 255 && b != 255 && a != b {
                    count += 1;
                    first = first.or(Some(place));
                }
            }
            assert_eq!(merge(&mut known, &new), (count, first));
            for place in 0..length * 4 {
                let (a, b) = (get(&before, place), get(&new, place));
                assert_eq!(get(&known, place), if a == 255 { b } else { a });
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
