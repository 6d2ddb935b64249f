//! Reading a log, for people: its leaves, with the details that are still there.
//!
//! *In*: the ledger's file. *Out*: lines, oldest first. *Trusts*: nothing; what it reads is not verified here.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;
use vestibule_protocol::log::leaf::{Event, Leaf};

use super::verify::{LogCheckError, open};

/// One leaf.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// What it says.
    pub leaf: Leaf,
    /// Its details, where there are any and they were not erased.
    pub details: Option<Value>,
}

/// The last leaves of the log in the ledger's file, or all.
///
/// # Errors
/// There is no ledger that could be read.
pub fn read(file: &Path, last: Option<u64>) -> Result<Vec<Line>, LogCheckError> {
    let error = |why: String| LogCheckError::new(file, why);
    let lines = || -> rusqlite::Result<Vec<Line>> {
        let connection = open(file)?;
        let from = last.map_or(Ok(0), |last| super::size(&connection).map(|size| size.saturating_sub(last)))?;
        let sql = "SELECT number, body, details FROM log_leaf LEFT JOIN log_detail ON leaf = number WHERE number >= ?1 ORDER BY number";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([super::signed(from)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, body, details): (i64, Vec<u8>, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let parse = |why: String| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, why.into());
            let details = details.and_then(|details| serde_json::from_str(&details).ok());
            found.push(Line { number: number.unsigned_abs(), leaf: Leaf::parse(&body).map_err(parse)?, details });
        }
        Ok(found)
    };
    if !file.is_file() {
        return Err(error("there is no ledger here".to_owned()));
    }
    lines().map_err(|why| error(why.to_string()))
}

/// An event as two columns: its kind, and everything else.
#[must_use]
pub fn words(event: &Event) -> (String, String) {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return Default::default() };
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let kind = fields.remove("kind").map(text).unwrap_or_default();
    let rest: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name} {}", text(value))).collect();
    (kind, rest.join(", "))
}
