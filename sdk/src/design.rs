//! Covariates as a design matrix on public scales: what regressions have in common.
//!
//! *In*: column names and their public descriptions. *Out*: [`Design`]: a row of numbers for each person, each within -1..1, and
//! the way back from coefficients on those scales to the columns' own units. It is serialisable, to be part of a round's state.
//! Numbers are centred on the middle of their bounds and halved widths; a flag is -1/2 or 1/2; a column of levels has an
//! indicator for every level but the first. *Refuses*: days.

use serde::{Deserialize, Serialize};

use crate::contract::{Kind, Shape};
use crate::error::{Error, Result};
use crate::estimate::Estimate;
use crate::individual::Individual;
use crate::matrix::Symmetric;

/// An intercept and covariates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Design {
    columns: Vec<Column>,
    width: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Column {
    name: String,
    coding: Coding,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Coding {
    Number { middle: f64, half_width: f64 },
    Flag,
    Levels(Vec<String>),
}

impl Design {
    /// An intercept and the named columns of `shape`.
    ///
    /// # Errors
    /// A column that the plan did not ask for, or one that holds days.
    pub fn new<N: AsRef<str>>(shape: &Shape, names: impl IntoIterator<Item = N>) -> Result<Self> {
        let mut columns = Vec::new();
        for name in names {
            let column = shape.column(name.as_ref())?;
            let coding = match &column.kind {
                Kind::Number((lower, upper)) => {
                    Coding::Number { middle: (lower + upper) / 2.0, half_width: (upper - lower) / 2.0 }
                }
                Kind::Flag => Coding::Flag,
                Kind::Levels(levels) => Coding::Levels(levels.clone()),
                Kind::Day => {
                    return Err(Error::new(format!(
                        "covariate `{}` holds days; numbers, levels or a flag were expected",
                        column.name
                    )));
                }
            };
            columns.push(Column { name: column.name.clone(), coding });
        }
        let width = 1 + columns.iter().map(|column| column.coding.width()).sum::<usize>();
        Ok(Self { columns, width })
    }

    /// Numbers per row, the intercept included.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// The square of the largest Euclidean norm that a row can have: 1 for the intercept, 1 for a number or a column of levels,
    /// 1/4 for a flag.
    #[must_use]
    pub fn norm_squared(&self) -> f64 {
        1.0 + self.columns.iter().map(|column| if column.coding == Coding::Flag { 0.25 } else { 1.0 }).sum::<f64>()
    }

    /// The names of a row's entries: `(intercept)`, a column's name, or `column=level`.
    #[must_use]
    pub fn terms(&self) -> Vec<String> {
        let mut terms = vec!["(intercept)".to_owned()];
        for Column { name, coding } in &self.columns {
            match coding {
                Coding::Number { .. } | Coding::Flag => terms.push(name.clone()),
                Coding::Levels(levels) => terms.extend(levels.iter().skip(1).map(|level| format!("{name}={level}"))),
            }
        }
        terms
    }

    /// A person's row; `None` if any covariate is missing.
    #[must_use]
    pub fn row(&self, individual: &Individual) -> Option<Vec<f64>> {
        let mut row = Vec::with_capacity(self.width + 1); // room for an outcome
        row.push(1.0);
        for Column { name, coding } in &self.columns {
            match coding {
                Coding::Number { middle, half_width } => {
                    row.push(((individual.number(name)? - middle) / half_width).clamp(-1.0, 1.0));
                }
                Coding::Flag => row.push(if individual.flag(name)? { 0.5 } else { -0.5 }),
                Coding::Levels(levels) => {
                    let level = individual.level(name)? as usize;
                    row.extend((1..levels.len()).map(|at| f64::from(at == level)));
                }
            }
        }
        Some(row)
    }

    /// Coefficients in the columns' own units (per unit of a number, yes against no, a level against the first), with standard
    /// errors from `covariance`, from coefficients on the scales of [`Design::row`].
    #[must_use]
    pub fn in_own_units(&self, coefficients: &[f64], covariance: &Symmetric) -> Vec<Estimate> {
        // Each own coefficient is a linear combination of the scaled ones.
        let (mut scales, mut shifts) = (vec![1.0], vec![1.0]);
        for Column { coding, .. } in &self.columns {
            match coding {
                Coding::Number { middle, half_width } => {
                    scales.push(1.0 / half_width);
                    shifts.push(-middle / half_width);
                }
                Coding::Flag => {
                    scales.push(1.0);
                    shifts.push(-0.5);
                }
                Coding::Levels(levels) => {
                    scales.extend(levels.iter().skip(1).map(|_| 1.0));
                    shifts.extend(levels.iter().skip(1).map(|_| 0.0));
                }
            }
        }
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let intercept = Estimate::new(dot(&shifts, coefficients), dot(&shifts, &covariance.times(&shifts)).max(0.0).sqrt());
        let others = (1..self.width).map(|k| Estimate::new(coefficients[k], covariance.at(k, k).max(0.0).sqrt()) * scales[k]);
        std::iter::once(intercept).chain(others).collect()
    }
}

impl Coding {
    fn width(&self) -> usize {
        match self {
            Self::Number { .. } | Self::Flag => 1,
            Self::Levels(levels) => levels.len().saturating_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::contract::{self, ColumnInfo, Value};

    fn shape() -> Shape {
        let columns = vec![
            ColumnInfo::number("age", 0.0, 100.0),
            ColumnInfo::flag("male"),
            ColumnInfo::levels("site", ["a", "b", "c"]),
            ColumnInfo { name: "born".into(), kind: Kind::Day, unit: String::new() },
        ];
        Shape { variants: Vec::new(), columns }
    }

    fn person(values: Vec<Value>) -> Individual {
        Individual::new(Rc::from(shape().columns), contract::Individual { values, dosages: Vec::new() })
    }

    #[test]
    fn a_row_and_the_way_back() {
        let design = Design::new(&shape(), ["age", "male", "site"]).unwrap();
        assert_eq!(design.terms(), ["(intercept)", "age", "male", "site=b", "site=c"]);
        let row = design.row(&person(vec![Value::Number(75.0), Value::Flag(true), Value::Level(2), Value::Missing])).unwrap();
        assert_eq!(row, [1.0, 0.5, 0.5, 0.0, 1.0]);
        assert!(row.iter().map(|x| x * x).sum::<f64>() <= design.norm_squared());
        assert_eq!(design.row(&person(vec![Value::Missing, Value::Flag(true), Value::Level(2), Value::Missing])), None);
        // 1 + 0.02 age + 3 male + 4 b + 5 c, by hand on the design's scales.
        let scaled = [1.0 + 0.02 * 50.0 + 1.5, 1.0, 3.0, 4.0, 5.0];
        let own = design.in_own_units(&scaled, &Symmetric::build(5, |row, column| f64::from(row == column)));
        own.iter().zip([1.0, 0.02, 3.0, 4.0, 5.0]).for_each(|(got, want)| assert!((got.value - want).abs() < 1e-12));
        assert!((own[1].sd - 0.02).abs() < 1e-12 && (own[0].sd - (1.0_f64 + 1.0 + 0.25).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn days_and_unknown_columns_are_refused_by_name() {
        assert!(Design::new(&shape(), ["born"]).unwrap_err().to_string().contains("`born` holds days"));
        assert!(Design::new(&shape(), ["weight"]).unwrap_err().to_string().contains("`weight`"));
    }
}
