//! What is at rest opens with its key alone, and shows nothing by itself.

use super::*;

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
    // What a cut file ends with does not open, by any key.
    std::fs::write(path.join("people.rows"), &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(open([5; 32]), Err("dataset-damaged" | "dataset-wrong-key")));
    let info = std::fs::read_to_string(path.join("info.json")).unwrap();
    std::fs::write(path.join("info.json"), info.replace("8.0", "9.0")).unwrap();
    assert_eq!(open([5; 32]), Err("dataset-wrong-key"));
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
