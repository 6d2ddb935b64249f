//! What goes in by variant comes out by individual, whatever the memory, the order, and where it was killed.

use super::super::pack::MISSING;
use super::*;
use crate::dataset::StoreKey;

fn tiles(file: &File, individuals: usize, memory: usize, places: &Places) -> Tiles {
    let key = StoreKey::from_bytes([7; 32]).scratch("v1").unwrap();
    Tiles::new(file.try_clone().unwrap(), key, individuals, memory, places)
}

fn code(variant: usize, sample: usize) -> u8 {
    ((variant * 31 + sample * 17 + variant / 7) % 4) as u8
}

/// Some variants at a time, of which there may be any.
fn fill(tiles: &mut Tiles, samples: &Samples, people: usize, variants: impl Iterator<Item = usize>) {
    let variants: Vec<usize> = variants.collect();
    let mut rest = variants.as_slice();
    for length in [1, 2, 5, 64, 333].into_iter().cycle() {
        let (some, others) = rest.split_at(length.min(rest.len()));
        let (mut found, mut codes) = (vec![], vec![]);
        for &variant in some {
            found.push((0, variant as u32));
            pack::pack(&(0..people).map(|sample| code(variant, sample)).collect::<Vec<_>>(), &mut codes);
        }
        assert_eq!(tiles.write(samples, &found, &codes).unwrap(), Contradicted::default());
        rest = others;
        if rest.is_empty() {
            break;
        }
    }
}

fn one(tiles: &mut Tiles, samples: &Samples, variant: u32, codes: &[u8]) -> Contradicted {
    let mut packed = vec![];
    pack::pack(codes, &mut packed);
    tiles.write(samples, &[(0, variant)], &packed).unwrap()
}

fn check(tiles: &Tiles, people: usize, variants: usize) {
    for group in 0..people.div_ceil(GROUP_ROWS) {
        let here = GROUP_ROWS.min(people - group * GROUP_ROWS);
        for block in 0..variants.div_ceil(BLOCK_VARIANTS) {
            let blocks = tiles.blocks(0, block, group, here).unwrap();
            for place in (0..here).step_by(3) {
                let row = &blocks[place * BLOCK_BYTES..][..BLOCK_BYTES];
                for variant in block * BLOCK_VARIANTS..variants.min((block + 1) * BLOCK_VARIANTS) {
                    // Samples lie in the file in the opposite order of the rows.
                    let want = code(variant, people - 1 - (group * GROUP_ROWS + place));
                    let found = pack::get(row, variant % BLOCK_VARIANTS);
                    assert_eq!(found, if want == MISSING { 255 } else { want }, "{group} {place} {variant}");
                }
            }
        }
    }
}

#[test]
fn what_goes_in_by_variant_comes_out_by_individual_in_any_memory_and_order() {
    let (people, variants) = (2_051, 4_200);
    let samples = Samples::new((0..people).map(|sample| Some(people - 1 - sample)));
    for (memory, step) in [(64 << 20, 1), (1 << 20, 1), (1 << 20, variants - 1), (64 << 20, 1_777), (100_000, 1)] {
        let file = tempfile::tempfile().unwrap();
        let mut tiles = tiles(&file, people, memory, &vec![]);
        // Forward, backward, and out of order.
        let order: Vec<usize> = (0..variants).map(|n| n * step % variants).collect();
        fill(&mut tiles, &samples, people, order.into_iter());
        assert!(tiles.held.len() <= tiles.capacity);
        assert!(memory > 1 << 20 || !tiles.slots.is_empty(), "this memory was meant to be too small");
        check(&tiles, people, variants);
    }
}

#[test]
fn a_killed_ingest_goes_on_from_its_checkpoint() {
    let (people, variants) = (1_500, 900);
    let samples = Samples::new((0..people).map(|sample| Some(people - 1 - sample)));
    let file = tempfile::tempfile().unwrap();
    let mut first = tiles(&file, people, 100_000, &vec![]);
    fill(&mut first, &samples, people, 0..500);
    let places = first.checkpoint().unwrap();
    first.keep();
    // Written after the checkpoint, and lost with the process.
    fill(&mut first, &samples, people, 500..800);
    drop(first);
    let mut second = tiles(&file, people, 100_000, &places);
    fill(&mut second, &samples, people, 500..variants);
    second.checkpoint().unwrap();
    check(&second, people, variants);
}

#[test]
fn the_first_of_two_codes_holds_and_slots_are_used_again() {
    let file = tempfile::tempfile().unwrap();
    let mut tiles = tiles(&file, 3, 1, &vec![]);
    let samples = Samples::new([Some(0), None, Some(2)].into_iter());
    assert_eq!(one(&mut tiles, &samples, 2, &[1, 2, MISSING]), Contradicted::default());
    assert_eq!(one(&mut tiles, &samples, 2, &[2, 2, 2]), Contradicted { count: 1, at: Some((0, 2)) });
    assert_eq!(one(&mut tiles, &samples, 2, &[MISSING, 2, 2]), Contradicted::default());
    for round in 0..20 {
        one(&mut tiles, &samples, 64 * (1 + round % 3), &[0, 0, 0]);
        tiles.checkpoint().unwrap();
        tiles.keep();
    }
    assert!(tiles.next <= 6, "{} slots for 4 tiles", tiles.next);
    let blocks = tiles.blocks(0, 0, 0, 3).unwrap();
    let of = |person: usize| pack::get(&blocks[person * BLOCK_BYTES..][..BLOCK_BYTES], 2);
    assert_eq!([of(0), of(1), of(2)], [1, 255, 2]);
}

#[test]
fn a_changed_scratch_file_is_noticed() {
    let file = tempfile::tempfile().unwrap();
    let mut first = tiles(&file, 3, 1, &vec![]);
    let samples = Samples::new([Some(0), Some(1), Some(2)].into_iter());
    one(&mut first, &samples, 0, &[1, 1, 1]);
    let places = first.checkpoint().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 20).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
    let second = tiles(&file, 3, 1, &places);
    assert_eq!(second.blocks(0, 0, 0, 3).unwrap_err().kind(), ErrorKind::InvalidData);
}
