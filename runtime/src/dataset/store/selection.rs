//! What a round reads: columns of the dictionary, and stretches of blocks of catalogues.

use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::VariantSlice;
use vestibule_protocol::dictionary::Kind;
use vestibule_protocol::round::Round;
use vestibule_protocol::shape::{self, ShapeError};

use vestibule_sandbox::Value;
use vestibule_worker::Rehearsals;

use super::super::DatasetInfo;
use super::super::pack::BLOCK_VARIANTS;
use crate::partitions::Partitions;

/// What a round reads: resolved against one dataset's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selection {
    pub(super) columns: Vec<usize>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) places: bool,
    /// Whether guests are shown the dosages.
    pub(super) shown: bool,
    /// What each column holds.
    kinds: Vec<Kind>,
}

/// A stretch of a block of a catalogue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) catalogue: usize,
    pub(super) block: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Selection {
    pub(in super::super) fn new(info: &DatasetInfo, columns: &[String], slices: &[VariantSlice]) -> Result<Self, ShapeError> {
        let columns = shape::columns(&info.dictionary, columns)?;
        let mut stretches = Vec::new();
        for (catalogue, range) in shape::slices(&info.catalogues, slices)? {
            let mut at = range.start;
            while at < range.end {
                let block = at / BLOCK_VARIANTS;
                let first = block.saturating_mul(BLOCK_VARIANTS);
                let end = range.end.min(first.saturating_add(BLOCK_VARIANTS));
                stretches.push(Stretch { catalogue, block, start: at.saturating_sub(first), end: end.saturating_sub(first) });
                at = end;
            }
        }
        let kind = |place: &usize| info.dictionary.columns.get(*place).map_or(Kind::Flag, |column| column.kind.clone());
        let kinds = columns.iter().map(kind).collect();
        Ok(Self { columns, stretches, places: false, shown: true, kinds })
    }

    /// So many columns, and of each catalogue so many whole blocks.
    #[cfg(test)]
    pub(in super::super) fn of_everything(columns: usize, catalogues: &[(usize, usize)]) -> Self {
        let of = |&(catalogue, blocks): &(usize, usize)| {
            (0..blocks).map(move |block| Stretch { catalogue, block, start: 0, end: BLOCK_VARIANTS })
        };
        let stretches = catalogues.iter().flat_map(of).collect();
        Self { columns: (0..columns).collect(), stretches, places: true, shown: true, kinds: vec![Kind::Flag; columns] }
    }

    /// Of the first stretch so many variants, and no other.
    #[cfg(test)]
    pub(crate) fn first(mut self, variants: usize) -> Self {
        self.stretches.truncate(1);
        self.stretches.iter_mut().for_each(|stretch| stretch.end = variants);
        self
    }

    /// Where each row lies in the keyed order, and nothing else.
    pub(super) const fn of_places() -> Self {
        Self { columns: vec![], stretches: vec![], places: true, shown: false, kinds: vec![] }
    }

    /// Also reads where each row lies in the keyed order.
    #[must_use]
    pub const fn with_places(mut self) -> Self {
        self.places = true;
        self
    }

    /// Blocks of catalogues that are read.
    #[must_use]
    pub fn blocks(&self) -> usize {
        let blocks = self.stretches.iter().map(|stretch| (stretch.catalogue, stretch.block));
        blocks.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// What one round needs of it.
    #[must_use]
    pub fn of(&self, round: &Round) -> Self {
        let read = round.shows_dosages() || round.sums_genotypes();
        let stretches = if read { self.stretches.clone() } else { vec![] };
        Self { stretches, shown: round.shows_dosages(), ..self.clone() }
    }

    /// Partitions of people whom nobody is, made of public terms: each column at an end of its
    /// bounds, in their middle, and missing; each dosage everything that one can be.
    #[must_use]
    pub fn rehearsals(&self, partitions: Partitions) -> Rehearsals {
        let mut rehearsals = Rehearsals::default();
        let individuals = partitions.most().div_ceil(2).clamp(1, MOST_REHEARSED);
        for turn in 0..4_u8 {
            let values: Vec<Value> = self.kinds.iter().map(|kind| likely(kind, turn)).collect();
            let dosage = |place: u8| if turn == 0 { MISSING } else { place.wrapping_add(turn) % 3 };
            let dosages = (0..self.dosages()).map(|place| dosage((place % 251) as u8)).collect();
            rehearsals.push(&vec![(values, dosages); individuals]);
        }
        rehearsals
    }

    /// Values of a row.
    #[must_use]
    pub const fn values(&self) -> usize {
        self.columns.len()
    }

    /// Dosages of a row that guests are shown.
    #[must_use]
    pub fn dosages(&self) -> usize {
        if self.shown { self.variants() } else { 0 }
    }

    /// Variants of a row that are read.
    #[must_use]
    pub fn variants(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.end.saturating_sub(stretch.start)).sum()
    }
}

/// Individuals of a rehearsed partition, at most.
const MOST_REHEARSED: usize = 4_096;
/// A dosage that is not known.
const MISSING: u8 = 255;

/// What a column can hold: nothing, the least, the middle, the most.
fn likely(kind: &Kind, turn: u8) -> Value {
    let of_three = |least: f64, most: f64| least + (most - least) * f64::from(turn.saturating_sub(1)) / 2.0;
    match kind {
        _ if turn == 0 => Value::Missing,
        Kind::Number { lower, upper } => Value::Number(of_three(*lower, *upper)),
        Kind::Levels(levels) => {
            let last = u32::try_from(levels.len().saturating_sub(1)).unwrap_or(0);
            Value::Level(last.saturating_mul(u32::from(turn.saturating_sub(1))) / 2)
        }
        Kind::Flag => Value::Flag(turn > 1),
        // 1940, 1970, 2000.
        Kind::Day => Value::Day(i32::from(turn).saturating_sub(2).saturating_mul(10_957)),
    }
}
