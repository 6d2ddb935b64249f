//! `DATASET.toml`: a site's recipe from its own files to the consortium's dictionary and catalogues.
//!
//! *In*: its text. *Out*: [`Config`]. *Refuses*: unknown keys and values, by line; mappings to columns that the dictionary does
//! not have, and mappings that do not fit a column's type, by column.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::format_description::OwnedFormatItem;
use vestibule_protocol::dictionary::{Dictionary, Kind};
use vestibule_protocol::job::{Budget, Noise};
use vestibule_protocol::name::Name;

use crate::budget::LifetimeBudget;
use crate::conditions::Conditions;
use crate::days;

/// A lifetime's smallest delta: a tenth of it, divided by what one release's moment takes, is 33 releases.
const LEAST_DELTA: f64 = 1e-9;

/// The whole recipe.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that the consortium gave it.
    pub name: Name,
    /// For people.
    #[serde(default)]
    pub about: String,
    /// Rounded by the site; public.
    pub approximate_size: u64,
    /// The dictionary's file.
    pub dictionary: String,
    /// Data Use Ontology codes.
    #[serde(default)]
    pub duo: Vec<String>,
    /// What the codes speak of.
    #[serde(default)]
    pub conditions: Conditions,
    /// Whose data it is, where other datasets of this site are about the same people. By default the dataset's own name.
    pub population: Option<Name>,
    /// What may ever be spent.
    pub budget: LifetimeBudget,
    /// Tables, joined on their ids.
    #[serde(default)]
    pub table: Vec<TableConfig>,
    /// From the tables' columns to the dictionary's.
    #[serde(default)]
    pub map: BTreeMap<String, MapConfig>,
    /// Variant files.
    pub variants: Option<VariantsConfig>,
}

/// One table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// Its file.
    pub file: String,
    /// The column of the individual's id; `#` numbers the rows of a table that has none.
    pub id: String,
    /// Between fields. By default a tab for `.tsv` and a comma otherwise.
    pub separator: Option<char>,
    /// Decimal point or comma.
    #[serde(default = "point")]
    pub decimal: char,
    /// The columns' names, for a table without a header line.
    pub columns: Option<Vec<String>>,
    /// What stands for missing, in all columns.
    #[serde(default)]
    pub missing: Vec<String>,
    /// What to do with a second row of the same id that differs: refuse the table, or keep the first.
    #[serde(default)]
    pub duplicates: Duplicates,
}

const fn point() -> char {
    '.'
}

/// What to do with a second, different row of an individual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duplicates {
    /// Refuse the table and name the line.
    #[default]
    Refuse,
    /// Keep the first row.
    First,
}

/// How one dictionary column comes about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MapConfig {
    /// The table's file, where several tables have the column.
    pub table: Option<String>,
    /// The column in the table.
    pub column: Option<String>,
    /// The same text for every individual of the dataset, in place of a column.
    pub constant: Option<String>,
    /// Codes to the dictionary's levels. Without it, the texts are the levels.
    pub levels: Option<BTreeMap<String, String>>,
    /// Codes that mean yes.
    pub yes: Option<Vec<String>>,
    /// Codes that mean no.
    pub no: Option<Vec<String>>,
    /// A flag that is yes where the number is above this.
    pub above: Option<f64>,
    /// A number is multiplied by this,
    pub scale: Option<f64>,
    /// and then this is added.
    pub offset: Option<f64>,
    /// A day's format, in strftime's letters. By default `%Y-%m-%d`.
    pub format: Option<String>,
    /// What stands for missing here, besides the table's own.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// Variant files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantsConfig {
    /// Files, or patterns with `*`, in the folder of the `DATASET.toml`.
    pub files: Vec<String>,
    /// Their reference build.
    pub build: String,
    /// Catalogue files.
    pub catalogue: Vec<String>,
    /// Whose genotypes are taken: everybody's in the files, or only theirs who are in a table too.
    #[serde(default)]
    pub individuals: Individuals,
    /// A block of a gVCF that is like the reference counts from this genotype quality (GQ) on, where it has one.
    #[serde(default = "reference_quality")]
    pub reference_quality: i32,
}

/// One in 100 is wrong at a Phred-scaled 20: what GATK's tools call confident.
const fn reference_quality() -> i32 {
    20
}

/// Whose genotypes are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Individuals {
    /// Everybody's in the variant files.
    #[default]
    All,
    /// Only theirs who are in a table: a file often holds more people than a study.
    Table,
}

/// A recipe that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "dataset-config"
    }
}

/// A mapping that fits its column.
#[derive(Debug)]
pub enum Mapping {
    /// A number: multiplied, and then added to; within bounds.
    Number {
        /// It is multiplied by this.
        scale: f64,
        /// Then this is added.
        offset: f64,
        /// The dictionary's bound.
        lower: f64,
        /// The dictionary's bound.
        upper: f64,
    },
    /// Codes and the places of the levels that they mean.
    Level {
        /// Which level a code is.
        codes: BTreeMap<String, u32>,
    },
    /// Codes of yes and no.
    Flag {
        /// Mean yes.
        yes: Vec<String>,
        /// Mean no.
        no: Vec<String>,
    },
    /// A number that means yes above a threshold.
    Above {
        /// That threshold.
        threshold: f64,
    },
    /// A day.
    Day {
        /// Its format.
        format: OwnedFormatItem,
    },
}

