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

mod cluster;
mod growth;
mod measured;
mod peers;
mod scale;
mod slurm;
#[path = "../tests/federation/world.rs"]
mod world;

use std::path::PathBuf;
use std::time::Instant;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::dictionary::{Column, Kind};
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::dataset::{DataFolder, Dataset, StoreKey, ingest_afresh};
use vestibule_runtime::guests::Guests;
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::round;
use vestibule_sandbox::{Analysis, CodeCache, Individual, Runner, Sandbox, Settings, Shape, Step, Value};
use vestibule_worker::Launch;

fn main() {
    println!("| what | median |\n|---|---|");
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if asked.first().is_some_and(|name| name == "scale") {
        let count = |at: usize| asked.get(at).map_or(20_000, |count| count.replace('_', "").parse().expect("a number"));
        return scale::scale(count(1), count(2));
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

struct Data {
    _temp: tempfile::TempDir,
    dataset: Dataset,
    analysis: Analysis,
    params: String,
    round: Round,
    genotypes: f64,
}

impl Data {
    fn ingest() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let demo = world::root().join("cli/demo-data");
        let real =
            std::env::var_os("VESTIBULE_DATA").map(|dir| PathBuf::from(dir).join("1kg-genomewide/1kg.odd-chroms.grch37.bcf"));
        let (name, source) = match &real {
            Some(bcf) => ("all.bcf", bcf.clone()),
            None => ("all.vcf.gz", demo.join("accra/genotypes.vcf.gz")),
        };
        std::fs::copy(source, temp.path().join(name)).unwrap();
        std::fs::write(temp.path().join("dictionary.toml"), "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n")
            .unwrap();
        let catalogue = match &real {
            Some(bcf) => from_reference(&bcf.with_file_name("reference/freq.afreq.gz")),
            None => std::fs::read_to_string(demo.join("panel.catalogue.tsv")).unwrap(),
        };
        std::fs::write(temp.path().join("c.tsv"), &catalogue).unwrap();
        let config = format!(
            "name = \"c\"\napproximate_size = 2504\ndictionary = \"dictionary.toml\"\nbudget = {{ epsilon = 1.0, delta = 1e-6 }}\n\
             [variants]\nfiles = [\"{name}\"]\nbuild = \"GRCh37\"\ncatalogue = [\"c.tsv\"]\n"
        );
        let source = DataFolder::from(Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap());
        let key = StoreKey::from_bytes([1; 32]);
        let importers = world::importers();
        let mut people = 0;
        let seconds = median(3, || {
            people = ingest_afresh(&source, &config, (&source, &key), &importers, &mut |_| {}).unwrap().individuals;
        });
        peers(&temp.path().join(name), seconds);
        let dataset = Dataset::open(&source, &"c".parse().unwrap(), &key).unwrap();
        let variants = dataset.info().catalogues[0].variants.len();
        let genotypes = people as f64 * variants as f64;
        row(
            &format!("ingest of {people} people x {variants} variants, {}", if real.is_some() { "BCF" } else { "VCF" }),
            format!("{:.1} M genotypes/s", genotypes / seconds / 1e6),
        );
        let analysis =
            Sandbox::new(Settings::default()).unwrap().load(&std::fs::read(world::component("hostile")).unwrap()).unwrap();
        let catalogue = &dataset.info().catalogues[0];
        let slices: Vec<_> =
            catalogue.contigs().map(|contig| serde_json::json!({"contig": contig, "start": 1, "end": 400_000_000})).collect();
        // Each person's genotypes in the guest's own hands, and a vector of two entries for each back: the most that a round can be.
        let params = serde_json::json!({"how": "by hand", "catalogue": catalogue.name, "slices": slices}).to_string();
        let plan = analysis.plan(&params, Limits::default()).unwrap();
        let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants).unwrap();
        let Step::Round(round) = analysis.next(&params, &Shape { variants, columns }, &[], Limits::default()).unwrap() else {
            panic!("a round")
        };
        Self { _temp: temp, dataset, analysis, params, round, genotypes }
    }
}

/// The same file read and written by tools of the field, where they are installed, as ratios to our `seconds`.
fn peers(file: &std::path::Path, seconds: f64) {
    let file = file.to_str().unwrap();
    let (out, threads) = (format!("{file}.peer"), std::thread::available_parallelism().unwrap().to_string());
    let input = if file.ends_with("bcf") { "--bcf" } else { "--vcf" };
    for (what, command) in [
        ("plink2 --make-pgen", vec!["plink2", input, file, "--make-pgen", "--threads", &threads, "--out", &out]),
        ("bcftools view -Ob", vec!["bcftools", "view", "--threads", &threads, "-Ob", "-o", &out, file]),
    ] {
        let run = || {
            std::process::Command::new(command[0])
                .args(&command[1..])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
        };
        match run() {
            Ok(status) if status.success() => {
                let peer = median(3, || assert!(run().unwrap().success()));
                row(&format!("that ingest's time, over `{what}` of the same file"), format!("{:.2}", seconds / peer));
            }
            _ => row(&format!("that ingest's time, over `{what}`"), "not installed".to_owned()),
        }
    }
}

