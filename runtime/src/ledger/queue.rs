//! What waits for a person, what people decided, and which rules hold: all of it leaves of the log.
//!
//! *In*: a subject that waits, with what a person needs to know to decide; a review that was verified. *Out*: the queue; the last decision about
//! a subject. *Trusts*: that whose word counts was checked before. *Refuses*: nothing twice: what waits already waits once.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;
use serde_json::Value;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::leaf::{Event, nothing};
use vestibule_protocol::name::Name;
use vestibule_protocol::review::{Review, Subject};

use super::{Ledger, LedgerError, append, database, milliseconds};

/// How long back [`Ledger::near`] looks.
const NEAR_DAYS: i64 = 90;

/// What kind of thing waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A job, before anything of it is charged.
    Job,
    /// What a round would release: charged, noised and checked.
    Release,
}

/// Something that waits, or waited, for a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Waiting {
    /// By which it is called at this site.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// What is to be signed for.
    pub subject: Subject,
    /// What a person needs to know; nothing where that was erased.
    pub about: Value,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// The last decision, if there is one.
    pub approved: Option<bool>,
    /// It is a job that has ended before anybody decided: nothing is to be decided any more.
    pub ended: bool,
    /// What would leave, if it is a release.
    pub release: Option<Value>,
}

/// Whose job it is that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    /// Which job, and which of its rounds.
    pub(crate) round: (JobId, u32),
    /// Who asked for it.
    pub(crate) researcher: &'a Name,
    /// Under which charter.
    pub(crate) charter: Digest,
}

/// Jobs that may wait for a person at the same time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MostHeld {
    /// Of one researcher.
    pub(crate) researcher: u32,
    /// Of one charter.
    pub(crate) charter: u32,
}

/// What was decided so far, as [`Ledger::decided`] last saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    review: i64,
    policy: i64,
}

impl Ledger {
    /// Puts a subject into the queue, once, and returns the last decision about it. `about` is for
    /// the people who decide. A job that does not wait yet is refused where as many wait as may.
    ///
    /// # Errors
    /// [`LedgerError::TooManyHeld`]; the database.
    pub(crate) fn wait(
        &self,
        subject: &Subject,
        whose: Whose<'_>,
        about: &Value,
        (most, since): (Option<MostHeld>, Duration),
    ) -> Result<Option<bool>, LedgerError> {
        let text = text(subject);
        self.transaction(|tx| {
            let sql = "SELECT 1 FROM waiting WHERE subject = ?1";
            if tx.query_row(sql, [&text], |_| Ok(())).optional().map_err(database(tx))?.is_none() {
                if let Some(most) = most {
                    room(tx, whose, most)?;
                }
                let Whose { round: (job, round), researcher, charter } = whose;
                let leaf = append(tx, milliseconds(since), Event::Held { subject: subject.clone() }, Some(about))?;
                let kind = if matches!(subject, Subject::Release { .. }) { "release" } else { "job" };
                let (job, at) = (job.to_string(), milliseconds(since));
                let row = params![text, job, round, kind, at, researcher.as_str(), charter.to_string(), leaf];
                let sql = "INSERT INTO waiting(subject, job, round, kind, since, researcher, charter, leaf)
                           VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
                tx.execute(sql, row).map_err(database(tx))?;
            }
            last(tx, &text)
        })
    }

