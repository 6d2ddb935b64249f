//! Work that sees nobody's data rests while data is read.
//!
//! *In*: rounds that begin, and whose moments have come; worker processes that do public work. *Out*:
//! those processes stopped meanwhile, and a clock that stands still as long. Two processes that share a
//! machine slow each other down: what public work took, beside a round, would tell when the round ended,
//! and so would a decision that depends on how long it took. *Trusts*: the kernel's SIGSTOP, which no
//! process can refuse.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long calls that rested work before the next round begins: of rounds without a pause between
/// them, they would never end. One of ten seconds lets ten rounds wait for a second each.
const TURN: Duration = Duration::from_secs(1);
/// How often it is looked whether they have ended sooner.
const LOOK: Duration = Duration::from_millis(5);

/// Who rests, and since when. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Rest(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Rounds that have begun, and whose moment has not come.
    rounds: usize,
    since: Option<Instant>,
    /// How long all rested before that, and when they woke last.
    rested: Duration,
    woke: Option<Instant>,
    /// Calls that somebody waits for.
    calls: usize,
    joined: u64,
    processes: Vec<(u64, OwnedFd)>,
}

impl State {
    fn rested(&self) -> Duration {
        self.rested.saturating_add(self.since.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    /// Whether calls that rested have not had their turn.
    fn owes(&self) -> bool {
        self.calls > 0 && self.since.is_none() && self.woke.is_some_and(|woke| woke.elapsed() < TURN)
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

/// A call of public work, for as long as it takes.
#[derive(Debug)]
pub(crate) struct Call<'a>(&'a Rest);

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

    /// Waits until calls that rested have ended, or worked for a second: for a
    /// round that is to begin.
    /// How long that takes follows from public work alone.
    pub async fn turn(&self) {
        while self.state().owes() {
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn call(&self) -> Call<'_> {
        let mut state = self.state();
        state.calls = state.calls.saturating_add(1);
        Call(self)
    }

    /// How long public work has rested so far.
    #[must_use]
    pub fn rested(&self) -> Duration {
        self.state().rested()
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

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.calls = state.calls.saturating_sub(1);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.rounds = state.rounds.saturating_sub(1);
        if state.rounds == 0 {
            state.rested = state.rested();
            state.since = None;
            state.woke = Some(Instant::now());
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
        assert!(rest.rested() > Duration::ZERO);
        // What is a round's own works.
        drop(other);
        until(&two, false);
        drop(second);
        until(&one, false);
        let rested = rest.rested();
        assert_eq!(rest.rested(), rested, "the clock goes on");
        drop(resting);
        let third = rest.round();
        until(&one, false);
        drop(third);
        for child in [&mut one, &mut two] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn calls_that_rested_have_a_turn_before_the_next_round() {
        let rest = Rest::default();
        let call = rest.call();
        // None has rested yet.
        assert!(!rest.state().owes());
        drop(rest.round());
        assert!(rest.state().owes());
        let begun = Instant::now();
        rest.turn().await;
        assert!(begun.elapsed() >= TURN / 2 && !rest.state().owes(), "it works on, and has had its turn");
        drop(rest.round());
        assert!(rest.state().owes());
        drop(call);
        // It has ended: nobody waits for it.
        rest.turn().await;
        assert!(!rest.state().owes());
        // Beside a round that runs, another may begin at once.
        let (_call, _round) = (rest.call(), rest.round());
        assert!(!rest.state().owes());
    }
}
