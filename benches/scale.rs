//! A million people and a histogram: `cargo speed -- histogram`. A national programme's size: `cargo speed -- scale PEOPLE VARIANTS` (100,000 of each take 15 GB of disk for some minutes).
//!
//! Simulated people are ingested as at a site; whole rounds run as at a site, in worker processes, noise included. Beside them the same
//! questions to the tools of the field, on the same genotypes, which ask for no isolation and no privacy.

use std::path::Path;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::json;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::release::Released;
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::dataset::Dataset;
use vestibule_runtime::guests::Guests;
use vestibule_runtime::home::Home;
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::trial;
use vestibule_sandbox::{CodeCache, Sandbox, Settings, Shape, Step};
use vestibule_worker::Launch;

use super::measured::{RUNS, Took, middle, most_memory, ours, shown, timed};
use super::peers::peers;
use super::{row, world};

/// Simulated people, ingested as at a site.
pub(super) struct Laid {
    temp: tempfile::TempDir,
    /// For `plan` and `next`, as at a coordinator.
    sandbox: Sandbox,
    dataset: Dataset,
    guests: Guests,
}

pub(super) fn lay(people: u32, variants: u32, say: bool) -> Laid {
    let temp = tempfile::tempdir().unwrap();
    let study = temp.path().join("study");
    let genotypes = f64::from(people) * f64::from(variants);
    let size = [people.to_string(), variants.to_string()];
    let study = study.to_str().unwrap();
    let arguments = ["--people", &size[0], "--variants", &size[1], "--sites", "1", "--causal", "20", "--json"];
    let simulated = ours(&[&["simulate", study], &arguments[..]].concat());
    let (home, recipe) = (temp.path().join("home"), temp.path().join("study/site1/DATASET.toml"));
    let home = home.to_str().unwrap();
    let (took, most) = most_memory(std::process::id(), || ingest(home, &recipe));
    let dataset = opened(home);
    let stored = walk(&Path::new(home).join("data"));
    if say {
        shown(&format!("simulate {people} people x {variants} variants"), &simulated, genotypes);
        let others = (1..RUNS).map(|run| {
            let home = temp.path().join(format!("home{run}"));
            let took = ingest(home.to_str().unwrap(), &recipe);
            std::fs::remove_dir_all(home).unwrap();
            took
        });
        let took = middle(others.chain([took]).collect());
        shown("ingest of PLINK files", &took, genotypes);
        row("its most memory, all processes", format!("{most:.0} MB"));
        row("the dataset, encrypted", format!("{:.2} GB, {:.2} bits a genotype", stored / 1e9, stored * 8.0 / genotypes));
    }
    let guests = guests(temp.path());
    Laid { temp, sandbox: sandbox(), dataset, guests }
}

pub(super) fn ingest(home: &str, recipe: &Path) -> Took {
    ours(&["site", "init", home]);
    ours(&["--json", "site", "ingest", home, recipe.to_str().unwrap()])
}

fn opened(home: &str) -> Dataset {
    let home = Home::open(Path::new(home), None).unwrap();
    Dataset::open(&home.data().unwrap(), &"cohort".parse().unwrap(), &home.store_key()).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox::new(Settings::default()).unwrap()
}

fn guests(folder: &Path) -> Guests {
    let codes = folder.join("code");
    std::fs::create_dir(&codes).unwrap();
    let folder = CodeFolder(Dir::open_ambient_dir(&codes, ambient_authority()).unwrap());
    Guests::new(Launch::of(world::BINARY.into(), 256), CodeCache::new(Box::new(folder), &[1; 32]))
}

impl Laid {
    /// The first so many of the 22 contigs.
    fn slices(&self, count: usize) -> serde_json::Value {
        let contigs = self.dataset.info().catalogues[0].contigs().take(count);
        contigs.map(|contig| json!({ "contig": contig, "start": 1, "end": 1_u64 << 40 })).collect()
    }

    pub(super) fn frequency(&self) -> Run {
        let params = json!({ "catalogue": "simulated", "slices": self.slices(22) });
        job(&self.sandbox, &self.dataset, &self.guests, "allele-frequency", &params)
    }

    pub(super) fn association(&self, contigs: usize) -> Run {
        let (covariates, slices) = (["age", "sex", "smoker"], self.slices(contigs));
        let params = json!({ "outcome": "ldl", "covariates": covariates, "catalogue": "simulated", "slices": slices });
        job(&self.sandbox, &self.dataset, &self.guests, "linear-association", &params)
    }
}

pub(super) fn scale(people: u32, variants: u32) {
    let laid = lay(people, variants, true);
    let frequency = thrice(|| laid.frequency());
    frequency.say();
    // Of the 22 contigs as many as hold about 10,000 variants.
    let some = (22 * 10_000_usize).div_ceil(variants as usize).clamp(1, 22);
    if some < 22 {
        thrice(|| laid.association(some)).say();
    }
    let association = thrice(|| laid.association(22));
    association.say();
    thrice(|| job(&laid.sandbox, &laid.dataset, &laid.guests, "cohort-summary", &json!({ "columns": ["age"] }))).say();
    peers(&laid.temp.path().join("study/site1"), laid.temp.path(), [people, variants], [&frequency, &association]);
}

