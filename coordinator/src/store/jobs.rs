//! Jobs: submitted once, found by id, by owner, by state.
//!
//! *In*: what intake let pass. *Out*: jobs as their owners signed them, and how they stand. *Refuses*: another manifest under a known id.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::round::Plan;

use super::schema::{self, parsed, word};
use super::{Job, JobSite, NewJob, Place, Result, Store, StoreError, Summary};
use crate::round::SiteState;

impl Store {
    /// Keeps a submitted job, whole. The same again changes nothing; `false` then.
    ///
    /// # Errors
    /// Another manifest has this id.
    pub fn submit(&self, job: NewJob) -> Result<bool> {
        let plan = serde_json::to_vec(&job.plan).map_err(|error| StoreError::Database(error.to_string()))?;
        self.write(move |tx| {
            let (id, manifest) = (job.id.to_string(), job.manifest.to_string());
            let known = tx.query_row("SELECT manifest FROM job WHERE job = ?1", [&id], |row| row.get::<_, String>(0));
            match known.optional()? {
                Some(known) if known == manifest => return Ok(false),
                Some(_) => return Err(StoreError::OtherManifest),
                None => {}
            }
            let sql = "INSERT INTO job(job, manifest, envelope, owner, submitted, title, epsilon, delta, state, max_rounds)
                VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'running', ?9)";
            let NewJob { envelope, owner, submitted, title, epsilon, delta, .. } = &job;
            let (owner, most) = (owner.to_string(), job.plan.max_rounds);
            tx.execute(sql, params![id, manifest, envelope, owner, submitted, title, epsilon, delta, most])?;
            tx.execute("INSERT INTO plan(job, json) VALUES(?1, ?2)", params![id, plan])?;
            let waiting = word(&SiteState::Waiting);
            for site in &job.sites {
                tx.execute("INSERT INTO job_site(job, site, state) VALUES(?1, ?2, ?3)", params![id, site.as_str(), waiting])?;
            }
            for digest in &job.documents {
                let sql = "INSERT OR IGNORE INTO job_document(job, digest) VALUES(?1, ?2)";
                tx.execute(sql, params![id, digest.to_string()])?;
            }
            Ok(true)
        })
    }

    /// What a job's component said it reads.
    ///
    /// # Errors
    /// The database.
    pub fn plan(&self, job: JobId) -> Result<Option<Plan>> {
        let json = self.read(|tx| {
            let found = tx.query_row("SELECT json FROM plan WHERE job = ?1", [job.to_string()], |row| row.get::<_, Vec<u8>>(0));
            Ok(found.optional()?)
        })?;
        Ok(json.and_then(|json| serde_json::from_slice::<Plan>(&json).ok()).and_then(|plan| plan.checked().ok()))
    }

    /// Jobs that have not ended, in the order in which they came.
    ///
    /// # Errors
    /// The database.
    pub fn running(&self) -> Result<Vec<JobId>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT job FROM job WHERE state = 'running' ORDER BY submitted, rowid")?;
            let rows = query.query_map([], |row| parsed(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// One job, as its owner signed it.
    ///
    /// # Errors
    /// The database.
    pub fn job(&self, job: JobId) -> Result<Option<Job>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT envelope, owner FROM job WHERE job = ?1")?;
            let read = |row: &Row<'_>| Ok(Job { id: job, envelope: row.get(0)?, owner: parsed(row, 1)? });
            Ok(query.query_row([job.to_string()], read).optional()?)
        })
    }

    /// Whose job it is.
    ///
    /// # Errors
    /// The database.
    pub fn owner(&self, job: JobId) -> Result<Option<PublicKey>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT owner FROM job WHERE job = ?1")?;
            Ok(query.query_row([job.to_string()], |row| parsed(row, 0)).optional()?)
        })
    }

    /// How a job stands.
    ///
    /// # Errors
    /// The database.
    pub fn summary(&self, job: JobId) -> Result<Option<Summary>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached(&format!("{SUMMARY} WHERE job = ?1"))?;
            let Some((_, mut summary)) = query.query_row([job.to_string()], read).optional()? else { return Ok(None) };
            summary.sites = sites(&mut tx.prepare_cached(SITES)?, job)?;
            Ok(Some(summary))
        })
    }

    /// Jobs of one person's keys, newest first, after a place in the list; and the place of the last, if there may be more.
    ///
    /// # Errors
    /// The database.
    pub fn page(&self, owners: &[PublicKey], after: Option<Place>, most: usize) -> Result<(Vec<Summary>, Option<Place>)> {
        let owners: Vec<String> = owners.iter().map(ToString::to_string).collect();
        let owners = serde_json::to_string(&owners).map_err(|error| StoreError::Database(error.to_string()))?;
        self.read(|tx| {
            let sql = format!(
                "{SUMMARY} WHERE owner IN (SELECT value FROM json_each(?1)) AND (submitted, rowid) < (?2, ?3)
                 ORDER BY submitted DESC, rowid DESC LIMIT ?4"
            );
            let after = after.unwrap_or(Place { submitted: i64::MAX, row: i64::MAX });
            let most_rows = i64::try_from(most).unwrap_or(i64::MAX);
            let mut query = tx.prepare_cached(&sql)?;
            let rows = query.query_map(params![owners, after.submitted, after.row, most_rows], read)?;
            let (mut page, mut last, mut of) = (Vec::new(), None, tx.prepare_cached(SITES)?);
            for row in rows {
                let (place, mut summary) = row?;
                summary.sites = sites(&mut of, summary.id)?;
                page.push(summary);
                last = Some(place);
            }
            let more = page.len() == most;
            Ok((page, last.filter(|_| more)))
        })
    }

    /// The report of a finished job.
    ///
    /// # Errors
    /// The database.
    pub fn report(&self, job: JobId) -> Result<Option<Vec<u8>>> {
        self.read(|tx| {
            let read = |row: &Row<'_>| row.get::<_, Option<Vec<u8>>>(0);
            Ok(tx.query_row("SELECT report FROM job WHERE job = ?1", [job.to_string()], read).optional()?.flatten())
        })
    }

    /// The sites of a job.
    ///
    /// # Errors
    /// The database.
    pub fn job_sites(&self, job: JobId) -> Result<Vec<JobSite>> {
        self.read(|tx| sites(&mut tx.prepare_cached(SITES)?, job))
    }
}

