//! A batch of partitions: filled, run, and what it contributed back.
//!
//! *In*: rows. *Out*: each partition's contributions, in order. *Trusts*: nothing that comes back.
//! *Refuses*: a partition that takes longer than its limit, and a worker that lies or dies at one: that
//! one counts as nothing, and another worker goes on.

use std::os::unix::fs::FileExt as _;

use vestibule_sandbox::{Given, Value};

use super::{Worker, WorkerError};
use crate::message::Command;
use crate::rows::{Reader, contribution_bytes, end_partition, partition_bytes, put_partition, put_row};
use crate::shared::{self, OUT_OFFSET, REGION};
use crate::watch::Watch;

/// Most bytes of a batch, either way, where a row takes less than that. What of it is left goes to
/// another worker where one is ended, which is in the limit of what one individual can take.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Most partitions of a batch: how soon a round that failed elsewhere ends.
pub(super) const BATCH_PARTITIONS: usize = 256;
/// Bytes of rows that go to another worker where one is ended, at most, by how many values and
/// dosages a partition has.
#[must_use]
pub const fn sent_again(inputs: usize) -> usize {
    let bytes = partition_bytes(1, inputs, 0).saturating_mul(BATCH_PARTITIONS);
    if bytes < BATCH_BYTES { bytes } else { BATCH_BYTES }
}

/// Takes one partition's contributions; `None` where the guest failed.
pub type Each<'a, E> = dyn FnMut(Option<&[Given<'_>]>) -> Result<(), E> + 'a;

impl Worker {
    /// Adds one individual to the partition that is being filled.
    pub fn push(&mut self, values: &[Value], dosages: &[u8]) {
        let (at, individuals) = self.open.unwrap_or_else(|| (put_partition(&mut self.filled), 0));
        put_row(&mut self.filled, values, dosages);
        self.open = Some((at, individuals.saturating_add(1)));
    }

    /// Ends the partition, which may be empty. `true` when the batch is full and must be [run](Self::run).
    pub fn close(&mut self) -> bool {
        let (at, individuals) = self.open.take().unwrap_or_else(|| (put_partition(&mut self.filled), 0));
        end_partition(&mut self.filled, at, individuals);
        self.partitions = self.partitions.saturating_add(1);
        self.partitions >= self.batch_partitions
    }

    /// Runs the batch: `contribute` in a fresh instance for each partition. Hands each one's
    /// contributions to `each`, in order; `None` where the guest failed, took longer than the limit,
    /// brought its worker down, or had it say what no worker says: whatever an escaped guest does, it
    /// is that individual's. Then `standby`, a worker that took in the same round, goes on with the
    /// next.
    ///
    /// # Errors
    /// [`WorkerError`]; what `each` returns.
    pub fn run<E: From<WorkerError>>(
        &mut self,
        standby: &mut dyn FnMut() -> Result<Self, WorkerError>,
        each: &mut Each<'_, E>,
    ) -> Result<(), E> {
        let partitions = std::mem::take(&mut self.partitions);
        let mut next = 0;
        while next < partitions {
            let (done, mut alive) = self.exchange(partitions, next)?;
            let mut found = Vec::with_capacity(self.lengths.len());
            let mut reader = Reader(&self.found);
            while next < done {
                let Some(some) = reader.contributions(&self.lengths, &mut found) else {
                    alive = false;
                    break;
                };
                each(some.then_some(found.as_slice()))?;
                next = next.saturating_add(1);
            }
            if alive {
                continue;
            }
            // Whatever became of it, or whatever it said, it is as if it had died there.
            if next < partitions {
                each(None)?;
                next = next.saturating_add(1);
            }
            self.process.end();
            self.process = standby()?.process;
        }
        self.filled.clear();
        Ok(())
    }

    /// The batch there, but for the first ones, and what it contributed back: up to which partition,
    /// and whether the worker did all that it was told and can be told more.
    fn exchange(&mut self, partitions: usize, skip: usize) -> Result<(usize, bool), WorkerError> {
        let lost = |_| WorkerError::Lost;
        self.process.memory.write_all_at(&self.filled, 0).map_err(lost)?;
        shared::begin(&self.process.memory).map_err(lost)?;
        let number = |count: usize| u32::try_from(count).map_err(|_| WorkerError::Lost);
        let (sent, skipped) = (number(partitions)?, number(skip)?);
        let batch = Command::Batch { partitions: sent, bytes: self.filled.len() as u64, skip: skipped };
        let most = partitions.saturating_sub(skip);
        let watch = Watch::new(self.limit, self.filled.len());
        let said = self.process.tell(&batch).and_then(|()| self.process.watch(watch, self.limit, most));
        let (done, bytes, alive) = match said {
            Ok(Some(bytes)) => (most, bytes, true),
            // Too long, gone, or it said what no worker says: what was done before counts.
            Ok(None) | Err(_) => {
                self.process.end();
                let (at, bytes) = shared::progress(&self.process.memory).map_err(lost)?;
                (usize::try_from(at.done()).unwrap_or(most).min(most), bytes, false)
            }
        };
        // A worker that was ended may have put one more partition's.
        let room = contribution_bytes(&self.lengths).saturating_mul(done.saturating_add(1)) as u64;
        self.found.resize(usize::try_from(bytes.min(room).min(REGION)).map_err(|_| WorkerError::Lost)?, 0);
        self.process.memory.read_exact_at(&mut self.found, OUT_OFFSET).map_err(lost)?;
        Ok((skip.saturating_add(done), alive))
    }
}
