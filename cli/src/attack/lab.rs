//! Where guests are attacked with: datasets as a site ingests them, a site's sandbox, worker processes, reducer and noise, with the sums
//! before the noise in sight.
//!
//! *In*: people. *Out*: exact sums, and what would be released. A planted [`Defect`] takes the place of the part that it is in.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::{Partitioning, Round};
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::dataset::{DataFolder, Dataset, Importers, Same, StoreKey, ingest};
use vestibule_runtime::guests::Guests;
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::trial;
use vestibule_sandbox::{Analysis, CodeCache, Individual, Sandbox, Settings, Shape, Step, Value};
use vestibule_worker::Launch;

use super::Defect;
use super::naked::{Manner, Naked};
use crate::analysis::build;
use crate::compiled;

pub(crate) const DICTIONARY: &str = "name = \"d\"\n[[column]]\nname = \"sex\"\ntype = \"levels\"\nlevels = [\"F\", \"M\"]\n\
    [[column]]\nname = \"age\"\ntype = \"number\"\nlower = 0\nupper = 100000\n\
    [[column]]\nname = \"trait\"\ntype = \"number\"\nlower = -9\nupper = 9\n";
pub(crate) const RECIPE: &str = "approximate_size = 2_000\nduo = [\"DUO:0000042\"]\ndictionary = \"dictionary.toml\"\nbudget = { epsilon = 1.0, delta = 1e-6 }\n\
    [[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.sex]\ncolumn = \"sex\"\n[map.age]\ncolumn = \"age\"\n[map.trait]\ncolumn = \"trait\"\n";

/// Somebody.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) man: bool,
    pub(crate) age: f64,
    pub(crate) measured: f64,
}

/// Some people, and their dataset.
pub(crate) struct Cohort {
    pub(crate) people: Vec<Person>,
    pub(crate) dataset: Dataset,
}

/// What a guest is asked to do, and on what terms.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) params: serde_json::Value,
    pub(crate) limits: Limits,
    pub(crate) noise: Noise,
    pub(crate) epsilon: f64,
}

/// What there is of a release.
pub(crate) struct Seen {
    /// The sums before the noise: for the attacks' own eyes.
    pub(crate) exact: Vec<f64>,
    /// The sums as they are released.
    pub(crate) released: Vec<f64>,
    /// How many individuals made the analysis fail, where that is told.
    pub(crate) failures: Option<usize>,
    /// How the noise was made.
    pub(crate) calibrated: Calibrated,
}

pub(crate) struct Lab {
    temp: tempfile::TempDir,
    dir: DataFolder,
    datasets: Cell<u32>,
    pub(crate) component: Vec<u8>,
    pub(crate) analysis: Analysis,
    pub(crate) naked: Naked,
    pub(crate) defect: Option<Defect>,
    stale: RefCell<Vec<f64>>,
}

impl Ask {
    pub(crate) fn how(how: &str) -> Self {
        Self::of(serde_json::json!({ "how": how }))
    }

    /// At epsilon 1, pure.
    pub(crate) fn of(params: serde_json::Value) -> Self {
        let limits = Limits { fuel_per_partition: 300_000, memory_mib: 64 };
        Self { params, limits, noise: Noise::Laplace, epsilon: 1.0 }
    }

    pub(crate) fn epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    pub(crate) fn fuel(self, fuel_per_partition: u64) -> Self {
        Self { limits: Limits { fuel_per_partition, ..self.limits }, ..self }
    }

    pub(crate) fn memory(self, memory_mib: u32) -> Self {
        Self { limits: Limits { memory_mib, ..self.limits }, ..self }
    }
}

