//! Where variants become rows: variant files hold all individuals of a variant, the dataset all variants of an individual.
//!
//! *In*: one variant's codes for the individuals of a file. *Out*: for 1,024 individuals at a time, their packed blocks. Between
//! the two lie *tiles*, each some variants x 1,024 individuals: as many as fit the memory given, the others in one
//! scratch file, encrypted (AES-256-GCM) and bound to their place. *Refuses*: a tile that another key sealed or whose bytes were
//! changed.
//!
//! A checkpoint names the places of all tiles. Until the next one those places are not written again, so that an ingest that is killed
//! goes on from its last checkpoint, whatever it had written since.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use serde::{Deserialize, Serialize};

use super::pack::{self, BLOCK_BYTES, BLOCK_VARIANTS, MISSING, MISSING_BYTE};
use super::store::GROUP_ROWS;

/// AES-GCM's tag.
const TAG_LEN: usize = 16;
/// Tiles are no narrower, so that a file is not cut into crumbs.
const LEAST_VARIANTS: usize = 64;

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TileId {
    catalogue: u32,
    column: u32,
    group: u32,
}

/// Where every tile lies in the scratch file.
pub(super) type Places = Vec<(TileId, u32)>;

/// Which samples of a file belong to which individuals: by group of 1,024, the place in the group and the sample's number.
pub(super) struct Samples(Vec<(u32, Vec<(usize, usize)>)>);

impl Samples {
    /// `rows`: for each sample of the file the individual's row, if it is wanted.
    pub(super) fn new(rows: impl Iterator<Item = Option<usize>>) -> Self {
        let mut groups: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        for (sample, row) in rows.enumerate() {
            let Some(row) = row else { continue };
            groups.entry(row / GROUP_ROWS).or_default().push((row % GROUP_ROWS, sample));
        }
        let mut groups: Vec<_> =
            groups.into_iter().map(|(group, samples)| (u32::try_from(group).unwrap_or(u32::MAX), samples)).collect();
        groups.iter_mut().for_each(|(_, samples)| samples.sort_unstable());
        groups.sort_unstable_by_key(|(group, _)| *group);
        Self(groups)
    }
}

struct Tile {
    bytes: Vec<u8>,
    used: u64,
    changed: bool,
}

/// All tiles of an ingest.
pub(super) struct Tiles {
    file: File,
    key: RandomizedNonceKey,
    /// Variants of a tile: a power of two, at most a block's.
    variants: usize,
    /// Bytes that a group of individuals takes at one variant.
    stride: usize,
    /// How many tiles memory holds.
    capacity: usize,
    clock: u64,
    held: HashMap<TileId, Tile>,
    slots: HashMap<TileId, u32>,
    /// What the last checkpoint names.
    kept: HashSet<u32>,
    free: Vec<u32>,
    next: u32,
}

impl Tiles {
    /// For so many individuals, in `memory` bytes; `places` are those of the checkpoint that is gone on from.
    pub(super) fn new(file: File, key: RandomizedNonceKey, individuals: usize, memory: usize, places: &Places) -> Self {
        let groups = individuals.div_ceil(GROUP_ROWS).max(1);
        let stride = individuals.clamp(1, GROUP_ROWS).div_ceil(4);
        let mut variants = BLOCK_VARIANTS;
        // Two columns of tiles at least: files that are out of order move between neighbours.
        while variants > LEAST_VARIANTS && groups.saturating_mul(stride).saturating_mul(variants) > memory / 2 {
            variants /= 2;
        }
        let capacity = (memory / stride.saturating_mul(variants).max(1)).max(1);
        let slots: HashMap<TileId, u32> = places.iter().copied().collect();
        let kept: HashSet<u32> = slots.values().copied().collect();
        let next = kept.iter().max().map_or(0, |last| last.saturating_add(1));
        let free = (0..next).filter(|slot| !kept.contains(slot)).collect();
        Self { file, key, variants, stride, capacity, clock: 0, held: HashMap::new(), slots, kept, free, next }
    }

