//! The worker process: from its first instruction to its last.
//!
//! *In*: commands on standard input, which is a socket; rows in standard output, which is a memory file. *Out*: replies, and
//! contributions behind the rows. It confines itself before it hears the first command. *Trusts*: the daemon. It ends when the
//! daemon does, or when anything is not as it should be.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use vestibule_protocol::job::Limits;
use vestibule_protocol::release::Released;
use vestibule_protocol::round::Round;
use vestibule_sandbox::{
    Alone, Analysis, Contributions, Failure, Ground, Individual, Inspection, LoadError, Room, Sandbox, Settings, Shape, Step,
    Swap,
};

use crate::confine;
use crate::message::{Bytes, Command, First, Rehearsals, Reply, Said, receive, send};
use crate::rows::{Partitions, put_contributions};
use crate::shared::{At, REGION, Shared};

/// Runs the worker until the daemon hangs up. `memory_mib`: what all its instances together may hold.
#[must_use]
pub fn serve(memory_mib: u32) -> ExitCode {
    confine::limit(u64::from(memory_mib).saturating_mul(1 << 20));
    // Nobody reads what a worker would print.
    std::panic::set_hook(Box::new(|_| ()));
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<()> {
    let mut link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let memory = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    // No file can be read later.
    let settings = settings(Swap::here());
    let sandbox = Sandbox::new(settings.clone()).map_err(Error::other)?;
    let ground = Ground::new().ok();
    // Where memory is short, a worker goes and not the daemon: it is replaced. Where the kernel has no such word, so be it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    let mut shared = Shared::map(&memory)?;
    shared.progress(At::Reading, 0);
    let walls = confine::enter(confine::Role::Guests);
    send(&mut link, &Reply::Ready(sandbox.engine_digest().hex(), walls))?;
    let mut worker = Process {
        sandbox,
        settings,
        memory,
        shared,
        ground,
        analysis: None,
        guests: None,
        lengths: vec![],
        input: vec![],
        out: vec![],
    };
    loop {
        let command: Command<'_> = receive(&mut link)?;
        let reply = worker.answer(command)?;
        send(&mut link, &reply)?;
    }
}

fn step(said: &Said) -> Result<Reply<'static>> {
    Ok(Reply::Step(Bytes(serde_json::to_vec(said)?.into())))
}

const fn settings(swap: Swap) -> Settings {
    Settings { threads: 1, max_memory_mib: 1_024, cache: None, symbols: false, parallel_compilation: false, alone: true, swap }
}

