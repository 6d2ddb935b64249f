//! No random hostile guest takes longer than the limit of one partition's time.
//!
//! *In*: seeds. *Out*: for each kind of guest, the most of its limit that it took. *Refuses*: one
//! that took longer than its limit, or behind which ordinary individuals are slower than before.
//!
//! Each seed is one component, run as a worker runs it, in this process of one thread. The limit is
//! the product's own, by what this machine takes (`vestibule_sandbox::measure`).
//!
//! | variable | what |
//! |---|---|
//! | `VESTIBULE_RANDOM_SECONDS` | how long to go on; 75 unless it is said |
//! | `VESTIBULE_RANDOM_FROM` | the first seed; 0 unless it is said |
//! | `VESTIBULE_RANDOM_SEED` | this seed alone, and what it was |
//! | `VESTIBULE_RANDOM_SHAPE` | guests of this kind alone |
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::undocumented_unsafe_blocks,
    reason = "a test without a harness, which loads compiled code"
)]

mod code;
mod dice;
mod guest;
mod instance;
mod judge;
mod memory;
mod shapes;
mod smith;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vestibule_protocol::job::Limits;
use vestibule_runtime::costs::Costs;
use vestibule_sandbox::{Slowest, Swap, measure};

use dice::Dice;
use guest::Guest;
use judge::{MAX_MEMORY_MIB, judge};
use shapes::{SHAPES, Shape};

const SECONDS: u64 = 75;
/// Modules that wasm-smith makes up.
const SMITH: &str = "made-up";
const FUEL: [u64; 3] = [20_000, 200_000, 5_000_000];
const MEMORY_MIB: [u32; 3] = [1, 8, MAX_MEMORY_MIB];

/// What became of one kind of guest.
#[derive(Default)]
struct Kind {
    accepted: u32,
    refused: BTreeMap<&'static str, u32>,
    worst: f64,
    of: String,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no number")))
}

fn main() {
    // As the harness would: another test was asked for.
    if std::env::args().skip(1).any(|name| name == "--list" || !name.starts_with('-') && !"random".contains(&name)) {
        return;
    }
    let alone = number("VESTIBULE_RANDOM_SEED");
    let first = alone.or_else(|| number("VESTIBULE_RANDOM_FROM")).unwrap_or(0);
    let time = Duration::from_secs(number("VESTIBULE_RANDOM_SECONDS").unwrap_or(SECONDS));
    let only = std::env::var("VESTIBULE_RANDOM_SHAPE").ok();
    let costs = costs();
    println!("{costs:?}");
    let mut run = Run { costs, alone: alone.is_some(), kinds: BTreeMap::new(), failed: vec![] };
    let began = Instant::now();
    for seed in first.. {
        if began.elapsed() > time && alone.is_none() {
            break;
        }
        // As many modules that are made up as there are of three kinds.
        let kind = SHAPES.get((seed % (SHAPES.len() as u64 + 3)) as usize).copied();
        if only.as_ref().is_none_or(|only| only == kind.map_or(SMITH, |(name, _)| name)) {
            run.one(seed, kind);
        }
        if alone.is_some() {
            break;
        }
    }
    run.report();
}

/// What this machine takes, with the product's margin. What else runs here makes figures larger,
/// and the limit longer: the least of several is held to.
fn costs() -> Costs {
    let all: Vec<Slowest> = (0..5).map(|_| measure(MAX_MEMORY_MIB, Swap::here()).unwrap()).collect();
    let least = |cost: fn(&Slowest) -> f64| all.iter().map(cost).fold(f64::MAX, f64::min);
    let slowest = Slowest {
        fuel_ns: least(|slowest| slowest.fuel_ns),
        mib_us: least(|slowest| slowest.mib_us),
        row_us: least(|slowest| slowest.row_us),
        entry_ns: least(|slowest| slowest.entry_ns),
        settle_us: least(|slowest| slowest.settle_us),
        code_mib_us: least(|slowest| slowest.code_mib_us),
    };
    Costs::measured(slowest, Duration::ZERO, Duration::ZERO)
}

/// All that was run.
struct Run {
    costs: Costs,
    alone: bool,
    kinds: BTreeMap<&'static str, Kind>,
    failed: Vec<String>,
}

impl Run {
    fn one(&mut self, seed: u64, kind: Option<(&'static str, Shape)>) {
        let mut dice = Dice::new(seed);
        let (fuel_per_partition, memory_mib) = (dice.one(&FUEL), dice.one(&MEMORY_MIB));
        let limits = Limits { fuel_per_partition, memory_mib };
        let name = kind.map_or(SMITH, |(name, _)| name);
        let guest = kind.map_or_else(Guest::default, |(_, shape)| shape(&mut dice, limits));
        let component = if kind.is_some() { Some(guest.component(limits)) } else { smith::component(&mut dice, limits) };
        // Not every row of bytes becomes a module.
        let Some(component) = component else { return };
        let judged = judge(&component, guest.entries, guest.rehearsed, limits, self.costs);
        let what = format!("seed {seed}, {name}, fuel {fuel_per_partition}, {memory_mib} MiB, {} bytes", component.len());
        if self.alone {
            println!("{what}: {judged:?}");
        }
        let kind = self.kinds.entry(name).or_default();
        match judged {
            Err((code, _)) => *kind.refused.entry(code).or_default() += 1,
            Ok(judged) => {
                kind.accepted += 1;
                if judged.ratio() > kind.worst {
                    (kind.worst, kind.of) = (judged.ratio(), format!("{:?} ({what})", judged.time));
                }
                if let Some(fault) = judged.fault() {
                    println!("{what}: {fault}");
                    self.failed.push(format!("{what}: {fault}"));
                }
            }
        }
    }

    fn report(self) {
        let (mut accepted, mut refused) = (0, 0);
        for (name, kind) in &self.kinds {
            println!(
                "{name:20} {:.2} of the limit at most, {} accepted, refused {:?}; {}",
                kind.worst, kind.accepted, kind.refused, kind.of
            );
            accepted += kind.accepted;
            refused += kind.refused.values().sum::<u32>();
        }
        assert!(self.failed.is_empty(), "{} went wrong; VESTIBULE_RANDOM_SEED repeats one", self.failed.len());
        assert!(self.alone || accepted > 3 * refused, "{accepted} accepted, {refused} refused: this shows little");
        println!("{accepted} passed, 0 failed");
    }
}
