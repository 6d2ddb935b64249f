//! p-values: normal and chi-square tails.
//!
//! *In*: a test statistic. *Out*: a probability, accurate in the far tail, where one minus a distribution function is not.
//! Normal tails by `erfc` (libm, after FreeBSD's msun); chi-square by the incomplete gamma function: series below `a + 1`,
//! Lentz's continued fraction above (Numerical Recipes §6.2).

use std::f64::consts::{LN_10, SQRT_2};

/// Two-sided p-value of a standard normal statistic.
///
/// ```
/// use vestibule_sdk::pvalue;
/// assert!((pvalue::normal(1.959963984540054) - 0.05).abs() < 1e-12);
/// ```
#[must_use]
pub fn normal(z: f64) -> f64 {
    libm::erfc(z.abs() / SQRT_2)
}

/// `-log10` of the two-sided p-value of a standard normal statistic; finite where the p-value itself is 0.
#[must_use]
pub fn normal_minus_log10(z: f64) -> f64 {
    let z = z.abs();
    if z < 30.0 {
        return -normal(z).log10();
    }
    // erfc(x) ~ exp(-x^2) / (x sqrt(pi)) (1 - 1/(2 x^2)), here with x = z / sqrt(2).
    let square = z * z;
    let ln = -square / 2.0 - (z * (std::f64::consts::PI / 2.0).sqrt()).ln() + (-1.0 / square).ln_1p();
    -ln / LN_10
}

/// What clipping a standard normal number to `-at..=at` leaves: of its slope (the covariance with the unclipped one), and of its
/// variance. Both are 1 for no clipping.
#[must_use]
pub fn clipped_normal(at: f64) -> (f64, f64) {
    let inside = 1.0 - normal(at);
    let density = (-at * at / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (inside, inside - 2.0 * at * density + at * at * (1.0 - inside))
}

/// Probability that a chi-square with `degrees` degrees of freedom is at least `x`. 1 for `x` at or below 0; NaN for no degrees.
#[must_use]
pub fn chi_square(x: f64, degrees: f64) -> f64 {
    if degrees.is_nan() || degrees <= 0.0 || x.is_nan() {
        return f64::NAN;
    }
    if x <= 0.0 {
        return 1.0;
    }
    if degrees == 1.0 {
        return libm::erfc((x / 2.0).sqrt());
    }
    let (a, x) = (degrees / 2.0, x / 2.0);
    let front = (a * x.ln() - x - libm::lgamma(a)).exp();
    if x < a + 1.0 { 1.0 - front * series(a, x) } else { front * fraction(a, x) }
}

fn series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    for _ in 0..10_000 {
        n += 1.0;
        term *= x / n;
        sum += term;
        if term < sum * 1e-16 {
            break;
        }
    }
    sum
}

fn fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut h = d;
    for i in 1..10_000 {
        let i = f64::from(i);
        let an = -i * (i - a);
        b += 2.0;
        let guard = |v: f64| if v.abs() < TINY { TINY } else { v };
        d = 1.0 / guard(an * d + b);
        c = guard(b + an / c);
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values: the identities of the tails where they have closed forms, and printed tables elsewhere.
    #[test]
    fn tails_meet_closed_forms_and_tables() {
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-9, "{got} beside {want}");
        near(normal(1.0), 0.317_310_507_862_914);
        near(normal(-3.290_526_731_491_926), 0.001);
        near(normal(5.0), 5.733_031_437_583_878e-7);
        // Two degrees: exp(-x/2). Four: exp(-x/2) (1 + x/2). One: the normal's.
        for x in [0.01, 0.5, 3.0, 10.0, 40.0, 700.0] {
            near(chi_square(x, 2.0), (-x / 2.0_f64).exp());
            near(chi_square(x, 4.0), (-x / 2.0_f64).exp() * (1.0 + x / 2.0));
            near(chi_square(x, 1.0), normal(x.sqrt()));
        }
        near(chi_square(3.841_458_820_694_124, 1.0), 0.05);
        near(chi_square(18.307_038_053_275_146, 10.0), 0.05);
        assert_eq!((chi_square(-1.0, 3.0), chi_square(0.0, 3.0)), (1.0, 1.0));
        assert!(chi_square(1.0, 0.0).is_nan());
    }

    #[test]
    fn clipping_leaves_what_a_simulation_says() {
        let mut gauss = crate::testing::Gauss::new(11);
        let (mut slope, mut square) = (0.0, 0.0);
        for _ in 0..200_000 {
            let x = gauss.draw();
            let clipped = x.clamp(-1.0, 1.0);
            slope += x * clipped / 200_000.0;
            square += clipped * clipped / 200_000.0;
        }
        let want = clipped_normal(1.0);
        assert!((slope - want.0).abs() < 0.01 && (square - want.1).abs() < 0.01, "{slope} {square} {want:?}");
        assert_eq!(clipped_normal(40.0), (1.0, 1.0));
    }

    #[test]
    fn the_logarithm_goes_on_where_the_p_value_ends() {
        assert!((normal_minus_log10(5.0) - 6.241_615_7).abs() < 1e-6);
        assert!((normal_minus_log10(29.999_999) - normal_minus_log10(30.000_001)).abs() < 1e-4);
        assert!(normal(50.0) == 0.0 && (normal_minus_log10(50.0) - 544.66).abs() < 0.01);
    }
}
