//! Steps 7 and 9, the code: a component becomes worker processes that can do nothing but run it.
//!
//! *In*: a component's bytes, then the terms of a round. *Out*: its plan, and [`Crew`]s for [`crate::round`]. *Trusts*: sealed code that
//! this site compiled. *Refuses*: what the sandbox refuses, and components that bring a worker down before any data is near.
//!
//! Hostile bytes are parsed and compiled in a worker too, and one that did is not used again: what it compiled is run by others.

mod baked;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Plan, Round, RoundRequest};
use vestibule_sandbox::{CodeCache, Pages, code_name};
use vestibule_worker::{Each, Launch, PUBLIC_PATIENCE, Refusal, Rehearsals, Rest, Worker, WorkerError};

use self::baked::{Baked, Name};
use crate::costs::Costs;
use crate::dataset::{RowGroup, Selection};
use crate::delay::Load;
use crate::partitions::Partitions;
use crate::round::{Crew, RoundFailure, Row};

/// Why there are no guests.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestsError {
    /// The analysis or the sandbox refused, in words made of public input.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The worker.
    #[error("{0}; the component may need more than this site gives one")]
    Worker(#[from] WorkerError),
}

impl GuestsError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Worker(error) => error.code(),
        }
    }
}

/// What a machine of a cluster whose processor is another has for each of compiling and baking anew. The site has done both within its own limit.
const ELSEWHERE: Duration = Duration::from_secs(600);

/// How this site runs guests.
#[derive(Debug)]
pub struct Guests {
    launch: Launch,
    cache: CodeCache,
    baked: Arc<Baked>,
    public: Duration,
    /// With what all that sees nobody's data rests.
    rest: Rest,
}

/// What a rehearsal can find beyond the guest's memory and its image, either of which may be there
/// twice: tables, and a page more for each run of them.
const ROOM_BYTES: usize = 16 << 20;
/// How many workers are started to measure how long that takes: the one in the middle counts, less the
/// time in which it waited for a processor.
const STARTS: usize = 5;
/// What is sent to one, to measure how long a MiB takes.
const SENT_MIB: usize = 4;

/// A loaded analysis, in a worker that has seen public input only.
#[derive(Debug)]
pub struct Loaded {
    worker: Worker,
    /// How long a call that sees nobody's data may take.
    public: Duration,
    launch: Launch,
    component: Arc<[u8]>,
    baked: Arc<Baked>,
    rest: Rest,
}

/// A round whose state was baked into its component: as many crews as there are processors can be made of it.
#[derive(Debug)]
pub struct Prepared {
    first: Worker,
    load: Load,
    terms: Arc<Terms>,
}

/// What further workers are told.
#[derive(Debug)]
struct Terms {
    launch: Launch,
    component: Arc<[u8]>,
    /// Of the baked component.
    code: Arc<[u8]>,
    round: Round,
    limits: Limits,
    /// Individuals of a partition, at most; values and dosages of each.
    shape: (usize, usize, usize),
    /// What the first worker found in its rehearsal.
    pages: Pages,
    /// The most that a partition may take of a worker's own time.
    limit: Duration,
}

impl Guests {
    /// `cache` must be sealed with a secret of this site that is used for nothing else.
    #[must_use]
    pub fn new(launch: Launch, cache: CodeCache) -> Self {
        Self { launch, cache, baked: Arc::default(), public: PUBLIC_PATIENCE, rest: Rest::default() }
    }

    /// The same, where each call that sees nobody's data (compiling, `plan`, `prepare`) may take so long.
    #[must_use]
    pub fn within(self, public: Duration) -> Self {
        Self { public, ..self }
    }

    /// The same, where all of that rests with `rest`, while rounds run.
    #[must_use]
    pub fn resting(self, rest: Rest) -> Self {
        Self { rest, ..self }
    }

    /// What does not hold of the wall around workers, in words.
    ///
    /// # Errors
    /// No worker can be started.
    pub fn gaps(&self) -> Result<Vec<String>, WorkerError> {
        Ok(Worker::start(&self.launch)?.walls().gaps())
    }

