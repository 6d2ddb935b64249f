//! Where variants become rows: variant files hold all individuals of a variant, the dataset all variants of an individual.
//!
//! *In*: some variants' codes for the individuals of a file. *Out*: for 1,024 individuals at a time, their packed blocks. Between
//! the two lie *tiles*, each 1,024 individuals x some variants: as many as fit the memory given, the others in one
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

use super::base::Base;
use super::pack::{self, BLOCK_BYTES, BLOCK_VARIANTS, MISSING_BYTE};
use super::store::GROUP_ROWS;

/// AES-GCM's tag.
const TAG_LEN: usize = 16;
/// Less work is not worth a second thread.
const LEAST_BYTES: usize = 256 << 10;
/// Tiles are no narrower, so that a file is not cut into crumbs.
const LEAST_VARIANTS: usize = 64;

/// A tile that is being written to, and which of its group's individuals are which of a source's.
type Taken<'a> = (TileId, Tile, &'a [(usize, usize)]);

/// Which tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct TileId {
    catalogue: u32,
    column: u32,
    group: u32,
}

/// Where every tile lies in the scratch file.
pub(super) type Places = Vec<(TileId, u32)>;

/// Which samples of a file belong to which individuals.
pub(super) struct Samples {
    /// Bytes of one variant's codes.
    stride: usize,
    /// By group of 1,024, the place in the group and the sample's number.
    groups: Vec<(u32, Vec<(usize, usize)>)>,
}

impl Samples {
    /// `rows`: for each sample of the file the individual's row, if it is wanted.
    pub(super) fn new(rows: impl Iterator<Item = Option<usize>>) -> Self {
        let mut groups: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        let mut people = 0_usize;
        for (sample, row) in rows.enumerate() {
            people = people.saturating_add(1);
            let Some(row) = row else { continue };
            groups.entry(row / GROUP_ROWS).or_default().push((row % GROUP_ROWS, sample));
        }
        let mut groups: Vec<_> =
            groups.into_iter().map(|(group, samples)| (u32::try_from(group).unwrap_or(u32::MAX), samples)).collect();
        groups.iter_mut().for_each(|(_, samples)| samples.sort_unstable());
        groups.sort_unstable_by_key(|(group, _)| *group);
        Self { stride: people.div_ceil(4), groups }
    }

    /// Bytes that the codes of all samples take at one variant.
    pub(super) const fn stride(&self) -> usize {
        self.stride
    }
}

/// Genotypes that were known before otherwise: how many, and a variant where there was one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contradicted {
    pub(super) count: u64,
    pub(super) at: Option<(u32, u32)>,
}

impl Contradicted {
    fn add(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.at = self.at.or(other.at);
    }
}

impl Tile {
    /// Puts some samples' codes into their rows of so many bytes. `first`: the catalogue, and the tile's first variant.
    fn put_in(
        &mut self,
        (catalogue, first): (u32, u32),
        row_bytes: usize,
        turned: &Turned,
        samples: &[(usize, usize)],
    ) -> Result<Contradicted> {
        let beyond = || Error::other("an individual beyond its tile");
        let fours = turned.fours.len();
        let start = turned.fours.first().copied().unwrap_or(0);
        let run = turned.fours.last().is_some_and(|last| last.saturating_sub(start).saturating_add(1) == fours);
        let mut contradicted = Contradicted::default();
        for &(place, sample) in samples {
            let (row, at) = (place.saturating_mul(row_bytes), sample.saturating_mul(fours));
            let row = self.bytes.get_mut(row..row.saturating_add(row_bytes)).ok_or_else(beyond)?;
            let new = turned.bytes.get(at..at.saturating_add(fours)).ok_or_else(beyond)?;
            let mut merge = |start: usize, new: &[u8]| -> Result<()> {
                let known = row.get_mut(start..start.saturating_add(new.len())).ok_or_else(beyond)?;
                let (count, place) = pack::merge(known, new);
                let variant = |place: usize| {
                    let place = u32::try_from(start.saturating_mul(4).saturating_add(place)).unwrap_or(u32::MAX);
                    (catalogue, first.saturating_add(place))
                };
                contradicted.add(Contradicted { count, at: place.map(variant) });
                Ok(())
            };
            if run {
                merge(start, new)?;
            } else {
                turned.fours.iter().zip(new).try_for_each(|(four, new)| merge(*four, std::slice::from_ref(new)))?;
            }
        }
        self.changed = true;
        Ok(contradicted)
    }
}

