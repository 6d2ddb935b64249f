//! The coordinator's database: who may come, what was asked, what was released. SQLite, one file, synced.
//!
//! *In*: checked things. *Out*: the same after any restart. *Trusts*: its callers' checks. *Refuses*: names and job ids that are
//! taken by something else, invitations that were used.

mod schema;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::{Receipt, SiteCard, SiteRequest};
use vestibule_protocol::name::Name;
use vestibule_protocol::token::{Invitation, Role};

use crate::round::SiteState;
use schema::{parsed, word};

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store(Arc<Mutex<Connection>>);

/// What the database refuses, or cannot do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The name is taken.
    #[error("the name `{0}` is taken: choose another")]
    NameTaken(Name),
    /// The invitation was used, has expired, or never was.
    #[error("the invitation is unknown, was used already, or has expired: ask for a new one")]
    Invitation,
    /// Same id, other manifest.
    #[error("another manifest was submitted under this job id")]
    OtherManifest,
    /// The database.
    #[error("coordinator.sqlite: {0}")]
    Database(String),
}

impl StoreError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NameTaken(_) => "name-taken",
            Self::Invitation => "invitation-unknown",
            Self::OtherManifest => "job-differs",
            Self::Database(_) => "coordinator-database",
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Its rounds are under way.
    Running,
    /// Its report is here.
    Finished,
    /// It ended without one.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A job, as stored.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The manifest's envelope.
    pub envelope: Vec<u8>,
    /// Who owns it.
    pub owner: PublicKey,
    /// When it came, in seconds since 1970.
    pub submitted: i64,
    /// How it stands.
    pub state: JobState,
    /// Why it failed: a code and a sentence.
    pub error: Option<(String, String)>,
    /// Rounds begun.
    pub rounds: u32,
    /// Most rounds, by its plan.
    pub max_rounds: u32,
}

/// What a newcomer asks the consortium to know them as.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A site, with its keys.
    Site(SiteRequest),
    /// A researcher.
    Researcher(PersonRequest),
    /// An approver.
    Approver(PersonRequest),
}

/// A person, with their key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PersonRequest {
    /// Whom they work for.
    pub organisation: String,
    /// Where: an ISO 3166 code of two letters.
    pub country: String,
    /// Their key.
    pub key: PublicKey,
}

impl Request {
    const fn role(&self) -> Role {
        match self {
            Self::Site(_) => Role::Site,
            Self::Researcher(_) => Role::Researcher,
            Self::Approver(_) => Role::Approver,
        }
    }
}

/// A site's part in a job, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSite {
    /// Which site.
    pub site: Name,
    /// Its state in the current round.
    pub state: SiteState,
    /// Why it refused: a code and a sentence.
    pub reason: Option<(String, String)>,
}

/// A release, as stored, with the proof that it is in its site's witnessed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The round.
    pub round: u32,
    /// The site.
    pub site: Name,
    /// What it released: JSON.
    pub release: Vec<u8>,
    /// The proof.
    pub receipt: Receipt,
}

