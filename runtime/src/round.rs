//! Steps 9 and 10 together: every partition of a dataset through a fresh instance, into exact sums.
//!
//! *In*: a dataset, what is selected of it, and [`Crew`]s that run guests. *Out*: [`Sums`]. All cores: threads take row groups, or
//! runs of blocks, as they come free, which moves no result, since integer sums do not depend on order. *Refuses*: to go on after a fault of the host, or
//! when told to stop. A fault of a guest is a contribution of nothing and is not counted anywhere.

pub(crate) mod memory;

use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::round::Partitioning;
use vestibule_sandbox::{Contributions, Detail, Failure, Given, Individual, Runner, Value as GuestValue};
use vestibule_worker::Each;

use crate::dataset::{DatasetError, GROUP_ROWS, RowGroup, Rows, Selection, Value};
use crate::partitions::{Blocks, Partitions};
use crate::reduce::{SumOverflow, Sums};
use crate::reserve::NoRoom;

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
    /// The cluster lost a task too often, or too long; or what a task left is not what it was to leave.
    #[error("the cluster did not do the round's tasks")]
    Executor,
    /// A node of the cluster runs another program than the daemon.
    #[error("a node of the cluster runs another version of this program")]
    Program,
    /// The daemon stops, and the round runs again when it is there again. Nothing is released, and nothing else is said of it.
    #[error("the round was interrupted, and is to run again")]
    Interrupted,
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
            Self::Executor => "executor-fault",
            Self::Program => "executor-program",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Who runs guests: rows in, contributions out. One thread has one crew.
pub trait Crew: Send {
    /// Adds an individual to the partition that is being filled.
    ///
    /// # Errors
    /// A fault of the host.
    fn row(&mut self, rows: &RowGroup, index: usize) -> Result<(), RoundFailure>;

    /// Ends the partition, whose number a dry run may be told. May run it, and those before it, and hand each one's contributions to
    /// `each`, in order; `None` where the guest failed.
    ///
    /// # Errors
    /// A fault of the host, or what `each` returns.
    fn close(&mut self, partition: usize, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure>;

    /// Runs all that have not run.
    ///
    /// # Errors
    /// A fault of the host, or what `each` returns.
    fn finish(&mut self, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure>;
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
    /// The partition's rows, and behind them buffers of larger ones before.
    rows: Vec<Row>,
    individuals: usize,
}

/// That many crews in this very process.
#[must_use]
pub fn here(runner: &Runner, count: usize) -> Vec<Box<dyn Crew>> {
    here_with(runner, count, None)
}

pub(crate) fn here_with<'a>(runner: &Runner, count: usize, ears: Option<Ears<'a>>) -> Vec<Box<dyn Crew + 'a>> {
    let crew = || Box::new(Here { runner: runner.clone(), ears, rows: vec![], individuals: 0 }) as Box<dyn Crew + 'a>;
    (0..count.max(1)).map(|_| crew()).collect()
}

impl Crew for Here<'_> {
    fn row(&mut self, rows: &RowGroup, index: usize) -> Result<(), RoundFailure> {
        if self.individuals == self.rows.len() {
            self.rows.push(Row::default());
        }
        if let Some(row) = self.rows.get_mut(self.individuals) {
            row.fill(rows, index);
        }
        self.individuals = self.individuals.saturating_add(1);
        Ok(())
    }

    fn close(&mut self, partition: usize, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        let individuals = std::mem::take(&mut self.individuals);
        let shown: Vec<Individual<'_>> = self.rows.iter().take(individuals).map(Row::shown).collect();
        let found = match self.runner.contribute(&shown) {
            Ok(contributions) => {
                if let Some(ears) = self.ears {
                    (ears.fuel)(contributions.fuel());
                }
                Some(contributions)
            }
            Err(Failure::Guest(detail)) => {
                if let (Some(ears), Some(detail)) = (self.ears, detail) {
                    (ears.fault)(partition, detail);
                }
                None
            }
            Err(Failure::Host(_)) => return Err(RoundFailure::Host),
        };
        each(found.as_ref().map(Contributions::given).as_deref())
    }

    fn finish(&mut self, _each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        Ok(())
    }
}

