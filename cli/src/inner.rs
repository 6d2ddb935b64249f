//! Processes that sites and clusters start of this program, before anything else is set up in them.
//!
//! *In*: arguments. *Out*: an exit code, where they name such a process. They are read by a parser of
//! their own: that of all commands takes longer to build than a worker to start, and how long a
//! worker takes to start is in every release's delay.

use std::process::ExitCode;

use clap::Parser;

/// Started by sites and clusters alone.
#[derive(Debug, Parser)]
#[command(name = "vestibule")]
pub(crate) enum Inner {
    /// The process in which a site runs guests.
    Worker {
        /// What it may hold, in MiB.
        #[arg(long)]
        memory_mib: u32,
    },
    /// The process in which a site reads the files that it is given.
    Importer,
    /// A part of a round, on a node of a cluster.
    Task {
        /// The round's folder.
        folder: std::path::PathBuf,
        /// Which part.
        #[arg(long, env = "SLURM_ARRAY_TASK_ID")]
        index: u32,
        /// Of these parts, where not of all.
        #[arg(long, value_delimiter = ',')]
        of: Vec<u32>,
    },
}

impl Inner {
    /// What the arguments ask for, if it is such a process.
    pub(crate) fn asked() -> Option<Self> {
        let first = std::env::args_os().nth(1)?;
        ["worker", "importer", "task"].iter().any(|name| first == *name).then(Self::parse)
    }

    /// A worker closes itself, when its engine is set up and before it reads anything.
    pub(crate) const fn closes_itself(&self) -> bool {
        matches!(self, Self::Worker { .. })
    }

    pub(crate) fn run(self) -> ExitCode {
        let (folder, index, of) = match self {
            Self::Worker { memory_mib } => return vestibule_worker::serve(memory_mib),
            Self::Importer => return vestibule_runtime::dataset::import(),
            Self::Task { folder, index, of } => (folder, index, of),
        };
        let task = if of.is_empty() { Some(&index) } else { of.get(index as usize) };
        match vestibule_runtime::executor::task(&folder, *task.unwrap_or(&u32::MAX)) {
            Ok(()) => ExitCode::SUCCESS,
            // Of nothing that it saw, for it has seen nothing.
            Err(error) => {
                eprintln!("{}: {error}", error.code());
                ExitCode::FAILURE
            }
        }
    }
}
