//! Everybody whom the files name, in the keyed order of rows, with what the tables say of them.
//!
//! *In*: rows of tables and names of samples, in any order. *Out*: [`People`]: everybody's place in the keyed order, and then everybody's row in that order.
//! Memory: 16 bytes an individual, and a bounded part of the rows, whatever the tables' size. *Refuses*: doubled individuals that differ, unless the first
//! is to be kept.

use serde::{Deserialize, Serialize};
use vestibule_importer::{Cell, ConfigError, Duplicates, IngestReport, Row, TableConfig};
use vestibule_protocol::dictionary::{Dictionary, Kind};

use super::super::withdrawal::Withdrawn;
use super::super::{StoreKey, Value};
use super::IngestError;
use super::spill::Spill;

pub(super) const FILE: &str = "gathered";

/// A row of a table, or a sample of a variant file.
#[derive(Serialize, Deserialize)]
struct Entry {
    order: [u8; 16],
    table: Option<Found>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    table: u32,
    line: u64,
    /// Which of the dictionary's columns, and what is there.
    cells: Vec<(u32, Cell)>,
}

/// An individual's own row.
#[derive(Serialize, Deserialize)]
struct Merged {
    order: [u8; 16],
    cells: Vec<Cell>,
}

/// What is known of people, while files are read.
pub(super) struct Gathering<'a> {
    spill: Spill,
    key: &'a StoreKey,
}

/// Who is counted in.
pub(super) struct Rules<'a> {
    pub(super) tables: &'a [TableConfig],
    pub(super) dictionary: &'a Dictionary,
    /// Only those who are in a table.
    pub(super) tables_only: bool,
    /// Whether there are variant files.
    pub(super) variants: bool,
    pub(super) withdrawn: &'a Withdrawn,
}

/// Everybody.
pub(super) struct People {
    order: Vec<[u8; 16]>,
    spill: Spill,
    /// The part that is given out, and what is left of it.
    part: usize,
    left: std::vec::IntoIter<Merged>,
}

fn failed(error: &std::io::Error) -> IngestError {
    IngestError::io(FILE, error)
}

impl<'a> Gathering<'a> {
    pub(super) const fn new(spill: Spill, key: &'a StoreKey) -> Self {
        Self { spill, key }
    }

    /// A row of a table, whose cells are those of these columns.
    pub(super) fn row(&mut self, table: u32, row: Row, columns: &[u32]) -> Result<(), IngestError> {
        let Row { line, id, cells } = row;
        let cells = columns.iter().copied().zip(cells).collect();
        self.put(self.key.order(&id), Some(Found { table, line, cells }))
    }

    /// A sample of a variant file, by its place in the keyed order.
    pub(super) fn sample(&mut self, order: [u8; 16]) -> Result<(), IngestError> {
        self.put(order, None)
    }

    fn put(&mut self, order: [u8; 16], table: Option<Found>) -> Result<(), IngestError> {
        self.spill.put(&order, &Entry { order, table }).map_err(|error| failed(&error))
    }

    /// One row for each individual.
    pub(super) fn merge(mut self, rules: &Rules<'_>, report: &mut IngestReport) -> Result<People, IngestError> {
        let mut order = Vec::new();
        let mut counts = Counts::default();
        for part in 0..self.spill.parts() {
            let mut entries: Vec<Entry> = self.spill.take(part).map_err(|error| failed(&error))?;
            // Entries of one individual stay in the order of tables and lines.
            entries.sort_by_key(|entry| entry.order);
            let mut entries = entries.into_iter().peekable();
            while let Some(first) = entries.next() {
                let mut all = vec![first];
                while let Some(next) = entries.next_if(|next| all.first().is_some_and(|first| first.order == next.order)) {
                    all.push(next);
                }
                let Some(merged) = merge(all, rules, &mut counts, report)? else { continue };
                order.push(merged.order);
                self.spill.put_in(part, &merged).map_err(|error| failed(&error))?;
            }
        }
        counts.tell(rules, order.len(), report);
        if order.is_empty() {
            return Err(IngestError::Nobody);
        }
        Ok(People { order, spill: self.spill, part: 0, left: Vec::new().into_iter() })
    }
}

#[derive(Default)]
struct Counts {
    table: u64,
    variants: u64,
    both: u64,
    left_out: u64,
    withdrawn: u64,
}

