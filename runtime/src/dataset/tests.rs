//! Ingest and scan: made files for every case, real files for whole datasets.

mod growth;
mod gvcf;
mod import;
mod integrity;
mod memory;
mod object;
mod plink;
mod reads;
mod withdrawal;

use std::io::Read as _;
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

#[test]
fn a_table_is_read_with_its_codes_and_what_is_dropped_is_told() {
    let table = "id,age,sex\nA,40,F\nB,,M\nC,200,X\nD,x, F \nD,x,F\n,1,F\n";
    let case = Case::new(&[("people.csv", table)]);
    let report = case.ingest(&format!("{HEAD}{TABLE}")).unwrap();
    assert_eq!(report.individuals, 4);
    let noted =
        |text: &str| report.notes.iter().filter(|(kind, _)| kind.contains(text)).map(|(_, note)| note.count).sum::<u64>();
    assert_eq!(noted("age: outside the dictionary's bounds"), 1);
    assert_eq!(noted("age: not a number"), 2);
    assert_eq!(noted("sex: a code"), 1);
    assert_eq!(noted("without an id"), 1);
    assert_eq!(noted("merged"), 1);
    assert!(report.to_string().contains("people.csv, line 4"), "{report}");
    let rows = rows(&case.open(), &["age", "sex"], &[]);
    let has = |values: &[Value]| rows.iter().any(|(found, _)| found == values);
    assert!(has(&[Value::Number(40.0), Value::Level(0)]));
    assert!(has(&[Value::Missing, Value::Level(1)]));
    assert!(has(&[Value::Missing, Value::Missing]));
    assert!(has(&[Value::Missing, Value::Level(0)]));
}

#[test]
fn bad_tables_and_recipes_are_refused_with_their_place() {
    let bad = |table: &str, config: &str, want: &str| {
        let case = Case::new(&[("people.csv", table)]);
        let error = case.ingest(config).unwrap_err().to_string();
        assert!(error.contains(want), "{error} does not say {want}");
        assert_eq!(list(&case.data()).unwrap(), [], "{want}");
    };
    let good = format!("{HEAD}{TABLE}");
    bad("id,age,sex\nA,1,F\nA,2,F\n", &good, "line 3: the same id as line 2");
    bad("id,age,sex\nA,1\n", &good, "line: 2");
    bad("who,age,sex\nA,1,F\n", &good, "no column `id`");
    bad("id,sex\nA,F\n", &good, "no column `age`");
    bad("id,age,sex\n", &good, "no individual");
    bad("", &good.replace("people.csv", "other.csv"), "other.csv");
    bad("", &good.replace("[map.sex]", "[map.gender]"), "`[map.gender]`");
    bad("", &good.replace("\"male\"", "\"man\""), "no level `man`");
    bad("", &good.replace("epsilon = 8.0", "epsilon = 800.0"), "epsilon");
    bad("", &good.replace("id = ", "ident = "), "ident");
    bad("", HEAD, "neither");
}

#[test]
fn genotypes_of_every_kind_are_read() {
    let case = Case::new(&[(
        "a.vcf",
        &vcf(
            "A\tB\tC\tD\tE",
            &[
                "chr1 100 . A C . . . GT 0/0 0|1 1/1 ./. ./1",
                // Swapped ref and alt: turned.
                "1 200 . T G . . . GT 0/0 0/1 1/1 1 0",
                // Multi-allelic: each ALT by its own index.
                "1 300 . A G,C . . . GT 0/0 1/2 2/2 1/1 0/1/2",
                // A second record of the same variant is left out.
                "1 300 . A C . . . GT 1/1 1/1 1/1 1/1 1/1",
                // The other strand is not guessed at; unknown variants are left out. Unsorted is fine.
                "2 50 . G A . . . GT 0/1 0/1 0/1 0/1 0/1",
                "1 150 . A C . . . GT 1/1 1/1 1/1 1/1 1/1",
            ],
        ),
    )]);
    let report = case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap();
    assert_eq!((report.individuals, report.records, report.variants_matched), (5, 6, 4));
    let kinds: Vec<(&str, u64)> = report.notes.iter().map(|(kind, note)| (kind.as_str(), note.count)).collect();
    assert_eq!(
        kinds,
        [
            ("further records of a variant, left out", 1),
            ("genotypes with more than two alleles, taken for missing", 1),
            ("records that are in no catalogue, left out", 1),
            ("records that would match on the other strand, left out", 1),
            ("records with ref and alt the other way round, turned", 1),
        ]
    );
    let mut found: Vec<Vec<u8>> = rows(&case.open(), &[], &everything()).into_iter().map(|(_, dosages)| dosages).collect();
    found.sort();
    // In catalogue order: 1:100 A>C, 1:200 G>T, 1:300 A>C, 1:300 A>G, 2:50.
    assert_eq!(
        found,
        [
            vec![0, 2, 0, 0, 255],
            vec![1, 1, 1, 1, 255],
            vec![2, 0, 2, 0, 255],
            vec![255, 0, 0, 2, 255],
            vec![255, 1, 255, 255, 255],
        ]
    );
}

