//! What a guest gave becomes whole steps inside a bound.
//!
//! *In*: one contribution, or one vector of steps, and the shape and bound that the round declared. *Out*: integers that obey the bound, which is checked
//! in integers. *Trusts*: nothing of the guest. *Refuses*: nothing: what has another shape counts as none, what is too large is made smaller.

use vestibule_protocol::calibration::{IntegerBound, steps_per_unit, whole};
use vestibule_sandbox::Given;

/// Entries are cut to this many steps before norms are taken, so that squares and sums of them fit in 128 bits.
const WIDEST: i64 = 1 << 50;

/// What a list of numbers becomes.
pub(super) struct Grid {
    pub(super) entries: usize,
    pub(super) log2_scale: i32,
    /// Whether far outside all entries shrink together.
    pub(super) ball: bool,
}

/// The contribution in steps, rounded toward zero and cut to ±[`WIDEST`]; `false` where it has not the shape.
#[expect(clippy::cast_precision_loss, reason = "integers beyond 2^53 are far outside every bound and are cut")]
pub(super) fn quantise(grid: Grid, contribution: Given<'_>, steps: &mut Vec<i64>) -> bool {
    let Grid { entries, log2_scale, ball } = grid;
    steps.clear();
    if contribution.entries() != Some(entries) {
        return false;
    }
    let per_unit = steps_per_unit(log2_scale);
    let factor = Factor::new(per_unit);
    // A step is a power of two, so that a factor of both rounds as the one before it alone.
    let shrunk = |shrink: f64| Factor::new(shrink * per_unit);
    let cut_by = |value: f64, factor: Factor| whole(factor.times(value)).clamp(-WIDEST, WIDEST);
    let cut = |value: f64| cut_by(value, factor);
    match contribution {
        Given::None | Given::Cell(_) => return false,
        Given::Bytes(values) => look_up(values, |byte| cut(byte.into()), steps),
        Given::Small(values) => look_up(values, |byte| cut(byte.cast_signed().into()), steps),
        Given::Integers(values) => steps.extend(values.iter().map(|&value| cut(value as f64))),
        Given::IntegerWords(words) => steps.extend(words.iter().map(|&word| cut(i64::from_le_bytes(word) as f64))),
        Given::Reals(values) => {
            let shrink = if ball { within(values.iter().copied(), WIDEST as f64 / per_unit) } else { 1.0 };
            let factor = shrunk(shrink);
            steps.extend(values.iter().map(|&value| cut_by(value, factor)));
        }
        Given::RealWords(words) => {
            let values = || words.iter().map(|&word| f64::from_le_bytes(word));
            let shrink = if ball { within(values(), WIDEST as f64 / per_unit) } else { 1.0 };
            let factor = shrunk(shrink);
            steps.extend(values().map(|value| cut_by(value, factor)));
        }
    }
    true
}

/// What values are multiplied by.
#[derive(Clone, Copy)]
struct Factor {
    factor: f64,
    /// The bits of the smallest value, without its sign, whose product is multiplied.
    least: u64,
}

/// Where the exponent lies in the bits of a double, what it is biased by, and the infinite one (IEEE 754).
const EXPONENT_SHIFT: u32 = 52;
const BIAS: u64 = 1_023;
const INFINITE: u64 = 0x7ff;
const SIGN: u64 = 1 << 63;

impl Factor {
    fn new(factor: f64) -> Self {
        match (factor.to_bits() >> EXPONENT_SHIFT) & INFINITE {
            0 => Self { factor: 0.0, least: u64::MAX },
            // The exponent of a product is the sum of both less the bias, or one more.
            exponent => {
                let least = BIAS.wrapping_add(2).saturating_sub(exponent).max(1);
                Self { factor, least: least << EXPONENT_SHIFT }
            }
        }
    }

    /// The product; 0 where that, the factor or the value is subnormal, or next to it. Processors take
    /// some 40 ns for each such product, ten times as long as for all else that is done to an entry:
    /// which numbers a guest gives must not decide how long this takes.
    #[inline]
    fn times(self, value: f64) -> f64 {
        // Chosen before it is multiplied: a product that is then thrown away has taken its time.
        (if value.to_bits() & !SIGN >= self.least { value } else { 0.0 }) * self.factor
    }
}

