//! Tables: from delimited text to dictionary values. Runs in an importer.
//!
//! *In*: a table file and the mappings. *Out*: which of the dictionary's columns it fills, then its rows. *Refuses*: a file without the columns that are
//! named, rows of another length; by file and line. Codes that mean nothing, and numbers out of the dictionary's bounds, become missing and are noted.

use std::io::Read;

use crate::config::{ConfigError, MapConfig, Mapping, TableConfig};
use crate::days;
use crate::message::{Cell, Row, Rows, Said};
use crate::report::IngestReport;
use crate::value::Value;

/// A mapping of a dictionary column to a field of this table.
struct Wanted<'a> {
    config: &'a MapConfig,
    mapping: &'a Mapping,
    column: &'a str,
    field: usize,
}

/// Rows that are said at once.
const STEP: usize = 1_024;

/// Reads one table. `say`: takes what was read.
pub(crate) fn read(
    config: &TableConfig,
    input: impl Read,
    mappings: &[Option<(&MapConfig, Mapping)>],
    say: &mut dyn FnMut(Said) -> std::io::Result<()>,
) -> std::io::Result<Result<(), ConfigError>> {
    let mut table = match Table::open(config, input, mappings) {
        Ok(table) => table,
        Err(error) => return Ok(Err(error)),
    };
    say(Said::Columns(std::mem::take(&mut table.places)))?;
    loop {
        match table.advance() {
            Ok(rows) => {
                let more = rows.more;
                say(Said::Values(rows))?;
                if !more {
                    return Ok(Ok(()));
                }
            }
            Err(error) => return Ok(Err(error)),
        }
    }
}

struct Table<'a, R> {
    config: &'a TableConfig,
    reader: csv::Reader<R>,
    record: csv::StringRecord,
    header: Vec<String>,
    id: Option<usize>,
    /// Of the dictionary's columns that it fills; behind them, how.
    places: Vec<u32>,
    wanted: Vec<Wanted<'a>>,
    index: u64,
}

impl<'a, R: Read> Table<'a, R> {
    fn open(config: &'a TableConfig, input: R, mappings: &'a [Option<(&MapConfig, Mapping)>]) -> Result<Self, ConfigError> {
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
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for (place, mapping) in mappings.iter().enumerate() {
            let Some((map, mapping)) = mapping else { continue };
            let Some(column) = &map.column else { continue };
            let here = map.table.as_ref().is_none_or(|table| *table == config.file);
            match find(column) {
                Some(field) if here => {
                    places.push(u32::try_from(place).unwrap_or(u32::MAX));
                    wanted.push(Wanted { config: map, mapping, column, field });
                }
                None if map.table.is_some() && here => {
                    return Err(fail(format!("there is no column `{column}`; there are {}", header.join(", "))));
                }
                _ => {}
            }
        }
        Ok(Self { config, reader, record: csv::StringRecord::new(), header, id, places, wanted, index: 0 })
    }

    /// Reads some more rows.
    fn advance(&mut self) -> Result<Rows, ConfigError> {
        let Self { config, reader, record, header, id, wanted, index, .. } = self;
        let fail = |why: String| ConfigError(format!("{}: {why}", config.file));
        let (mut report, mut rows) = (IngestReport::default(), Vec::new());
        while rows.len() < STEP {
            if !reader.read_record(record).map_err(|error| fail(error.to_string()))? {
                return Ok(Rows { rows, notes: report.notes, more: false });
            }
            *index = index.saturating_add(1);
            if config.columns.as_ref().is_some_and(|columns| columns.len() != record.len()) {
                return Err(fail(format!(
                    "row {index}: it has {} fields where `columns` names {}",
                    record.len(),
                    header.len()
                )));
            }
            let line = record.position().map_or(0, csv::Position::line);
            let id = match id {
                Some(field) => record.get(*field).unwrap_or_default().to_owned(),
                None => format!("{}#{index}", config.file),
            };
            if id.is_empty() {
                report.note("rows without an id, dropped", || format!("{}, line {line}", config.file));
                continue;
            }
            let value = |want: &Wanted<'_>| cell(want, record.get(want.field).unwrap_or_default(), config, line, &mut report);
            let cells = wanted.iter().map(value).map(Cell::of).collect();
            rows.push(Row { line, id, cells });
        }
        Ok(Rows { rows, notes: report.notes, more: true })
    }
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
///
/// # Errors
/// Why.
pub fn value(mapping: &Mapping, text: &str, decimal: char) -> Result<Value, &'static str> {
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
