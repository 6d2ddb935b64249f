//! How a command fails: a code for scripts, a sentence for people, an exit code for the shell.
//!
//! *In*: errors of every crate. *Out*: one line on stderr, or one JSON document on stdout; and the exit code. A broken pipe is no
//! failure: the reader had enough.

use std::process::ExitCode;

/// Which of the documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By policy, budget or signature.
    Refused = 1,
    /// Usage or input.
    Input = 2,
    /// A peer.
    Peer = 3,
    /// Ours.
    Ours = 4,
}

/// A failure with its code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl Failure {
    pub(crate) fn of(exit: Exit, code: &str, message: impl std::fmt::Display) -> anyhow::Error {
        Self { exit, code: code.to_owned(), message: message.to_string() }.into()
    }

    /// Bad input: exit code 2.
    pub(crate) fn input(code: &str, message: impl std::fmt::Display) -> anyhow::Error {
        Self::of(Exit::Input, code, message)
    }
}

/// Codes that say that something was refused rather than mistaken.
const REFUSED: [&str; 8] = [
    "component-imports",
    "budget-exhausted",
    "signature-refused",
    "researcher-unknown",
    "invitation-unknown",
    "epsilon-over-site-cap",
    "join-refused",
    "too-few-sites",
];

/// The exit code that belongs to an error's stable code.
pub(crate) fn exit_of(code: &str) -> Exit {
    if REFUSED.contains(&code) {
        Exit::Refused
    } else if code.starts_with("link-") {
        Exit::Peer
    } else if matches!(code, "coordinator-fault" | "coordinator-database" | "site-fault" | "sandbox-setup" | "noise-self-test")
    {
        Exit::Ours
    } else {
        Exit::Input
    }
}

/// A coded error of a library, as a failure.
pub(crate) fn coded(code: &str, error: impl std::fmt::Display) -> anyhow::Error {
    Failure::of(exit_of(code), code, error)
}

/// Prints the failure and says how to exit.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe))
    {
        return ExitCode::SUCCESS;
    }
    let (exit, code, message) = match error.downcast_ref::<Failure>() {
        Some(failure) => (failure.exit, failure.code.as_str(), failure.message.clone()),
        None => (Exit::Input, "failed", format!("{error:#}")),
    };
    if json && message.is_empty() {
        // The document was printed already, and says it.
    } else if json {
        println!("{}", serde_json::json!({ "error": { "code": code, "message": message } }));
    } else {
        // No line of a message passes for another error.
        eprintln!("error[{code}]: {}", message.trim_end().replace('\n', "\n  "));
    }
    ExitCode::from(exit as u8)
}
