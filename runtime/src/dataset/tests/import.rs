//! Importers that die, lie or are starved: an error that names the file, and the data that served before still do.

use super::*;

fn lost(files: &[(&str, &str)], config: &str, name: &str) -> String {
    let case = Case::new(files);
    case.put("before.csv", "id,age,sex\nA,30,F\n");
    case.ingest(&format!("{HEAD}{}", TABLE.replace("people.csv", "before.csv"))).unwrap();
    let Err(error) = case.ingest(config) else { panic!("{name} was believed") };
    assert_eq!(error.code(), "importer-lost", "{name}: {error}");
    assert!(error.to_string().starts_with(&format!("{name}: ")), "{error}");
    assert_eq!(age(&rows(&case.open(), &["age"], &[])), [30.0]);
    error.to_string()
}

#[test]
fn an_importer_that_dies_or_lies_costs_its_file_and_nothing_else() {
    let text = vcf("A\tB", &["1 100 . A C . . . GT 0/1 1/1"]);
    for (name, says) in [
        ("abort.vcf", "ran out of the memory"),
        ("exit.vcf", "it stopped"),
        ("memory.vcf", "ran out of the memory"),
        ("rubbish.vcf", "behind its record 0"),
        ("out-of-turn.vcf", "behind its record 0"),
        ("lie-long.vcf", "no importer says"),
        ("lie-short.vcf", "no importer says"),
        ("lie-catalogue.vcf", "no importer says"),
        ("lie-variant.vcf", "no importer says"),
        ("lie-twice.vcf", "no importer says"),
    ] {
        let error = lost(&[(name, &text)], &format!("{HEAD}{VARIANTS}"), name);
        assert!(error.contains(says), "{error}");
    }
    // The same words, where nothing of them is wrong.
    let case = Case::new(&[("lie-not.vcf", &text)]);
    case.ingest(&format!("{HEAD}{VARIANTS}")).unwrap();
    assert_eq!(rows(&case.open(), &[], &everything()).iter().filter(|(_, row)| row[0] == 0).count(), 2);
    for name in ["lie-column.csv", "lie-bounds.csv", "lie-kind.csv", "lie-few.csv", "lie-many.csv"] {
        let table = TABLE.replace("people.csv", name);
        lost(&[(name, "id,age,sex\nA,30,F\n")], &format!("{HEAD}{table}"), name);
    }
}

#[test]
fn a_site_that_requires_walls_has_none_without() {
    let case = Case::new(&[("people.csv", "id,age,sex\nA,30,F\n")]);
    // Another program in an importer's place, which says that nothing stands: no Landlock, no filter, nothing tried.
    let script = r"printf '\003\000\000\000\000\000\000\000\000\000\000' >&0; exec head -c 1 <&0 >/dev/null";
    let launch = || vestibule_worker::Launch { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script.to_owned()] };
    let source = Dir::open_ambient_dir(case.temp.path(), ambient_authority()).unwrap();
    let ingest = |require| {
        let importers = Importers::new(launch(), require);
        ingest((&source, &format!("{HEAD}{TABLE}")), (&case.data(), &key()), &importers, Same::TakeOver, &mut |_| {})
            .unwrap_err()
    };
    assert_eq!(ingest(true).code(), "site-walls");
    assert_eq!(ingest(false).code(), "importer-lost");
    let gone = vestibule_worker::Launch { program: "/no/such/program".into(), arguments: vec![] };
    let error = super::ingest(
        (&source, &format!("{HEAD}{TABLE}")),
        (&case.data(), &key()),
        &Importers::new(gone, false),
        Same::TakeOver,
        &mut |_| {},
    );
    assert_eq!(error.unwrap_err().code(), "worker-start");
}

#[test]
fn what_an_importer_notes_is_text_of_a_sane_length() {
    let mut report = IngestReport::default();
    let note = |examples: usize| Note { count: 3, examples: vec!["\u{1b}[2J\n".repeat(500); examples] };
    report.take_in([("\u{1b}kind".to_owned(), note(9))].into());
    report.take_in([("\u{1b}kind".to_owned(), note(1))].into());
    let taken = &report.notes[" kind"];
    assert_eq!((taken.count, taken.examples.len()), (6, 5));
    assert!(taken.examples.iter().all(|text| text.chars().count() <= 400 && !text.contains(char::is_control)));
    report.take_in((0..20_000).map(|n| (format!("kind {n}"), note(0))).collect());
    assert_eq!(report.notes.len(), 10_000);
}