/// A round, as stored.
#[derive(Debug, Clone)]
pub struct StoredRound {
    /// The request, as JSON.
    pub request: Vec<u8>,
    /// Until when sites may answer, in seconds since 1970.
    pub deadline: i64,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or makes the database.
    ///
    /// # Errors
    /// It cannot be opened, or its durability settings cannot be had.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(Arc::new(Mutex::new(schema::open(path)?))))
    }

    fn with<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        // A panic while the lock was held rolled its transaction back.
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = body(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Keeps an invitation. A name is one thing for good.
    ///
    /// # Errors
    /// The name belongs to somebody who joined.
    pub fn invite(&self, invitation: &Invitation, key: PublicKey) -> Result<()> {
        self.with(|tx| {
            let taken = "SELECT 1 FROM member WHERE name = ?1";
            if tx.query_row(taken, [invitation.name.as_str()], |_| Ok(())).optional()?.is_some() {
                return Err(StoreError::NameTaken(invitation.name.clone()));
            }
            let sql = "INSERT INTO invitation(key, role, name, expires) VALUES(?1, ?2, ?3, ?4)";
            tx.execute(sql, params![key.to_string(), word(&invitation.role), invitation.name.as_str(), invitation.expires])?;
            Ok(())
        })
    }

    /// Registers a newcomer's own key under the invited name, and spends the invitation. Asking again with the same key is fine:
    /// the first answer may have been lost.
    ///
    /// # Errors
    /// The invitation is not good; the name was taken meanwhile.
    pub fn join(&self, invitation: PublicKey, key: PublicKey, request: &Request, now: i64) -> Result<Name> {
        let role = request.role();
        let text = serde_json::to_string(request).map_err(|error| StoreError::Database(error.to_string()))?;
        self.with(|tx| {
            let sql = "SELECT name, used_by FROM invitation WHERE key = ?1 AND role = ?2 AND expires >= ?3";
            let read = |row: &Row<'_>| Ok((parsed::<Name>(row, 0)?, row.get::<_, Option<String>>(1)?));
            let found = tx.query_row(sql, params![invitation.to_string(), word(&role), now], read).optional()?;
            let (name, used_by) = found.ok_or(StoreError::Invitation)?;
            match used_by {
                Some(used_by) if used_by == key.to_string() => return Ok(name),
                Some(_) => return Err(StoreError::Invitation),
                None => {}
            }
            let sql = "INSERT INTO member(name, role, key, joined, request) VALUES(?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            if tx.execute(sql, params![name.as_str(), word(&role), key.to_string(), now, text])? == 0 {
                return Err(StoreError::NameTaken(name));
            }
            tx.execute("UPDATE invitation SET used_by = ?2 WHERE key = ?1", params![invitation.to_string(), key.to_string()])?;
            Ok(name)
        })
    }

    /// What an invitation is for, if there is one.
    ///
    /// # Errors
    /// The database.
    pub fn invited(&self, invitation: PublicKey) -> Result<Option<Role>> {
        self.with(|tx| {
            let sql = "SELECT role FROM invitation WHERE key = ?1";
            let role: Option<String> = tx.query_row(sql, [invitation.to_string()], |row| row.get(0)).optional()?;
            Ok(role
                .and_then(|role| [Role::Site, Role::Researcher, Role::Approver].into_iter().find(|known| word(known) == role)))
        })
    }

    /// The members of a role: name and key.
    ///
    /// # Errors
    /// The database.
    pub fn members(&self, role: Role) -> Result<Vec<(Name, PublicKey)>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT name, key FROM member WHERE role = ?1 ORDER BY name")?;
            let rows = query.query_map([word(&role)], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// What everybody who joined asks to be known as, for the consortium's roots to look at.
    ///
    /// # Errors
    /// The database.
    pub fn requests(&self) -> Result<Vec<(Name, Request)>> {
        self.with(|tx| {
            let mut query = tx.prepare("SELECT name, request FROM member ORDER BY joined, name")?;
            let rows = query.query_map([], |row| Ok((parsed(row, 0)?, row.get::<_, String>(1)?)))?;
            let read = |row: rusqlite::Result<(Name, String)>| {
                let (name, request) = row?;
                let request = serde_json::from_str(&request).map_err(|error| StoreError::Database(error.to_string()))?;
                Ok((name, request))
            };
            rows.map(read).collect()
        })
    }

    /// The newest trust bundle, as its roots signed it.
    ///
    /// # Errors
    /// The database.
    pub fn bundle(&self) -> Result<Option<Vec<u8>>> {
        self.with(|tx| {
            let sql = "SELECT envelope FROM bundle ORDER BY version DESC LIMIT 1";
            Ok(tx.query_row(sql, [], |row| row.get(0)).optional()?)
        })
    }

    /// Keeps a trust bundle for everybody.
    ///
    /// # Errors
    /// The database.
    pub fn publish(&self, version: u64, envelope: &[u8]) -> Result<()> {
        self.with(|tx| {
            let version = i64::try_from(version).unwrap_or(i64::MAX);
            tx.execute(
                "INSERT INTO bundle(version, envelope) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
                params![version, envelope],
            )?;
            Ok(())
        })
    }

    /// Keys of site invitations that are still good.
    ///
    /// # Errors
    /// The database.
    pub fn open_invitations(&self, now: i64) -> Result<Vec<PublicKey>> {
        self.with(|tx| {
            let sql = "SELECT key FROM invitation WHERE role = ?1 AND expires >= ?2";
            let mut query = tx.prepare_cached(sql)?;
            let rows = query.query_map(params![word(&Role::Site), now], |row| parsed(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Remembers what a site says it has.
    ///
    /// # Errors
    /// The database.
    pub fn set_card(&self, site: &Name, card: &SiteCard) -> Result<()> {
        let card = serde_json::to_string(card).map_err(|error| StoreError::Database(error.to_string()))?;
        self.with(|tx| {
            tx.execute("UPDATE member SET card = ?2 WHERE name = ?1", params![site.as_str(), card])?;
            Ok(())
        })
    }

    /// The sites, with what each last said it has.
    ///
    /// # Errors
    /// The database.
    pub fn cards(&self) -> Result<Vec<(Name, Option<SiteCard>)>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT name, card FROM member WHERE role = ?1 ORDER BY name")?;
            let rows = query.query_map([word(&Role::Site)], |row| {
                let card: Option<String> = row.get(1)?;
                Ok((parsed(row, 0)?, card.and_then(|card| serde_json::from_str(&card).ok())))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

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
    pub fn begin_round(&self, job: JobId, round: u32, request: &[u8], deadline: i64) -> Result<()> {
        self.with(|tx| {
            let sql = "INSERT INTO round(job, round, request, deadline) VALUES(?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            if tx.execute(sql, params![job.to_string(), round, request, deadline])? == 1 {
                let sql = "UPDATE job_site SET state = ?2 WHERE job = ?1 AND state = ?3";
                tx.execute(sql, params![job.to_string(), word(&SiteState::Waiting), word(&SiteState::Released)])?;
            }
            Ok(())
        })
    }

    /// The rounds of a job that were begun.
    ///
    /// # Errors
    /// The database.
    pub fn rounds(&self, job: JobId) -> Result<Vec<StoredRound>> {
        self.with(|tx| {
            let mut query = tx.prepare_cached("SELECT request, deadline FROM round WHERE job = ?1 ORDER BY round")?;
            let rows =
                query.query_map([job.to_string()], |row| Ok(StoredRound { request: row.get(0)?, deadline: row.get(1)? }))?;
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

#[cfg(test)]
mod tests;