const SUMMARY: &str = "SELECT rowid, job, owner, title, epsilon, delta, submitted, state, code, why, max_rounds,
    (SELECT COUNT(*) FROM round WHERE round.job = job.job) FROM job";

fn read(row: &Row<'_>) -> rusqlite::Result<(Place, Summary)> {
    let submitted = row.get(6)?;
    let summary = Summary {
        id: parsed(row, 1)?,
        owner: parsed(row, 2)?,
        title: row.get(3)?,
        epsilon: row.get(4)?,
        delta: row.get(5)?,
        submitted,
        state: schema::unword(row, 7)?,
        error: row.get::<_, Option<String>>(8)?.zip(row.get::<_, Option<String>>(9)?),
        max_rounds: row.get(10)?,
        rounds: row.get(11)?,
        sites: vec![],
    };
    Ok((Place { submitted, row: row.get(0)? }, summary))
}

const SITES: &str = "SELECT site, state, code, why FROM job_site WHERE job = ?1 ORDER BY site";

fn sites(query: &mut CachedStatement<'_>, job: JobId) -> Result<Vec<JobSite>> {
    let rows = query.query_map([job.to_string()], |row| {
        let reason = row.get::<_, Option<String>>(2)?.zip(row.get::<_, Option<String>>(3)?);
        Ok(JobSite { site: parsed(row, 0)?, state: schema::unword(row, 1)?, reason })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The documents that jobs name.
pub(super) fn named(tx: &Connection) -> Result<Vec<Digest>> {
    let mut query = tx.prepare_cached("SELECT DISTINCT digest FROM job_document")?;
    let rows = query.query_map([], |row| parsed(row, 0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