impl Config {
    /// Reads a `DATASET.toml`.
    ///
    /// # Errors
    /// The line that cannot be used.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        let fail = |why: &str| Err(ConfigError(why.to_owned()));
        if config.table.is_empty() && config.variants.is_none() {
            return fail("there is neither a `[[table]]` nor `[variants]`: nothing would be ingested");
        }
        config.conditions.check(&config.duo).map_err(ConfigError)?;
        let LifetimeBudget { epsilon, delta, researcher_epsilon } = config.budget;
        for epsilon in std::iter::once(epsilon).chain(researcher_epsilon) {
            Budget::new(Noise::Gaussian, epsilon, delta).map_err(|error| ConfigError(format!("`budget`: {error}")))?;
        }
        if delta < LEAST_DELTA {
            return fail("`budget`: a delta below 1e-9 holds the moments of a few dozen releases only");
        }
        for table in &config.table {
            if table.decimal != '.' && table.decimal != ',' {
                return fail("`decimal` must be `.` or `,`");
            }
            if table.separator.is_some_and(|separator| !separator.is_ascii()) {
                return fail("`separator` must be one ASCII character");
            }
        }
        Ok(config)
    }

    /// The mappings, in the dictionary's order; `None` for columns that this site does not fill.
    ///
    /// # Errors
    /// A mapping that does not fit its column.
    pub fn mappings(&self, dictionary: &Dictionary) -> Result<Vec<Option<(&MapConfig, Mapping)>>, ConfigError> {
        if let Some(unknown) = self.map.keys().find(|name| dictionary.column(name).is_none()) {
            let known: Vec<&str> = dictionary.columns.iter().map(|column| column.name.as_str()).collect();
            let why = format!("`[map.{unknown}]`: the dictionary has no such column; it has {}", known.join(", "));
            return Err(ConfigError(why));
        }
        let mapping = |column: &vestibule_protocol::dictionary::Column| {
            let Some(config) = self.map.get(column.name.as_str()) else { return Ok(None) };
            let mapping = config.fit(&column.kind).map_err(|why| ConfigError(format!("`[map.{}]`: {why}", column.name)))?;
            Ok(Some((config, mapping)))
        };
        dictionary.columns.iter().map(mapping).collect()
    }
}

impl MapConfig {
    fn fit(&self, kind: &Kind) -> Result<Mapping, String> {
        if self.column.is_some() == self.constant.is_some() {
            return Err("give either `column` or `constant`".to_owned());
        }
        let number_keys = self.scale.is_some() || self.offset.is_some();
        let flag_keys = self.yes.is_some() || self.no.is_some() || self.above.is_some();
        let wrong = |keys: &str| Err(format!("the column is no match for {keys}"));
        match kind {
            Kind::Number { .. } if self.levels.is_some() || flag_keys || self.format.is_some() => {
                wrong("`levels`, `yes`, `no`, `above` or `format`: it is a number")
            }
            Kind::Number { lower, upper } => {
                let (scale, offset) = (self.scale.unwrap_or(1.0), self.offset.unwrap_or(0.0));
                Ok(Mapping::Number { scale, offset, lower: *lower, upper: *upper })
            }
            Kind::Levels(_) if number_keys || flag_keys || self.format.is_some() => {
                wrong("`scale`, `offset`, `yes`, `no`, `above` or `format`: it has levels")
            }
            Kind::Levels(known) => {
                let place = |level: &String| {
                    let place = known.iter().position(|known| known == level).and_then(|place| u32::try_from(place).ok());
                    place.ok_or_else(|| format!("the dictionary has no level `{level}`; it has {}", known.join(", ")))
                };
                let codes = match &self.levels {
                    Some(levels) => levels.iter().map(|(code, level)| Ok((code.trim().to_owned(), place(level)?))).collect(),
                    None => known.iter().map(|level| Ok((level.clone(), place(level)?))).collect::<Result<_, String>>(),
                };
                Ok(Mapping::Level { codes: codes? })
            }
            Kind::Flag if number_keys || self.levels.is_some() || self.format.is_some() => {
                wrong("`scale`, `offset`, `levels` or `format`: it is a flag")
            }
            Kind::Flag => match (self.above, &self.yes, &self.no) {
                (Some(threshold), None, None) => Ok(Mapping::Above { threshold }),
                (None, Some(yes), Some(no)) => Ok(Mapping::Flag { yes: yes.clone(), no: no.clone() }),
                _ => Err("a flag needs `yes` and `no`, or `above`".to_owned()),
            },
            Kind::Day if number_keys || flag_keys || self.levels.is_some() => {
                wrong("`scale`, `offset`, `levels`, `yes`, `no` or `above`: it is a day")
            }
            Kind::Day => {
                let format = days::format(self.format.as_deref().unwrap_or("%Y-%m-%d"));
                Ok(Mapping::Day { format: format.map_err(|error| format!("`format`: {error}"))? })
            }
        }
    }
}