/// What a thread takes at a time, and hands to its crew.
trait Work: Sync {
    /// How many pieces there are. Public.
    fn pieces(&self) -> usize;
    /// Memory for what is read at a time.
    fn room(&self) -> Result<RowGroup, RoundFailure>;
    /// Does one.
    fn piece(
        &self,
        piece: usize,
        crew: &mut dyn Crew,
        stopped: &dyn Fn() -> bool,
        adding: &mut Adding<'_>,
    ) -> Result<(), RoundFailure>;
}

/// What a thread adds to, and what it reads into: all there before its first row.
struct Adding<'a> {
    sums: Sums,
    rows: RowGroup,
    calibrated: &'a [Calibrated],
}

impl From<SumOverflow> for RoundFailure {
    fn from(_: SumOverflow) -> Self {
        Self::Host
    }
}

impl From<NoRoom> for RoundFailure {
    fn from(_: NoRoom) -> Self {
        Self::Host
    }
}

/// Everybody is a partition; a piece is a row group.
struct Everybody<'a> {
    rows: &'a Rows,
    selection: &'a Selection,
}

impl Work for Everybody<'_> {
    fn pieces(&self) -> usize {
        self.rows.row_groups()
    }

    fn room(&self) -> Result<RowGroup, RoundFailure> {
        Ok(self.rows.room(self.selection).map_err(unread)??)
    }

    fn piece(
        &self,
        piece: usize,
        crew: &mut dyn Crew,
        stopped: &dyn Fn() -> bool,
        adding: &mut Adding<'_>,
    ) -> Result<(), RoundFailure> {
        let Adding { sums, rows, calibrated } = adding;
        self.rows.read_over(piece, rows).map_err(unread)?;
        let rows = &*rows;
        let mut add = |found: Option<&[Given<'_>]>| -> Result<(), RoundFailure> {
            sums.add(calibrated, found)?;
            if sums.is_full() {
                sums.multiply(rows)?;
            }
            Ok(())
        };
        let first = self.rows.rows_before(piece);
        for index in 0..rows.len() {
            if stopped() {
                return Err(RoundFailure::Stopped);
            }
            crew.row(rows, index)?;
            crew.close(first.saturating_add(index), &mut add)?;
        }
        crew.finish(&mut add)?;
        Ok(sums.finish(rows)?)
    }
}

/// Blocks are partitions; a piece is a run of them, whose rows lie in row groups that follow each other.
struct InBlocks<'a> {
    rows: &'a Rows,
    selection: Selection,
    blocks: Blocks,
    most: usize,
}

impl Work for InBlocks<'_> {
    fn pieces(&self) -> usize {
        self.blocks.runs() as usize
    }

    fn room(&self) -> Result<RowGroup, RoundFailure> {
        Ok(self.rows.room(&self.selection).map_err(unread)??)
    }

    fn piece(
        &self,
        piece: usize,
        crew: &mut dyn Crew,
        stopped: &dyn Fn() -> bool,
        adding: &mut Adding<'_>,
    ) -> Result<(), RoundFailure> {
        let run = self.blocks.run(u32::try_from(piece).map_err(|_| RoundFailure::Host)?);
        let Adding { sums, rows, calibrated } = adding;
        let mut add = |found: Option<&[Given<'_>]>| Ok(sums.add(calibrated, found)?);
        let (mut open, mut individuals) = (run.start, 0);
        for group in (0..self.rows.row_groups()).filter(|group| self.blocks.touch(&run, *group as u64)) {
            self.rows.read_over(group, rows).map_err(unread)?;
            for index in 0..rows.len() {
                let block = self.blocks.at(rows.place(index));
                if !run.contains(&block) {
                    continue;
                }
                if stopped() {
                    return Err(RoundFailure::Stopped);
                }
                while open < block {
                    crew.close(open as usize, &mut add)?;
                    (open, individuals) = (open.saturating_add(1), 0);
                }
                if individuals < self.most {
                    crew.row(rows, index)?;
                }
                individuals = individuals.saturating_add(1);
            }
        }
        for block in open..run.end {
            crew.close(block as usize, &mut add)?;
        }
        crew.finish(&mut add)
    }
}

/// For the site's own log. What it says is of files and buckets, and nothing of what is in them.
fn unread(error: DatasetError) -> RoundFailure {
    tracing::error!(code = error.code(), %error, "the dataset could not be read");
    RoundFailure::Dataset
}

