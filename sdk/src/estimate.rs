//! A released number with the standard deviation of its error, and arithmetic that carries the error along.
//!
//! *In*: released values and their noise. *Out*: sums, ratios, means, variances with first-order ("delta method") errors.
//! *Trusts*: that the two operands' errors are independent, which holds for different statistics and different entries of one.
//! Where an error is not small beside a divisor, the first-order error is too small: `Estimate::over` then says infinity.

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};

use crate::contract::ColumnInfo;

/// How many standard deviations an error bar spans on each side: 95 % of a normal distribution.
pub const Z95: f64 = 1.959_963_984_540_054;

/// A number and the standard deviation of its error.
///
/// ```
/// use vestibule_sdk::Estimate;
/// let (n, sum) = (Estimate::new(1000.0, 10.0), Estimate::new(250.0, 10.0));
/// let mean = sum / n;
/// assert_eq!(mean.value, 0.25);
/// assert!((mean.sd - (0.01_f64.powi(2) + (0.25 * 0.01_f64).powi(2)).sqrt()).abs() < 1e-12);
/// assert_eq!(format!("{mean}"), "0.25 ± 0.02");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Standard deviation of its error.
    pub sd: f64,
}

impl Estimate {
    /// A number with an error.
    #[must_use]
    pub const fn new(value: f64, sd: f64) -> Self {
        Self { value, sd }
    }

    /// A number that is known.
    #[must_use]
    pub const fn exact(value: f64) -> Self {
        Self { value, sd: 0.0 }
    }

    /// `self / divisor` with the error of both. Infinite error where the divisor is not two standard deviations above zero.
    #[must_use]
    pub fn over(self, divisor: Self) -> Self {
        let value = self.value / divisor.value;
        if divisor.value <= 2.0 * divisor.sd {
            return Self { value, sd: f64::INFINITY };
        }
        Self { value, sd: self.sd.hypot(value * divisor.sd) / divisor.value }
    }

    /// The square, with its first-order error.
    #[must_use]
    pub fn squared(self) -> Self {
        Self { value: self.value * self.value, sd: 2.0 * self.value.abs() * self.sd }
    }

    /// Adds a second, independent source of error.
    #[must_use]
    pub fn with_error(self, sd: f64) -> Self {
        Self { value: self.value, sd: self.sd.hypot(sd) }
    }

    /// Lower end of the 95 % interval.
    #[must_use]
    pub fn low(self) -> f64 {
        self.value - Z95 * self.sd
    }

    /// Upper end of the 95 % interval.
    #[must_use]
    pub fn high(self) -> f64 {
        self.value + Z95 * self.sd
    }

    /// Mean and variance of a column in its own unit, from the count, the sum and the sum of squares of its scaled values
    /// ([`ColumnInfo::scaled`]). The variance is at least 0. The errors are those of the noise alone.
    #[must_use]
    pub fn mean_and_variance(column: &ColumnInfo, n: Self, sum: Self, squares: Self) -> (Self, Self) {
        let mean = sum / n;
        // var = q/n - (s/n)^2; its derivative by n is -q/n^2 + 2 s^2/n^3, taken as one, since both terms share n.
        let value = squares.value / n.value - mean.value * mean.value;
        let by_n = (2.0 * mean.value * mean.value - squares.value / n.value) * n.sd;
        let sd = squares.sd.hypot(2.0 * mean.value * sum.sd).hypot(by_n) / n.value;
        let sd = if mean.sd.is_finite() { sd } else { f64::INFINITY };
        let scale = column.half_width() * column.half_width();
        (column.unscaled(mean), Self { value: value.max(0.0), sd } * scale)
    }
}

impl Add for Estimate {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, sd: self.sd.hypot(other.sd) }
    }
}

impl Sub for Estimate {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, sd: self.sd.hypot(other.sd) }
    }
}

impl Div for Estimate {
    type Output = Self;
    fn div(self, divisor: Self) -> Self {
        self.over(divisor)
    }
}

impl Add<f64> for Estimate {
    type Output = Self;
    fn add(self, known: f64) -> Self {
        Self { value: self.value + known, sd: self.sd }
    }
}

impl Mul<f64> for Estimate {
    type Output = Self;
    fn mul(self, known: f64) -> Self {
        Self { value: self.value * known, sd: self.sd * known.abs() }
    }
}

/// `value ± half the 95 % interval`, rounded to what the error allows.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = Z95 * self.sd;
        if !(half.is_finite() && half > 0.0) {
            return if half == 0.0 { write!(f, "{}", self.value) } else { write!(f, "{:.3} ± unknown", self.value) };
        }
        let digits = (1.0 - half.log10().floor()).clamp(0.0, 12.0) as usize;
        let digits = if half >= 10.0 { 0 } else { digits };
        write!(f, "{:.digits$} ± {:.digits$}", self.value, half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_add_in_squares() {
        let sum = Estimate::new(1.0, 3.0) + Estimate::new(2.0, 4.0);
        assert_eq!(sum, Estimate::new(3.0, 5.0));
        assert_eq!(sum * -2.0, Estimate::new(-6.0, 10.0));
        assert_eq!(Estimate::new(1.0, 3.0).with_error(4.0).sd, 5.0);
    }

    #[test]
    fn a_divisor_lost_in_noise_gives_no_false_certainty() {
        assert!(Estimate::new(5.0, 1.0).over(Estimate::new(3.0, 2.0)).sd.is_infinite());
        assert!(Estimate::new(5.0, 1.0).over(Estimate::new(-30.0, 2.0)).sd.is_infinite());
    }

    #[test]
    fn mean_and_variance_come_back_in_the_columns_unit() {
        let column = ColumnInfo::number("age", 0.0, 100.0);
        let ages = [20.0, 40.0, 60.0, 80.0];
        let scaled: Vec<f64> = ages.iter().map(|&age| column.scaled(age)).collect();
        let sum = scaled.iter().sum();
        let squares = scaled.iter().map(|x| x * x).sum();
        let (mean, variance) =
            Estimate::mean_and_variance(&column, Estimate::exact(4.0), Estimate::exact(sum), Estimate::exact(squares));
        assert!((mean.value - 50.0).abs() < 1e-9 && (variance.value - 500.0).abs() < 1e-9);
    }

    /// The delta method against a simulation with a plain generator.
    #[test]
    fn the_errors_are_those_of_a_simulation() {
        let column = ColumnInfo::number("x", -1.0, 1.0);
        let (n, s, q) = (Estimate::new(500.0, 6.0), Estimate::new(150.0, 5.0), Estimate::new(100.0, 4.0));
        let (mean, variance) = Estimate::mean_and_variance(&column, n, s, q);
        let mut noise = crate::testing::Gauss::new(7);
        let mut moments = [[0.0; 2]; 2];
        const TIMES: u32 = 20_000;
        for _ in 0..TIMES {
            let [n, s, q] = [n, s, q].map(|e| Estimate::exact(e.value + e.sd * noise.draw()));
            let (m, v) = Estimate::mean_and_variance(&column, n, s, q);
            for (sum, x) in moments.iter_mut().zip([m.value - mean.value, v.value - variance.value]) {
                sum[0] += x;
                sum[1] += x * x;
            }
        }
        for (sum, want) in moments.iter().zip([mean.sd, variance.sd]) {
            let times = f64::from(TIMES);
            let sd = (sum[1] / times - (sum[0] / times).powi(2)).sqrt();
            assert!((sd / want - 1.0).abs() < 0.05, "{sd} beside {want}");
        }
    }
}
