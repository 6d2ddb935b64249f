//! The default: as many threads as there are processors, each with a worker process that runs guests.

use std::time::Duration;

use super::{Ask, Executor, ExecutorError, Work, fits};
use crate::delay::Delay;
use crate::reduce::Sums;
use crate::round::{self, RoundFailure};

/// So many, which together may take so much memory for a round.
#[derive(Debug)]
pub(super) struct Threads {
    pub(super) threads: usize,
    pub(super) most_mib: u64,
}

impl Executor for Threads {
    fn check(&self, ask: &Ask<'_>) -> Result<(), ExecutorError> {
        fits(ask.memory().of_threads(self.threads), self.most_mib)
    }

    fn run(&self, work: Work<'_>) -> Result<Sums, RoundFailure> {
        let Ask { rows, selection, partitions, calibrated, .. } = work.ask;
        // No more than there are pieces, which is public.
        let crews = work.guests.crews(self.threads.min(round::pieces(rows, partitions).count))?;
        round::run(rows, selection, partitions, crews, calibrated)
    }

    fn hides_moments(&self) -> bool {
        false
    }

    fn latest(&self, delay: &Delay) -> Duration {
        delay.latest()
    }
}
