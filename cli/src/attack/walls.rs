//! Guests that got out of WebAssembly: what the process around them can still do, as it finds by trying.

use anyhow::Result;
use vestibule_worker::{Launch, Worker, WorkerError};

use super::Row;

const CHANNEL: &str = "escape";

pub(crate) fn rows() -> Result<Vec<Row>> {
    let worker = Worker::start(&Launch::this_program(64))?;
    let walls = worker.walls();
    let tried = walls.tried.iter().map(|(what, held)| {
        let observed = if *held { "refused by the kernel" } else { "possible" };
        Row::new(format!("escape from the engine and {what}"), CHANNEL, "possible", (*held, observed.to_owned()))
    });
    let mut rows: Vec<Row> = tried.collect();
    rows.push(impostor("say rubbish to the daemon", "printf 'rubbish, and more rubbish' >&0; exec cat <&0 >/dev/null"));
    rows.push(impostor("die before the first word", "exit 0"));
    // A length of 2^62 before the first word.
    rows.push(impostor(
        "make the daemon wait for 2^62 bytes",
        r"printf '\000\000\000\000\000\000\000\100' >&0; exec cat <&0 >/dev/null",
    ));
    Ok(rows)
}

/// Another program in a worker's place.
fn impostor(what: &str, script: &str) -> Row {
    let launch = Launch { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script.to_owned()] };
    let lost = matches!(Worker::start(&launch), Err(WorkerError::Lost));
    let observed = if lost { "the worker is given up, and its job with it" } else { "the daemon believed it" };
    Row::new(
        format!("escape from the engine and {what}"),
        CHANNEL,
        "whatever the daemon does with it",
        (lost, observed.to_owned()),
    )
}
