//! The README's table: `cargo speed`. Medians; ratios are of the same run. With `VESTIBULE_DATA`, on 2,504 people x 13,154 variants; else
//! on the demo's data.
#![allow(missing_docs, dead_code, reason = "a bench; the fixture is shared with the tests")]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench stops at the first surprise"
)]

mod choice;
mod cluster;
mod growth;
mod load;
mod measured;
mod peers;
mod rounds;
mod scale;
mod slurm;
#[path = "../tests/federation/world.rs"]
mod world;

use std::time::Instant;

use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::dictionary::{Column, Kind};
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_runtime::partitions::Partitions;
use vestibule_sandbox::{Individual, Sandbox, Settings, Shape, Step, Value};

use self::rounds::{Data, defences, instances, scan};

fn main() {
    println!("| what | median |\n|---|---|");
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if asked.first().is_some_and(|name| name == "scale") {
        let count = |at: usize| asked.get(at).map_or(20_000, |count| count.replace('_', "").parse().expect("a number"));
        return scale::scale(count(1), count(2));
    }
    if asked.first().is_some_and(|name| name == "load") {
        let count = |at: usize, usual: usize| asked.get(at).map_or(usual, |count| count.parse().expect("a number"));
        return load::load(count(1, 1_000), count(2, 20), count(3, 10));
    }
    if asked.first().is_some_and(|name| name == "histogram") {
        return scale::histogram(asked.get(1).map_or(1_000_000, |count| count.replace('_', "").parse().expect("a number")));
    }
    if let ["growth", file] = asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return growth::growth(file);
    }
    if asked.first().is_some_and(|name| name == "cluster") {
        return cluster::cluster();
    }
    let wanted = |part: &str| asked.is_empty() || asked.iter().any(|name| name == part);
    // Parts by name, after `cargo speed --`; all by default. `slowest` is what a site's `[slowest]` settings must be above.
    if ["instances", "scan", "defences"].into_iter().any(wanted) {
        let data = Data::ingest();
        for (name, part) in [("instances", instances as fn(&Data)), ("scan", scan), ("defences", defences)] {
            if wanted(name) {
                part(&data);
            }
        }
    }
    for (name, part) in [
        ("baking", baking as fn()),
        ("defences", noise_of_many),
        ("choice", || choice::choice(row)),
        ("slowest", slowest),
        ("federation", federation),
        ("log", log),
    ] {
        if wanted(name) {
            part();
        }
    }
}

fn everybody() -> Partitions {
    Partitions::of(Partitioning::Each, 1)
}

fn row(what: &str, value: String) {
    println!("| {what} | {value} |");
}

