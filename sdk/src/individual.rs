//! One person, as `contribute` sees them: values by column name, dosages as a slice.
//!
//! *In*: the host's row and the plan's columns. *Out*: typed values; `None` where the value is missing. A name that the plan
//! did not ask for, or a look-up of the wrong kind, is a mistake in the analysis and panics: a dry run shows the message, a site
//! counts the contribution as nothing.

use std::rc::Rc;

use crate::bins::Bins;
use crate::contract::{self, ColumnInfo, Kind, Value};

/// One person.
#[derive(Debug, Clone)]
pub struct Individual {
    columns: Rc<[ColumnInfo]>,
    row: contract::Individual,
}

impl Individual {
    pub(crate) const fn new(columns: Rc<[ColumnInfo]>, row: contract::Individual) -> Self {
        Self { columns, row }
    }

    /// Alternate-allele dosages 0, 1, 2, or 255 where missing, in the order of `Shape.variants`. See [`crate::kernels`].
    #[must_use]
    pub fn dosages(&self) -> &[u8] {
        &self.row.dosages
    }

    /// The public description of a column.
    #[must_use]
    #[track_caller]
    pub fn column(&self, name: &str) -> &ColumnInfo {
        self.find(name).0
    }

    /// A number, clamped to the column's public bounds.
    #[must_use]
    #[track_caller]
    pub fn number(&self, name: &str) -> Option<f64> {
        let (column, value) = self.find(name);
        match (&column.kind, value) {
            (_, Value::Missing) => None,
            (Kind::Number((lower, upper)), Value::Number(x)) => (!x.is_nan()).then(|| x.max(*lower).min(*upper)),
            _ => wrong(column, "a number"),
        }
    }

    /// A number on the scale where the column's bounds are -1 and 1.
    #[must_use]
    #[track_caller]
    pub fn scaled(&self, name: &str) -> Option<f64> {
        let x = self.number(name)?;
        Some(self.column(name).scaled(x))
    }

    /// `[1, v, v^2 - 1]` of a number on that scale, for [`Round::moments`](crate::Round::moments): from their sums
    /// [`Estimate::moments`](crate::Estimate::moments) has count, mean and variance.
    #[must_use]
    #[track_caller]
    pub fn moments(&self, name: &str) -> Option<[f64; 3]> {
        let v = self.scaled(name)?;
        Some([1.0, v, v * v - 1.0])
    }

    /// The histogram bin of a number, of `bins` equal ones over the column's bounds.
    #[must_use]
    #[track_caller]
    pub fn bin(&self, name: &str, bins: u32) -> Option<u32> {
        let x = self.number(name)?;
        Bins::of(self.column(name), bins).ok().map(|bins| bins.cell(x))
    }

    /// The index of a level.
    #[must_use]
    #[track_caller]
    pub fn level(&self, name: &str) -> Option<u32> {
        let (column, value) = self.find(name);
        match value {
            Value::Missing => None,
            Value::Level(index) => Some(*index),
            _ => wrong(column, "a level"),
        }
    }

    /// Yes or no.
    #[must_use]
    #[track_caller]
    pub fn flag(&self, name: &str) -> Option<bool> {
        let (column, value) = self.find(name);
        match value {
            Value::Missing => None,
            Value::Flag(yes) => Some(*yes),
            _ => wrong(column, "yes or no"),
        }
    }

    /// The index into [`ColumnInfo::categories`]: a level's index, or 0 and 1 for no and yes.
    #[must_use]
    #[track_caller]
    pub fn category(&self, name: &str) -> Option<u32> {
        match self.find(name) {
            (_, Value::Flag(yes)) => Some(u32::from(*yes)),
            _ => self.level(name),
        }
    }

    /// Days since 1970-01-01.
    #[must_use]
    #[track_caller]
    pub fn day(&self, name: &str) -> Option<i32> {
        let (column, value) = self.find(name);
        match value {
            Value::Missing => None,
            Value::Day(day) => Some(*day),
            _ => wrong(column, "a day"),
        }
    }

    #[track_caller]
    fn find(&self, name: &str) -> (&ColumnInfo, &Value) {
        let cells = self.columns.iter().zip(&self.row.values);
        match cells.into_iter().find(|(column, _)| column.name == name) {
            Some(found) => found,
            None => unknown("column", name, self.columns.iter().map(|column| column.name.as_str())),
        }
    }
}

#[cold]
#[track_caller]
fn wrong(column: &ColumnInfo, asked: &str) -> ! {
    panic!("column `{}` holds {}, {asked} was asked for", column.name, column.holds())
}

#[cold]
#[track_caller]
pub(crate) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> ! {
    panic!("no {what} `{name}`; there are: {}", known.collect::<Vec<_>>().join(", "))
}
