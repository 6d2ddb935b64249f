//! `vestibule demo`: the whole of it on one machine.
//!
//! *In*: the data that ship with the project, and its example analyses. *Out*: what two jobs found, beside the truth. Coordinator
//! and sites are processes of this same binary, with folders and keys of their own, and talk QUIC on loopback. *Stops*: all of
//! them when it ends, however it ends.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use vestibule_protocol::report::{Cells, Report, Table};

use crate::analysis::build;
use crate::failure::{Exit, Failure};
use crate::federation::{Federation, source_root};
use crate::show;

/// The five sites, and who is there.
const SITES: [(&str, &str); 5] =
    [("accra", "African"), ("bogota", "American"), ("kyoto", "East Asian"), ("leiden", "European"), ("pune", "South Asian")];

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many of the five sites.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=5))]
    sites: u8,
    /// Where to keep everything; by default a temporary folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the temporary folder.
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let start = Instant::now();
        let root = source_root()?;
        let temp = tempfile::Builder::new().prefix("vestibule-demo-").tempdir()?;
        let dir = match &self.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                dir.canonicalize()?
            }
            None => temp.path().to_owned(),
        };
        // With --keep, the folder outlives this process.
        let temp = if self.keep { Err(temp.keep()) } else { Ok(temp) };
        say(json, "building the analyses");
        for name in ["allele-frequency", "linear-association"] {
            build::build(&root.join("guest-examples").join(name), Some(&dir.join(format!("{name}.wasm"))), &mut |_| {})?;
        }
        say(json, "starting a coordinator and its sites");
        let sites: Vec<&str> = SITES.iter().take(usize::from(self.sites)).map(|(site, _)| *site).collect();
        let mut federation = Federation::start(&dir, 2.min(sites.len().saturating_sub(1).try_into()?))?;
        federation.charter("project", &["ada"], &sites)?;
        for site in &sites {
            federation.demo_site(site, &root.join("cli/demo-data"), site, None)?;
        }
        federation.connected(sites.len())?;
        let truth = truth(&root.join("cli/demo-data/truth.tsv"))?;
        say(json, "job 1: allele frequencies on chromosome 19");
        let frequency = federation.report("allele-frequency", FREQUENCY, sites.len())?;
        say(json, "job 2: which variants of chromosomes 8, 15 and 19 move the trait");
        let association = federation.report("linear-association", ASSOCIATION, sites.len())?;
        let logs = sites.iter().map(|site| Ok((*site, federation.vestibule(&["log", "verify", site])?)));
        let logs: Vec<(&str, Value)> = logs.collect::<Result<_>>()?;
        let budgets = sites.iter().map(|site| Ok((*site, federation.vestibule(&["site", "budget", site])?)));
        let budgets: Vec<(&str, Value)> = budgets.collect::<Result<_>>()?;
        let everyone = usize::from(self.sites) == SITES.len();
        let found = Findings::of(&frequency, &association, &truth, everyone)?;
        if json {
            let document = json!({ "dir": dir, "allele_frequency": frequency, "association": association, "findings": found.document(),
                "budgets": budgets.iter().map(|(site, budget)| json!({ "site": site, "accounts": budget })).collect::<Vec<_>>(),
                "logs": logs.iter().map(|(site, log)| json!({ "site": site, "log": log })).collect::<Vec<_>>() });
            println!("{document}");
        } else {
            found.print();
            for (site, budget) in &budgets {
                let of =
                    |key: &str| budget.get(0).and_then(|account| account.get(key)).and_then(Value::as_f64).unwrap_or_default();
                println!("{site:10} spent epsilon {:.2} of {:.2}, for good", of("spent_epsilon"), of("cap_epsilon"));
            }
            println!();
            for (site, log) in &logs {
                let number = |key: &str| log.get(key).and_then(Value::as_u64).unwrap_or_default();
                let (leaves, witnessed) = (number("leaves"), number("witnessed"));
                println!(
                    "{site:10} its log of {leaves} lines is whole, witnessed by others up to {witnessed}; its books are what it says"
                );
            }
            println!("\nthe whole of it took {:.1} s", start.elapsed().as_secs_f64());
        }
        if self.keep || self.dir.is_some() {
            say(json, &format!("reports with plots: {0}/allele-frequency.html and {0}/linear-association.html", dir.display()));
        } else {
            let kept = keep_reports(&dir)?;
            say(
                json,
                &format!("reports with plots: {0}/allele-frequency.html and {0}/linear-association.html", kept.display()),
            );
        }
        federation.stop();
        drop(temp);
        if found.good() {
            Ok(())
        } else {
            Err(Failure::of(Exit::Ours, "demo-failed", "what was found is not what was planted"))
        }
    }
}

