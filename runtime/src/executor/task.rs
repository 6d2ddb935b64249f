//! The other end: `vestibule task`, on a node of a cluster.
//!
//! *In*: a round's folder and which task this is. *Out*: the task's sums, sealed, in that folder, after delays of the task's own. *Trusts*: what
//! opens with the round's key. *Refuses*: another program than the daemon's. It reads nothing but that folder, runs guests in confined worker
//! processes as the daemon does, and prints nothing once it knows what to do.
//!
//! Anyone who watches the queue sees when a task ends, and accounting how long processors were busy. So what hides how long one individual took is done
//! here, to both ([`Afterwards`]), and what the cluster then makes of the task's end is no concern of anybody's data. A fault of the host or of a
//! worker is what the task found, and is told as late as sums are.

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::digest::Digest;
use zeroize::Zeroizing;

use super::afterwards::Afterwards;
use super::folder::{ROWS, RoundFolder};
use crate::dataset::{Rows, RowsKey, Selection};
use crate::delay::Delay;
use crate::guests::Portable;
use crate::partitions::Partitions;
use crate::reduce::Sums;
use crate::round::{self, RoundFailure};

/// What all tasks of a round are told.
#[derive(Serialize, Deserialize)]
pub(super) struct Tasks {
    /// The digest of the program that is to do them.
    pub(super) program: [u8; 32],
    pub(super) rows: RowsKey,
    pub(super) selection: Selection,
    pub(super) partitions: Partitions,
    pub(super) calibrated: Vec<Calibrated>,
    pub(super) guests: Portable,
    pub(super) delay: Delay,
    /// Of which each task does [its part](part).
    pub(super) pieces: usize,
    pub(super) tasks: u32,
    /// Worker processes of a task.
    pub(super) threads: usize,
}

/// The pieces of one task: runs of the same length, but for one.
pub(super) fn part(pieces: usize, tasks: u32, task: u32) -> Range<usize> {
    let start = |task: u32| {
        let at = (pieces as u128).saturating_mul(task.into()) / u128::from(tasks.max(1));
        usize::try_from(at).unwrap_or(pieces).min(pieces)
    };
    start(task)..start(task.saturating_add(1))
}

/// A task that could not begin. It has seen no row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The folder is gone, or is not a round's.
    #[error("the round's folder: {0}")]
    Folder(#[from] std::io::Error),
    /// What lies in it is not what this program writes.
    #[error("the round's tasks are not of this version of the program")]
    Version,
    /// The round has fewer tasks.
    #[error("the round has no such task")]
    Index,
}

impl TaskError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Folder(_) => "task-folder",
            Self::Version => "task-version",
            Self::Index => "task-index",
        }
    }
}

/// The digest of this very program.
pub(super) fn program() -> std::io::Result<Digest> {
    Ok(Digest::of(&std::fs::read("/proc/self/exe")?))
}

/// Does a task, unless its sums are there already.
///
/// # Errors
/// [`TaskError`]; what went wrong after that is in the folder, sealed.
pub fn run(folder: &Path, task: u32) -> Result<(), TaskError> {
    let folder = RoundFolder::find(folder)?;
    if folder.has(task) {
        return Ok(());
    }
    let told: Tasks = postcard::from_bytes(&folder.told()?).map_err(|_| TaskError::Version)?;
    if task >= told.tasks {
        return Err(TaskError::Index);
    }
    // From here on nothing of this process reaches a log of the cluster's: it prints nothing, and its panics are silent.
    std::panic::set_hook(Box::new(|_| ()));
    // Before any data: that this fails says nothing.
    let afterwards = Afterwards::draw(&told.delay, told.threads).map_err(std::io::Error::other)?;
    let found = partial(sums(&folder, told, task));
    afterwards.pass();
    folder.found(task, found)?;
    Ok(())
}

fn sums(folder: &RoundFolder, told: Tasks, task: u32) -> Found {
    if program().map_err(|_| RoundFailure::Host)?.as_bytes() != &told.program {
        return Err(RoundFailure::Program);
    }
    let file = folder.dir().open(ROWS).map_err(|_| RoundFailure::Dataset)?.into_std();
    let rows = Rows::shared(file, &told.rows).map_err(|_| RoundFailure::Dataset)?;
    let crews = told.guests.crews(told.threads)?;
    let pieces = part(told.pieces, told.tasks, task);
    round::run_pieces(&rows, &told.selection, told.partitions, crews, &told.calibrated, pieces)
}

/// Failures that a task can find.
const FAILURES: [RoundFailure; 4] = [RoundFailure::Host, RoundFailure::Worker, RoundFailure::Dataset, RoundFailure::Program];

/// What a task found, as bytes.
fn partial(found: Found) -> Vec<u8> {
    match found {
        Ok(sums) => {
            let mut bytes = vec![0];
            sums.put(&mut bytes);
            bytes
        }
        Err(failure) => {
            let place = FAILURES.iter().position(|known| *known == failure).unwrap_or(0);
            vec![1, u8::try_from(place).unwrap_or(0)]
        }
    }
}

/// What a task found.
pub(super) type Found = Result<Sums, RoundFailure>;

/// What a task of a round with these statistics found. `None`: bytes that no task of it writes.
pub(super) fn found(plain: &Zeroizing<Vec<u8>>, calibrated: &[Calibrated], variants: usize) -> Option<Found> {
    match plain.split_first()? {
        (0, sums) => Sums::of(calibrated, variants, sums).map(Ok),
        (1, [place]) => FAILURES.get(usize::from(*place)).map(|failure| Err(*failure)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_in_one_task() {
        for (pieces, tasks) in [(1, 1), (7, 3), (3, 3), (100, 8), (1_000, 999)] {
            let all: Vec<usize> = (0..tasks).flat_map(|task| part(pieces, tasks, task)).collect();
            assert!(all.iter().copied().eq(0..pieces), "{pieces} {tasks}");
            let lengths: Vec<usize> = (0..tasks).map(|task| part(pieces, tasks, task).len()).collect();
            assert!(
                lengths.iter().all(|length| *length == pieces / tasks as usize || *length == pieces.div_ceil(tasks as usize))
            );
        }
    }

    #[test]
    fn what_a_task_found_is_read_back_and_nothing_else_is() {
        let read = |bytes: Vec<u8>| found(&Zeroizing::new(bytes), &[], 0).map(|found| found.map(|_| ()));
        assert_eq!(read(partial(Sums::zeros(&[], 0).map_err(RoundFailure::from))), Some(Ok(())));
        for failure in FAILURES {
            assert_eq!(read(partial(Err(failure))), Some(Err(failure)));
        }
        assert_eq!(read(partial(Err(RoundFailure::Stopped))), Some(Err(RoundFailure::Host)));
        for wrong in [vec![], vec![0, 0], vec![1], vec![1, 4], vec![1, 0, 0], vec![2]] {
            assert_eq!(read(wrong), None);
        }
    }
}
