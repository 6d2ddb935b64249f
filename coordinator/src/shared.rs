//! What a running coordinator shares between the API, the link and the jobs that it drives.
//!
//! *In*: submitted jobs. *Out*: stored ones. *Trusts*: the store. *Refuses*: what intake does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, Semaphore, broadcast};
use vestibule_protocol::dsse::DsseError;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::{ManifestError, Signed};
use vestibule_protocol::name::Name;
use vestibule_protocol::round::Plan;
use vestibule_protocol::token::Role;
use vestibule_protocol::trust::Trust;

use crate::analyses::{Analyses, CallError};
use crate::documents::Documents;
use crate::intake::{Desk, IntakeError};
use crate::link::Sessions;
use crate::offers::Offers;
use crate::round::SiteState;
use crate::store::{JobState, Store, StoreError};

/// Jobs whose documents are looked at on threads that may wait, at the same time.
const DESKS: usize = 4;
/// What jobs and links look for in the store and write there, on threads that may wait, at the same time.
const STEPS: usize = 64;

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
    pub(crate) wake: Notify,
    /// Places for offers at sites.
    pub(crate) offers: Offers,
    desks: Semaphore,
    steps: Arc<Semaphore>,
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
            offers: Offers::default(),
            desks: Semaphore::new(DESKS),
            steps: Arc::new(Semaphore::new(STEPS)),
        }
    }

    /// Takes a job that was submitted with a key, once its component has said its plan; nobody's component is asked before all else was checked.
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
        let id = job.id;
        if self.stored(move |at| at.store.submit(job)).await? {
            self.changed(id);
            self.wake.notify_one();
        }
        Ok(id)
    }

    /// The plan of a job's component.
    pub(crate) async fn plan(self: &Arc<Self>, signed: &Signed) -> Result<Plan, SubmitError> {
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
    pub(crate) fn person(&self, key: &PublicKey) -> Result<Name, SubmitError> {
        let known = self.researchers()?.into_iter().find(|(_, known)| known == key).map(|(name, _)| name);
        Ok(known.ok_or(ManifestError::Envelope(DsseError::Signature)).map_err(IntakeError::from)?)
    }

    /// What intake finds, on a thread that may wait.
    pub(crate) async fn desk<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Desk<'_>) -> Result<T, SubmitError> + Send + 'static,
    ) -> Result<T, SubmitError> {
        let at = Arc::clone(self);
        // Of a thousand jobs that begin at once a few are looked at.
        let _desk = self.desks.acquire().await.map_err(|_| CallError::Stopping).map_err(IntakeError::from)?;
        let looked = tokio::task::spawn_blocking(move || {
            let researchers: Vec<_> = at.researchers()?.into_iter().map(|(_, key)| key).collect();
            let sites = at.store.cards()?;
            look(&Desk { documents: &at.documents, researchers: &researchers, sites: &sites })
        });
        looked.await.map_err(|_| CallError::Stopping).map_err(IntakeError::from)?
    }

    /// What the store or the disk says or keeps, on a thread that may wait. What was begun is done, also where nobody waits for it any more.
    pub(crate) async fn stored<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopping = || StoreError::Database("the coordinator is stopping".to_owned());
        let place = Arc::clone(&self.steps).acquire_owned().await.map_err(|_| stopping())?;
        let at = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let done = step(&at);
            drop(place);
            done
        });
        done.await.map_err(|_| stopping())?
    }

    /// Cancels a running job. Blocks.
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

    /// The newest trust bundle: who has which log, and whose cosignatures count. It was believed when it was published. Blocks.
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

    pub(crate) fn cancel_token(&self, job: JobId) -> Arc<Notify> {
        Arc::clone(self.cancels.lock().unwrap_or_else(PoisonError::into_inner).entry(job).or_default())
    }

    /// The job's end is known: nobody will cancel it.
    pub(crate) fn forget_cancel(&self, job: JobId) {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }

    pub(crate) fn changed(&self, job: JobId) {
        // Nobody may be listening.
        let _ = self.changes.send(job);
    }

    pub(crate) async fn set_site(
        self: &Arc<Self>,
        job: JobId,
        site: &Name,
        state: SiteState,
        reason: Option<(&str, &str)>,
    ) -> Result<(), StoreError> {
        let (site, reason) = (site.clone(), reason.map(|(code, why)| (code.to_owned(), why.to_owned())));
        let set = self.stored(move |at| {
            at.store.set_site(job, &site, state, reason)?;
            at.changed(job);
            Ok(())
        });
        set.await
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
