//! Whole rounds over real genotypes: how quickly they are ingested, and what each defence costs, beside the same work in native Rust.

use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::dictionary::{Column, Kind};
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::{Partitioning, Round};
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::dataset::{DataFolder, Dataset, Same, StoreKey, ingest};
use vestibule_runtime::guests::Guests;
use vestibule_runtime::round;
use vestibule_sandbox::{Analysis, CodeCache, Individual, Runner, Sandbox, Settings, Shape, Step, Value};
use vestibule_worker::Launch;

use super::{everybody, median, row, unprotected, world};

pub(super) struct Data {
    _temp: tempfile::TempDir,
    dataset: Dataset,
    analysis: Analysis,
    params: String,
    round: Round,
    genotypes: f64,
}

impl Data {
    pub(super) fn ingest() -> Self {
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
            people = ingest((&source, &config), (&source, &key), &importers, Same::ReadAgain, &mut |_| {}).unwrap().individuals;
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
pub(super) fn instances(_: &Data) {
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

/// The same sums by the sandbox and by a native loop over the same rows.
pub(super) fn scan(data: &Data) {
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
            let prepared = guests
                .load(&component)
                .unwrap()
                .prepare(&data.round, Limits::default(), &selection, everybody(), Costs::USUAL)
                .unwrap();
            round::run(&data.dataset, &selection, everybody(), prepared.crews(count).unwrap(), &calibrated).unwrap();
        })
    };
    // Once for the cache.
    drop(guests.load(&component).unwrap());
    let (walled, walled_two) = (apart(1), apart(2));
    let native = median(5, || {
        let mut sums = vec![[0_i64; 2]; data.round.statistics()[0].length as usize / 2];
        let (mut values, mut dosages) = (vec![], vec![]);
        let mut rows = data.dataset.room(&selection).unwrap().unwrap();
        for group in 0..data.dataset.row_groups() {
            data.dataset.read_over(group, &mut rows).unwrap();
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
            let prepared = loaded.prepare(&round, Limits::default(), &selection, everybody(), Costs::USUAL).unwrap();
            round::run(&data.dataset, &selection, everybody(), prepared.crews(count).unwrap(), &calibrated).unwrap();
        })
    };
    let (one, two) = (seconds(1), seconds(2));
    let rate = |seconds: f64| format!("{:.0} M genotypes/s", data.genotypes / seconds / 1e6);
    row("the same sums where the host multiplies, worker process started and all, one core", rate(one));
    row("the same, two worker processes", rate(two));
    row("ratio to native, one core", format!("{:.2}", one / native));
}

/// The same rows through the same guest, with one defence after the other.
pub(super) fn defences(data: &Data) {
    use super::unprotected::vestibule::analysis::types::{Contribution, Individual};
    let plan = data.analysis.plan(&data.params, Limits::default()).unwrap();
    let selection = data.dataset.select(&plan.columns, &plan.variants).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap();
    let calibrated = calibrate(&data.round, Partitioning::Each, budget.round(data.round.share_ppb())).unwrap();
    let component = std::fs::read(world::component("hostile")).unwrap();
    let each = |work: &mut dyn FnMut(Vec<u8>)| {
        let (mut values, mut dosages) = (vec![], vec![]);
        let mut rows = data.dataset.room(&selection).unwrap().unwrap();
        for group in 0..data.dataset.row_groups() {
            data.dataset.read_over(group, &mut rows).unwrap();
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
