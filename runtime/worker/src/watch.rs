//! How long a worker has been at one partition, in time of its own.
//!
//! *In*: how far it is, and what the kernel says of it (`/proc/PID/schedstat`, `stat`), at every
//! look. *Out*: whether its partition has taken longer than is allowed. *Trusts*: the kernel, and
//! nothing that the worker says but that it went on. Reading a batch has a limit of its own: it is
//! no partition's time.
//!
//! Time of its own is time on a processor, and time asleep. A worker that waits for a processor,
//! because the machine is busy with others, is not held responsible for that; nor is one that was
//! stopped together with this process, since only looks count, not clocks. What cannot be told
//! apart (a worker that is ready to run now may have slept before) is allowed [`DOUBT`] more.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::time::Duration;

use crate::shared::At;

/// What reading a batch may take, and for each byte besides: many times what it takes.
const READING: Duration = Duration::from_millis(100);
const READING_BYTE: Duration = Duration::from_nanos(20);
/// Time that may have been waiting for a processor.
const DOUBT: Duration = Duration::from_secs(1);

/// What the kernel says of a process: nanoseconds that it ran, and that it waited for a processor
/// (Documentation/scheduler/sched-stats), and whether it is ready to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    ran: u64,
    waited: u64,
    ready: bool,
}

impl Seen {
    pub(crate) const fn waited(self) -> Duration {
        Duration::from_nanos(self.waited)
    }
}

/// A process that is looked at.
#[derive(Debug)]
pub(crate) struct Eyes {
    /// `None`: this kernel does not say it.
    schedule: Option<File>,
    state: Option<File>,
}

impl Eyes {
    /// On a process that was just started.
    pub(crate) fn on(process: u32) -> Self {
        let open = |name: &str| File::open(format!("/proc/{process}/{name}")).ok();
        Self { schedule: open("schedstat"), state: open("stat") }
    }

    /// Whether the kernel says what a process' time goes to.
    pub(crate) const fn open(&self) -> bool {
        self.schedule.is_some() && self.state.is_some()
    }

    pub(crate) fn look(&mut self) -> Option<Seen> {
        let schedule = read(self.schedule.as_mut()?)?;
        let mut numbers = schedule.split_ascii_whitespace().map(str::parse);
        let (ran, waited) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let state = read(self.state.as_mut()?)?;
        let ready = state.rsplit_once(')')?.1.trim_start().starts_with('R');
        Some(Seen { ran, waited, ready })
    }
}

fn read(file: &mut File) -> Option<String> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The watch over one batch.
#[derive(Debug)]
pub(crate) struct Watch {
    limit: Duration,
    reading: Duration,
    /// What it was at when looked at last.
    at: Option<At>,
    /// At the first look at this partition; `None`: nothing is known.
    first: Option<Seen>,
    /// Looks' pauses since.
    passed: Duration,
}

impl Watch {
    /// `limit`: the most that one partition may take. `bytes`: of the batch.
    pub(crate) fn new(limit: Duration, bytes: usize) -> Self {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let reading = READING.saturating_add(READING_BYTE.saturating_mul(bytes));
        Self { limit, reading, at: None, first: None, passed: Duration::ZERO }
    }

    /// How often to look.
    pub(crate) fn pause(limit: Duration) -> Duration {
        (limit / 16).clamp(Duration::from_millis(1), Duration::from_millis(250))
    }

    /// A look, `pause` after the one before. `false`: the partition has taken too long, or the worker
    /// says that it is further back than it was.
    pub(crate) fn look(&mut self, at: At, now: Option<Seen>, pause: Duration) -> bool {
        match self.at.map(At::number) {
            Some(before) if at.number() < before => return false,
            Some(before) if at.number() == before => {}
            _ => {
                self.at = Some(at);
                (self.first, self.passed) = (now, Duration::ZERO);
                return true;
            }
        }
        self.passed = self.passed.saturating_add(pause);
        let limit = if at == At::Reading { self.reading } else { self.limit };
        let doubtful = limit.saturating_add(DOUBT);
        // Nothing is known: all of it may have been waiting.
        let Some((first, now)) = self.first.zip(now) else { return self.passed <= doubtful };
        let ran = Duration::from_nanos(now.ran.saturating_sub(first.ran));
        // What it waits now is not in it yet, where it is ready to run.
        let waited = Duration::from_nanos(now.waited.saturating_sub(first.waited));
        let own = self.passed.saturating_sub(waited);
        ran <= limit && own <= if now.ready { doubtful } else { limit }
    }
}

