//! Which of a round's tasks are to be submitted, waited for, or given up: a function of what was seen, and of nothing else.
//!
//! *In*: which tasks have left their sums, and which the cluster still has. *Out*: [`Step`]. *Trusts*: sums that opened; not that the cluster
//! knows best: a task that it no longer has and that left nothing is lost, and is run again, so many times.

use std::collections::BTreeSet;

/// A round's tasks.
#[derive(Debug)]
pub(super) struct Tracker {
    tasks: Vec<State>,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
struct State {
    done: bool,
    /// How often it was submitted.
    runs: u32,
    /// How often in a row the cluster did not have it, since it was submitted last.
    missing: u32,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Submit these.
    Submit(BTreeSet<u32>),
    /// Wait, and look again.
    Wait,
    /// All are done.
    Done,
    /// This one was lost too often.
    Lost(u32),
}

/// A task counts as lost when the cluster did not have it this often in a row: a shared file system may show a file later than the queue
/// forgets the task.
const MISSING: u32 = 3;

impl Tracker {
    pub(super) fn new(tasks: u32, attempts: u32) -> Self {
        Self { tasks: vec![State { done: false, runs: 0, missing: 0 }; tasks as usize], attempts }
    }

    /// Sums of this task were read.
    pub(super) fn done(&mut self, task: u32) {
        if let Some(state) = self.tasks.get_mut(task as usize) {
            state.done = true;
        }
    }

    /// Those whose sums were not read.
    pub(super) fn open(&self) -> BTreeSet<u32> {
        self.numbered().filter(|(_, state)| !state.done).map(|(task, _)| task).collect()
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &State)> {
        (0..).zip(&self.tasks)
    }

    /// These were submitted.
    pub(super) fn submitted(&mut self, tasks: &BTreeSet<u32>) {
        for task in tasks {
            if let Some(state) = self.tasks.get_mut(*task as usize) {
                state.runs = state.runs.saturating_add(1);
                state.missing = 0;
            }
        }
    }

    /// The cluster has these, after it was seen which are done.
    pub(super) fn queued(&mut self, queued: &BTreeSet<u32>) {
        for (task, state) in (0..).zip(&mut self.tasks) {
            state.missing = if queued.contains(&task) { 0 } else { state.missing.saturating_add(1) };
        }
    }

    pub(super) fn step(&self) -> Step {
        let open = || self.numbered().filter(|(_, state)| !state.done);
        let to_run = |state: &State| state.runs == 0 || state.missing >= MISSING;
        if open().next().is_none() {
            return Step::Done;
        }
        if let Some((task, _)) = open().find(|(_, state)| to_run(state) && state.runs >= self.attempts) {
            return Step::Lost(task);
        }
        let tasks: BTreeSet<u32> = open().filter(|(_, state)| to_run(state)).map(|(task, _)| task).collect();
        if tasks.is_empty() { Step::Wait } else { Step::Submit(tasks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tasks: &[u32]) -> BTreeSet<u32> {
        tasks.iter().copied().collect()
    }

    #[test]
    fn tasks_are_submitted_once_and_waited_for() {
        let mut tracker = Tracker::new(3, 2);
        assert_eq!(tracker.step(), Step::Submit(set(&[0, 1, 2])));
        // It could not be submitted: again.
        assert_eq!(tracker.step(), Step::Submit(set(&[0, 1, 2])));
        tracker.submitted(&set(&[0, 1, 2]));
        for _ in 0..9 {
            tracker.queued(&set(&[0, 1, 2]));
            assert_eq!(tracker.step(), Step::Wait);
        }
        tracker.done(1);
        tracker.queued(&set(&[0, 2]));
        assert_eq!((tracker.step(), tracker.open()), (Step::Wait, set(&[0, 2])));
        tracker.done(0);
        tracker.done(2);
        assert_eq!(tracker.step(), Step::Done);
        // What nobody asked for moves nothing.
        tracker.done(7);
        tracker.submitted(&set(&[9]));
        assert_eq!(tracker.step(), Step::Done);
    }

    #[test]
    fn a_lost_task_is_run_again_so_often() {
        let mut tracker = Tracker::new(2, 2);
        tracker.submitted(&set(&[0, 1]));
        tracker.done(0);
        // Its sums may be seen later than its end.
        tracker.queued(&set(&[]));
        tracker.queued(&set(&[]));
        assert_eq!(tracker.step(), Step::Wait);
        // Requeued: the cluster has it again.
        tracker.queued(&set(&[1]));
        tracker.queued(&set(&[]));
        tracker.queued(&set(&[]));
        assert_eq!(tracker.step(), Step::Wait);
        tracker.queued(&set(&[]));
        assert_eq!(tracker.step(), Step::Submit(set(&[1])));
        tracker.submitted(&set(&[1]));
        assert_eq!(tracker.step(), Step::Wait);
        for _ in 0..MISSING {
            tracker.queued(&set(&[]));
        }
        assert_eq!(tracker.step(), Step::Lost(1));
        // It had only been slow.
        tracker.done(1);
        assert_eq!(tracker.step(), Step::Done);
    }
}
