//! What a researcher reads in the end: a summary, tables, and Vega-Lite charts, all made by `next` from released numbers.
//!
//! *In*: what a component returned. *Out*: [`Report`], as it is stored, served and drawn. *Refuses*: tables whose columns differ
//! in length, charts that are not JSON, and anything over the limits, since a report is shown in other people's browsers.

use serde::{Deserialize, Serialize};

/// Most tables, and most charts, of a report.
pub const MAX_PARTS: usize = 64;
/// Most cells of all tables together.
pub const MAX_CELLS: usize = 8_000_000;
/// Most bytes of one chart's specification.
pub const MAX_CHART_BYTES: usize = 1 << 20;
/// Most characters of a title, and of a column's name.
pub const MAX_TITLE: usize = 1_000;
/// Most bytes of the summary.
pub const MAX_SUMMARY_BYTES: usize = 64 << 10;

/// The values of one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cells {
    /// Numbers; one that is not finite is written as null in JSON and comes back as NaN.
    Numbers(#[serde(with = "numbers")] Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its head.
    pub name: String,
    /// Its values.
    pub values: Cells,
}

/// A table: columns of one length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its title, by which charts name it.
    pub title: String,
    /// Its columns.
    pub columns: Vec<Column>,
}

/// A Vega-Lite chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// Its title.
    pub title: String,
    /// The specification, JSON; its data may name a table by title.
    pub spec: String,
}

/// What a researcher reads in the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// A few sentences.
    pub summary: String,
    /// Tables.
    pub tables: Vec<Table>,
    /// Charts.
    pub charts: Vec<Chart>,
}

/// A report that cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("report: {0}")]
pub struct ReportError(String);

impl ReportError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "report-malformed"
    }
}

impl Cells {
    /// Number of values.
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

impl Report {
    /// Checks the limits.
    ///
    /// # Errors
    /// The first part that cannot be shown, by title.
    pub fn checked(self) -> Result<Self, ReportError> {
        let fail = |text: String| Err(ReportError(text));
        if self.summary.len() > MAX_SUMMARY_BYTES {
            return fail(format!("the summary is longer than {MAX_SUMMARY_BYTES} bytes"));
        }
        if self.tables.len() > MAX_PARTS || self.charts.len() > MAX_PARTS {
            return fail(format!("more than {MAX_PARTS} tables or charts"));
        }
        let heads = self.tables.iter().flat_map(|table| table.columns.iter().map(|column| &column.name).chain([&table.title]));
        if heads.chain(self.charts.iter().map(|chart| &chart.title)).any(|head| head.chars().count() > MAX_TITLE) {
            return fail(format!("a title or a column's name is longer than {MAX_TITLE} characters"));
        }
        let mut cells = 0_usize;
        for table in &self.tables {
            let rows = table.columns.first().map_or(0, |column| column.values.len());
            if table.columns.iter().any(|column| column.values.len() != rows) {
                return fail(format!("table `{}`: its columns differ in length", table.title));
            }
            cells = cells.saturating_add(rows.saturating_mul(table.columns.len()));
        }
        if cells > MAX_CELLS {
            return fail(format!("more than {MAX_CELLS} cells"));
        }
        for chart in &self.charts {
            let readable = chart.spec.len() <= MAX_CHART_BYTES
                && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&chart.spec).is_ok();
            if !readable {
                return fail(format!(
                    "chart `{}`: its specification is not a JSON object of at most {MAX_CHART_BYTES} bytes",
                    chart.title
                ));
            }
        }
        Ok(self)
    }
}

/// JSON has no NaN: null stands for it.
mod numbers {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|value| value.is_finite().then_some(*value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let values = Vec::<Option<f64>>::deserialize(deserializer)?;
        Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let columns = vec![
            Column { name: "a".into(), values: Cells::Numbers(vec![1.0, f64::NAN]) },
            Column { name: "b".into(), values: Cells::Texts(vec!["x".into(), "y".into()]) },
        ];
        let charts = vec![Chart { title: "c".into(), spec: r#"{"mark":"bar"}"#.into() }];
        Report { summary: "s".into(), tables: vec![Table { title: "t".into(), columns }], charts }
    }

    #[test]
    fn json_round_trip_keeps_gaps() {
        let text = serde_json::to_string(&good()).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        let Cells::Numbers(values) = &back.tables[0].columns[0].values else { panic!("numbers") };
        assert!(values[0] == 1.0 && values[1].is_nan());
    }

    #[test]
    fn ragged_tables_and_broken_charts_are_refused() {
        assert!(good().checked().is_ok());
        let mut ragged = good();
        ragged.tables[0].columns[1].values = Cells::Texts(vec![]);
        assert!(ragged.checked().unwrap_err().to_string().contains("`t`"));
        for spec in ["", "[]", "{", "null"] {
            let mut broken = good();
            broken.charts[0].spec = spec.into();
            assert!(broken.checked().unwrap_err().to_string().contains("`c`"));
        }
        let mut long = good();
        long.summary = "x".repeat(MAX_SUMMARY_BYTES + 1);
        assert!(long.checked().is_err());
        let titled = |title: String| {
            let mut titled = good();
            titled.tables[0].columns[0].name = title;
            titled.checked()
        };
        assert!(titled("é".repeat(MAX_TITLE)).is_ok() && titled("é".repeat(MAX_TITLE + 1)).is_err());
        let mut many = good();
        many.tables = vec![many.tables[0].clone(); MAX_PARTS + 1];
        assert!(many.checked().is_err());
    }
}
