//! The daemon's end of a worker: it starts the process, tells it what to do, and believes nothing that comes back.
//!
//! *In*: public terms, and rows. *Out*: plans and contributions, checked for shape; what they say is for the reducer to clamp.
//! *Refuses*: whatever is not an answer, by ending the worker; and a partition that takes longer than
//! its limit, by ending the worker and going on with another. Memory is shared through a sealed file
//! that the daemon does not map: what it looks at is its own copy, which a worker cannot change
//! behind its back.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vestibule_protocol::digest::{Digest, unhex};
use vestibule_protocol::job::Limits;
use vestibule_protocol::release::Released;
use vestibule_protocol::round::{Plan, Round, Statistic};
use vestibule_sandbox::{Given, Pages, Shape, Slowest, Step, Value};

use crate::confine::Walls;
use crate::deadline::Until;
use crate::message::{Bytes, Command, First, Rehearsals, Reply, Said, receive, send};
use crate::rows::{Reader, contribution_bytes, end_partition, partition_bytes, put_partition, put_row};
use crate::shared::{self, FILE_BYTES, OUT_OFFSET, REGION};
use crate::start::start;
use crate::watch::{Eyes, Seen, Watch};

/// Most bytes of a batch, either way, where a row takes less than that. What of it is left goes to
/// another worker where one is ended, which is in the limit of what one individual can take.
const BATCH_BYTES: usize = 1 << 20;
/// Most partitions of a batch: how soon a round that failed elsewhere ends.
const BATCH_PARTITIONS: usize = 256;
/// More bytes than the reply to a batch takes.
const MOST_SAID: usize = 64;
/// What a worker has for a call that sees nobody's data, where nothing else is said.
const PATIENCE: Duration = Duration::from_secs(120);
/// A worker that has not put its walls up by then does not.
const STARTING: Duration = Duration::from_secs(60);
/// What a site lets such a call take, where its settings say nothing else.
pub const PUBLIC_PATIENCE: Duration = Duration::from_secs(30);
/// How much further from its turn a worker is that [steps back](Worker::step_back): where processors are short, it gets a third of what
/// others get (each step is a quarter).
const STEPS_BACK: i32 = 5;