    /// The jobs about whose rounds something was decided since `mark`, and a new mark. What was
    /// decided about something else, as a component or the rules, may be about any job that waits.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn decided(&self, mark: Mark) -> Result<(Mark, Vec<JobId>), LedgerError> {
        self.transaction(|tx| {
            let last = "SELECT (SELECT COALESCE(MAX(number), 0) FROM review), (SELECT COALESCE(MAX(version), 0) FROM policy)";
            let read = |row: &Row<'_>| Ok(Mark { review: row.get(0)?, policy: row.get(1)? });
            let now = tx.query_row(last, [], read).map_err(database(tx))?;
            if now == mark {
                return Ok((now, vec![]));
            }
            let other =
                "SELECT EXISTS (SELECT 1 FROM review WHERE number > ?1 AND subject NOT IN (SELECT subject FROM waiting))";
            let all =
                now.policy != mark.policy || tx.query_row(other, [mark.review], |row| row.get(0)).map_err(database(tx))?;
            let sql = "SELECT DISTINCT job FROM waiting WHERE job NOT IN (SELECT job FROM let_go)
                       AND (subject IN (SELECT subject FROM review WHERE number > ?1)
                         OR (?2 AND subject NOT IN (SELECT subject FROM review)))";
            let mut statement = tx.prepare(sql).map_err(database(tx))?;
            let jobs = statement.query_map(params![mark.review, all], |row| super::schema::parsed(row, 0));
            let jobs = jobs.and_then(Iterator::collect).map_err(database(tx))?;
            Ok((now, jobs))
        })
    }

    /// The last decision about a subject, as it was signed, if there is one that was not erased.
    ///
    /// # Errors
    /// The database.
    pub fn reviewed(&self, subject: &Subject) -> Result<Option<Vec<u8>>, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT unseal('review', leaf, envelope) FROM review WHERE subject = ?1 ORDER BY number DESC LIMIT 1";
            let found = tx.query_row(sql, [text(subject)], |row| row.get::<_, Option<Vec<u8>>>(0)).optional();
            Ok(found.map_err(database(tx))?.flatten())
        })
    }

    /// Books a decision, whose signature and signer were checked.
    ///
    /// # Errors
    /// The database.
    pub fn review(&self, review: &Review, person: &Name, envelope: &[u8], since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let event = Event::Reviewed { subject: review.subject.clone(), approved: review.approved };
            let details = serde_json::json!({ "person": person, "why": review.why });
            let leaf = append(tx, milliseconds(since), event, Some(&details))?;
            let sql = "INSERT INTO review(subject, approved, envelope, leaf) VALUES(?1, ?2, seal('review', ?4, ?3), ?4)";
            let row = params![text(&review.subject), review.approved, envelope, leaf];
            tx.execute(sql, row).map_err(database(tx)).map(|_| ())
        })
    }

    /// Everything that ever waited, oldest first.
    ///
    /// # Errors
    /// The database.
    pub fn queue(&self) -> Result<Vec<Waiting>, LedgerError> {
        let sql = "SELECT waiting.number, kind, subject, unseal('details', log_detail.leaf, sealed), since,
                     (SELECT approved FROM review WHERE review.subject = waiting.subject ORDER BY number DESC LIMIT 1),
                     CASE kind WHEN 'release' THEN (SELECT unseal('release', release.job || ' ' || release.round, bytes) FROM release
                       WHERE release.job = waiting.job AND release.round = waiting.round) END,
                     kind = 'job' AND waiting.job IN (SELECT job FROM let_go)
                   FROM waiting LEFT JOIN log_detail USING(leaf) ORDER BY waiting.number";
        let read = |row: &Row<'_>| {
            let json = |column: usize, text: &[u8]| {
                let wrong =
                    |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
                serde_json::from_slice::<Value>(text).map_err(wrong)
            };
            let subject = serde_json::from_value(json(2, row.get::<_, String>(2)?.as_bytes())?);
            let subject = subject
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error)))?;
            let release = row.get::<_, Option<Vec<u8>>>(6)?.map(|bytes| json(6, &bytes)).transpose()?;
            Ok(Waiting {
                number: row.get::<_, i64>(0)?.unsigned_abs(),
                kind: if row.get::<_, String>(1)? == "release" { Kind::Release } else { Kind::Job },
                subject,
                about: crate::log::details(row.get::<_, Option<Vec<u8>>>(3)?.as_deref()).map_or(Value::Null, Value::Object),
                since_ms: row.get(4)?,
                approved: row.get(5)?,
                ended: row.get(7)?,
                release,
            })
        };
        self.transaction(|tx| {
            let mut statement = tx.prepare(sql).map_err(database(tx))?;
            let rows = statement.query_map([], read).and_then(Iterator::collect);
            rows.map_err(database(tx))
        })
    }

    /// The policy that was set last: its version and digest.
    ///
    /// # Errors
    /// The database.
    pub fn policy(&self) -> Result<Option<(u64, Digest)>, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT version, sha256 FROM policy ORDER BY version DESC LIMIT 1";
            let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?.unsigned_abs(), super::schema::parsed(row, 1)?));
            tx.query_row(sql, [], read).optional().map_err(database(tx))
        })
    }

    /// That another policy holds from now on.
    ///
    /// # Errors
    /// The database; one of that version held before.
    pub fn set_policy(&self, version: u64, policy: Digest, since: Duration) -> Result<(), LedgerError> {
        self.transaction(|tx| {
            let leaf = append(tx, milliseconds(since), Event::Policy { version, policy }, None)?;
            let row = params![super::whole(version), policy.to_string(), leaf];
            tx.execute("INSERT INTO policy(version, sha256, leaf) VALUES(?1, ?2, ?3)", row).map_err(database(tx)).map(|_| ())
        })
    }

    /// What the airlock found about a round's release.
    ///
    /// # Errors
    /// The database.
    pub fn evidence(&self, job: JobId, round: u32) -> Result<Option<Value>, LedgerError> {
        self.transaction(|tx| evidence(tx, job, round))
    }

    /// How many releases, drawn each for itself, went before, by the same component over the same columns of the same people. One that is still to leave is not known of.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn similar(&self, job: JobId) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT COUNT(*) FROM job_account AS this JOIN job_account AS other USING(component, columns, population)
                       JOIN charge ON charge.job = other.job JOIN release ON release.job = charge.job AND release.round = charge.round
                       JOIN departure ON departure.job = release.job AND departure.round = release.round
                       WHERE this.job = ?1 AND other.job <> this.job AND sha256 <> ?2 AND charge.moment > 0";
            let row = params![job.to_string(), nothing().to_string()];
            tx.query_row(sql, row, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(database(tx))
        })
    }

    /// How many releases, drawn each for itself, went before in [`NEAR_DAYS`], under the same charter, over the same columns and lists of variants of the same
    /// people, by whatever component: a predicate in its parameters may differ by one person. One that is still to leave is not known of.
    ///
    /// # Errors
    /// The database.
    pub(crate) fn near(&self, job: JobId) -> Result<u64, LedgerError> {
        self.transaction(|tx| {
            let sql = "SELECT COUNT(*) FROM job_account AS this
                       JOIN job_account AS other USING(charter, columns, catalogues, population)
                       JOIN charge ON charge.job = other.job JOIN release ON release.job = charge.job AND release.round = charge.round
                       JOIN departure ON departure.job = release.job AND departure.round = release.round
                       WHERE this.job = ?1 AND other.job <> this.job AND sha256 <> ?2 AND charge.moment > 0
                       AND other.admitted > this.admitted - ?3";
            let row = params![job.to_string(), nothing().to_string(), NEAR_DAYS * 86_400];
            tx.query_row(sql, row, |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(database(tx))
        })
    }
}

