//! 2,504 people of 18 countries at 13,154 variants: exact sums against plink2's counts, and the noise against what was promised.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_runtime::dataset::{DataFolder, Dataset, Same, StoreKey, ingest};
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::{round, trial};
use vestibule_sandbox::{Sandbox, Settings, Shape, Step};

use crate::world::{component, importers};

fn data() -> Option<PathBuf> {
    let found = std::env::var_os("VESTIBULE_DATA").map(|dir| PathBuf::from(dir).join("1kg-genomewide"));
    if found.is_none() {
        eprintln!("skipped: VESTIBULE_DATA is not set");
    }
    found
}

fn gunzip(path: PathBuf) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn eighteen_countries_add_up_to_the_reference_and_the_noise_is_what_was_promised() {
    let Some(data) = data() else { return };
    let reference = gunzip(data.join("reference/freq.afreq.gz"));
    // CHROM ID REF ALT ... ALT_FREQS OBS_CT, of plink2.
    let head: Vec<&str> = reference.lines().next().unwrap().split('\t').collect();
    let at = |name: &str| head.iter().position(|found| *found == name).unwrap();
    let (chrom, id, ref_, alt, freq, observed) = (at("#CHROM"), at("ID"), at("REF"), at("ALT"), at("ALT_FREQS"), at("OBS_CT"));
    let mut catalogue = "#catalogue\tall\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    let mut counts: HashMap<(String, String), f64> = HashMap::new();
    let mut rows: Vec<(String, u64, String, String)> = Vec::new();
    for line in reference.lines().skip(1) {
        let f: Vec<&str> = line.split('\t').collect();
        let position = f[id].split(':').find_map(|part| part.parse::<u64>().ok().filter(|n| *n > 1_000)).unwrap();
        let count = f[freq].parse::<f64>().unwrap() * f[observed].parse::<f64>().unwrap();
        counts.insert((f[chrom].to_owned(), position.to_string()), count.round());
        rows.push((f[chrom].to_owned(), position, f[ref_].to_owned(), f[alt].to_owned()));
    }
    rows.sort_by(|a, b| (&a.0, a.1, &a.2, &a.3).cmp(&(&b.0, b.1, &b.2, &b.3)));
    for (contig, position, reference, alternate) in &rows {
        catalogue += &format!("{contig}\t{position}\t{reference}\t{alternate}\n");
    }
    let mut contigs: Vec<&String> = rows.iter().map(|row| &row.0).collect();
    contigs.dedup();

    let samples = std::fs::read_to_string(data.join("samples.tsv")).unwrap();
    let mut countries: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in samples.lines().skip(1) {
        let f: Vec<&str> = line.split('\t').collect();
        countries.entry(f[4]).or_default().push(f[0]);
    }
    assert_eq!(countries.len(), 18);

    let temp = tempfile::tempdir().unwrap();
    std::fs::copy(data.join("1kg.odd-chroms.grch37.bcf"), temp.path().join("all.bcf")).unwrap();
    std::fs::write(temp.path().join("all.tsv"), &catalogue).unwrap();
    std::fs::write(temp.path().join("dictionary.toml"), "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n").unwrap();
    let source = DataFolder::from(Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap());
    let sandbox = Sandbox::new(Settings::default()).unwrap();
    let analysis = sandbox.load(&std::fs::read(component("allele-frequency")).unwrap()).unwrap();
    let slices: Vec<_> =
        contigs.iter().map(|contig| serde_json::json!({"contig": contig, "start": 1, "end": 400_000_000})).collect();
    let params = serde_json::json!({"catalogue": "all", "slices": slices}).to_string();
    let limits = Limits::default();
    let plan = analysis.plan(&params, limits).unwrap();
    let key = StoreKey::from_bytes([1; 32]);
    let mut total: Vec<f64> = Vec::new();
    let mut people = 0.0;
    let mut shape = None;
    for (number, (country, ids)) in countries.iter().enumerate() {
        std::fs::write(temp.path().join("people.csv"), format!("id\n{}\n", ids.join("\n"))).unwrap();
        let config = format!(
            "name = \"c{number}\"\napproximate_size = 100\ndictionary = \"dictionary.toml\"\nbudget = {{ epsilon = 8.0, delta = 1e-6 }}\n\
             [[table]]\nfile = \"people.csv\"\nid = \"id\"\n\
             [variants]\nfiles = [\"all.bcf\"]\nbuild = \"GRCh37\"\ncatalogue = [\"all.tsv\"]\nindividuals = \"table\"\n"
        );
        let report = ingest((&source, &config), (&source, &key), &importers(), Same::TakeOver, &mut |_| {}).unwrap();
        assert_eq!(
            (report.individuals as usize, report.variants_matched),
            (ids.len(), rows.len() as u64),
            "{country}: {report}"
        );
        let dataset = Dataset::open(&source, &format!("c{number}").parse().unwrap(), &key).unwrap();
        let (variants, columns) = dataset.info().shape(&plan.columns, &plan.variants).unwrap();
        let shape = shape.get_or_insert(Shape { variants, columns });
        let Step::Round(asked) = analysis.next(&params, shape, &[], limits).unwrap() else { panic!("a round") };
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(asked.share_ppb());
        let calibrated = calibrate(&asked, plan.partitioning, budget).unwrap();
        let selection = dataset.select(&plan.columns, &plan.variants).unwrap().of(&asked);
        let crews = round::here(&analysis.runner(&asked, limits).unwrap(), 2);
        let exact = trial::exact(&dataset, &selection, Partitions::of(plan.partitioning, 1), crews, &calibrated).unwrap();
        people += exact[0][0];
        total.resize(exact[1].len(), 0.0);
        total.iter_mut().zip(&exact[1]).for_each(|(sum, value)| *sum += value);
    }
    assert_eq!(people, 2504.0);
    let shape = shape.unwrap();
    for (variant, sum) in shape.variants.iter().zip(&total) {
        // The analysis sums dosages less one.
        let count = counts[&(variant.contig.clone(), variant.position.to_string())];
        assert_eq!(sum + 2504.0, count, "{}:{}", variant.contig, variant.position);
    }

    // Noise: at each epsilon, (noised - exact) / promised sd over 26,308 entries is chi-square with that many degrees of freedom.
    // 6 standard deviations either way: a false alarm about once in 10^8 runs.
    let dataset = Dataset::open(&source, &"c0".parse().unwrap(), &key).unwrap();
    for epsilon in [0.1, 1.0, 8.0] {
        let budget = Budget::new(Noise::Gaussian, epsilon, 1e-6).unwrap();
        let tried = trial::run(&analysis, &params, &dataset, budget, limits).unwrap();
        let (released, exact) = (&tried.rounds[0].released[1], &tried.rounds[0].exact[1]);
        let n = exact.len() as f64;
        let chi: f64 =
            released.values.iter().zip(exact).map(|(noised, exact)| ((noised - exact) / released.noise_sd).powi(2)).sum();
        assert!((chi - n).abs() < 6.0 * (2.0 * n).sqrt(), "epsilon {epsilon}: chi-square {chi} on {n}");
    }
}
