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
    let cut = |value: f64| whole(times(value, per_unit)).clamp(-WIDEST, WIDEST);
    match contribution {
        Given::None | Given::Cell(_) => return false,
        Given::Bytes(values) => look_up(values, |byte| cut(byte.into()), steps),
        Given::Small(values) => look_up(values, |byte| cut(byte.cast_signed().into()), steps),
        Given::Integers(values) => steps.extend(values.iter().map(|&value| cut(value as f64))),
        Given::IntegerWords(words) => steps.extend(words.iter().map(|&word| cut(i64::from_le_bytes(word) as f64))),
        Given::Reals(values) => {
            let shrink = if ball { within(values.iter().copied(), WIDEST as f64 / per_unit) } else { 1.0 };
            steps.extend(values.iter().map(|&value| cut(times(value, shrink))));
        }
        Given::RealWords(words) => {
            let values = || words.iter().map(|&word| f64::from_le_bytes(word));
            let shrink = if ball { within(values(), WIDEST as f64 / per_unit) } else { 1.0 };
            steps.extend(values().map(|value| cut(times(value, shrink))));
        }
    }
    true
}

/// The product; 0 where that, or a factor, is subnormal or next to it. Processors take some 40 ns for
/// each such product, ten times as long as for all else that is done to an entry: which numbers a guest
/// gives must not decide how long this takes.
#[inline]
fn times(value: f64, factor: f64) -> f64 {
    /// Where the exponent lies in the bits of a double, what it is biased by, and its infinity (IEEE 754).
    const EXPONENT_SHIFT: u32 = 52;
    const BIAS: u64 = 1_023;
    const INFINITE: u64 = 0x7ff;
    let exponent = |of: f64| (of.to_bits() >> EXPONENT_SHIFT) & INFINITE;
    let (of_value, of_factor) = (exponent(value), exponent(factor));
    // The exponent of the product is this sum less the bias, or one more.
    let normal = of_value != 0 && of_factor != 0 && of_value.wrapping_add(of_factor) > BIAS.wrapping_add(1);
    // Chosen before it is multiplied: a product that is then thrown away has taken its time.
    (if normal { value } else { 0.0 }) * (if normal { factor } else { 1.0 })
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
            assert_eq!(times(value, factor), value * factor, "{value} {factor}");
        }
        assert!(times(f64::NAN, 2.0).is_nan());
        for (value, factor) in
            [(1e-310, 1.0), (-1e-310, 1e300), (1e-200, 1e-200), (1e-160, -1e-160), (1.0, 1e-310), (tiny, 0.5)]
        {
            assert_eq!(times(value, factor), 0.0, "{value} {factor}");
        }
    }

    /// What a guest gives does not decide how long quantising takes: 41 ns a product were seen where a
    /// factor or the product was subnormal, and 1 ns elsewhere. No time is tested here: that no
    /// intermediate is subnormal.
    #[test]
    fn subnormal_numbers_are_no_steps_at_all() {
        let grid = |ball| Grid { entries: 3, log2_scale: 40, ball };
        let mut steps = vec![];
        assert!(quantise(grid(false), Given::Reals(&[1e-310, -1e-310, 1.0]), &mut steps));
        assert_eq!(steps, [0, 0, 1 << 40]);
        assert!(quantise(grid(true), Given::Reals(&[1e300, 1e-20, -1e-20]), &mut steps));
        assert_eq!((steps[1], steps[2]), (0, 0));
        assert!(steps[0] > 0);
    }
}
