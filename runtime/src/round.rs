//! Steps 9 and 10 together: every partition of a dataset through a fresh instance, into exact sums.
//!
//! *In*: a dataset, what is selected of it, and a [`Runner`]. *Out*: [`Sums`]. All cores: threads take row groups as they come
//! free, which moves no result, since integer sums do not depend on order. *Refuses*: to go on after a fault of the host, or
//! when told to stop. A fault of a guest is a contribution of nothing and is not counted anywhere.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vestibule_protocol::calibration::Calibrated;
use vestibule_sandbox::{Contributions, Detail, Failure, Runner, Value as GuestValue};

use crate::dataset::{Dataset, Selection, Value};
use crate::reduce::Sums;

/// Why there are no sums. None of it may leave the site other than as the one fixed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundFailure {
    /// The host could not do its part: memory, address space, a sum out of range.
    #[error("the host failed while the round ran")]
    Host,
    /// The dataset could not be read.
    #[error("the dataset could not be read")]
    Dataset,
    /// The job was cancelled or the site is stopping.
    #[error("the round was stopped")]
    Stopped,
}

impl RoundFailure {
    /// A stable code for the site's own log.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Host => "host-fault",
            Self::Dataset => "dataset-fault",
            Self::Stopped => "stopped",
        }
    }
}

/// Where a dry run hears of guests' faults, by partition. At a site there is none.
pub(crate) type Faults<'a> = &'a (dyn Fn(usize, Detail) + Sync);

/// Runs a round over a whole dataset on `threads` threads.
///
/// # Errors
/// See [`RoundFailure`].
pub fn run(
    dataset: &Dataset,
    selection: &Selection,
    runner: &Runner,
    calibrated: &[Calibrated],
    threads: usize,
    stop: &AtomicBool,
) -> Result<Sums, RoundFailure> {
    run_with(dataset, selection, runner, calibrated, threads, stop, None)
}

pub(crate) fn run_with(
    dataset: &Dataset,
    selection: &Selection,
    runner: &Runner,
    calibrated: &[Calibrated],
    threads: usize,
    stop: &AtomicBool,
    faults: Option<Faults<'_>>,
) -> Result<Sums, RoundFailure> {
    let groups = dataset.row_groups();
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let worker = || {
        let mut sums = Sums::zeros(calibrated);
        let mut row = Row::default();
        let mut first = 0;
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                return Ok(sums);
            }
            let rows = dataset.read(selection, group).map_err(|_| RoundFailure::Dataset)?;
            for index in 0..rows.len() {
                if stop.load(Ordering::Relaxed) || failed.load(Ordering::Relaxed) {
                    return Err(RoundFailure::Stopped);
                }
                rows.fill(index, &mut row.values, &mut row.dosages);
                row.convert();
                let found = match runner.contribute(&row.guest, &row.dosages) {
                    Ok(contributions) => Some(contributions),
                    Err(Failure::Guest(detail)) => {
                        if let (Some(faults), Some(detail)) = (faults, detail) {
                            faults(first + index, detail);
                        }
                        None
                    }
                    Err(Failure::Refused(_) | Failure::Host(_)) => return Err(RoundFailure::Host),
                };
                sums.add(calibrated, found.as_ref().map(Contributions::as_slice)).map_err(|_| RoundFailure::Host)?;
            }
            first += rows.len();
        }
    };
    let guarded = || worker().inspect_err(|_| failed.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, groups.max(1))).map(|_| scope.spawn(guarded)).collect();
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
struct Row {
    values: Vec<Value>,
    dosages: Vec<u8>,
    guest: Vec<GuestValue>,
}

impl Row {
    /// The values as the sandbox takes them.
    fn convert(&mut self) {
        self.guest.clear();
        self.guest.extend(self.values.iter().map(|value| match *value {
            Value::Missing => GuestValue::Missing,
            Value::Number(number) => GuestValue::Number(number),
            Value::Level(level) => GuestValue::Level(level),
            Value::Flag(flag) => GuestValue::Flag(flag),
            Value::Day(day) => GuestValue::Day(day),
        }));
    }
}
