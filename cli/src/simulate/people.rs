//! People as mosaics of founders: each of a person's two haplotypes copies one founder for some blocks, then another.
//!
//! *In*: founders, block after block. *Out*: for each block, [`Square`]s: 64 people's alleles at 64 variants, one word for each variant and
//! haplotype. The next block of a haplotype is copied from another founder with a probability of 1/8.

use rand::Rng as _;
use rand_pcg::Pcg64;

use super::haplotypes::{BLOCK, FOUNDERS, Founders};

/// Whom everybody copies at present.
pub(crate) struct Mosaic {
    /// Two for each person.
    copied: Vec<u8>,
}

/// The alleles of 64 people at the 64 variants of a block: for each variant a bit for each person.
pub(crate) struct Square {
    pub(crate) first: [u64; BLOCK],
    pub(crate) second: [u64; BLOCK],
}

impl Mosaic {
    pub(crate) fn new(people: usize, random: &mut Pcg64) -> Self {
        let mut copied = vec![0; people.next_multiple_of(64) * 2];
        random.fill_bytes(&mut copied);
        Self { copied }
    }

    /// Goes on to the next block.
    pub(crate) fn step(&mut self, random: &mut Pcg64) {
        const { assert!(FOUNDERS == 256, "a byte says which founder") };
        for four in self.copied.chunks_mut(4) {
            // Two bytes of randomness for each: one says whether, one whom.
            let [a, b, c, d, e, f, g, h] = random.next_u64().to_le_bytes();
            for (founder, (whether, whom)) in four.iter_mut().zip([(a, b), (c, d), (e, f), (g, h)]) {
                if whether < 32 {
                    *founder = whom;
                }
            }
        }
    }

    /// Everybody at this block, 64 people at a time.
    pub(crate) fn squares(&self, founders: &Founders) -> impl Iterator<Item = Square> {
        self.copied.chunks_exact(128).map(move |copied| {
            let mut square = Square { first: [0; 64], second: [0; 64] };
            let both = square.first.iter_mut().zip(&mut square.second);
            for ((first, second), pair) in both.zip(copied.chunks_exact(2)) {
                let of = |at: usize| pair.get(at).and_then(|founder| founders.haplotypes.get(usize::from(*founder))).copied();
                (*first, *second) = (of(0).unwrap_or(0), of(1).unwrap_or(0));
            }
            turn(&mut square.first);
            turn(&mut square.second);
            square
        })
    }
}

/// Mirrors 64 x 64 bits at the diagonal (Warren, Hacker's Delight, section 7-3, from the lowest bit).
fn turn(rows: &mut [u64; 64]) {
    let mut width = 32;
    let mut mask = 0x0000_0000_ffff_ffff_u64;
    while width > 0 {
        let mut at = 0;
        while at < 64 {
            let (head, tail) = rows.split_at_mut(at + width);
            for (low, high) in head.iter_mut().skip(at).zip(tail.iter_mut()).take(width) {
                let swap = ((*low >> width) ^ *high) & mask;
                *low ^= swap << width;
                *high ^= swap;
            }
            at += 2 * width;
        }
        width /= 2;
        mask ^= mask << width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn bits_are_mirrored() {
        let mut random = Pcg64::seed_from_u64(1);
        let rows: [u64; 64] = std::array::from_fn(|_| random.next_u64());
        let mut turned = rows;
        turn(&mut turned);
        for (row, column) in (0..64).flat_map(|row| (0..64).map(move |column| (row, column))) {
            assert_eq!(turned[column] >> row & 1, rows[row] >> column & 1);
        }
    }

    #[test]
    fn people_have_the_founders_alleles() {
        let mut random = Pcg64::seed_from_u64(2);
        let mut mosaic = Mosaic::new(100, &mut random);
        mosaic.step(&mut random);
        let founders = Founders::draw(&mut random);
        let squares: Vec<Square> = mosaic.squares(&founders).collect();
        assert_eq!(squares.len(), 2);
        for person in 0..100 {
            for variant in 0..64 {
                let square = &squares[person / 64];
                let found = [square.first[variant], square.second[variant]].map(|word| word >> (person % 64) & 1);
                let want = [0, 1].map(|at| founders.haplotypes[usize::from(mosaic.copied[2 * person + at])] >> variant & 1);
                assert_eq!(found, want);
            }
        }
    }
}
