//! How much memory a round takes, before anything of it is charged or read.
//!
//! *In*: public terms: what is summed, what is read, limits, how many threads. *Out*: bytes. Each module reckons what it
//! lays ([`Sums::bytes`], [`RowGroup::bytes`]); the rest is counted from lengths, with room to spare. So a site refuses
//! what it could not hold before it is charged, a task asks its cluster for what it needs, and no number of rows is the
//! one at which memory ends (`tests/memory`).

use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::Partitioning;
use vestibule_protocol::scores::Source;

use crate::dataset::{RowGroup, Selection, Value};
use crate::partitions::Partitions;
use crate::reduce::Sums;

const MIB: usize = 1 << 20;
/// Bytes of a batch of rows, or of contributions, where one partition's are not more (`vestibule_worker`).
const BATCH: usize = 8 * MIB;
/// Of an entry, beside the sums: its noise, and where that is drawn; then the noised number, and the release as numbers, as
/// text, sealed, padded and as it is sent.
const ENTRY: usize = 192;
/// A thread's stack and what else it has.
const THREAD: usize = 2 * MIB;
/// A worker's engine, code and stacks.
const ENGINE: usize = 256 * MIB;
/// A task's program, what it is told, a component and its code.
const TASK: usize = 512 * MIB;

/// What a round takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The sums alone.
    sums: usize,
    /// Of each thread: sums, and what is added and read into.
    thread: usize,
    /// Of each thread's worker process, and what both share.
    worker: usize,
    entries: usize,
}

impl Memory {
    /// Of a round that sums and reads this, whose instances have these limits.
    pub(crate) fn of(calibrated: &[Calibrated], selection: &Selection, partitions: Partitions, limits: Limits) -> Self {
        let variants = match partitions.kind() {
            Partitioning::Each => selection.variants(),
            // Blocks have no products.
            Partitioning::Blocks(_) => 0,
        };
        let (sums, work) = Sums::bytes(calibrated, variants);
        let row = selection.values().saturating_mul(9).saturating_add(selection.dosages()).saturating_add(8);
        let given = |statistic: &Calibrated| match &statistic.source {
            Source::Given => statistic.length as usize,
            Source::Genotypes(scores) => scores.factors as usize,
        };
        let given = calibrated.iter().fold(0, |sum: usize, statistic| sum.saturating_add(given(statistic)).saturating_add(1));
        let batch = BATCH.max(row.saturating_mul(partitions.most())).max(given.saturating_mul(8));
        // One way and the other, each in a vector that grew to it.
        let batches = batch.saturating_mul(4);
        // A row as it is decoded, twice, and as bytes.
        let decoded = selection.values().saturating_mul(2 * size_of::<Value>()).saturating_add(selection.dosages());
        let thread = [sums, work, RowGroup::bytes(selection), decoded, batches, THREAD];
        let instances = (limits.memory_mib as usize).saturating_mul(2 * MIB);
        let worker = [batches, batch.saturating_mul(2), instances, ENGINE];
        let all = |parts: &[usize]| parts.iter().copied().fold(0, usize::saturating_add);
        let entries = calibrated.iter().fold(0, |sum: usize, statistic| sum.saturating_add(statistic.length as usize));
        Self { sums, thread: all(&thread), worker: all(&worker), entries }
    }

    /// Of the process that runs the round in so many threads, its workers' own not counted.
    pub(crate) const fn of_threads(&self, threads: usize) -> usize {
        self.thread.saturating_mul(threads).saturating_add(self.of_release())
    }

    /// Of the daemon, where others run it: their sums come sealed, one after the other.
    pub(crate) const fn of_gathering(&self) -> usize {
        self.sums.saturating_mul(4).saturating_add(self.of_release())
    }

    /// All threads' sums in one, and all that is made of them.
    const fn of_release(&self) -> usize {
        self.sums.saturating_add(self.entries.saturating_mul(ENTRY))
    }

    /// Of a task of so many threads, its workers and all.
    pub(crate) const fn of_task(&self, threads: usize) -> usize {
        let threads = self.thread.saturating_add(self.worker).saturating_mul(threads);
        threads.saturating_add(self.sums.saturating_mul(4)).saturating_add(TASK)
    }
}

/// In whole MiB, rounded up.
pub(crate) const fn mib(bytes: usize) -> u64 {
    bytes.div_ceil(MIB) as u64
}

#[cfg(test)]
mod tests;
