//! Which rows make up a row group: a range of the keyed order, so that nobody's presence moves another's group.
//!
//! *In*: everybody's place in the keyed order, and the size that the site has made public. *Out*: where each group begins and ends.
//! *Refuses*: many more people than that size says, and a small part of very many.
//!
//! How long a round takes is bounded group by group (docs/PRIVACY.md, "Time"); that holds only if one more person makes one group
//! longer and leaves the others as they are. So a part of the order in which nobody is makes a group too: how many groups there are, and so how many
//! pieces a round has, or tasks at a cluster, follows from the size alone. That a size is far too large tells nothing, then; it is refused where it
//! would make thousands of groups for nobody.

use std::ops::Range;

use super::super::store::GROUP_ROWS;
use super::IngestError;

/// People of a group on average. With a tenth more people than was said, a group is over [`GROUP_ROWS`] with a probability below
/// 10^-16 (Chernoff: mean 770, 254 above it).
pub(crate) const MEAN_ROWS: u64 = 700;

/// Groups of which most may be empty: where there are more, a sixteenth of the people that they are for must be there.
const FEW: u64 = 64;

/// The rows of each group, in order.
#[derive(Debug)]
pub(super) struct Groups(Vec<Range<usize>>);

impl Groups {
    /// `order`: everybody's place in the keyed order, ascending and each different.
    pub(super) fn new(order: &[[u8; 16]], approximate_size: u64) -> Result<Self, IngestError> {
        let individuals = order.len() as u64;
        if individuals > MEAN_ROWS && individuals > approximate_size.saturating_add(approximate_size / 10) {
            return Err(IngestError::Size { said: approximate_size, found: individuals });
        }
        if approximate_size > FEW.saturating_mul(MEAN_ROWS) && individuals < approximate_size / 16 {
            return Err(IngestError::Size { said: approximate_size, found: individuals });
        }
        let mut count = approximate_size.div_ceil(MEAN_ROWS).clamp(1, 1 << 24);
        loop {
            let groups = ranges(order, count);
            if groups.iter().all(|group| group.len() <= GROUP_ROWS) {
                return Ok(Self(groups));
            }
            count = count.saturating_mul(2);
        }
    }

    /// All of them, empty ones among them: equal parts of the keyed order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().cloned()
    }

    /// A row's group and its place there as one number: 1,024 to a group.
    pub(super) fn slot(&self, row: usize) -> usize {
        let group = self.0.partition_point(|rows| rows.end <= row);
        let place = self.0.get(group).map_or(0, |rows| row.saturating_sub(rows.start));
        group.saturating_mul(GROUP_ROWS).saturating_add(place)
    }

    /// How many slots there are.
    pub(super) fn slot_count(&self) -> usize {
        match self.0.as_slice() {
            [all] => all.len(),
            groups => groups.len().saturating_mul(GROUP_ROWS),
        }
    }
}

/// The ranges of `count` equal parts of the order, the empty ones among them.
fn ranges(order: &[[u8; 16]], count: u64) -> Vec<Range<usize>> {
    let part = |place: &[u8; 16]| {
        let head = u64::from_be_bytes(*place.first_chunk().expect("8 of 16 bytes"));
        (u128::from(head).wrapping_mul(u128::from(count)) >> 64) as u64
    };
    let mut start = 0;
    let mut group = |number: u64| {
        let end = order.partition_point(|place| part(place) <= number);
        let range = start..end;
        start = end;
        range
    };
    (0..count).map(&mut group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::StoreKey;

    fn order(people: usize) -> Vec<[u8; 16]> {
        let key = StoreKey::from_bytes([5; 32]);
        let mut order: Vec<_> = (0..people).map(|person| key.order(&format!("p{person}"))).collect();
        order.sort_unstable();
        order
    }

    #[test]
    fn one_person_more_makes_one_group_longer_and_moves_no_other() {
        let with = order(5_001);
        let before = Groups::new(&with, 5_000).unwrap();
        assert_eq!(before.0.len(), 8);
        for gone in (0..with.len()).step_by(97) {
            let mut without = with.clone();
            without.remove(gone);
            let after = Groups::new(&without, 5_000).unwrap();
            let differ: Vec<_> = before.iter().zip(after.iter()).filter(|(a, b)| a.len() != b.len()).collect();
            let [(a, b)] = differ.as_slice() else { panic!("{differ:?}") };
            assert!(a.contains(&gone) && a.len() == b.len() + 1);
        }
    }

    #[test]
    fn every_row_has_a_slot_of_its_own_and_no_group_is_too_long() {
        for (people, said) in [(1, 1), (700, 1), (1_500, 1_400), (5_000, 5_000), (20_000, 19_000)] {
            let order = order(people);
            let groups = Groups::new(&order, said).unwrap();
            assert_eq!(groups.iter().map(|rows| rows.len()).sum::<usize>(), people);
            let slots: Vec<usize> = (0..people).map(|row| groups.slot(row)).collect();
            assert!(slots.len() == people && slots.is_sorted_by(|a, b| a < b));
            assert!(slots.last().is_some_and(|last| *last < groups.slot_count()));
        }
    }

    #[test]
    fn how_many_groups_there_are_follows_from_the_public_size_alone() {
        for (said, groups) in [(1, 1), (700, 1), (701, 2), (44_800, 64)] {
            for people in [0, 1, 5, 700] {
                let found = Groups::new(&order(people), said).unwrap();
                assert_eq!(found.iter().count(), groups, "{people} of {said}");
                assert_eq!(found.iter().map(|rows| rows.len()).sum::<usize>(), people);
            }
        }
    }

    #[test]
    fn a_size_that_would_make_very_many_groups_for_nobody_is_refused() {
        assert_eq!(Groups::new(&order(2_799), 44_801).unwrap_err().code(), "size-differs");
        assert_eq!(Groups::new(&order(2_801), 44_801).unwrap().0.len(), 65);
        assert_eq!(Groups::new(&order(3), u64::MAX).unwrap_err().code(), "size-differs");
    }

    #[test]
    fn a_size_that_is_far_too_small_is_refused() {
        assert_eq!(Groups::new(&order(1_200), 1_000).unwrap_err().code(), "size-differs");
        assert_eq!(Groups::new(&order(1_100), 1_000).unwrap().0.len(), 2);
    }
}
