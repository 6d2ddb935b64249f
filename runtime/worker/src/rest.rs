//! Work that sees nobody's data rests while data is read.
//!
//! *In*: rounds that begin, and whose moments have come; worker processes that do public work. *Out*:
//! those processes stopped meanwhile, and a clock that stands still as long. Two processes that share a
//! machine slow each other down: what public work took, beside a round, would tell when the round ended,
//! and so would whatever is decided by how long it took. *Trusts*: the kernel's SIGSTOP, which no process
//! can refuse.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Who rests, and since when. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Rest(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Rounds that have begun, and whose moment has not come.
    rounds: usize,
    since: Option<Instant>,
    /// How long all rested before that.
    rested: Duration,
    joined: u64,
    processes: Vec<(u64, OwnedFd)>,
}

impl State {
    fn rested(&self) -> Duration {
        self.rested.saturating_add(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    fn tell(&self, signal: Signal) {
        for (_, process) in &self.processes {
            // One that is gone rests.
            let _ = pidfd_send_signal(process, signal);
        }
    }
}

/// A round: while it is held, all public work rests.
#[derive(Debug)]
pub struct Running(Rest);

/// A process that rests with the others.
#[derive(Debug)]
pub(crate) struct Resting {
    of: Rest,
    number: u64,
}

impl Rest {
    /// A round begins. To be held until its moment has come, not only until it has ended.
    #[must_use]
    pub fn round(&self) -> Running {
        let mut state = self.state();
        state.rounds = state.rounds.saturating_add(1);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            state.tell(Signal::STOP);
        }
        Running(self.clone())
    }

    /// How long public work has rested so far.
    #[must_use]
    pub fn rested(&self) -> Duration {
        self.state().rested()
    }

    /// Whether it rests now.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.state().since.is_some()
    }

    /// From now on a process, which is a child of this one, rests with the others.
    pub(crate) fn join(&self, process: u32) -> std::io::Result<Resting> {
        let process = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let mut state = self.state();
        if state.since.is_some() {
            pidfd_send_signal(&process, Signal::STOP)?;
        }
        state.joined = state.joined.saturating_add(1);
        let number = state.joined;
        state.processes.push((number, process));
        Ok(Resting { of: self.clone(), number })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics with the lock held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resting {
    pub(crate) const fn of(&self) -> &Rest {
        &self.of
    }
}

/// It works again, whether others rest or not: it is a round's from now on, or has ended.
impl Drop for Resting {
    fn drop(&mut self) {
        let mut state = self.of.state();
        let place = state.processes.iter().position(|(number, _)| *number == self.number);
        if let Some((_, process)) = place.map(|place| state.processes.swap_remove(place)) {
            let _ = pidfd_send_signal(&process, Signal::CONT);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.rounds = state.rounds.saturating_sub(1);
        if state.rounds == 0 {
            state.rested = state.rested();
            state.since = None;
            state.tell(Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    /// Waits until it is stopped, or works: the third field of its `stat` (proc(5)).
    fn until(child: &Child, stopped: bool) {
        let path = format!("/proc/{}/stat", child.id());
        let is = || std::fs::read_to_string(&path).unwrap().rsplit(") ").next().unwrap().starts_with('T');
        let began = Instant::now();
        while is() != stopped {
            assert!(began.elapsed() < Duration::from_secs(20), "it is to be stopped: {stopped}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn public_work_rests_from_the_first_round_to_the_last_moment() {
        let (rest, mut one, mut two) = (Rest::default(), child(), child());
        let resting = rest.join(one.id()).unwrap();
        until(&one, false);
        let first = rest.round();
        until(&one, true);
        // Also what begins meanwhile.
        let other = rest.join(two.id()).unwrap();
        until(&two, true);
        let second = rest.round();
        drop(first);
        until(&one, true);
        assert!(rest.rests() && rest.rested() > Duration::ZERO);
        // What is a round's own works.
        drop(other);
        until(&two, false);
        drop(second);
        until(&one, false);
        let rested = rest.rested();
        assert!(!rest.rests() && rest.rested() == rested, "the clock goes on");
        drop(resting);
        let third = rest.round();
        until(&one, false);
        drop(third);
        for child in [&mut one, &mut two] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
