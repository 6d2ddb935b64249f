//! The daemon's end of a worker: it starts the process, tells it what to do, and believes nothing that comes back.
//!
//! *In*: public terms, and rows. *Out*: plans and contributions, checked for shape; what they say is for the reducer to clamp.
//! *Refuses*: whatever is not an answer, by ending the worker. Memory is shared through a sealed file that both ends read and write and
//! neither maps: what the daemon looks at is its own copy, which a worker cannot change behind its back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vestibule_protocol::digest::{Digest, unhex};
use vestibule_protocol::job::Limits;
use vestibule_protocol::release::Released;
use vestibule_protocol::round::{Plan, Round, Statistic};
use vestibule_sandbox::{Given, Shape, Step, Value};

use crate::confine::Walls;
use crate::deadline::Until;
use crate::message::{Bytes, Command, Reply, Said, receive, send};
use crate::rows::{Reader, contribution_bytes, end_partition, partition_bytes, put_partition, put_row};

/// Bytes for rows, and as many for contributions. Pages that are not touched take no memory.
pub(crate) const REGION: u64 = 512 << 20;
/// Where contributions lie.
pub(crate) const OUT_OFFSET: u64 = REGION;
/// Most bytes of a batch, either way, where a row takes less than that.
const BATCH_BYTES: usize = 8 << 20;
/// Most partitions of a batch: how soon a round that failed elsewhere ends.
const BATCH_PARTITIONS: usize = 256;
/// Fuel of a batch, so that its time is bounded: about a minute.
const BATCH_FUEL: u64 = 60_000_000_000;
/// A worker that says nothing for this long is gone. Far above what fuel allows a batch, so that no guest can reach it.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// A worker that has not put its walls up by then does not.
const STARTING: Duration = Duration::from_secs(60);
/// What a call may take that sees nobody's data, where nothing else is said.
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

/// The analysis refused, in words made of public input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable code.
    pub code: &'static str,
    /// Why.
    pub message: String,
}

/// Codes that a worker may give: those of the sandbox.
const CODES: [&str; 9] = [
    "component-unreadable",
    "component-imports",
    "component-not-analysis",
    "component-unbakeable",
    "component-too-complex",
    "component-too-large",
    "analysis-refused",
    "analysis-trapped",
    "analysis-unusable",
];

/// A worker that cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It could not be started.
    #[error("a worker process could not be started: {0}")]
    Start(std::io::Error),
    /// It died, hung, or said what no worker says.
    #[error("a worker process was lost")]
    Lost,
    /// A call that sees nobody's data took longer than it may.
    #[error("{call} took longer than {seconds} s, which is all that a call before any data has here: let it do less")]
    TooSlow {
        /// What was called, in words.
        call: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// One partition's rows, or what a guest may contribute for it, are larger than a worker takes.
    #[error("a partition of this round is larger than a worker takes: ask for more blocks, or for fewer columns and variants")]
    TooLarge,
}

impl WorkerError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Start(_) => "worker-start",
            Self::Lost => "worker-lost",
            Self::TooSlow { .. } => "analysis-too-slow",
            Self::TooLarge => "worker-row-too-large",
        }
    }
}

/// Takes one partition's contributions; `None` where the guest failed.
pub type Each<'a, E> = dyn FnMut(Option<&[Given<'_>]>) -> Result<(), E> + 'a;