    /// How slow this machine is, for guests of so much memory: measured in as many workers at once as
    /// rounds have, since they share the way to memory. Takes some seconds.
    ///
    /// # Errors
    /// A worker cannot be started, or cannot measure.
    pub fn measure(&self, memory_mib: u32, workers: usize) -> Result<Costs, WorkerError> {
        let nothing = vec![0; SENT_MIB << 20];
        let (mut starts, mut sent) = ([Duration::ZERO; STARTS], [Duration::ZERO; STARTS]);
        for (start, sent) in starts.iter_mut().zip(&mut sent) {
            let began = Instant::now();
            let mut worker = Worker::start(&self.launch)?;
            let (elapsed, waited) = (began.elapsed(), worker.waited());
            *start = elapsed.saturating_sub(waited);
            let began = Instant::now();
            // Refused once it is there.
            let _ = worker.inspect(&nothing)?;
            let waited = worker.waited().saturating_sub(waited);
            *sent = began.elapsed().saturating_sub(waited) / SENT_MIB as u32;
        }
        let [start, sent] = [starts, sent].map(|mut times| {
            times.sort_unstable();
            times.get(STARTS / 2).copied().unwrap_or_default()
        });
        let one = || Ok(Costs::measured(Worker::start(&self.launch)?.measure(memory_mib)?, start, sent));
        std::thread::scope(|scope| {
            let measuring: Vec<_> = (0..workers.max(1)).map(|_| scope.spawn(one)).collect();
            let measured = measuring.into_iter().map(|worker| worker.join().unwrap_or(Err(WorkerError::Lost)));
            measured.reduce(|one, other| Ok(one?.at_least(other?))).unwrap_or(Err(WorkerError::Lost))
        })
    }

    /// Loads a component into a fresh worker; compiles it before, in another, if this site never did.
    ///
    /// # Errors
    /// See [`GuestsError`].
    pub fn load(&self, component: &[u8]) -> Result<Loaded, GuestsError> {
        let mut worker = self.public()?;
        let name = code_name(worker.engine(), Digest::of(component));
        let code = match self.cache.open(&name) {
            Some(code) => code,
            None => {
                let code = worker.compile(component)?.map_err(GuestsError::Refused)?;
                self.cache.keep(&name, &code);
                worker = self.public()?;
                code
            }
        };
        worker.load(&code, component)?.map_err(GuestsError::Refused)?;
        let (launch, baked, rest) = (self.launch.clone(), Arc::clone(&self.baked), self.rest.clone());
        Ok(Loaded { worker, public: self.public, launch, component: component.into(), baked, rest })
    }

    /// A worker for what sees nobody's data: it has a limit, and lets rounds go first.
    fn public(&self) -> Result<Worker, WorkerError> {
        let mut worker = Worker::start(&self.launch)?;
        worker.rest(&self.rest)?;
        worker.allow(self.public);
        worker.step_back();
        Ok(worker)
    }
}

impl Loaded {
    /// Asks for the plan.
    ///
    /// # Errors
    /// See [`GuestsError`].
    pub fn plan(&mut self, params: &str, limits: Limits) -> Result<Plan, GuestsError> {
        self.worker.plan(params, limits)?.map_err(GuestsError::Refused)
    }

    /// Bakes a round's state into the component, in the worker that has seen public input only, and starts another for what comes next.
    /// What was baked lately is used again.
    /// `costs`: those of the machine that it runs on, from which the most that a partition may take follows.
    ///
    /// # Errors
    /// See [`GuestsError`].
    pub fn prepare(
        mut self,
        round: &Round,
        limits: Limits,
        selection: &Selection,
        partitions: Partitions,
        costs: Costs,
    ) -> Result<Prepared, GuestsError> {
        let shape = (partitions.most(), selection.values(), selection.dosages());
        let launch = self.launch.clone();
        let (started, code) = std::thread::scope(|scope| {
            let started = scope.spawn(|| Worker::start(&launch));
            let code = self.bake(round, limits);
            (started.join(), code)
        });
        let code = code?;
        let mut first = started.unwrap_or(Err(WorkerError::Lost))?;
        first.rest(&self.rest)?;
        first.allow(self.public);
        let pages = rehearsed(&mut first, &code, round, limits, shape, &selection.rehearsals(partitions))?;
        let inputs = selection.values().saturating_add(selection.dosages());
        let load = Load::new(limits, inputs, partitions, code.len()).laying(pages.bytes());
        let entries = round.statistics().iter().fold(0, |sum: usize, each| sum.saturating_add(each.length as usize));
        let limit = load.limit(entries, costs);
        first.limit(limit);
        let (component, round) = (self.component, round.clone());
        let terms = Terms { launch, component, code, round, limits, shape, pages, limit };
        Ok(Prepared { first, load, terms: Arc::new(terms) })
    }

