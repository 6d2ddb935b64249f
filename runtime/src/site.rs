//! One offer from the link to the release: the steps in their order. And the daemon that hears offers.
//!
//! *In*: an [`Offer`]. *Out*: its last [`Answer`]. *Trusts*: the steps. *Refuses*: what they refuse, before data is touched, with
//! a code and a sentence made of public terms; after that, there is a release or there is none, in an answer of the same length and
//! at a moment that was drawn, whatever happened.

mod explain;
mod judging;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{JobId, Limits};
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::log::note::Verifier;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::message::{Answer, Offer};
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::trust::{Role, Trust};
use vestibule_sandbox::CodeCache;
use vestibule_worker::{Launch, WorkerError};

use crate::admission::{self, Verified};
use crate::cohort::Floor;
use crate::component::{CodeFolder, ComponentError, Components};
use crate::dataset::DatasetInfo;
use crate::dataset::{Dataset, DatasetError, Selection};
use crate::delay::{self, Delay, Load};
use crate::executor::{self, Ask, Executor, ExecutorError, Work};
use crate::guests::{Guests, GuestsError, Prepared};
use crate::home::{Coordinator, Home, HomeError};
use crate::ledger::{Admission, Charged, Departed, Ledger, LedgerError, Purse, Recovered, Settled};
use crate::partitions::Partitions;
use crate::policy::rules::Rules;
use crate::policy::{self, Admitted};
use crate::round::RoundFailure;
use crate::witness::Witness;
use crate::{airlock, dataset, link, noise, release, round};
pub use explain::{Explained, Unexplained, explain};
pub(crate) use judging::Held;
use judging::Judged;

/// A site that is running.
#[derive(Debug)]
pub struct Site {
    pub(crate) home: Home,
    pub(crate) name: Name,
    pub(crate) ledger: Ledger,
    pub(crate) witness: Witness,
    /// Held by whoever has the log witnessed.
    pub(crate) witnessing: tokio::sync::Mutex<()>,
    /// That the witnesses have agreed to the log since this daemon started.
    pub(crate) shown: tokio::sync::OnceCell<()>,
    consortium: Digest,
    trust: RwLock<Option<Arc<Trust>>>,
    frozen: AtomicBool,
    guests: Guests,
    components: Components,
    threads: usize,
    executor: Box<dyn Executor>,
    running: Arc<Semaphore>,
    /// The rules that hold, and which the log said they are.
    rules: Mutex<Option<(Option<Digest>, Arc<Rules>)>>,
    turns: Mutex<HashMap<(JobId, u32), Turn>>,
}

const FROZEN: &str = "FROZEN: a witness has seen more of this site's log than there is, or other leaves. The site was restored from a copy, or runs \
                      twice. No job is considered; frozen.note holds what the witness showed. See docs/OPERATING.md, \"A frozen site\"";

/// Held by whoever runs a round.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// The daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The kernel, and the site's own settings.
    #[error("`require_walls` is set, and this kernel leaves gaps: {0}")]
    Walls(String),
    /// Where rounds run.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The noise.
    #[error(transparent)]
    Noise(#[from] noise::NoiseError),
    /// The link.
    #[error(transparent)]
    Link(#[from] vestibule_link::LinkError),
}

impl SiteError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Home(error) => error.code(),
            Self::Worker(error) => error.code(),
            Self::Walls(_) => "walls-missing",
            Self::Executor(error) => error.code(),
            Self::Noise(error) => error.code(),
            Self::Link(error) => error.code(),
        }
    }
}

/// Runs the daemon until `stop`: dials the coordinator, answers offers, dials again when the link breaks.
///
/// # Errors
/// The folder is in use or damaged, the noise sampler fails its self-test, or the engine cannot be set up.
pub async fn run(mut home: Home, stop: CancellationToken) -> Result<(), SiteError> {
    let _lock = home.lock()?;
    let coordinator = home.coordinator()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for what in home.adopt(&coordinator.site, since)? {
        tracing::info!(what = what.name(), "a new key is used from now on");
    }
    noise::self_test()?;
    let site = Arc::new(Site::new(home, &coordinator, stop.clone())?);
    link::serve(site, coordinator, stop).await.map_err(SiteError::Link)
}