/// The median of `runs` timings, in seconds.
fn median(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

mod unprotected {
    wasmtime::component::bindgen!({ path: "../wit", world: "analysis" });
}

/// A round's state of so many numbers: baked into the component once, or taken in by every instance as if there were no baking; in an
/// engine with the same settings of what an instance costs.
fn baking() {
    use unprotected::vestibule::analysis::types as given;
    const LIMITS: Limits = Limits { fuel_per_partition: 2_000_000, memory_mib: 64 };
    let component = std::fs::read(world::component("hostile")).unwrap();
    let sandbox = Sandbox::new(Settings { threads: 1, parallel_compilation: false, ..Settings::default() }).unwrap();
    let hostile = sandbox.load(&component).unwrap();
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.max_memory_size(64 << 20).linear_memory_keep_resident(8 << 20).pagemap_scan(wasmtime::Enabled::Auto);
    pool.total_memories(6).total_core_instances(48).total_component_instances(6).total_tables(12).max_unused_warm_slots(6);
    let mut config = wasmtime::Config::new();
    config.allocation_strategy(wasmtime::InstanceAllocationStrategy::Pooling(pool)).consume_fuel(true);
    let engine = wasmtime::Engine::new(&config).unwrap();
    let plain = wasmtime::component::Component::new(&engine, &component).unwrap();
    let plain = wasmtime::component::Linker::<()>::new(&engine).instantiate_pre(&plain).unwrap();
    let plain = unprotected::AnalysisPre::new(plain).unwrap();
    let numbers = |name: &str| Column {
        name: name.parse().unwrap(),
        about: String::new(),
        kind: Kind::Number { lower: 0.0, upper: 9.0 },
        unit: String::new(),
        sensitive: false,
    };
    let sex = Column { kind: Kind::Levels(vec!["F".into(), "M".into()]), ..numbers("sex") };
    let columns = vec![sex, numbers("age"), numbers("trait")];
    for count in [0_u32, 1_000, 10_000, 100_000, 1_000_000] {
        let params = serde_json::json!({ "how": "weights", "cells": count }).to_string();
        let shape = Shape { variants: vec![], columns: columns.clone() };
        let Step::Round(round) = hostile.next(&params, &shape, &[], LIMITS).unwrap() else { panic!("a round") };
        let once = median(5, || drop(hostile.bake(&round, LIMITS).unwrap()));
        let runner = hostile.runner(&round, LIMITS).unwrap();
        let calls = (20_000_000 / (count + 1)).clamp(20, 2_000);
        let baked = median(7, || {
            for _ in 0..calls {
                let values = [Value::Level(1), Value::Number(3.0), Value::Number(1.0)];
                runner.contribute(&[Individual { values: &values, dosages: &[] }]).unwrap();
            }
        });
        let each = median(7, || {
            for _ in 0..calls {
                let mut store = wasmtime::Store::new(&engine, ());
                store.set_fuel(1_000_000_000).unwrap();
                let instance = plain.instantiate(&mut store).unwrap();
                instance.call_prepare(&mut store, round.state()).unwrap().unwrap();
                let values = vec![given::Value::Level(1), given::Value::Number(3.0), given::Value::Number(1.0)];
                instance.call_contribute(&mut store, &[given::Individual { values, dosages: vec![] }]).unwrap();
            }
        });
        let rate = |seconds: f64| f64::from(calls) / seconds;
        row(
            &format!("a state of {count} numbers: baked in once; instances; those that each take it in; ratio"),
            format!("{:.0} ms; {:.0} /s; {:.0} /s; {:.1}", once * 1e3, rate(baked), rate(each), each / baked),
        );
    }
}

/// How long a unit of fuel lasts where a guest does what is slowest on purpose: `delay::Costs` must be above all of these.
fn slowest() {
    const FUEL: u64 = 1_000_000_000;
    let hostile = std::fs::read(world::component("hostile")).unwrap();
    let hostile = Sandbox::new(Settings::default()).unwrap().load(&hostile).unwrap();
    let number = Kind::Number { lower: 0.0, upper: 9.0 };
    let column = |(name, kind): (&str, &Kind)| Column {
        name: name.parse().unwrap(),
        about: String::new(),
        kind: kind.clone(),
        unit: String::new(),
        sensitive: false,
    };
    let sexes = Kind::Levels(vec!["F".into(), "M".into()]);
    let columns: Vec<_> = [("sex", &sexes), ("age", &number), ("trait", &number)].map(column).into();
    let man = [Value::Level(1), Value::Number(1.0), Value::Number(1.0)];
    let seconds = |how: &str, limits: Limits| {
        let params = serde_json::json!({ "how": how }).to_string();
        let shape = Shape { variants: vec![], columns: columns.clone() };
        let Step::Round(round) = hostile.next(&params, &shape, &[], limits).unwrap() else { panic!("a round") };
        let runner = hostile.runner(&round, limits).unwrap();
        median(3, || {
            assert!(runner.contribute(&[Individual { values: &man, dosages: &[] }]).is_err(), "{how} was to run out of fuel")
        })
    };
    for how in ["loop", "chase", "divide", "denormals", "copy"] {
        let each = seconds(how, Limits { fuel_per_partition: FUEL, memory_mib: 64 }) / FUEL as f64;
        row(&format!("a unit of fuel, `{how}`"), format!("{:.2} ns", each * 1e9));
    }
    for how in ["touch", "touch what was laid"] {
        let touched = seconds(how, Limits { fuel_per_partition: 1_000_000, memory_mib: 64 });
        row(&format!("a MiB of memory, each page touched once, `{how}`"), format!("{:.0} us", touched / 56.0 * 1e6));
    }
}

/// What OpenDP's sampler costs a long vector.
fn noise_of_many() {
    let statistics =
        vec![Statistic { name: "x".into(), length: 100_000, bound: Bound::OneCell, weight: 1.0, source: Source::Given }];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap();
    for noise in [Noise::Gaussian, Noise::Laplace] {
        let delta = if noise == Noise::Laplace { 0.0 } else { 1e-6 };
        let calibrated =
            calibrate(&round, Partitioning::Each, Budget::new(noise, 1.0, delta).unwrap().round(round.share_ppb())).unwrap();
        let seconds = median(3, || drop(vestibule_runtime::noise::draw(&calibrated, 1).unwrap()));
        row(&format!("noise of 100,000 entries, one core, {noise:?}"), format!("{seconds:.2} s"));
    }
}

/// Three sites as processes: submit to result, and what idle daemons hold.
fn federation() {
    let world = world::World::new(&["bogota", "kyoto", "leiden"]);
    for (what, pid) in world.pids() {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        row(&format!("idle memory, {what}"), format!("{:.0} MB", kib / 1024.0));
    }
    let seconds = warm_job(&world);
    row("warm submit to result, 3 sites, the whole command", format!("{seconds:.2} s"));
}

/// The median time of a small job, submitted and waited for.
fn warm_job(world: &world::World) -> f64 {
    let job = "epsilon = 0.1\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 3\n[params]\ncolumns = [\"sex\"]\n";
    assert_eq!(world.ended(&world.submitted("cohort-summary", job))["state"], "finished");
    // Another question each time: the same one would be answered from the ledger.
    let mut asked = 0;
    median(15, || {
        asked += 1;
        let (code, result) = world.submit_and_wait("cohort-summary", &job.replace("0.1", &format!("0.1{asked:02}")));
        assert_eq!(code, 0, "{result}");
    })
}

/// What the log costs: of 100,000 leaves, verified whole; a leaf; a proof; and a job whose log two of three sites witness.
fn log() {
    use vestibule_protocol::key::SecretKey;
    use vestibule_protocol::log::leaf::Event;
    // In memory: what is measured is the log, not the disk.
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = temp.path().join("ledger.sqlite");
    let seal = vestibule_runtime::ledger::Seal::from_bytes(&zeroize::Zeroizing::new([1; 32]));
    let ledger = vestibule_runtime::ledger::Ledger::create(&file, &seal).unwrap();
    let source = vestibule_runtime::log::Source::new(&file, Some(seal));
    let key = SecretKey::from_seed([1; 32]).unwrap();
    let details = serde_json::json!({ "user": "operator", "uid": 1000, "on": { "file": "a charter's file.json" } });
    let start = Instant::now();
    for second in 0..100_000 {
        let event = Event::Operator { command: "charter-accept".parse().expect("a label") };
        ledger.record(event, Some(&details), std::time::Duration::from_secs(second)).unwrap();
    }
    row(
        "a leaf with details, in a transaction of its own, in memory",
        format!("{:.0} us", start.elapsed().as_secs_f64() * 10.0),
    );
    let verified = median(3, || {
        let found = vestibule_runtime::log::verify(&source, &[key.public()], None).unwrap();
        assert!(found.found.is_empty() && found.replay.leaves == 100_000);
    });
    row("`log verify` of 100,000 leaves", format!("{verified:.2} s"));
    let (checkpoint, note) = ledger.checkpoint(&key).unwrap();
    let mut index = 0;
    let proof = median(101, || {
        index = (index + 7_919) % checkpoint.size;
        ledger.receipt(index, checkpoint.size, &note).unwrap();
    });
    row("one proof of inclusion in 100,000 leaves", format!("{:.2} ms", proof * 1e3));
    let sites = ["bogota", "kyoto", "leiden"];
    let (without, with) = (warm_job(&world::World::witnessed(&sites, 0)), warm_job(&world::World::witnessed(&sites, 2)));
    row(
        "the smallest job whose answers two sites witness, over one that nobody witnesses",
        format!("{:.2} ({:.0} ms more)", with / without, (with - without) * 1e3),
    );
}
