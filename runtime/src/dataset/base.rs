//! What a dataset grows from: genotypes of the version that serves, taken over as they lie there.
//!
//! *In*: that version's rows, its key, who is to be taken over. *Out*: their genotypes in the places of the new version's tiles, which begin with them instead
//! of with nothing. *Trusts*: what the key opened. *Refuses*: chunks that do not open: then nothing is taken over ([`Unfit`]).
//!
//! Rows of both versions lie in the same keyed order, so a group of the new one has its people in one or few groups of the old one.

use std::io::{Error, Result};

use super::pack::BLOCK_BYTES;
use super::store::{ReadError, Store};

/// The version that serves cannot be grown from after all, and why: everything is to be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub(super) String);

impl Unfit {
    /// Whether this is why something failed.
    pub(super) fn of(error: &Error) -> Option<String> {
        error.get_ref().and_then(|error| error.downcast_ref::<Self>()).map(|unfit| unfit.0.clone())
    }
}

/// A row that is taken over: its place in the new group, and where it was.
#[derive(Clone, Copy)]
struct Taken {
    place: u32,
    group: u32,
    row: u32,
}

/// Where everybody's row lies: the head of their place in the keyed order, ascending; the row group; the row in it.
pub(super) struct Heads(Vec<(u64, u32, u32)>);

/// Genotypes that a new version begins with.
pub(super) struct Base {
    store: Store,
    /// For each catalogue, which of the store's it is, if it is one.
    catalogues: Vec<Option<usize>>,
    groups: Vec<Vec<Taken>>,
}

impl Heads {
    pub(super) fn of(store: &Store) -> std::result::Result<Self, ReadError> {
        let heads = store.heads()?;
        if !heads.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("its rows do not lie in order".into());
        }
        Ok(Self(heads))
    }

    fn find(&self, order: &[u8; 16]) -> Option<(u32, u32)> {
        let head = u64::from_be_bytes(*order.first_chunk()?);
        let place = self.0.binary_search_by_key(&head, |row| row.0).ok()?;
        self.0.get(place).map(|(_, group, row)| (*group, *row))
    }

    /// Whether somebody has a row.
    pub(super) fn has(&self, order: &[u8; 16]) -> bool {
        self.find(order).is_some()
    }
}

impl Base {
    /// `people`: for each group of the new version those who are taken over, with their places in it.
    pub(super) fn new<'a>(
        store: Store,
        heads: &Heads,
        catalogues: Vec<Option<usize>>,
        people: impl Iterator<Item = Vec<(usize, &'a [u8; 16])>>,
    ) -> std::result::Result<Self, ReadError> {
        let taken = |(place, order): (usize, &[u8; 16])| {
            let (group, row) = heads.find(order)?;
            Some(Taken { place: u32::try_from(place).ok()?, group, row })
        };
        let groups: Vec<Vec<Taken>> = people.map(|group| group.into_iter().filter_map(taken).collect()).collect();
        if groups.iter().any(|group| !group.is_empty()) {
            store.fetch_blocks(catalogues.iter().flatten().copied())?;
        }
        Ok(Self { store, catalogues, groups })
    }

    /// Writes over `rows`, each of as many bytes of a block from `start` on, what is taken over of a group.
    pub(super) fn fill(
        &self,
        catalogue: usize,
        block: usize,
        group: usize,
        start: usize,
        width: usize,
        rows: &mut [u8],
    ) -> Result<()> {
        let Some(catalogue) = self.catalogues.get(catalogue).copied().flatten() else { return Ok(()) };
        let taken = self.groups.get(group).map(Vec::as_slice).unwrap_or_default();
        for part in taken.chunk_by(|a, b| a.group == b.group) {
            let Some(first) = part.first() else { continue };
            let chunk = self.store.block(catalogue, block, first.group as usize);
            let chunk = chunk.map_err(|error| Error::other(Unfit(error.to_string())))?;
            for taken in part {
                let from = (taken.row as usize).saturating_mul(BLOCK_BYTES).saturating_add(start);
                let to = (taken.place as usize).saturating_mul(width);
                let (Some(from), Some(to)) =
                    (chunk.get(from..from.saturating_add(width)), rows.get_mut(to..to.saturating_add(width)))
                else {
                    return Err(Error::other(Unfit("a row is not where it was".to_owned())));
                };
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}
