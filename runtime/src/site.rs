//! One offer from the link to the release: the steps in their order. And the daemon that hears offers.
//!
//! *In*: an [`Offer`]. *Out*: its last [`Answer`]. *Trusts*: the steps. *Refuses*: what they refuse, before data is touched, with
//! a code and a sentence made of public terms; after that, there is a release or there is none, in an answer of the same length and
//! at a moment that was drawn, whatever happened.

mod error;
mod explain;
mod judging;
mod late;
mod preparing;
mod purse;
mod standing;
mod unpaid;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{JobId, Limits};
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::message::{Answer, Offer};
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{Role, Trust};
use vestibule_protocol::words::{Code, Label, Sentence};
use vestibule_sandbox::CodeCache;
use vestibule_worker::{Launch, Places, Rest};

use crate::admission::{self, Verified};
use crate::cohort::Floor;
use crate::component::{CodeFolder, ComponentError, Components};
use crate::costs::Costs;
use crate::dataset::{Dataset, Selection};
use crate::delay::{self, Delay, Load};
use crate::executor::{self, Ask, Executor, Work};
use crate::guests::{self, Guests};
use crate::home::{Coordinator, Home, HomeError};
use crate::ledger::{Admission, Charged, Departed, Ledger, LedgerError, Mark, Settled};
use crate::partitions::Partitions;
use crate::policy::rules::Rules;
use crate::policy::{self, Admitted};
use crate::round::RoundFailure;
use crate::witness::Witness;
use crate::{airlock, link, noise, release, round};
pub use error::SiteError;
pub use explain::{Explained, Unexplained, explain};
pub(crate) use judging::Held;
use judging::Judged;
use late::late;
use preparing::Asked;
pub(crate) use preparing::{Prepared, Public};
use purse::purse;
pub use purse::recover;
use standing::FROZEN;

/// A site that is running.
#[derive(Debug)]
pub struct Site {
    /// Held for as long as anything of this daemon may still write to the folder.
    _lock: File,
    pub(crate) home: Home,
    pub(crate) name: Name,
    pub(crate) ledger: Ledger,
    pub(crate) witness: Witness,
    /// Held by the one who has the log witnessed.
    pub(crate) witnessing: tokio::sync::Mutex<()>,
    /// That the witnesses have agreed to the log since this daemon started.
    pub(crate) shown: tokio::sync::OnceCell<()>,
    consortium: Digest,
    trust: RwLock<Option<Arc<Trust>>>,
    frozen: AtomicBool,
    guests: Guests,
    /// How slow this machine is.
    costs: Costs,
    components: Components,
    threads: usize,
    executor: Box<dyn Executor>,
    /// Places among offers whose public calls run, among rounds that are prepared, and among those that run.
    public: Places<Name>,
    ahead: Places<Name>,
    running: Places<Name>,
    /// With what public calls rest while rounds run.
    rest: Rest,
    /// The rules that hold, and which the log said they are.
    rules: Mutex<Option<(Option<Digest>, Arc<Rules>)>>,
    turns: Mutex<HashMap<(JobId, u32), Turn>>,
    /// Rounds that this process has begun, and whose moment has not come.
    begun: Mutex<BTreeSet<(JobId, u32)>>,
}

/// Held by the one who runs a round.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// Runs the daemon until `stop`: dials the coordinator, answers offers, dials again when the link breaks.
///
/// # Errors
/// The folder is in use or damaged, the noise sampler fails its self-test, or the engine cannot be set up.
pub async fn run(mut home: Home, stop: CancellationToken) -> Result<(), SiteError> {
    let lock = home.lock()?;
    let coordinator = home.coordinator()?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for what in home.adopt(&coordinator.site, since)? {
        tracing::info!(what = what.name(), "a new key is used from now on");
    }
    noise::self_test()?;
    let site = Arc::new(Site::new(home, lock, &coordinator, stop.clone())?);
    let ended = link::serve(Arc::clone(&site), coordinator, stop).await.map_err(SiteError::Link);
    site.stopped();
    // Rounds that run here end with the process. What runs on a cluster is taken back first.
    let _ = tokio::task::spawn_blocking(move || site.executor.leave(LEAVING)).await;
    ended
}

