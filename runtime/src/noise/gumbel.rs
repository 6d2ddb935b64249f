//! Gumbel noise in integers, with a bound on its error.
//!
//! *In*: random bits of OpenDP's generator, and a scale. *Out*: for each entry scale x G in units
//! of 2^-62 steps, where G has the Gumbel distribution, P(G <= g) = exp(-e^-g). *Trusts*: the
//! generator. *Refuses*: a generator of nothing but zeros.
//!
//! G is -ln(s), where s is an exponential: h ln 2 - ln(1 - v), where h counts halvings (P(h >= n) =
//! 2^-n) and v is uniform below 1/2. Both logarithms are the same series, of numbers in steps of
//! 2^-127. No floating-point number takes part. v has 128 bits after its leading zeros, however
//! many those are, so small s, which decide choices, are as exact as large ones.
//!
//! **The error.** For real v, h and the exact G that follows from them, a draw is scale x G within
//! `error`. The parts: v is cut to 2^-127 of itself. [`series`] lacks its terms beyond the 96th,
//! below 2^-101 of it, and 2^-125 by rounding. Both together are below 2^-100 of s, and so of G as
//! a difference. The second logarithm adds 2^-101; the multiple of ln 2, of which there are fewer
//! than 2^12 in steps of 2^-110, adds 2^-98. All of these are less than 2^-97 in G. The product
//! with the scale is cut to a unit, and before that to a quarter of one.

use opendp::traits::samplers::fill_bytes;

use super::NoiseError;
use super::library::library;

/// A step of the sums has 2^62 units of a choice's noise. A sum of 64 bits then leaves room in 128.
pub(super) const UNITS_LOG2: u32 = 62;
/// Scales below which the error of `error` would not be proven to be small, and from which on a
/// product would not fit 128 bits.
pub(super) const SCALES: std::ops::Range<u64> = 1 << 12..1 << 49;
/// Fractional bits of G.
const GUMBEL_LOG2: u32 = 110;
/// ln 2 in steps of 2^-128.
const LN_2: u128 = 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF;
/// Terms of the series.
const TERMS: usize = 96;
/// 1/1, 1/2, 1/3 and so on in steps of 2^-127.
const RECIPROCALS: [u128; TERMS] = reciprocals();
/// Zeros in a row after which the generator is broken: 2^-2048 is the chance of a good one to give
/// them.
const MOST_ZEROS: u32 = 2_048;

/// How far a draw may be from scale x G, in scales: the error of one choice's scores.
#[cfg(test)]
#[expect(clippy::cast_precision_loss, reason = "scales are below 2^49: exact")]
pub(super) fn error(scale: u64) -> f64 {
    1.25 / (f64::from(UNITS_LOG2).exp2() * scale as f64) + f64::from(-97).exp2()
}

/// Draws so many entries, in units of 2^-62 steps. `scale`, in steps, lies within [`SCALES`].
pub(super) fn draw(scale: u64, entries: usize) -> Result<Vec<i128>, NoiseError> {
    let one = |_| {
        let (halvings, zeros) = (zeros()?, zeros()?);
        let bits = u128::from(word()?) << 64 | u128::from(word()?);
        Ok(times(scale, gumbel(halvings, zeros, bits | 1 << 127)))
    };
    (0..entries).map(one).collect()
}

fn word() -> Result<u64, NoiseError> {
    let mut bytes = [0; 8];
    fill_bytes(&mut bytes).map_err(library)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Zeros before the first one in a sequence of random bits.
fn zeros() -> Result<u32, NoiseError> {
    let mut zeros = 0;
    while zeros < MOST_ZEROS {
        let word = word()?;
        if word != 0 {
            return Ok(zeros + word.leading_zeros());
        }
        zeros += u64::BITS;
    }
    Err(NoiseError::OpenDp("the generator gives nothing but zeros".to_owned()))
}

/// -ln(s) in steps of 2^-110, where s = halvings x ln 2 - ln(1 - v) and v = mantissa x 2^-(129 +
/// zeros). The mantissa's highest bit is set.
fn gumbel(halvings: u32, zeros: u32, mantissa: u128) -> i128 {
    let fraction = shifted(mantissa, zeros + 1);
    // -ln(1 - v) = below x 2^-(128 + zeros).
    let below = high(mantissa, series(fraction));
    // s as a mantissa whose highest bit is set, and a shift: s = mantissa x 2^-(128 + shift).
    let (whole, shift) = match halvings {
        0 => (below, i64::from(zeros)),
        _ => (u128::from(halvings) * (LN_2 >> 12) + shifted(below, zeros + 12), -12),
    };
    let mantissa = whole << whole.leading_zeros();
    let shift = shift + i64::from(whole.leading_zeros());
    // -ln(s) = shift x ln 2 - ln(mantissa): the mantissa is 1 - v for a v of at most 1/2.
    let rest = mantissa.wrapping_neg();
    let logarithm = high(rest, series(rest)) >> (127 - GUMBEL_LOG2);
    i128::from(shift) * (LN_2 >> (128 - GUMBEL_LOG2)).cast_signed() + logarithm.cast_signed()
}

/// scale x G, in units, from G in steps of 2^-110. The product has up to 172 bits, so it is made of
/// two.
const fn times(scale: u64, gumbel: i128) -> i128 {
    const LOW: u32 = GUMBEL_LOG2 - UNITS_LOG2 - 2;
    let scale = scale as i128;
    (scale * (gumbel >> LOW) + ((scale * (gumbel & ((1 << LOW) - 1))) >> LOW)) >> 2
}

/// -ln(1 - v) / v = 1 + v/2 + v^2/3 + ... in steps of 2^-127, where `v` is in steps of 2^-128 and
/// at most 1/2. Too small by at most 2^-100 of it.
fn series(v: u128) -> u128 {
    RECIPROCALS.iter().rev().fold(0, |sum, reciprocal| reciprocal + high(v, sum))
}

const fn shifted(x: u128, right: u32) -> u128 {
    match x.checked_shr(right) {
        Some(x) => x,
        None => 0,
    }
}

/// The upper 128 bits of a product.
const fn high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a_high, a_low, b_high, b_low) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let middle = a_high * b_low + ((a_low * b_low) >> 64);
    let carry = a_low * b_high + (middle & LOW);
    a_high * b_high + (middle >> 64) + (carry >> 64)
}

