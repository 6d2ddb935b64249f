//! `vestibule`: the one binary. Each command is a file of [`command`]; its doc comments are its help.
//!
//! Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 refused, 2 usage or bad input, 3 peer unreachable or timed out,
//! 4 our fault. With `--json`, stdout holds one JSON document, also when it is an error.

/// As the standard library's, through [`door`].
macro_rules! println {
    () => { $crate::door::say("") };
    ($($words:tt)+) => { $crate::door::say(&format!($($words)+)) };
}

/// As the standard library's, through [`door`].
macro_rules! eprintln {
    ($($words:tt)+) => { $crate::door::note(&format!($($words)+)) };
}

mod analysis;
mod attack;
mod charter;
mod client;
mod closed;
mod command;
mod compiled;
mod consortium;
mod door;
mod failure;
mod federation;
mod files;
mod html;
mod inner;
mod jobfile;
mod recompute;
mod show;
mod simulate;
mod trust;

use clap::Parser;
use std::process::ExitCode;

/// Compute on people's genomes and health records where they are kept; let only noise-protected sums out.
#[derive(Debug, Parser)]
#[command(name = "vestibule", version, max_term_width = 110)]
struct Arguments {
    /// Print one JSON document on stdout.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: command::Command,
}

/// What a shell says of a program that SIGPIPE ended: 128 and its number.
const CLOSED_PIPE: i32 = 141;

fn main() -> ExitCode {
    // A panic's words may hold a value; where it happened does not.
    std::panic::set_hook(Box::new(|panic| {
        // The reader has read enough, as with `| head`.
        if panic.payload_as_str().is_some_and(|why| why.starts_with("failed printing to stdout")) {
            std::process::exit(CLOSED_PIPE);
        }
        match panic.location() {
            Some(place) => eprintln!("vestibule: internal error at {}:{}", place.file(), place.line()),
            None => eprintln!("vestibule: internal error"),
        }
    }));
    if let Some(inner) = inner::Inner::asked() {
        let close = || if inner.closes_itself() { Ok(()) } else { closed::close() };
        if let Err(error) = closed::without_core().and_then(|()| close()) {
            return unclosed(error);
        }
        return inner.run();
    }
    let Arguments { json, command } = Arguments::parse();
    // Attacks see whether daemons give cores up by themselves.
    let without = if command.attacks() { closed::without_own_core } else { closed::without_core };
    if let Err(error) = without() {
        return unclosed(error);
    }
    if command.runs_guests() {
        // Wasmtime opens `/proc/self/pagemap` with its first engine, once: a process that is not
        // dumpable could not, but as root.
        let _ = vestibule_sandbox::Sandbox::new(vestibule_sandbox::Settings { threads: 1, ..Default::default() });
    }
    if let Err(error) = closed::close() {
        return unclosed(error);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("VESTIBULE_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(door::Log).with_ansi(false).with_target(false).init();
    match command.run(json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error, json),
    }
}

/// Nothing is read by a process that others could read.
fn unclosed(error: rustix::io::Errno) -> ExitCode {
    eprintln!("vestibule: the kernel does not let this process close itself to others: {error}");
    ExitCode::from(4)
}