/// Whether one more job may wait.
fn room(tx: &Transaction<'_>, whose: Whose<'_>, most: MostHeld) -> Result<(), LedgerError> {
    let held = |column: &str, is: String| -> Result<u32, LedgerError> {
        let sql = format!(
            "SELECT COUNT(*) FROM waiting WHERE {column} = ?1 AND kind = 'job' AND job NOT IN (SELECT job FROM let_go)
             AND subject NOT IN (SELECT subject FROM review)"
        );
        tx.query_row(&sql, [is], |row| row.get(0)).map_err(database(tx))
    };
    let researcher = whose.researcher.as_str().to_owned();
    if held("researcher", researcher)? >= most.researcher || held("charter", whose.charter.to_string())? >= most.charter {
        return Err(LedgerError::TooManyHeld);
    }
    Ok(())
}

/// Nobody waits for a decision about this job any more.
pub(super) fn let_go(tx: &Transaction<'_>, job: JobId) -> Result<(), LedgerError> {
    let sql = "INSERT OR IGNORE INTO let_go(job) SELECT DISTINCT job FROM waiting WHERE job = ?1";
    tx.execute(sql, [job.to_string()]).map_err(database(tx)).map(|_| ())
}

/// A subject as the database has it.
fn text(subject: &Subject) -> String {
    serde_json::to_string(subject).expect("names, digests and numbers are always JSON")
}

fn last(tx: &Transaction<'_>, subject: &str) -> Result<Option<bool>, LedgerError> {
    let sql = "SELECT approved FROM review WHERE subject = ?1 ORDER BY number DESC LIMIT 1";
    tx.query_row(sql, [subject], |row| row.get(0)).optional().map_err(database(tx))
}

/// The last decision about a round's release, if there is one.
pub(super) fn release(tx: &Transaction<'_>, job: JobId, round: u32) -> Result<Option<bool>, LedgerError> {
    let sql = "SELECT subject FROM waiting WHERE job = ?1 AND round = ?2 AND kind = 'release'";
    let row = params![job.to_string(), round];
    let subject: Option<String> = tx.query_row(sql, row, |row| row.get(0)).optional().map_err(database(tx))?;
    subject.map_or(Ok(None), |subject| last(tx, &subject))
}

/// What the airlock found about a round's release.
pub(super) fn evidence(tx: &Transaction<'_>, job: JobId, round: u32) -> Result<Option<Value>, LedgerError> {
    let sql = "SELECT unseal('evidence', job || ' ' || round, evidence) FROM release WHERE job = ?1 AND round = ?2";
    let found: Option<Vec<u8>> = tx.query_row(sql, params![job.to_string(), round], |row| row.get(0)).map_err(database(tx))?;
    let found: Option<Value> = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(found.and_then(|found| found.get("found").filter(|found| !found.is_null()).cloned()))
}
