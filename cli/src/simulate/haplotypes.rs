//! Founder haplotypes with the frequencies and the linkage of a neutral population.
//!
//! *In*: a generator. *Out*: [`Founders`] of one block of 64 variants after the other. Within a block all founders descend from one tree:
//! Kingman's coalescent of 256 leaves, on whose branches mutations fall in proportion to their lengths. So derived alleles are rare as
//! 1/x, and variants of a block are linked as those of one gene are. Blocks are independent; what links them is that a person's
//! haplotype copies one founder for several blocks. (Kingman 1982; Hudson 1990.)

use rand::{Rng as _, RngExt as _};
use rand_pcg::Pcg64;

/// Founders of a block.
pub(crate) const FOUNDERS: usize = 256;
/// Variants of a block.
pub(crate) const BLOCK: usize = 64;
/// The fewest and the most founders that carry a derived allele: minor alleles of 2 % or more.
const FEWEST: u32 = 6;

/// Which founders carry an allele: a bit each.
type Carriers = [u64; FOUNDERS / 64];

/// For each founder a bit for each of the block's variants.
pub(crate) struct Founders {
    pub(crate) haplotypes: [u64; FOUNDERS],
    /// How many founders carry each variant.
    pub(crate) counts: [u32; BLOCK],
}

/// A number above 0 and at most 1.
pub(crate) fn unit(random: &mut Pcg64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    let part = (random.next_u64() >> 11) as f64;
    (part + 1.0) / 9_007_199_254_740_992.0
}

/// Below `limit`.
pub(crate) fn below(random: &mut Pcg64, limit: usize) -> usize {
    random.random_range(0..limit.max(1))
}

impl Founders {
    /// The founders at the next block.
    pub(crate) fn draw(random: &mut Pcg64) -> Self {
        let branches = branches(random);
        let total: f64 = branches.iter().map(|(_, length)| length).sum();
        let mut founders = Self { haplotypes: [0; FOUNDERS], counts: [0; BLOCK] };
        for (variant, count) in founders.counts.iter_mut().enumerate() {
            let mut at = unit(random) * total;
            let struck = branches.iter().find(|(_, length)| {
                at -= length;
                at <= 0.0
            });
            let Some((carriers, _)) = struck.or(branches.last()) else { continue };
            *count = carriers.iter().map(|word| word.count_ones()).sum();
            for (founder, haplotype) in founders.haplotypes.iter_mut().enumerate() {
                let carries = carriers.get(founder / 64).is_some_and(|word| word >> (founder % 64) & 1 == 1);
                *haplotype |= u64::from(carries) << variant;
            }
        }
        founders
    }
}

/// The branches of a tree that lead to as many leaves as an allele is to have, with their lengths.
fn branches(random: &mut Pcg64) -> Vec<(Carriers, f64)> {
    let leaf = |founder: usize| {
        let mut carriers = [0; FOUNDERS / 64];
        carriers.iter_mut().skip(founder / 64).take(1).for_each(|word| *word = 1 << (founder % 64));
        (carriers, 0.0)
    };
    let mut open: Vec<(Carriers, f64)> = (0..FOUNDERS).map(leaf).collect();
    let mut done = Vec::new();
    let mut now = 0.0;
    while open.len() > 1 {
        #[expect(clippy::cast_precision_loss, reason = "at most 256 lines")]
        let pairs = (open.len() * (open.len() - 1)) as f64 / 2.0;
        now -= unit(random).ln() / pairs;
        let one = open.swap_remove(below(random, open.len()));
        let other = open.swap_remove(below(random, open.len()));
        let mut both = one.0;
        both.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
        done.extend([one, other].map(|(carriers, since)| (carriers, now - since)));
        open.push((both, now));
    }
    let common = |(carriers, _): &(Carriers, f64)| {
        let count: u32 = carriers.iter().map(|word| word.count_ones()).sum();
        (FEWEST..=256 - FEWEST).contains(&count)
    };
    done.retain(common);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    /// Of 1/x between 6 and 250 of 256, half lie below the geometric mean, 39; pairs within a block are linked, of two blocks are not.
    #[test]
    fn frequencies_and_linkage_are_those_of_a_neutral_population() {
        let mut random = Pcg64::seed_from_u64(1);
        let blocks: Vec<Founders> = (0..200).map(|_| Founders::draw(&mut random)).collect();
        let counts: Vec<u32> = blocks.iter().flat_map(|block| block.counts).collect();
        assert!(counts.iter().all(|count| (FEWEST..=250).contains(count)));
        let low = counts.iter().filter(|count| **count < 39).count() as f64 / counts.len() as f64;
        assert!((0.42..0.58).contains(&low), "{low}");
        let r2 = |a: &Founders, i: usize, b: &Founders, j: usize| {
            let bit = |block: &Founders, founder: usize, variant: usize| (block.haplotypes[founder] >> variant & 1) as f64;
            let mean = |f: &dyn Fn(usize) -> f64| (0..FOUNDERS).map(f).sum::<f64>() / FOUNDERS as f64;
            let (p, q) = (mean(&|f| bit(a, f, i)), mean(&|f| bit(b, f, j)));
            let d = mean(&|f| bit(a, f, i) * bit(b, f, j)) - p * q;
            d * d / (p * (1.0 - p) * q * (1.0 - q))
        };
        let pairs = |other: usize| (0..199).map(|at| r2(&blocks[at], 3, &blocks[at + other], 40)).sum::<f64>() / 199.0;
        assert!(pairs(0) > 0.1 && pairs(1) < 0.01, "{} {}", pairs(0), pairs(1));
    }
}
