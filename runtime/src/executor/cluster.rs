//! A round as tasks of a cluster, whichever it is.
//!
//! *In*: [`Work`], a [`Queue`]. *Out*: [`Sums`], each task's counted once. *Trusts*: sums that open with the round's key. *Refuses*: to go on
//! after a task was lost too often, or after too long; when the daemon is to stop, the round is left to run again. However it ends, no task of it
//! stays in the queue and its folder is removed; of a daemon that was killed, by the next one.
//!
//! None of the moments seen here tells anything of a row: tasks end after delays of their own (see `task`), and what a queue does with
//! tasks does not depend on what they found.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vestibule_protocol::digest::{Digest, hex};

use super::afterwards::Afterwards;
use super::folder::{ROWS, RoundFolder, Shared};
use super::seal::{RoundId, TAG_BYTES};
use super::task::{Found, Tasks, found, part, program};
use super::tracker::{Step, Tracker};
use super::{Ask, ClusterSettings, Executor, ExecutorError, Work, fits};
use crate::delay::Delay;
use crate::reduce::Sums;
use crate::round::RoundFailure;
use crate::round::memory::mib;

/// A cluster's queue.
pub(super) trait Queue: Send + Sync + std::fmt::Debug {
    /// Whether it would take so many tasks.
    fn check(&self, tasks: u32, need: Need) -> Result<(), String>;
    /// Submits these tasks of a round.
    fn submit(&self, round: &Submission<'_>, tasks: &BTreeSet<u32>) -> Result<(), String>;
    /// The tasks of a round that it has: waiting, running, or ending.
    fn queued(&self, name: &str) -> Result<BTreeSet<u32>, String>;
    /// Ends all tasks of a round. None is no error.
    fn cancel(&self, name: &str) -> Result<(), String>;
}

/// What a task is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) minutes: u64,
    pub(super) memory_mib: u64,
}

/// A round, as a queue knows it.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    /// Random.
    pub(super) name: &'a str,
    pub(super) folder: &'a Path,
    pub(super) need: Need,
}

/// Rounds as tasks.
#[derive(Debug)]
pub(super) struct Cluster<Q> {
    settings: ClusterSettings,
    queue: Q,
    shared: Shared,
    /// The digest of the program that nodes are to run.
    program: Digest,
    running: Mutex<BTreeSet<RoundId>>,
    most_mib: u64,
    stop: CancellationToken,
}

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What a task takes besides its guests and its delay: to start, to compile, to write.
const SPARE_MINUTES: u64 = 10;

impl<Q: Queue> Cluster<Q> {
    pub(super) fn new(
        settings: ClusterSettings,
        queue: Q,
        (most_mib, stop): (u64, CancellationToken),
    ) -> Result<Self, ExecutorError> {
        let shared = Shared::open(&settings.folder)?;
        // Where it is another file on this machine, or none: what runs here.
        let program = std::fs::read(&settings.program).map(|bytes| Digest::of(&bytes)).or_else(|_| program());
        let program =
            program.map_err(|error| ExecutorError::Program { path: settings.program.clone(), why: error.to_string() })?;
        let cluster = Self { settings, queue, shared, program, running: Mutex::default(), most_mib, stop };
        cluster.clean();
        let usual = Need { minutes: SPARE_MINUTES, memory_mib: 512 };
        if let Err(why) = cluster.queue.check(cluster.settings.tasks, usual) {
            tracing::error!(why, "the cluster would not run a task; until it would, no round is begun");
        }
        Ok(cluster)
    }

    /// Ends what a daemon that was killed has left in the queue, and removes its folders.
    fn clean(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rounds = self.shared.rounds().unwrap_or_else(|error| {
            tracing::error!(%error, "the folder that is shared with the cluster cannot be read");
            vec![]
        });
        for id in rounds.into_iter().filter(|id| !running.contains(id)) {
            self.end(id);
        }
    }

