//! What a native run ended with, and look-ups in it for assertions.
//!
//! *In*: the report and every round. *Out*: columns by title and name. A look-up of what is not there panics with what is.

use crate::contract::{Cells, Released, Report, Statistic};

/// A finished run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The report.
    pub report: Report,
    /// Every round, oldest first.
    pub rounds: Vec<RoundRun>,
}

/// One finished round, with what a site would never tell.
#[derive(Debug, Clone)]
pub struct RoundRun {
    /// What was asked for.
    pub statistics: Vec<Statistic>,
    /// What `next` got to see.
    pub released: Vec<Released>,
    /// How many contributions of each statistic had to be clipped to the bound.
    pub clipped: Vec<u64>,
    /// How many contributions were malformed.
    pub ignored: u64,
}

impl Outcome {
    /// A column of numbers of one of the report's tables.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn numbers(&self, table: &str, column: &str) -> &[f64] {
        match self.cells(table, column) {
            Cells::Numbers(values) => values,
            Cells::Texts(_) => panic!("column `{column}` of table `{table}` holds texts"),
        }
    }

    /// A column of texts of one of the report's tables.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn texts(&self, table: &str, column: &str) -> &[String] {
        match self.cells(table, column) {
            Cells::Texts(values) => values,
            Cells::Numbers(_) => panic!("column `{column}` of table `{table}` holds numbers"),
        }
    }

    /// One number: the column's entry in the row whose first column says `row`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn number(&self, table: &str, row: &str, column: &str) -> f64 {
        let first = self.report.tables.iter().find(|t| t.title == table).and_then(|t| t.columns.first());
        let name = &first.unwrap_or_else(|| panic!("no table `{table}` with columns")).name;
        let rows = self.texts(table, name);
        let at =
            rows.iter().position(|text| text == row).unwrap_or_else(|| panic!("no row `{row}` in table `{table}`: {rows:?}"));
        self.numbers(table, column)[at]
    }

    fn cells(&self, table: &str, column: &str) -> &Cells {
        let titles: Vec<&str> = self.report.tables.iter().map(|t| t.title.as_str()).collect();
        let found = self.report.tables.iter().find(|t| t.title == table);
        let found = found.unwrap_or_else(|| panic!("no table `{table}`; there are: {titles:?}"));
        let names: Vec<&str> = found.columns.iter().map(|c| c.name.as_str()).collect();
        let cells = found.columns.iter().find(|c| c.name == column);
        &cells.unwrap_or_else(|| panic!("no column `{column}` in table `{table}`; there are: {names:?}")).values
    }
}
