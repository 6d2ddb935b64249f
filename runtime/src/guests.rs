//! Steps 7 and 9, the code: a component becomes worker processes that can do nothing but run it.
//!
//! *In*: a component's bytes, then the terms of a round. *Out*: its plan, and [`Crew`]s for [`crate::round`]. *Trusts*: sealed code that
//! this site compiled. *Refuses*: what the sandbox refuses, and components that bring a worker down before any data is near.
//!
//! Hostile bytes are parsed and compiled in a worker too, and one that did is not used again: what it compiled is run by others.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Plan, Round, RoundRequest};
use vestibule_sandbox::{CodeCache, code_name};
use vestibule_worker::{Each, Launch, PUBLIC_PATIENCE, Refusal, Worker, WorkerError};

use crate::dataset::{RowGroup, Selection};
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
    public: Duration,
}

/// A loaded analysis, in a worker that has seen public input only.
#[derive(Debug)]
pub struct Loaded {
    worker: Worker,
    launch: Launch,
    component: Arc<[u8]>,
}

/// A round whose state was baked into its component: as many crews as there are processors can be made of it.
#[derive(Debug)]
pub struct Prepared {
    first: Worker,
    terms: Arc<Terms>,
}

/// What further workers are told.
#[derive(Debug)]
struct Terms {
    launch: Launch,
    component: Arc<[u8]>,
    /// Of the baked component.
    code: Vec<u8>,
    round: Round,
    limits: Limits,
    /// Individuals of a partition, at most; values and dosages of each.
    shape: (usize, usize, usize),
}

impl Guests {
    /// `cache` must be sealed with a secret of this site that is used for nothing else.
    #[must_use]
    pub const fn new(launch: Launch, cache: CodeCache) -> Self {
        Self { launch, cache, public: PUBLIC_PATIENCE }
    }

    /// The same, where each call that sees nobody's data (compiling, `plan`, `prepare`) may take so long.
    #[must_use]
    pub fn within(self, public: Duration) -> Self {
        Self { public, ..self }
    }

    /// What does not hold of the wall around workers, in words.
    ///
    /// # Errors
    /// No worker can be started.
    pub fn gaps(&self) -> Result<Vec<String>, WorkerError> {
        Ok(Worker::start(&self.launch)?.walls().gaps())
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
        Ok(Loaded { worker, launch: self.launch.clone(), component: component.into() })
    }

    /// A worker for what sees nobody's data: it has a limit, and lets rounds go first.
    fn public(&self) -> Result<Worker, WorkerError> {
        let mut worker = Worker::start(&self.launch)?;
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
    ///
    /// # Errors
    /// See [`GuestsError`].
    pub fn prepare(
        mut self,
        round: &Round,
        limits: Limits,
        selection: &Selection,
        partitions: Partitions,
    ) -> Result<Prepared, GuestsError> {
        let shape = (partitions.most(), selection.values(), selection.dosages());
        let (started, code) = std::thread::scope(|scope| {
            let started = scope.spawn(|| Worker::start(&self.launch));
            let code = self.worker.bake(round, limits);
            (started.join(), code)
        });
        let code = code?.map_err(GuestsError::Refused)?;
        let terms = Terms { launch: self.launch, component: self.component, code, round: round.clone(), limits, shape };
        let first = terms.take_in(started.unwrap_or(Err(WorkerError::Lost))?)?;
        Ok(Prepared { first, terms: Arc::new(terms) })
    }
}

impl Prepared {
    /// That many crews, at least one. All but the first start their worker when they are first given rows.
    #[must_use]
    pub fn crews(self, count: usize) -> Vec<Box<dyn Crew>> {
        let rest = (1..count).map(|_| Box::new(Apart { worker: None, terms: Arc::clone(&self.terms), row: Row::default() }));
        let rest: Vec<_> = rest.collect();
        let first = Box::new(Apart { worker: Some(self.first), terms: self.terms, row: Row::default() });
        std::iter::once(first).chain(rest).map(|crew| crew as Box<dyn Crew>).collect()
    }
}

/// A round's guests, as a node of a cluster gets them: public terms, and code that this site compiled. Whoever reads it back trusts its seal.
#[derive(Serialize, Deserialize)]
pub(crate) struct Portable {
    /// What `code` was compiled for.
    engine: [u8; 32],
    component: Vec<u8>,
    code: Vec<u8>,
    request: RoundRequest,
    limits: Limits,
    shape: (usize, usize, usize),
    arguments: Vec<String>,
}

impl Prepared {
    /// What another machine needs to make crews of the same guests.
    pub(crate) fn portable(&self) -> Portable {
        let Terms { launch, component, code, round, limits, shape } = &*self.terms;
        Portable {
            engine: *self.first.engine().as_bytes(),
            component: component.to_vec(),
            code: code.clone(),
            request: round.request().clone(),
            limits: *limits,
            shape: *shape,
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
        let terms = Terms { launch, component: self.component.into(), code, round, limits: self.limits, shape: self.shape };
        let first = terms.take_in(worker).map_err(|_| RoundFailure::Worker)?;
        Ok(Prepared { first, terms: Arc::new(terms) }.crews(count))
    }
}

impl Terms {
    fn start(&self) -> Result<Worker, GuestsError> {
        self.take_in(Worker::start(&self.launch)?)
    }

    fn take_in(&self, mut worker: Worker) -> Result<Worker, GuestsError> {
        worker.round(&self.code, &self.round, self.limits, self.shape)?.map_err(GuestsError::Refused)?;
        Ok(worker)
    }
}

/// A crew that is another process.
struct Apart {
    worker: Option<Worker>,
    terms: Arc<Terms>,
    row: Row,
}

impl From<WorkerError> for RoundFailure {
    fn from(_: WorkerError) -> Self {
        Self::Worker
    }
}

impl Apart {
    fn worker(&mut self) -> Result<&mut Worker, RoundFailure> {
        match &mut self.worker {
            Some(worker) => Ok(worker),
            // The first worker took in the same round: that another cannot is the host's fault.
            none => Ok(none.insert(self.terms.start().map_err(|_| RoundFailure::Worker)?)),
        }
    }
}

impl Crew for Apart {
    fn row(&mut self, rows: &RowGroup, index: usize) -> Result<(), RoundFailure> {
        let mut row = std::mem::take(&mut self.row);
        row.fill(rows, index);
        self.worker()?.push(row.values(), row.dosages());
        self.row = row;
        Ok(())
    }

    fn close(&mut self, _partition: usize, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        let worker = self.worker()?;
        if worker.close() { worker.run(each) } else { Ok(()) }
    }

    fn finish(&mut self, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        self.worker()?.run(each)
    }
}
