//! Tables: from delimited text to dictionary values, one row an individual.
//!
//! *In*: a table file and the mappings; `found` notes which of them have their column here. *Out*: values by individual. *Refuses*: a file without the columns that are named, rows of
//! another length, doubled individuals that differ (unless the first is to be kept); by file and line. Codes that mean
//! nothing, and numbers out of the dictionary's bounds, become missing and are noted.

use std::collections::HashMap;
use std::io::Read;

use super::Value;
use super::config::{ConfigError, Duplicates, MapConfig, Mapping, TableConfig};
use super::days;
use super::report::IngestReport;

/// Values of all individuals, in the dictionary's order.
pub(super) type People = HashMap<String, Vec<Value>>;

/// A mapping of a dictionary column to a place in this table.
struct Wanted<'a> {
    place: usize,
    config: &'a MapConfig,
    mapping: &'a Mapping,
    column: &'a str,
    field: usize,
}

/// Reads one table into `people`.
pub(super) fn read(
    config: &TableConfig,
    input: impl Read,
    mappings: &[Option<(&MapConfig, Mapping)>],
    names: &[&str],
    found: &mut [bool],
    people: &mut People,
    report: &mut IngestReport,
) -> Result<(), ConfigError> {
    let fail = |why: String| ConfigError(format!("{}: {why}", config.file));
    let separator = config.separator.unwrap_or(if config.file.ends_with(".tsv") { '\t' } else { ',' });
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(u8::try_from(separator).unwrap_or(b','))
        .has_headers(config.columns.is_none())
        .flexible(false)
        .trim(csv::Trim::All)
        .from_reader(input);
    let header: Vec<String> = match &config.columns {
        Some(columns) => columns.clone(),
        None => {
            let header = reader.headers().map_err(|error| fail(error.to_string()))?;
            header.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect()
        }
    };
    let find = |name: &str| header.iter().position(|found| found == name);
    let id = match config.id.as_str() {
        "#" => None,
        name => Some(
            find(name)
                .ok_or_else(|| fail(format!("there is no column `{name}` for the id; there are {}", header.join(", "))))?,
        ),
    };
    let mut wanted = Vec::new();
    for (place, mapping) in mappings.iter().enumerate() {
        let Some((map, mapping)) = mapping else { continue };
        let Some(column) = &map.column else { continue };
        let here = map.table.as_ref().is_none_or(|table| *table == config.file);
        match find(column) {
            Some(field) if here => {
                if let Some(found) = found.get_mut(place) {
                    *found = true;
                }
                let name = names.get(place).copied().unwrap_or_default();
                wanted.push(Wanted { place, config: map, mapping, column: name, field });
            }
            None if map.table.is_some() && here => {
                return Err(fail(format!("there is no column `{column}`; there are {}", header.join(", "))));
            }
            _ => {}
        }
    }
    let mut seen: HashMap<String, u64> = HashMap::new();
    for (index, row) in reader.records().enumerate() {
        let row = row.map_err(|error| fail(error.to_string()))?;
        if config.columns.as_ref().is_some_and(|columns| columns.len() != row.len()) {
            return Err(fail(format!(
                "row {}: it has {} fields where `columns` names {}",
                index.saturating_add(1),
                row.len(),
                header.len()
            )));
        }
        let line = row.position().map_or(0, csv::Position::line);
        let person = match id {
            Some(field) => row.get(field).unwrap_or_default().to_owned(),
            None => format!("{}#{}", config.file, index.saturating_add(1)),
        };
        if person.is_empty() {
            report.note("rows without an id, dropped", || format!("{}, line {line}", config.file));
            continue;
        }
        let values = people.entry(person.clone()).or_insert_with(|| vec![Value::Missing; mappings.len()]);
        let mut fresh = values.clone();
        for want in &wanted {
            let value = cell(want, row.get(want.field).unwrap_or_default(), config, line, report);
            if let Some(place) = fresh.get_mut(want.place) {
                *place = value;
            }
        }
        match seen.insert(person, line) {
            None => *values = fresh,
            Some(first) if *values == fresh => {
                report.note("repeated rows of an individual, the same, merged", || {
                    format!("{}, lines {first} and {line}", config.file)
                });
            }
            Some(first) if config.duplicates == Duplicates::First => {
                report.note("further rows of an individual, dropped", || {
                    format!("{}, line {line} after line {first}", config.file)
                });
            }
            Some(first) => {
                let what = "the same id as line";
                return Err(fail(format!(
                    "line {line}: {what} {first}, with other values: correct the table, or set `duplicates = \"first\"`"
                )));
            }
        }
    }
    Ok(())
}

fn cell(want: &Wanted<'_>, text: &str, table: &TableConfig, line: u64, report: &mut IngestReport) -> Value {
    let text = text.trim();
    if text.is_empty() || table.missing.iter().chain(&want.config.missing).any(|missing| missing == text) {
        return Value::Missing;
    }
    let note = |kind: &str| {
        let at = || format!("{}, line {line}: `{}`", table.file, text.escape_debug().take(40).collect::<String>());
        report.note(&format!("{}: {kind}, taken for missing", want.column), at);
        Value::Missing
    };
    value(want.mapping, text, table.decimal).unwrap_or_else(note)
}

/// The value that a text stands for, or why it stands for none.
pub(super) fn value(mapping: &Mapping, text: &str, decimal: char) -> Result<Value, &'static str> {
    let number = |text: &str| {
        let found = if decimal == ',' { text.replace(',', ".").parse::<f64>() } else { text.parse::<f64>() };
        found.ok().filter(|number| number.is_finite()).ok_or("not a number")
    };
    match mapping {
        Mapping::Number { scale, offset, lower, upper } => {
            let number = number(text)? * scale + offset;
            if (*lower..=*upper).contains(&number) { Ok(Value::Number(number)) } else { Err("outside the dictionary's bounds") }
        }
        Mapping::Level { codes } => {
            codes.get(text).map(|&level| Value::Level(level)).ok_or("a code that the mapping does not name")
        }
        Mapping::Flag { yes, .. } if yes.iter().any(|code| code == text) => Ok(Value::Flag(true)),
        Mapping::Flag { no, .. } if no.iter().any(|code| code == text) => Ok(Value::Flag(false)),
        Mapping::Flag { .. } => Err("a code that the mapping does not name"),
        Mapping::Above { threshold } => Ok(Value::Flag(number(text)? > *threshold)),
        Mapping::Day { format } => days::parse(text, format).map(Value::Day).ok_or("not a day of the mapping's format"),
    }
}
