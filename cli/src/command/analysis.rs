//! `vestibule analysis`.

mod quote;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use clap::{Args, Subcommand};
use serde_json::json;
use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::Plan;
use vestibule_protocol::shape;
use vestibule_runtime::dataset::{Config, DataFolder, Dataset, Importers, Same, StoreKey, ingest};
use vestibule_runtime::trial::{self, Trial};
use vestibule_sandbox::{Inspection, Sandbox, Shape};

use crate::analysis::{build, scaffold};
use crate::compiled;
use crate::failure::{Exit, Failure, coded};
use crate::files::{read, read_bytes};
use crate::show;

#[derive(Debug, Subcommand)]
pub(crate) enum Analysis {
    /// Write a crate to start from, with its own test and the SDK beside it.
    New {
        /// The new folder; its name becomes the crate's.
        dir: PathBuf,
        /// The example to start from: cohort-summary, allele-frequency, linear-association, logistic-regression or median-regression.
        #[arg(long, default_value = "cohort-summary")]
        template: String,
    },
    /// Build a crate into one component that imports nothing.
    Build {
        /// The crate's folder.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where to; by default NAME.wasm in the crate's folder.
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Show what a component is: digest, size, exports, imports; with --params, what it would read.
    Inspect {
        /// The component.
        file: PathBuf,
        /// The job's parameters, as JSON.
        #[arg(long)]
        params: Option<String>,
    },
    /// Run a whole job on data of your own, with the sandbox, reducer and noise of a site: exact and noised side by side.
    Try {
        /// The component.
        file: PathBuf,
        /// The job's parameters, as JSON.
        #[arg(long, default_value = "{}")]
        params: String,
        /// A DATASET.toml, as a site writes it: tables, variant files, dictionary, catalogues.
        #[arg(long)]
        data: PathBuf,
        #[command(flatten)]
        budget: Amount,
    },
    /// Error bars of a job's first round, before any budget is spent.
    Quote {
        /// The component.
        file: PathBuf,
        /// The job's parameters, as JSON.
        #[arg(long, default_value = "{}")]
        params: String,
        /// Compare several values of one parameter, as in `blocks=20,50,100`.
        #[arg(long, value_name = "NAME=VALUE,...")]
        vary: Option<String>,
        /// The dictionary's file.
        #[arg(long)]
        dictionary: PathBuf,
        /// Catalogue files.
        #[arg(long)]
        catalogue: Vec<PathBuf>,
        /// Individuals at all sites together.
        #[arg(long)]
        individuals: u64,
        /// Sites: each adds noise of its own.
        #[arg(long, default_value_t = 1)]
        sites: u32,
        #[command(flatten)]
        budget: Amount,
    },
}

/// How much privacy the job may spend.
#[derive(Debug, Args)]
pub(crate) struct Amount {
    /// Epsilon of the whole job.
    #[arg(long, default_value_t = 1.0)]
    epsilon: f64,
    /// Delta of the whole job.
    #[arg(long, default_value_t = 1e-6)]
    delta: f64,
    /// Pure-epsilon Laplace noise instead of Gaussian; delta is then 0.
    #[arg(long)]
    laplace: bool,
    /// Fuel of one individual, about one unit per instruction.
    #[arg(long, default_value_t = Limits::default().fuel_per_partition)]
    fuel: u64,
    /// Memory of one instance, in MiB.
    #[arg(long, default_value_t = Limits::default().memory_mib)]
    memory_mib: u32,
}

impl Amount {
    fn budget(&self) -> Result<Budget> {
        let (noise, delta) = if self.laplace { (Noise::Laplace, 0.0) } else { (Noise::Gaussian, self.delta) };
        Budget::new(noise, self.epsilon, delta).map_err(|error| coded(error.code(), error))
    }

