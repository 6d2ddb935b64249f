//! Steps 9 and 10 together: every partition of a dataset through a fresh instance, into exact sums.
//!
//! *In*: a dataset, what is selected of it, and [`Crew`]s that run guests. *Out*: [`Sums`]. All cores: threads take row groups as they come
//! free, which moves no result, since integer sums do not depend on order. *Refuses*: to go on after a fault of the host, or
//! when told to stop. A fault of a guest is a contribution of nothing and is not counted anywhere.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vestibule_protocol::calibration::Calibrated;
use vestibule_sandbox::{Contributions, Detail, Failure, Runner, Value as GuestValue};
use vestibule_worker::Each;

use crate::dataset::{Dataset, RowGroup, Selection, Value};
use crate::reduce::Sums;

/// Why there are no sums. None of it may leave the site other than as the one fixed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundFailure {
    /// The host could not do its part: memory, address space, a sum out of range.
    #[error("the host failed while the round ran")]
    Host,
    /// A worker process was lost, or could not be started.
    #[error("a worker process failed while the round ran")]
    Worker,
    /// The dataset could not be read.
    #[error("the dataset could not be read")]
    Dataset,
    /// Another thread failed.
    #[error("the round was stopped")]
    Stopped,
}

impl RoundFailure {
    /// A stable code for the site's own log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Host => "host-fault",
            Self::Worker => "worker-fault",
            Self::Dataset => "dataset-fault",
            Self::Stopped => "stopped",
        }
    }
}

/// Who runs guests: rows in, contributions out. One thread has one crew.
pub trait Crew: Send {
    /// Runs every row of a group, the first of which is the dataset's row `first`, and hands each one's contributions to `each`, in
    /// order; `None` where the guest failed. Asks now and then whether to stop.
    ///
    /// # Errors
    /// A fault of the host, or what `each` returns.
    fn group(
        &mut self,
        rows: &RowGroup,
        first: usize,
        stopped: &dyn Fn() -> bool,
        each: &mut Each<'_, RoundFailure>,
    ) -> Result<(), RoundFailure>;
}

/// Where a dry run hears of its guests. At a site there are none.
#[derive(Clone, Copy)]
pub(crate) struct Ears<'a> {
    /// Faults, by partition.
    pub(crate) fault: &'a (dyn Fn(usize, Detail) + Sync),
    /// What each took.
    pub(crate) fuel: &'a (dyn Fn(u64) + Sync),
}

/// Guests in this very process: for dry runs on one's own data, and to measure what the second wall costs.
struct Here<'a> {
    runner: Runner,
    ears: Option<Ears<'a>>,
    row: Row,
}

/// That many crews in this very process.
#[must_use]
pub fn here(runner: &Runner, count: usize) -> Vec<Box<dyn Crew>> {
    here_with(runner, count, None)
}

pub(crate) fn here_with<'a>(runner: &Runner, count: usize, ears: Option<Ears<'a>>) -> Vec<Box<dyn Crew + 'a>> {
    let crew = || Box::new(Here { runner: runner.clone(), ears, row: Row::default() }) as Box<dyn Crew + 'a>;
    (0..count.max(1)).map(|_| crew()).collect()
}

impl Crew for Here<'_> {
    fn group(
        &mut self,
        rows: &RowGroup,
        first: usize,
        stopped: &dyn Fn() -> bool,
        each: &mut Each<'_, RoundFailure>,
    ) -> Result<(), RoundFailure> {
        for index in 0..rows.len() {
            if stopped() {
                return Err(RoundFailure::Stopped);
            }
            self.row.fill(rows, index);
            let found = match self.runner.contribute(self.row.values(), self.row.dosages()) {
                Ok(contributions) => {
                    if let Some(ears) = self.ears {
                        (ears.fuel)(contributions.fuel());
                    }
                    Some(contributions)
                }
                Err(Failure::Guest(detail)) => {
                    if let (Some(ears), Some(detail)) = (self.ears, detail) {
                        (ears.fault)(first.saturating_add(index), detail);
                    }
                    None
                }
                Err(Failure::Refused(_) | Failure::Host(_)) => return Err(RoundFailure::Host),
            };
            each(found.as_ref().map(Contributions::given).as_deref())?;
        }
        Ok(())
    }
}

/// Runs a round over a whole dataset, one thread for each crew.
///
/// # Errors
/// See [`RoundFailure`].
pub fn run(
    dataset: &Dataset,
    selection: &Selection,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
) -> Result<Sums, RoundFailure> {
    let groups = dataset.row_groups();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let stopped = || failed.load(Ordering::Relaxed);
    let work = |mut crew: Box<dyn Crew + '_>| {
        let mut sums = Sums::zeros(calibrated);
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                return Ok(sums);
            }
            if stopped() {
                return Err(RoundFailure::Stopped);
            }
            let rows = dataset.read(selection, group).map_err(|_| RoundFailure::Dataset)?;
            let first = dataset.rows_before(group);
            crew.group(&rows, first, &stopped, &mut |found| sums.add(calibrated, found).map_err(|_| RoundFailure::Host))?;
        }
    };
    let guarded = |crew| work(crew).inspect_err(|_| failed.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let workers: Vec<_> = crews.into_iter().map(|crew| scope.spawn(|| guarded(crew))).collect();
        let mut total = Sums::zeros(calibrated);
        let mut failure = None;
        for worker in workers {
            match worker.join().unwrap_or(Err(RoundFailure::Host)) {
                Ok(sums) => total.merge(&sums).map_err(|_| RoundFailure::Host)?,
                // A thread that stopped because another failed does not hide why.
                Err(RoundFailure::Stopped) => failure = failure.or(Some(RoundFailure::Stopped)),
                Err(other) => failure = Some(other),
            }
        }
        failure.map_or(Ok(total), Err)
    })
}

/// Buffers for one partition, used again for the next.
#[derive(Default)]
pub(crate) struct Row {
    cells: Vec<Value>,
    values: Vec<GuestValue>,
    dosages: Vec<u8>,
}

impl Row {
    /// One individual's row, over what was there.
    pub(crate) fn fill(&mut self, rows: &RowGroup, index: usize) {
        rows.fill(index, &mut self.cells, &mut self.dosages);
        self.values.clear();
        self.values.extend(self.cells.iter().map(|value| match *value {
            Value::Missing => GuestValue::Missing,
            Value::Number(number) => GuestValue::Number(number),
            Value::Level(level) => GuestValue::Level(level),
            Value::Flag(flag) => GuestValue::Flag(flag),
            Value::Day(day) => GuestValue::Day(day),
        }));
    }

    /// As the sandbox takes them.
    pub(crate) fn values(&self) -> &[GuestValue] {
        &self.values
    }

    pub(crate) fn dosages(&self) -> &[u8] {
        &self.dosages
    }
}
