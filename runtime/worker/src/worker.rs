//! The daemon's end of a worker: it starts the process, tells it what to do, and believes nothing that comes back.
//!
//! *In*: public terms here, rows in [`batch`]. *Out*: plans and contributions, checked for shape; what
//! they say is for the reducer to clamp. *Refuses*: whatever is not an answer, by ending the worker.
//! Memory is shared through a sealed file that the daemon does not map: what it looks at is its own
//! copy, which a worker cannot change behind its back.

mod batch;
mod error;
mod process;

use std::path::PathBuf;
use std::time::Duration;

use vestibule_protocol::digest::{Digest, unhex};
use vestibule_protocol::job::Limits;
use vestibule_protocol::release::Released;
use vestibule_protocol::round::{Plan, Round, Statistic};
use vestibule_sandbox::{Pages, Shape, Slowest, Step};

use self::batch::{BATCH_BYTES, BATCH_PARTITIONS};
pub use self::batch::{Each, sent_again};
use self::error::refused;
pub use self::error::{Refusal, WorkerError};
use self::process::{Process, spawn};
use crate::confine::Walls;
use crate::deadline::Until;
use crate::message::{Bytes, Command, First, Rehearsals, Reply, Said, receive, send};
use crate::rest::{Rest, Resting};
use crate::rows::{contribution_bytes, partition_bytes};
use crate::shared::REGION;
use crate::watch::Seen;

/// What a worker has for a call that sees nobody's data, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a site lets such a call take, where its settings say nothing else.
pub const PUBLIC_PATIENCE: Duration = Duration::from_secs(30);
/// How much further from its turn a worker is that [steps back](Worker::step_back): where processors are short, it gets a third of what
/// others get (each step is a quarter).
const STEPS_BACK: i32 = 5;

/// How workers are started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program, which must call [`crate::serve`] when given the arguments.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Launch {
    /// This very program, as the kernel knows it: also when its file was replaced since. `instance_mib`: what one instance may have.
    #[must_use]
    pub fn this_program(instance_mib: u32) -> Self {
        Self::of("/proc/self/exe".into(), instance_mib)
    }

    /// Another program that has the same command.
    #[must_use]
    pub fn of(program: PathBuf, instance_mib: u32) -> Self {
        // An instance, the one before it that is being cleared, the public calls' gigabyte, and room to compile in.
        let memory_mib = instance_mib.saturating_mul(2).saturating_add(3_072);
        Self { program, arguments: vec!["worker".to_owned(), "--memory-mib".to_owned(), memory_mib.to_string()] }
    }
}

/// A worker process, and the batch that it is to do. Dropping it ends the process.
pub struct Worker {
    /// With whom it rests, if it does: gone before the process is.
    resting: Option<Resting>,
    process: Process,
    engine: Digest,
    walls: Walls,
    /// How long a call may take that sees nobody's data.
    public: Duration,
    lengths: Vec<usize>,
    batch_partitions: usize,
    /// The most that a partition may take, of the worker's own time.
    limit: Duration,
    /// Partitions of the batch that is being filled.
    filled: Vec<u8>,
    partitions: usize,
    /// Where the partition that is being filled begins, and how many individuals it has.
    open: Option<(usize, usize)>,
    /// What the last batch contributed: our own copy.
    found: Vec<u8>,
}

impl Worker {
    /// Starts one, and waits until its walls are up.
    ///
    /// # Errors
    /// [`WorkerError::Start`], [`WorkerError::Lost`].
    pub fn start(launch: &Launch) -> Result<Self, WorkerError> {
        let mut process = spawn(launch).map_err(WorkerError::Start)?;
        let Reply::Ready(engine, mut walls) = process.hear()? else { return Err(WorkerError::Lost) };
        process.link.set_read_timeout(Some(PATIENCE)).map_err(WorkerError::Start)?;
        if !process.eyes.open() {
            walls.tried.push(("hide from the daemon what its time goes to".to_owned(), false));
        }
        Ok(Self {
            resting: None,
            process,
            engine: Digest::from_bytes(unhex(&engine).ok_or(WorkerError::Lost)?),
            walls,
            public: PATIENCE,
            lengths: vec![],
            batch_partitions: 1,
            limit: PATIENCE,
            filled: vec![],
            partitions: 0,
            open: None,
            found: vec![],
        })
    }