    fn bake(&mut self, round: &Round, limits: Limits) -> Result<Arc<[u8]>, GuestsError> {
        let name = Name::of(self.worker.engine(), &self.component, round, limits);
        if let Some(code) = name.and_then(|name| self.baked.get(name)) {
            return Ok(code);
        }
        let code: Arc<[u8]> = self.worker.bake(round, limits)?.map_err(GuestsError::Refused)?.into();
        if let Some(name) = name {
            self.baked.keep(name, &code);
        }
        Ok(code)
    }
}

/// Has a worker rehearse a round. Its guest may have escaped and said anything: so much can be found
/// and no more.
fn rehearsed(
    worker: &mut Worker,
    code: &[u8],
    round: &Round,
    limits: Limits,
    shape: (usize, usize, usize),
    rehearsals: &Rehearsals,
) -> Result<Pages, GuestsError> {
    let pages = worker.rehearse(code, round, limits, shape, rehearsals)?.map_err(GuestsError::Refused)?;
    let memory = (limits.memory_mib as usize).saturating_mul(1 << 20);
    let most = memory.saturating_mul(2).saturating_add(code.len()).saturating_add(ROOM_BYTES);
    if pages.bytes() > most { Err(WorkerError::Lost.into()) } else { Ok(pages) }
}

impl Prepared {
    /// What one individual can take.
    #[must_use]
    pub const fn load(&self) -> Load {
        self.load
    }

    /// That many crews, at least one, each with its worker, and one worker more that waits to take
    /// the place of one that is ended: all before the first row, so that no row's time is in it.
    ///
    /// # Errors
    /// A worker cannot be started, or cannot take in what the first one did.
    pub fn crews(mut self, count: usize) -> Result<Vec<Box<dyn Crew>>, RoundFailure> {
        self.first.wake();
        crews(self.first, self.terms, count)
    }
}

fn crews(first: Worker, terms: Arc<Terms>, count: usize) -> Result<Vec<Box<dyn Crew>>, RoundFailure> {
    let start = || terms.start().map_err(|_| RoundFailure::Worker);
    let further: Result<Vec<Worker>, RoundFailure> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..count.max(1)).map(|_| scope.spawn(start)).collect();
        started.into_iter().map(|worker| worker.join().unwrap_or(Err(RoundFailure::Worker))).collect()
    });
    let mut workers = further?;
    let standbys = Arc::new(Standbys { terms, waiting: Mutex::new(workers.pop()) });
    let crew = |worker| {
        let standbys = Arc::clone(&standbys);
        Box::new(Apart { worker, standbys, row: Row::default() }) as Box<dyn Crew>
    };
    Ok(std::iter::once(first).chain(workers).map(crew).collect())
}

/// Workers that took in the round and wait, one at a time.
struct Standbys {
    terms: Arc<Terms>,
    waiting: Mutex<Option<Worker>>,
}

impl Standbys {
    /// The one that waits, or one that is started now. Another is started meanwhile.
    fn take(self: &Arc<Self>) -> Result<Worker, WorkerError> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let worker = waiting.map_or_else(|| self.start(), Ok)?;
        let standbys = Arc::clone(self);
        // It ends with the round, or soon after: what it starts is dropped then.
        std::thread::spawn(move || {
            let next = standbys.start().ok();
            *standbys.waiting.lock().unwrap_or_else(PoisonError::into_inner) = next;
        });
        Ok(worker)
    }

    fn start(&self) -> Result<Worker, WorkerError> {
        // The first worker took in the same round: that another cannot is the host's fault.
        self.terms.start().map_err(|error| match error {
            GuestsError::Worker(error) => error,
            GuestsError::Refused(_) => WorkerError::Lost,
        })
    }
}

