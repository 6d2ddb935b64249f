//! The tables of a recipe, read into rows.
//!
//! *In*: the recipe, its mappings. *Out*: rows of all tables; values that are the same for everybody. *Trusts*: no importer: each value is held to its
//! column. *Refuses*: a mapped column that no table has.

use vestibule_importer::{ConfigError, IngestReport, MapConfig, Mapping, Said, Task};

use super::super::Value;
use super::super::import::Reading;
use super::IngestError;
use super::people::Gathering;
use super::rows::Making;

/// For each dictionary column, how it is mapped.
pub(super) type Mappings<'a> = [Option<(&'a MapConfig, Mapping)>];

/// Reads all tables.
pub(super) fn read(
    making: &Making<'_>,
    mappings: &Mappings<'_>,
    gathering: &mut Gathering<'_>,
    report: &mut IngestReport,
) -> Result<(), IngestError> {
    let Making { importers, source, config, config_text, sources, key, .. } = *making;
    let mut found = vec![false; mappings.len()];
    for (index, table) in config.table.iter().enumerate() {
        let mut reading = Reading::start(importers, source, std::slice::from_ref(&table.file), key)?;
        let (recipe, dictionary) = (config_text.to_owned(), sources.dictionary_text.clone());
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        reading.say(&Task::Table { recipe, dictionary, table: number })?;
        let Said::Columns(places) = reading.hear()? else { return Err(reading.lost()) };
        let mut kinds = Vec::with_capacity(places.len());
        for place in &places {
            let place = *place as usize;
            let (Some(found), Some(column)) = (found.get_mut(place), sources.dictionary.columns.get(place)) else {
                return Err(reading.lost());
            };
            *found = true;
            kinds.push(&column.kind);
        }
        loop {
            let Said::Values(rows) = reading.hear()? else { return Err(reading.lost()) };
            report.take_in(rows.notes);
            for row in rows.rows {
                let good = row.cells.len() == kinds.len()
                    && row.cells.iter().zip(&kinds).all(|(cell, kind)| cell.value(kind).is_some());
                if !good {
                    return Err(reading.lost());
                }
                reading.records = row.line;
                gathering.row(number, row, &places)?;
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
    Ok(())
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
