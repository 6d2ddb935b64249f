//! Which trust bundles the site believed, and under which charters it takes part: each a leaf, and a row that counts.
//!
//! *In*: digests of documents that lie in the site's folder by then. *Out*: the digests that hold. *Trusts*: that the one who
//! books a document has verified it. *Refuses*: nothing itself; a file without a row here counts for nothing.

use std::time::Duration;

use rusqlite::params;
use serde_json::Value;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::log::leaf::{Event, nothing};
use vestibule_protocol::name::Name;

use super::{Ledger, LedgerError, append, database, milliseconds, schema, whole};

impl Ledger {
    /// The trust bundles that were believed, oldest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn bundles(&self) -> Result<Vec<Digest>, LedgerError> {
        self.transaction(|tx| {
            let mut statement = tx.prepare("SELECT sha256 FROM trust ORDER BY leaf").map_err(database(tx))?;
            let rows = statement.query_map([], |row| schema::parsed(row, 0));
            rows.and_then(Iterator::collect).map_err(database(tx))
        })
    }

    /// That a bundle is believed from now on.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn believe(&self, version: u64, bundle: Digest, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let leaf = append(tx, milliseconds(since), Event::Trust { version, bundle }, None)?;
            let sql = "INSERT INTO trust(leaf, version, sha256) VALUES(?1, ?2, ?3)";
            tx.execute(sql, params![leaf, whole(version), bundle.to_string()]).map_err(database(tx)).map(|_| ())
        })
    }

    /// The charters under which the site takes part, and SHA-256 of its own terms under each.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn charters(&self) -> Result<Vec<(Digest, Digest)>, LedgerError> {
        self.transaction(|tx| {
            let mut statement = tx.prepare("SELECT sha256, terms FROM charter ORDER BY leaf").map_err(database(tx))?;
            let rows = statement.query_map([], |row| Ok((schema::parsed(row, 0)?, schema::parsed(row, 1)?)));
            rows.and_then(Iterator::collect).map_err(database(tx))
        })
    }

    /// That the site takes part under a charter, by its own terms, from now on.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn take_part(
        &self,
        (charter, project): (Digest, &Name),
        (terms, details): (Digest, &Value),
        since: Duration,
    ) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let event = Event::Charter { charter, terms, project: project.clone(), accepted: true };
            let leaf = append(tx, milliseconds(since), event, Some(details))?;
            let sql = "INSERT INTO charter(sha256, terms, leaf) VALUES(?1, ?2, ?3)
                       ON CONFLICT(sha256) DO UPDATE SET terms = ?2, leaf = ?3";
            let row = params![charter.to_string(), terms.to_string(), leaf];
            tx.execute(sql, row).map_err(database(tx)).map(|_| ())
        })
    }

    /// That the site no longer takes part under a charter. Whether it did.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn leave(&self, charter: Digest, project: &Name, since: Duration) -> Result<bool, LedgerError> {
        self.transaction(|tx| {
            let gone = tx.execute("DELETE FROM charter WHERE sha256 = ?1", [charter.to_string()]).map_err(database(tx))? > 0;
            if gone {
                let event = Event::Charter { charter, terms: nothing(), project: project.clone(), accepted: false };
                append(tx, milliseconds(since), event, Some(&serde_json::json!({})))?;
            }
            Ok(gone)
        })
    }
}