/// A round's guests, as a node of a cluster gets them: public terms, and code that this site compiled. Anyone who reads it back trusts its seal.
#[derive(Serialize, Deserialize)]
pub(crate) struct Portable {
    /// What `code` was compiled for.
    engine: [u8; 32],
    component: Vec<u8>,
    code: Vec<u8>,
    request: RoundRequest,
    limits: Limits,
    shape: (usize, usize, usize),
    pages: Pages,
    limit: Duration,
    arguments: Vec<String>,
}

impl Prepared {
    /// What another machine needs to make crews of the same guests.
    pub(crate) fn portable(&self) -> Portable {
        let Terms { launch, component, code, round, limits, shape, pages, limit } = &*self.terms;
        Portable {
            engine: *self.first.engine().as_bytes(),
            component: component.to_vec(),
            code: code.to_vec(),
            request: round.request().clone(),
            limits: *limits,
            shape: *shape,
            pages: pages.clone(),
            limit: *limit,
            arguments: launch.arguments.clone(),
        }
    }
}

impl Portable {
    /// That many crews, in worker processes of this machine. A machine whose processor is another compiles and bakes anew.
    pub(crate) fn crews(self, count: usize) -> Result<Vec<Box<dyn Crew>>, RoundFailure> {
        let launch = Launch { program: "/proc/self/exe".into(), arguments: self.arguments };
        let round = Round::check(self.request).map_err(|_| RoundFailure::Host)?;
        let mut worker = Worker::start(&launch)?;
        let code = if worker.engine().as_bytes() == &self.engine {
            self.code
        } else {
            worker.allow(ELSEWHERE);
            let code = worker.compile(&self.component)?.map_err(|_| RoundFailure::Worker)?;
            worker = Worker::start(&launch)?;
            worker.allow(ELSEWHERE);
            worker.load(&code, &self.component)?.map_err(|_| RoundFailure::Worker)?;
            let code = worker.bake(&round, self.limits)?.map_err(|_| RoundFailure::Worker)?;
            worker = Worker::start(&launch)?;
            code
        };
        let terms = Terms {
            launch,
            component: self.component.into(),
            code: code.into(),
            round,
            limits: self.limits,
            shape: self.shape,
            pages: self.pages,
            limit: self.limit,
        };
        let first = terms.take_in(worker).map_err(|_| RoundFailure::Worker)?;
        crews(first, Arc::new(terms), count)
    }
}

impl Terms {
    fn start(&self) -> Result<Worker, GuestsError> {
        self.take_in(Worker::start(&self.launch)?)
    }

    fn take_in(&self, mut worker: Worker) -> Result<Worker, GuestsError> {
        let Self { code, round, limits, shape, pages, limit, .. } = self;
        worker.follow(code, round, *limits, *shape, pages)?.map_err(GuestsError::Refused)?;
        worker.limit(*limit);
        Ok(worker)
    }
}

/// A crew that is another process.
struct Apart {
    worker: Worker,
    standbys: Arc<Standbys>,
    row: Row,
}

impl From<WorkerError> for RoundFailure {
    fn from(_: WorkerError) -> Self {
        Self::Worker
    }
}

impl Apart {
    fn run(&mut self, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        let Self { worker, standbys, .. } = self;
        worker.run(&mut || standbys.take(), each)
    }
}

impl Crew for Apart {
    fn row(&mut self, rows: &RowGroup, index: usize) -> Result<(), RoundFailure> {
        self.row.fill(rows, index);
        self.worker.push(self.row.values(), self.row.dosages());
        Ok(())
    }

    fn close(&mut self, _partition: usize, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        if self.worker.close() { self.run(each) } else { Ok(()) }
    }

    fn finish(&mut self, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        self.run(each)
    }
}