struct Process {
    sandbox: Sandbox,
    settings: Settings,
    memory: File,
    shared: Shared,
    /// Taken by the round.
    ground: Option<Ground>,
    analysis: Option<Analysis>,
    guests: Option<Alone>,
    /// Of the round's statistics.
    lengths: Vec<usize>,
    /// Buffers of a batch, used again for the next.
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Process {
    fn answer(&mut self, command: Command<'_>) -> Result<Reply<'static>> {
        let refused = |code: &str, why: &dyn std::fmt::Display| Reply::Refused(code.to_owned(), why.to_string());
        Ok(match command {
            Command::Compile(Bytes(component)) => match self.sandbox.compile(&component) {
                Ok(code) => Reply::Code(Bytes(code.into())),
                Err(error) => refused(error.code(), &error),
            },
            Command::Load { code: Bytes(code), component: Bytes(component) } => {
                // SAFETY: the daemon sends only code that a worker of the same engine returned from `compile`, under a seal of the
                // site's own; and should it not be that, it runs here, behind the walls, where nothing has been seen yet.
                #[expect(unsafe_code, reason = "argued above")]
                let loaded = unsafe { self.sandbox.load_compiled(&code, &component) };
                match loaded {
                    Ok(analysis) => {
                        self.analysis = Some(analysis);
                        Reply::Done
                    }
                    Err(error) => refused(error.code(), &error),
                }
            }
            Command::Plan(params, limits) => match self.analysis()?.plan(&params, limits) {
                Ok(plan) => Reply::Plan(serde_json::to_vec(&plan)?),
                Err(error) => refused(error.code(), &error),
            },
            Command::Bake(Bytes(request), limits) => {
                let round = Round::check(serde_json::from_slice(&request)?).map_err(Error::other)?;
                match self.analysis()?.bake(&round, limits) {
                    Ok(code) => Reply::Code(Bytes(code.into())),
                    Err(error) => refused(error.code(), &error),
                }
            }
            Command::Inspect(Bytes(component)) => match vestibule_sandbox::inspect(&component) {
                Ok(Inspection { imports, .. }) => match imports.into_iter().next() {
                    None => Reply::Done,
                    Some(import) => {
                        let error = LoadError::Import { import };
                        refused(error.code(), &error)
                    }
                },
                Err(error) => refused(error.code(), &error),
            },
            Command::Next(params, Bytes(known), limits) => {
                let (shape, history): (Shape, Vec<Vec<Released>>) = serde_json::from_slice(&known)?;
                match self.analysis()?.next(&params, &shape, &history, limits) {
                    Ok(Step::Round(round)) => step(&Said::Round(round.request().clone()))?,
                    Ok(Step::Report(report)) => step(&Said::Report(report))?,
                    Err(error) => refused(error.code(), &error),
                }
            }
            Command::Round { code: Bytes(code), lengths, limits, first, batch_bytes } => {
                self.shared.lay(usize::try_from(batch_bytes.min(REGION)).map_err(Error::other)?);
                self.input.reserve(usize::try_from(batch_bytes.min(REGION)).map_err(Error::other)?);
                match first {
                    First::Rehearse(rehearsals) => self.rehearse(code.into_owned(), &lengths, limits, &rehearsals)?,
                    First::Lay(pages) => self.round(code.into_owned(), &lengths, limits, Room::Laid(pages))?,
                }
            }
            Command::Measure(memory_mib) => match vestibule_sandbox::measure(memory_mib, self.settings.swap) {
                Ok(slowest) => Reply::Measured(slowest),
                Err(_) => Reply::Fault,
            },
            Command::Batch { partitions, bytes, skip } => self.batch(partitions, bytes, skip)?,
        })
    }

    fn analysis(&self) -> Result<&Analysis> {
        self.analysis.as_ref().ok_or_else(|| Error::other("no analysis was loaded"))
    }

    fn rehearse(&mut self, code: Vec<u8>, lengths: &[u32], limits: Limits, rehearsals: &Rehearsals) -> Result<Reply<'static>> {
        let partitions = Partitions::read(&rehearsals.rows, rehearsals.partitions);
        let partitions = partitions.ok_or_else(|| Error::other("no partitions to rehearse with"))?;
        let individuals = partitions.shown();
        let rehearsals: Vec<Vec<Individual<'_>>> =
            partitions.each().map(|each| individuals.get(each).unwrap_or_default().to_vec()).collect();
        self.round(code, lengths, limits, Room::Rehearsed(&rehearsals))
    }

    fn round(&mut self, code: Vec<u8>, lengths: &[u32], limits: Limits, room: Room<'_>) -> Result<Reply<'static>> {
        self.lengths = lengths.iter().map(|&length| length as usize).collect();
        let entries = self.lengths.iter().fold(0, |sum: usize, length| sum.saturating_add(*length));
        let ground = self.ground.take().ok_or_else(|| Error::other("another round was taken in"))?;
        // SAFETY: as with `Load`: the daemon sends what a worker of the same engine, which had seen no data, returned from `bake`.
        #[expect(unsafe_code, reason = "argued above")]
        let loaded = unsafe { Alone::new(ground, self.settings.clone(), code, entries, limits, room) };
        Ok(match loaded {
            Ok(guests) => {
                let pages = guests.pages().clone();
                self.guests = Some(guests);
                Reply::Room(pages)
            }
            Err(error) => Reply::Refused(error.code().to_owned(), error.to_string()),
        })
    }

    fn batch(&mut self, partitions: u32, bytes: u64, skip: u32) -> Result<Reply<'static>> {
        let Self { memory, shared, guests, lengths, input, out, .. } = self;
        let guests = guests.as_mut().ok_or_else(|| Error::other("no round was taken in"))?;
        input.resize(usize::try_from(bytes.min(REGION)).map_err(Error::other)?, 0);
        memory.read_exact_at(input, 0)?;
        let read = Partitions::read(input, partitions).ok_or_else(|| Error::other("a row is cut short"))?;
        let individuals = read.shown();
        let (mut done, mut reach) = (0_u64, 0_usize);
        // What the batch takes to be read is nobody's time.
        shared.progress(At::Partition(done), 0);
        for each in read.each().skip(skip as usize) {
            out.clear();
            match guests.contribute(individuals.get(each).unwrap_or_default()) {
                Ok(found) => put_contributions(out, Some(Contributions::as_slice(&found)), lengths),
                Err(Failure::Guest(_)) => put_contributions(out, None, lengths),
                Err(Failure::Host(_)) => return Ok(Reply::Fault),
            }
            shared.put(reach, out)?;
            reach = reach.saturating_add(out.len());
            // What the instance left is given back in its own time.
            guests.settle().map_err(Error::other)?;
            done = done.saturating_add(1);
            shared.progress(At::Partition(done), reach as u64);
        }
        Ok(Reply::Batch(reach as u64))
    }
}
