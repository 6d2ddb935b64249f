//! The default: as many threads as there are processors, each with a worker process that runs guests.

use std::time::Duration;

use super::{Ask, Executor, ExecutorError, Work};
use crate::delay::Delay;
use crate::reduce::Sums;
use crate::round::{self, RoundFailure};

/// So many.
#[derive(Debug)]
pub(super) struct Threads(pub(super) usize);

impl Executor for Threads {
    fn check(&self, _: &Ask<'_>) -> Result<(), ExecutorError> {
        Ok(())
    }

    fn run(&self, work: Work<'_>) -> Result<Sums, RoundFailure> {
        let Ask { rows, selection, partitions, calibrated, .. } = work.ask;
        // No more than there are pieces, which is public.
        let crews = work.guests.crews(self.0.min(round::pieces(rows, partitions).count))?;
        round::run(rows, selection, partitions, crews, calibrated)
    }

    fn hides_moments(&self) -> bool {
        false
    }

    fn latest(&self, delay: &Delay) -> Duration {
        delay.latest()
    }
}