fn look_up(values: &[u8], step: impl Fn(u8) -> i64, steps: &mut Vec<i64>) {
    let table: [i64; 256] = std::array::from_fn(|byte| step(u8::try_from(byte).unwrap_or(u8::MAX)));
    // Every byte is an index of the table.
    steps.extend(values.iter().map(|&byte| table.get(usize::from(byte)).copied().unwrap_or(0)));
}

/// Far outside, all entries of a ball's vector shrink together, so that its clipping keeps the direction: by how much.
fn within(values: impl Iterator<Item = f64>, widest: f64) -> f64 {
    let largest = values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max);
    if largest > widest { widest / largest } else { 1.0 }
}

/// Brings a vector inside its bound. Afterwards the bound holds, in integers, for every input.
pub(super) fn enforce(bound: IntegerBound, steps: &mut [i64]) {
    match bound {
        IntegerBound::Range { lower, upper } => steps.iter_mut().for_each(|step| *step = (*step).clamp(lower, upper)),
        // One-cell contributions never come here; were one to, it would count as nothing.
        IntegerBound::OneCell { .. } => steps.fill(0),
        IntegerBound::L2 { radius } => {
            let squared = |steps: &[i64]| {
                let largest = steps.iter().fold(0, |largest, step| step.unsigned_abs().max(largest));
                // Nearly always all squares and their sum fit 64 bits, which is several times as fast.
                match largest.checked_pow(2).and_then(|square| square.checked_mul(steps.len() as u64)) {
                    Some(_) => u128::from(steps.iter().map(|step| step.unsigned_abs().pow(2)).sum::<u64>()),
                    None => steps.iter().map(|step| u128::from(step.unsigned_abs()).pow(2)).sum(),
                }
            };
            shrink(steps, u128::from(radius).pow(2), squared, |limit, norm| (limit / norm).sqrt());
        }
        IntegerBound::L1 { radius } => {
            let absolute = |steps: &[i64]| steps.iter().map(|step| u128::from(step.unsigned_abs())).sum::<u128>();
            shrink(steps, u128::from(radius), absolute, |limit, norm| limit / norm);
        }
    }
}

/// Scales toward zero until the norm is within its limit. Truncation never increases a norm; a second or third pass covers the
/// rounding of the factor; should that ever not be enough, the contribution counts as nothing.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "the factor is approximate; the norm is checked in integers"
)]
pub(super) fn shrink(steps: &mut [i64], limit: u128, norm: impl Fn(&[i64]) -> u128, factor: impl Fn(f64, f64) -> f64) {
    for attempt in 0..4 {
        let found = norm(steps);
        if found <= limit {
            return;
        }
        let factor = factor(limit as f64, found as f64) * (1.0 - f64::from(attempt) * 1e-12);
        steps.iter_mut().for_each(|step| *step = (*step as f64 * factor) as i64);
    }
    if norm(steps) > limit {
        steps.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_what_it_was_where_it_is_normal_and_else_0() {
        let tiny = f64::MIN_POSITIVE;
        for (value, factor) in [
            (1.5, 2.0),
            (-3.25, 1024.0),
            (1e300, 1e-300),
            (-1e300, 1e300),
            (f64::INFINITY, 2.0),
            (tiny * 8.0, 1.0),
            (tiny, 1e300),
            (0.0, 5.0),
        ] {
            assert_eq!(Factor::new(factor).times(value), value * factor, "{value} {factor}");
        }
        assert!(Factor::new(2.0).times(f64::NAN).is_nan());
        for (value, factor) in
            [(1e-310, 1.0), (-1e-310, 1e300), (1e-200, 1e-200), (1e-160, -1e-160), (1.0, 1e-310), (tiny, 0.5)]
        {
            assert_eq!(Factor::new(factor).times(value), 0.0, "{value} {factor}");
        }
    }
}