    /// Puts one variant's codes (one for each sample of the file) in place. Where a code was known before and another is given,
    /// the first holds. Returns how many did.
    pub(super) fn write(&mut self, catalogue: usize, variant: usize, samples: &Samples, codes: &[u8]) -> Result<u64> {
        let (column, row) = (variant / self.variants, variant % self.variants);
        let mut contradicted = 0_u64;
        for (group, samples) in &samples.0 {
            let number = |number: usize| u32::try_from(number).map_err(Error::other);
            let id = TileId { catalogue: number(catalogue)?, column: number(column)?, group: *group };
            let start = row.saturating_mul(self.stride);
            let end = start.saturating_add(self.stride);
            let tile = self.tile(id)?;
            let row = tile.bytes.get_mut(start..end).ok_or_else(|| Error::other("a variant beyond its tile"))?;
            for &(place, sample) in samples {
                let (Some(byte), Some(&code)) = (row.get_mut(place / 4), codes.get(sample)) else { continue };
                let shift = 2 * (place % 4);
                match (*byte >> shift) & 3 {
                    MISSING => *byte = *byte & !(3 << shift) | code << shift,
                    known => contradicted = contradicted.saturating_add(u64::from(code != MISSING && code != known)),
                }
            }
            tile.changed = true;
        }
        Ok(contradicted)
    }

    fn tile(&mut self, id: TileId) -> Result<&mut Tile> {
        self.clock = self.clock.saturating_add(1);
        if !self.held.contains_key(&id) {
            while self.held.len() >= self.capacity {
                let oldest = self.held.iter().min_by_key(|(_, tile)| tile.used).map(|(id, _)| *id);
                let Some(oldest) = oldest else { break };
                self.put(oldest)?;
                self.held.remove(&oldest);
            }
            let bytes = self.load(id)?;
            self.held.insert(id, Tile { bytes, used: 0, changed: false });
        }
        let tile = self.held.get_mut(&id).ok_or_else(|| Error::other("a tile that is held is there"))?;
        tile.used = self.clock;
        Ok(tile)
    }

    fn tile_bytes(&self) -> usize {
        self.variants.saturating_mul(self.stride)
    }

    fn offset(&self, slot: u32) -> u64 {
        let bytes = self.tile_bytes().saturating_add(NONCE_LEN).saturating_add(TAG_LEN);
        u64::from(slot).saturating_mul(bytes as u64)
    }

    /// Writes a held tile to the scratch file, where it was changed.
    fn put(&mut self, id: TileId) -> Result<()> {
        let Some(tile) = self.held.get_mut(&id).filter(|tile| tile.changed) else { return Ok(()) };
        let mut sealed = tile.bytes.clone();
        tile.changed = false;
        let nonce = self.key.seal_in_place_append_tag(aad(id), &mut sealed).map_err(Error::other)?;
        let slot = match self.slots.get(&id) {
            Some(slot) if !self.kept.contains(slot) => *slot,
            _ => self.free.pop().unwrap_or_else(|| {
                self.next = self.next.saturating_add(1);
                self.next.saturating_sub(1)
            }),
        };
        let offset = self.offset(slot);
        self.file.write_all_at(nonce.as_ref(), offset)?;
        self.file.write_all_at(&sealed, offset.saturating_add(NONCE_LEN as u64))?;
        self.slots.insert(id, slot);
        Ok(())
    }

