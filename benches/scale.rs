//! A million people and a histogram: `cargo speed -- histogram`. A national programme's size: `cargo speed -- scale PEOPLE VARIANTS` (100,000 of each take 15 GB of disk for some minutes), and how time grows
//! up to it: `cargo speed -- growth FILE.svg`.
//!
//! Simulated people are ingested as at a site; whole rounds run as at a site, in worker processes, noise included. Beside them the same
//! questions to the tools of the field, on the same genotypes, which ask for no isolation and no privacy.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use serde_json::json;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::release::Released;
use vestibule_runtime::component::CodeFolder;
use vestibule_runtime::dataset::Dataset;
use vestibule_runtime::guests::Guests;
use vestibule_runtime::home::Home;
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::trial;
use vestibule_sandbox::{CodeCache, Sandbox, Settings, Shape, Step};
use vestibule_worker::Launch;

use super::{row, world};

/// What some work took.
struct Took {
    seconds: f64,
    processor_seconds: f64,
}

/// Of this process and of its children that ended, in seconds.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // utime, stime, cutime, cstime: fields 14 to 17 of proc(5), in hundredths.
    fields[11..15].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Took) {
    let (start, before) = (Instant::now(), processor());
    let value = work();
    (value, Took { seconds: start.elapsed().as_secs_f64(), processor_seconds: processor() - before })
}

/// The most memory that this process held since [`forget`], in MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1e3
}

