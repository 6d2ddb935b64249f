//! Reading a log, for people: its leaves, with the details that are still there.
//!
//! *In*: the ledger's file, and what opens its sealed records, where that is known. *Out*: lines, oldest first. *Trusts*: nothing; what it reads is
//! not verified here.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use serde_json::{Map, Value};
use vestibule_protocol::log::leaf::{Event, Leaf};
use vestibule_protocol::salt::SALT_BYTES;

use super::verify::LogCheckError;
use crate::ledger::Seal;

/// A ledger's file that is only read, as it was at the moment when it was first looked at, and what opens the sealed records in it.
#[derive(Debug)]
pub struct Source {
    pub(super) file: PathBuf,
    pub(super) seal: Option<Seal>,
    moment: OnceCell<Connection>,
}

impl Source {
    /// A file. Without `seal`, everything can be read but names, reasons, signed words, and what was released.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, seal: Option<Seal>) -> Self {
        Self { file: file.into(), seal, moment: OnceCell::new() }
    }

    /// One whose records [`Seal::for_tests`] sealed.
    #[cfg(test)]
    pub(crate) fn for_tests(file: &Path) -> Self {
        Self::new(file, Some(Seal::for_tests()))
    }

    pub(super) fn error(&self, why: impl ToString) -> LogCheckError {
        LogCheckError::new(&self.file, why.to_string())
    }

    /// Opens it, without the rights to write; `unseal(kind, row, sealed)` opens records, where the keys are known. All that is read of it is of one
    /// moment, however a daemon writes meanwhile. Where no daemon has it open, nothing at all is made beside it.
    ///
    /// # Errors
    /// There is no ledger that could be read.
    pub fn open(&self) -> Result<&Connection, LogCheckError> {
        match self.moment.get() {
            Some(connection) => Ok(connection),
            None => self.now().map(|connection| self.moment.get_or_init(|| connection)),
        }
    }

    /// The connection itself, at that moment.
    ///
    /// # Errors
    /// There is no ledger that could be read.
    pub fn into_connection(self) -> Result<Connection, LogCheckError> {
        match self.moment.get() {
            Some(_) => Ok(self.moment.into_inner().expect("it was there just now")),
            None => self.now(),
        }
    }

    fn now(&self) -> Result<Connection, LogCheckError> {
        if !self.file.is_file() {
            return Err(self.error("there is no ledger here"));
        }
        let connect = || {
            let mut wal = self.file.as_os_str().to_owned();
            wal.push("-wal");
            if Path::new(&wal).exists() {
                return Connection::open_with_flags(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY);
            }
            let escaped: String = self.file.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        };
        let connection = connect().map_err(|error| self.error(error))?;
        Seal::read(self.seal.as_ref(), &connection).map_err(|error| self.error(error))?;
        // A transaction sees one moment, from its first read on.
        let moment = connection.execute_batch("BEGIN; SELECT COUNT(*) FROM sqlite_schema;");
        moment.map_err(|error| self.error(error))?;
        Ok(connection)
    }
}

/// Details, from the salt and them.
pub(crate) fn details(opened: Option<&[u8]>) -> Option<Map<String, Value>> {
    serde_json::from_slice(opened?.get(SALT_BYTES..)?).ok()
}

/// One leaf.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// What it says.
    pub leaf: Leaf,
    /// Its details, where there are any, they were not erased, and they could be opened.
    pub details: Option<Value>,
    /// Whether there are details that could not be opened here.
    pub sealed: bool,
}

/// The last leaves of the log, or all.
///
/// # Errors
/// There is no ledger that could be read.
pub fn read(source: &Source, last: Option<u64>) -> Result<Vec<Line>, LogCheckError> {
    let connection = source.open()?;
    let lines = || -> rusqlite::Result<Vec<Line>> {
        let from = last.map_or(Ok(0), |last| super::size(connection).map(|size| size.saturating_sub(last)))?;
        let sql = "SELECT number, body, unseal('details', number, sealed), sealed IS NOT NULL
                   FROM log_leaf LEFT JOIN log_detail ON leaf = number WHERE number >= ?1 ORDER BY number";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([super::signed(from)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, body, opened): (i64, Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let parse = |why: String| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, why.into());
            let sealed = opened.is_none() && row.get(3)?;
            let leaf = Leaf::parse(&body).map_err(parse)?;
            found.push(Line {
                number: number.unsigned_abs(),
                leaf,
                details: details(opened.as_deref()).map(Value::Object),
                sealed,
            });
        }
        Ok(found)
    };
    lines().map_err(|error| source.error(error))
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
