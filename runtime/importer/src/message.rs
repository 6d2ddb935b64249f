//! What a site and an importer say to each other.
//!
//! *In* and *out*: postcard, behind a length (`vestibule_worker`). What an importer says becomes values only by [`Cell::value`], which holds each to its
//! column.

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vestibule_protocol::dictionary::Kind;

use crate::report::Notes;
use crate::value::Value;
use crate::variants::{Batch, Place};

/// From the site.
#[derive(Serialize, Deserialize)]
pub enum Task {
    /// Open the variant file of this name, and say whose genotypes it has. A `.bed` has its `.bim` handed to it too; and its `.fam` is here.
    Open {
        /// Its name.
        name: String,
        /// The text of a `.bed`'s `.fam`; else empty.
        fam: Bytes,
    },
    /// Read it.
    Read {
        /// The catalogues' files.
        catalogues: Vec<Bytes>,
        /// Of each, whether the genotypes at its variants are known: they are not said again.
        known: Vec<bool>,
        /// Behind that place.
        place: Place,
        /// Of a block that is like the reference.
        least_quality: i32,
    },
    /// Read a table.
    Table {
        /// The recipe's text.
        recipe: String,
        /// The dictionary's text.
        dictionary: String,
        /// The table's place in the recipe.
        table: u32,
    },
}

/// From an importer.
#[derive(Serialize, Deserialize)]
pub enum Said {
    /// A variant file's samples.
    Samples(Vec<String>),
    /// Of some records.
    Genotypes(Batch),
    /// The dictionary's columns that a table fills, by their places.
    Columns(Vec<u32>),
    /// Of some lines.
    Values(Rows),
    /// The file cannot be read, and why.
    Refused(String),
}

/// Some rows of a table.
#[derive(Default, Serialize, Deserialize)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// What was dropped or changed.
    pub notes: Notes,
    /// Whether there may be more.
    pub more: bool,
}

/// A row of a table.
#[derive(Serialize, Deserialize)]
pub struct Row {
    /// Its line.
    pub line: u64,
    /// Whose it is.
    pub id: String,
    /// A cell for each column that the table fills.
    pub cells: Vec<Cell>,
}

/// A value on its way from an importer.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Cell {
    /// Not known.
    Missing,
    /// A number.
    Number(f64),
    /// A level's place.
    Level(u32),
    /// Yes or no.
    Flag(bool),
    /// Days since 1970-01-01.
    Day(i32),
}

/// How an importer hears and speaks.
pub trait Talk: Send {
    /// Waits for what it is told.
    ///
    /// # Errors
    /// The site hung up.
    fn hear(&mut self) -> std::io::Result<Task>;

    /// Says something.
    ///
    /// # Errors
    /// The site hung up.
    fn say(&mut self, said: &Said) -> std::io::Result<()>;
}

// What is on its way is somebody's.
crate::withheld!(Task, Said, Rows, Row, Cell, Bytes, Batch, Place);

impl Cell {
    /// Sends a value on its way.
    #[must_use]
    pub const fn of(value: Value) -> Self {
        match value {
            Value::Missing => Self::Missing,
            Value::Number(number) => Self::Number(number),
            Value::Level(level) => Self::Level(level),
            Value::Flag(flag) => Self::Flag(flag),
            Value::Day(day) => Self::Day(day),
        }
    }

    /// The value, if it is one of such a column.
    #[must_use]
    pub fn value(&self, kind: &Kind) -> Option<Value> {
        match (self, kind) {
            (Self::Missing, _) => Some(Value::Missing),
            (Self::Number(number), Kind::Number { lower, upper }) if (*lower..=*upper).contains(number) => {
                Some(Value::Number(*number))
            }
            (Self::Level(level), Kind::Levels(levels)) if (*level as usize) < levels.len() => Some(Value::Level(*level)),
            (Self::Flag(flag), Kind::Flag) => Some(Value::Flag(*flag)),
            (Self::Day(day), Kind::Day) => Some(Value::Day(*day)),
            _ => None,
        }
    }
}

/// Bytes that are taken as they are, and not one by one.
#[derive(Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken;
        impl Visitor<'_> for Taken {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_held_to_its_column() {
        let number = Kind::Number { lower: 0.0, upper: 20.0 };
        let levels = Kind::Levels(vec!["a".into(), "b".into()]);
        for (cell, kind, good) in [
            (Cell::Number(20.0), &number, true),
            (Cell::Number(20.1), &number, false),
            (Cell::Number(f64::NAN), &number, false),
            (Cell::Number(f64::INFINITY), &number, false),
            (Cell::Level(1), &levels, true),
            (Cell::Level(2), &levels, false),
            (Cell::Level(0), &number, false),
            (Cell::Flag(true), &Kind::Flag, true),
            (Cell::Day(5), &Kind::Flag, false),
            (Cell::Day(5), &Kind::Day, true),
            (Cell::Missing, &levels, true),
        ] {
            assert_eq!(cell.value(kind).is_some(), good);
        }
    }
}