    const fn limits(&self) -> Limits {
        Limits { fuel_per_partition: self.fuel, memory_mib: self.memory_mib }
    }
}

fn load(file: &Path) -> Result<(Sandbox, vestibule_sandbox::Analysis)> {
    let sandbox = compiled::sandbox(true)?;
    let analysis =
        sandbox.load(&read_bytes(file)?).map_err(|error| coded(error.code(), format!("{}: {error}", file.display())))?;
    Ok((sandbox, analysis))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn guest(error: vestibule_sandbox::GuestError) -> anyhow::Error {
    coded(error.code(), &error)
}

impl Analysis {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::New { dir, template } => {
                let name = scaffold::new(&dir, &template)?;
                if json {
                    println!("{}", json!({ "folder": dir, "crate": name, "template": template }));
                } else {
                    let dir = dir.display();
                    println!("{dir}  crate {name}, from {template}\nnext: vestibule analysis build {dir}");
                }
                Ok(())
            }
            Self::Build { dir, output } => {
                let built = build::build(&dir, output.as_deref(), &mut |text| eprintln!("{text}"))?;
                if json {
                    println!("{}", json!({ "file": built.path, "bytes": built.bytes, "digest": built.digest }));
                } else {
                    println!("{}  {} bytes  {}", built.path.display(), built.bytes, built.digest);
                }
                Ok(())
            }
            Self::Inspect { file, params } => inspect(&file, params.as_deref(), json),
            Self::Try { file, params, data, budget } => {
                let trial = try_out(&file, &params, &data, &budget)?;
                if json {
                    println!("{}", document(&trial));
                } else {
                    println!("{}", text(&trial, budget.limits()));
                }
                Ok(())
            }
            Self::Quote { file, params, vary, dictionary, catalogue, individuals, sites, budget } => {
                let (_, analysis) = load(&file)?;
                let shape_of = |plan: &Plan| public_shape(plan, &dictionary, &catalogue);
                let question = quote::Question { analysis: &analysis, shape_of, individuals, sites, amount: &budget };
                match vary {
                    Some(vary) => question.compare(&params, &vary, json),
                    None => question.answer(&params, json),
                }
            }
        }
    }
}

fn inspect(file: &Path, params: Option<&str>, json: bool) -> Result<()> {
    let bytes = read_bytes(file)?;
    let inspection =
        vestibule_sandbox::inspect(&bytes).map_err(|error| coded(error.code(), format!("{}: {error}", file.display())))?;
    let refused = inspection.imports.first().cloned();
    let plan = match (params, &refused) {
        (Some(params), None) => Some(load(file)?.1.plan(params, Limits::default()).map_err(guest)?),
        _ => None,
    };
    if json {
        let mut document = serde_json::to_value(&inspection)?;
        if let (Some(object), Some(plan)) = (document.as_object_mut(), &plan) {
            object.insert("plan".to_owned(), serde_json::to_value(plan)?);
        }
        println!("{document}");
    } else {
        println!("{}", receipt(&inspection, plan.as_ref()));
    }
    match refused {
        None => Ok(()),
        Some(import) if json => {
            eprintln!("refused: it imports `{import}`");
            std::process::exit(Exit::Refused as i32)
        }
        Some(import) => {
            let error = vestibule_sandbox::LoadError::Import { import };
            Err(Failure::of(Exit::Refused, error.code(), error))
        }
    }
}

/// The capability receipt: what a committee needs to know.
fn receipt(inspection: &Inspection, plan: Option<&Plan>) -> String {
    let mut lines = vec![
        format!("digest   {}", inspection.digest),
        format!("size     {} bytes", inspection.bytes),
        format!("exports  {}", inspection.exports.join(", ")),
    ];
    if inspection.imports.is_empty() {
        lines.push(
            "imports  no function: it cannot read a file, see the time, draw a random number, use a network or write a log"
                .to_owned(),
        );
    } else {
        lines.push(format!("imports  {}: refused", inspection.imports.join(", ")));
    }
    if let Some(plan) = plan {
        let columns =
            if plan.columns.is_empty() { "no column".to_owned() } else { format!("the columns {}", plan.columns.join(", ")) };
        lines.push(format!("reads    of each individual {columns}"));
        for slice in &plan.variants {
            lines.push(format!(
                "         and the dosages of catalogue `{}` on {} from {} to {}",
                slice.catalogue, slice.contig, slice.start, slice.end
            ));
        }
        lines.push(format!(
            "returns  in at most {} rounds, sums over all individuals that the site has clamped and noised",
            plan.max_rounds
        ));
        lines.push("         `vestibule analysis quote` lists them with their bounds and error bars".to_owned());
    }
    lines.join("\n")
}

fn try_out(file: &Path, params: &str, recipe: &Path, amount: &Amount) -> Result<Trial> {
    let budget = amount.budget()?;
    let (_, analysis) = load(file)?;
    let recipe_text = read(recipe)?;
    let folder = recipe.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let open = |path: &Path| {
        Dir::open_ambient_dir(path, ambient_authority())
            .map_err(|error| Failure::input("file-unreadable", format!("{}: {error}", path.display())))
    };
    let name = Config::parse(&recipe_text).map_err(|error| coded(error.code(), format!("{}: {error}", recipe.display())))?.name;
    let temp = tempfile::tempdir()?;
    let data = DataFolder::from(open(temp.path())?);
    let key = StoreKey::from_bytes(crate::files::random()?);
    let report = ingest((&open(folder)?, &recipe_text), (&data, &key), &Importers::this_program(), Same::TakeOver, &mut |_| {});
    let report = report.map_err(|error| coded(error.code(), format!("{}: {error}", recipe.display())))?;
    eprintln!("{report}");
    let dataset = Dataset::open(&data, &name, &key).map_err(|error| coded(error.code(), error))?;
    trial::run(&analysis, params, &dataset, budget, amount.limits()).map_err(|error| coded(error.code(), error))
}

