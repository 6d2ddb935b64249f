//! Ingest and scan: made files for every case, real files for whole datasets.

mod genotypes;
mod growth;
mod gvcf;
mod import;
mod integrity;
mod memory;
mod object;
mod plink;
mod reads;
mod real;
mod resuming;
mod sealed;
mod study;
mod tables;
mod withdrawal;

use std::path::Path;

use super::*;
use crate::dataset::ingest::{Tuning, ingest_tuned};
use cap_std::ambient_authority;

const DICTIONARY: &str = r#"
name = "study"
[[column]]
name = "age"
type = "number"
unit = "years"
lower = 0
upper = 120
[[column]]
name = "sex"
type = "levels"
levels = ["female", "male"]
[[column]]
name = "ldl"
type = "number"
unit = "mmol/L"
lower = 0
upper = 20
[[column]]
name = "smoker"
type = "flag"
[[column]]
name = "enrolled"
type = "day"
"#;

const CATALOGUE: &str = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n\
    1\t100\tA\tC\n1\t200\tG\tT\n1\t300\tA\tC\n1\t300\tA\tG\n2\t50\tC\tT\n";

const HEAD: &str =
    "name = \"cohort\"\napproximate_size = 1_000\ndictionary = \"dictionary.toml\"\nbudget = { epsilon = 8.0, delta = 1e-6 }\n";
const TABLE: &str = "[[table]]\nfile = \"people.csv\"\nid = \"id\"\n[map.age]\ncolumn = \"age\"\n[map.sex]\ncolumn = \"sex\"\nlevels = { F = \"female\", M = \"male\" }\n";
const VARIANTS: &str = "[variants]\nfiles = [\"*.vcf\"]\nbuild = \"GRCh37\"\ncatalogue = [\"panel.tsv\"]\n";

struct Case {
    temp: tempfile::TempDir,
}

impl Case {
    fn new(files: &[(&str, &str)]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("data")).unwrap();
        let case = Self { temp };
        case.put("dictionary.toml", DICTIONARY);
        case.put("panel.tsv", CATALOGUE);
        files.iter().for_each(|(name, text)| case.put(name, text));
        case
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.temp.path().join(name), text).unwrap();
    }

    fn dir(&self) -> Dir {
        Dir::open_ambient_dir(self.temp.path().join("data"), ambient_authority()).unwrap()
    }

    fn data(&self) -> DataFolder {
        self.dir().into()
    }

    fn ingest(&self, config: &str) -> Result<IngestReport, IngestError> {
        self.ingest_tuned(config, Tuning::default(), &mut |_| {})
    }

    fn ingest_tuned(
        &self,
        config: &str,
        tuning: Tuning,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<IngestReport, IngestError> {
        let source = Dir::open_ambient_dir(self.temp.path(), ambient_authority()).unwrap();
        ingest_tuned(&source, config, (&self.data(), &key()), &importers(), progress, tuning)
    }

    fn open(&self) -> Dataset {
        Dataset::open(&self.data(), &"cohort".parse().unwrap(), &key()).unwrap()
    }
}

/// Importers are this very program too, with one thing to run.
fn importers() -> Importers {
    let arguments = ["dataset::import::tests::an_importer", "--exact", "--ignored", "--test-threads=1", "--nocapture"];
    let arguments = arguments.map(str::to_owned).to_vec();
    Importers::new(vestibule_worker::Launch { program: "/proc/self/exe".into(), arguments }, false)
}

fn key() -> StoreKey {
    StoreKey::from_bytes([5; 32])
}

/// All rows of a selection, sorted, since their order is keyed.
fn rows(dataset: &Dataset, columns: &[&str], slices: &[VariantSlice]) -> Vec<(Vec<Value>, Vec<u8>)> {
    let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let selection = dataset.select(&columns, slices).unwrap();
    let mut all = Vec::new();
    for group in 0..dataset.row_groups() {
        let rows = dataset.read(&selection, group).unwrap();
        for index in 0..rows.len() {
            let (mut values, mut dosages) = (vec![], vec![]);
            rows.fill(index, &mut values, &mut dosages);
            all.push((values, dosages));
        }
    }
    all
}

fn everything() -> Vec<VariantSlice> {
    ["1", "2"].map(|contig| VariantSlice { catalogue: "panel".into(), contig: contig.into(), start: 0, end: 1_000 }).to_vec()
}

fn vcf(samples: &str, records: &[&str]) -> String {
    let head = "##fileformat=VCFv4.2\n##contig=<ID=1>\n##contig=<ID=chr1>\n##contig=<ID=2>\n##FORMAT=<ID=GT,Number=1,Type=String,Description=\"g\">\n";
    let head = format!("{head}#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{samples}\n");
    records.iter().fold(head, |text, record| text + &record.replace(' ', "\t") + "\n")
}

fn age(people: &[(Vec<Value>, Vec<u8>)]) -> Vec<f64> {
    let mut ages: Vec<f64> =
        people.iter().filter_map(|(values, _)| if let Value::Number(age) = values[0] { Some(age) } else { None }).collect();
    ages.sort_by(f64::total_cmp);
    ages
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

/// The folder of real data, or a word that it is not there.
fn real_data() -> Option<std::path::PathBuf> {
    let found = std::env::var_os("VESTIBULE_DATA").map(Into::into);
    if found.is_none() {
        eprintln!("skipped: VESTIBULE_DATA is not set");
    }
    found
}

fn ingest_real(source: &Path, documents: &[(&str, &str)], config: &str) -> (tempfile::TempDir, IngestReport) {
    let temp = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), temp.path().join(entry.file_name())).unwrap();
        }
    }
    documents.iter().for_each(|(name, text)| std::fs::write(temp.path().join(name), text).unwrap());
    std::fs::create_dir(temp.path().join("data")).unwrap();
    let source = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
    let report = ingest(
        (&source, config),
        (&source.open_dir("data").unwrap().into(), &key()),
        &importers(),
        Same::TakeOver,
        &mut |_| {},
    )
    .unwrap();
    (temp, report)
}
