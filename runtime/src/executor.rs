//! Step 9, where: who runs a charged round's guests over its rows: threads of this machine, or tasks on a cluster's nodes.
//!
//! *In*: [`Work`]: rows, what is selected of them, guests that have taken in the round. *Out*: [`Sums`], merged here, by the daemon, which alone
//! draws noise. *Trusts*: what opens with the round's own key. *Refuses*, before anything is charged: a round that the cluster could not
//! run, or that takes more memory than the site gives one ([`Executor::check`], public terms alone).
//!
//! A task is some of the round's pieces, in the order in which threads take them; which, follows from public terms. It gets the version's data
//! key, the selection, the component; no ledger, no key of the site. Integer sums do not depend on who added what, so that it makes no
//! difference how often, where, or in which order tasks ran: each counts once.

mod afterwards;
mod cluster;
mod folder;
mod kubernetes;
mod seal;
mod settings;
mod slurm;
mod task;
mod threads;
mod tracker;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::round::Partitioning;

use crate::costs::Costs;
use crate::dataset::{Rows, Selection};
use crate::delay::{Delay, Load};
use crate::guests::Prepared;
use crate::noise::NoiseError;
use crate::partitions::Partitions;
use crate::reduce::Sums;
use crate::round::memory::{Memory, mib};
use crate::round::{self, RoundFailure};
use cluster::Cluster;
use kubernetes::Kubernetes;
pub use settings::{Chosen, ClusterSettings, ExecutorSettings, KubernetesSettings, SlurmSettings};
use slurm::Slurm;
pub use task::{TaskError, run as task};
use threads::Threads;

/// The processor time that a task burns when it has its sums, as it is drawn: for trials.
pub(crate) fn burns(delay: &Delay, threads: usize) -> Result<Duration, NoiseError> {
    Ok(afterwards::Afterwards::draw(delay, threads)?.burns())
}

/// Anyone who runs rounds.
pub trait Executor: Send + Sync + std::fmt::Debug {
    /// Whether a round could be run at all. Nothing is charged yet, and no row was read.
    ///
    /// # Errors
    /// Why not, in public terms.
    fn check(&self, ask: &Ask<'_>) -> Result<(), ExecutorError>;

    /// Runs a charged round. Blocks.
    ///
    /// # Errors
    /// See [`RoundFailure`].
    fn run(&self, work: Work<'_>) -> Result<Sums, RoundFailure>;

    /// Whether the moment at which it ends is noised already: every task of a cluster works and waits on for delays of its own, since anyone who watches
    /// the queue would see how long it took.
    fn hides_moments(&self) -> bool;

    /// The daemon is about to end: waits until nothing of its rounds is left elsewhere, but no
    /// longer than `patience`.
    fn leave(&self, patience: Duration) {
        let _ = patience;
    }

    /// The longest that delays keep a round from ending, all but one of 4,000.
    fn latest(&self, delay: &Delay) -> Duration;
}

/// A charged round.
#[derive(Debug)]
pub struct Work<'a> {
    /// What it is.
    pub ask: Ask<'a>,
    /// Its guests.
    pub guests: Prepared,
}

/// What a round is, and asks of anyone who runs it: public terms, and rows that nobody reads before it is charged.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The version's rows.
    pub rows: &'a Rows,
    /// What is read of them.
    pub selection: &'a Selection,
    /// Who is in one partition.
    pub partitions: Partitions,
    /// Its statistics.
    pub calibrated: &'a [Calibrated],
    /// What one individual can take.
    pub load: Load,
    /// How slow this site's machines are at most.
    pub costs: Costs,
    /// What hides how long it took.
    pub delay: Delay,
}