    /// A tile as it was last put; all missing where it never was.
    fn load(&self, id: TileId) -> Result<Vec<u8>> {
        let Some(&slot) = self.slots.get(&id) else { return Ok(vec![MISSING_BYTE; self.tile_bytes()]) };
        let mut nonce = [0; NONCE_LEN];
        let offset = self.offset(slot);
        self.file.read_exact_at(&mut nonce, offset)?;
        let mut bytes = vec![0; self.tile_bytes().saturating_add(TAG_LEN)];
        self.file.read_exact_at(&mut bytes, offset.saturating_add(NONCE_LEN as u64))?;
        let opened = self.key.open_in_place(Nonce::from(&nonce), aad(id), &mut bytes);
        let length = opened.map_err(|_| Error::new(ErrorKind::InvalidData, "the scratch file was changed"))?.len();
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Puts everything on disk and says where it lies. Call [`Self::keep`] when that is on disk too.
    pub(super) fn checkpoint(&mut self) -> Result<Places> {
        let mut held: Vec<TileId> = self.held.keys().copied().collect();
        held.sort_unstable();
        held.into_iter().try_for_each(|id| self.put(id))?;
        self.file.sync_data()?;
        let mut places: Places = self.slots.iter().map(|(id, slot)| (*id, *slot)).collect();
        places.sort_unstable();
        Ok(places)
    }

    /// The last checkpoint is on disk: what only the one before it named is free.
    pub(super) fn keep(&mut self) {
        self.kept = self.slots.values().copied().collect();
        self.free = (0..self.next).filter(|slot| !self.kept.contains(slot)).collect();
    }

    /// The packed blocks of a group's `people` individuals at one block of a catalogue, one after the other.
    pub(super) fn blocks(&self, catalogue: usize, block: usize, group: usize, people: usize) -> Result<Vec<u8>> {
        let mut out = vec![MISSING_BYTE; people.saturating_mul(BLOCK_BYTES)];
        let number = |number: usize| u32::try_from(number).map_err(Error::other);
        let tiles = BLOCK_VARIANTS / self.variants;
        for part in 0..tiles {
            let column = number(block.saturating_mul(tiles).saturating_add(part))?;
            let id = TileId { catalogue: number(catalogue)?, column, group: number(group)? };
            let loaded;
            let bytes = match self.held.get(&id) {
                Some(tile) => &tile.bytes,
                None if self.slots.contains_key(&id) => {
                    loaded = self.load(id)?;
                    &loaded
                }
                None => continue,
            };
            let start = part.saturating_mul(self.variants) / 4;
            pack::transpose(bytes, self.stride, &mut out, BLOCK_BYTES, start);
        }
        Ok(out)
    }
}

fn aad(id: TileId) -> Aad<[u8; 12]> {
    let mut bytes = [0; 12];
    let parts = [id.catalogue, id.column, id.group].map(u32::to_be_bytes);
    bytes.iter_mut().zip(parts.as_flattened()).for_each(|(to, from)| *to = *from);
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::StoreKey;

    fn tiles(file: &File, individuals: usize, memory: usize, places: &Places) -> Tiles {
        let key = StoreKey::from_bytes([7; 32]).scratch("v1").unwrap();
        Tiles::new(file.try_clone().unwrap(), key, individuals, memory, places)
    }

    fn code(variant: usize, sample: usize) -> u8 {
        ((variant * 31 + sample * 17 + variant / 7) % 4) as u8
    }

    fn fill(tiles: &mut Tiles, samples: &Samples, people: usize, variants: impl Iterator<Item = usize>) {
        for variant in variants {
            let codes: Vec<u8> = (0..people).map(|sample| code(variant, sample)).collect();
            assert_eq!(tiles.write(0, variant, samples, &codes).unwrap(), 0);
        }
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
        for (memory, backward) in [(64 << 20, false), (1 << 20, false), (1 << 20, true), (100_000, false)] {
            let file = tempfile::tempfile().unwrap();
            let mut tiles = tiles(&file, people, memory, &vec![]);
            let order: Vec<usize> = if backward { (0..variants).rev().collect() } else { (0..variants).collect() };
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
        assert_eq!(tiles.write(0, 0, &samples, &[1, 2, MISSING]).unwrap(), 0);
        assert_eq!(tiles.write(0, 0, &samples, &[2, 2, 2]).unwrap(), 1);
        assert_eq!(tiles.write(0, 0, &samples, &[MISSING, 2, 2]).unwrap(), 0);
        for round in 0..20 {
            tiles.write(0, 64 * (1 + round % 3), &samples, &[0, 0, 0]).unwrap();
            tiles.checkpoint().unwrap();
            tiles.keep();
        }
        assert!(tiles.next <= 6, "{} slots for 4 tiles", tiles.next);
        let blocks = tiles.blocks(0, 0, 0, 3).unwrap();
        let of = |person: usize| pack::get(&blocks[person * BLOCK_BYTES..][..BLOCK_BYTES], 0);
        assert_eq!([of(0), of(1), of(2)], [1, 255, 2]);
    }

    #[test]
    fn a_changed_scratch_file_is_noticed() {
        let file = tempfile::tempfile().unwrap();
        let mut first = tiles(&file, 3, 1, &vec![]);
        let samples = Samples::new([Some(0), Some(1), Some(2)].into_iter());
        first.write(0, 0, &samples, &[1, 1, 1]).unwrap();
        let places = first.checkpoint().unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
        let second = tiles(&file, 3, 1, &places);
        assert_eq!(second.blocks(0, 0, 0, 3).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
