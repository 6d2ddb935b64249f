//! A released number with the standard deviation of its error, and arithmetic that carries the error along.
//!
//! *In*: released values and their noise. *Out*: sums, ratios, means, variances with first-order ("delta method") errors.
//! *Trusts*: that the two operands' errors are independent, which holds for different statistics and different entries of one.
//! Where an error is not small beside a divisor, the first-order error is too small: `Estimate::over` then says infinity.

use std::fmt;
use std::ops::{Add, Div, Mul, Sub};

use crate::contract::ColumnInfo;
use crate::error::{Error, Result};

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
/// assert_eq!(format!("{mean}"), "0.250 ± 0.020");
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

    /// Count, mean and variance of a number column in its own unit, from the three released sums of [`Individual::moments`].
    /// The variance is at least 0. The errors are those of the noise alone.
    ///
    /// # Errors
    /// Not three sums.
    ///
    /// [`Individual::moments`]: crate::Individual::moments
    pub fn moments(column: &ColumnInfo, sums: &[Self]) -> Result<[Self; 3]> {
        let &[n, sum, squares] = sums else {
            return Err(Error::new(format!("moments are 3 sums, found {}", sums.len())));
        };
        let mean = sum / n;
        // The variance is q/n + 1 - (s/n)^2 with q the sum of v^2 - 1; by n its derivative is (2 (s/n)^2 - q/n) / n.
        let value = squares.value / n.value + 1.0 - mean.value * mean.value;
        let by_n = (2.0 * mean.value * mean.value - squares.value / n.value) * n.sd;
        let sd = squares.sd.hypot(2.0 * mean.value * sum.sd).hypot(by_n) / n.value;
        let sd = if mean.sd.is_finite() { sd } else { f64::INFINITY };
        let scale = column.half_width() * column.half_width();
        Ok([n, column.unscaled(mean), Self { value: value.max(0.0), sd } * scale])
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
    fn moments_come_back_in_the_columns_unit() {
        let column = ColumnInfo::number("age", 0.0, 100.0);
        let scaled = [20.0, 40.0, 60.0, 80.0].map(|age| column.scaled(age));
        let sums = [4.0, scaled.iter().sum(), scaled.iter().map(|v| v * v - 1.0).sum()].map(Estimate::exact);
        let [n, mean, variance] = Estimate::moments(&column, &sums).unwrap();
        assert!(n.value == 4.0 && (mean.value - 50.0).abs() < 1e-9 && (variance.value - 500.0).abs() < 1e-9);
        assert!(Estimate::moments(&column, &sums[..2]).is_err());
    }

    /// The delta method against a simulation with a plain generator.
    #[test]
    fn the_errors_are_those_of_a_simulation() {
        let column = ColumnInfo::number("x", -1.0, 1.0);
        let sums = [(500.0, 6.0), (150.0, 5.0), (-400.0, 4.0)].map(|(value, sd)| Estimate::new(value, sd));
        let [_, mean, variance] = Estimate::moments(&column, &sums).unwrap();
        let mut noise = crate::testing::Gauss::new(7);
        let mut moments = [[0.0; 2]; 2];
        const TIMES: u32 = 20_000;
        for _ in 0..TIMES {
            let drawn = sums.map(|e| Estimate::exact(e.value + e.sd * noise.draw()));
            let [_, m, v] = Estimate::moments(&column, &drawn).unwrap();
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
