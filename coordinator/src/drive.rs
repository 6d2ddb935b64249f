//! Drives jobs from round to round until they end. One task for each job; all that matters is in the store, so a task that is
//! begun again after a restart goes on where the last one was.
//!
//! *In*: jobs from intake and from the store. *Out*: offers to sites, rounds, a report or a reason. *Trusts*: the store.
//! *Stops*: with its token, at any await; nothing is lost. *Refuses*: rounds beyond the plan, shares beyond the whole budget,
//! releases that do not answer what was asked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::JobId;
use vestibule_protocol::manifest::Signed;
use vestibule_protocol::release::{Release, Released, combine};
use vestibule_protocol::round::{Round, RoundRequest, WHOLE_SHARE_PPB};
use vestibule_sandbox::Step;

use crate::ask::{Ask, answers};
use crate::failed::{Failed, failed};
use crate::intake::{IntakeError, Ready};
use crate::shared::{Shared, SubmitError};
use crate::store::{JobState, StoreError};

/// Before an analysis is asked again that the coordinator could not ask.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Drives every unfinished job, those in the store and those that come, until dropped.
///
/// # Errors
/// The store cannot be read.
pub async fn drive(shared: Arc<Shared>) -> Result<(), StoreError> {
    let mut tasks = JoinSet::new();
    let mut driven = HashSet::new();
    loop {
        for job in shared.stored(|at| at.store.running()).await? {
            if driven.insert(job) {
                let shared = Arc::clone(&shared);
                tasks.spawn(async move {
                    one(&shared, job).await;
                    job
                });
            }
        }
        // A job that ended is not driven again, and one whose end could not be stored is.
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(ended) = tasks.join_next() => {
                if let Ok(job) = ended {
                    driven.remove(&job);
                }
            }
        }
    }
}

/// Drives one job to its end.
async fn one(shared: &Arc<Shared>, id: JobId) {
    let cancel = shared.cancel_token(id);
    let ended = tokio::select! {
        // The job is marked as cancelled already.
        () = cancel.notified() => return shared.forget_cancel(id),
        ended = driven(shared, id) => ended,
    };
    let ended = Arc::new(ended);
    let store = || {
        let ended = Arc::clone(&ended);
        shared.stored(move |at| match &*ended {
            Ok(report) => at.store.end(id, JobState::Finished, None, Some(report)),
            Err((code, why)) => at.store.end(id, JobState::Failed, Some((code, why)), None),
        })
    };
    let mut pause = FIRST_PAUSE;
    while let Err(error) = store().await {
        tracing::error!(job = %id, %error, "a job's end could not be stored; trying again");
        longer(&mut pause).await;
    }
    tracing::info!(job = %id, finished = ended.is_ok(), "a job ended");
    shared.changed(id);
    shared.sessions.nudge();
    shared.forget_cancel(id);
}

/// Drives a job through moments at which the store is out of order.
async fn driven(shared: &Arc<Shared>, id: JobId) -> Result<Vec<u8>, (String, String)> {
    let mut pause = FIRST_PAUSE;
    loop {
        match rounds(shared, id).await {
            Ok(report) => return Ok(report),
            Err(Failed::Job(code, why)) => return Err((code, why)),
            Err(Failed::Store(error)) => {
                tracing::error!(job = %id, %error, "a job cannot go on; trying again");
                longer(&mut pause).await;
            }
        }
    }
}

/// The rounds of a job, to its report as JSON.
async fn rounds(shared: &Arc<Shared>, job: JobId) -> Result<Vec<u8>, Failed> {
    let mut pause = FIRST_PAUSE;
    let ready = loop {
        match ready(shared, job).await {
            Err(error) if error.is_ours() => later(&mut pause, &error).await,
            ready => break ready,
        }
    };
    let ready = Arc::new(ready.map_err(refused)?);
    let mut history: Vec<Vec<Released>> = Vec::new();
    let (mut share_left, mut entries) = (WHOLE_SHARE_PPB, 0);
    loop {
        let index = u32::try_from(history.len()).unwrap_or(u32::MAX);
        let round = match next(shared, &ready, &history, index).await? {
            Step::Report(report) => {
                return serde_json::to_vec(&report).map_err(|error| failed("report-malformed", error.to_string()));
            }
            Step::Round(round) => round,
        };
        let fits = round.fits(ready.variants, ready.plan.partitioning);
        fits.map_err(|error| failed(error.code(), error.to_string()))?;
        if index >= ready.plan.max_rounds {
            return Err(failed("round-beyond-plan", "the analysis asks for more rounds than its plan said"));
        }
        let share = share_left.checked_sub(round.share_ppb());
        entries = kept(entries, &round)?;
        share_left = share.ok_or_else(|| failed("round-over-job-budget", "the rounds' budget shares add up to more than 1"))?;
        history.push(collect(shared, &ready, index, round).await?);
    }
}

/// Entries of a job's releases that are held for its next round and its report, of all rounds together: 8 bytes each, twice while `next` runs.
const MAX_JOB_ENTRIES: u64 = 64_000_000;

/// How many there are with another round's: before any site is asked for it.
fn kept(entries: u64, round: &Round) -> Result<u64, Failed> {
    let own = round.statistics().iter().map(|statistic| u64::from(statistic.length)).fold(0, u64::saturating_add);
    let all = entries.saturating_add(own);
    if all <= MAX_JOB_ENTRIES {
        return Ok(all);
    }
    let why = format!("the releases of its rounds would have {all} entries, and a job may have {MAX_JOB_ENTRIES}");
    Err(failed("job-too-large", why))
}

