//! Why the daemon could not start, or had to stop.

use vestibule_worker::WorkerError;

use crate::executor::ExecutorError;
use crate::home::HomeError;
use crate::noise;

/// The daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Workers.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The kernel, and the site's own settings.
    #[error("`require_walls` is set, and this kernel leaves gaps: {0}")]
    Walls(String),
    /// Where rounds run.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The noise.
    #[error(transparent)]
    Noise(#[from] noise::NoiseError),
    /// The link.
    #[error(transparent)]
    Link(#[from] vestibule_link::LinkError),
}

impl SiteError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Home(error) => error.code(),
            Self::Worker(error) => error.code(),
            Self::Walls(_) => "walls-missing",
            Self::Executor(error) => error.code(),
            Self::Noise(error) => error.code(),
            Self::Link(error) => error.code(),
        }
    }
}