/// A worker process. Dropping it ends the process.
pub struct Worker {
    child: Child,
    link: UnixStream,
    memory: File,
    engine: Digest,
    walls: Walls,
    /// How long a call may take that sees nobody's data.
    public: Duration,
    lengths: Vec<usize>,
    batch_partitions: usize,
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
        let (child, link, memory) = spawn(launch).map_err(WorkerError::Start)?;
        let (engine, walls) = (Digest::from_bytes([0; 32]), Walls { landlock: false, seccomp: false, tried: vec![] });
        let (lengths, filled, found, open) = (vec![], vec![], vec![], None);
        let mut worker = Self {
            child,
            link,
            memory,
            engine,
            walls,
            public: PUBLIC_PATIENCE,
            lengths,
            batch_partitions: 1,
            filled,
            partitions: 0,
            open,
            found,
        };
        let Reply::Ready(engine, walls) = worker.hear()? else { return Err(WorkerError::Lost) };
        worker.link.set_read_timeout(Some(PATIENCE)).map_err(WorkerError::Start)?;
        worker.engine = Digest::from_bytes(unhex(&engine).ok_or(WorkerError::Lost)?);
        worker.walls = walls;
        Ok(worker)
    }

    /// What decides how it compiles.
    #[must_use]
    pub const fn engine(&self) -> Digest {
        self.engine
    }

    /// Whether the process is there still.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// From now on, no call that sees nobody's data may take longer than that.
    pub const fn allow(&mut self, time: Duration) {
        self.public = time;
    }

    /// Lets others go first where processors are short: for work that is done beside rounds. It does not come forward again.
    pub fn step_back(&self) {
        // Where that is not possible, it works as fast as all others.
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = id.map(|id| rustix::process::setpriority_process(Some(id), STEPS_BACK));
    }

    /// What it found when it tried its walls.
    #[must_use]
    pub const fn walls(&self) -> &Walls {
        &self.walls
    }

    fn hear(&mut self) -> Result<Reply<'static>, WorkerError> {
        receive(&mut self.link).map_err(|_| WorkerError::Lost)
    }

    fn ask(&mut self, command: &Command<'_>) -> Result<Reply<'static>, WorkerError> {
        send(&mut self.link, command).map_err(|_| WorkerError::Lost)?;
        self.hear()
    }

    /// Asks for what sees nobody's data, and ends the worker that has not answered by then.
    fn ask_public(&mut self, call: &'static str, command: &Command<'_>) -> Result<Reply<'static>, WorkerError> {
        let mut link = Until::new(&self.link, self.public);
        let answer = send(&mut link, command).and_then(|()| receive(&mut link));
        let over = link.is_over();
        match answer {
            Ok(reply) => {
                self.link.set_read_timeout(Some(PATIENCE)).map_err(|_| WorkerError::Lost)?;
                self.link.set_write_timeout(None).map_err(|_| WorkerError::Lost)?;
                Ok(reply)
            }
            Err(_) => {
                // What it would say later is no answer to what is asked next.
                let _ = self.child.kill();
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

    /// Takes in a round, by the code that [`Worker::bake`] of a worker with the same engine returned for it, whose partitions have up to so many
    /// individuals, each of so many values and dosages.
    ///
    /// # Errors
    /// [`WorkerError`]. The inner error is the code's.
    pub fn round(
        &mut self,
        code: &[u8],
        round: &Round,
        limits: Limits,
        (individuals, values, dosages): (usize, usize, usize),
    ) -> Result<Result<(), Refusal>, WorkerError> {
        self.lengths = round.statistics().iter().map(Statistic::given).collect();
        let bytes = partition_bytes(individuals, values, dosages).max(contribution_bytes(&self.lengths));
        if bytes as u64 > REGION {
            return Err(WorkerError::TooLarge);
        }
        let by_fuel = usize::try_from(BATCH_FUEL / limits.fuel_per_partition.max(1)).unwrap_or(BATCH_PARTITIONS);
        self.batch_partitions = (BATCH_BYTES / bytes.max(1)).min(BATCH_PARTITIONS).min(by_fuel).max(1);
        let lengths: Result<_, _> = self.lengths.iter().map(|&length| u32::try_from(length)).collect();
        let lengths = lengths.map_err(|_| WorkerError::TooLarge)?;
        match self.ask(&Command::Round { code: Bytes(code.into()), lengths, limits })? {
            Reply::Done => Ok(Ok(())),
            other => refused(other).map(Err),
        }
    }

    /// Adds one individual to the partition that is being filled.
    pub fn push(&mut self, values: &[Value], dosages: &[u8]) {
        let (at, individuals) = self.open.unwrap_or_else(|| (put_partition(&mut self.filled), 0));
        put_row(&mut self.filled, values, dosages);
        self.open = Some((at, individuals.saturating_add(1)));
    }

    /// Ends the partition, which may be empty. `true` when the batch is full and must be [run](Self::run).
    pub fn close(&mut self) -> bool {
        let (at, individuals) = self.open.take().unwrap_or_else(|| (put_partition(&mut self.filled), 0));
        end_partition(&mut self.filled, at, individuals);
        self.partitions = self.partitions.saturating_add(1);
        self.partitions >= self.batch_partitions
    }

    /// Runs the batch: `contribute` in a fresh instance for each partition. Hands each one's contributions to `each`, in order;
    /// `None` where the guest failed.
    ///
    /// # Errors
    /// [`WorkerError`]; what `each` returns.
    pub fn run<E: From<WorkerError>>(&mut self, each: &mut Each<'_, E>) -> Result<(), E> {
        let partitions = std::mem::take(&mut self.partitions);
        if partitions == 0 {
            return Ok(());
        }
        self.exchange(partitions)?;
        let mut reader = Reader(&self.found);
        let mut found = Vec::with_capacity(self.lengths.len());
        for _ in 0..partitions {
            let some = reader.contributions(&self.lengths, &mut found).ok_or(WorkerError::Lost)?;
            each(some.then_some(found.as_slice()))?;
        }
        Ok(())
    }

    /// The batch there, and what it contributed back.
    fn exchange(&mut self, partitions: usize) -> Result<(), WorkerError> {
        let wrote = self.memory.write_all_at(&self.filled, 0);
        let bytes = self.filled.len() as u64;
        self.filled.clear();
        wrote.map_err(|_| WorkerError::Lost)?;
        let sent = u32::try_from(partitions).map_err(|_| WorkerError::Lost)?;
        let Reply::Batch(bytes) = self.ask(&Command::Batch { partitions: sent, bytes })? else { return Err(WorkerError::Lost) };
        let most = contribution_bytes(&self.lengths).saturating_mul(partitions) as u64;
        if bytes > most.min(REGION) {
            return Err(WorkerError::Lost);
        }
        self.found.resize(usize::try_from(bytes).map_err(|_| WorkerError::Lost)?, 0);
        self.memory.read_exact_at(&mut self.found, OUT_OFFSET).map_err(|_| WorkerError::Lost)
    }
}

fn spawn(launch: &Launch) -> std::io::Result<(Child, UnixStream, File)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(STARTING))?;
    let memory = File::from(memfd_create("vestibule-rows", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    memory.set_len(REGION.saturating_mul(2))?;
    // Neither end may make it shorter, which would end the other, or longer, which would fill the machine.
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let child = Program::new(&launch.program)
        .args(&launch.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::from(memory.try_clone()?))
        .stderr(Stdio::null())
        // A Ctrl-C at the daemon's terminal is for the daemon: a running round runs to its end.
        .process_group(0)
        .spawn()?;
    Ok((child, ours, memory))
}

/// A step as a worker says it, checked as if a guest did.
fn step(json: &[u8]) -> Option<Step> {
    Some(match serde_json::from_slice(json).ok()? {
        Said::Round(request) => Step::Round(Round::check(request).ok()?),
        Said::Report(report) => Step::Report(report.checked().ok()?),
    })
}

/// A refusal as the worker words it: one of the sandbox's codes, and text fit for a terminal.
fn refused(reply: Reply<'_>) -> Result<Refusal, WorkerError> {
    let Reply::Refused(code, message) = reply else { return Err(WorkerError::Lost) };
    let code = CODES.into_iter().find(|known| *known == code).ok_or(WorkerError::Lost)?;
    let message = message.chars().take(4_000).map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    Ok(Refusal { code, message })
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already, or going now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.child.id())
    }
}
