//! The tables of a recipe, read into one row of values for each individual.
//!
//! *In*: the recipe, its mappings. *Out*: values by individual; those that are the same for everybody. *Refuses*: a mapped column that no
//! table has.

use std::collections::HashMap;

use cap_std::fs::Dir;

use super::super::config::{Config, ConfigError, MapConfig, Mapping};
use super::super::report::IngestReport;
use super::super::table::{self, People};
use super::super::{StoreKey, Value};
use super::IngestError;
use super::sources::{Sources, open};

/// For each dictionary column, how it is mapped.
pub(super) type Mappings<'a> = [Option<(&'a MapConfig, Mapping)>];

/// Values of all individuals that a table has.
pub(super) fn read(
    source: &Dir,
    config: &Config,
    sources: &Sources,
    key: &StoreKey,
    mappings: &Mappings<'_>,
    report: &mut IngestReport,
) -> Result<People, IngestError> {
    let names: Vec<&str> = sources.dictionary.columns.iter().map(|column| column.name.as_str()).collect();
    let mut people: People = HashMap::new();
    let mut found = vec![false; mappings.len()];
    for table in &config.table {
        let input = open(source, &table.file, key)?;
        table::read(table, input, mappings, &names, &mut found, &mut people, report)?;
    }
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

/// The values of mappings that are the same for everybody.
pub(super) fn constants(mappings: &Mappings<'_>) -> Result<Vec<Option<Value>>, IngestError> {
    let constant = |mapping: &Option<(&MapConfig, Mapping)>| {
        let Some((config, mapping)) = mapping else { return Ok(None) };
        let Some(text) = &config.constant else { return Ok(None) };
        let value = table::value(mapping, text, '.');
        value.map(Some).map_err(|why| IngestError::Config(ConfigError(format!("`constant = \"{text}\"`: {why}"))))
    };
    mappings.iter().map(constant).collect()
}
