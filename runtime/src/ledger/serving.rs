//! Which version of a dataset serves, and who is left out of it: each change a leaf of the log.
//!
//! *In*: a version's name, or a sealed list, and its moment. *Out*: what serves, in the ledger and nowhere else, so that a data folder of an older
//! day is known for what it is. *Trusts*: that a version is whole and on disk before it is named here. *Refuses*: a list that is
//! not the one its leaf names.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::name::Name;

use super::{Ledger, LedgerError, append, database, milliseconds};

/// A dataset's row.
#[derive(Default)]
struct Serving {
    version: Option<String>,
    /// Sealed by the one who gave it; empty where nobody withdrew.
    list: Vec<u8>,
}

impl Ledger {
    /// The version of a dataset that serves, if one was taken in.
    ///
    /// # Errors
    /// The database.
    pub fn serving(&self, dataset: &Name) -> Result<Option<String>, LedgerError> {
        self.transaction(|tx| Ok(find(tx, dataset)?.version))
    }

    /// The sealed list of who is left out of a dataset, if there is one.
    ///
    /// # Errors
    /// The database; the list is not the one that the log names.
    pub fn withdrawn(&self, dataset: &Name) -> Result<Option<Vec<u8>>, LedgerError> {
        self.transaction(|tx| Ok(Some(find(tx, dataset)?.list).filter(|list| !list.is_empty())))
    }

    /// That a version serves from now on.
    ///
    /// # Errors
    /// The database.
    pub fn serve(&self, dataset: &Name, version: &str, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let found = find(tx, dataset)?;
            if found.version.as_deref() == Some(version) {
                return Ok(());
            }
            put(tx, dataset, (version, &found.list), since)
        })
    }

    /// That a list holds from now on. Of a dataset that was taken in.
    ///
    /// # Errors
    /// The database; no version serves.
    pub fn leave_out(&self, dataset: &Name, sealed: &[u8], since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| match find(tx, dataset)?.version {
            Some(version) => put(tx, dataset, (&version, sealed), since),
            None => Err(database(tx)(rusqlite::Error::QueryReturnedNoRows)),
        })
    }
}

fn find(tx: &Transaction<'_>, dataset: &Name) -> Result<Serving, LedgerError> {
    let sql = "SELECT version, list, withdrawn FROM serving WHERE dataset = ?1";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, super::schema::parsed::<Digest>(row, 2)?));
    let found = tx.query_row(sql, [dataset.as_str()], read).optional().map_err(database(tx))?;
    let Some((version, list, withdrawn)) = found else { return Ok(Serving::default()) };
    if Digest::of(&list) != withdrawn {
        let why = format!(
            "the list of who withdrew from `{dataset}` is not the one that the log names: restore the file from a backup"
        );
        return Err(database(tx)(rusqlite::Error::ToSqlConversionFailure(why.into())));
    }
    Ok(Serving { version: Some(version), list })
}

fn put(tx: &Transaction<'_>, dataset: &Name, (version, list): (&str, &[u8]), since: Duration) -> Result<(), LedgerError> {
    let withdrawn = Digest::of(list);
    let event = Event::Dataset { dataset: dataset.clone(), version: version.to_owned(), withdrawn };
    let leaf = append(tx, milliseconds(since), event, None)?;
    let sql = "INSERT INTO serving(dataset, version, withdrawn, list, leaf) VALUES(?1, ?2, ?3, ?4, ?5)
               ON CONFLICT(dataset) DO UPDATE SET version = ?2, withdrawn = ?3, list = ?4, leaf = ?5";
    let row = params![dataset.as_str(), version, withdrawn.to_string(), list, leaf];
    tx.execute(sql, row).map_err(database(tx)).map(|_| ())
}
