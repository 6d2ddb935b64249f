//! Drives jobs from round to round until they end. One task for each job; all that matters is in the store, so a task that is
//! begun again after a restart goes on where the last one was.
//!
//! *In*: jobs from intake and from the store. *Out*: offers to sites, rounds, a report or a reason. *Trusts*: the store.
//! *Stops*: with its token, at any await; nothing is lost. *Refuses*: rounds beyond the plan, shares beyond the whole budget,
//! releases that do not answer what was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use vestibule_link::{Framed, LinkError};
use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse::DsseError;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::leaf::Event as Logged;
use vestibule_protocol::log::policy::NotProven;
use vestibule_protocol::manifest::{Manifest, ManifestError, Signed};
use vestibule_protocol::message::{Answer, CHUNK_BYTES, Chunk, Offer, Receipt};
use vestibule_protocol::name::Name;
use vestibule_protocol::release::{Release, Released, combine};
use vestibule_protocol::round::{Plan, Round, RoundRequest, WHOLE_SHARE_PPB};
use vestibule_protocol::token::Role;
use vestibule_protocol::trust::Trust;
use vestibule_sandbox::Step;

use crate::analyses::{Analyses, CallError};
use crate::documents::Documents;
use crate::intake::{Desk, IntakeError, Ready};
use crate::link::Sessions;
use crate::round::{Event, SiteState, Verdict, verdict};
use crate::run::now;
use crate::store::{Job, JobState, Store, StoreError};

/// Before an analysis is asked again that the coordinator could not ask.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Everything that a running coordinator shares.
#[derive(Debug)]
pub struct Shared {
    /// The database.
    pub store: Store,
    /// Components and documents.
    pub documents: Documents,
    /// Runs `plan` and `next`.
    pub analyses: Analyses,
    /// Sites that are connected.
    pub sessions: Sessions,
    /// Says which job changed.
    pub changes: broadcast::Sender<JobId>,
    trust: Mutex<Option<(i64, Arc<Trust>)>>,
    cancels: Mutex<HashMap<JobId, Arc<Notify>>>,
    wake: Notify,
}

/// Why a job ended without a report: a code and a sentence for its owner.
struct Failed(String, String);

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.code().to_owned(), error.to_string())
    }
}

fn failed(code: &str, why: impl Into<String>) -> Failed {
    Failed(code.to_owned(), why.into())
}

