//! Rounds, what sites did in them, releases, and how jobs end.
//!
//! *In*: what `drive` decides, each step a transaction. *Out*: all that a restart needs to go on. *Refuses*: a second release, a second end, what a site that is done does later.

use rusqlite::{Connection, OptionalExtension as _, params};
use vestibule_protocol::job::JobId;
use vestibule_protocol::message::Receipt;
use vestibule_protocol::name::Name;

use super::schema::{parsed, unword, word};
use super::{JobState, Proven, Result, Store, StoredRound};
use crate::round::SiteState;

impl Store {
    /// Sets a site's state in a job's current round. One that is done with it stays as it is: what was on its way comes too late.
    ///
    /// # Errors
    /// The database.
    pub fn set_site(&self, job: JobId, site: &Name, state: SiteState, reason: Option<(String, String)>) -> Result<()> {
        let site = site.clone();
        self.write(move |tx| {
            if stands(tx, job, &site)?.is_none_or(SiteState::is_done) {
                return Ok(());
            }
            let sql = "UPDATE job_site SET state = ?3, code = ?4, why = ?5 WHERE job = ?1 AND site = ?2";
            let (code, why) = reason.unzip();
            tx.execute(sql, params![job.to_string(), site.as_str(), word(&state), code, why])?;
            Ok(())
        })
    }

    /// Begins a round, unless it was begun: then the stored one counts. Sites that are still in wait to be asked.
    ///
    /// # Errors
    /// The database.
    pub fn begin_round(&self, job: JobId, round: u32, request: &[u8]) -> Result<()> {
        let request = request.to_owned();
        self.write(move |tx| {
            let sql = "INSERT INTO round(job, round, request) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING";
            if tx.execute(sql, params![job.to_string(), round, request])? == 1 {
                tx.execute("UPDATE job_site SET asked = NULL WHERE job = ?1", [job.to_string()])?;
                let sql = "UPDATE job_site SET state = ?2 WHERE job = ?1 AND state = ?3";
                tx.execute(sql, params![job.to_string(), word(&SiteState::Waiting), word(&SiteState::Released)])?;
            }
            Ok(())
        })
    }

    /// When a site was asked for the job's current round first, in seconds since 1970: `now`, if it was
    /// not yet.
    ///
    /// # Errors
    /// The database.
    pub fn asked(&self, job: JobId, site: &Name, now: i64) -> Result<i64> {
        let site = site.clone();
        self.write(move |tx| {
            let sql = "UPDATE job_site SET asked = COALESCE(asked, ?3) WHERE job = ?1 AND site = ?2 RETURNING asked";
            Ok(tx.query_row(sql, params![job.to_string(), site.as_str(), now], |row| row.get(0))?)
        })
    }

    /// The same, of one that was asked.
    ///
    /// # Errors
    /// The database.
    pub fn was_asked(&self, job: JobId, site: &Name) -> Result<Option<i64>> {
        self.read(|tx| {
            let sql = "SELECT asked FROM job_site WHERE job = ?1 AND site = ?2";
            Ok(tx.query_row(sql, params![job.to_string(), site.as_str()], |row| row.get(0))?)
        })
    }

    /// The rounds of a job that were begun.
    ///
    /// # Errors
    /// The database.
    pub fn rounds(&self, job: JobId) -> Result<Vec<StoredRound>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT request FROM round WHERE job = ?1 ORDER BY round")?;
            let rows = query.query_map([job.to_string()], |row| Ok(StoredRound { request: row.get(0)? }))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Keeps a release and marks its site. The first one counts, and none of a site that is out of the job.
    ///
    /// # Errors
    /// The database.
    pub fn release(&self, job: JobId, round: u32, site: &Name, json: &[u8], receipt: &Receipt) -> Result<()> {
        let (site, json, receipt) = (site.clone(), json.to_owned(), receipt.clone());
        self.write(move |tx| {
            if stands(tx, job, &site)?.is_none_or(SiteState::is_out) {
                return Ok(());
            }
            let sql =
                "INSERT INTO release(job, round, site, json, leaf, proof) VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
            tx.execute(sql, params![job.to_string(), round, site.as_str(), json, receipt.leaf, receipt.proof])?;
            let sql = "UPDATE job_site SET state = ?3, code = NULL, why = NULL WHERE job = ?1 AND site = ?2";
            tx.execute(sql, params![job.to_string(), site.as_str(), word(&SiteState::Released)])?;
            Ok(())
        })
    }

    /// The releases of a round, by site.
    ///
    /// # Errors
    /// The database.
    pub fn releases(&self, job: JobId, round: u32) -> Result<Vec<(Name, Vec<u8>)>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT site, json FROM release WHERE job = ?1 AND round = ?2 ORDER BY site")?;
            let rows = query.query_map(params![job.to_string(), round], |row| Ok((parsed(row, 0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// All releases of a job, with their receipts.
    ///
    /// # Errors
    /// The database.
    pub fn receipts(&self, job: JobId) -> Result<Vec<Proven>> {
        self.read(|tx| {
            let sql = "SELECT round, site, json, leaf, proof FROM release WHERE job = ?1 ORDER BY round, site";
            let mut query = tx.prepare_cached(sql)?;
            let rows = query.query_map([job.to_string()], |row| {
                let receipt = Receipt { leaf: row.get(3)?, proof: row.get(4)? };
                Ok(Proven { round: row.get(0)?, site: parsed(row, 1)?, release: row.get(2)?, receipt })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Ends a job that is running; all its sites are to be told. A job that has ended stays as it is.
    ///
    /// # Errors
    /// The database.
    pub fn end(&self, job: JobId, state: JobState, error: Option<(&str, &str)>, report: Option<&[u8]>) -> Result<bool> {
        let (error, report) = (owned(error), report.map(<[u8]>::to_owned));
        self.write(move |tx| {
            let sql = "UPDATE job SET state = ?2, code = ?3, why = ?4, report = ?5 WHERE job = ?1 AND state = ?6";
            let (code, why) = error.unzip();
            let changed =
                tx.execute(sql, params![job.to_string(), word(&state), code, why, report, word(&JobState::Running)])?;
            if changed == 1 {
                tx.execute("UPDATE job_site SET closing = 1 WHERE job = ?1", [job.to_string()])?;
            }
            Ok(changed == 1)
        })
    }

    /// Ended jobs that a site has not been told about.
    ///
    /// # Errors
    /// The database.
    pub fn closing(&self, site: &Name) -> Result<Vec<JobId>> {
        self.read(|tx| {
            let mut query = tx.prepare_cached("SELECT job FROM job_site WHERE site = ?1 AND closing = 1")?;
            let rows = query.query_map([site.as_str()], |row| parsed(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// A site has been told.
    ///
    /// # Errors
    /// The database.
    pub fn closed(&self, job: JobId, site: &Name) -> Result<()> {
        let site = site.clone();
        self.write(move |tx| {
            tx.execute(
                "UPDATE job_site SET closing = 0 WHERE job = ?1 AND site = ?2",
                params![job.to_string(), site.as_str()],
            )?;
            Ok(())
        })
    }
}

/// A site's state in a job's current round.
fn stands(tx: &Connection, job: JobId, site: &Name) -> Result<Option<SiteState>> {
    let mut query = tx.prepare_cached("SELECT state FROM job_site WHERE job = ?1 AND site = ?2")?;
    Ok(query.query_row(params![job.to_string(), site.as_str()], |row| unword(row, 0)).optional()?)
}

fn owned(words: Option<(&str, &str)>) -> Option<(String, String)> {
    words.map(|(code, why)| (code.to_owned(), why.to_owned()))
}