/// A histogram of one cell, and a count, over so many people: what an individual takes where there is next to nothing to do.
pub(super) fn histogram(people: u32) {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(temp.path().join(name), text).unwrap();
    write("dictionary.toml", "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"levels\"\nlevels = [\"all\"]\n");
    let rows: String = (0..people).map(|person| format!("p{person},all\n")).collect();
    write("people.csv", &format!("id,x\n{rows}"));
    let recipe = format!(
        "name = \"cohort\"\napproximate_size = {people}\ndictionary = \"dictionary.toml\"\nbudget = {{ epsilon = 1.0, delta = 1e-6 }}\n\
         [[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.x]\ncolumn = \"x\"\n"
    );
    write("DATASET.toml", &recipe);
    let (home, recipe) = (temp.path().join("home"), temp.path().join("DATASET.toml"));
    let home = home.to_str().unwrap();
    ingest(home, &recipe);
    let (sandbox, dataset, guests) = (sandbox(), opened(home), guests(temp.path()));
    thrice(|| job(&sandbox, &dataset, &guests, "cohort-summary", &json!({ "columns": ["x"] }))).say();
}

pub(super) fn threads() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// A job that ran.
pub(super) struct Run {
    what: String,
    people: f64,
    genotypes: f64,
    pub(super) took: Took,
    most: f64,
    /// Bytes of the dataset.
    read: u64,
}

impl Run {
    fn say(&self) {
        let Self { what, people, genotypes, took, most, read } = self;
        if *genotypes > 0.0 {
            shown(what, took, *genotypes);
        } else {
            let rate = people / took.processor_seconds;
            row(what, format!("{:.2} s, {rate:.0} instances a processor second", took.seconds));
        }
        row("its most memory, all processes", format!("{most:.0} MB"));
        row("what it read of the dataset", format!("{:.2} GB", *read as f64 / 1e9));
    }
}

/// The job in the middle of three, and the memory of a fourth that was watched.
fn thrice(run: impl Fn() -> Run) -> Run {
    let (mut all, most) = ((0..RUNS).map(|_| run()).collect::<Vec<_>>(), most_memory(std::process::id(), &run).1);
    all.sort_by(|one, other| one.took.seconds.total_cmp(&other.took.seconds));
    Run { most, ..all.swap_remove(RUNS / 2) }
}

/// Every round of a job, as at one site; what its release says goes back to the analysis.
fn job(sandbox: &Sandbox, dataset: &Dataset, guests: &Guests, name: &str, params: &serde_json::Value) -> Run {
    let threads = threads();
    let component = std::fs::read(world::component(name)).unwrap();
    let analysis = sandbox.load(&component).unwrap();
    let (params, limits) = (params.to_string(), Limits { fuel_per_partition: 2_000_000, memory_mib: 64 });
    let plan = analysis.plan(&params, limits).unwrap();
    let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants).unwrap();
    let shape = Shape { variants, columns };
    let partitions = Partitions::of(plan.partitioning, dataset.info().approximate_size);
    drop(guests.load(&component).unwrap());
    let before = dataset.bytes_read();
    let mut history: Vec<Vec<Released>> = vec![];
    let (mut seconds, mut processor_seconds) = (0.0, 0.0);
    while let Step::Round(round) = analysis.next(&params, &shape, &history, limits).unwrap() {
        let (released, took) = timed(|| {
            let selection = dataset.select(&plan.columns, &plan.variants).unwrap().of(&round);
            let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(round.share_ppb());
            let calibrated = calibrate(&round, plan.partitioning, budget).unwrap();
            let loaded = guests.load(&component).unwrap();
            let crews = loaded.prepare(&round, limits, &selection, partitions, Costs::USUAL).unwrap().crews(threads).unwrap();
            let (_, released) = trial::release(dataset, &selection, partitions, crews, &calibrated).unwrap();
            let of = round.statistics().iter().zip(&calibrated).zip(released);
            of.map(|((statistic, calibrated), values)| Released {
                name: statistic.name.clone(),
                values,
                noise_sd: calibrated.noise_sd(),
                sites: 1,
            })
            .collect()
        });
        seconds += took.seconds;
        processor_seconds += took.processor_seconds;
        history.push(released);
    }
    let people = dataset.info().approximate_size as f64;
    let genotypes = people * shape.variants.len() as f64;
    let (variants, rounds) = (shape.variants.len(), history.len());
    let what = format!("{name}, {variants} variants, {rounds} rounds through the whole gate, {threads} threads");
    let read = dataset.bytes_read() - before;
    Run { what, people, genotypes, took: Took { seconds, processor_seconds }, most: 0.0, read }
}

fn walk(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { entry.metadata().unwrap().len() as f64 }).sum()
}