const fn reciprocals() -> [u128; TERMS] {
    let mut reciprocals = [1 << 127; TERMS];
    let mut term = 1;
    while term < TERMS {
        #[expect(clippy::indexing_slicing, reason = "in a constant: out of bounds does not compile")]
        {
            reciprocals[term] /= term as u128 + 1;
        }
        term += 1;
    }
    reciprocals
}

#[cfg(test)]
mod tests {
    use super::*;
    use dashu_float::FBig;
    use dashu_float::ops::Abs;

    type Real = FBig;

    /// 400 bits.
    fn real(significand: u128, exponent: isize) -> Real {
        Real::from_parts(significand.into(), exponent).with_precision(400).value()
    }

    fn signed(value: i128, exponent: isize) -> Real {
        let magnitude = real(value.unsigned_abs(), exponent);
        if value < 0 { -magnitude } else { magnitude }
    }

    fn exactly(halvings: u32, zeros: u32, mantissa: u128) -> Real {
        let v = real(mantissa, -129 - zeros as isize);
        let s = real(halvings.into(), 0) * real(2, 0).ln() - (-v).ln_1p();
        -s.ln()
    }

    /// Against logarithms of 400 bits: every number of halvings and zeros that the generator may
    /// give, mantissas at both ends and anywhere. A v that is larger by what its mantissa was cut
    /// changes s by 2^-127 of it, which the bound has room for.
    #[test]
    fn draws_are_as_exact_as_the_proof_says() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u128::from(state)
        };
        let most = MOST_ZEROS - 1;
        let mut cases = vec![];
        for halvings in [0, 1, 2, 3, 64, 700, most] {
            for zeros in [0, 1, 2, 31, 63, 64, 100, 126, 127, 128, 129, 700, most] {
                cases.push((halvings, zeros, 1 << 127));
                cases.push((halvings, zeros, u128::MAX));
            }
        }
        for _ in 0..400 {
            let run = |bits: u128| (bits as u64 | 1 << 40).trailing_zeros();
            cases.push((run(next()), run(next()), next() << 64 | next() | 1 << 127));
        }
        let bound = real(1, -97);
        for (halvings, zeros, mantissa) in cases {
            let want = exactly(halvings, zeros, mantissa);
            let found = gumbel(halvings, zeros, mantissa);
            let off = (signed(found, -110) - &want).abs();
            assert!(off < bound, "{halvings} {zeros} {mantissa:x}: off by {off}");
            for scale in [SCALES.start, 1_234_567_891_011, SCALES.end - 1] {
                let off = (signed(times(scale, found), -62) - real(scale.into(), 0) * &want).abs();
                let bound = Real::try_from(error(scale) * scale as f64).unwrap();
                assert!(off < bound, "{halvings} {zeros} {mantissa:x} x {scale}: off by {off}");
            }
        }
    }

    /// The largest that can be drawn leaves room for a sum of 64 bits.
    #[test]
    fn draws_and_sums_fit() {
        let most = MOST_ZEROS - 1;
        for gumbel in [gumbel(0, most, 1 << 127), gumbel(most, 0, u128::MAX)] {
            let noise = times(SCALES.end - 1, gumbel);
            assert!(noise.unsigned_abs() < 1 << 123);
            for sum in [i64::MIN, i64::MAX] {
                (i128::from(sum) << UNITS_LOG2).checked_add(noise).unwrap();
            }
        }
    }

    #[test]
    fn products_are_the_upper_half_of_all_bits() {
        for (a, b, want) in [
            (u128::MAX, u128::MAX, u128::MAX - 1),
            (1 << 127, 1 << 127, 1 << 126),
            (u128::MAX, 1, 0),
            (1 << 64, (1 << 64) - 1, 0),
            (1 << 64, 1 << 64, 1),
            (u128::MAX, 1 << 64, (1 << 64) - 1),
        ] {
            assert_eq!((high(a, b), high(b, a)), (want, want), "{a:x} {b:x}");
        }
    }
}