/// An offer that was refused before any data was touched.
struct Refused {
    code: &'static str,
    why: String,
}

impl<E: std::fmt::Display> From<(&'static str, E)> for Refused {
    fn from((code, why): (&'static str, E)) -> Self {
        Self { code, why: why.to_string() }
    }
}

/// An offer that was admitted and charged, and everything that is needed to run it.
pub(crate) struct Ready {
    charged: Box<Charged>,
    judged: Judged,
    dataset: Dataset,
    selection: Selection,
    partitions: Partitions,
    guests: Prepared,
    calibrated: Vec<Calibrated>,
    floor: Option<Floor>,
    load: Load,
    delay: Delay,
}

/// Why a round that was charged has released nothing.
enum Nothing {
    /// With this code and evidence, for the site's own log.
    Failed(&'static str, Option<serde_json::Value>),
    /// It is to run again: nothing is stored.
    Interrupted,
}

impl Nothing {
    const fn failed(code: &'static str) -> Self {
        Self::Failed(code, None)
    }
}

/// What becomes of an offer once its component is here.
pub(crate) enum Outcome {
    /// It is to be run now; the coordinator may be told that it was accepted.
    Run(Box<Ready>),
    /// A person looks at it first. Nothing is charged.
    Held(Held),
    /// It was refused.
    Refused(Answer),
    /// What became of it was settled before.
    Settled(Settled),
}

impl Site {
    pub(crate) fn new(home: Home, coordinator: &Coordinator, stop: CancellationToken) -> Result<Self, SiteError> {
        let settings = home.settings();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if settings.threads == 0 { cores } else { settings.threads };
        let cache = CodeCache::new(Box::new(CodeFolder(home.folder("code")?)), &home.code_key());
        let rounds = settings.max_running_rounds.max(1);
        let guests = Guests::new(Launch::this_program(settings.max_memory_mib), cache);
        let gaps = guests.gaps()?;
        for gap in &gaps {
            tracing::warn!(gap, "the wall around guests is not whole");
        }
        if settings.require_walls && !gaps.is_empty() {
            return Err(SiteError::Walls(gaps.join("; ")));
        }
        if settings.slowest.below_usual() {
            tracing::warn!(
                "`[slowest]` is below the usual costs: unless this machine was measured, releases may leave too soon"
            );
        }
        let executor = executor::of(home.executor(), threads, stop)?;
        let components = Components::new(home.folder("blobs")?);
        started(&home)?;
        let (ledger, running) = (home.ledger()?, Arc::new(Semaphore::new(rounds)));
        let (name, consortium) = (coordinator.site.clone(), coordinator.consortium);
        let (witness, witnessing) = (home.witness()?, tokio::sync::Mutex::default());
        let trust = RwLock::new(home.trust()?.map(Arc::new));
        let frozen = AtomicBool::new(home.frozen()?.is_some());
        if frozen.load(Ordering::Relaxed) {
            tracing::error!("{FROZEN}");
        }
        let turns = Mutex::default();
        Ok(Self {
            home,
            name,
            ledger,
            witness,
            witnessing,
            shown: tokio::sync::OnceCell::new(),
            consortium,
            trust,
            frozen,
            guests,
            components,
            threads,
            executor,
            running,
            rules: Mutex::default(),
            turns,
        })
    }

    /// The trust bundle that is believed.
    pub(crate) fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Believes a trust bundle that was delivered, if there is reason to; keeps and logs it.
    pub(crate) fn believe(&self, envelope: &[u8], clock: Duration) -> Result<(), SiteError> {
        let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
        let new = match trust.as_ref() {
            Some(known) => known.next(envelope),
            None => Trust::first(envelope, self.consortium),
        };
        let new = match new {
            Ok(new) => new.without(self.home.settings().distrust.clone()),
            Err(error) => {
                tracing::error!(%error, "a trust bundle is not believed");
                self.ledger.rejected(error.code(), clock).map_err(HomeError::from)?;
                return Ok(());
            }
        };
        if trust.as_ref().is_some_and(|known| known.digest() == new.digest()) {
            return Ok(());
        }
        self.home.set_trust(envelope)?;
        let event = Event::Trust { version: new.bundle().version, bundle: new.digest() };
        self.ledger.record(event, None, clock).map_err(HomeError::from)?;
        tracing::info!(version = new.bundle().version, expires = new.bundle().expires, "a new trust bundle is believed");
        for what in self.home.named(&new, &self.name) {
            tracing::info!(what = what.name(), "the bundle names the site's next key: it is used from the next start on");
        }
        *trust = Some(Arc::new(new));
        Ok(())
    }

    /// How this site's log is verified.
    pub(crate) fn log_verifier(&self) -> Result<Verifier, LedgerError> {
        let (checkpoint, _) = self.ledger.checkpoint(self.home.log_key())?;
        Ok(crate::log::verifier(&checkpoint.origin, self.home.log_key().public()))
    }

    /// Whether the site considers no offers, since its log is not what its witnesses know.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// A witness showed a checkpoint of this log that this log does not have.
    pub(crate) fn freeze(&self, witness: &Name, shown: &str) {
        self.frozen.store(true, Ordering::Relaxed);
        tracing::error!(%witness, shown, "{FROZEN}");
        if let Err(error) = self.home.freeze(shown) {
            tracing::error!(%error, "that the site is frozen could not be written down");
        }
    }

    /// Steps 5 and 6, at `clock` (1970). `Err(_)` is the answer to an offer that is refused.
    pub(crate) fn admit(&self, offer: Offer, clock: Duration) -> Result<Admitted, Answer> {
        let since = self.ledger.time(clock).map_err(|error| refusal(own("ledger", &error)))?;
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let verified = self.verify(offer, now).map_err(|refused| {
            let logged = self.ledger.rejected(refused.code, since);
            logged.map_or_else(|error| refusal(own("ledger", &error)), |()| refusal(refused))
        })?;
        self.decide(verified.clone()).map_err(|refused| self.refuse(&verified, refused, since))
    }

    /// Logs a refusal; what could not be logged is refused all the same.
    fn refuse(&self, verified: &Verified, refused: Refused, since: Duration) -> Answer {
        match self.ledger.refused(verified, refused.code, &refused.why, since) {
            Ok(()) => refusal(refused),
            Err(error) => refusal(own("ledger", &error)),
        }
    }

    /// The trust bundle, if jobs may be begun on its word at `now` and it knows this site with the keys and the log that it has.
    fn member(&self, now: i64) -> Result<Arc<Trust>, Refused> {
        if self.is_frozen() {
            return Err(("site-frozen", "the site's log is not what its witnesses know: its operator can see why").into());
        }
        let trust = self.trust().ok_or(("trust-missing", "the site has no trust bundle of its consortium yet"))?;
        if !trust.is_current(now) {
            return Err(("trust-expired", "the consortium's trust bundle has expired: its roots must sign a new one").into());
        }
        let link = self.home.link_key().public();
        let log = self.log_verifier().map_err(|error| own("ledger", &error))?;
        if !(trust.links(&self.name).contains(&link) && trust.logs(&self.name).contains(&log)) {
            let why = "the consortium's trust bundle does not name this site, with the keys and the log that it has";
            return Err(("site-not-member", why).into());
        }
        Ok(trust)
    }

    /// Erases what the site's settings say is not kept for so long: details of the log, releases' bytes, components.
    pub(crate) fn retire(&self, clock: Duration) {
        let settings = self.home.settings();
        let before = |days: u32| clock.saturating_sub(Duration::from_secs(u64::from(days).saturating_mul(86_400)));
        match self.ledger.erase(before(settings.keep_details_days), clock) {
            Ok(0) => {}
            Ok(details) => tracing::info!(details, "old details of the log were erased"),
            Err(error) => tracing::error!(%error, "old details of the log could not be erased"),
        }
        let unused = before(settings.keep_components_days);
        let code = self.home.folder("code").map_err(|error| error.to_string());
        let code = code.and_then(|code| CodeFolder(code).retire(unused).map_err(|error| error.to_string()));
        let components = self.components.retire(unused).map_err(|error| error.to_string());
        let components =
            components.and_then(|components| code.map(|code| components.saturating_add(code))).unwrap_or_else(|error| {
                tracing::error!(%error, "old components could not be removed");
                0
            });
        match self.ledger.retire(before(settings.keep_releases_days), components, clock) {
            Ok(0) => {}
            Ok(releases) => tracing::info!(releases, "old releases are no longer kept"),
            Err(error) => tracing::error!(%error, "old releases could not be removed"),
        }
    }

    /// Whether the site could consider an offer at all.
    pub(crate) fn is_member(&self, clock: Duration) -> bool {
        self.member(i64::try_from(clock.as_secs()).unwrap_or(i64::MAX)).is_ok()
    }

    fn verify(&self, offer: Offer, now: i64) -> Result<Verified, Refused> {
        let trust = self.member(now)?;
        // The consortium says who a researcher is; whose jobs are considered, this site alone.
        let researchers = trust.keys(Role::Researcher);
        let mut charters = self.home.charters().map_err(|error| own("charters", &error))?;
        charters.retain(|charter| trust.person(&charter.signed().charter().lead, Role::Researcher).is_some());
        let verified = admission::verify(offer, &researchers, &charters, &self.name, now);
        let verified = verified.map_err(|error| Refused::from((error.code(), error)))?;
        if trust.is_revoked_component(&verified.signed().manifest().component.sha256) {
            return Err(("component-revoked", "the consortium has revoked the component, or this site does not run it").into());
        }
        Ok(verified)
    }

    fn decide(&self, verified: Verified) -> Result<Admitted, Refused> {
        let data = self.home.data().map_err(|error| own("data", &error))?;
        let info = Dataset::info_of(&data, &verified.signed().manifest().dataset).map_err(|error| own("dataset", &error))?;
        policy::decide(verified, self.home.settings(), info.as_ref()).map_err(|error| Refused::from((error.code(), error)))
    }

    /// Where the component of admitted terms is, or is to go.
    pub(crate) const fn components(&self) -> &Components {
        &self.components
    }

    /// Steps 7 and 8, once the component is here. Blocks.
    pub(crate) fn charge(&self, admitted: Admitted, component: &[u8], clock: Duration) -> Outcome {
        let verified = admitted.verified().clone();
        let since = match self.ledger.time(clock) {
            Ok(since) => since,
            Err(error) => return Outcome::Refused(refusal(own("ledger", &error))),
        };
        match self.prepare(admitted, component, since) {
            Ok(outcome) => outcome,
            Err(refused) => Outcome::Refused(self.refuse(&verified, refused, since)),
        }
    }

    /// The component could not be had: also that is refused in the log.
    pub(crate) fn without_component(&self, admitted: &Admitted, error: &ComponentError, clock: Duration) -> Answer {
        self.refuse(admitted.verified(), (error.code(), error).into(), clock)
    }

    /// Logs that an answer leaves, now that its moment has come. Nothing leaves that cannot be logged.
    pub(crate) fn depart(&self, job: JobId, round: u32, clock: Duration) -> Result<Departed, LedgerError> {
        self.ledger.depart(job, round, clock)
    }

    fn prepare(&self, admitted: Admitted, component: &[u8], since: Duration) -> Result<Outcome, Refused> {
        let manifest = admitted.verified().signed().manifest().clone();
        let round = admitted.verified().round().clone();
        let guest = |error: GuestsError| Refused::from((error.code(), error));
        let mut loaded = self.guests.load(component).map_err(guest)?;
        let plan = loaded.plan(&manifest.params, admitted.limits()).map_err(guest)?;
        if admitted.verified().index() >= plan.max_rounds {
            return Err(("round-beyond-plan", "the analysis' own plan has fewer rounds").into());
        }
        admitted.verified().charter().reads(&plan.columns).map_err(|error| Refused::from((error.code(), error)))?;
        let named = |name: &str| manifest.catalogues.iter().any(|catalogue| catalogue.name.as_str() == name);
        if let Some(slice) = plan.variants.iter().find(|slice| !named(&slice.catalogue)) {
            let why = format!("the plan reads catalogue `{}`, which the manifest does not name", slice.catalogue);
            return Err(("catalogue-not-named", why).into());
        }
        let data = self.home.data().map_err(|error| own("data", &error))?;
        let key = self.home.store_key();
        let dataset = Dataset::open(&data, &manifest.dataset, &key).map_err(|error| own("dataset", &error))?;
        let selection = dataset.select(&plan.columns, &plan.variants).map_err(|error| Refused::from((error.code(), error)))?;
        round.fits(selection.variants(), plan.partitioning).map_err(|error| Refused::from((error.code(), error)))?;
        let read = (&plan, selection.variants());
        let (judged, held) = self.judge(admitted.verified(), read, dataset.info(), since)?;
        if let Some(held) = held {
            return Ok(Outcome::Held(held));
        }
        let selection = selection.of(&round);
        let signed = admitted.verified().signed();
        let partitions = Partitions::of(plan.partitioning, dataset.info().approximate_size);
        let calibrated = calibrate(&round, plan.partitioning, signed.budget().round(round.share_ppb()))
            .map_err(|error| Refused::from((error.code(), error)))?;
        let guests = loaded.prepare(&round, admitted.limits(), &selection, partitions).map_err(guest)?;
        let inputs = selection.values().saturating_add(selection.dosages());
        let load = Load::new(admitted.limits(), inputs, partitions);
        let budget = signed.budget().round(round.share_ppb());
        let floor = Floor::of(dataset.info().conditions.min_cohort, plan.partitioning, budget.time());
        let (floor, moment) = floor.map_err(|error| Refused::from((error.code(), error)))?;
        let delay = Delay::of(&round, moment, load, self.home.settings().slowest);
        let latest = self.executor.latest(&delay);
        if latest > Duration::from_secs(manifest.round_deadline_seconds.into()) {
            return Err(("release-too-late", late(latest, &manifest)).into());
        }
        let costs = self.home.settings().slowest;
        let ask = Ask { rows: &dataset, selection: &selection, partitions, calibrated: &calibrated, load, costs, delay };
        self.executor.check(&ask).map_err(|error| match error {
            ExecutorError::TooLong { .. } => (error.code(), error).into(),
            error => own("executor", &error),
        })?;
        let purse = purse(&self.home, dataset.info(), dataset.version()).map_err(|error| own("dataset", &error))?;
        let ledger = |error: LedgerError| match error {
            LedgerError::Database { .. } => own("ledger", &error),
            // What is left of a budget is for the site to tell, not for every refusal.
            LedgerError::OverBudget { .. } => {
                ("budget-exhausted", "the dataset's privacy budget does not hold this job").into()
            }
            error @ LedgerError::OtherPopulation { .. } => own("ledger", &error),
            error => (error.code(), error).into(),
        };
        // What does not come costs nothing.
        round::fetch(&dataset, &selection, partitions).map_err(|error| own("dataset", &error))?;
        let admitted = admitted.reading(&plan.columns).holding(self.again(&judged, dataset.info(), &calibrated));
        match self.ledger.charge(admitted, &purse, since).map_err(ledger)? {
            Admission::Run(charged) => Ok(Outcome::Run(Box::new(Ready {
                charged,
                judged,
                dataset,
                selection,
                partitions,
                guests,
                calibrated,
                floor,
                load,
                delay,
            }))),
            Admission::Settled(settled) => Ok(Outcome::Settled(settled)),
        }
    }

    /// Steps 9 to 13. Blocks. From here on data is touched: whatever happens, there is a release or there is none, and a moment before
    /// which nobody may learn which. `since` reads the time since 1970.
    pub(crate) fn release(&self, ready: Ready, since: impl Fn() -> Duration) -> Settled {
        let job = ready.charged.admitted().verified().signed().manifest().job;
        let Ready { charged, judged, dataset, selection, partitions, guests, calibrated, floor, load, delay } = ready;
        // Before any data: that this fails says nothing. On a cluster every task has waited already.
        let drawn = if self.executor.hides_moments() { Ok(Duration::ZERO) } else { delay.draw() };
        let costs = self.home.settings().slowest;
        let ask = Ask { rows: &dataset, selection: &selection, partitions, calibrated: &calibrated, load, costs, delay };
        let outcome = match &drawn {
            Ok(_) => self.noised(&charged, Work { ask, guests }, (floor, judged.variants)),
            Err(error) => Err(Nothing::failed(error.code())),
        };
        let ended = since();
        let leaves = ended.saturating_add(drawn.unwrap_or_default());
        let leaves = leaves.saturating_add(delay::until_tick(leaves, self.home.settings().release_tick_seconds));
        let leaves_ms = i64::try_from(leaves.as_millis()).unwrap_or(i64::MAX);
        let stored = match &outcome {
            Ok(cleared) => {
                let hold = self.outgoing(&judged, dataset.info(), cleared);
                release::store(&self.ledger, &charged, &calibrated, (cleared, hold), leaves_ms)
            }
            Err(Nothing::Failed(code, evidence)) => {
                tracing::warn!(%job, code, "a round released nothing");
                release::store_nothing(&self.ledger, &charged, (*code, evidence.as_ref()), leaves_ms)
            }
            Err(Nothing::Interrupted) => {
                tracing::info!(%job, "a round was taken back from the cluster; it runs again, under the same charge, at the next start");
                return Settled { release: None, leaves_ms, hold: None };
            }
        };
        // Not on disk: the bytes must not leave, and after a failed sync nothing more may be written.
        stored.unwrap_or(Settled { release: None, leaves_ms, hold: None })
    }

    fn noised(
        &self,
        charged: &Charged,
        work: Work<'_>,
        (floor, variants): (Option<Floor>, usize),
    ) -> Result<airlock::Cleared, Nothing> {
        let (kind, calibrated) = (work.ask.partitions.kind(), work.ask.calibrated);
        let drawn = noise::draw(calibrated, self.threads).and_then(|drawn| drawn.counting(floor.as_ref()));
        let drawn = drawn.map_err(|error| Nothing::failed(error.code()))?;
        let sums = self.executor.run(work).map_err(|failure| match failure {
            RoundFailure::Interrupted => Nothing::Interrupted,
            failure => Nothing::failed(failure.code()),
        })?;
        let noised = drawn.hide(sums).map_err(|error| Nothing::failed(error.code()))?;
        let cleared = airlock::inspect(charged, (kind, floor, variants), calibrated, noised);
        cleared.map_err(|error| Nothing::Failed(error.code(), error.evidence()))
    }

    /// A place among the rounds that run.
    pub(crate) fn running(&self) -> Arc<Semaphore> {
        Arc::clone(&self.running)
    }

    /// One at a time runs a round, however often it is asked for.
    pub(crate) fn turn(&self, job: JobId, round: u32) -> Turn {
        Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry((job, round)).or_default())
    }

    /// The job has ended. A round that is running runs to its end, also where the job was cancelled: whether it was stopped in time would
    /// tell how long it took.
    pub(crate) fn end(&self, job: JobId, clock: Duration) -> Result<(), LedgerError> {
        self.ledger.end(job, clock)?;
        // Whoever asks for a round that is running must wait for it still.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|(of, _), turn| *of != job || Arc::strong_count(turn) > 1);
        Ok(())
    }
}

/// What a dataset's jobs are paid from. Of several datasets about the same people, the smallest caps hold.
fn purse(home: &Home, own: &DatasetInfo, version: &str) -> Result<Purse, DatasetError> {
    let data = home.data().map_err(|error| DatasetError::Io(std::io::Error::other(error)))?;
    let mut purse = Purse {
        population: own.population.clone(),
        cap: own.budget.rho(),
        delta: own.budget.delta,
        moments_femto: own.budget.moments_femto(),
        researcher_cap: own.budget.researcher_rho(),
        version: version.to_owned(),
    };
    for name in dataset::list(&data)? {
        let Some(info) = Dataset::info_of(&data, &name)?.filter(|info| info.population == own.population) else { continue };
        purse.cap = purse.cap.min(info.budget.rho());
        purse.delta = purse.delta.min(info.budget.delta);
        purse.moments_femto = purse.moments_femto.min(info.budget.moments_femto());
        purse.researcher_cap = purse.researcher_cap.into_iter().chain(info.budget.researcher_rho()).min();
    }
    Ok(purse)
}

/// Lets a frozen site go on: books what the lost leaves can have spent, and gives its log a new name, which the consortium must accept.
///
/// # Errors
/// The site is not frozen, or its folder cannot be read or written.
pub fn recover(home: &Home, since: Duration) -> Result<Recovered, SiteError> {
    let _lock = home.lock()?;
    let settings = |why: &str| HomeError::Settings { path: home.path().to_owned(), why: why.to_owned() };
    let shown = home.frozen()?.ok_or_else(|| settings("the site is not frozen: there is nothing to recover"))?;
    let text = shown.split("\n\n").next().map(|text| format!("{text}\n")).unwrap_or_default();
    let shown = Checkpoint::parse(&text).ok_or_else(|| settings("frozen.note is not a checkpoint"))?;
    let data = home.data()?;
    let mut purses = Vec::new();
    let unreadable = |error: DatasetError| settings(&error.to_string());
    for name in dataset::list(&data).map_err(unreadable)? {
        if let Some(info) = Dataset::info_of(&data, &name).map_err(unreadable)? {
            purses.push((name, purse(home, &info, "").map_err(unreadable)?));
        }
    }
    let most = Rho::budget(home.settings().max_epsilon_per_job, home.settings().max_delta_per_job);
    let pure = Rho::of_pure(home.settings().max_epsilon_per_job);
    let ledger = home.ledger()?;
    let common = ledger.common().map_err(HomeError::from)?;
    let recovered = ledger.recover(&shown, common, &purses, most.max(pure), since).map_err(HomeError::from)?;
    home.thaw()?;
    Ok(recovered)
}

/// Logs the start of the daemon: which program it is, with which settings.
fn started(home: &Home) -> Result<(), HomeError> {
    let exe = Path::new("/proc/self/exe");
    let program = std::fs::read(exe).map_err(|source| HomeError::Io { path: exe.to_owned(), source })?;
    let software = env!("CARGO_PKG_VERSION").to_owned();
    let event = Event::Started { software, program: Digest::of(&program), settings: home.settings_digest()? };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(home.ledger()?.record(event, None, since)?)
}

fn late(latest: Duration, manifest: &Manifest) -> String {
    let Limits { fuel_per_partition, memory_mib } = manifest.limits;
    format!(
        "to hide how long one individual's {fuel_per_partition} fuel and {memory_mib} MiB can take, the release may leave up to {:.0} s \
         after the round, whose deadline is {} s: ask for less fuel and memory (`vestibule analysis try` prints what is used), fewer \
         rounds, more epsilon, or a later deadline",
        latest.as_secs_f64(),
        manifest.round_deadline_seconds
    )
}

/// A fault of our own before data was touched: named in our log, nameless outside.
fn own(what: &'static str, error: &dyn std::fmt::Display) -> Refused {
    tracing::error!(what, %error, "an offer could not be considered");
    Refused { code: "site-fault", why: "the site cannot consider offers now; its operator can see why".to_owned() }
}

fn refusal(refused: Refused) -> Answer {
    let mut why = refused.why;
    why.truncate(why.floor_char_boundary(1_000));
    Answer::Refused { code: refused.code.to_owned(), why }
}