impl Ask<'_> {
    /// Variants of the sums of products.
    fn summed_variants(&self) -> usize {
        match self.partitions.kind() {
            Partitioning::Each => self.selection.variants(),
            // Blocks have no products.
            Partitioning::Blocks(_) => 0,
        }
    }

    /// Bytes of a task's sums.
    fn partial_bytes(&self) -> usize {
        // That it has sums, who moved them, and those.
        Sums::bytes(self.calibrated, self.summed_variants()).0.saturating_add(9)
    }

    fn entries(&self) -> usize {
        self.calibrated.iter().map(|statistic| statistic.length as usize).fold(0, usize::saturating_add)
    }

    /// The longest that one piece can take, in microseconds; and how many there are.
    #[expect(clippy::cast_precision_loss, reason = "an estimate with margins")]
    fn pieces_us(&self) -> (usize, f64) {
        let pieces = round::pieces(self.rows, self.partitions);
        let guests = pieces.partitions as f64 * self.load.longest_us(self.entries(), self.costs);
        let rows = pieces.row_groups.saturating_mul(crate::dataset::GROUP_ROWS as u64) as f64;
        (pieces.count, guests + rows * self.costs.row_us)
    }

    /// How much it takes, no matter who runs it.
    fn memory(&self) -> Memory {
        Memory::of(self.calibrated, self.selection, self.partitions, self.load.limits())
    }
}

/// Whether a round that takes so many bytes is within what the site gives one, in MiB.
fn fits(bytes: usize, most: u64) -> Result<(), ExecutorError> {
    let asked = mib(bytes);
    if asked > most { Err(ExecutorError::TooLarge { asked, most }) } else { Ok(()) }
}

/// A round, or a daemon, that an executor cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The round's tasks could take longer than the site lets them.
    #[error(
        "at the slowest, a task of this round takes {asked} minutes, and this site lets its cluster's tasks take {most}: ask for less fuel and \
         memory (`vestibule analysis try` prints what is used)"
    )]
    TooLong {
        /// What it could take.
        asked: u64,
        /// What it may.
        most: u64,
    },
    /// The round's buffers would be larger than the site lets them.
    #[error(
        "the sums of this round, and what is read at a time, would take {asked} MiB of this site's memory, and a round may take {most}: ask for \
         fewer entries, factors or variants at a time, in several rounds or jobs"
    )]
    TooLarge {
        /// What it would take, in MiB.
        asked: u64,
        /// What it may.
        most: u64,
    },
    /// The cluster says no.
    #[error("the cluster would not run a task: {0}")]
    Refused(String),
    /// The folder that the daemon and the cluster's nodes share.
    #[error("[executor] folder {path}: {why}")]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The program that nodes are to run.
    #[error("[executor] program {path}: {why}")]
    Program {
        /// Which.
        path: std::path::PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl ExecutorError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "round-too-long",
            Self::TooLarge { .. } => "round-too-large",
            Self::Refused(_) => "cluster-refused",
            Self::Folder { .. } => "executor-folder",
            Self::Program { .. } => "executor-program",
        }
    }
}

/// The executor that a site has chosen. A round may take `most_mib` of memory. `stop`: that the daemon is to stop.
///
/// # Errors
/// The folder that is shared with a cluster cannot be used.
pub fn of(
    chosen: &Chosen,
    (threads, most_mib): (usize, u64),
    stop: CancellationToken,
) -> Result<Box<dyn Executor>, ExecutorError> {
    Ok(match chosen {
        Chosen::Threads => Box::new(Threads { threads, most_mib }),
        Chosen::Kubernetes(cluster, kubernetes) => {
            Box::new(Cluster::new(cluster.clone(), Kubernetes::new(cluster, kubernetes)?, (most_mib, stop))?)
        }
        Chosen::Slurm(cluster, slurm) => Box::new(Cluster::new(cluster.clone(), Slurm::new(cluster, slurm), (most_mib, stop))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_may_take_as_much_memory_as_the_site_says_and_not_a_byte_more() {
        assert!(fits(8 << 20, 8).is_ok() && fits(0, 0).is_ok());
        let error = fits((8 << 20) + 1, 8).unwrap_err();
        assert_eq!(error.code(), "round-too-large");
        assert!(error.to_string().contains("would take 9 MiB"), "{error}");
    }
}