/// The round that comes next: the stored one if it was begun, else what the analysis says.
async fn next(shared: &Arc<Shared>, ready: &Arc<Ready>, history: &[Vec<Released>], index: u32) -> Result<Step, Failed> {
    let job = ready.signed.manifest().job;
    if let Some(stored) = shared.stored(move |at| at.store.rounds(job)).await?.get(index as usize) {
        let request: RoundRequest =
            serde_json::from_slice(&stored.request).map_err(|error| failed("coordinator-database", error.to_string()))?;
        return Round::check(request).map(Step::Round).map_err(|error| failed(error.code(), error.to_string()));
    }
    let mut pause = FIRST_PAUSE;
    let step = loop {
        match stepped(shared, ready, history).await {
            Err(error) if error.is_ours() => later(&mut pause, &error).await,
            step => break step,
        }
    };
    step.map_err(refused)
}

fn refused(error: SubmitError) -> Failed {
    match error {
        SubmitError::Store(error) => Failed::Store(error),
        error => failed(error.code(), error.to_string()),
    }
}

async fn stepped(shared: &Arc<Shared>, ready: &Ready, history: &[Vec<Released>]) -> Result<Step, SubmitError> {
    let (manifest, signer) = (ready.signed.manifest().clone(), ready.signed.signer());
    let asked = (manifest.params.clone(), manifest.limits);
    let at = Arc::clone(shared);
    let plan = ready.plan.clone();
    // Made for each step anew: a shape is large, and most jobs wait for sites.
    let found = shared.desk(move |desk| Ok((at.person(&signer)?, desk.component(&manifest)?, desk.shape(&manifest, &plan)?)));
    let (who, component, shape) = found.await?;
    let known = (shape, history.to_vec());
    Ok(shared.analyses.next(&who, component, asked, known).await.map_err(IntakeError::from)?)
}

/// What is needed to drive a job: its terms, and the plan that its component said when it was submitted.
async fn ready(shared: &Arc<Shared>, job: JobId) -> Result<Ready, SubmitError> {
    let at = Arc::clone(shared);
    let found = shared.desk(move |desk| {
        let gone = || StoreError::Database(format!("job {job} is not there"));
        let envelope = at.store.job(job)?.ok_or_else(gone)?.envelope;
        let signed = Signed::verify(&envelope, desk.researchers).map_err(IntakeError::Manifest)?;
        Ok((signed, at.store.plan(job)?))
    });
    let (signed, plan) = found.await?;
    let plan = match plan {
        Some(plan) => plan,
        None => shared.plan(&signed).await?,
    };
    shared.desk(move |desk| Ok(desk.ready(signed, plan)?)).await
}

/// Waits before an analysis is asked again that the coordinator could not ask: longer each time.
async fn later(pause: &mut Duration, error: &SubmitError) {
    tracing::warn!(%error, "an analysis could not be asked; trying again");
    longer(pause).await;
}

/// Waits, and longer the next time.
async fn longer(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = pause.saturating_mul(2).min(Duration::from_secs(30));
}

/// Runs one round at the sites that are still in, and adds their releases up.
async fn collect(shared: &Arc<Shared>, ready: &Arc<Ready>, index: u32, round: Round) -> Result<Vec<Released>, Failed> {
    let manifest = ready.signed.manifest();
    let (job, min_sites) = (manifest.job, manifest.min_sites);
    let budget = ready.signed.budget().round(round.share_ppb());
    let calibrated =
        calibrate(&round, ready.plan.partitioning, budget).map_err(|error| failed(error.code(), error.to_string()))?;
    let request = serde_json::to_vec(round.request()).map_err(|error| failed("round-malformed", error.to_string()))?;
    let begin = shared.stored(move |at| {
        at.store.begin_round(job, index, &request)?;
        at.changed(job);
        Ok(at.store.rounds(job)?.len())
    });
    let begun = begin.await?;
    let ask = Arc::new(Ask { shared: Arc::clone(shared), ready: Arc::clone(ready), index, round, calibrated });
    // After a restart: what sites are known to do, they do in the last round that was begun. Those before it are complete.
    if begun <= (index as usize).saturating_add(1) {
        answers(&ask, min_sites).await?;
    }
    let mut releases = Vec::new();
    for (site, json) in shared.stored(move |at| at.store.releases(job, index)).await? {
        let release = Release::parse(&json, job, index, &site, &ask.round, &ask.calibrated);
        releases.push(release.map_err(|error| failed(error.code(), error.to_string()))?);
    }
    Ok(combine(&ask.round, &releases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_protocol::round::{Bound, Statistic};
    use vestibule_protocol::scores::Source;

    #[test]
    fn a_job_keeps_as_many_entries_as_it_may_and_no_more() {
        let source = Source::Given;
        let statistics = vec![Statistic { name: "s".into(), length: 4_000_000, bound: Bound::OneCell, weight: 1.0, source }];
        let round = Round::check(RoundRequest { statistics, budget_share: 0.01, state: vec![], dosages: false }).unwrap();
        let most = (0..16).try_fold(0, |entries, _| kept(entries, &round).ok()).unwrap();
        assert_eq!(most, MAX_JOB_ENTRIES);
        assert!(matches!(kept(most, &round), Err(Failed::Job(code, _)) if code == "job-too-large"));
    }
}
