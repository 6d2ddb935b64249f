//! Which catalogue variants were seen.
//!
//! *In*: catalogues and their variants, by number. *Out*: a bit for each. *Refuses*: numbers that no variant has.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::Catalogue;

/// Which catalogue variants were seen: of each catalogue, how many variants it has, and a bit each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(Vec<(u32, Vec<u8>)>);

impl Seen {
    /// None of them.
    #[must_use]
    pub fn new(catalogues: &[Arc<Catalogue>]) -> Self {
        let none = |catalogue: &Arc<Catalogue>| {
            let count = catalogue.variants.len();
            (u32::try_from(count).unwrap_or(u32::MAX), vec![0; count.div_ceil(8)])
        };
        Self(catalogues.iter().map(none).collect())
    }

    /// Marks a variant; whether it is one, and was not marked before.
    pub fn mark(&mut self, (catalogue, variant): (u32, u32)) -> bool {
        let Some((count, bits)) = self.0.get_mut(catalogue as usize) else { return false };
        let byte = bits.get_mut(variant as usize / 8).filter(|_| variant < *count);
        byte.is_some_and(|byte| {
            let bit = 1 << (variant % 8);
            let new = *byte & bit == 0;
            *byte |= bit;
            new
        })
    }

    /// How many were marked.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().flat_map(|(_, bits)| bits).map(|byte| u64::from(byte.count_ones())).sum()
    }

    /// Whether a variant was marked.
    #[must_use]
    pub fn has(&self, (catalogue, variant): (u32, u32)) -> bool {
        let bits = self.0.get(catalogue as usize).map(|(_, bits)| bits);
        bits.and_then(|bits| bits.get(variant as usize / 8)).is_some_and(|byte| byte >> (variant % 8) & 1 == 1)
    }

    /// Marks all that the other, of the same catalogues, has marked.
    pub fn add(&mut self, other: &Self) {
        let to = self.0.iter_mut().flat_map(|(_, bits)| bits);
        to.zip(other.0.iter().flat_map(|(_, bits)| bits)).for_each(|(to, from)| *to |= from);
    }

    /// The same marks where catalogues lie in another order. `places`: for each catalogue, where it was before, if it was there. `None` where one that was
    /// there has another number of variants.
    #[must_use]
    pub fn moved(&self, catalogues: &[Arc<Catalogue>], places: &[Option<usize>]) -> Option<Self> {
        let mut moved = Self::new(catalogues);
        for ((to, bits), place) in moved.0.iter_mut().zip(places) {
            let Some(place) = place else { continue };
            let (from, known) = self.0.get(*place)?;
            if from != to || known.len() != bits.len() {
                return None;
            }
            bits.clone_from(known);
        }
        Some(moved)
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bits)| bits.len()).sum()
    }
}