impl Shared {
    /// For a coordinator that starts.
    #[must_use]
    pub fn new(store: Store, documents: Documents, analyses: Analyses) -> Self {
        let (changes, _) = broadcast::channel(256);
        Self {
            store,
            documents,
            analyses,
            sessions: Sessions::default(),
            changes,
            trust: Mutex::default(),
            cancels: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Takes a submitted job, once its component has said its plan; nobody's component is asked before all else was checked.
    ///
    /// # Errors
    /// Intake's refusals; the store's.
    pub async fn submit(self: &Arc<Self>, envelope: Vec<u8>, by: PublicKey, now: i64) -> Result<JobId, SubmitError> {
        let look = |envelope: Vec<u8>| self.desk(move |desk| Ok((desk.terms(&envelope, by, now)?, envelope)));
        let (signed, envelope) = match look(envelope.clone()).await {
            // A site may have accepted it since it was greeted.
            Err(SubmitError::Intake(IntakeError::Charter)) => {
                crate::link::greet_again(self).await;
                look(envelope).await?
            }
            looked => looked?,
        };
        let plan = self.plan(&signed).await?;
        let submitted = self.desk(move |desk| Ok(desk.ready(signed, plan)?.kept(envelope, now)));
        let job = submitted.await?;
        let (id, at) = (job.id, Arc::clone(self));
        let stored = move || at.store.submit(job);
        if tokio::task::spawn_blocking(stored).await.map_err(|_| CallError::Stopping).map_err(IntakeError::from)?? {
            self.changed(id);
            self.wake.notify_one();
        }
        Ok(id)
    }

    /// The plan of a job's component.
    async fn plan(self: &Arc<Self>, signed: &Signed) -> Result<Plan, SubmitError> {
        let (manifest, signer) = (signed.manifest().clone(), signed.signer());
        let asked = (manifest.params.clone(), manifest.limits);
        let at = Arc::clone(self);
        let found = self.desk(move |desk| {
            let (who, digest) = (at.person(&signer)?, manifest.component.sha256);
            if !at.store.has_component(&who, digest)? {
                return Err(IntakeError::ComponentMissing(digest.to_string()).into());
            }
            Ok((who, desk.component(&manifest)?))
        });
        let (who, component) = found.await?;
        Ok(self.analyses.plan(&who, component, asked).await.map_err(IntakeError::from)?)
    }

    /// Whom a key is, for fair shares: a person has one, whatever their keys.
    fn person(&self, key: &PublicKey) -> Result<Name, SubmitError> {
        let known = self.researchers()?.into_iter().find(|(_, known)| known == key).map(|(name, _)| name);
        Ok(known.ok_or(ManifestError::Envelope(DsseError::Signature)).map_err(IntakeError::from)?)
    }

    /// What intake finds, on a thread that may wait.
    async fn desk<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Desk<'_>) -> Result<T, SubmitError> + Send + 'static,
    ) -> Result<T, SubmitError> {
        let at = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let researchers: Vec<_> = at.researchers()?.into_iter().map(|(_, key)| key).collect();
            let sites = at.store.cards()?;
            look(&Desk { documents: &at.documents, researchers: &researchers, sites: &sites })
        });
        looked.await.map_err(|_| CallError::Stopping).map_err(IntakeError::from)?
    }

    /// Cancels a running job.
    ///
    /// # Errors
    /// The store.
    pub fn cancel(&self, job: JobId) -> Result<bool, StoreError> {
        let ended = self.store.end(job, JobState::Cancelled, Some(("cancelled", "the researcher cancelled the job")), None)?;
        if ended {
            self.cancel_token(job).notify_waiters();
            self.changed(job);
            self.sessions.nudge();
        }
        Ok(ended)
    }

    /// The newest trust bundle: who has which log, and whose cosignatures count. It was believed when it was published.
    #[must_use]
    pub fn trust(&self) -> Option<Arc<Trust>> {
        let version = self.store.bundle_version().ok().flatten()?;
        let mut known = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, trust)) = known.as_ref().filter(|(of, _)| *of == version) {
            return Some(Arc::clone(trust));
        }
        let trust = Arc::new(Trust::stored(&self.store.bundle().ok().flatten()?).ok()?);
        *known = Some((version, Arc::clone(&trust)));
        Some(trust)
    }

    /// Who may submit jobs: those who joined, and those whom the trust bundle names, also by keys that took the place of others. What each may
    /// ask is for the sites to say.
    ///
    /// # Errors
    /// The store.
    pub fn researchers(&self) -> Result<Vec<(Name, PublicKey)>, StoreError> {
        let mut known = self.store.members(Role::Researcher)?;
        if let Some(trust) = self.trust() {
            known.retain(|(_, key)| !trust.is_revoked(key));
            known.extend(trust.keys(vestibule_protocol::trust::Role::Researcher));
            known.sort();
            known.dedup();
        }
        Ok(known)
    }

    /// Whether two keys are one person's.
    #[must_use]
    pub fn same_person(&self, one: &PublicKey, other: &PublicKey) -> bool {
        self.trust().map_or(one == other, |trust| trust.same_person(one, other))
    }

    fn cancel_token(&self, job: JobId) -> Arc<Notify> {
        Arc::clone(self.cancels.lock().unwrap_or_else(PoisonError::into_inner).entry(job).or_default())
    }

    fn changed(&self, job: JobId) {
        // Nobody may be listening.
        let _ = self.changes.send(job);
    }

    fn set_site(&self, job: JobId, site: &Name, state: SiteState, reason: Option<(&str, &str)>) -> Result<(), StoreError> {
        self.store.set_site(job, site, state, reason)?;
        self.changed(job);
        Ok(())
    }
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// Intake.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SubmitError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Intake(error) => error.code(),
            Self::Store(error) => error.code(),
        }
    }

    /// Whether the coordinator is at fault, and the same may do later.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Intake(IntakeError::Call(error)) if error.is_ours())
    }
}