impl Counts {
    fn tell(&self, rules: &Rules<'_>, individuals: usize, report: &mut IngestReport) {
        let why = || "`individuals = \"table\"` in [variants]".to_owned();
        report.note_many("individuals in a variant file and in no table, left out", self.left_out, why);
        (report.with_table, report.with_genotypes) = (self.table, self.variants);
        if rules.variants && !rules.tables.is_empty() {
            let (only_table, only_variants) = (self.table.saturating_sub(self.both), self.variants.saturating_sub(self.both));
            report.count("individuals in a table and in no variant file: dosages missing", only_table);
            report.count("individuals in a variant file and in no table: values missing", only_variants);
        }
        report.count("individuals who withdrew, left out", self.withdrawn);
        report.individuals = individuals as u64;
    }
}

/// One individual's row, from all that was found of it; `None` where it is left out.
fn merge(
    all: Vec<Entry>,
    rules: &Rules<'_>,
    counts: &mut Counts,
    report: &mut IngestReport,
) -> Result<Option<Merged>, IngestError> {
    let columns = &rules.dictionary.columns;
    let (mut cells, mut first): (Vec<Cell>, Option<(u32, u64)>) = (columns.iter().map(|_| Cell::Missing).collect(), None);
    let (mut in_variants, mut owner) = (false, None);
    for Entry { order, table } in all {
        owner = Some(order);
        let Some(Found { table, line, cells: found }) = table else {
            in_variants = true;
            continue;
        };
        let differs = found.iter().any(|(place, cell)| cells.get(*place as usize).is_some_and(|known| known != cell));
        let name = || rules.tables.get(table as usize).map_or("", |table| table.file.as_str());
        match first.filter(|(known, _)| *known == table) {
            None => {
                first = Some((table, line));
                for (place, cell) in found {
                    if let Some(here) = cells.get_mut(place as usize) {
                        *here = cell;
                    }
                }
            }
            Some((_, first)) if !differs => {
                report.note("repeated rows of an individual, the same, merged", || {
                    format!("{}, lines {first} and {line}", name())
                });
            }
            Some((_, first)) => {
                let keep = rules.tables.get(table as usize).is_some_and(|table| table.duplicates == Duplicates::First);
                if !keep {
                    return Err(ConfigError(format!(
                        "{}: line {line}: the same id as line {first}, with other values: correct the table, or set \
                         `duplicates = \"first\"`",
                        name()
                    ))
                    .into());
                }
                report.note("further rows of an individual, dropped", || format!("{}, line {line} after line {first}", name()));
            }
        }
    }
    let in_table = first.is_some();
    counts.table = counts.table.saturating_add(u64::from(in_table));
    if in_variants && !in_table && rules.tables_only {
        counts.left_out = counts.left_out.saturating_add(1);
        return Ok(None);
    }
    counts.variants = counts.variants.saturating_add(u64::from(in_variants));
    counts.both = counts.both.saturating_add(u64::from(in_variants && in_table));
    let Some(order) = owner else { return Ok(None) };
    if rules.withdrawn.has(&order) {
        counts.withdrawn = counts.withdrawn.saturating_add(1);
        return Ok(None);
    }
    Ok(Some(Merged { order, cells }))
}

impl People {
    /// Everybody's place in the keyed order, ascending.
    pub(super) fn order(&self) -> &[[u8; 16]] {
        &self.order
    }

    /// The next so many rows: the head of each one's place, and its values.
    pub(super) fn next(&mut self, count: usize, kinds: &[&Kind]) -> Result<Vec<(u64, Vec<Value>)>, IngestError> {
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            let Some(Merged { order, cells }) = self.left.next() else {
                if self.part >= self.spill.parts() {
                    return Err(failed(&std::io::Error::other("it holds too few rows")));
                }
                self.left = self.spill.take(self.part).map_err(|error| failed(&error))?.into_iter();
                self.part = self.part.saturating_add(1);
                continue;
            };
            let place = u64::from_be_bytes(*order.first_chunk().expect("8 of 16 bytes"));
            let values = cells.iter().zip(kinds).map(|(cell, kind)| cell.value(kind).unwrap_or(Value::Missing)).collect();
            rows.push((place, values));
        }
        Ok(rows)
    }
}
