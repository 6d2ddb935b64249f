//! The k largest of many numbers, in a time that does not follow from the numbers.
//!
//! *In*: keys. *Out*: 1 for each of the k largest, 0 for the others. *Trusts*: that a comparison of
//! two numbers takes as long whatever they are. *Refuses*: nothing; of equal keys the first are
//! chosen.
//!
//! The k-th largest key is found bit by bit: how many keys are at least a limit is counted 128
//! times, by one pass over all of them that branches on nothing. A sort, a heap or a partition
//! would move and compare as the keys ask for.

/// Bits of a key, each of which is decided by one pass.
const PASSES: u32 = i128::BITS;

/// One for each of the `k` largest, of equal ones the first; zero for the others.
pub(super) fn largest(keys: &[i128], k: usize) -> Vec<i64> {
    let least = kth(k, |limit| keys.iter().map(|key| usize::from(*key >= limit)).sum());
    let above: usize = keys.iter().map(|key| usize::from(*key > least)).sum();
    let mut room = k.saturating_sub(above);
    let vote = |key: &i128| {
        let equal = usize::from(*key == least) & usize::from(room > 0);
        room = room.saturating_sub(equal);
        i64::from(*key > least) | i64::from(equal == 1)
    };
    keys.iter().map(vote).collect()
}

/// The largest limit that at least `k` keys reach, where `reach` counts those that do: the k-th
/// largest key. Asks as often, whatever it hears.
fn kth(k: usize, mut reach: impl FnMut(i128) -> usize) -> i128 {
    // Bits of an unsigned number that is in the same order: the highest is turned.
    let signed = |bits: u128| (bits ^ 1 << (PASSES - 1)).cast_signed();
    let pass = |bits: u128, place: u32| {
        let reached = reach(signed(bits | 1 << place)) >= k;
        bits | u128::from(reached) << place
    };
    signed((0..PASSES).rev().fold(0, pass))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(keys: &[i128], k: usize) -> Vec<i64> {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&at| (std::cmp::Reverse(keys[at]), at));
        let mut votes = vec![0; keys.len()];
        order.into_iter().take(k).for_each(|at| votes[at] = 1);
        votes
    }

    /// Numbers that are alike, far apart, at both ends, and all the same; every k.
    #[test]
    fn the_largest_are_those_that_a_sort_puts_first() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            i128::from(state.cast_signed()) << 64 | i128::from(state)
        };
        for length in [1, 2, 3, 8, 33] {
            for case in 0..24 {
                let keys: Vec<i128> = (0..length)
                    .map(|at| match case % 6 {
                        0 => next(),
                        1 => next() >> 125,
                        2 => next() >> 64,
                        3 => [i128::MIN, i128::MAX, 0, -1][at % 4],
                        4 => -7,
                        _ => i128::from(at == 2) << 100,
                    })
                    .collect();
                for k in 1..=length {
                    assert_eq!(largest(&keys, k), sorted(&keys, k), "{keys:?}, {k}");
                }
            }
        }
    }

    /// The counter that stands for a clock: as many passes, over all keys, whatever they are and
    /// however many are chosen.
    #[test]
    fn the_work_does_not_follow_from_the_keys() {
        for keys in [vec![0; 50], (0..50).collect(), (0..50).rev().collect(), vec![i128::MAX; 50], {
            let mut keys = vec![0; 50];
            keys[7] = 1 << 120;
            keys
        }] {
            for k in [1, 2, 49, 50] {
                let mut passes = 0;
                let found = kth(k, |limit| {
                    passes += 1;
                    keys.iter().filter(|key| **key >= limit).count()
                });
                let mut order = keys.clone();
                order.sort_unstable_by(|a, b| b.cmp(a));
                assert_eq!((passes, found), (128, order[k - 1]));
            }
        }
    }
}
