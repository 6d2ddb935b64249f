//! What an ingest dropped or changed, and why: for the site's own eyes.
//!
//! *In*: notes from every step. *Out*: [`IngestReport`], kept encrypted beside the data and shown once to the one who ran the ingest.
//! It holds counts and places in the site's own files, so it never goes to the coordinator.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Examples that are kept of each kind of note.
const EXAMPLES: usize = 5;

/// One kind of thing that was dropped or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// How often.
    pub count: u64,
    /// The first few: file, line or record, and what was found.
    pub examples: Vec<String>,
}

/// Notes by kind.
pub type Notes = BTreeMap<String, Note>;

/// Kinds of notes of a report: several of each column, at most.
const MOST_KINDS: usize = 10_000;
/// Characters of a kind or an example.
const MOST_CHARACTERS: usize = 400;

/// The whole of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestReport {
    /// Whether anything was done: `false` where the same files were ingested before.
    pub changed: bool,
    /// Individuals in the dataset.
    pub individuals: u64,
    /// Of them, those in a table.
    pub with_table: u64,
    /// Of them, those in a variant file.
    pub with_genotypes: u64,
    /// Variant files.
    pub files: u64,
    /// Of them, those whose genotypes were taken over from the version that served before, not read.
    pub taken_over: u64,
    /// Which version that was.
    pub taken_from: Option<String>,
    /// Files that were read though that version has them, or might, by why.
    pub read_again: BTreeMap<String, u64>,
    /// Variant records read, also those of files that were taken over.
    pub records: u64,
    /// Catalogue variants that at least one record matched.
    pub variants_matched: u64,
    /// Catalogue variants.
    pub variants: u64,
    /// What was dropped or changed, by kind.
    pub notes: Notes,
}

impl IngestReport {
    /// Notes one more of a kind; `example` is asked for only while few are known.
    pub fn note(&mut self, kind: &str, example: impl FnOnce() -> String) {
        self.note_many(kind, 1, example);
    }

    /// Notes a number of a kind that has no place in a file.
    pub fn count(&mut self, kind: &str, count: u64) {
        if count > 0 {
            let note = self.notes.entry(kind.to_owned()).or_default();
            note.count = note.count.saturating_add(count);
        }
    }

    /// Takes in what an importer noted, whose words may be anything: as text for a terminal, and not without end.
    pub fn take_in(&mut self, notes: Notes) {
        let plain = |text: &str| -> String {
            text.chars().take(MOST_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect()
        };
        for (kind, found) in notes {
            let kind = plain(&kind);
            if self.notes.len() >= MOST_KINDS && !self.notes.contains_key(&kind) {
                continue;
            }
            let note = self.notes.entry(kind).or_default();
            note.count = note.count.saturating_add(found.count);
            let room = EXAMPLES.saturating_sub(note.examples.len());
            note.examples.extend(found.examples.iter().take(room).map(|text| plain(text)));
        }
    }

    /// Notes several of a kind.
    pub fn note_many(&mut self, kind: &str, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        if !self.notes.contains_key(kind) {
            self.notes.insert(kind.to_owned(), Note::default());
        }
        let Some(note) = self.notes.get_mut(kind) else { return };
        note.count = note.count.saturating_add(count);
        if note.examples.len() < EXAMPLES {
            note.examples.push(example());
        }
    }
}

impl fmt::Display for IngestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.changed {
            writeln!(f, "nothing to do: the same files were ingested before")?;
        }
        writeln!(f, "individuals          {:>10}", self.individuals)?;
        writeln!(f, "  in a table         {:>10}", self.with_table)?;
        writeln!(f, "  with genotypes     {:>10}", self.with_genotypes)?;
        if self.variants > 0 {
            writeln!(f, "catalogue variants   {:>10}", self.variants)?;
            writeln!(f, "  found in the files {:>10}", self.variants_matched)?;
            writeln!(f, "records read         {:>10}", self.records)?;
        }
        if let Some(version) = &self.taken_from {
            writeln!(f, "{} of {} variant files taken over from version {version}", self.taken_over, self.files)?;
        }
        for (why, files) in &self.read_again {
            writeln!(f, "{files} of {} variant files read again: {why}", self.files)?;
        }
        if self.notes.is_empty() {
            return writeln!(f, "nothing was dropped or changed");
        }
        writeln!(f, "dropped or changed:")?;
        for (kind, note) in &self.notes {
            writeln!(f, "  {:>10}  {kind}", note.count)?;
            for example in &note.examples {
                writeln!(f, "              e.g. {example}")?;
            }
        }
        Ok(())
    }
}
