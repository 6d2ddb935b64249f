//! Jobs, their sites, rounds, releases and ends.
//!
//! *In*: what `drive` decides, each step a transaction. *Out*: all that a restart needs to go on. *Refuses*: another manifest under a known id.

use rusqlite::{OptionalExtension as _, Row, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::Receipt;
use vestibule_protocol::name::Name;
use vestibule_protocol::round::Plan;

use super::schema::{self, parsed, word};
use super::{Job, JobSite, JobState, Proven, Result, Store, StoreError, StoredRound};
use crate::round::SiteState;

const SELECT_JOB: &str = "SELECT job, envelope, owner, submitted, state, code, why, max_rounds,
    (SELECT COUNT(*) FROM round WHERE round.job = job.job) FROM job";

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let error = row.get::<_, Option<String>>(5)?.zip(row.get::<_, Option<String>>(6)?);
    Ok(Job {
        id: parsed(row, 0)?,
        envelope: row.get(1)?,
        owner: parsed(row, 2)?,
        submitted: row.get(3)?,
        state: schema::unword(row, 4)?,
        error,
        max_rounds: row.get(7)?,
        rounds: row.get(8)?,
    })
}

impl Store {
    /// Keeps a submitted job. The same again changes nothing; `false` then.
    ///
    /// # Errors
    /// Another manifest has this id.
    pub fn submit(&self, job: &Job, manifest: Digest, sites: &[Name]) -> Result<bool> {
        self.with(|tx| {
            let known = tx.query_row("SELECT manifest FROM job WHERE job = ?1", [job.id.to_string()], |row| parsed::<Digest>(row, 0));
            match known.optional()? {
                Some(known) if known == manifest => return Ok(false),
                Some(_) => return Err(StoreError::OtherManifest),
                None => {}
            }
            let sql = "INSERT INTO job(job, manifest, envelope, owner, submitted, state, max_rounds) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let row = params![
                job.id.to_string(),
                manifest.to_string(),
                job.envelope,
                job.owner.to_string(),
                job.submitted,
                word(&job.state),
                job.max_rounds
            ];
            tx.execute(sql, row)?;
            for site in sites {
                let sql = "INSERT INTO job_site(job, site, state) VALUES(?1, ?2, ?3)";
                tx.execute(sql, params![job.id.to_string(), site.as_str(), word(&SiteState::Waiting)])?;
            }
            Ok(true)
        })
    }

    /// Keeps what a job's component said it reads.
    ///
    /// # Errors
    /// The database.
    pub fn set_plan(&self, job: JobId, plan: &Plan) -> Result<()> {
        let json = serde_json::to_vec(plan).map_err(|error| StoreError::Database(error.to_string()))?;
        self.with(|tx| {
            tx.execute("INSERT OR IGNORE INTO plan(job, json) VALUES(?1, ?2)", params![job.to_string(), json])?;
            Ok(())
        })
    }

    /// What a job's component said it reads, if it was kept.
    ///
    /// # Errors
    /// The database.
    pub fn plan(&self, job: JobId) -> Result<Option<Plan>> {
        let json = self.with(|tx| {
            let found = tx.query_row("SELECT json FROM plan WHERE job = ?1", [job.to_string()], |row| row.get::<_, Vec<u8>>(0));
            Ok(found.optional()?)
        })?;
        Ok(json.and_then(|json| serde_json::from_slice::<Plan>(&json).ok()).and_then(|plan| plan.checked().ok()))
    }

    /// Jobs: one owner's, or all, newest first.
    ///
    /// # Errors
    /// The database.
    pub fn jobs(&self, owner: Option<PublicKey>) -> Result<Vec<Job>> {
        self.with(|tx| {
            let sql = format!("{SELECT_JOB} WHERE ?1 IS NULL OR owner = ?1 ORDER BY submitted DESC, rowid DESC");
            let mut query = tx.prepare_cached(&sql)?;
            let rows = query.query_map([owner.map(|owner| owner.to_string())], read_job)?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// The jobs that run, oldest first.
    ///
    /// # Errors
    /// The database.
    pub fn running(&self) -> Result<Vec<JobId>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT job FROM job WHERE state = ?1 ORDER BY submitted, rowid")?;
            let rows = query.query_map([word(&JobState::Running)], |row| parsed(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// One job.
    ///
    /// # Errors
    /// The database.
    pub fn job(&self, job: JobId) -> Result<Option<Job>> {
        self.with(|tx| Ok(tx.query_row(&format!("{SELECT_JOB} WHERE job = ?1"), [job.to_string()], read_job).optional()?))
    }

    /// The sites of a job.
    ///
    /// # Errors
    /// The database.
    pub fn job_sites(&self, job: JobId) -> Result<Vec<JobSite>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT site, state, code, why FROM job_site WHERE job = ?1 ORDER BY site")?;
            let rows = query.query_map([job.to_string()], |row| {
                let reason = row.get::<_, Option<String>>(2)?.zip(row.get::<_, Option<String>>(3)?);
                Ok(JobSite { site: parsed(row, 0)?, state: schema::unword(row, 1)?, reason })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Sets a site's state in a job's current round.
    ///
    /// # Errors
    /// The database.
    pub fn set_site(&self, job: JobId, site: &Name, state: SiteState, reason: Option<(&str, &str)>) -> Result<()> {
        self.with(|tx| {
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
        self.with(|tx| {
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
        self.with(|tx| {
            let sql = "UPDATE job_site SET asked = COALESCE(asked, ?3) WHERE job = ?1 AND site = ?2 RETURNING asked";
            Ok(tx.query_row(sql, params![job.to_string(), site.as_str(), now], |row| row.get(0))?)
        })
    }

    /// The same, of one that was asked.
    ///
    /// # Errors
    /// The database.
    pub fn was_asked(&self, job: JobId, site: &Name) -> Result<Option<i64>> {
        self.with(|tx| {
            let sql = "SELECT asked FROM job_site WHERE job = ?1 AND site = ?2";
            Ok(tx.query_row(sql, params![job.to_string(), site.as_str()], |row| row.get(0))?)
        })
    }

    /// The rounds of a job that were begun.
    ///
    /// # Errors
    /// The database.
    pub fn rounds(&self, job: JobId) -> Result<Vec<StoredRound>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT request FROM round WHERE job = ?1 ORDER BY round")?;
            let rows = query.query_map([job.to_string()], |row| Ok(StoredRound { request: row.get(0)? }))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Keeps a release and marks its site. The first one counts.
    ///
    /// # Errors
    /// The database.
    pub fn release(&self, job: JobId, round: u32, site: &Name, json: &[u8], receipt: &Receipt) -> Result<()> {
        self.with(|tx| {
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
        self.with(|tx| {
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
        self.with(|tx| {
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
        self.with(|tx| {
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

    /// The report of a finished job.
    ///
    /// # Errors
    /// The database.
    pub fn report(&self, job: JobId) -> Result<Option<Vec<u8>>> {
        self.with(|tx| {
            let read = |row: &Row<'_>| row.get::<_, Option<Vec<u8>>>(0);
            Ok(tx.query_row("SELECT report FROM job WHERE job = ?1", [job.to_string()], read).optional()?.flatten())
        })
    }

    /// Ended jobs that a site has not been told about.
    ///
    /// # Errors
    /// The database.
    pub fn closing(&self, site: &Name) -> Result<Vec<JobId>> {
        self.with(|tx| {
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
        self.with(|tx| {
            tx.execute(
                "UPDATE job_site SET closing = 0 WHERE job = ?1 AND site = ?2",
                params![job.to_string(), site.as_str()],
            )?;
            Ok(())
        })
    }
}
