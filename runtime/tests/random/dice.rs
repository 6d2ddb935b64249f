//! Numbers that follow from a seed, on any machine.
//!
//! *In*: a seed. *Out*: the same choices each time (SplitMix64: Steele, Lea, Flood 2014).

/// A source of choices.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `least..=most`.
    pub(crate) fn within(&mut self, least: u64, most: u64) -> u64 {
        least + self.word() % (most.max(least) - least + 1)
    }

    /// One of `least..=most`, of whose size nothing is known: small ones are as likely as large ones.
    pub(crate) fn size(&mut self, least: u64, most: u64) -> u64 {
        let bits = self.within(u64::from(least.max(1).ilog2()), u64::from(most.max(1).ilog2()));
        self.within(1 << bits, (2 << bits) - 1).clamp(least, most)
    }

    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.word() as usize % of.len()]
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.word().is_multiple_of(one_in)
    }
}
