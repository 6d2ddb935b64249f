//! Whose components are here, and how much room each person's may take.
//!
//! *In*: who uploaded what. *Out*: whose it is; what may be removed. *Refuses*: a component beyond a person's room. What no job names
//! makes room for what comes: only components of jobs count for good.

use rusqlite::{Connection, OptionalExtension as _, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::name::Name;

use super::schema::parsed;
use super::{Result, Store, StoreError, jobs, members};

/// Whether a job names a component row.
const NAMED: &str = "EXISTS(SELECT 1 FROM job_document WHERE job_document.digest = component.digest)";

impl Store {
    /// Whether a person has uploaded a component.
    ///
    /// # Errors
    /// The database.
    pub fn has_component(&self, person: &Name, digest: Digest) -> Result<bool> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT 1 FROM component WHERE person = ?1 AND digest = ?2")?;
            let found = query.query_row(params![person.as_str(), digest.to_string()], |_| Ok(()));
            Ok(found.optional()?.is_some())
        })
    }

    /// Whether anybody has uploaded a component.
    ///
    /// # Errors
    /// The database.
    pub fn is_component(&self, digest: Digest) -> Result<bool> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT 1 FROM component WHERE digest = ?1 LIMIT 1")?;
            Ok(query.query_row([digest.to_string()], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Bytes of a person's components that jobs name, all but one.
    ///
    /// # Errors
    /// The database.
    pub fn component_bytes(&self, person: &Name, but: Digest) -> Result<u64> {
        self.read(|tx| {
            let sql = format!("SELECT COALESCE(SUM(bytes), 0) FROM component WHERE person = ?1 AND digest != ?2 AND {NAMED}");
            let mut query = tx.prepare_cached(&sql)?;
            let sum: i64 = query.query_row(params![person.as_str(), but.to_string()], |row| row.get(0))?;
            Ok(u64::try_from(sum).unwrap_or(0))
        })
    }

    /// Takes a component of a person who may have `most` bytes in all, and forgets as many that no job names, oldest first, as
    /// that needs. Those of them that nobody else has are given back: their files are to go.
    ///
    /// # Errors
    /// What the person's jobs name leaves no room.
    pub fn take_component(&self, person: &Name, digest: Digest, bytes: u64, now: i64, most: u64) -> Result<Vec<Digest>> {
        let person = person.clone();
        self.write(move |tx| {
            let size = i64::try_from(bytes).unwrap_or(i64::MAX);
            let sql = "INSERT INTO component(person, digest, bytes, uploaded) VALUES(?1, ?2, ?3, ?4)
                ON CONFLICT DO UPDATE SET uploaded = ?4";
            tx.execute(sql, params![person.as_str(), digest.to_string(), size, now])?;
            let mut used = sum(tx, "SELECT COALESCE(SUM(bytes), 0) FROM component WHERE person = ?1", &person)?;
            let mut gone = Vec::new();
            for (other, bytes) in unnamed(tx, &person, digest)? {
                if used <= most {
                    break;
                }
                forget(tx, &person, other, &mut gone)?;
                used = used.saturating_sub(bytes);
            }
            if used > most {
                let used = used.saturating_sub(bytes);
                return Err(StoreError::Components { used, most });
            }
            Ok(gone)
        })
    }

    /// Forgets components that were uploaded before a moment and that no job names.
    ///
    /// # Errors
    /// The database.
    pub fn forget_components(&self, before: i64) -> Result<usize> {
        self.write(move |tx| Ok(tx.execute(&format!("DELETE FROM component WHERE uploaded < ?1 AND NOT {NAMED}"), [before])?))
    }

    /// All documents that something names: uploads, jobs, what sites say that they have.
    ///
    /// # Errors
    /// The database.
    pub fn named(&self) -> Result<Vec<Digest>> {
        self.read(|tx| {
            let mut all = jobs::named(tx)?;
            let mut query = tx.prepare_cached("SELECT DISTINCT digest FROM component")?;
            let uploaded = query.query_map([], |row| parsed(row, 0))?;
            all.extend(uploaded.collect::<rusqlite::Result<Vec<Digest>>>()?);
            for dataset in members::cards(tx)?.iter().filter_map(|(_, card)| card.as_ref()).flat_map(|card| &card.datasets) {
                all.push(dataset.dictionary);
                all.extend(dataset.catalogues.iter().map(|catalogue| catalogue.digest));
            }
            Ok(all)
        })
    }
}

fn sum(tx: &Connection, sql: &str, person: &Name) -> Result<u64> {
    let sum: i64 = tx.query_row(sql, [person.as_str()], |row| row.get(0))?;
    Ok(u64::try_from(sum).unwrap_or(0))
}

/// A person's components but one that no job names, oldest first, with their sizes.
fn unnamed(tx: &Connection, person: &Name, but: Digest) -> Result<Vec<(Digest, u64)>> {
    let sql = format!(
        "SELECT digest, bytes FROM component WHERE person = ?1 AND digest != ?2 AND NOT {NAMED} ORDER BY uploaded, rowid"
    );
    let mut query = tx.prepare_cached(&sql)?;
    let rows = query.query_map(params![person.as_str(), but.to_string()], |row| {
        Ok((parsed(row, 0)?, u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn forget(tx: &Connection, person: &Name, digest: Digest, gone: &mut Vec<Digest>) -> Result<()> {
    let text = digest.to_string();
    tx.execute("DELETE FROM component WHERE person = ?1 AND digest = ?2", params![person.as_str(), text])?;
    let others: bool = tx.query_row("SELECT EXISTS(SELECT 1 FROM component WHERE digest = ?1)", [&text], |row| row.get(0))?;
    if !others {
        gone.push(digest);
    }
    Ok(())
}