/// What is read of a row for these partitions.
fn read(selection: &Selection, partitions: Partitions) -> Selection {
    match partitions.kind() {
        Partitioning::Each => selection.clone(),
        Partitioning::Blocks(_) => selection.clone().with_places(),
    }
}

/// Fetches what a round will read, if it lies elsewhere: before its first guest starts, and best before it is charged.
///
/// # Errors
/// It does not come.
pub(crate) fn fetch(rows: &Rows, selection: &Selection, partitions: Partitions) -> Result<(), DatasetError> {
    rows.fetch(&read(selection, partitions))
}

/// Runs a round over a whole dataset, one thread for each crew.
///
/// # Errors
/// See [`RoundFailure`].
pub fn run(
    rows: &Rows,
    selection: &Selection,
    partitions: Partitions,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
) -> Result<Sums, RoundFailure> {
    run_pieces(rows, selection, partitions, crews, calibrated, 0..usize::MAX)
}

/// Runs some of a round's [pieces].
pub(crate) fn run_pieces(
    rows: &Rows,
    selection: &Selection,
    partitions: Partitions,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
    pieces: Range<usize>,
) -> Result<Sums, RoundFailure> {
    fetch(rows, selection, partitions).map_err(unread)?;
    match partitions.kind() {
        Partitioning::Each => over(&Everybody { rows, selection }, pieces, crews, calibrated, selection.variants()),
        Partitioning::Blocks(count) => {
            let selection = read(selection, partitions);
            let blocks = Blocks::new(count, rows.row_groups() as u64);
            let work = InBlocks { rows, selection, blocks, most: partitions.most() };
            over(&work, pieces, crews, calibrated, 0)
        }
    }
}

/// What threads take at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pieces {
    /// How many there are. Follows from public terms.
    pub(crate) count: usize,
    /// Guests that one runs, at most.
    pub(crate) partitions: u64,
    /// Row groups that one reads, at most.
    pub(crate) row_groups: u64,
}

/// The pieces of a round over these rows.
pub(crate) fn pieces(rows: &Rows, partitions: Partitions) -> Pieces {
    match partitions.kind() {
        Partitioning::Each => Pieces { count: rows.row_groups(), partitions: GROUP_ROWS as u64, row_groups: 1 },
        Partitioning::Blocks(count) => {
            let parts = rows.row_groups() as u64;
            let blocks = Blocks::new(count, parts);
            let read = |run| (0..parts).filter(|part| blocks.touch(&blocks.run(run), *part)).count() as u64;
            let runs = 0..blocks.runs();
            let partitions = runs.clone().map(|run| blocks.run(run).len() as u64).max().unwrap_or(0);
            Pieces { count: runs.len(), partitions, row_groups: runs.map(read).max().unwrap_or(0) }
        }
    }
}

fn over(
    work: &impl Work,
    pieces: Range<usize>,
    crews: Vec<Box<dyn Crew + '_>>,
    calibrated: &[Calibrated],
    variants: usize,
) -> Result<Sums, RoundFailure> {
    let (next, end) = (AtomicUsize::new(pieces.start), pieces.end.min(work.pieces()));
    let failed = AtomicBool::new(false);
    let stopped = || failed.load(Ordering::Relaxed);
    // No row is read before every thread has all memory that it will ever need: where it does not suffice, that says nothing of any row.
    let laid = Barrier::new(crews.len());
    let lay = || -> Result<_, RoundFailure> {
        Ok(Adding { sums: Sums::zeros(calibrated, variants)?, rows: work.room()?, calibrated })
    };
    let mut total = Sums::total(calibrated, variants)?;
    let all = |mut crew: Box<dyn Crew + '_>| {
        let adding = lay().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        laid.wait();
        let mut adding = adding?;
        if stopped() {
            return Err(RoundFailure::Stopped);
        }
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= end {
                return Ok(adding.sums);
            }
            work.piece(piece, &mut *crew, &stopped, &mut adding)?;
        }
    };
    let guarded = |crew| all(crew).inspect_err(|_| failed.store(true, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let workers: Vec<_> = crews.into_iter().map(|crew| scope.spawn(|| guarded(crew))).collect();
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

/// Buffers for one individual, used again for the next.
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

    fn shown(&self) -> Individual<'_> {
        Individual { values: &self.values, dosages: &self.dosages }
    }
}