fn from_reference(path: &std::path::Path) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()), &mut text)
        .unwrap();
    let mut rows: Vec<(String, u64, String, String)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let id: Vec<&str> = line.split('\t').nth(1).unwrap().split(':').collect();
            (id[0].to_owned(), id[1].parse().unwrap(), id[2].to_owned(), id[3].to_owned())
        })
        .collect();
    rows.sort();
    let head = "#catalogue\tall\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    rows.iter().fold(head, |text, (contig, position, a, b)| text + &format!("{contig}\t{position}\t{a}\t{b}\n"))
}

/// An instance made, prepared, called with no dosages, and thrown away.
fn instances(_: &Data) {
    let rate = |runner: &Runner| {
        let calls = 2_000;
        let seconds = median(7, || {
            for _ in 0..calls {
                runner.contribute(&[Individual { values: &[Value::Number(1.0)], dosages: &[] }]).unwrap();
            }
        });
        format!("{:.0} /s", f64::from(calls) / seconds)
    };
    let summary = std::fs::read(world::component("cohort-summary")).unwrap();
    let summary = Sandbox::new(Settings::default()).unwrap().load(&summary).unwrap();
    let kind = Kind::Number { lower: 0.0, upper: 9.0 };
    let columns =
        vec![Column { name: "x".parse().unwrap(), about: String::new(), kind, unit: String::new(), sensitive: false }];
    let shape = Shape { variants: vec![], columns };
    let Step::Round(round) = summary.next(r#"{"columns":["x"]}"#, &shape, &[], Limits::default()).unwrap() else {
        panic!("a round")
    };
    let runner = summary.runner(&round, Limits::default()).unwrap();
    row("fresh instances, one core, cohort summary of one column", rate(&runner));
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

/// The same sums by the sandbox and by a native loop over the same rows.
fn scan(data: &Data) {
    let plan = data.analysis.plan(&data.params, Limits::default()).unwrap();
    let selection = data.dataset.select(&plan.columns, &plan.variants).unwrap();
    let runner = data.analysis.runner(&data.round, Limits::default()).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
    let calibrated = calibrate(&data.round, Partitioning::Each, budget.round(data.round.share_ppb())).unwrap();
    let sandboxed = median(5, || {
        round::run(&data.dataset, &selection, everybody(), round::here(&runner, 1), &calibrated).unwrap();
    });
    let temp = tempfile::tempdir().unwrap();
    let folder = CodeFolder(Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap());
    let guests = Guests::new(Launch::of(world::BINARY.into(), 256), CodeCache::new(Box::new(folder), &[1; 32]));
    let component = std::fs::read(world::component("hostile")).unwrap();
    let apart = |count: usize| {
        median(5, || {
            let prepared =
                guests.load(&component).unwrap().prepare(&data.round, Limits::default(), &selection, everybody()).unwrap();
            round::run(&data.dataset, &selection, everybody(), prepared.crews(count), &calibrated).unwrap();
        })
    };
    // Once for the cache.
    drop(guests.load(&component).unwrap());
    let (walled, walled_two) = (apart(1), apart(2));
    let native = median(5, || {
        let mut sums = vec![[0_i64; 2]; data.round.statistics()[0].length as usize / 2];
        let (mut values, mut dosages) = (vec![], vec![]);
        for group in 0..data.dataset.row_groups() {
            let rows = data.dataset.read(&selection, group).unwrap();
            for index in 0..rows.len() {
                rows.fill(index, &mut values, &mut dosages);
                for (sum, dosage) in sums.iter_mut().zip(&dosages) {
                    sum[0] += i64::from(*dosage) - 1;
                    sum[1] += i64::from(*dosage == 1);
                }
            }
        }
        std::hint::black_box(sums);
    });
    row(
        "a whole round, one core: decrypt, decode, fresh instances, clamp, sum",
        format!("{:.1} M genotypes/s", data.genotypes / sandboxed / 1e6),
    );
    row("the same, guests in a worker process", format!("{:.1} M genotypes/s", data.genotypes / walled / 1e6));
    row("what the second wall costs", format!("{:.0} %", (walled / sandboxed - 1.0) * 100.0));
    row("the same, two worker processes", format!("{:.1} M genotypes/s", data.genotypes / walled_two / 1e6));
    row("the same rows and sums in native Rust", format!("{:.1} M genotypes/s", data.genotypes / native / 1e6));
    row("ratio", format!("{:.1}", sandboxed / native));
    multiplied(data, &guests, native);
}

/// The same sums where guests give factors and the host multiplies them with the genotypes: allele frequencies.
fn multiplied(data: &Data, guests: &Guests, native: f64) {
    let component = std::fs::read(world::component("allele-frequency")).unwrap();
    let analysis = Sandbox::new(Settings::default()).unwrap().load(&component).unwrap();
    let mut params: serde_json::Value = serde_json::from_str(&data.params).unwrap();
    params.as_object_mut().unwrap().remove("how");
    let plan = analysis.plan(&params.to_string(), Limits::default()).unwrap();
    let (variants, columns) = data.dataset.info().shape(&plan.columns, &plan.variants).unwrap();
    let step = analysis.next(&params.to_string(), &Shape { variants, columns }, &[], Limits::default()).unwrap();
    let Step::Round(round) = step else { panic!("a round") };
    let selection = data.dataset.select(&plan.columns, &plan.variants).unwrap().of(&round);
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
    let calibrated = calibrate(&round, Partitioning::Each, budget.round(round.share_ppb())).unwrap();
    drop(guests.load(&component).unwrap());
    let seconds = |count: usize| {
        median(5, || {
            let loaded = guests.load(&component).unwrap();
            let prepared = loaded.prepare(&round, Limits::default(), &selection, everybody()).unwrap();
            round::run(&data.dataset, &selection, everybody(), prepared.crews(count), &calibrated).unwrap();
        })
    };
    let (one, two) = (seconds(1), seconds(2));
    let rate = |seconds: f64| format!("{:.0} M genotypes/s", data.genotypes / seconds / 1e6);
    row("the same sums where the host multiplies, worker process started and all, one core", rate(one));
    row("the same, two worker processes", rate(two));
    row("ratio to native, one core", format!("{:.2}", one / native));
}

mod unprotected {
    wasmtime::component::bindgen!({ path: "../wit", world: "analysis" });
}

/// The same rows through the same guest, with one defence after the other.
fn defences(data: &Data) {
    use unprotected::vestibule::analysis::types::{Contribution, Individual};
    let plan = data.analysis.plan(&data.params, Limits::default()).unwrap();
    let selection = data.dataset.select(&plan.columns, &plan.variants).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
    let calibrated = calibrate(&data.round, Partitioning::Each, budget.round(data.round.share_ppb())).unwrap();
    let component = std::fs::read(world::component("hostile")).unwrap();
    let each = |work: &mut dyn FnMut(Vec<u8>)| {
        let (mut values, mut dosages) = (vec![], vec![]);
        for group in 0..data.dataset.row_groups() {
            let rows = data.dataset.read(&selection, group).unwrap();
            for index in 0..rows.len() {
                rows.fill(index, &mut values, &mut dosages);
                work(dosages.clone());
            }
        }
    };
    let one_instance = |fuel: bool| {
        let mut config = wasmtime::Config::new();
        config.consume_fuel(fuel);
        let engine = wasmtime::Engine::new(&config).unwrap();
        let component = wasmtime::component::Component::new(&engine, &component).unwrap();
        median(5, || {
            let mut store = wasmtime::Store::new(&engine, ());
            let refuel = |store: &mut wasmtime::Store<()>| {
                if fuel {
                    store.set_fuel(1_000_000_000).unwrap()
                }
            };
            refuel(&mut store);
            let linker = wasmtime::component::Linker::new(&engine);
            let instance = unprotected::Analysis::instantiate(&mut store, &component, &linker).unwrap();
            instance.call_prepare(&mut store, data.round.state()).unwrap().unwrap();
            let mut sums: Vec<f64> = vec![];
            each(&mut |dosages| {
                refuel(&mut store);
                let given = instance.call_contribute(&mut store, &[Individual { values: vec![], dosages }]).unwrap();
                for contribution in &given {
                    let Contribution::Reals(reals) = contribution else { continue };
                    sums.resize(sums.len().max(reals.len()), 0.0);
                    sums.iter_mut().zip(reals).for_each(|(sum, real)| *sum += real);
                }
            });
            std::hint::black_box(sums);
        })
    };
    let (bare, fuelled) = (one_instance(false), one_instance(true));
    let runner = data.analysis.runner(&data.round, Limits::default()).unwrap();
    let fresh = median(5, || {
        each(&mut |dosages| {
            std::hint::black_box(
                runner.contribute(&[vestibule_sandbox::Individual { values: &[], dosages: &dosages }]).unwrap(),
            );
        });
    });
    let whole = median(5, || {
        round::run(&data.dataset, &selection, everybody(), round::here(&runner, 1), &calibrated).unwrap();
    });
    row("time of a job's round without any defence: one instance, added as it comes", "1".to_owned());
    for (what, seconds) in [
        ("with fuel counted", fuelled),
        ("and a fresh instance for each individual, which begins with the state", fresh),
        ("and contributions clamped and summed in integers", whole),
    ] {
        row(what, format!("{:.2}", seconds / bare));
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
    let ledger = vestibule_runtime::ledger::Ledger::open(&file, &seal).unwrap();
    let source = vestibule_runtime::log::Source::new(&file, Some(seal));
    let key = SecretKey::from_seed([1; 32]).unwrap();
    let details = serde_json::json!({ "user": "operator", "uid": 1000, "on": { "file": "a charter's file.json" } });
    let start = Instant::now();
    for second in 0..100_000 {
        let event = Event::Operator { command: "charter-accept".to_owned() };
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
