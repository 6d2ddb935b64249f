//! The consortium's public list of columns: what a number means, which levels there are, within which bounds.
//!
//! *In*: the text of a `dictionary.toml`. *Out*: [`Dictionary`], named by the SHA-256 of that text, so all sites that say the same
//! digest mean the same columns. *Refuses*: unknown keys, doubled columns, bounds and levels that cannot be used; by line.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::Name;
use crate::words::{Label, Sentence, is_plain};

/// Most columns of a dictionary.
pub const MAX_DICTIONARY_COLUMNS: usize = 10_000;
/// Most levels of a column.
pub const MAX_LEVELS: usize = 10_000;
/// Most bytes of one.
const MAX_LEVEL_BYTES: usize = 200;

/// The list of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Dictionary {
    /// Its name.
    pub name: Name,
    /// Its version, for people.
    pub version: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// SHA-256 of its text.
    pub digest: Digest,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: Name,
    /// What it is, for people.
    pub about: String,
    /// What it holds.
    pub kind: Kind,
    /// Unit, or empty.
    pub unit: String,
    /// Whether people are told apart or hurt by it more than by others: a site's policy may hold jobs that read it.
    pub sensitive: bool,
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A number within bounds; what lies outside is taken for missing at ingest.
    Number {
        /// Lowest plausible value.
        lower: f64,
        /// Highest plausible value.
        upper: f64,
    },
    /// One of these.
    Levels(Vec<String>),
    /// Yes or no.
    Flag,
    /// A calendar day.
    Day,
}

/// A dictionary that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("dictionary: {0}")]
pub struct DictionaryError(String);

impl DictionaryError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "dictionary-malformed"
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Name,
    #[serde(default)]
    version: Label,
    column: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Name,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    about: Sentence,
    #[serde(default)]
    unit: Label,
    #[serde(default)]
    sensitive: bool,
    lower: Option<f64>,
    upper: Option<f64>,
    levels: Option<Vec<String>>,
}

impl Dictionary {
    /// Reads a `dictionary.toml`.
    ///
    /// # Errors
    /// What cannot be used, with the line or the column's name.
    pub fn parse(text: &str) -> Result<Self, DictionaryError> {
        let file: File = toml::from_str(text).map_err(|error| DictionaryError(error.to_string()))?;
        if file.column.is_empty() || file.column.len() > MAX_DICTIONARY_COLUMNS {
            return Err(DictionaryError(format!("it must have 1 to {MAX_DICTIONARY_COLUMNS} columns")));
        }
        let columns = file.column.into_iter().map(Entry::column).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<&Name> = columns.iter().map(|column| &column.name).collect();
        names.sort();
        if let Some([twice, _]) = names.array_windows::<2>().find(|[a, b]| a == b) {
            return Err(DictionaryError(format!("column `{twice}` is defined twice")));
        }
        Ok(Self { name: file.name, version: file.version.to_string(), columns, digest: Digest::of(text.as_bytes()) })
    }

    /// The column of that name, with its place.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<(usize, &Column)> {
        self.columns.iter().enumerate().find(|(_, column)| column.name.as_str() == name)
    }
}

impl Entry {
    fn column(self) -> Result<Column, DictionaryError> {
        let fail = |why: &str| Err(DictionaryError(format!("column `{}`: {why}", self.name)));
        if self.kind != "number" && (self.lower.is_some() || self.upper.is_some()) {
            return fail("`lower` and `upper` are for numbers");
        }
        if self.kind != "levels" && self.levels.is_some() {
            return fail("`levels` are for the type `levels`");
        }
        let kind = match (self.kind.as_str(), self.lower, self.upper, self.levels) {
            ("number", Some(lower), Some(upper), _) if lower.is_finite() && upper.is_finite() && lower < upper => {
                Kind::Number { lower, upper }
            }
            ("number", ..) => return fail("a number needs `lower` and `upper`, finite, the lower one below the upper one"),
            ("levels", _, _, Some(levels)) if !levels.is_empty() && levels.len() <= MAX_LEVELS => {
                let mut sorted: Vec<&String> = levels.iter().collect();
                sorted.sort();
                if sorted.array_windows::<2>().any(|[a, b]| a == b) {
                    return fail("a level is listed twice");
                }
                if levels.iter().any(|level| level.len() > MAX_LEVEL_BYTES || !is_plain(level)) {
                    return fail("a level has at most 200 bytes on one line, none of them invisible");
                }
                Kind::Levels(levels)
            }
            ("levels", ..) => return fail("`levels` must list at least one level"),
            ("flag", ..) => Kind::Flag,
            ("day", ..) => Kind::Day,
            _ => return fail("`type` must be `number`, `levels`, `flag` or `day`"),
        };
        Ok(Column {
            name: self.name,
            about: self.about.to_string(),
            kind,
            unit: self.unit.to_string(),
            sensitive: self.sensitive,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name = "heart"
version = "1"
[[column]]
name = "age"
type = "number"
unit = "years"
lower = 0
upper = 120
[[column]]
name = "sex"
type = "levels"
levels = ["female", "male"]
[[column]]
name = "smoker"
type = "flag"
sensitive = true
[[column]]
name = "enrolled"
type = "day"
"#;

    #[test]
    fn every_type_is_read() {
        let dictionary = Dictionary::parse(GOOD).unwrap();
        assert_eq!(dictionary.columns.len(), 4);
        assert_eq!(dictionary.column("age").unwrap().1.kind, Kind::Number { lower: 0.0, upper: 120.0 });
        assert_eq!(dictionary.column("sex").unwrap().0, 1);
        let sensitive = |name: &str| dictionary.column(name).unwrap().1.sensitive;
        assert!(sensitive("smoker") && !sensitive("age"));
        assert!(dictionary.column("height").is_none());
        assert_eq!(dictionary.digest, Digest::of(GOOD.as_bytes()));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let bad = |from: &str, to: &str, want: &str| {
            let error = Dictionary::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(want), "{error} does not name {want}");
        };
        bad("upper = 120", "", "`age`");
        bad("upper = 120", "upper = -1", "`age`");
        bad("upper = 120", "upper = inf", "`age`");
        bad("type = \"flag\"", "type = \"bool\"", "`smoker`");
        bad("type = \"flag\"", "type = \"flag\"\nlower = 1", "`smoker`");
        bad("[\"female\", \"male\"]", "[]", "`sex`");
        bad("[\"female\", \"male\"]", "[\"male\", \"male\"]", "`sex`");
        bad("name = \"sex\"", "name = \"age\"", "twice");
        bad("[\"female\", \"male\"]", "[\"female\\u001b\"]", "`sex`");
        bad("[\"female\", \"male\"]", &format!("[\"{}\"]", "f".repeat(201)), "`sex`");
        bad("unit = \"years\"", "unit = \"\\u202e\"", "line 7");
        bad("unit", "units", "units");
        bad("unit", "units", "line 7");
    }
}