    /// What decides how it compiles.
    #[must_use]
    pub const fn engine(&self) -> Digest {
        self.engine
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Whether the process is there still.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// How long it has waited for a processor so far, by the kernel's account.
    pub fn waited(&mut self) -> Duration {
        self.process.eyes.look().map_or(Duration::ZERO, Seen::waited)
    }

    /// From now on, no call that sees nobody's data may take longer than that.
    pub const fn allow(&mut self, time: Duration) {
        self.public = time;
    }

    /// From now on it rests while rounds run: for work that sees nobody's data.
    ///
    /// # Errors
    /// The kernel does not know the process: it has ended.
    pub fn rest(&mut self, rest: &Rest) -> Result<(), WorkerError> {
        self.resting = Some(rest.join(self.id()).map_err(WorkerError::Start)?);
        Ok(())
    }

    /// It is a round's from now on, and works while that runs.
    pub fn wake(&mut self) {
        self.resting = None;
    }

    /// Lets others go first where processors are short: for work that is done beside rounds. It does not come forward again.
    pub fn step_back(&self) {
        // Where that is not possible, it works as fast as all others.
        let id = i32::try_from(self.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = id.map(|id| rustix::process::setpriority_process(Some(id), STEPS_BACK));
    }

    /// What it found when it tried its walls.
    #[must_use]
    pub const fn walls(&self) -> &Walls {
        &self.walls
    }

    fn ask(&mut self, command: &Command<'_>) -> Result<Reply<'static>, WorkerError> {
        self.process.tell(command)?;
        self.process.hear()
    }

    /// Asks for what sees nobody's data, and ends the worker that has not answered by then.
    fn ask_public(&mut self, call: &'static str, command: &Command<'_>) -> Result<Reply<'static>, WorkerError> {
        let rest = self.resting.as_ref().map(Resting::of);
        let _call = rest.map(Rest::call);
        let mut link = Until::new(&self.process.link, self.public, rest);
        let answer = send(&mut link, command).and_then(|()| receive(&mut link));
        let over = link.is_over();
        match answer {
            Ok(reply) => {
                self.process.link.set_read_timeout(Some(PATIENCE)).map_err(|_| WorkerError::Lost)?;
                self.process.link.set_write_timeout(None).map_err(|_| WorkerError::Lost)?;
                Ok(reply)
            }
            Err(_) => {
                // What it would say later is no answer to what is asked next.
                let _ = self.process.child.kill();
                Err(if over { WorkerError::TooSlow { call, seconds: self.public.as_secs() } } else { WorkerError::Lost })
            }
        }
    }

    /// Looks at a component: whether it is one that could be run.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the component's.
    pub fn inspect(&mut self, component: &[u8]) -> Result<Result<(), Refusal>, WorkerError> {
        match self.ask_public("looking at the component", &Command::Inspect(Bytes(component.into())))? {
            Reply::Done => Ok(Ok(())),
            other => refused(other).map(Err),
        }
    }

    /// Compiles a component. The worker has then seen bytes of a stranger: start another for what comes next.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the component's.
    pub fn compile(&mut self, component: &[u8]) -> Result<Result<Vec<u8>, Refusal>, WorkerError> {
        match self.ask_public("compiling the component", &Command::Compile(Bytes(component.into())))? {
            Reply::Code(Bytes(code)) => Ok(Ok(code.into_owned())),
            other => refused(other).map(Err),
        }
    }

    /// Loads the code that [`Worker::compile`] returned for this component, of a worker with the same engine.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the component's.
    pub fn load(&mut self, code: &[u8], component: &[u8]) -> Result<Result<(), Refusal>, WorkerError> {
        let command = Command::Load { code: Bytes(code.into()), component: Bytes(component.into()) };
        match self.ask_public("loading the component", &command)? {
            Reply::Done => Ok(Ok(())),
            other => refused(other).map(Err),
        }
    }

    /// Runs `plan`.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the analysis'.
    pub fn plan(&mut self, params: &str, limits: Limits) -> Result<Result<Plan, Refusal>, WorkerError> {
        match self.ask_public("`plan`", &Command::Plan(params.to_owned(), limits))? {
            Reply::Plan(json) => {
                let plan: Plan = serde_json::from_slice(&json).map_err(|_| WorkerError::Lost)?;
                plan.checked().map(Ok).map_err(|_| WorkerError::Lost)
            }
            other => refused(other).map(Err),
        }
    }

    /// Runs `next`.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the analysis'.
    pub fn next(
        &mut self,
        params: &str,
        (shape, history): (&Shape, &[Vec<Released>]),
        limits: Limits,
    ) -> Result<Result<Step, Refusal>, WorkerError> {
        let known = serde_json::to_vec(&(shape, history)).map_err(|_| WorkerError::Lost)?;
        match self.ask_public("`next`", &Command::Next(params.to_owned(), Bytes(known.into()), limits))? {
            Reply::Step(Bytes(json)) => step(&json).map(Ok).ok_or(WorkerError::Lost),
            other => refused(other).map(Err),
        }
    }

    /// Measures how slow this machine is, for guests of so much memory.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn measure(&mut self, memory_mib: u32) -> Result<Slowest, WorkerError> {
        match self.ask(&Command::Measure(memory_mib))? {
            Reply::Measured(slowest) => Ok(slowest),
            _ => Err(WorkerError::Lost),
        }
    }

    /// Bakes a round's state into the component that was [loaded](Self::load), and compiles that. The worker has then seen bytes of a stranger:
    /// start another for what comes next.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the analysis'.
    pub fn bake(&mut self, round: &Round, limits: Limits) -> Result<Result<Vec<u8>, Refusal>, WorkerError> {
        let request = serde_json::to_vec(round.request()).map_err(|_| WorkerError::Lost)?;
        match self.ask_public("`prepare`", &Command::Bake(Bytes(request.into()), limits))? {
            Reply::Code(Bytes(code)) => Ok(Ok(code.into_owned())),
            other => refused(other).map(Err),
        }
    }

    /// Takes in a round, by the code that [`Worker::bake`] of a worker with the same engine returned
    /// for it, and rehearses it. `shape`: individuals of a partition at most, values and dosages of
    /// each. What it found is for [`Worker::follow`].
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the code's.
    pub fn rehearse(
        &mut self,
        code: &[u8],
        round: &Round,
        limits: Limits,
        shape: (usize, usize, usize),
        rehearsals: &Rehearsals,
    ) -> Result<Result<Pages, Refusal>, WorkerError> {
        self.round(code, round, limits, shape, First::Rehearse(rehearsals.clone()))
    }

    /// Takes in a round as another did, which has rehearsed it and found `pages`.
    ///
    /// # Errors
    /// As [`Worker::rehearse`].
    pub fn follow(
        &mut self,
        code: &[u8],
        round: &Round,
        limits: Limits,
        shape: (usize, usize, usize),
        pages: &Pages,
    ) -> Result<Result<(), Refusal>, WorkerError> {
        Ok(self.round(code, round, limits, shape, First::Lay(pages.clone()))?.map(drop))
    }

    /// The most that a partition may take of the worker's own time; then it counts as one whose
    /// guest failed.
    pub const fn limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    fn round(
        &mut self,
        code: &[u8],
        round: &Round,
        limits: Limits,
        (individuals, values, dosages): (usize, usize, usize),
        first: First,
    ) -> Result<Result<Pages, Refusal>, WorkerError> {
        self.lengths = round.statistics().iter().map(Statistic::given).collect();
        let bytes = partition_bytes(individuals, values, dosages).max(contribution_bytes(&self.lengths));
        if bytes as u64 > REGION {
            return Err(WorkerError::TooLarge);
        }
        self.batch_partitions = (BATCH_BYTES / bytes.max(1)).clamp(1, BATCH_PARTITIONS);
        let batch_bytes = bytes.saturating_mul(self.batch_partitions);
        // All that a batch takes is there before the first one.
        self.filled.reserve(batch_bytes);
        self.found.reserve(batch_bytes);
        let lengths: Result<_, _> = self.lengths.iter().map(|&length| u32::try_from(length)).collect();
        let lengths = lengths.map_err(|_| WorkerError::TooLarge)?;
        let round = Command::Round { code: Bytes(code.into()), lengths, limits, first, batch_bytes: batch_bytes as u64 };
        match self.ask_public("rehearsing `contribute`", &round)? {
            Reply::Room(pages) => Ok(Ok(pages)),
            other => refused(other).map(Err),
        }
    }
}

/// A step as a worker says it, checked as if a guest did.
fn step(json: &[u8]) -> Option<Step> {
    Some(match serde_json::from_slice(json).ok()? {
        Said::Round(request) => Step::Round(Round::check(request).ok()?),
        Said::Report(report) => Step::Report(report.checked().ok()?),
    })
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.id())
    }
}