/// Drives every unfinished job, those in the store and those that come, until dropped.
///
/// # Errors
/// The store cannot be read.
pub async fn drive(shared: Arc<Shared>) -> Result<(), StoreError> {
    let mut tasks = JoinSet::new();
    let mut known = std::collections::HashSet::new();
    loop {
        for id in shared.store.running()? {
            if known.insert(id)
                && let Some(job) = shared.store.job(id)?
            {
                tasks.spawn(one(Arc::clone(&shared), job));
            }
        }
        tokio::select! {
            () = shared.wake.notified() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Drives one job to its end.
async fn one(shared: Arc<Shared>, job: Job) {
    let (id, cancel) = (job.id, shared.cancel_token(job.id));
    tokio::select! {
        // The job is marked as cancelled already.
        () = cancel.notified() => return,
        () = to_its_end(&shared, job) => {}
    }
    shared.changed(id);
    shared.sessions.nudge();
    shared.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

/// As often as it takes: where the disk is full, a job goes on from what is stored once there is room.
async fn to_its_end(shared: &Arc<Shared>, job: Job) {
    let (id, mut pause) = (job.id, FIRST_PAUSE);
    loop {
        let ended = rounds(shared, job.clone()).await;
        let stored = match &ended {
            Err(Failed(code, _)) if *code == StoreError::Full.code() => Err(StoreError::Full),
            Ok(report) => shared.store.end(id, JobState::Finished, None, Some(report)),
            Err(Failed(code, why)) => shared.store.end(id, JobState::Failed, Some((code, why)), None),
        };
        match stored {
            Err(error) if error.is_passing() => {
                tracing::warn!(job = %id, %error, "a job waits for room on the disk");
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(Duration::from_secs(5));
            }
            Err(error) => {
                return tracing::error!(job = %id, %error, "a job's end could not be stored; it goes on after a restart");
            }
            Ok(_) => return tracing::info!(job = %id, finished = ended.is_ok(), "a job ended"),
        }
    }
}

/// The rounds of a job, to its report as JSON.
async fn rounds(shared: &Arc<Shared>, job: Job) -> Result<Vec<u8>, Failed> {
    let mut pause = FIRST_PAUSE;
    let ready = loop {
        match ready(shared, &job).await {
            Err(error) if error.is_ours() => later(&mut pause, &error).await,
            ready => break ready,
        }
    };
    let ready = Arc::new(ready.map_err(|error| Failed(error.code().to_owned(), error.to_string()))?);
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
        let fits = round.fits(ready.shape.variants.len(), ready.plan.partitioning);
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
    if let Some(stored) = shared.store.rounds(job)?.get(index as usize) {
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
    step.map_err(|error| failed(error.code(), error.to_string()))
}

async fn stepped(shared: &Arc<Shared>, ready: &Ready, history: &[Vec<Released>]) -> Result<Step, SubmitError> {
    let (manifest, signer) = (ready.signed.manifest().clone(), ready.signed.signer());
    let asked = (manifest.params.clone(), manifest.limits);
    let at = Arc::clone(shared);
    let found = shared.desk(move |desk| Ok((at.person(&signer)?, desk.component(&manifest)?)));
    let (who, component) = found.await?;
    let known = (Arc::clone(&ready.shape), history.to_vec());
    Ok(shared.analyses.next(&who, component, asked, known).await.map_err(IntakeError::from)?)
}

/// What is needed to drive a job: its terms, and the plan that its component said when it was submitted.
async fn ready(shared: &Arc<Shared>, job: &Job) -> Result<Ready, SubmitError> {
    let (at, id, envelope) = (Arc::clone(shared), job.id, job.envelope.clone());
    let found = shared.desk(move |desk| {
        let signed = Signed::verify(&envelope, desk.researchers).map_err(IntakeError::Manifest)?;
        Ok((signed, at.store.plan(id)?))
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
    let deadline = now().saturating_add(i64::from(manifest.round_deadline_seconds));
    shared.store.begin_round(job, index, &request, deadline)?;
    shared.changed(job);
    let stored = shared.store.rounds(job)?;
    let deadline = stored.get(index as usize).map_or(deadline, |stored| stored.deadline);
    let ask = Arc::new(Ask { shared: Arc::clone(shared), ready: Arc::clone(ready), index, round, calibrated, deadline });
    // After a restart: what sites are known to do, they do in the last round that was begun. Those before it are complete.
    if stored.len() <= (index as usize).saturating_add(1) {
        answers(&ask, min_sites).await?;
    }
    let mut releases = Vec::new();
    for (site, json) in shared.store.releases(job, index)? {
        let release = Release::parse(&json, job, index, &site, &ask.round, &ask.calibrated);
        releases.push(release.map_err(|error| failed(error.code(), error.to_string()))?);
    }
    Ok(combine(&ask.round, &releases))
}

/// Asks all sites that are still in, until those have answered that the round needs.
async fn answers(ask: &Arc<Ask>, min_sites: u32) -> Result<(), Failed> {
    let (shared, job) = (&ask.shared, ask.manifest().job);
    let untouched = shared.store.job_sites(job)?.iter().all(|site| site.state == SiteState::Waiting);
    if ask.index == 0 && untouched {
        ask.enough_connected().await?;
    }
    let mut asked = JoinSet::new();
    for site in shared.store.job_sites(job)?.into_iter().filter(|site| !site.state.is_done()) {
        let ask = Arc::clone(ask);
        asked.spawn(async move { ask.site(&site.site).await });
    }
    loop {
        let states: Vec<SiteState> = shared.store.job_sites(job)?.iter().map(|site| site.state).collect();
        match verdict(&states, min_sites) {
            Verdict::Complete => return Ok(()),
            Verdict::TooFew => {
                let possible = states.iter().filter(|state| !state.is_out()).count();
                return Err(failed(
                    "too-few-sites",
                    format!("{possible} sites can still answer, and the job needs {min_sites}"),
                ));
            }
            Verdict::Wait => match asked.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(_)) | None => return Err(failed("coordinator-fault", "a task of the coordinator failed")),
            },
        }
    }
}

/// One round, as it is asked of every site.
struct Ask {
    shared: Arc<Shared>,
    ready: Arc<Ready>,
    index: u32,
    round: Round,
    calibrated: Vec<Calibrated>,
    /// Seconds since 1970.
    deadline: i64,
}

impl Ask {
    fn manifest(&self) -> &Manifest {
        self.ready.signed.manifest()
    }

    fn left(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.deadline.saturating_sub(now())).unwrap_or(0))
    }

    /// Waits until as many of the named sites as the job needs are connected: with fewer, none is asked and none is charged.
    async fn enough_connected(&self) -> Result<(), Failed> {
        let (sites, needed) = (&self.manifest().sites, self.manifest().min_sites as usize);
        let enough = self
            .shared
            .sessions
            .wait_for(|connected| sites.iter().filter(|site| connected.contains_key(*site)).count() >= needed);
        let waited = tokio::time::timeout(self.left(), enough).await;
        waited.map_err(|_| {
            failed(
                "too-few-sites",
                format!("fewer than {needed} of the named sites were connected before the deadline: nothing was charged"),
            )
        })
    }

    /// Asks one site until it has answered or its time is over.
    async fn site(&self, site: &Name) -> Result<(), Failed> {
        let job = self.manifest().job;
        match tokio::time::timeout(self.left(), self.answered(site)).await {
            Ok(done) => done,
            Err(_) => {
                let held = self.shared.store.job_sites(job)?.iter().any(|of| of.site == *site && of.state == SiteState::Held);
                let reason = match held {
                    true => (
                        "late-held",
                        "nobody at the site had decided about it before the round's deadline: once they have, submit it again with a later one",
                    ),
                    false => (
                        "late",
                        "it did not answer before the round's deadline: submit the same again with a later one \
                         (`round_deadline_seconds`); what it charged for is answered at no further cost",
                    ),
                };
                Ok(self.shared.set_site(job, site, SiteState::Waiting.after(Event::Deadline), Some(reason))?)
            }
        }
    }

    async fn answered(&self, site: &Name) -> Result<(), Failed> {
        let job = self.manifest().job;
        let mut pause = Duration::from_millis(100);
        loop {
            let connection = self.shared.sessions.connection(site).await;
            match self.offer(site, &connection).await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::info!(%job, %site, %error, "the link broke during a round; the site will be asked again");
                    self.shared.set_site(job, site, SiteState::Waiting, None)?;
                    // A site that is there but closes every stream is not asked in a tight loop.
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// Whether a site's answer is in its log, and that log witnessed. Nothing else is passed on to researchers.
    fn proven(&self, site: &Name, release: Option<&[u8]>, receipt: &Receipt) -> Result<(), NotProven> {
        let trust = self.shared.trust().ok_or(NotProven::Log)?;
        let settled =
            Logged::Settled { job: self.manifest().job, round: self.index, release: Digest::of(release.unwrap_or_default()) };
        trust.proven(site, &settled, &receipt.leaf, &receipt.proof)
    }

    /// Sends the offer over one connection and waits for the last answer. The inner error is the link's.
    async fn offer(&self, site: &Name, connection: &quinn::Connection) -> Result<Result<(), LinkError>, Failed> {
        macro_rules! link {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(error) => return Ok(Err(error)),
                }
            };
        }
        let job = self.manifest().job;
        let envelope = self.shared.store.job(job)?.map(|job| job.envelope).unwrap_or_default();
        let offer = Offer { manifest: envelope, round: self.index, request: self.round.request().clone() };
        link!(crate::link::tell(&self.shared, connection).await);
        let mut stream = link!(Framed::open(connection).await);
        link!(stream.send(&offer).await);
        self.shared.set_site(job, site, SiteState::Waiting.after(Event::Offer), None)?;
        loop {
            match link!(stream.receive::<Answer>().await) {
                Answer::Need { from } => {
                    let bytes = self.shared.documents.get(self.manifest().component.sha256).unwrap_or_default();
                    let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
                    for piece in rest.chunks(CHUNK_BYTES) {
                        link!(stream.send(&Chunk { bytes: piece.to_vec() }).await);
                    }
                }
                Answer::Accepted => self.shared.set_site(job, site, SiteState::Offered.after(Event::Accept), None)?,
                Answer::Held { why } => {
                    let reason = ("held", why.as_str());
                    self.shared.set_site(job, site, SiteState::Offered.after(Event::Hold), Some(reason))?;
                }
                Answer::Refused { code, why } => {
                    self.shared.set_site(job, site, SiteState::Offered.after(Event::Refuse), Some((&code, &why)))?;
                    return Ok(Ok(()));
                }
                Answer::Settled { padded, receipt } => {
                    if let Err(error) = self.proven(site, Answer::release(&padded), &receipt) {
                        let why = format!("its answer is not proven by its log: {error}");
                        self.shared.set_site(job, site, SiteState::NoRelease, Some((error.code(), &why)))?;
                        return Ok(Ok(()));
                    }
                    let Some(json) = Answer::release(&padded) else {
                        let reason =
                            ("no-release", "the site released nothing; its budget is spent and its operator can see why");
                        self.shared.set_site(job, site, SiteState::Accepted.after(Event::Nothing), Some(reason))?;
                        return Ok(Ok(()));
                    };
                    match Release::parse(json, job, self.index, site, &self.round, &self.calibrated) {
                        Ok(_) => {
                            self.shared.store.release(job, self.index, site, json, &receipt)?;
                            self.shared.changed(job);
                        }
                        Err(error) => {
                            let why = error.to_string();
                            self.shared.set_site(job, site, SiteState::NoRelease, Some((error.code(), &why)))?;
                        }
                    }
                    return Ok(Ok(()));
                }
            }
        }
    }
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
        assert_eq!(kept(most, &round).err().map(|failed| failed.0), Some("job-too-large".to_owned()));
    }
}