/// How long a daemon that stops waits for a cluster to take its tasks back.
const LEAVING: Duration = Duration::from_secs(20);

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
    guests: guests::Prepared,
    calibrated: Vec<Calibrated>,
    floor: Option<Floor>,
    load: Load,
    delay: Delay,
}

/// A round that ran, and of which nothing is written down before its moment: a site that stops or
/// is killed before then runs it again, whether it had ended or not, and so shows by nothing which.
pub(crate) struct Ran {
    charged: Box<Charged>,
    calibrated: Vec<Calibrated>,
    /// What is to leave; and why a person must look at it first, if one must.
    found: Result<(airlock::Cleared, Option<(String, serde_json::Value)>), Nothing>,
    leaves_ms: i64,
    leaves: Instant,
}

impl Ran {
    /// Its moment, by a clock that nobody sets: what sets the other one, or guides it, would else take
    /// the noise away.
    pub(crate) const fn leaves(&self) -> Instant {
        self.leaves
    }
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
    /// Other data serve than those that it was prepared for: from the start.
    Again,
}

impl Site {
    pub(crate) fn new(home: Home, lock: File, coordinator: &Coordinator, stop: CancellationToken) -> Result<Self, SiteError> {
        let settings = home.settings();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if settings.threads == 0 { cores } else { settings.threads };
        let cache = CodeCache::new(Box::new(CodeFolder(home.folder("code")?)), &home.code_key());
        let rounds = settings.max_running_rounds.max(1);
        let guests = Guests::new(Launch::this_program(settings.max_memory_mib), cache);
        let rest = Rest::default();
        let guests = guests.within(Duration::from_secs(settings.max_public_seconds.into())).resting(rest.clone());
        // Nobody has all of the places that are not rounds', so that there is one for anyone who comes next.
        let places = settings.public_places;
        let (public, ahead) = (Places::new(places, places.saturating_sub(1)), Places::new(rounds.saturating_add(1), rounds));
        let gaps = guests.gaps()?;
        for gap in &gaps {
            tracing::warn!(gap, "the wall around guests is not whole");
        }
        if settings.require_walls && !gaps.is_empty() {
            return Err(SiteError::Walls(gaps.join("; ")));
        }
        let costs = home.costs(|| guests.measure(settings.max_memory_mib, threads).map_err(SiteError::from))?;
        let usual = Delay::usual(costs).as_secs_f64();
        let Limits { fuel_per_partition, memory_mib } = Limits::default();
        tracing::info!(
            "a job of epsilon 1 with the usual limits ({fuel_per_partition} fuel, {memory_mib} MiB) waits {usual:.1} s for the moment of \
             each release"
        );
        let executor = executor::of(home.executor(), (threads, settings.max_round_memory_mib), stop)?;
        let components = Components::new(home.folder("blobs")?);
        started(&home)?;
        let (ledger, running) = (home.ledger()?, Places::new(rounds, rounds));
        let (name, consortium) = (coordinator.site.clone(), coordinator.consortium);
        let (witness, witnessing) = (home.witness()?, tokio::sync::Mutex::default());
        let trust = RwLock::new(home.trust()?.map(Arc::new));
        let frozen = AtomicBool::new(home.frozen()?.is_some());
        if frozen.load(Ordering::Relaxed) {
            tracing::error!("{FROZEN}");
        }
        let turns = Mutex::default();
        Ok(Self {
            _lock: lock,
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
            costs,
            components,
            threads,
            executor,
            public,
            ahead,
            running,
            rest,
            rules: Mutex::default(),
            turns,
            begun: Mutex::default(),
        })
    }

