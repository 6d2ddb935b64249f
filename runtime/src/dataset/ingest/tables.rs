//! The tables of a recipe, read into one row of values for each individual.
//!
//! *In*: the recipe, its mappings. *Out*: values by individual; those that are the same for everybody. *Trusts*: no importer: each value is held to its
//! column. *Refuses*: a mapped column that no table has; doubled individuals that differ, unless the first is to be kept.

use std::collections::HashMap;

use cap_std::fs::Dir;
use vestibule_importer::{Config, ConfigError, Duplicates, IngestReport, MapConfig, Mapping, Row, Said, TableConfig, Task};

use super::super::import::{Importers, Reading};
use super::super::{StoreKey, Value};
use super::IngestError;
use super::sources::Sources;

/// For each dictionary column, how it is mapped.
pub(super) type Mappings<'a> = [Option<(&'a MapConfig, Mapping)>];

/// Values of all individuals, in the dictionary's order.
pub(super) type People = HashMap<String, Vec<Value>>;

/// Values of all individuals that a table has.
pub(super) fn read(
    (importers, source): (&Importers, &Dir),
    (config, config_text): (&Config, &str),
    sources: &Sources,
    key: &StoreKey,
    mappings: &Mappings<'_>,
    report: &mut IngestReport,
) -> Result<People, IngestError> {
    let mut people: People = HashMap::new();
    let mut found = vec![false; mappings.len()];
    for (index, table) in config.table.iter().enumerate() {
        let mut reading = Reading::start(importers, source, std::slice::from_ref(&table.file), key)?;
        let (recipe, dictionary) = (config_text.to_owned(), sources.dictionary_text.clone());
        reading.say(&Task::Table { recipe, dictionary, table: u32::try_from(index).unwrap_or(u32::MAX) })?;
        let Said::Columns(places) = reading.hear()? else { return Err(reading.lost()) };
        let mut columns = Vec::with_capacity(places.len());
        for place in places {
            let place = place as usize;
            let (Some(found), Some(column)) = (found.get_mut(place), sources.dictionary.columns.get(place)) else {
                return Err(reading.lost());
            };
            *found = true;
            columns.push((place, &column.kind));
        }
        let mut merging = Merging { table, seen: HashMap::new(), people: &mut people, width: mappings.len() };
        loop {
            let Said::Values(rows) = reading.hear()? else { return Err(reading.lost()) };
            report.take_in(rows.notes);
            for row in rows.rows {
                let cells = row.cells.iter().zip(&columns);
                let values = cells.map(|(cell, (place, kind))| Some((*place, cell.value(kind)?))).collect::<Option<Vec<_>>>();
                let values = values.filter(|values| values.len() == columns.len() && row.cells.len() == columns.len());
                let Some(values) = values else { return Err(reading.lost()) };
                reading.records = row.line;
                merging.row(row, &values, report)?;
            }
            if !rows.more {
                break;
            }
        }
        reading.finish()?;
    }
    let names = sources.dictionary.columns.iter().map(|column| column.name.as_str());
    for ((mapping, found), name) in mappings.iter().zip(found).zip(names) {
        if let Some((map, _)) = mapping
            && let Some(column) = &map.column
            && !found
        {
            let file = map.table.as_deref().unwrap_or("the tables");
            return Err(ConfigError(format!("`[map.{name}]`: there is no column `{column}` in {file}")).into());
        }
    }
    Ok(people)
}

/// One table's rows on their way to their individuals.
struct Merging<'a> {
    table: &'a TableConfig,
    /// The line that each individual was first seen in.
    seen: HashMap<String, u64>,
    people: &'a mut People,
    width: usize,
}

impl Merging<'_> {
    fn row(&mut self, row: Row, found: &[(usize, Value)], report: &mut IngestReport) -> Result<(), ConfigError> {
        let Row { line, id, .. } = row;
        let file = &self.table.file;
        let values = self.people.entry(id.clone()).or_insert_with(|| vec![Value::Missing; self.width]);
        let mut fresh = values.clone();
        for (place, value) in found {
            if let Some(here) = fresh.get_mut(*place) {
                *here = *value;
            }
        }
        match self.seen.insert(id, line) {
            None => *values = fresh,
            Some(first) if *values == fresh => {
                report.note("repeated rows of an individual, the same, merged", || format!("{file}, lines {first} and {line}"));
            }
            Some(first) if self.table.duplicates == Duplicates::First => {
                report.note("further rows of an individual, dropped", || format!("{file}, line {line} after line {first}"));
            }
            Some(first) => {
                return Err(ConfigError(format!(
                    "{file}: line {line}: the same id as line {first}, with other values: correct the table, or set \
                     `duplicates = \"first\"`"
                )));
            }
        }
        Ok(())
    }
}

/// The values of mappings that are the same for everybody.
pub(super) fn constants(mappings: &Mappings<'_>) -> Result<Vec<Option<Value>>, IngestError> {
    let constant = |mapping: &Option<(&MapConfig, Mapping)>| {
        let Some((config, mapping)) = mapping else { return Ok(None) };
        let Some(text) = &config.constant else { return Ok(None) };
        let value = vestibule_importer::value(mapping, text, '.');
        value.map(Some).map_err(|why| IngestError::Config(ConfigError(format!("`constant = \"{text}\"`: {why}"))))
    };
    mappings.iter().map(constant).collect()
}
