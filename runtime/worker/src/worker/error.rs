//! What a worker refuses, and why it cannot be used any more.
//!
//! *In*: a reply. *Out*: [`Refusal`], [`WorkerError`]. *Refuses*: codes that are not the sandbox's, and
//! what would move a terminal.

use crate::message::Reply;

/// The analysis refused, in words made of public input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A stable code.
    pub code: &'static str,
    /// Why.
    pub message: String,
}

/// Codes that a worker may give: those of the sandbox.
const CODES: [&str; 10] = [
    "component-unreadable",
    "component-imports",
    "component-not-analysis",
    "component-unbakeable",
    "component-too-complex",
    "component-unmetered",
    "component-too-large",
    "analysis-refused",
    "analysis-trapped",
    "analysis-unusable",
];

/// A worker that cannot be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It could not be started.
    #[error("a worker process could not be started: {0}")]
    Start(std::io::Error),
    /// It died or hung before any data was near, or said what no worker says.
    #[error("a worker process was lost")]
    Lost,
    /// A call that sees nobody's data took longer than it may.
    #[error("{call} took longer than {seconds} s, which is all that a call before any data has here: let it do less")]
    TooSlow {
        /// What was called, in words.
        call: &'static str,
        /// How long it had.
        seconds: u64,
    },
    /// One partition's rows, or what a guest may contribute for it, are larger than a worker takes.
    #[error("a partition of this round is larger than a worker takes: ask for more blocks, or for fewer columns and variants")]
    TooLarge,
}

impl WorkerError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Start(_) => "worker-start",
            Self::Lost => "worker-lost",
            Self::TooSlow { .. } => "analysis-too-slow",
            Self::TooLarge => "worker-row-too-large",
        }
    }
}

/// A refusal as the worker words it: one of the sandbox's codes, and text fit for a terminal.
pub(super) fn refused(reply: Reply<'_>) -> Result<Refusal, WorkerError> {
    let Reply::Refused(code, message) = reply else { return Err(WorkerError::Lost) };
    let code = CODES.into_iter().find(|known| *known == code).ok_or(WorkerError::Lost)?;
    let message = message.chars().take(4_000).map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    Ok(Refusal { code, message })
}