/// Bytes of rows that go to another worker where one is ended, at most, by how many values and
/// dosages a partition has.
#[must_use]
pub const fn sent_again(inputs: usize) -> usize {
    let bytes = partition_bytes(1, inputs, 0).saturating_mul(BATCH_PARTITIONS);
    if bytes < BATCH_BYTES { bytes } else { BATCH_BYTES }
}

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
const CODES: [&str; 10] = [
    "component-unreadable",
    "component-imports",
    "component-not-analysis",
    "component-unbakeable",
    "component-too-complex",
    "component-unmetered",
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
    /// It died or hung before any data was near, or said what no worker says.
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

/// A worker process, and the batch that it is to do. Dropping it ends the process.
pub struct Worker {
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

    /// Lets others go first where processors are short: for work that is done beside rounds. It does not come forward again.
    pub fn step_back(&self) {
        // Where that is not possible, it works as fast as all others.
        let id = i32::try_from(self.process.child.id()).ok().and_then(rustix::process::Pid::from_raw);
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
        let mut link = Until::new(&self.process.link, self.public);
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

    /// Runs the batch: `contribute` in a fresh instance for each partition. Hands each one's
    /// contributions to `each`, in order; `None` where the guest failed, took longer than the limit,
    /// brought its worker down, or had it say what no worker says: whatever an escaped guest does, it
    /// is that individual's. Then `standby`, a worker that took in the same round, goes on with the
    /// next.
    ///
    /// # Errors
    /// [`WorkerError`]; what `each` returns.
    pub fn run<E: From<WorkerError>>(
        &mut self,
        standby: &mut dyn FnMut() -> Result<Self, WorkerError>,
        each: &mut Each<'_, E>,
    ) -> Result<(), E> {
        let partitions = std::mem::take(&mut self.partitions);
        let mut next = 0;
        while next < partitions {
            let (done, mut alive) = self.exchange(partitions, next)?;
            let mut found = Vec::with_capacity(self.lengths.len());
            let mut reader = Reader(&self.found);
            while next < done {
                let Some(some) = reader.contributions(&self.lengths, &mut found) else {
                    alive = false;
                    break;
                };
                each(some.then_some(found.as_slice()))?;
                next = next.saturating_add(1);
            }
            if alive {
                continue;
            }
            // Whatever became of it, or whatever it said, it is as if it had died there.
            if next < partitions {
                each(None)?;
                next = next.saturating_add(1);
            }
            self.process.end();
            self.process = standby()?.process;
        }
        self.filled.clear();
        Ok(())
    }

    /// The batch there, but for the first ones, and what it contributed back: up to which partition,
    /// and whether the worker did all that it was told and can be told more.
    fn exchange(&mut self, partitions: usize, skip: usize) -> Result<(usize, bool), WorkerError> {
        let lost = |_| WorkerError::Lost;
        self.process.memory.write_all_at(&self.filled, 0).map_err(lost)?;
        shared::begin(&self.process.memory).map_err(lost)?;
        let number = |count: usize| u32::try_from(count).map_err(|_| WorkerError::Lost);
        let (sent, skipped) = (number(partitions)?, number(skip)?);
        let batch = Command::Batch { partitions: sent, bytes: self.filled.len() as u64, skip: skipped };
        let most = partitions.saturating_sub(skip);
        let watch = Watch::new(self.limit, self.filled.len());
        let said = self.process.tell(&batch).and_then(|()| self.process.watch(watch, self.limit, most));
        let (done, bytes, alive) = match said {
            Ok(Some(bytes)) => (most, bytes, true),
            // Too long, gone, or it said what no worker says: what was done before counts.
            Ok(None) | Err(_) => {
                self.process.end();
                let (at, bytes) = shared::progress(&self.process.memory).map_err(lost)?;
                (usize::try_from(at.done()).unwrap_or(most).min(most), bytes, false)
            }
        };
        // A worker that was ended may have put one more partition's.
        let room = contribution_bytes(&self.lengths).saturating_mul(done.saturating_add(1)) as u64;
        self.found.resize(usize::try_from(bytes.min(room).min(REGION)).map_err(|_| WorkerError::Lost)?, 0);
        self.process.memory.read_exact_at(&mut self.found, OUT_OFFSET).map_err(lost)?;
        Ok((skip.saturating_add(done), alive))
    }
}

/// The process, and what ties it to the daemon.
struct Process {
    child: Child,
    link: UnixStream,
    memory: File,
    eyes: Eyes,
}

impl Process {
    fn hear(&mut self) -> Result<Reply<'static>, WorkerError> {
        receive(&mut self.link).map_err(|_| WorkerError::Lost)
    }

    fn tell(&mut self, command: &Command<'_>) -> Result<(), WorkerError> {
        send(&mut self.link, command).map_err(|_| WorkerError::Lost)
    }

    /// Waits for the reply to a batch of so many partitions: how many bytes they contributed. `None`: one of them took too long, or
    /// it said what is no such reply. What it says a little at a time it does not say for longer.
    fn watch(&mut self, mut watch: Watch, limit: Duration, partitions: usize) -> Result<Option<u64>, WorkerError> {
        let pause = Watch::pause(limit);
        let (mut said, mut looked) = (vec![], Instant::now());
        loop {
            let left = pause.saturating_sub(looked.elapsed());
            let timeout = Timespec::try_from(left).map_err(|_| WorkerError::Lost)?;
            let mut ready = [PollFd::new(&self.link, PollFlags::IN)];
            match rustix::event::poll(&mut ready, Some(&timeout)) {
                Ok(0) => {}
                Ok(_) => {
                    let mut bytes = [0; MOST_SAID];
                    let read = self.link.read(&mut bytes).map_err(|_| WorkerError::Lost)?;
                    said.extend_from_slice(bytes.get(..read).unwrap_or_default());
                    match receive(&mut said.as_slice()) {
                        Ok(Reply::Batch(bytes)) => return Ok(Some(bytes)),
                        // More is to come.
                        Err(error) if error.kind() == ErrorKind::UnexpectedEof && read > 0 && said.len() < MOST_SAID => {}
                        Ok(_) | Err(_) => return Ok(None),
                    }
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Err(WorkerError::Lost),
            }
            if looked.elapsed() < pause {
                continue;
            }
            looked = Instant::now();
            let (at, _) = shared::progress(&self.memory).map_err(|_| WorkerError::Lost)?;
            if at.done() > partitions as u64 || !watch.look(at, self.eyes.look(), pause) {
                return Ok(None);
            }
        }
    }

    fn end(&mut self) {
        // Gone already, or going now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(launch: &Launch) -> std::io::Result<Process> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(STARTING))?;
    let memory = File::from(memfd_create("vestibule-rows", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    memory.set_len(FILE_BYTES)?;
    // Neither end may make it shorter, which would end the other, or longer, which would fill the machine.
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mut program = Program::new(&launch.program);
    program
        .args(&launch.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::from(memory.try_clone()?))
        .stderr(Stdio::null())
        // A Ctrl-C at the daemon's terminal is for the daemon.
        .process_group(0);
    let child = start(program)?;
    let eyes = Eyes::on(child.id());
    Ok(Process { child, link: ours, memory, eyes })
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

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({})", self.process.child.id())
    }
}
