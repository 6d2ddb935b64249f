//! Rounds of three kinds over one dataset, to be run by one executor and by another: by tests, and by `cargo speed -- cluster`.

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::job::{Budget, Limits, Noise, RoundBudget};
use vestibule_protocol::round::Round;
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::dataset::{DataFolder, Dataset, Same, Selection, StoreKey, ingest};
use vestibule_runtime::delay::Delay;
use vestibule_runtime::executor::{self, Ask, Chosen, Executor, ExecutorSettings, Work};
use vestibule_runtime::guests::Guests;
use vestibule_runtime::partitions::Partitions;
use vestibule_sandbox::{CodeCache, Sandbox, Settings, Shape, Step};
use vestibule_worker::Launch;

use super::cluster::Cluster;
use crate::world::{self, BINARY, component};

/// What guests do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everybody's values are summed as guests give them.
    Given,
    /// Guests give factors, and the host multiplies.
    Products,
    /// Blocks of individuals.
    Blocks,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Given, Kind::Products, Kind::Blocks];

/// Enough for a block's fit.
const LIMITS: Limits = Limits { fuel_per_partition: 50_000_000, memory_mib: 8 };

/// Costs at which nothing is waited for.
pub(crate) const fn no_time() -> Costs {
    Costs::NONE
}

/// At which each task waits some seconds.
pub(crate) const fn some_seconds() -> Costs {
    Costs { row_us: 25_000.0, ..no_time() }
}

/// At which one individual could take an hour.
pub(crate) const AN_HOUR: Costs = Costs { row_us: 3.6e9, ..no_time() };

/// A dataset of several row groups: the 2,504 people of `VESTIBULE_DATA`, or simulated ones.
pub(crate) struct Laid {
    _temp: tempfile::TempDir,
    pub(crate) dataset: Dataset,
    guests: Guests,
}

/// A round, ready but for its guests.
pub(crate) struct Ready {
    component: Vec<u8>,
    round: Round,
    selection: Selection,
    partitions: Partitions,
    calibrated: Vec<Calibrated>,
    budget: RoundBudget,
}

impl Laid {
    /// Simulated: so many people and variants.
    pub(crate) fn simulated(people: u32, variants: u32) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let (people, variants) = (people.to_string(), variants.to_string());
        let size = ["--people", &people, "--variants", &variants, "--sites", "1", "--seed", "7"];
        let made = world::run(temp.path(), &[&["simulate", "study"], &size[..]].concat());
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::of(temp, "study/site1")
    }

    pub(crate) fn new() -> Self {
        Self::simulated(4_000, 5_000)
    }

    fn of(temp: tempfile::TempDir, folder: &str) -> Self {
        let source = Dir::open_ambient_dir(temp.path().join(folder), ambient_authority()).unwrap();
        std::fs::create_dir(temp.path().join("data")).unwrap();
        let data = DataFolder::from(Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap());
        let key = StoreKey::from_bytes([1; 32]);
        let recipe = source.read_to_string("DATASET.toml").unwrap();
        ingest((&source, &recipe), (&data, &key), &world::importers(), Same::TakeOver, &mut |_| {}).unwrap();
        let dataset = Dataset::open(&data, &"cohort".parse().unwrap(), &key).unwrap();
        assert!(dataset.row_groups() > 2);
        std::fs::create_dir(temp.path().join("code")).unwrap();
        let code = CodeFolder(Dir::open_ambient_dir(temp.path().join("code"), ambient_authority()).unwrap());
        let guests = Guests::new(Launch::of(BINARY.into(), 64), CodeCache::new(Box::new(code), &[1; 32]));
        Self { _temp: temp, dataset, guests }
    }

    pub(crate) fn round(&self, kind: Kind) -> Ready {
        let slices: serde_json::Value = self.dataset.info().catalogues[0]
            .contigs()
            .map(|contig| json!({ "contig": contig, "start": 1, "end": 1_u64 << 40 }))
            .collect();
        let (name, params) = match kind {
            Kind::Given => ("cohort-summary", json!({ "columns": ["sex", "age", "ldl"] })),
            Kind::Products => ("allele-frequency", json!({ "catalogue": "simulated", "slices": slices })),
            Kind::Blocks => ("median-regression", json!({ "outcome": "ldl", "covariates": ["age"], "blocks": 50 })),
        };
        let (component, params) = (std::fs::read(component(name)).unwrap(), params.to_string());
        let analysis = Sandbox::new(Settings::default()).unwrap().load(&component).unwrap();
        let limits = LIMITS;
        let plan = analysis.plan(&params, limits).unwrap();
        let (variants, columns) = self.dataset.info().shape(&plan.columns, &plan.variants).unwrap();
        let Step::Round(round) = analysis.next(&params, &Shape { variants, columns }, &[], limits).unwrap() else {
            panic!("a round")
        };
        let selection = self.dataset.select(&plan.columns, &plan.variants).unwrap().of(&round);
        let partitions = Partitions::of(plan.partitioning, self.dataset.info().approximate_size);
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(round.share_ppb());
        let calibrated = calibrate(&round, plan.partitioning, budget).unwrap();
        Ready { component, round, selection, partitions, calibrated, budget }
    }

    pub(crate) fn threads(&self, threads: usize) -> Box<dyn Executor> {
        executor::of(&Chosen::Threads, (threads, 8_192), CancellationToken::new()).unwrap()
    }

    /// Two tasks of one processor each.
    pub(crate) fn slurm(&self, cluster: &Cluster) -> Box<dyn Executor> {
        self.slurm_of(cluster, "attempts = 3\n")
    }

    /// No task is run twice.
    pub(crate) fn slurm_once(&self, cluster: &Cluster) -> Box<dyn Executor> {
        self.slurm_of(cluster, "attempts = 1\n")
    }

    pub(crate) fn slurm_of(&self, cluster: &Cluster, more: &str) -> Box<dyn Executor> {
        let (folder, configuration) = (cluster.shared(), cluster.configuration());
        let text = format!(
            "kind = \"slurm\"\nfolder = {folder:?}\nconfiguration = {configuration:?}\nprogram = {BINARY:?}\ntasks = 2\npoll_seconds = 1\n{more}"
        );
        let settings: ExecutorSettings = toml::from_str(&text).unwrap();
        executor::of(&settings.chosen().unwrap(), (2, 8_192), CancellationToken::new()).unwrap()
    }
}

impl Ready {
    /// The round, its guests prepared; at these costs.
    pub(crate) fn work<'a>(&'a self, laid: &'a Laid, costs: Costs) -> Work<'a> {
        let limits = LIMITS;
        let guests = laid.guests.load(&self.component).unwrap();
        let guests = guests.prepare(&self.round, limits, &self.selection, self.partitions, Costs::USUAL).unwrap();
        let load = guests.load();
        let delay = Delay::of(&self.round, self.budget.time(), load, costs);
        let (rows, selection, partitions, calibrated) = (&*laid.dataset, &self.selection, self.partitions, &self.calibrated);
        Work { ask: Ask { rows, selection, partitions, calibrated, load, costs, delay }, guests }
    }
}
