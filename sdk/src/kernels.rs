//! Loops over dosages, 16 or more per iteration: the host counts fuel at each turn of a loop, which otherwise costs more than
//! the arithmetic, and simd128 wants whole vectors.
//!
//! *In*: dosages 0, 1, 2, or [`MISSING`]. *Out*: sums. A missing dosage adds nothing.

/// How a missing dosage is written.
pub const MISSING: u8 = 255;
const LANES: usize = 16;

/// The sum of the called dosages, and how many are called.
///
/// ```
/// assert_eq!(vestibule_sdk::kernels::sum(&[0, 1, 2, 255, 2]), (5, 4));
/// ```
#[must_use]
pub fn sum(dosages: &[u8]) -> (u64, u64) {
    let (mut total, mut called) = (0, 0);
    // 4,080 dosages of at most 2 in each of 16 lanes: 255 turns of at most 2 fit in u16.
    for block in dosages.chunks(LANES * 255) {
        let (mut sums, mut counts) = ([0_u16; LANES], [0_u16; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                let there = u16::from(chunk[lane] != MISSING);
                sums[lane] += u16::from(chunk[lane]) * there;
                counts[lane] += there;
            }
        }
        total += sums.iter().map(|&s| u64::from(s)).sum::<u64>();
        called += counts.iter().map(|&c| u64::from(c)).sum::<u64>();
        for &dosage in rest.iter().filter(|&&dosage| dosage != MISSING) {
            total += u64::from(dosage);
            called += 1;
        }
    }
    (total, called)
}

/// The sum of `weights[j] * dosages[j]`: a polygenic score. A missing dosage counts as 0; pass weights for centred dosages and
/// add the constant where that matters. The order of the additions is fixed: 16 partial sums, then their sum.
///
/// ```
/// assert_eq!(vestibule_sdk::kernels::dot(&[0, 1, 255, 2], &[9.0, 0.5, 9.0, -1.0]), -1.5);
/// ```
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot(dosages: &[u8], weights: &[f64]) -> f64 {
    assert!(dosages.len() == weights.len(), "{} dosages and {} weights", dosages.len(), weights.len());
    let mut sums = [0.0; LANES];
    let (dosage_chunks, dosage_rest) = dosages.as_chunks::<LANES>();
    let (weight_chunks, weight_rest) = weights.as_chunks::<LANES>();
    for (dosage, weight) in dosage_chunks.iter().zip(weight_chunks) {
        for lane in 0..LANES {
            sums[lane] += called(dosage[lane]) * weight[lane];
        }
    }
    let rest: f64 = dosage_rest.iter().zip(weight_rest).map(|(&dosage, weight)| called(dosage) * weight).sum();
    sums.iter().sum::<f64>() + rest
}

/// Writes `(dosages[j] - centres[j]) * factor` to `out[j]`, and 0 where the dosage is missing.
///
/// ```
/// let mut out = [0.0; 3];
/// vestibule_sdk::kernels::centre(&[0, 2, 255], &[0.5, 0.5, 0.5], 2.0, &mut out);
/// assert_eq!(out, [-1.0, 3.0, 0.0]);
/// ```
///
/// # Panics
/// If the lengths differ.
pub fn centre(dosages: &[u8], centres: &[f64], factor: f64, out: &mut [f64]) {
    assert!(dosages.len() == centres.len() && dosages.len() == out.len(), "dosages, centres and output differ in length");
    let one = |dosage: u8, centre: f64| if dosage == MISSING { 0.0 } else { (f64::from(dosage) - centre) * factor };
    let (dosage_chunks, dosage_rest) = dosages.as_chunks::<LANES>();
    let (centre_chunks, centre_rest) = centres.as_chunks::<LANES>();
    let (out_chunks, out_rest) = out.as_chunks_mut::<LANES>();
    for ((dosage, centre), out) in dosage_chunks.iter().zip(centre_chunks).zip(out_chunks) {
        for lane in 0..LANES {
            out[lane] = one(dosage[lane], centre[lane]);
        }
    }
    for ((&dosage, &centre), out) in dosage_rest.iter().zip(centre_rest).zip(out_rest) {
        *out = one(dosage, centre);
    }
}

fn called(dosage: u8) -> f64 {
    if dosage == MISSING { 0.0 } else { f64::from(dosage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gives_what_the_plain_loop_gives() {
        for length in [0_usize, 1, 15, 16, 17, 255, 4_080, 4_081, 10_000] {
            let dosages: Vec<u8> = (0..length).map(|i| [0, 1, 2, 255, 2][i * 7 % 5]).collect();
            let weights: Vec<f64> = (0..length).map(|i| f64::from(u32::try_from(i % 13).unwrap()) - 6.0).collect();
            let there = || dosages.iter().filter(|&&d| d != MISSING);
            assert_eq!(sum(&dosages), (there().map(|&d| u64::from(d)).sum(), there().count() as u64));
            let plain: f64 = dosages.iter().zip(&weights).filter(|(d, _)| **d != MISSING).map(|(&d, w)| f64::from(d) * w).sum();
            assert_eq!(dot(&dosages, &weights), plain); // whole numbers: exact in any order
            let mut out = vec![9.0; length];
            centre(&dosages, &weights, 0.5, &mut out);
            for ((&d, w), out) in dosages.iter().zip(&weights).zip(out) {
                assert_eq!(out, if d == MISSING { 0.0 } else { (f64::from(d) - w) * 0.5 });
            }
        }
    }
}