/// Some variants of one column of tiles: by individual, with the fours of variants that there are.
struct Turned {
    /// Which fours of the column.
    fours: Vec<usize>,
    /// As many bytes for each sample.
    bytes: Vec<u8>,
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
    /// Individuals of a tile.
    people: usize,
    /// How many tiles memory holds.
    capacity: usize,
    threads: usize,
    clock: u64,
    held: HashMap<TileId, Tile>,
    slots: HashMap<TileId, u32>,
    /// What the last checkpoint names.
    kept: HashSet<u32>,
    free: Vec<u32>,
    next: u32,
    /// What tiles begin with that were never put.
    base: Option<Base>,
}

impl Tiles {
    /// For so many individuals, in `memory` bytes; `places` are those of the checkpoint that is gone on from.
    pub(super) fn new(file: File, key: RandomizedNonceKey, individuals: usize, memory: usize, places: &Places) -> Self {
        let groups = individuals.div_ceil(GROUP_ROWS).max(1);
        let people = individuals.clamp(1, GROUP_ROWS);
        let mut variants = BLOCK_VARIANTS;
        // Two columns of tiles at least: files that are out of order move between neighbours.
        while variants > LEAST_VARIANTS && groups.saturating_mul(people).saturating_mul(variants / 4) > memory / 2 {
            variants /= 2;
        }
        let capacity = (memory / people.saturating_mul(variants / 4).max(1)).max(1);
        let slots: HashMap<TileId, u32> = places.iter().copied().collect();
        let kept: HashSet<u32> = slots.values().copied().collect();
        let next = kept.iter().max().map_or(0, |last| last.saturating_add(1));
        let free = (0..next).filter(|slot| !kept.contains(slot)).collect();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            file,
            key,
            variants,
            people,
            capacity,
            threads,
            clock: 0,
            held: HashMap::new(),
            slots,
            kept,
            free,
            next,
            base: None,
        }
    }

    /// The same tiles, which begin with what is taken over.
    pub(super) fn on(self, base: Option<Base>) -> Self {
        Self { base, ..self }
    }

    /// Puts some variants' codes (of all samples of the file, four to a byte; each variant once) in place. Where a code was known before and another
    /// is given, the first holds.
    pub(super) fn write(&mut self, samples: &Samples, found: &[(u32, u32)], codes: &[u8]) -> Result<Contradicted> {
        let mut order: Vec<((u32, u32), &[u8])> =
            found.iter().copied().zip(codes.chunks_exact(samples.stride.max(1))).collect();
        order.sort_unstable_by_key(|(found, _)| *found);
        let width = u32::try_from(self.variants).map_err(Error::other)?;
        let mut contradicted = Contradicted::default();
        for part in order.chunk_by(|(a, _), (b, _)| (a.0, a.1 / width) == (b.0, b.1 / width)) {
            let Some(&((catalogue, first), _)) = part.first() else { continue };
            let turned = turn(part, width, samples.stride, self.threads);
            for groups in samples.groups.chunks(self.capacity) {
                let found = self.put_in(catalogue, first / width, &turned, groups)?;
                contradicted.add(found);
            }
        }
        Ok(contradicted)
    }

    /// Puts what belongs there into some groups' tiles of one column.
    fn put_in(
        &mut self,
        catalogue: u32,
        column: u32,
        turned: &Turned,
        groups: &[(u32, Vec<(usize, usize)>)],
    ) -> Result<Contradicted> {
        let width = self.variants;
        let first = (catalogue, column.saturating_mul(u32::try_from(width).unwrap_or(u32::MAX)));
        let mut taken: Vec<Taken<'_>> = Vec::with_capacity(groups.len());
        for (group, samples) in groups {
            let id = TileId { catalogue, column, group: *group };
            self.tile(id, taken.len())?;
            let tile = self.held.remove(&id).ok_or_else(|| Error::other("a tile that is held is there"))?;
            taken.push((id, tile, samples.as_slice()));
        }
        let threads = if turned.bytes.len() < LEAST_BYTES { 1 } else { self.threads };
        let each = taken.len().div_ceil(threads).max(1);
        let mut contradicted = Contradicted::default();
        std::thread::scope(|scope| {
            let work = |part: &mut [Taken<'_>]| {
                part.iter_mut().try_fold(Contradicted::default(), |mut all, (_, tile, samples)| {
                    all.add(tile.put_in(first, width / 4, turned, samples)?);
                    Ok::<_, Error>(all)
                })
            };
            let mut parts = taken.chunks_mut(each);
            let here = parts.next();
            let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
            contradicted.add(here.map_or_else(|| Ok(Contradicted::default()), work)?);
            for other in others {
                let found = other.join().map_err(|_| Error::other("a thread of the ingest failed"))?;
                contradicted.add(found?);
            }
            Ok::<_, Error>(())
        })?;
        self.held.extend(taken.into_iter().map(|(id, tile, _)| (id, tile)));
        Ok(contradicted)
    }

    /// Sees to it that a tile is held, beside `taken` others that are in use.
    fn tile(&mut self, id: TileId, taken: usize) -> Result<()> {
        self.clock = self.clock.saturating_add(1);
        if !self.held.contains_key(&id) {
            while self.held.len().saturating_add(taken) >= self.capacity {
                let oldest = self.held.iter().min_by_key(|(_, tile)| tile.used).map(|(id, _)| *id);
                let Some(oldest) = oldest else { break };
                self.put(oldest)?;
                self.held.remove(&oldest);
            }
            let bytes = self.load(id)?;
            self.held.insert(id, Tile { bytes, used: 0, changed: false });
        }
        if let Some(tile) = self.held.get_mut(&id) {
            tile.used = self.clock;
        }
        Ok(())
    }

    fn tile_bytes(&self) -> usize {
        self.people.saturating_mul(self.variants / 4)
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

    /// A tile as it was last put; as it begins where it never was.
    fn load(&self, id: TileId) -> Result<Vec<u8>> {
        let Some(&slot) = self.slots.get(&id) else { return self.begin(id) };
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

    /// A tile as it begins: what is taken over, and nothing else.
    fn begin(&self, id: TileId) -> Result<Vec<u8>> {
        let mut bytes = vec![MISSING_BYTE; self.tile_bytes()];
        if let Some(base) = &self.base {
            let (each, column) = (BLOCK_VARIANTS / self.variants, id.column as usize);
            let (block, width) = (column / each, self.variants / 4);
            let start = (column % each).saturating_mul(width);
            base.fill(id.catalogue as usize, block, id.group as usize, start, width, &mut bytes)?;
        }
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
        if let Some(base) = &self.base {
            base.fill(catalogue, block, group, 0, BLOCK_BYTES, &mut out)?;
        }
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
            let width = self.variants / 4;
            let start = part.saturating_mul(width);
            for (row, of_tile) in out.chunks_exact_mut(BLOCK_BYTES).zip(bytes.chunks_exact(width)) {
                if let Some(row) = row.get_mut(start..start.saturating_add(width)) {
                    row.copy_from_slice(of_tile);
                }
            }
        }
        Ok(out)
    }
}

