//! Step 9, who is in one partition: one individual, or a block of those whose places in the keyed order lie together.
//!
//! *In*: what the plan asks for, and the size that the site has made public. *Out*: how large a partition can be; which blocks a thread
//! takes together. *Trusts*: places, which are a keyed hash of an individual's id and of nothing else: one individual more is in one
//! block and moves nobody to another (docs/PRIVACY.md, "Blocks"). Both numbers are public, so nothing here depends on who is there.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use vestibule_protocol::round::Partitioning;

use crate::dataset::MEAN_ROWS;

/// A round's partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions {
    kind: Partitioning,
    most: usize,
}

/// How often a row is read at most: once, or by the threads whose blocks lie in its row group. There are no more of those than three,
/// since a thread's run of blocks is longer than half a row group's range.
const READS: u32 = 3;

impl Partitions {
    /// For a dataset of about so many individuals.
    #[must_use]
    pub fn of(kind: Partitioning, approximate_size: u64) -> Self {
        let most = match kind {
            Partitioning::Each => 1,
            // A tenth more people than was said are let in. Of a block of 64 on average, more than 2 x 64 + 64 are there with a
            // probability below 10^-30 (Chernoff), of others less; they would not be shown to the guest.
            Partitioning::Blocks(blocks) => {
                let people = approximate_size.max(MEAN_ROWS).saturating_mul(11).div_ceil(10);
                let mean = people.div_ceil(u64::from(blocks.max(1)));
                usize::try_from(mean.saturating_mul(2).saturating_add(64)).unwrap_or(usize::MAX)
            }
        };
        Self { kind, most }
    }

    /// What the plan asked for.
    #[must_use]
    pub const fn kind(&self) -> Partitioning {
        self.kind
    }

    /// Individuals of one, at most.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// How often a row is read, at most.
    #[must_use]
    pub(crate) const fn reads(&self) -> u32 {
        match self.kind {
            Partitioning::Each => 1,
            Partitioning::Blocks(_) => READS,
        }
    }
}

/// The blocks of a keyed order whose rows lie in `of` equal parts, as runs that a thread takes together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocks {
    count: u32,
    of: u64,
}

impl Blocks {
    pub(crate) const fn new(count: u32, of: u64) -> Self {
        Self { count, of }
    }

    /// How many runs there are: as many as parts, where there are blocks enough.
    pub(crate) fn runs(self) -> u32 {
        u32::try_from(self.of).unwrap_or(u32::MAX).clamp(1, self.count.max(1))
    }

    /// The blocks of a run.
    pub(crate) fn run(self, run: u32) -> Range<u32> {
        let runs = u64::from(self.runs());
        let start = |run: u64| u32::try_from(run.saturating_mul(self.count.into()) / runs).unwrap_or(self.count);
        start(run.into())..start(u64::from(run).saturating_add(1))
    }

    /// The block of a place.
    #[expect(clippy::cast_possible_truncation, reason = "below `count`")]
    pub(crate) fn at(self, place: u64) -> u32 {
        (u128::from(place).wrapping_mul(u128::from(self.count)) >> 64) as u32
    }

    /// Whether some of the blocks' places can lie in a part.
    pub(crate) fn touch(self, blocks: &Range<u32>, part: u64) -> bool {
        let (count, of) = (u128::from(self.count), u128::from(self.of));
        let scaled = |block: u32| u128::from(block).saturating_mul(of);
        let part = u128::from(part);
        part.saturating_mul(count) < scaled(blocks.end) && part.saturating_add(1).saturating_mul(count) > scaled(blocks.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_in_one_run_and_every_place_in_a_part_that_its_run_touches() {
        for (count, of) in [(1, 1), (1, 9), (5, 3), (7, 1), (100, 4), (4, 100), (1_000, 999), (999, 1_000), (1 << 20, 3)] {
            let blocks = Blocks::new(count, of);
            let all: Vec<u32> = (0..blocks.runs()).flat_map(|run| blocks.run(run)).collect();
            assert!(all.iter().copied().eq(0..count), "{count} {of}");
            for step in 0..5_000_u64 {
                let place = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let part = ((u128::from(place) * u128::from(of)) >> 64) as u64;
                let mine = |run: &u32| blocks.run(*run).contains(&blocks.at(place));
                let run = (0..blocks.runs()).find(mine).unwrap();
                assert!(blocks.touch(&blocks.run(run), part), "{count} {of} {place}");
            }
            for part in 0..of {
                let reads = (0..blocks.runs()).filter(|run| blocks.touch(&blocks.run(*run), part)).count();
                assert!((1..=READS as usize).contains(&reads), "{count} {of}: {reads}");
            }
        }
    }

    #[test]
    fn partitions_are_as_large_as_is_public() {
        assert_eq!(Partitions::of(Partitioning::Each, 1 << 40).most(), 1);
        assert_eq!(Partitions::of(Partitioning::Blocks(10), 10_000).most(), 2 * 1_100 + 64);
        assert_eq!(Partitions::of(Partitioning::Blocks(1 << 20), 5).most(), 66);
    }
}
