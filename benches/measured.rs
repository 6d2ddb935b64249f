//! What the rows of a table are measured with: time of the clock and of processors, memory of a process and of all that it started, and the tools of the field.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{row, world};

/// What some work took.
pub(super) struct Took {
    pub(super) seconds: f64,
    pub(super) processor_seconds: f64,
}

/// Of this process and of its children that ended, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), in hundredths.
    fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (start, before) = (Instant::now(), processor());
    let value = work();
    (value, Took { seconds: start.elapsed().as_secs_f64(), processor_seconds: processor() - before })
}

/// Memory of a process and of all that it started, in MB: what several of them share counts once (`Pss`, proc(5)). 0 for what is gone, and for
/// whose memory only root may see, which workers are.
fn memory(process: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).and_then(|line| line.split_whitespace().nth(1));
    let own = line.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6;
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    let children: Vec<u32> =
        children.flat_map(|ids| ids.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<_>>()).collect();
    own + children.into_iter().map(memory).sum::<f64>()
}

/// The most memory of a process and of all that it starts while something is done.
pub(super) fn most_memory<T>(process: u32, work: impl FnOnce() -> T) -> (T, f64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(memory(process));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            most
        });
        let value = work();
        done.store(true, Ordering::Relaxed);
        (value, watching.join().unwrap())
    })
}

/// Runs our own program to its end.
pub(super) fn ours(arguments: &[&str]) -> Took {
    let run = || Command::new(world::BINARY).args(arguments).stdout(Stdio::null()).status().unwrap();
    timed(|| assert!(run().success(), "{arguments:?}")).1
}

pub(super) fn shown(what: &str, took: &Took, genotypes: f64) {
    let Took { seconds, processor_seconds } = took;
    let rate = format!(
        "{:.0} M genotypes/s, {:.0} M a processor second",
        genotypes / seconds / 1e6,
        genotypes / processor_seconds / 1e6
    );
    row(what, format!("{seconds:.2} s, {processor_seconds:.2} s of processors: {rate}"));
}

/// A tool of the field, where it is installed: the median of three runs.
pub(super) fn peer(what: &str, program: &str, arguments: &[&str], genotypes: f64) -> Option<Took> {
    let run = || Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !run().is_ok_and(|status| status.success()) {
        row(&format!("`{what}`"), "not installed, or it failed".to_owned());
        return None;
    }
    let took = middle((0..RUNS).map(|_| timed(|| assert!(run().unwrap().success())).1).collect());
    shown(&format!("`{what}`"), &took, genotypes);
    Some(took)
}

/// How often what is compared runs.
pub(super) const RUNS: usize = 3;

/// The run in the middle, by its time.
pub(super) fn middle(mut runs: Vec<Took>) -> Took {
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    runs.swap_remove(runs.len() / 2)
}

/// How long ours takes, over a peer's, by the clock and by the processors' time.
pub(super) fn beside(ours: &str, took: &Took, peers: &str, peer: &Took) {
    let (clock, processors) = (took.seconds / peer.seconds, took.processor_seconds / peer.processor_seconds);
    row(&format!("{ours}: its time over that of `{peers}`"), format!("{clock:.2}; of processors {processors:.2}"));
}
