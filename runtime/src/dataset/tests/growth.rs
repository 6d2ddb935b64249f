//! Datasets that grow: what comes out is what reading everything gives, and what was read is not read again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::dataset::withdrawal::withdraw;

const EXTRA: &str = "#catalogue\textra\n#build\tGRCh37\ncontig\tposition\tref\talt\n1\t100\tA\tC\n2\t60\tA\tG\n2\t70\tG\tA\n";
const SITES: [&str; 9] = [
    "1 100 . A C",
    "1 200 . T G",
    "1 300 . A G,C",
    "1 300 . A C",
    "2 50 . C T",
    "2 50 . G A",
    "2 60 . A G",
    "2 70 . G A",
    "1 150 . A C",
];

/// A number from a seed, below a bound.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Some people's genotypes at some variants.
    fn file(&mut self, samples: &[String]) -> String {
        let mut records = vec![];
        for site in SITES.iter().chain(&SITES[..2]) {
            if self.chance(40) {
                let genotypes = ["0/0", "0/1", "1/1", "./.", "0|1", "0/0", "1", "0/1/1"];
                let genotypes: Vec<&str> = samples.iter().map(|_| genotypes[self.below(8)]).collect();
                records.push(format!("{site} . . . GT {}", genotypes.join(" ")));
            }
        }
        vcf(&samples.join("\t"), &records.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// What a site has, and what it wants of it.
#[derive(Clone)]
struct State {
    files: BTreeMap<String, (Vec<String>, String)>,
    table: BTreeSet<String>,
    extra: bool,
    table_only: bool,
    quality: usize,
}

impl State {
    fn put(&self, case: &Case) {
        for entry in std::fs::read_dir(case.temp.path()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".vcf") && !self.files.contains_key(&name) {
                std::fs::remove_file(case.temp.path().join(name)).unwrap();
            }
        }
        for (name, (_, text)) in &self.files {
            if std::fs::read_to_string(case.temp.path().join(name)).ok().as_ref() != Some(text) {
                case.put(name, text);
            }
        }
        case.put("extra.tsv", EXTRA);
        let rows = self.table.iter().enumerate().map(|(at, id)| format!("{id},{},F\n", at % 100));
        case.put("people.csv", &("id,age,sex\n".to_owned() + &rows.collect::<String>()));
    }

    fn recipe(&self) -> String {
        let mut variants = VARIANTS.to_owned();
        if self.extra {
            // In front, so that the other moves.
            variants = variants.replace("[\"panel.tsv\"]", "[\"extra.tsv\", \"panel.tsv\"]");
        }
        if self.table_only {
            variants += "individuals = \"table\"\n";
        }
        format!("{HEAD}{TABLE}{variants}reference_quality = {}\n", self.quality)
    }

    fn rows(&self, case: &Case) -> Vec<(Vec<Value>, Vec<u8>)> {
        let slice = |contig: &str| VariantSlice { catalogue: "extra".into(), contig: contig.into(), start: 0, end: 1_000 };
        let mut slices = everything();
        slices.extend(["1", "2"].map(slice).into_iter().filter(|_| self.extra));
        rows(&case.open(), &["age", "sex"], &slices)
    }
}

/// What is told but for how it was come by.
fn told(report: &IngestReport, examples: bool) -> IngestReport {
    let mut told = IngestReport { taken_over: 0, taken_from: None, read_again: BTreeMap::new(), ..report.clone() };
    told.notes.values_mut().filter(|_| !examples).for_each(|note| note.examples.clear());
    told
}

/// Sites that have anything and then change anything: the grown dataset is the one that reading everything gives.
#[test]
fn a_grown_dataset_is_what_reading_everything_gives() {
    let (mut taken_over, mut again) = (0, BTreeMap::<String, u64>::new());
    for seed in 1..=30_u64 {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let people: Vec<String> = (0..9).map(|n| format!("p{n}")).collect();
        let some = |numbers: &mut Numbers, percent: usize| -> Vec<String> {
            let found: Vec<String> = people.iter().filter(|_| numbers.chance(percent)).cloned().collect();
            if found.is_empty() { vec!["p0".to_owned()] } else { found }
        };
        // Few in common, many, or each their own.
        let share = [20, 50, 8][numbers.below(3)];
        let mut files = BTreeMap::new();
        for number in 0..1 + numbers.below(4) {
            let samples = some(&mut numbers, share);
            let text = numbers.file(&samples);
            files.insert(format!("f{}.vcf", 2 * number), (samples, text));
        }
        let table = some(&mut numbers, 60).into_iter().collect();
        let (extra, table_only) = (numbers.chance(20), numbers.chance(30));
        let mut state = State { files, table, extra, table_only, quality: 20 };
        let case = Case::new(&[]);
        state.put(&case);
        case.ingest(&state.recipe()).unwrap();
        let mut only_added = true;
        for step in 0..2 {
            for _ in 0..1 + numbers.below(2) {
                let samples = some(&mut numbers, share);
                let text = numbers.file(&samples);
                state.files.insert(format!("f{}.vcf", numbers.below(12)), (samples, text));
            }
            state.extra |= numbers.chance(25);
            if numbers.chance(20) {
                only_added = false;
                let gone = state.files.keys().nth(numbers.below(state.files.len())).unwrap().clone();
                state.files.remove(&gone);
            }
            if state.files.is_empty() || numbers.chance(30) {
                state.files.insert("f1.vcf".into(), (vec!["q".into()], numbers.file(&["q".into()])));
            }
            if numbers.chance(30) {
                state.table = some(&mut numbers, 60).into_iter().collect();
            }
            if numbers.chance(10) {
                state.quality += 1;
            }
            if numbers.chance(20) {
                // Compacted at once, so that their rows are gone.
                withdraw(&case.data(), &"cohort".parse().unwrap(), &[people[numbers.below(9)].clone()], &key()).unwrap();
            }
            state.put(&case);
            let afresh = Case::new(&[]);
            state.put(&afresh);
            if let Ok(list) = case.data().read("cohort/withdrawn") {
                afresh.data().create_dir("cohort").unwrap();
                afresh.data().write("cohort/withdrawn", list).unwrap();
            }
            let (grown, want) = match (case.ingest(&state.recipe()), afresh.ingest(&state.recipe())) {
                (Ok(grown), Ok(want)) => (grown, want),
                (grown, want) => {
                    assert_eq!(grown.unwrap_err().code(), want.unwrap_err().code());
                    break;
                }
            };
            // Replaced files are changed files.
            only_added &= grown.read_again.is_empty();
            assert_eq!(told(&grown, only_added), told(&want, only_added), "seed {seed}, step {step}");
            assert!(state.rows(&case) == state.rows(&afresh), "seed {seed}, step {step}: {grown}");
            taken_over += grown.taken_over;
            for (why, count) in grown.read_again {
                *again.entry(why).or_default() += count;
            }
        }
    }
    // Each way was gone.
    assert!(taken_over > 30, "{taken_over} {again:?}");
    for why in [
        "was changed",
        "in common with",
        "was left out then",
        "is not of the same individuals",
        "comes before",
        "`reference_quality`",
    ] {
        assert!(again.keys().any(|known| known.contains(why)), "{why}: {again:?}");
    }
}

/// An importer that counts how often it is started.
fn counted(case: &Case) -> Importers {
    let script = case.temp.path().join("importer.sh");
    let program = std::env::current_exe().unwrap();
    let count = case.temp.path().join("count");
    let text = format!("#!/bin/sh\necho started >> {}\nexec {} \"$@\"\n", count.display(), program.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let arguments = ["dataset::import::tests::an_importer", "--exact", "--ignored", "--test-threads=1", "--nocapture"];
    Importers::new(vestibule_worker::Launch { program: script, arguments: arguments.map(str::to_owned).to_vec() }, false)
}

/// Ingests with such importers; how often one was started, and what was done.
fn observed(case: &Case, config: &str, afresh: bool) -> (IngestReport, usize, Vec<String>) {
    let _ = std::fs::remove_file(case.temp.path().join("count"));
    let source = Dir::open_ambient_dir(case.temp.path(), ambient_authority()).unwrap();
    // Late enough that nothing was changed just now.
    let tuning = Tuning { now: i64::MAX, afresh, ..Tuning::default() };
    let mut steps = vec![];
    let data = case.data();
    let report =
        ingest_tuned(&source, config, (&data, &key()), &counted(case), &mut |step| steps.push(step.stage), tuning).unwrap();
    let started = std::fs::read_to_string(case.temp.path().join("count")).unwrap_or_default().lines().count();
    (report, started, steps)
}

#[test]
fn files_that_were_read_are_not_read_again() {
    let records = ["1 100 . A C . . . GT 0/1 1/1", "2 60 . A G . . . GT 1/1 0/1"];
    let case = Case::new(&[("a.vcf", &vcf("A\tB", &records)), ("b.vcf", &vcf("C\tD", &records)), ("extra.tsv", EXTRA)]);
    let config = format!("{HEAD}{VARIANTS}");
    let (first, started, steps) = observed(&case, &config, false);
    assert_eq!((first.files, first.taken_over, first.taken_from, started), (2, 0, None, 2));
    assert_eq!(steps.iter().filter(|step| step.starts_with("checking")).count(), 2);
    let version = case.open().version().to_owned();
    // Nothing to do, and no byte of them is read to see it.
    let (same, started, steps) = observed(&case, &config, false);
    assert!(!same.changed && started == 0 && steps.is_empty(), "{steps:?}");
    // One more.
    case.put("c.vcf", &vcf("E", &["1 100 . A C . . . GT 1/1"]));
    let (grown, started, steps) = observed(&case, &config, false);
    assert_eq!((grown.files, grown.taken_over, grown.taken_from.as_deref(), started), (3, 2, Some(version.as_str()), 1));
    assert_eq!(steps, ["checking c.vcf", "taking over a.vcf", "taking over b.vcf", "reading c.vcf"]);
    assert!(grown.to_string().contains(&format!("2 of 3 variant files taken over from version {version}")), "{grown}");
    // A table alone.
    case.put("people.csv", "id,age,sex\nA,30,F\n");
    let config = format!("{HEAD}{TABLE}{VARIANTS}");
    let (grown, started, _) = observed(&case, &config, false);
    assert_eq!((grown.taken_over, started, grown.with_table), (3, 1, 1));
    // A catalogue: files are read for its variants, and not asked for the others'.
    let config = config.replace("[\"panel.tsv\"]", "[\"panel.tsv\", \"extra.tsv\"]");
    let (grown, started, steps) = observed(&case, &config, false);
    assert_eq!((grown.taken_over, started), (3, 4));
    assert!(!steps.iter().any(|step| step.starts_with("checking") && step.ends_with("vcf")), "{steps:?}");
    let before = rows(&case.open(), &["age"], &everything());
    // Touched, but the same; and all, because it is asked for.
    case.put("b.vcf", &vcf("C\tD", &records));
    let (same, started, steps) = observed(&case, &config, false);
    assert!(!same.changed && started == 0 && steps == ["checking people.csv", "checking b.vcf"], "{steps:?}");
    let (all, started, _) = observed(&case, &config, true);
    assert_eq!((all.taken_over, started, told(&all, true)), (0, 4, told(&grown, true)));
    assert!(rows(&case.open(), &["age"], &everything()) == before);
    // Changed: it alone.
    case.put("b.vcf", &vcf("C\tD", &records[..1]));
    let (grown, started, _) = observed(&case, &config, false);
    assert_eq!((grown.taken_over, started, grown.read_again), (2, 2, [("was changed".to_owned(), 1)].into()));
}

#[test]
fn an_ingest_that_grows_and_is_killed_goes_on_where_it_was() {
    let old = vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1", "1 200 . G T . . . GT ./. 0/1"]);
    let records: Vec<String> = (0..2_200).map(|n| format!("2 {} . C T . . . GT 0/1 0/0", 50 + n % 2)).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let new = [("b.vcf", vcf("A\tC", &records)), ("c.vcf", vcf("B\tC", &["1 100 . A C . . . GT 0/0 0/1"]))];
    let config = format!("{HEAD}{VARIANTS}");
    let tuning = Tuning { memory: 1, checkpoint: 0, ..Tuning::default() };
    let begun = || {
        let case = Case::new(&[("a.vcf", &old)]);
        case.ingest(&config).unwrap();
        new.iter().for_each(|(name, text)| case.put(name, text));
        case
    };
    let all = |case: &Case| rows(&case.open(), &[], &everything());
    let whole = begun();
    let mut steps = vec![];
    let want = whole.ingest_tuned(&config, tuning, &mut |step| steps.push(step.stage)).unwrap();
    let afresh = begun();
    let read = afresh.ingest_tuned(&config, Tuning { afresh: true, ..tuning }, &mut |_| {}).unwrap();
    assert!(want.taken_over == 1 && told(&want, true) == told(&read, true) && all(&whole) == all(&afresh), "{want} {read}");
    assert_eq!(want.notes.get("genotypes that another file gave differently, the first kept").unwrap().count, 1);
    for killed_at in 0..steps.len() {
        let case = begun();
        let before = (case.open().version().to_owned(), all(&case).len());
        let mut count = 0;
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            case.ingest_tuned(&config, tuning, &mut |_| {
                assert!(count != killed_at, "killed");
                count += 1;
            })
        }));
        // What served before still does.
        assert!(killed.is_err() && (case.open().version().to_owned(), all(&case).len()) == before);
        let mut again = vec![];
        let report = case.ingest_tuned(&config, tuning, &mut |step| again.push(step.stage)).unwrap();
        let same = IngestReport { taken_from: want.taken_from.clone(), ..report.clone() };
        assert!(same == want && all(&case) == all(&whole), "killed at {killed_at}: {report}");
        let read = |steps: &[String]| steps.iter().filter(|step| step.starts_with("reading")).count();
        // A file that was done is not read again: `b.vcf` has three steps, `c.vcf` one.
        let done = [0, 0, 0, 3][read(&steps[..killed_at])];
        assert_eq!(read(&again), 4 - done, "killed at {killed_at}: {again:?}");
    }
}