/// Runs our own program to its end, and watches how much memory it holds.
fn watched(arguments: &[&str]) -> (Took, f64) {
    let mut most = 0.0_f64;
    let ((), took) = timed(|| {
        let mut child = Command::new(world::BINARY).args(arguments).stdout(Stdio::null()).spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        loop {
            if let Some(ended) = child.try_wait().unwrap() {
                assert!(ended.success(), "{arguments:?}");
                break;
            }
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("VmHWM")).and_then(|line| line.split_whitespace().nth(1));
            most = most.max(line.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1e3);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    (took, most)
}

fn forget() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn shown(what: &str, took: &Took, genotypes: f64) {
    let Took { seconds, processor_seconds } = took;
    let rate = format!(
        "{:.0} M genotypes/s, {:.0} M a processor second",
        genotypes / seconds / 1e6,
        genotypes / processor_seconds / 1e6
    );
    row(what, format!("{seconds:.2} s, {processor_seconds:.2} s of processors: {rate}"));
}

/// A tool of the field, where it is installed.
fn peer(what: &str, program: &str, arguments: &[&str], genotypes: f64) -> Option<Took> {
    let run = || Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let (status, took) = timed(run);
    match status {
        Ok(status) if status.success() => {
            shown(&format!("`{what}`"), &took, genotypes);
            Some(took)
        }
        _ => {
            row(&format!("`{what}`"), "not installed, or it failed".to_owned());
            None
        }
    }
}

/// Simulated people, ingested as at a site.
struct Laid {
    temp: tempfile::TempDir,
    dataset: Dataset,
    guests: Guests,
}

fn lay(people: u32, variants: u32, say: bool) -> Laid {
    let temp = tempfile::tempdir().unwrap();
    let study = temp.path().join("study");
    let genotypes = f64::from(people) * f64::from(variants);
    let size = [people.to_string(), variants.to_string()];
    let study = study.to_str().unwrap();
    let arguments = ["--people", &size[0], "--variants", &size[1], "--sites", "1", "--causal", "20", "--json"];
    let (simulated, _) = watched(&[&["simulate", study], &arguments[..]].concat());
    let (home, recipe) = (temp.path().join("home"), temp.path().join("study/site1/DATASET.toml"));
    let (home, recipe) = (home.to_str().unwrap(), recipe.to_str().unwrap());
    watched(&["site", "init", home]);
    let (took, most) = watched(&["--json", "site", "ingest", home, recipe]);
    let dataset = opened(home);
    let stored = walk(&Path::new(home).join("data"));
    if say {
        shown(&format!("simulate {people} people x {variants} variants"), &simulated, genotypes);
        shown("ingest of PLINK files", &took, genotypes);
        row("its most memory", format!("{most:.0} MB"));
        row("the dataset, encrypted", format!("{:.2} GB, {:.2} bits a genotype", stored / 1e9, stored * 8.0 / genotypes));
    }
    let guests = guests(temp.path());
    Laid { temp, dataset, guests }
}

fn opened(home: &str) -> Dataset {
    let home = Home::open(Path::new(home), None).unwrap();
    Dataset::open(&home.data().unwrap(), &"cohort".parse().unwrap(), &home.store_key()).unwrap()
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

    fn frequency(&self) -> Run {
        let params = json!({ "catalogue": "simulated", "slices": self.slices(22) });
        job(&self.dataset, &self.guests, "allele-frequency", &params)
    }

    fn association(&self, contigs: usize) -> Run {
        let (covariates, slices) = (["age", "sex", "smoker"], self.slices(contigs));
        let params = json!({ "outcome": "ldl", "covariates": covariates, "catalogue": "simulated", "slices": slices });
        job(&self.dataset, &self.guests, "linear-association", &params)
    }
}

pub(super) fn scale(people: u32, variants: u32) {
    let laid = lay(people, variants, true);
    laid.frequency().say();
    // Of the 22 contigs as many as hold about 10,000 variants.
    let some = (22 * 10_000_usize).div_ceil(variants as usize).clamp(1, 22);
    laid.association(some).say();
    if some < 22 {
        laid.association(22).say();
    }
    job(&laid.dataset, &laid.guests, "cohort-summary", &json!({ "columns": ["age"] })).say();
    peers(&laid.temp.path().join("study/site1"), laid.temp.path(), people, variants, threads());
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
    let (home, recipe) = (home.to_str().unwrap(), recipe.to_str().unwrap());
    watched(&["site", "init", home]);
    watched(&["--json", "site", "ingest", home, recipe]);
    job(&opened(home), &guests(temp.path()), "cohort-summary", &json!({ "columns": ["x"] })).say();
}

fn threads() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

/// How long whole jobs take as people and as variants become more: a table, and `file` as a drawing of it.
pub(super) fn growth(file: &str) {
    const STEPS: [u32; 5] = [1_000, 25_000, 50_000, 75_000, 100_000];
    const OTHER: u32 = 10_000;
    let of = |people: u32, variants: u32| {
        let laid = lay(people, variants, false);
        let median = |run: &dyn Fn() -> Run| {
            let mut seconds = [run().took.seconds, run().took.seconds, run().took.seconds];
            seconds.sort_by(f64::total_cmp);
            seconds[1]
        };
        let seconds = [median(&|| laid.frequency()), median(&|| laid.association(22))];
        row(&format!("{people} people x {variants} variants"), format!("{:.2} s, {:.2} s", seconds[0], seconds[1]));
        seconds
    };
    row("allele-frequency, linear-association", String::new());
    let panels = [
        ("people", "10,000 variants", STEPS.map(|people| of(people, OTHER))),
        ("variants", "10,000 people", STEPS.map(|variants| of(OTHER, variants))),
    ];
    draw(file, &STEPS, &panels);
}

fn draw(file: &str, steps: &[u32], panels: &[(&str, &str, [[f64; 2]; 5])]) {
    use plotters::prelude::*;
    let root = SVGBackend::new(file, (900, 360)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    for (area, (what, other, seconds)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let top = seconds.iter().flatten().fold(0.0_f64, |top, seconds| top.max(*seconds)) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{other}, whole jobs on {} cores", threads()), ("sans-serif", 15))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(44)
            .build_cartesian_2d(0.0..f64::from(*steps.last().unwrap()) * 1.02, 0.0..top)
            .unwrap();
        chart
            .configure_mesh()
            .x_desc(*what)
            .y_desc("seconds")
            .x_labels(6)
            .y_labels(6)
            .light_line_style(TRANSPARENT)
            .draw()
            .unwrap();
        for (at, (name, colour)) in [("allele-frequency", BLUE), ("linear-association", RED)].into_iter().enumerate() {
            let points: Vec<(f64, f64)> =
                steps.iter().zip(seconds).map(|(step, seconds)| (f64::from(*step), seconds[at])).collect();
            let line = chart.draw_series(LineSeries::new(points.clone(), colour)).unwrap();
            line.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled()))).unwrap();
        }
        chart.configure_series_labels().position(SeriesLabelPosition::UpperLeft).draw().unwrap();
    }
    root.present().unwrap();
}

/// A job that ran.
struct Run {
    what: String,
    people: f64,
    genotypes: f64,
    took: Took,
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
        row("its most memory, without that of the workers", format!("{most:.0} MB"));
        row("what it read of the dataset", format!("{:.2} GB", *read as f64 / 1e9));
    }
}

