//! The public shape of what a plan asked for: columns by name, their bounds and levels.
//!
//! *In*: the contract's [`Shape`], which the host makes from the dictionary and the catalogue. *Out*: look-ups, and the scaling
//! of a number column to -1..1 around the middle of its bounds, which halves the noise of a sum. *Refuses*: a column that the
//! plan did not ask for, bounds of a column that holds no numbers.

use crate::contract::{ColumnInfo, Kind, Shape};
use crate::error::{Error, Result};
use crate::estimate::Estimate;

impl Shape {
    /// A column of the plan by its name.
    ///
    /// # Errors
    /// The plan did not ask for it.
    pub fn column(&self, name: &str) -> Result<&ColumnInfo> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
            Error::new(format!("column `{name}` is not in the plan, which asks for: {}", known.join(", ")))
        })
    }
}

impl ColumnInfo {
    /// A number column.
    pub fn number(name: impl Into<String>, lower: f64, upper: f64) -> Self {
        Self { name: name.into(), kind: Kind::Number((lower, upper)), unit: String::new() }
    }

    /// A column of levels.
    pub fn levels<L: Into<String>>(name: impl Into<String>, levels: impl IntoIterator<Item = L>) -> Self {
        Self { name: name.into(), kind: Kind::Levels(levels.into_iter().map(Into::into).collect()), unit: String::new() }
    }

    /// A yes-or-no column.
    pub fn flag(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: Kind::Flag, unit: String::new() }
    }

    /// The lowest and highest plausible value of a number column.
    ///
    /// # Errors
    /// The column holds no numbers.
    pub fn bounds(&self) -> Result<(f64, f64)> {
        match self.kind {
            Kind::Number(bounds) => Ok(bounds),
            Kind::Levels(_) | Kind::Flag | Kind::Day => {
                Err(Error::new(format!("column `{}` holds {}, a number was expected", self.name, self.holds())))
            }
        }
    }

    /// What the column holds, in words.
    #[must_use]
    pub const fn holds(&self) -> &'static str {
        match self.kind {
            Kind::Number(_) => "numbers",
            Kind::Levels(_) => "levels",
            Kind::Flag => "yes or no",
            Kind::Day => "days",
        }
    }

    /// The names of what a column of levels or a flag can hold; nothing for other kinds.
    #[must_use]
    pub fn categories(&self) -> Vec<String> {
        match &self.kind {
            Kind::Levels(levels) => levels.clone(),
            Kind::Flag => vec!["no".into(), "yes".into()],
            Kind::Number(_) | Kind::Day => Vec::new(),
        }
    }

    /// `x` on the scale where the bounds are -1 and 1. Clamped; 0 if the column holds no numbers.
    #[must_use]
    pub fn scaled(&self, x: f64) -> f64 {
        let Kind::Number((lower, upper)) = self.kind else { return 0.0 };
        ((x - (lower + upper) / 2.0) / self.half_width()).clamp(-1.0, 1.0)
    }

    /// Undoes [`ColumnInfo::scaled`] for a mean.
    #[must_use]
    pub fn unscaled(&self, mean: Estimate) -> Estimate {
        let Kind::Number((lower, upper)) = self.kind else { return mean };
        mean * self.half_width() + (lower + upper) / 2.0
    }

    /// Half the distance between the bounds: what one unit of the -1..1 scale is worth.
    #[must_use]
    pub fn half_width(&self) -> f64 {
        let Kind::Number((lower, upper)) = self.kind else { return 1.0 };
        (upper - lower) / 2.0
    }
}

/// The column's name, with its unit if it has one.
impl std::fmt::Display for ColumnInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        if self.unit.is_empty() { Ok(()) } else { write!(f, " ({})", self.unit) }
    }
}