/// How many entries of a long statistic a terminal shows.
const ENTRIES: usize = 8;

fn text(trial: &Trial, limits: Limits) -> String {
    let mut parts = Vec::new();
    if trial.fault_count > 0 {
        let faults = trial
            .faults
            .iter()
            .map(|trial::Fault { first, count, what }| format!("  {count} times, first at individual {first}: {what}"));
        parts.push(format!(
            "THE ANALYSIS FAILED {} times. Each of these individuals counts as nothing, at sites too, where nobody is told:\n{}",
            trial.fault_count,
            faults.collect::<Vec<_>>().join("\n")
        ));
    }
    for (index, round) in trial.rounds.iter().enumerate() {
        let rows = round.released.iter().zip(&round.exact).flat_map(|(released, exact)| {
            let entries = released.values.iter().zip(exact).enumerate().take(ENTRIES);
            entries.map(|(entry, (noised, exact))| {
                let name =
                    if released.values.len() == 1 { released.name.clone() } else { format!("{}[{entry}]", released.name) };
                vec![name, show::number(*exact), show::number(*noised), format!("± {}", show::number(1.96 * released.noise_sd))]
            })
        });
        let heads = ["statistic", "exact", "noised", "95 %"];
        let (fuel, delay) = round.enough;
        let enough = if round.most_fuel > 0 && fuel < limits.fuel_per_partition && delay < round.delay {
            format!("; with `fuel_per_partition = {fuel}`, twice that and rounded up, some {}", show::span(delay))
        } else {
            String::new()
        };
        parts.push(format!(
            "round {}: {:.1} % of the budget\n{}\n{} took at most {} of {} fuel; at these limits and {} MiB a site's release leaves \
             some {} after its round{enough}{}",
            index + 1,
            share(round.round.share_ppb()),
            show::grid(&heads, rows),
            if trial.fault_count > 0 { "of those at whom it did not fail, one" } else { "one individual" },
            round.most_fuel,
            limits.fuel_per_partition,
            limits.memory_mib,
            show::span(round.delay),
            show::at_most(round.delay)
        ));
    }
    parts.push(show::report(&trial.report));
    parts.join("\n\n")
}

#[expect(clippy::cast_precision_loss, reason = "a share is at most 1e9")]
fn share(ppb: u64) -> f64 {
    ppb as f64 / 1e7
}

fn document(trial: &Trial) -> serde_json::Value {
    let rounds = trial.rounds.iter().map(|round| {
        let statistics = round.released.iter().zip(&round.exact).map(|(released, exact)| {
            json!({ "name": released.name, "exact": exact, "noised": released.values, "noise_sd": released.noise_sd })
        });
        json!({ "budget_share": share(round.round.share_ppb()) / 100.0, "statistics": statistics.collect::<Vec<_>>(),
            "most_fuel": round.most_fuel, "delay_seconds": round.delay.as_secs_f64(),
            "enough_fuel": round.enough.0, "delay_seconds_with_enough_fuel": round.enough.1.as_secs_f64() })
    });
    let faults = trial.faults.iter();
    let faults = faults.map(|trial::Fault { first, count, what }| json!({ "first": first, "count": count, "message": what }));
    json!({ "rounds": rounds.collect::<Vec<_>>(), "report": trial.report, "fault_count": trial.fault_count, "faults": faults.collect::<Vec<_>>() })
}

fn public_shape(plan: &Plan, dictionary: &Path, catalogues: &[PathBuf]) -> Result<Shape> {
    let of = |path: &Path, code: &str, error: &dyn std::fmt::Display| coded(code, format!("{}: {error}", path.display()));
    let parsed = Dictionary::parse(&read(dictionary)?).map_err(|error| of(dictionary, error.code(), &error))?;
    let mut known = Vec::new();
    for path in catalogues {
        known.push(Arc::new(Catalogue::parse(&read_bytes(path)?).map_err(|error| of(path, error.code(), &error))?));
    }
    let (variants, columns) =
        shape::resolve(&parsed, &known, &plan.columns, &plan.variants).map_err(|error| coded(error.code(), error))?;
    Ok(Shape { variants, columns })
}