    /// Steps 5 and 6, at `clock` (1970). `Err(_)` is the answer to an offer that is refused.
    pub(crate) fn admit(&self, offer: Offer, clock: Duration) -> Result<Admitted, Answer> {
        let since = self.ledger.time(clock).map_err(|error| refusal(own("ledger", &error)))?;
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let verified = self.verify(offer, now, clock).map_err(|refused| {
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

    fn verify(&self, offer: Offer, now: i64, clock: Duration) -> Result<Verified, Refused> {
        let trust = self.member(now)?;
        if self.ledger.sure(clock).is_none() {
            tracing::error!("this machine's clock is ahead of what the witnesses and the trust bundle say");
            return Err(("site-clock", "the site's clock is ahead of what others say: its operator can see why").into());
        }
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

    /// Step 8, once a round has its place. It has waited so long for that since it was offered: whatever may have changed is asked
    /// again. Blocks.
    pub(crate) fn charge(&self, offer: Offer, prepared: Prepared, waited: Duration, clock: Duration) -> Outcome {
        let admitted = match self.admit(offer, clock) {
            Ok(admitted) => admitted,
            Err(refused) => return Outcome::Refused(refused),
        };
        let verified = admitted.verified().clone();
        let since = match self.ledger.time(clock) {
            Ok(since) => since,
            Err(error) => return Outcome::Refused(refusal(own("ledger", &error))),
        };
        match self.charged(admitted, prepared, waited, since) {
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

    fn charged(&self, admitted: Admitted, prepared: Prepared, waited: Duration, since: Duration) -> Result<Outcome, Refused> {
        let Prepared { guests, asked, load, delay } = prepared;
        let Asked { plan, dataset, selection, variants, partitions, calibrated, floor, .. } = asked;
        admitted.verified().charter().reads(&plan.columns).map_err(|error| Refused::from((error.code(), error)))?;
        let (judged, held) = self.judge(admitted.verified(), (&plan, variants), dataset.info(), since)?;
        if let Some(held) = held {
            return Ok(Outcome::Held(held));
        }
        let data = self.home.data().map_err(|error| own("data", &error))?;
        let name = &admitted.verified().signed().manifest().dataset;
        let version = Dataset::version_of(&data, name, &self.home.store_key()).map_err(|error| own("dataset", &error))?;
        if version != dataset.version() {
            return Ok(Outcome::Again);
        }
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
        let (latest, manifest) = (self.latest(&delay), admitted.verified().signed().manifest());
        let late = late(latest, waited, manifest);
        let admitted = admitted.reading(&plan.columns).holding(self.again(&judged, dataset.info(), &calibrated)).late(late);
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

    /// Steps 9 to 12. Blocks. From here on data is touched: whatever happens, there is a release or
    /// there is none, and a moment before
    /// which nobody may learn which. `now` reads the time since 1970, and the clock that only runs.
    pub(crate) fn run(&self, ready: Ready, now: impl Fn() -> (Duration, Instant)) -> Ran {
        let Ready { charged, judged, dataset, selection, partitions, guests, calibrated, floor, load, delay } = ready;
        // All of this before any data: that it fails says nothing. One that was lost with its process again and again is not begun any more.
        let begun = self.ledger.begin(&charged);
        let of = (charged.admitted().verified().signed().manifest().job, charged.admitted().verified().index());
        self.begun().insert(of);
        let runs = begun.as_ref().is_ok_and(|begun| *begun <= self.home.settings().max_round_tries);
        // On a cluster every task has waited already.
        let drawn = if runs && self.executor.hides_moments() { Ok(Duration::ZERO) } else { delay.draw() };
        let costs = self.costs;
        let ask = Ask { rows: &dataset, selection: &selection, partitions, calibrated: &calibrated, load, costs, delay };
        let outcome = match (&drawn, begun) {
            (Ok(_), Ok(_)) if runs => self.noised(&charged, Work { ask, guests }, (floor, judged.variants)),
            (Ok(_), Ok(_)) => Err(Nothing::failed("round-lost")),
            (_, Err(error)) => Err(Nothing::failed(error.code())),
            (Err(error), _) => Err(Nothing::failed(error.code())),
        };
        let (ended, at) = now();
        let leaves = ended.saturating_add(drawn.unwrap_or_default());
        let leaves = leaves.saturating_add(delay::until_tick(leaves, self.home.settings().release_tick_seconds));
        let leaves_ms = i64::try_from(leaves.as_millis()).unwrap_or(i64::MAX);
        // A delay is ten years at most.
        let leaves = at.checked_add(leaves.saturating_sub(ended)).unwrap_or(at);
        let found = outcome.map(|cleared| {
            let hold = self.outgoing(&judged, dataset.info(), &cleared);
            (cleared, hold)
        });
        Ran { charged, calibrated, found, leaves_ms, leaves }
    }

    /// Step 13, once its moment has come. Blocks. `None`: it is to run again.
    pub(crate) fn settle(&self, ran: Ran) -> Option<Settled> {
        let Ran { charged, calibrated, found, leaves_ms, leaves: _ } = ran;
        let job = charged.admitted().verified().signed().manifest().job;
        if !self.begun().remove(&(job, charged.admitted().verified().index())) {
            // The daemon stops, and has taken it back.
            return None;
        }
        let stored = match found {
            Ok((cleared, hold)) => release::store(&self.ledger, &charged, &calibrated, (&cleared, hold), leaves_ms),
            Err(Nothing::Failed(code, evidence)) => {
                tracing::warn!(%job, code, "a round released nothing");
                release::store_nothing(&self.ledger, &charged, (code, evidence.as_ref()), leaves_ms)
            }
            Err(Nothing::Interrupted) => {
                tracing::info!(%job, "a round was taken back from the cluster; it runs again, under the same charge, at the next start");
                if let Err(error) = self.ledger.taken_back(job, charged.admitted().verified().index()) {
                    tracing::error!(%job, %error, "that it was taken back is not booked: it counts as one that was lost");
                }
                return None;
            }
        };
        // Not on disk: the bytes must not leave, and after a failed sync nothing more may be written.
        Some(stored.unwrap_or(Settled { release: None, leaves_ms, hold: None }))
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

    fn begun(&self) -> MutexGuard<'_, BTreeSet<(JobId, u32)>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The daemon stops: rounds whose moment has not come are not lost, but run again.
    fn stopped(&self) {
        for (job, round) in std::mem::take(&mut *self.begun()) {
            if let Err(error) = self.ledger.taken_back(job, round) {
                tracing::error!(%job, %error, "that a round was taken back is not booked: it counts as one that was lost");
            }
        }
    }

    /// One at a time runs a round, however often it is asked for.
    pub(crate) fn turn(&self, job: JobId, round: u32) -> Turn {
        Arc::clone(self.turns.lock().unwrap_or_else(PoisonError::into_inner).entry((job, round)).or_default())
    }

    /// Jobs about which something was decided since `mark`.
    pub(crate) fn decided(&self, mark: Mark) -> Result<(Mark, Vec<JobId>), LedgerError> {
        self.ledger.decided(mark)
    }

    /// The job has ended. A round that is running runs to its end, also where the job was cancelled: whether it was stopped in time would
    /// tell how long it took.
    pub(crate) fn end(&self, job: JobId, clock: Duration) -> Result<(), LedgerError> {
        self.ledger.end(job, clock)?;
        // Anyone who asks for a round that is running must wait for it still.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|(of, _), turn| *of != job || Arc::strong_count(turn) > 1);
        Ok(())
    }
}

/// Logs the start of the daemon: which program it is, with which settings.
fn started(home: &Home) -> Result<(), HomeError> {
    let exe = Path::new("/proc/self/exe");
    let program = std::fs::read(exe).map_err(|source| HomeError::Io { path: exe.to_owned(), source })?;
    let software = Label::cut(env!("CARGO_PKG_VERSION"));
    let event = Event::Started { software, program: Digest::of(&program), settings: home.settings_digest()? };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(home.ledger()?.record(event, None, since)?)
}

/// A fault of our own before data was touched: named in our log, nameless outside.
fn own(what: &'static str, error: &dyn std::fmt::Display) -> Refused {
    tracing::error!(what, %error, "an offer could not be considered");
    Refused { code: "site-fault", why: "the site cannot consider offers now; its operator can see why".to_owned() }
}

fn refusal(refused: Refused) -> Answer {
    Answer::Refused { code: Code::own(refused.code), why: Sentence::cut(&refused.why) }
}
