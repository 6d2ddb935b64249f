//! Equal-width histogram bins over a column's public bounds.
//!
//! *In*: bounds and a number of bins, both public. *Out*: [`Bins`]: which cell a value falls in, and the bins' labels.
//! A value outside the bounds falls in the first or last bin, so every value has a cell.

use serde::{Deserialize, Serialize};

use crate::contract::ColumnInfo;
use crate::error::{Error, Result};

/// Equal-width bins over `lower..=upper`.
///
/// ```
/// let bins = vestibule_sdk::Bins::new(0.0, 100.0, 10)?;
/// assert_eq!((bins.cell(0.0), bins.cell(34.9), bins.cell(100.0), bins.cell(1e9)), (0, 3, 9, 9));
/// assert_eq!(bins.labels()[3], "30 to 40");
/// # Ok::<(), vestibule_sdk::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bins {
    lower: f64,
    upper: f64,
    count: u32,
}

impl Bins {
    /// `count` bins over `lower..=upper`.
    ///
    /// # Errors
    /// No bins, or bounds that are not finite and ascending.
    pub fn new(lower: f64, upper: f64, count: u32) -> Result<Self> {
        if !(lower.is_finite() && upper.is_finite() && lower < upper) {
            return Err(Error::new(format!("bins: lower {lower} must be below upper {upper}, and both finite")));
        }
        if count == 0 {
            return Err(Error::new("bins: at least 1 is needed, 0 were asked for"));
        }
        Ok(Self { lower, upper, count })
    }

    /// `count` bins over the bounds of a number column.
    ///
    /// # Errors
    /// The column holds no numbers, or `count` is 0.
    pub fn of(column: &ColumnInfo, count: u32) -> Result<Self> {
        let (lower, upper) = column.bounds()?;
        Self::new(lower, upper, count)
    }

    /// How many bins there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The bin that `x` falls in, 0-based.
    #[must_use]
    pub fn cell(&self, x: f64) -> u32 {
        let place = (x - self.lower) / (self.upper - self.lower) * f64::from(self.count);
        (place as u32).min(self.count - 1) // a cast saturates, and makes NaN 0
    }

    /// The lower edge of bin `cell`; `count` gives the last upper edge.
    #[must_use]
    pub fn edge(&self, cell: u32) -> f64 {
        self.lower + (self.upper - self.lower) * f64::from(cell) / f64::from(self.count)
    }

    /// The middle of each bin.
    #[must_use]
    pub fn middles(&self) -> Vec<f64> {
        (0..self.count).map(|cell| (self.edge(cell) + self.edge(cell + 1)) / 2.0).collect()
    }

    /// `low to high` of each bin.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let short = |x: f64| (x * 1e6).round() / 1e6;
        (0..self.count).map(|cell| format!("{} to {}", short(self.edge(cell)), short(self.edge(cell + 1)))).collect()
    }
}