const FREQUENCY: &str = r#"
analysis  = "allele-frequency.wasm"
title     = "Allele frequencies of five continents"
dataset   = "cohort"
epsilon   = 3.0
delta     = 1e-6
sites     = ["*"]
min_sites = MIN
[limits]
fuel_per_partition = 200_000
memory_mib = 4
[params]
catalogue = "panel"
slices = [{ contig = "19", start = 1, end = 60_000_000 }]
"#;

const ASSOCIATION: &str = r#"
analysis  = "linear-association.wasm"
title     = "Which variants move the trait"
dataset   = "cohort"
epsilon   = 4.0
delta     = 1e-6
sites     = ["*"]
min_sites = MIN
[limits]
fuel_per_partition = 200_000
memory_mib = 4
[params]
outcome = "trait"
covariates = ["age", "sex"]
catalogue = "panel"
slices = [["8", 1, 150_000_000], ["15", 1, 110_000_000], ["19", 1, 60_000_000]]
"#;

fn say(json: bool, text: &str) {
    if json {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

/// Copies the two pages out of a folder that is about to go.
fn keep_reports(dir: &Path) -> Result<PathBuf> {
    let kept = tempfile::Builder::new().prefix("vestibule-demo-reports-").tempdir()?.keep();
    for name in ["allele-frequency.html", "linear-association.html"] {
        std::fs::copy(dir.join(name), kept.join(name))?;
    }
    Ok(kept)
}

/// One variant of the truth.
struct True {
    position: f64,
    contig: String,
    frequency: f64,
    effect: f64,
}

fn truth(path: &Path) -> Result<Vec<True>> {
    let text = crate::files::read(path)?;
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [contig, position, _, _, frequency, effect] = fields.as_slice() else {
            bail!("{}: a line of the truth is malformed", path.display())
        };
        Ok(True {
            contig: (*contig).to_owned(),
            position: position.parse()?,
            frequency: frequency.parse()?,
            effect: effect.parse()?,
        })
    };
    text.lines().skip(1).map(row).collect()
}

/// What the jobs found, beside the truth.
struct Findings {
    /// Contig, position, estimate, half width of the 95 % interval, truth.
    frequencies: Vec<(String, f64, f64, f64, f64)>,
    /// Contig, position, z, planted effect.
    associations: Vec<(String, f64, f64, f64)>,
    everyone: bool,
}

fn column<'a>(table: &'a Table, name: &str) -> Result<&'a Cells> {
    let known = || table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = table.columns.iter().find(|column| column.name == name);
    found
        .map(|column| &column.values)
        .with_context(|| format!("table `{}` has no column `{name}`, but {}", table.title, known()))
}

fn numbers(table: &Table, name: &str) -> Result<Vec<f64>> {
    match column(table, name)? {
        Cells::Numbers(values) => Ok(values.clone()),
        Cells::Texts(_) => bail!("column `{name}` holds texts"),
    }
}

fn texts(table: &Table, name: &str) -> Result<Vec<String>> {
    match column(table, name)? {
        Cells::Texts(values) => Ok(values.clone()),
        Cells::Numbers(_) => bail!("column `{name}` holds numbers"),
    }
}