/// Every round of a job, as at one site; what its release says goes back to the analysis.
fn job(dataset: &Dataset, guests: &Guests, name: &str, params: &serde_json::Value) -> Run {
    let threads = threads();
    let component = std::fs::read(world::component(name)).unwrap();
    let analysis = Sandbox::new(Settings::default()).unwrap().load(&component).unwrap();
    let (params, limits) = (params.to_string(), Limits { fuel_per_partition: 2_000_000, memory_mib: 64 });
    let plan = analysis.plan(&params, limits).unwrap();
    let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants).unwrap();
    let shape = Shape { variants, columns };
    let partitions = Partitions::of(plan.partitioning, dataset.info().approximate_size);
    drop(guests.load(&component).unwrap());
    let before = dataset.bytes_read();
    let mut history: Vec<Vec<Released>> = vec![];
    let (mut seconds, mut processor_seconds) = (0.0, 0.0);
    forget();
    while let Step::Round(round) = analysis.next(&params, &shape, &history, limits).unwrap() {
        let (released, took) = timed(|| {
            let selection = dataset.select(&plan.columns, &plan.variants).unwrap().of(&round);
            let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(round.share_ppb());
            let calibrated = calibrate(&round, plan.partitioning, budget).unwrap();
            let loaded = guests.load(&component).unwrap();
            let crews = loaded.prepare(&round, limits, &selection, partitions).unwrap().crews(threads);
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
    Run { what, people, genotypes, took: Took { seconds, processor_seconds }, most: peak(), read }
}

fn walk(folder: &Path) -> f64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { entry.metadata().unwrap().len() as f64 }).sum()
}

/// The same questions to the tools of the field.
fn peers(site: &Path, temp: &Path, people: u32, variants: u32, threads: usize) {
    let genotypes = f64::from(people) * f64::from(variants);
    let (bed, pgen, few) = (site.join("cohort"), temp.join("all"), temp.join("few"));
    let (bed, pgen, few) = (bed.to_str().unwrap(), pgen.to_str().unwrap(), few.to_str().unwrap());
    let threads = threads.to_string();
    let covariates = format!("{few}.covariates");
    let outcome = format!("{few}.outcome");
    let table = std::fs::read_to_string(site.join("people.csv")).unwrap();
    let (mut of_covariates, mut of_outcome) = ("#IID age sex smoker\n".to_owned(), "#IID ldl\n".to_owned());
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        of_covariates += &format!("{} {} {} {}\n", cells[0], cells[2], if cells[1] == "M" { 1 } else { 2 }, cells[3]);
        of_outcome += &format!("{} {}\n", cells[0], cells[4]);
    }
    std::fs::write(&covariates, of_covariates).unwrap();
    std::fs::write(&outcome, of_outcome).unwrap();
    if peer("plink2 --make-pgen", "plink2", &["--bfile", bed, "--make-pgen", "--threads", &threads, "--out", pgen], genotypes)
        .is_none()
    {
        return;
    }
    peer("plink2 --freq", "plink2", &["--pfile", pgen, "--freq", "--threads", &threads, "--out", few], genotypes);
    let glm = [
        "--pheno",
        &outcome,
        "--covar",
        &covariates,
        "--covar-variance-standardize",
        "--glm",
        "hide-covar",
        "--threads",
        &threads,
    ];
    let arguments = [&["--pfile", pgen], &glm[..], &["--out", few]].concat();
    peer("plink2 --glm, three covariates", "plink2", &arguments, genotypes);
    // A hundredth of the variants as BCF: what takes bcftools a second takes the others ten milliseconds.
    let part = (f64::from(variants) / 100.0).ceil().min(f64::from(variants));
    let end = std::fs::read_to_string(site.join("cohort.bim")).unwrap();
    let line: Vec<&str> = end.lines().nth(part as usize - 1).unwrap().split('\t').collect();
    let export =
        ["--pfile", pgen, "--chr", line[0], "--to-bp", line[3], "--export", "bcf", "--threads", &threads, "--out", few];
    let exported = Command::new("plink2").args(export).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if exported.is_ok_and(|status| status.success()) {
        let (bcf, some) = (format!("{few}.bcf"), f64::from(people) * part);
        peer(
            "bcftools +fill-tags AC,AN,AF, a hundredth of the variants",
            "bcftools",
            &["+fill-tags", "-Ob", "-o", "/dev/null", &bcf, "--", "-t", "AC,AN,AF"],
            some,
        );
        peer(
            "bcftools +fill-AN-AC, a hundredth of the variants",
            "bcftools",
            &["+fill-AN-AC", "-Ob", "-o", "/dev/null", &bcf],
            some,
        );
    }
}
