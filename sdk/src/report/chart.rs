//! Plots as Vega-Lite v5 specifications whose data is a table of the same report.
//!
//! *In*: a table's title and column names. *Out*: JSON text (<https://vega.github.io/vega-lite/docs/spec.html>), with
//! `"data": {"name": "<table title>"}`: anyone who shows the report puts the table's rows there. The plots hold no numbers of their
//! own, so what is seen is what the table says.

use serde_json::{Value, json};

use crate::contract;

/// A plot of a report's table.
///
/// ```
/// use vestibule_sdk::{Chart, Estimate, Report, Table};
/// let counts = [Estimate::new(10.0, 1.4), Estimate::new(32.0, 1.4)];
/// let report = Report::new("Two groups.")
///     .table(Table::new("Counts").texts("group", ["a", "b"]).estimates("people", &counts))
///     .chart(Chart::bars("People by group", "Counts", "group", "people").error_bars());
/// assert!(report.charts[0].spec.contains("\"people low\""));
/// ```
#[derive(Debug, Clone)]
pub struct Chart {
    title: String,
    table: String,
    layers: Vec<Value>,
    y: String,
    x: Value,
}

impl Chart {
    /// A bar for each row: `x` names the category, `y` is the height.
    pub fn bars(title: impl Into<String>, table: impl Into<String>, x: &str, y: &str) -> Self {
        let x = json!({"field": field(x), "type": "nominal", "title": x, "sort": null});
        let mut chart = Self::of(title, table, x, y, json!({"type": "bar", "tooltip": true}));
        if let Some(layer) = chart.layers.first_mut() {
            layer["encoding"]["y"]["scale"] = json!({"zero": true});
        }
        chart
    }

    /// A line through the rows.
    pub fn line(title: impl Into<String>, table: impl Into<String>, x: &str, y: &str) -> Self {
        Self::of(title, table, number(x), y, json!({"type": "line", "point": true, "tooltip": true}))
    }

    /// A point for each row.
    pub fn points(title: impl Into<String>, table: impl Into<String>, x: &str, y: &str) -> Self {
        Self::of(title, table, number(x), y, json!({"type": "point", "filled": true, "tooltip": {"content": "data"}}))
    }

    /// A point for each category: as `bars`, for values that do not start at zero.
    pub fn dots(title: impl Into<String>, table: impl Into<String>, x: &str, y: &str) -> Self {
        let x = json!({"field": field(x), "type": "nominal", "title": x, "sort": null});
        Self::of(title, table, x, y, json!({"type": "point", "filled": true, "size": 70, "tooltip": {"content": "data"}}))
    }

    /// Positions along a contig, as in a genome-wide scan: one colour per value of the column `contig`.
    pub fn manhattan(title: impl Into<String>, table: impl Into<String>, contig: &str, position: &str, y: &str) -> Self {
        let mut chart = Self::points(title, table, position, y);
        if let Some(layer) = chart.layers.first_mut() {
            layer["encoding"]["color"] = json!({"field": field(contig), "type": "nominal", "title": contig, "sort": null});
        }
        chart
    }

    fn of(title: impl Into<String>, table: impl Into<String>, x: Value, y: &str, mark: Value) -> Self {
        let layer = json!({"mark": mark, "encoding": {"x": x.clone(), "y": number(y)}});
        Self { title: title.into(), table: table.into(), layers: vec![layer], y: y.to_owned(), x }
    }

    /// Draws the 95 % intervals that `Table::estimates` put beside the column.
    #[must_use]
    pub fn error_bars(self) -> Self {
        let (low, high) = (format!("{} low", self.y), format!("{} high", self.y));
        self.error(&low, &high)
    }

    /// Draws intervals from the columns `low` to `high`.
    #[must_use]
    pub fn error(mut self, low: &str, high: &str) -> Self {
        let y = json!({"field": field(low), "type": "quantitative", "title": self.y});
        let encoding = json!({"x": self.x, "y": y, "y2": {"field": field(high)}});
        self.layers.push(json!({"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": encoding}));
        self
    }

    /// Draws a dashed horizontal line, say a threshold.
    #[must_use]
    pub fn level(mut self, y: f64) -> Self {
        self.layers.push(json!({"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"y": {"datum": y}}}));
        self
    }

    /// Draws the diagonal y = x from `low` to `high`, say estimate against truth.
    #[must_use]
    pub fn diagonal(mut self, low: f64, high: f64) -> Self {
        let ends = json!({"x": {"datum": low}, "y": {"datum": low}, "x2": {"datum": high}, "y2": {"datum": high}});
        self.layers.push(json!({"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": ends}));
        self
    }
}

impl From<Chart> for contract::Chart {
    fn from(chart: Chart) -> Self {
        let spec = json!({
            "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
            "title": chart.title,
            "data": {"name": chart.table},
            "width": 560,
            "height": 300,
            "layer": chart.layers,
        });
        Self { title: chart.title, spec: spec.to_string() }
    }
}

/// The tables that a specification takes its data from.
pub(crate) fn tables_named(spec: &str) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("data").and_then(|data| data.get("name")).and_then(Value::as_str) {
                    found.push(name.to_owned());
                }
                map.values().for_each(|value| walk(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_str(spec) {
        walk(&value, &mut found);
    }
    found
}

fn number(name: &str) -> Value {
    json!({"field": field(name), "type": "quantitative", "title": name, "scale": {"zero": false}})
}

/// A column name as a Vega-Lite field: dots and brackets would mean nesting.
fn field(name: &str) -> String {
    name.replace('\\', "\\\\").replace('.', "\\.").replace('[', "\\[").replace(']', "\\]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_is_json_that_names_its_table() {
        let chart: contract::Chart = Chart::bars("T", "my table", "x.y", "n").error_bars().level(3.0).into();
        let spec: Value = serde_json::from_str(&chart.spec).unwrap();
        assert_eq!(spec["data"]["name"], "my table");
        assert_eq!(spec["layer"][0]["encoding"]["x"]["field"], "x\\.y");
        assert_eq!(spec["layer"][1]["encoding"]["y2"]["field"], "n high");
        assert_eq!(spec["layer"][2]["encoding"]["y"]["datum"], 3.0);
        assert_eq!(tables_named(&chart.spec), ["my table"]);
    }
}