fn first_table(result: &Value) -> Result<Table> {
    let report: Report = serde_json::from_value(result.get("report").cloned().unwrap_or_default())?;
    report.tables.into_iter().next().context("the report has no table")
}

impl Findings {
    fn of(frequency: &Value, association: &Value, truth: &[True], everyone: bool) -> Result<Self> {
        let known = |contig: &str, position: f64| {
            truth
                .iter()
                .find(|row| row.contig == contig && (row.position - position).abs() < 0.5)
                .context("a variant that is not in the truth")
        };
        let table = first_table(frequency)?;
        let (contigs, positions) = (texts(&table, "contig")?, numbers(&table, "position")?);
        let (estimates, errors) = (numbers(&table, "frequency")?, numbers(&table, "frequency sd")?);
        let mut frequencies = Vec::new();
        for (((contig, position), estimate), sd) in contigs.into_iter().zip(positions).zip(estimates).zip(errors) {
            let true_value = known(&contig, position)?.frequency;
            frequencies.push((contig, position, estimate, 1.96 * sd, true_value));
        }
        let table = first_table(association)?;
        let (contigs, positions, z) = (texts(&table, "contig")?, numbers(&table, "position")?, numbers(&table, "z")?);
        let mut associations = Vec::new();
        for ((contig, position), z) in contigs.into_iter().zip(positions).zip(z) {
            let effect = known(&contig, position)?.effect;
            associations.push((contig, position, z, effect));
        }
        associations.sort_by(|a, b| b.2.abs().total_cmp(&a.2.abs()));
        Ok(Self { frequencies, associations, everyone })
    }

    fn within(&self) -> usize {
        self.frequencies.iter().filter(|(.., estimate, half, truth)| (estimate - truth).abs() <= *half).count()
    }

    /// Planted variants whose test passes the Bonferroni threshold of 5 %, and all planted ones.
    fn planted_found(&self) -> (usize, usize) {
        // Two-sided 0.05 / 83: |z| = 3.43.
        const THRESHOLD: f64 = 3.43;
        let planted = || self.associations.iter().filter(|(.., effect)| *effect > 0.0);
        (planted().filter(|(_, _, z, _)| z.abs() > THRESHOLD).count(), planted().count())
    }

    /// With all five sites: all planted effects found, and 95 % intervals that hold the truth at least 3 times of 4. With 46 of
    /// them, an honest run falls below that about once in 10^8.
    fn good(&self) -> bool {
        let (found, planted) = self.planted_found();
        !self.everyone || (found == planted && self.within() * 4 >= self.frequencies.len() * 3)
    }

    fn print(&self) {
        let rows = self.frequencies.iter().take(8).map(|(contig, position, estimate, half, truth)| {
            let inside = if (estimate - truth).abs() <= *half { "" } else { "outside" };
            vec![
                format!("{contig}:{position}"),
                show::number(*estimate),
                format!("± {}", show::number(*half)),
                show::number(*truth),
                inside.to_owned(),
            ]
        });
        println!("\n{}", show::grid(&["variant", "frequency", "95 %", "public truth", ""], rows));
        if self.everyone {
            println!(
                "{} of {} frequencies lie within their 95 % error bars of the truth\n",
                self.within(),
                self.frequencies.len()
            );
        } else {
            println!("(with fewer than five sites the people are others than the truth's)\n");
        }
        let rows = self.associations.iter().take(6).map(|(contig, position, z, effect)| {
            let planted = if *effect > 0.0 { format!("planted, {effect} sd an allele") } else { String::new() };
            vec![format!("{contig}:{position}"), format!("{z:.1}"), planted]
        });
        println!("{}", show::grid(&["strongest variants", "z", ""], rows));
        let (found, planted) = self.planted_found();
        println!(
            "{found} of {planted} planted effects are found among {} variants (5 %, Bonferroni)\n",
            self.associations.len()
        );
    }

    fn document(&self) -> Value {
        let (found, planted) = self.planted_found();
        json!({ "frequencies": self.frequencies.len(), "within_95_percent": self.within(), "planted": planted, "planted_found": found })
    }
}