/// Turns some variants of one column, in order, from rows of variants to rows of individuals.
fn turn(part: &[((u32, u32), &[u8])], width: u32, stride: usize, threads: usize) -> Turned {
    let mut fours: Vec<usize> = Vec::new();
    let mut rows: Vec<[Option<&[u8]>; 4]> = Vec::new();
    for ((_, variant), codes) in part {
        let (four, place) = ((variant % width / 4) as usize, (variant % 4) as usize);
        if fours.last() != Some(&four) {
            fours.push(four);
            rows.push([None; 4]);
        }
        if let Some(row) = rows.last_mut().and_then(|rows| rows.get_mut(place)) {
            *row = Some(codes);
        }
    }
    let mut bytes = vec![MISSING_BYTE; stride.saturating_mul(4).saturating_mul(fours.len())];
    let threads = if bytes.len() < LEAST_BYTES { 1 } else { threads };
    // Whole steps of individuals to each thread.
    let each = stride.div_ceil(threads).next_multiple_of(pack::STEP / 4).max(1);
    let width = fours.len().saturating_mul(4).max(1);
    std::thread::scope(|scope| {
        let rows = &rows;
        let mut parts = bytes.chunks_mut(each.saturating_mul(width)).zip((0..stride).step_by(each));
        let here = parts.next();
        for (part, start) in parts {
            scope.spawn(move || pack::transpose(rows, start..stride, part));
        }
        if let Some((part, start)) = here {
            pack::transpose(rows, start..stride, part);
        }
    });
    Turned { fours, bytes }
}

fn aad(id: TileId) -> Aad<[u8; 12]> {
    let mut bytes = [0; 12];
    let parts = [id.catalogue, id.column, id.group].map(u32::to_be_bytes);
    bytes.iter_mut().zip(parts.as_flattened()).for_each(|(to, from)| *to = *from);
    Aad::from(bytes)
}

#[cfg(test)]
mod tests;