/// As a site clamps what is declared to be between 0 and 1.
fn clamped(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

impl Lab {
    pub(crate) fn new(root: &Path, defect: Option<Defect>) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("vestibule-attack-").tempdir()?;
        let wasm = temp.path().join("hostile.wasm");
        build::build(&root.join("guest-examples/hostile"), Some(&wasm), &mut |_| {})?;
        let component = std::fs::read(&wasm)?;
        std::fs::write(temp.path().join("dictionary.toml"), DICTIONARY)?;
        std::fs::create_dir(temp.path().join("code"))?;
        let dir = DataFolder::from(Dir::open_ambient_dir(temp.path(), ambient_authority())?);
        let analysis = compiled::sandbox(false)?.load(&component)?;
        let naked = Naked::new(&component)?;
        Ok(Self { temp, dir, datasets: Cell::new(0), component, analysis, naked, defect, stale: RefCell::default() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.temp.path()
    }

    /// People of whom every third is a man, each with an age of their own.
    pub(crate) fn people(count: u32) -> Vec<Person> {
        let person = |n: u32| Person {
            id: format!("p{n}"),
            man: n.is_multiple_of(3),
            age: f64::from(20 + n),
            measured: f64::from(n % 7) - 3.0,
        };
        (0..count).map(person).collect()
    }

    /// Ingests people, as a site does. `key`: whose rows are in another order under another key.
    pub(crate) fn cohort(&self, people: Vec<Person>, key: u8) -> Result<Cohort> {
        self.datasets.set(self.datasets.get().saturating_add(1));
        let name = format!("d{}", self.datasets.get());
        let row = |person: &Person| {
            let sex = if person.man { "M" } else { "F" };
            format!("{},{sex},{},{}\n", person.id, person.age, person.measured)
        };
        let table: String = std::iter::once("id,sex,age,trait\n".to_owned()).chain(people.iter().map(row)).collect();
        std::fs::write(self.path().join("people.csv"), table)?;
        let key = StoreKey::from_bytes([key; 32]);
        let size = format!("approximate_size = {}", people.len().max(2_000));
        let recipe = format!("name = \"{name}\"\n{}", RECIPE.replace("approximate_size = 2_000", &size));
        ingest((&self.dir, &recipe), (&self.dir, &key), &Importers::this_program(), Same::TakeOver, &mut |_| {})?;
        Ok(Cohort { people, dataset: Dataset::open(&self.dir, &name.parse()?, &key)? })
    }

    /// Guests, as a site runs them.
    pub(crate) fn guests(&self) -> Result<Guests> {
        let cache = CodeCache::new(Box::new(CodeFolder(self.dir.open_dir("code")?)), &[7; 32]);
        Ok(Guests::new(Launch::this_program(64), cache))
    }

    /// What the guest asks of the data first.
    pub(crate) fn round(&self, ask: &Ask, dataset: &Dataset) -> Result<Round> {
        let params = ask.params.to_string();
        let plan = self.analysis.plan(&params, ask.limits)?;
        let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants)?;
        match self.analysis.next(&params, &Shape { variants, columns }, &[], ask.limits)? {
            Step::Round(round) => Ok(round),
            Step::Report(_) => bail!("the hostile guest asks for nothing"),
        }
    }

    /// Runs a round of one statistic over a dataset.
    pub(crate) fn run(&self, ask: &Ask, cohort: &Cohort) -> Result<Seen> {
        let round = self.round(ask, &cohort.dataset)?;
        let delta = if ask.noise == Noise::Laplace { 0.0 } else { 1e-6 };
        let budget = Budget::new(ask.noise, ask.epsilon, delta)?.round(round.share_ppb());
        let mut loaded = self.guests()?.load(&self.component)?;
        let plan = loaded.plan(&ask.params.to_string(), ask.limits)?;
        let partitions = Partitions::of(plan.partitioning, cohort.dataset.info().approximate_size);
        // A planted defect: what one individual's block gives is taken to move by no more than its size.
        let reach = if self.defect == Some(Defect::BlockReach) { Partitioning::Each } else { plan.partitioning };
        let calibrated = calibrate(&round, reach, budget)?;
        let selection = cohort.dataset.select(&plan.columns, &plan.variants)?.of(&round);
        let crews = loaded.prepare(&round, ask.limits, &selection, partitions, Costs::USUAL)?.crews(1)?;
        let (exact, released) = trial::release(&cohort.dataset, &selection, partitions, crews, &calibrated)?;
        let first = |found: Vec<Vec<f64>>| found.into_iter().next().context("a round without a statistic");
        let (exact, released) = (first(exact)?, first(released)?);
        let noise: Vec<f64> = released.iter().zip(&exact).map(|(released, exact)| released - exact).collect();
        let (exact, failures) = self.sums(ask, cohort, &round, exact)?;
        let noise = self.noise(noise);
        let released = exact.iter().zip(&noise).map(|(exact, noise)| exact + noise).collect();
        let calibrated = calibrated.into_iter().next().context("a round without a statistic")?;
        Ok(Seen { exact, released, failures, calibrated })
    }

    /// How long a round takes from its first row to its sums, before any noise, and by how much one
    /// individual may move that, as delays reckon it: in microseconds.
    pub(crate) fn end(&self, ask: &Ask, cohort: &Cohort, threads: usize, costs: Costs) -> Result<(f64, f64)> {
        let round = self.round(ask, &cohort.dataset)?;
        let budget = Budget::new(ask.noise, ask.epsilon, 0.0)?.round(round.share_ppb());
        let mut loaded = self.guests()?.load(&self.component)?;
        let plan = loaded.plan(&ask.params.to_string(), ask.limits)?;
        let partitions = Partitions::of(plan.partitioning, cohort.dataset.info().approximate_size);
        let calibrated = calibrate(&round, plan.partitioning, budget)?;
        let selection = cohort.dataset.select(&plan.columns, &plan.variants)?.of(&round);
        let prepared = loaded.prepare(&round, ask.limits, &selection, partitions, costs)?;
        let longest_us = prepared.load().longest_us(1, costs);
        let took = match self.defect {
            Some(Defect::Unmetered) => self.naked.timed(round.state(), &cohort.people, ask.limits.fuel_per_partition)?,
            Some(Defect::KeptPages) => self.kept(ask, &round, &cohort.people)?,
            _ => {
                let crews = prepared.crews(threads)?;
                let began = Instant::now();
                trial::release(&cohort.dataset, &selection, partitions, crews, &calibrated)?;
                began.elapsed()
            }
        };
        Ok((took.as_secs_f64() * 1e6, longest_us))
    }

    /// The same engine, which never gives back what an instance left.
    fn kept(&self, ask: &Ask, round: &Round, people: &[Person]) -> Result<Duration> {
        let settings =
            Settings { threads: 1, max_memory_mib: 64, alone: true, parallel_compilation: false, ..Settings::default() };
        let runner = Sandbox::new(settings)?.load(&self.component)?.runner(round, ask.limits)?;
        let began = Instant::now();
        for person in people {
            let values = [Value::Level(u32::from(person.man)), Value::Number(person.age), Value::Number(person.measured)];
            // What it returns or fails with does not matter here.
            let _ = runner.contribute(&[Individual { values: &values, dosages: &[] }]);
        }
        Ok(began.elapsed())
    }

    /// The sums, as a planted defect makes them; else the site's.
    fn sums(&self, ask: &Ask, cohort: &Cohort, round: &Round, exact: Vec<f64>) -> Result<(Vec<f64>, Option<usize>)> {
        if ask.params.get("blocks").is_some() {
            // The planted ones run guests for each person alone.
            return Ok((exact, None));
        }
        let fuel = ask.limits.fuel_per_partition;
        let (manner, clamp): (Manner, fn(f64) -> f64) = match self.defect {
            Some(Defect::ReusedInstance) => (Manner { reuse: true, fuel, together: false }, clamped),
            Some(Defect::NoClamp | Defect::TrapCount) => (Manner { reuse: false, fuel, together: false }, |x| x),
            Some(Defect::NanPoison) => (Manner { reuse: false, fuel, together: false }, |x| x.clamp(0.0, 1.0)),
            // Enough for everybody, were nobody slow.
            Some(Defect::WallClock) => (Manner { reuse: false, fuel: fuel.saturating_mul(2), together: true }, clamped),
            _ => return Ok((exact, None)),
        };
        let given = self.naked.run(round.state(), &cohort.people, manner)?;
        if self.defect == Some(Defect::TrapCount) {
            return Ok((exact, Some(given.iter().filter(|given| given.is_none()).count())));
        }
        let mut sums = vec![0.0; exact.len()];
        for given in given.iter().flatten().filter(|given| given.len() == exact.len()) {
            sums.iter_mut().zip(given).for_each(|(sum, value)| *sum += clamp(*value));
        }
        Ok((sums, None))
    }

    /// Noise, as a planted defect makes it.
    fn noise(&self, mut noise: Vec<f64>) -> Vec<f64> {
        match self.defect {
            Some(Defect::HalfNoise) => noise.iter_mut().for_each(|noise| *noise *= 0.5),
            Some(Defect::SharedNoise) => {
                let first = noise.first().copied().unwrap_or_default();
                noise.fill(first);
            }
            Some(Defect::StaleNoise) => {
                let mut stale = self.stale.borrow_mut();
                let known = stale.len();
                stale.extend(noise.iter().skip(known));
                noise.iter_mut().zip(stale.iter()).for_each(|(noise, stale)| *noise = *stale);
            }
            _ => {}
        }
        noise
    }

    /// That many draws of the noise that a sum of one number between 0 and 1 gets at this epsilon, by the site's own path: a histogram
    /// of as many cells has the same noise in each.
    pub(crate) fn draws(&self, count: u32, epsilon: f64) -> Result<Vec<f64>> {
        let ask = Ask::of(serde_json::json!({ "how": "own cell", "cells": count })).epsilon(epsilon);
        let nobody = self.cohort(Self::people(1), 1)?;
        let seen = self.run(&ask, &nobody)?;
        Ok(seen.released.iter().zip(&seen.exact).map(|(released, exact)| released - exact).collect())
    }
}