#[test]
fn tables_and_variant_files_are_joined_and_a_small_memory_gives_the_same() {
    let files = [
        ("people.csv", "id,age,sex\nA,30,F\nB,40,M\nX,50,M\n".to_owned()),
        ("a.vcf", vcf("A\tN", &["1 100 . A C . . . GT 0/1 1/1"])),
        ("b.vcf", vcf("B", &["1 100 . A C . . . GT 1/1"])),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let config = format!("{HEAD}{}{VARIANTS}", TABLE);
    let mut results = Vec::new();
    for tuning in [Tuning::default(), Tuning { memory: 1, checkpoint: 0, ..Tuning::default() }] {
        let case = Case::new(&files);
        let report = case.ingest_tuned(&config, tuning, &mut |_| {}).unwrap();
        assert_eq!((report.individuals, report.with_table, report.with_genotypes), (4, 3, 3));
        assert_eq!(report.notes.values().map(|note| note.count).collect::<Vec<_>>(), [1, 1]);
        let mut found: Vec<String> = Vec::new();
        for (values, dosages) in rows(&case.open(), &["age"], &everything()[..1]) {
            let age = if let Value::Number(age) = values[0] { age } else { -1.0 };
            found.push(format!("{age} {}", dosages[0]));
        }
        found.sort();
        assert_eq!(found, ["-1 2", "30 1", "40 2", "50 255"]);
        results.push(report);
    }
    assert_eq!(results[0], results[1]);
}

#[test]
fn one_file_for_each_individual_gives_what_one_for_all_gives() {
    let genotype = |person: usize, record: usize| ["0/0", "0/1", "1/1", "./."][(person * 5 + record * 3) % 4];
    let sites = ["1 100 . A C", "1 200 . G T", "1 300 . A G", "2 50 . C T"];
    let file = |people: std::ops::Range<usize>| {
        let records: Vec<String> = sites
            .iter()
            .enumerate()
            .map(|(record, site)| {
                let genotypes: Vec<&str> = people.clone().map(|person| genotype(person, record)).collect();
                format!("{site} . . . GT {}", genotypes.join(" "))
            })
            .collect();
        let names: Vec<String> = people.map(|person| format!("p{person}")).collect();
        vcf(&names.join("\t"), &records.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let all = |files: Vec<(String, String)>, tuning: Tuning| {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let case = Case::new(&files);
        case.ingest_tuned(&format!("{HEAD}{VARIANTS}"), tuning, &mut |_| {}).unwrap();
        // Rows lie in the keyed order of ids, which is the same each time.
        rows(&case.open(), &[], &everything()).into_iter().map(|(_, row)| row).collect::<Vec<_>>()
    };
    let together = all(vec![("a.vcf".into(), file(0..40))], Tuning::default());
    for tuning in [Tuning::default(), Tuning { memory: 1, checkpoint: 0, ..Tuning::default() }] {
        let apart = (0..40).map(|person| (format!("{person}.vcf"), file(person..person + 1))).collect();
        assert_eq!(all(apart, tuning), together);
    }
}

#[test]
fn damaged_variant_files_are_refused_by_file_and_record() {
    let whole = vcf("A", &["1 100 . A C . . . GT 0/1", "1 200 . G T . . . GT 0/1"]);
    let bad = |text: &str, want: &[&str]| {
        let case = Case::new(&[("a.vcf", text)]);
        let error = case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap_err();
        for want in want {
            assert!(error.to_string().contains(want), "{error} does not say {want}");
        }
        assert!(case.data().open_dir("cohort").unwrap().entries().unwrap().all(|entry| entry.unwrap().file_name() == "lock"));
    };
    bad(&whole.replace("200 . G", "x . G").replace("200\t", "x\t"), &["a.vcf, record 2"]);
    bad("hello", &["a.vcf", "neither VCF nor BCF"]);
    bad("\u{1f}", &["a.vcf", "neither VCF nor BCF"]);
    bad("##fileformat=VCFv4.2\nrubbish\n", &["a.vcf", "header"]);
    bad(&whole.replace("GT\t0/1", "GT\t0/z"), &["a.vcf, record 1"]);
    bad(&whole.replace("GT\t0/1", "GT\t0/1\t0/1"), &["a.vcf, record 1", "number of samples"]);
    bad(&vcf("A\tB", &["1 100 . A C . . . GT 0/1"]), &["a.vcf, record 1", "number of samples"]);
}

/// The same records as BCF.
fn bcf(vcf: &str) -> Vec<u8> {
    use noodles_vcf::variant::io::Write as _;
    let mut reader = noodles_vcf::io::Reader::new(vcf.as_bytes());
    let header = reader.read_header().unwrap();
    let mut writer = noodles_bcf::io::Writer::new(vec![]);
    writer.write_header(&header).unwrap();
    for record in reader.record_bufs(&header) {
        writer.write_variant_record(&header, &record.unwrap()).unwrap();
    }
    writer.try_finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn bcf_gives_what_vcf_gives_and_damage_anywhere_in_it_is_an_error_not_a_panic() {
    let text = vcf(
        "A\tB\tC",
        &["1 100 . A C . . . GT 0/0 0|1 1/1", "1 200 . G T . . . GT ./. 1 0/1", "1 300 . A G,C . . . GT 1/2 2/2 0/0"],
    );
    let text = text.replace("##contig=<ID=1>", "##FILTER=<ID=PASS,Description=\"p\">\n##contig=<ID=1>");
    let all = |files: &[(&str, &[u8])]| {
        let case = Case::new(&[]);
        files.iter().for_each(|(name, bytes)| std::fs::write(case.temp.path().join(name), bytes).unwrap());
        let config = format!("{HEAD}{VARIANTS}").replace("*.vcf", "a.*");
        case.ingest(&config).map(|_| {
            let mut found: Vec<Vec<u8>> = rows(&case.open(), &[], &everything()).into_iter().map(|(_, row)| row).collect();
            found.sort();
            found
        })
    };
    let whole = bcf(&text);
    let want = all(&[("a.vcf", text.as_bytes())]).unwrap();
    assert_eq!(all(&[("a.bcf", &whole)]).unwrap(), want);
    // Plain BCF, so that what is changed is a record's byte and not a checksum's.
    let mut plain = vec![];
    noodles_bgzf::io::Reader::new(whole.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(all(&[("a.bcf", &plain)]).unwrap(), want);
    let (mut refused, mut read) = (0, 0);
    let header = 9 + u32::from_le_bytes(plain[5..9].try_into().unwrap()) as usize;
    for at in (header..plain.len()).step_by(5) {
        for flip in [1, 0x80, 0xff] {
            let mut changed = plain.clone();
            changed[at] ^= flip;
            match all(&[("a.bcf", &changed)]) {
                Err(error) => {
                    assert!(error.to_string().contains("a.bcf"), "{error}");
                    refused += 1;
                }
                Ok(_) => read += 1,
            }
        }
        // The end of a record is a whole file; every other cut is not.
        match all(&[("a.bcf", &plain[..at])]) {
            Err(error) => assert!(error.to_string().contains("a.bcf"), "{error}"),
            Ok(rows) => assert_ne!(rows, want),
        }
    }
    assert!(refused > 20 && read > 20, "{refused} {read}");
    for length in (40..whole.len() - 28).step_by(29) {
        assert!(all(&[("a.bcf", &whole[..length])]).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn a_killed_ingest_goes_on_where_it_was() {
    let records: Vec<String> =
        (0..3_000).map(|n| format!("2 {} . C T . . . GT 0/1 {}", 50 + n % 2, if n == 0 { "1/1" } else { "0/0" })).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let files = [
        ("a.vcf", vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1"])),
        ("b.vcf", vcf("A\tC", &records)),
        ("c.vcf", vcf("A\tC", &["1 100 . A C . . . GT 1/1 0/1"])),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let config = format!("{HEAD}{VARIANTS}");
    let tuning = Tuning { memory: 1, checkpoint: 0, ..Tuning::default() };
    let whole = Case::new(&files);
    let mut steps = vec![];
    let want = whole.ingest_tuned(&config, tuning, &mut |step| steps.push(step.stage)).unwrap();
    assert_eq!(want.notes.values().map(|note| note.count).collect::<Vec<_>>(), [1_499, 1, 1_500]);
    let rows_of = |case: &Case| {
        let mut found: Vec<Vec<u8>> = rows(&case.open(), &[], &everything()).into_iter().map(|(_, row)| row).collect();
        found.sort();
        found
    };
    let reading = steps.iter().filter(|stage| stage.starts_with("reading")).count();
    for killed_at in 0..steps.len() {
        let case = Case::new(&files);
        let mut count = 0;
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            case.ingest_tuned(&config, tuning, &mut |_| {
                if count == killed_at {
                    panic!("killed");
                }
                count += 1;
            })
        }));
        assert!(killed.is_err());
        let mut again = 0;
        let report =
            case.ingest_tuned(&config, tuning, &mut |step| again += usize::from(step.stage.starts_with("reading"))).unwrap();
        assert_eq!((&report, rows_of(&case)), (&want, rows_of(&whole)), "killed at {killed_at}");
        let before = steps[..killed_at].iter().filter(|stage| stage.starts_with("reading")).count();
        // Files that were done are not read again: the first has one step, the second three, the third one.
        let done = [0, 1, 1, 1, 4, 5][before];
        assert_eq!(again, reading - done, "{before} steps before");
        let left: Vec<String> =
            case.data().read_dir("cohort").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(left.iter().filter(|name| name.starts_with('v')).count(), 1, "{left:?}");
    }
}

#[test]
fn the_same_files_are_not_ingested_twice_and_a_failed_ingest_leaves_the_old_data() {
    let case = Case::new(&[("people.csv", "id,age,sex\nA,30,F\n")]);
    let config = format!("{HEAD}{TABLE}");
    assert!(case.ingest(&config).unwrap().changed);
    let again = case.ingest(&config).unwrap();
    assert!(!again.changed && again.individuals == 1, "{again}");
    // What a killed ingest leaves behind is removed by the next one.
    case.data().create_dir("cohort/v0123").unwrap();
    case.put("people.csv", "id,age,sex\nA,30,F\nA,31,F\n");
    assert!(case.ingest(&config).is_err());
    assert_eq!(age(&rows(&case.open(), &["age"], &[])), [30.0]);
    case.put("people.csv", "id,age,sex\nA,31,F\nB,32,F\n");
    assert!(case.ingest(&config).unwrap().changed);
    assert_eq!(age(&rows(&case.open(), &["age"], &[])), [31.0, 32.0]);
    let left: Vec<String> =
        case.data().read_dir("cohort").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left.iter().filter(|name| name.starts_with('v')).count(), 1, "{left:?}");
}

#[test]
fn a_second_ingest_at_the_same_time_is_refused() {
    let case = Case::new(&[("people.csv", "id,age,sex\nA,30,F\n")]);
    case.data().create_dir_all("cohort").unwrap();
    let lock = std::fs::File::create(case.temp.path().join("data/cohort/lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(case.ingest(&format!("{HEAD}{TABLE}")).unwrap_err().code(), "ingest-busy");
}

#[test]
fn another_key_and_changed_files_are_refused() {
    let case = Case::new(&[("people.csv", "id,age,sex\nA,30,F\n")]);
    case.ingest(&format!("{HEAD}{TABLE}")).unwrap();
    let name = "cohort".parse().unwrap();
    let open = |key: [u8; 32]| {
        Dataset::open(&case.data(), &name, &StoreKey::from_bytes(key)).map(|_| ()).map_err(|error| error.code())
    };
    assert_eq!(open([5; 32]), Ok(()));
    assert_eq!(open([6; 32]), Err("dataset-wrong-key"));
    let version = case.data().read_to_string("cohort/current").unwrap();
    let path = case.temp.path().join("data/cohort").join(version);
    let whole = std::fs::read(path.join("people.rows")).unwrap();
    assert!(!contains(&whole, b"cohort") && !contains(&whole, b"c.age"), "the rows' file shows what is in it");
    // Every flipped byte of the rows' file is noticed, at the latest when it is read.
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(path.join("people.rows"), &changed).unwrap();
        let read = Dataset::open(&case.data(), &name, &key()).and_then(|dataset| {
            let selection =
                dataset.select(&["age".into(), "sex".into(), "ldl".into(), "smoker".into(), "enrolled".into()], &[]).unwrap();
            dataset.read(&selection, 0)
        });
        // The `id` column is not read by rounds, so a change there alone may pass.
        if let Ok(rows) = read {
            let (mut values, mut dosages) = (vec![], vec![]);
            rows.fill(0, &mut values, &mut dosages);
            assert!(values[0] == Value::Number(30.0) && values[1] == Value::Level(0), "byte {at}");
        }
    }
    std::fs::write(path.join("people.rows"), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(open([5; 32]), Err("dataset-damaged"));
    let info = std::fs::read_to_string(path.join("info.json")).unwrap();
    std::fs::write(path.join("info.json"), info.replace("8.0", "9.0")).unwrap();
    assert_eq!(open([5; 32]), Err("dataset-wrong-key"));
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

#[test]
fn a_plan_that_names_what_is_not_there_is_told_what_there_is() {
    let case = Case::new(&[("a.vcf", &vcf("A", &["1 100 . A C . . . GT 0/1"]))]);
    case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap();
    let dataset = case.open();
    let slice = |catalogue: &str, contig: &str, start, end| VariantSlice {
        catalogue: catalogue.into(),
        contig: contig.into(),
        start,
        end,
    };
    let text = |columns: &[String], slice: &[VariantSlice]| dataset.select(columns, slice).unwrap_err().to_string();
    assert!(text(&["height".into()], &[]).contains("age, sex"));
    assert!(text(&[], &[slice("other", "1", 0, 9)]).contains("panel"));
    assert!(text(&[], &[slice("panel", "9", 0, 9)]).contains("1, 2"));
    assert!(text(&[], &[slice("panel", "1", 0, 9)]).contains("no variant"));
}

#[test]
fn nothing_of_a_row_is_shown_by_debug() {
    let case = Case::new(&[("people.csv", "id,age,sex\nCANARY,61.8034,F\n")]);
    case.ingest(&format!("{HEAD}{TABLE}")).unwrap();
    let dataset = case.open();
    let selection = dataset.select(&["age".into()], &[]).unwrap();
    let rows = dataset.read(&selection, 0).unwrap();
    let (mut values, mut dosages) = (vec![], vec![]);
    rows.fill(0, &mut values, &mut dosages);
    let shown = format!("{dataset:?} {rows:?} {values:?} {:?}", key());
    assert!(values == [Value::Number(61.8034)] && !shown.contains("61.8") && !shown.contains("CANARY"), "{shown}");
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
    let report =
        ingest(&source, config, (&source.open_dir("data").unwrap().into(), &key()), &importers(), &mut |_| {}).unwrap();
    (temp, report)
}

#[test]
fn four_real_hospitals_are_read_as_their_readme_counts_them() {
    let Some(data) = real_data() else { return };
    let dictionary = "name = \"heart\"\n[[column]]\nname = \"age\"\ntype = \"number\"\nlower = 0\nupper = 120\n\
        [[column]]\nname = \"chol\"\ntype = \"number\"\nlower = 50\nupper = 700\n[[column]]\nname = \"sick\"\ntype = \"flag\"\n";
    let columns =
        r#"["age","sex","cp","trestbps","chol","fbs","restecg","thalach","exang","oldpeak","slope","ca","thal","num"]"#;
    for (site, people, sick, no_chol) in
        [("cleveland", 303, 139, 0), ("hungarian", 294, 106, 23), ("switzerland", 123, 115, 123), ("va", 200, 149, 56)]
    {
        let config = format!(
            "{HEAD}[[table]]\nfile = \"processed.{site}.data\"\nid = \"#\"\ncolumns = {columns}\nmissing = [\"?\"]\n\
             [map.age]\ncolumn = \"age\"\n[map.chol]\ncolumn = \"chol\"\nmissing = [\"0\"]\n[map.sick]\ncolumn = \"num\"\nabove = 0\n"
        );
        let (temp, report) = ingest_real(&data.join("uci-heart"), &[("dictionary.toml", dictionary)], &config);
        assert_eq!(report.individuals, people, "{site}: {report}");
        let data = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
        let dataset = Dataset::open(&data.into(), &"cohort".parse().unwrap(), &key()).unwrap();
        let rows = rows(&dataset, &["chol", "sick"], &[]);
        assert_eq!(rows.iter().filter(|(values, _)| values[1] == Value::Flag(true)).count(), sick, "{site}");
        assert_eq!(rows.iter().filter(|(values, _)| values[0] == Value::Missing).count(), no_chol, "{site}");
    }
}

const STUDY: &str = r#"
name = "study"
[[column]]
name = "sex"
type = "levels"
levels = ["F", "M"]
[[column]]
name = "age"
type = "number"
unit = "years"
lower = 0
upper = 120
[[column]]
name = "smoker"
type = "flag"
[[column]]
name = "enrolled"
type = "day"
[[column]]
name = "ldl"
type = "number"
unit = "mmol/L"
lower = 0
upper = 20
"#;

/// Sex, age, smoker and day of everybody, sorted; the LDL that is known, sorted by person; and each variant's dosages.
type Study = (Vec<String>, Vec<f64>, Vec<(u64, u64)>);

fn study(temp: &tempfile::TempDir, variants: usize) -> Study {
    let data = Dir::open_ambient_dir(temp.path().join("data"), ambient_authority()).unwrap();
    let dataset = Dataset::open(&data.into(), &"cohort".parse().unwrap(), &key()).unwrap();
    let slices = if variants == 0 {
        vec![]
    } else {
        vec![VariantSlice { catalogue: "chr20".into(), contig: "20".into(), start: 0, end: 1 << 40 }]
    };
    let (mut people, mut ldl, mut sums) = (vec![], vec![], vec![(0, 0); variants]);
    for (values, dosages) in rows(&dataset, &["sex", "age", "smoker", "enrolled", "ldl"], &slices) {
        if let [Value::Level(sex), Value::Number(age), Value::Flag(smoker), Value::Day(day), value] = values[..] {
            people.push(format!("{sex} {age} {smoker} {day}"));
            ldl.extend(if let Value::Number(ldl) = value { Some(ldl) } else { None });
        }
        for (sum, dosage) in sums.iter_mut().zip(dosages).filter(|(_, dosage)| *dosage != 255) {
            *sum = (sum.0 + 1, sum.1 + u64::from(dosage));
        }
    }
    people.sort();
    ldl.sort_by(f64::total_cmp);
    (people, ldl, sums)
}

/// Three hospitals that code the same things differently are read to what a pooled, harmonised study has (`truth/`, `defects.json`).
#[test]
fn three_codings_of_one_study_are_read_to_its_truth() {
    let Some(data) = real_data() else { return };
    let data = data.join("simulated-study/study");
    let defects: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("truth/defects.json")).unwrap()).unwrap();
    let truth_people = std::fs::read_to_string(data.join("truth/people.csv")).unwrap();
    // The catalogue: what the truth's own genotypes hold.
    let mut reader = noodles_bcf::io::reader::Builder::default().build_from_path(data.join("truth/genotypes.bcf")).unwrap();
    let header = reader.read_header().unwrap();
    let mut panel: Vec<(u64, String, String)> = reader
        .record_bufs(&header)
        .map(|record| record.unwrap())
        .map(|record| {
            let alternate = record.alternate_bases().as_ref()[0].clone();
            (record.variant_start().unwrap().get() as u64, record.reference_bases().to_owned(), alternate)
        })
        .collect();
    panel.sort();
    let mut catalogue = "#catalogue\tchr20\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    for (position, reference, alternate) in &panel {
        catalogue += &format!("20\t{position}\t{reference}\t{alternate}\n");
    }
    let variants = |file: &str| {
        format!("[variants]\nfiles = [\"{file}\"]\nbuild = \"GRCh37\"\ncatalogue = [\"chr20.tsv\"]\nindividuals = \"table\"\n")
    };
    let truth_map = "[map.sex]\ncolumn = \"sex\"\nlevels = { F = \"F\", M = \"M\" }\n[map.age]\ncolumn = \"age\"\n[map.smoker]\n\
        column = \"smoker\"\nyes = [\"1\"]\nno = [\"0\"]\n[map.enrolled]\ncolumn = \"enrolled\"\nformat = \"%Y-%m-%d\"\n[map.ldl]\ncolumn = \"ldl\"\n";
    let sites = [
        (
            "site1",
            "genotypes.vcf.gz",
            "[[table]]\nfile = \"people.csv\"\nid = \"person_id\"\n[map.sex]\ncolumn = \"sex\"\nlevels = { 1 = \"M\", 2 = \"F\" }\n\
             [map.age]\ncolumn = \"age\"\n[map.smoker]\ncolumn = \"smoker\"\nyes = [\"1\"]\nno = [\"0\"]\n\
             [map.enrolled]\ncolumn = \"enrolled\"\nformat = \"%Y-%m-%d\"\n[map.ldl]\ncolumn = \"ldl_mmol_l\"\n",
        ),
        (
            "site2",
            "",
            "[[table]]\nfile = \"people.csv\"\nid = \"SUBJECT\"\nseparator = \"\\t\"\nmissing = [\"NA\"]\n[map.sex]\ncolumn = \"GENDER\"\n\
             levels = { F = \"F\", M = \"M\" }\n[map.age]\ncolumn = \"AGE_YRS\"\n[map.smoker]\ncolumn = \"SMOKING\"\nyes = [\"1\"]\n\
             no = [\"0\"]\n[map.enrolled]\ncolumn = \"VISIT_DATE\"\nformat = \"%m/%d/%Y\"\n[map.ldl]\ncolumn = \"LDL (mg/dL)\"\nscale = 0.02586\n",
        ),
        (
            "site3",
            "genotypes.vcf.gz",
            "[[table]]\nfile = \"people.csv\"\nid = \"Patient\"\nseparator = \";\"\ndecimal = \",\"\nmissing = [\"-9\"]\n[map.sex]\n\
             column = \"Sex\"\nlevels = { Male = \"M\", female = \"F\" }\n[map.age]\ncolumn = \"Age\"\n[map.smoker]\ncolumn = \"Smoker\"\n\
             yes = [\"yes\"]\nno = [\"no\"]\n[map.enrolled]\ncolumn = \"Date\"\nformat = \"%d.%m.%Y\"\n[map.ldl]\ncolumn = \"LDL-C\"\n",
        ),
    ];
    for (site, genotypes, recipe) in sites {
        let places = if genotypes.is_empty() { 0 } else { panel.len() };
        let section = if places == 0 { String::new() } else { variants(genotypes) };
        let documents = [("dictionary.toml", STUDY), ("chr20.tsv", catalogue.as_str())];
        let (temp, report) = ingest_real(&data.join(site), &documents, &format!("{HEAD}{recipe}{section}"));
        let (people, ldl, sums) = study(&temp, places);

        // The same people of the truth: those with a row here.
        let of = &defects["sites"][site];
        let absent: Vec<&str> = of["no_phenotype_row"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let mut wanted: Vec<u64> = of["ids"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(id, _)| !absent.contains(&id.as_str()))
            .map(|(_, n)| n.as_u64().unwrap())
            .collect();
        wanted.sort_unstable();
        let mut lines = truth_people.lines();
        let head = lines.next().unwrap();
        let lines: Vec<&str> =
            lines.filter(|line| wanted.contains(&line.split(',').next().unwrap().parse().unwrap())).collect();
        let table = format!("{head}\n{}\n", lines.join("\n"));
        let documents = [documents[0], documents[1], ("table.csv", table.as_str())];
        let recipe =
            format!("{HEAD}[[table]]\nfile = \"table.csv\"\nid = \"person\"\n{truth_map}{}", variants("genotypes.bcf"));
        let (truth, _) = ingest_real(&data.join("truth"), &documents, &recipe);
        let (true_people, true_ldl, true_sums) = study(&truth, panel.len());

        assert_eq!(people.len(), wanted.len(), "{site}: {report}");
        assert_eq!(people, true_people, "{site}");
        // Some LDL is missing here and none there; rounding to mg/dL moves a value by at most 0.02.
        assert!(ldl.len() < true_ldl.len() && ldl.len() * 20 > true_ldl.len() * 19, "{site}: {}", ldl.len());
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean(&ldl) - mean(&true_ldl)).abs() < 0.05, "{site}: {} {}", mean(&ldl), mean(&true_ldl));
        let flipped: Vec<&str> = of["strand_flipped"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let (mut same, mut left_out) = (0, 0);
        for ((found, truth), (position, reference, alternate)) in sums.iter().zip(&true_sums).zip(&panel) {
            // On its other strand an A/T or C/G variant looks like itself with its alleles swapped: nobody can tell.
            if ["AT", "TA", "CG", "GC"].contains(&format!("{reference}{alternate}").as_str()) {
                continue;
            }
            if flipped.contains(&format!("20:{position}:{reference}:{alternate}").as_str()) {
                assert_eq!(found.0, 0, "{site} {position}");
                left_out += 1;
            } else {
                // The site's own file has some missing genotypes; the truth has none.
                let missing = truth.0 - found.0;
                assert!(missing * 20 < truth.0 && truth.1 - found.1 <= 2 * missing, "{site} {position}: {found:?} {truth:?}");
                same += 1;
            }
        }
        assert!(places == 0 || (same > 3_000 && (site == "site1" || left_out > 20)), "{same} {left_out}");
    }
    // The second site's genotypes lie on another build: refused, and told how to go on.
    let source = Case::new(&[("chr20.tsv", &catalogue.replace("GRCh37", "GRCh38"))]);
    std::fs::copy(data.join("site2/genotypes.bcf"), source.temp.path().join("genotypes.bcf")).unwrap();
    let error = source.ingest(&format!("{HEAD}{}", variants("genotypes.bcf"))).unwrap_err().to_string();
    assert!(error.contains("GRCh38") && error.contains("one build"), "{error}");
}

/// Files that the specification calls valid are read, with all their variants; of broken ones none makes the reader panic, and each
/// that is refused is named.
#[test]
fn the_conformance_files_are_read_or_refused_by_name() {
    let Some(data) = real_data() else { return };
    let (mut read, mut refused) = (0, 0);
    for version in ["4.1", "4.2"] {
        for verdict in ["passed", "failed"] {
            let folder = data.join("vcf-conformance/hts-specs").join(version).join(verdict);
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let bytes = std::fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                let plain = |allele: &str| !allele.is_empty() && allele.bytes().all(|base| b"ACGT".contains(&base));
                let mut panel = std::collections::BTreeSet::new();
                for line in text.lines().filter(|line| !line.starts_with('#')) {
                    let f: Vec<&str> = line.split('\t').collect();
                    let [contig, position, _, reference, alternates, ..] = f[..] else { continue };
                    let Ok(position) = position.parse::<u64>() else { continue };
                    for alternate in alternates.split(',').filter(|alt| plain(alt) && plain(reference) && position > 0) {
                        panel.insert((
                            contig.trim_start_matches("chr").to_owned(),
                            position,
                            reference.to_owned(),
                            alternate.to_owned(),
                        ));
                    }
                }
                let samples =
                    text.lines().find(|line| line.starts_with("#CHROM")).map_or(0, |line| line.split('\t').skip(9).count());
                let mut catalogue = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
                for (contig, position, reference, alternate) in &panel {
                    catalogue += &format!("{contig}\t{position}\t{reference}\t{alternate}\n");
                }
                if panel.is_empty() || Catalogue::parse(catalogue.as_bytes()).is_err() {
                    catalogue = CATALOGUE.to_owned();
                    panel.clear();
                }
                let case = Case::new(&[("panel.tsv", &catalogue)]);
                std::fs::write(case.temp.path().join("a.vcf"), &bytes).unwrap();
                match case.ingest(&format!("{HEAD}{VARIANTS}")) {
                    Ok(report) if verdict == "passed" => {
                        assert_eq!(report.individuals, samples as u64, "{}", path.display());
                        // Two files have records without genotypes, which are told and left out.
                        let without = report.notes.keys().any(|kind| kind.contains("without genotypes"));
                        let all = report.variants_matched == panel.len() as u64;
                        assert!(all != without, "{}: {report}", path.display());
                        read += 1;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let text = error.to_string();
                        assert!(!text.contains("holds something malformed"), "a panic: {}", path.display());
                        assert!(text.contains("a.vcf") || (samples == 0 && text.contains("no individual")), "{text}");
                        assert!(verdict == "failed" || samples == 0, "{}: {text}", path.display());
                        refused += usize::from(verdict == "failed");
                    }
                }
            }
        }
    }
    assert!(read >= 30 && refused >= 200, "{read} valid files read, {refused} broken ones refused");
}

/// The examples of docs/DATASETS.md are what a site copies: they must be right.
#[test]
fn the_examples_of_the_guide_are_read() {
    let guide = include_str!("../../../docs/DATASETS.md");
    let blocks: Vec<&str> = guide.split("```").skip(1).step_by(2).collect();
    let of = |language: &str| blocks.iter().filter_map(|block| block.strip_prefix(language)).collect::<Vec<_>>();
    let [dictionary, recipe] = of("toml\n")[..] else { panic!("two TOML examples") };
    let dictionary = Dictionary::parse(dictionary).unwrap();
    let config = Config::parse(recipe).unwrap();
    assert_eq!(config.mappings(&dictionary).unwrap().iter().flatten().count(), 2);
    let [catalogue] = of("text\n")[..] else { panic!("one catalogue") };
    assert_eq!(Catalogue::parse(catalogue.as_bytes()).unwrap().variants.len(), 1);
}

#[test]
fn files_that_were_encrypted_for_the_site_are_read_as_they_are() {
    use vestibule_importer::fuzz::encrypted;
    let table = "id,age,sex\nA,40,F\nB,50,M\n";
    let genotypes = vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1", "2 50 . C T . . . GT 0/0 0/1"]);
    let config = format!("{HEAD}{TABLE}{VARIANTS}");
    let read = |case: &Case| {
        let report = case.ingest(&config)?;
        assert_eq!((report.individuals, report.variants_matched), (2, 2));
        Ok::<_, IngestError>(rows(&case.open(), &["age", "sex"], &everything()))
    };
    let clear = read(&Case::new(&[("people.csv", table), ("a.vcf", &genotypes)])).unwrap();
    let sealed = |key: &StoreKey| {
        let case = Case::new(&[]);
        for (name, text) in [("people.csv", table), ("a.vcf", genotypes.as_str())] {
            std::fs::write(case.temp.path().join(name), encrypted(text.as_bytes(), &key.crypt4gh(), &[])).unwrap();
        }
        case
    };
    assert!(read(&sealed(&key())).unwrap() == clear);
    let error = read(&sealed(&StoreKey::from_bytes([6; 32]))).unwrap_err();
    assert!(error.to_string().contains("people.csv") && error.to_string().contains("vestibule site crypt4gh"), "{error}");
}