#[test]
fn a_version_that_is_damaged_is_not_grown_from() {
    let case = Case::new(&[("a.vcf", &vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1", "2 50 . C T . . . GT 0/1 0/0"]))]);
    let config = format!("{HEAD}{VARIANTS}");
    case.ingest(&config).unwrap();
    case.put("b.vcf", &vcf("C", &["1 100 . A C . . . GT 1/1"]));
    let whole = Case::new(&[]);
    for name in ["a.vcf", "b.vcf"] {
        std::fs::copy(case.temp.path().join(name), whole.temp.path().join(name)).unwrap();
    }
    let want = whole.ingest(&config).unwrap();
    let version = case.data().read_to_string("cohort/current").unwrap();
    let folder = case.temp.path().join("data/cohort").join(&version);
    let (rows_file, sources) =
        (std::fs::read(folder.join("people.rows")).unwrap(), std::fs::read(folder.join("sources")).unwrap());
    let kept = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    copy(&folder, kept.path());
    let flips = (0..rows_file.len()).step_by(rows_file.len() / 40).map(|at| ("people.rows", at));
    for (file, at) in flips.chain((0..sources.len()).step_by(sources.len() / 8).map(|at| ("sources", at))) {
        std::fs::remove_dir_all(case.temp.path().join("data/cohort")).unwrap();
        copy(kept.path(), &folder);
        std::fs::write(case.temp.path().join("data/cohort/current"), &version).unwrap();
        let mut bytes = std::fs::read(folder.join(file)).unwrap();
        bytes[at] ^= 1;
        std::fs::write(folder.join(file), bytes).unwrap();
        let report = case.ingest(&config).unwrap();
        // A byte of a column that is not taken over need not be noticed.
        assert!(file == "people.rows" || report.taken_over == 0, "{file} {at}: {report}");
        assert!(report.taken_over == 1 || report.read_again.values().sum::<u64>() == 2, "{file} {at}: {report}");
        assert_eq!(told(&report, true), told(&want, true), "{file} {at}");
        assert!(rows(&case.open(), &[], &everything()) == rows(&whole.open(), &[], &everything()), "{file} {at}");
    }
}

/// Several row groups and blocks, of which there are more after than before, and tiles that are narrower than blocks.
#[test]
fn rows_move_to_other_groups_as_a_dataset_grows() {
    const VARIANTS: usize = 4_200;
    let mut catalogue = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    let mut bim = String::new();
    for n in 1..=VARIANTS {
        catalogue += &format!("1\t{n}\tA\tC\n");
        bim += &format!("1\tv{n}\t0\t{n}\tC\tA\n");
    }
    let mut numbers = Numbers(42);
    let mut put = |case: &Case, name: &str, people: std::ops::Range<usize>| {
        let bytes = people.len().div_ceil(4) * VARIANTS;
        let genotypes: Vec<u8> = (0..bytes).map(|_| numbers.below(256) as u8).collect();
        std::fs::write(case.temp.path().join(format!("{name}.bed")), [&[0x6c, 0x1b, 0x01], genotypes.as_slice()].concat())
            .unwrap();
        case.put(&format!("{name}.bim"), &bim);
        case.put(&format!("{name}.fam"), &people.map(|person| format!("f p{person} 0 0 0 -9\n")).collect::<String>());
    };
    let recipe = |size: usize| {
        let head = HEAD.replace("1_000", &size.to_string());
        format!("{head}{}", super::VARIANTS.replace("*.vcf", "*.bed"))
    };
    let case = Case::new(&[("panel.tsv", &catalogue)]);
    put(&case, "a", 0..1_500);
    let tuning = Tuning { memory: 1 << 20, ..Tuning::default() };
    case.ingest_tuned(&recipe(1_500), tuning, &mut |_| {}).unwrap();
    let groups = case.open().row_groups();
    // Some are in both files.
    put(&case, "b", 1_300..2_600);
    let grown = case.ingest_tuned(&recipe(2_600), tuning, &mut |_| {}).unwrap();
    assert!(grown.taken_over == 1 && groups > 1 && case.open().row_groups() > groups, "{grown}");
    let slices = [VariantSlice { catalogue: "panel".into(), contig: "1".into(), start: 0, end: 1 << 20 }];
    let all = rows(&case.open(), &[], &slices);
    let afresh = case.ingest_tuned(&recipe(2_600), Tuning { afresh: true, ..Tuning::default() }, &mut |_| {}).unwrap();
    assert_eq!((all.len(), told(&grown, true)), (2_600, told(&afresh, true)));
    assert!(all == rows(&case.open(), &[], &slices));
}
