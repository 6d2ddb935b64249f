//! Files much larger than the memory that an ingest may have.

use std::fmt::Write as _;
use std::process::{Command, Output, Stdio};

use super::*;

/// KiB of data that the process may hold, and each of its importers: a third of the table, and half of the genotypes.
const LIMIT_KIB: usize = 48 << 10;
const PEOPLE: usize = 10_000;
const COLUMNS: usize = 600;
const VARIANTS: usize = 40_000;

fn recipe() -> String {
    let mut recipe = HEAD.replace("1_000", &PEOPLE.to_string()) + "[[table]]\nfile = \"people.csv\"\nid = \"id\"\n";
    for column in 0..COLUMNS {
        write!(recipe, "[map.c{column}]\ncolumn = \"c{column}\"\n").unwrap();
    }
    recipe + &super::VARIANTS.replace("*.vcf", "*.bed")
}

fn cell(person: usize, column: usize) -> f64 {
    ((person * 7 + column * 13) % 1_000) as f64
}

/// Not a test: what runs with little memory. It believes that it has as many MiB as a file says.
#[test]
#[ignore = "the test below starts it, with little memory"]
fn an_ingest_in_a_folder() {
    let source = Dir::open_ambient_dir(std::env::current_dir().unwrap(), ambient_authority()).unwrap();
    let memory = source.read_to_string("memory").unwrap().parse::<usize>().unwrap() << 20;
    let data: DataFolder = source.open_dir("data").unwrap().into();
    let tuning = Tuning { memory, ..Tuning::default() };
    let report = ingest_tuned(&source, &recipe(), (&data, &key()), &importers(), &mut |_| {}, tuning).unwrap();
    assert!(report.individuals >= PEOPLE as u64 && report.variants_matched == VARIANTS as u64, "{report}");
    assert_eq!(report.taken_over + 1, report.files, "{report}");
}

fn ingest_with(case: &Case, mebibytes: usize) -> Output {
    case.put("memory", &mebibytes.to_string());
    let arguments = "dataset::tests::memory::an_ingest_in_a_folder --exact --ignored --test-threads=1";
    let script =
        format!("ulimit -c 0 && ulimit -d {LIMIT_KIB} && exec {} {arguments}", std::env::current_exe().unwrap().display());
    let mut program = Command::new("/bin/sh");
    // A backtrace takes memory too: one that is made for lack of it waits for itself. So do stacks, of as many threads as the machine has processors.
    program
        .args(["-c", &script])
        .env("RUST_BACKTRACE", "0")
        .env("RUST_MIN_STACK", "524288")
        .current_dir(case.temp.path())
        .stdin(Stdio::null());
    program.output().unwrap()
}

#[test]
fn files_much_larger_than_the_memory_are_ingested() {
    let case = Case::new(&[]);
    let mut catalogue = "#catalogue\tpanel\n#build\tGRCh37\ncontig\tposition\tref\talt\n".to_owned();
    let (mut bim, mut fam, mut table, mut dictionary) =
        (String::new(), String::new(), "id".to_owned(), "name = \"d\"\n".to_owned());
    for n in 1..=VARIANTS {
        writeln!(catalogue, "1\t{n}\tA\tC").unwrap();
        writeln!(bim, "1\tv{n}\t0\t{n}\tC\tA").unwrap();
    }
    for column in 0..COLUMNS {
        write!(table, ",c{column}").unwrap();
        writeln!(dictionary, "[[column]]\nname = \"c{column}\"\ntype = \"number\"\nlower = 0\nupper = 1000").unwrap();
    }
    for person in 0..PEOPLE {
        writeln!(fam, "f p{person} 0 0 0 -9").unwrap();
        write!(table, "\np{person}").unwrap();
        (0..COLUMNS).for_each(|column| write!(table, ",{:023.17}", cell(person, column)).unwrap());
    }
    assert!(table.len() >> 10 > 5 * LIMIT_KIB / 2, "{}", table.len());
    // Of every four individuals the first has two copies.
    let row = [0b1111_1100; PEOPLE / 4];
    std::fs::write(case.temp.path().join("a.bed"), [&[0x6c, 0x1b, 0x01], row.repeat(VARIANTS).as_slice()].concat()).unwrap();
    for (name, text) in
        [("panel.tsv", &catalogue), ("a.bim", &bim), ("a.fam", &fam), ("people.csv", &table), ("dictionary.toml", &dictionary)]
    {
        case.put(name, text);
    }
    // One that holds all that it reads cannot be.
    let ran = ingest_with(&case, 1_024);
    assert!(!ran.status.success(), "the limit does not hold: {}", String::from_utf8_lossy(&ran.stdout));
    let ran = ingest_with(&case, 8);
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let slices = [VariantSlice { catalogue: "panel".into(), contig: "1".into(), start: 39_000, end: 39_002 }];
    let found = rows(&case.open(), &["c5", "c599"], &slices);
    let mut cells: Vec<[f64; 2]> = found
        .iter()
        .map(
            |(values, _)| {
                if let [Value::Number(a), Value::Number(b)] = values[..] { [a, b] } else { panic!("not all are there") }
            },
        )
        .collect();
    cells.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let mut want: Vec<[f64; 2]> = (0..PEOPLE).map(|person| [cell(person, 5), cell(person, 599)]).collect();
    want.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert!(cells == want);
    assert_eq!(found.iter().filter(|(_, dosages)| dosages == &[2, 2]).count(), PEOPLE / 4);
    assert_eq!(found.iter().filter(|(_, dosages)| dosages == &[0, 0]).count(), PEOPLE - PEOPLE / 4);
    // Grown by one, in the same memory.
    std::fs::write(case.temp.path().join("b.bed"), [&[0x6c, 0x1b, 0x01], [0b10].repeat(VARIANTS).as_slice()].concat()).unwrap();
    case.put("b.bim", &bim);
    case.put("b.fam", "f one 0 0 0 -9\n");
    let ran = ingest_with(&case, 8);
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let mut grown = rows(&case.open(), &["c5", "c599"], &slices);
    let one = grown.iter().position(|(values, dosages)| values[0] == Value::Missing && dosages == &[1, 1]).unwrap();
    grown.remove(one);
    assert!(grown == found);
}