/// How much longer than its limit a partition can take until its worker is ended: it can begin just
/// behind a look, and pass the limit just behind another.
#[must_use]
pub fn overlooked(limit: Duration) -> Duration {
    Watch::pause(limit).saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(80);
    const PAUSE: Duration = Duration::from_millis(10);

    /// Looks until the partition has taken too long, `each` after the other: how often.
    fn looks(each: impl Fn(u64) -> (u64, Option<Seen>)) -> Option<u64> {
        let mut watch = Watch::new(LIMIT, 0);
        (0..1_000).find(|look| {
            let (partition, seen) = each(*look);
            !watch.look(At::Partition(partition), seen, PAUSE)
        })
    }

    #[test]
    fn reading_a_batch_is_no_partitions_time() {
        for (bytes, most) in [(0, 11), (1_000_000, 13)] {
            let mut watch = Watch::new(Duration::from_millis(15), bytes);
            let ended = (0..100).find(|look| !watch.look(At::Reading, seen(look * 10, 0, true), PAUSE));
            assert_eq!(ended, Some(most), "{bytes}");
            assert!(watch.look(At::Partition(0), seen(2_000, 0, true), PAUSE), "the first one begins anew");
            assert!(!watch.look(At::Partition(0), seen(2_016, 0, true), PAUSE * 2));
        }
    }

    const fn seen(ran_ms: u64, waited_ms: u64, ready: bool) -> Option<Seen> {
        Some(Seen { ran: ran_ms * 1_000_000, waited: waited_ms * 1_000_000, ready })
    }

    #[test]
    fn a_worker_that_runs_or_sleeps_is_held_to_the_limit() {
        assert_eq!(looks(|look| (0, seen(look * 10, 0, true))), Some(9), "runs");
        assert_eq!(looks(|_| (0, seen(0, 0, false))), Some(9), "sleeps");
        assert_eq!(looks(|look| (0, seen(look * 4, 0, false))), Some(9), "some of both");
    }

    #[test]
    fn a_worker_that_waits_for_a_processor_is_not() {
        assert_eq!(looks(|look| (0, seen(look, look * 9, true))), Some(81), "by what it ran alone");
        assert_eq!(looks(|_| (0, seen(0, 0, true))), Some(109), "what is in doubt");
        assert_eq!(looks(|look| (0, seen(0, look * 10, true))), None);
    }

    #[test]
    fn another_partition_begins_anew() {
        assert_eq!(looks(|look| (look / 8, seen(look * 10, 0, true))), None);
        assert_eq!(looks(|look| (look / 11, seen(look * 10, 0, true))), Some(9));
    }

    #[test]
    fn nobody_goes_back_to_begin_anew() {
        for (before, after) in [(At::Partition(2), At::Partition(1)), (At::Partition(0), At::Reading)] {
            let mut watch = Watch::new(LIMIT, 0);
            assert!(watch.look(before, seen(0, 0, true), PAUSE) && !watch.look(after, seen(1, 0, true), PAUSE));
        }
    }

    #[test]
    fn without_the_kernels_word_only_what_is_beyond_doubt_counts() {
        assert_eq!(looks(|_| (0, None)), Some(109));
    }

    #[test]
    fn the_kernel_says_it_of_this_process() {
        // Of its first thread, which is the only one of a worker.
        let mut eyes = Eyes::on(std::process::id());
        assert!(eyes.open() && eyes.look().is_some_and(|seen| seen.ran > 0));
    }
}
