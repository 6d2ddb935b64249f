//! What a researcher gets at the end: a summary, tables and charts.
//!
//! *In*: text, columns, charts. *Out*: the contract's [`Report`]. *Refuses* (when the report is encoded): a table whose columns
//! differ in length, two tables of one title, a chart that names a table that is not there. See [`Chart`] for plots.

pub(crate) mod chart;

use crate::contract::{Cells, Column, Report, Table, Variant};
use crate::error::{Error, Result};
use crate::estimate::Estimate;
pub use chart::Chart;

impl Report {
    /// A report with a few sentences and nothing else yet.
    pub fn new(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), tables: Vec::new(), charts: Vec::new() }
    }

    /// Adds a table.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    /// Adds a chart.
    #[must_use]
    pub fn chart(mut self, chart: impl Into<crate::contract::Chart>) -> Self {
        self.charts.push(chart.into());
        self
    }

    /// Whether the host can show it.
    ///
    /// # Errors
    /// The first thing that is wrong, by the table's or chart's title.
    pub fn check(&self) -> Result<()> {
        for (at, table) in self.tables.iter().enumerate() {
            if self.tables[..at].iter().any(|other| other.title == table.title) {
                return Err(Error::new(format!("report: two tables have the title `{}`", table.title)));
            }
            let mut lengths = table.columns.iter().map(|column| (&column.name, column.values.len()));
            let Some((first, rows)) = lengths.next() else { continue };
            if let Some((name, found)) = lengths.find(|(_, length)| *length != rows) {
                let title = &table.title;
                return Err(Error::new(format!("table `{title}`: column `{name}` has {found} rows, `{first}` has {rows}")));
            }
        }
        for chart in &self.charts {
            if let Some(missing) =
                chart::tables_named(&chart.spec).iter().find(|name| self.tables.iter().all(|t| t.title != **name))
            {
                return Err(Error::new(format!("chart `{}`: the report has no table `{missing}`", chart.title)));
            }
        }
        Ok(())
    }
}

impl Table {
    /// A table without columns.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), columns: Vec::new() }
    }

    /// A table with a row for each variant: `contig`, `position`, `ref`, `alt`.
    pub fn of_variants(title: impl Into<String>, variants: &[Variant]) -> Self {
        Self::new(title)
            .texts("contig", variants.iter().map(|variant| &variant.contig))
            .numbers("position", variants.iter().map(|variant| variant.position as f64))
            .texts("ref", variants.iter().map(|variant| &variant.reference))
            .texts("alt", variants.iter().map(|variant| &variant.alternate))
    }

    /// Adds a column of numbers.
    #[must_use]
    pub fn numbers(mut self, name: impl Into<String>, values: impl IntoIterator<Item = f64>) -> Self {
        self.columns.push(Column { name: name.into(), values: Cells::Numbers(values.into_iter().collect()) });
        self
    }

    /// Adds a column of texts.
    #[must_use]
    pub fn texts<T: Into<String>>(mut self, name: impl Into<String>, values: impl IntoIterator<Item = T>) -> Self {
        self.columns.push(Column { name: name.into(), values: Cells::Texts(values.into_iter().map(Into::into).collect()) });
        self
    }

    /// Adds four columns: the values, `<name> sd`, and the ends of the 95 % interval, `<name> low` and `<name> high`.
    #[must_use]
    pub fn estimates(self, name: &str, values: &[Estimate]) -> Self {
        self.numbers(name, values.iter().map(|e| e.value))
            .numbers(format!("{name} sd"), values.iter().map(|e| e.sd))
            .numbers(format!("{name} low"), values.iter().map(|e| e.low()))
            .numbers(format!("{name} high"), values.iter().map(|e| e.high()))
    }
}

impl Cells {
    /// How many rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Texts(values) => values.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mistake_is_refused_by_name() {
        let table = || Table::new("T").numbers("a", [1.0, 2.0]);
        let t = |report: Report, want: &str| {
            let text = report.check().unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        };
        assert_eq!(Report::new("").table(table()).chart(Chart::bars("c", "T", "a", "a")).check(), Ok(()));
        t(Report::new("").table(table().texts("b", ["x"])), "table `T`: column `b` has 1 rows, `a` has 2");
        t(Report::new("").table(table()).table(table()), "two tables");
        t(Report::new("").table(table()).chart(Chart::line("c", "U", "a", "a")), "chart `c`: the report has no table `U`");
    }
}