    /// Leaves nothing of a round. What fails is tried again before the next one.
    fn end(&self, id: RoundId) {
        let cancelled = self.queue.cancel(&hex(&id));
        let removed = cancelled.and_then(|()| self.shared.remove(id).map_err(|error| error.to_string()));
        if let Err(why) = removed {
            tracing::error!(why, "what a round has left at the cluster cannot be removed yet");
        }
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Into how many tasks so many pieces are cut.
    fn tasks(&self, pieces: usize) -> u32 {
        u32::try_from(pieces).unwrap_or(u32::MAX).clamp(1, self.settings.tasks)
    }

    /// What a task of this round needs at most, and how many there are.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "minutes; saturates"
    )]
    fn need(&self, ask: &Ask<'_>) -> (u32, Need) {
        let (pieces, each_us) = ask.pieces_us();
        let tasks = self.tasks(pieces);
        let threads = self.settings.cpus_per_task as usize;
        let longest = (0..tasks).map(|task| part(pieces, tasks, task).len()).max().unwrap_or(0);
        // Threads take pieces as they come free: the last begins when the others are busy, at the latest.
        let runs = longest.div_ceil(threads.max(1)).saturating_add(1) as f64;
        // Twice the delays' shifts: but for a chance of 10^-15, none is longer.
        let seconds = runs * each_us / 1e6 + 2.0 * Afterwards::longest(&ask.delay, Delay::expected, threads).as_secs_f64();
        let minutes = ((seconds / 60.0).ceil() as u64).saturating_add(SPARE_MINUTES);
        (tasks, Need { minutes, memory_mib: mib(ask.memory().of_task(threads)) })
    }

    fn write(&self, folder: &RoundFolder, work: &Work<'_>, pieces: usize, tasks: u32) -> std::io::Result<()> {
        // Of rows in a bucket: what was fetched is what nodes are given.
        crate::round::fetch(work.ask.rows, work.ask.selection, work.ask.partitions).map_err(std::io::Error::other)?;
        let told = Tasks {
            program: *self.program.as_bytes(),
            rows: work.ask.rows.share(folder.dir(), ROWS)?,
            selection: work.ask.selection.clone(),
            partitions: work.ask.partitions,
            calibrated: work.ask.calibrated.to_vec(),
            guests: work.guests.portable(),
            delay: work.ask.delay.of_task(),
            pieces,
            tasks,
            threads: self.settings.cpus_per_task as usize,
        };
        // In one piece from the start: one that grows leaves the version's key in memory that is
        // given back.
        let bytes = postcard::experimental::serialized_size(&told).map_err(std::io::Error::other)?;
        let room = Vec::with_capacity(bytes.saturating_add(TAG_BYTES));
        folder.tell(postcard::to_extend(&told, room).map_err(std::io::Error::other)?)
    }

    /// Until every task's sums are there.
    fn gather(
        &self,
        work: &Work<'_>,
        folder: &RoundFolder,
        tasks: u32,
        submission: &Submission<'_>,
    ) -> Result<Sums, RoundFailure> {
        let begun = Instant::now();
        let patience = Duration::from_secs(self.settings.give_up_minutes.saturating_mul(60));
        let pause = Duration::from_secs(self.settings.poll_seconds.into());
        let mut tracker = Tracker::new(tasks, self.settings.attempts);
        let mut total = Sums::total(work.ask.calibrated, work.ask.summed_variants())?;
        let most = work.ask.partial_bytes();
        let mut asked: Option<Instant> = None;
        loop {
            if self.stop.is_cancelled() {
                return Err(RoundFailure::Interrupted);
            }
            let ask = asked.is_none_or(|at| at.elapsed() >= pause);
            if ask {
                match asked.map(|_| self.queue.queued(submission.name)) {
                    Some(Ok(queued)) => tracker.queued(&queued),
                    Some(Err(why)) => tracing::warn!(why, "the cluster's queue does not answer"),
                    None => {}
                }
                asked = Some(Instant::now());
            }
            for task in tracker.open() {
                if let Some(sums) = look(work, folder, (task, most))? {
                    total.merge(&sums?).map_err(|_| RoundFailure::Host)?;
                    tracker.done(task);
                }
            }
            match tracker.step() {
                Step::Done => return Ok(total),
                Step::Submit(tasks) if ask => match self.queue.submit(submission, &tasks) {
                    Ok(()) => {
                        tracing::info!(round = submission.name, tasks = tasks.len(), "tasks were submitted");
                        tracker.submitted(&tasks);
                    }
                    Err(why) => tracing::warn!(why, "tasks could not be submitted; trying again"),
                },
                Step::Lost(task) => {
                    let said = folder.said(task);
                    tracing::error!(round = submission.name, task, said, "a task was lost too often");
                    return Err(RoundFailure::Executor);
                }
                Step::Submit(_) | Step::Wait => {}
            }
            if begun.elapsed() >= patience {
                tracing::error!(round = submission.name, "the cluster took too long");
                return Err(RoundFailure::Executor);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// What a task found, if it is there, in so many bytes at most.
fn look(work: &Work<'_>, folder: &RoundFolder, (task, most): (u32, usize)) -> Result<Option<Found>, RoundFailure> {
    let plain = folder.partial(task, most).map_err(|error| {
        tracing::error!(%error, "a task's sums cannot be read");
        RoundFailure::Executor
    })?;
    let Some(plain) = plain else { return Ok(None) };
    // It has our key, and says what no task says.
    found(&plain, work.ask.calibrated, work.ask.summed_variants()).map(Some).ok_or(RoundFailure::Executor)
}

/// Ends a round at the cluster, whatever becomes of it here.
struct Ending<'a, Q: Queue>(&'a Cluster<Q>, RoundId);

impl<Q: Queue> Drop for Ending<'_, Q> {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

impl<Q: Queue> Executor for Cluster<Q> {
    fn check(&self, ask: &Ask<'_>) -> Result<(), ExecutorError> {
        let (memory, threads) = (ask.memory(), self.settings.cpus_per_task as usize);
        fits(memory.of_gathering().max(memory.of_threads(threads)), self.most_mib)?;
        let (tasks, need) = self.need(ask);
        let most = self.settings.longest_minutes;
        if need.minutes > most {
            return Err(ExecutorError::TooLong { asked: need.minutes, most });
        }
        self.queue.check(tasks, need).map_err(ExecutorError::Refused)
    }

    fn run(&self, work: Work<'_>) -> Result<Sums, RoundFailure> {
        self.clean();
        let fault = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "a round's tasks cannot be prepared");
            RoundFailure::Executor
        };
        let (pieces, _) = work.ask.pieces_us();
        let (tasks, need) = self.need(&work.ask);
        let (id, folder) = {
            // Locked, so that no other round takes this one for one that was left.
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let (id, folder) = self.shared.round().map_err(|error| fault(&error))?;
            running.insert(id);
            (id, folder)
        };
        let _ending = Ending(self, id);
        self.write(&folder, &work, pieces, tasks).map_err(|error| fault(&error))?;
        let name = hex(&id);
        self.gather(&work, &folder, tasks, &Submission { name: &name, folder: folder.path(), need })
    }

    fn hides_moments(&self) -> bool {
        true
    }

    /// Rounds see that the daemon stops, and take their tasks back. How long that takes follows
    /// from the queue; tasks' ends, which are noised, are all that it could show.
    fn leave(&self, patience: Duration) {
        let begun = Instant::now();
        let left = || !self.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        while left() && begun.elapsed() < patience {
            std::thread::sleep(LOOK);
        }
    }

    fn latest(&self, delay: &Delay) -> Duration {
        let waves = self.settings.tasks.div_ceil(self.settings.tasks_at_once.max(1));
        Afterwards::longest(delay, Delay::latest, self.settings.cpus_per_task as usize).saturating_mul(waves)
    }
}
