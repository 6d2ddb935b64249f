//! What observations show, at a stated chance of being wrong.
//!
//! *In*: counts. *Out*: bounds of probabilities (Clopper and Pearson 1934) and of epsilon. Every bound is wrong at most once in
//! 10,000 ([`ALPHA`]): so a sound mechanism is called broken about once in some thousand runs of all attacks.

use statrs::function::beta::beta_reg;

/// How often a bound may be wrong.
pub(crate) const ALPHA: f64 = 1e-4;

/// P[Bin(n, p) >= k].
#[expect(clippy::cast_precision_loss, reason = "counts of observations are far below 2^53")]
pub(crate) fn tail(k: u64, n: u64, p: f64) -> f64 {
    match k {
        0 => 1.0,
        k if k > n => 0.0,
        k => beta_reg(k as f64, (n.saturating_sub(k).saturating_add(1)) as f64, p),
    }
}

/// The smallest probability under which `k` or more of `n` are not less likely than [`ALPHA`].
pub(crate) fn lower(k: u64, n: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if tail(k, n, middle) <= ALPHA { low = middle } else { high = middle }
    }
    low
}

/// The largest probability under which `k` or fewer of `n` are not less likely than [`ALPHA`].
pub(crate) fn upper(k: u64, n: u64) -> f64 {
    1.0 - lower(n.saturating_sub(k), n)
}

/// The smallest epsilon under which an event that came `p` times in a dataset's releases and `q` times in its neighbour's is no wonder.
pub(crate) fn epsilon_between(p: (u64, u64), q: (u64, u64)) -> f64 {
    (lower(p.0, p.1) / upper(q.0, q.1)).ln()
}

/// The smallest epsilon under which `right` of `all` guesses at a fair coin are no wonder (Steinke, Nasr and Jagielski 2023).
pub(crate) fn epsilon_of_guesses(right: u64, all: u64) -> f64 {
    let p = lower(right, all);
    (p / (1.0 - p)).ln()
}

/// How many of the values are above the threshold, of how many.
pub(crate) fn above(values: &[f64], threshold: f64) -> (u64, u64) {
    let above = values.iter().filter(|value| **value > threshold).count();
    (above as u64, values.len() as u64)
}

/// The distinguishing game: half of each side's scores choose a threshold, the other half show an epsilon at it.
pub(crate) fn game(with: &[f64], without: &[f64]) -> f64 {
    let (choose_with, with) = with.split_at(with.len() / 2);
    let (choose_without, without) = without.split_at(without.len() / 2);
    let mut sorted: Vec<f64> = choose_with.iter().chain(choose_without).copied().collect();
    sorted.sort_by(f64::total_cmp);
    let candidates = (1..40).filter_map(|part| sorted.get(sorted.len().saturating_mul(part) / 40).copied());
    // Both directions: more often above with the person, or more often not above without.
    let shown = |with: &[f64], without: &[f64], threshold: f64| {
        let (p, q) = (above(with, threshold), above(without, threshold));
        let below = |(above, all): (u64, u64)| (all.saturating_sub(above), all);
        [epsilon_between(p, q), epsilon_between(below(q), below(p))]
    };
    let chosen = candidates
        .flat_map(|threshold| {
            let [up, down] = shown(choose_with, choose_without, threshold);
            [(up, threshold, 0_usize), (down, threshold, 1)]
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    chosen.map_or(0.0, |(_, threshold, direction)| shown(with, without, threshold).get(direction).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from the binomial sums themselves, by logarithms of factorials, outside of this program.
    #[test]
    fn bounds_are_those_of_clopper_and_pearson() {
        for (k, n, low, high) in [(5, 10, 0.054957, 0.945043), (0, 100, 0.0, 0.087989), (7_311, 10_000, 0.714344, 0.747413)] {
            assert!((lower(k, n) - low).abs() < 1e-6, "{k} of {n}: {}", lower(k, n));
            assert!((upper(k, n) - high).abs() < 1e-6, "{k} of {n}: {}", upper(k, n));
        }
    }

    #[test]
    fn a_game_shows_what_separates_two_samples() {
        // Evenly spaced samples that differ by a shift of half their range: p = 1/2 against 0.
        let with: Vec<f64> = (0..10_000).map(|n| f64::from(n % 5_000) + 2_500.0).collect();
        let without: Vec<f64> = (0..10_000).map(|n| f64::from(n % 5_000)).collect();
        assert!(game(&with, &without) > 5.0);
        assert!(game(&without, &without) < 0.1);
    }
}
