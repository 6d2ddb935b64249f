//! Anyone who withdraws is left out at once, in the file, and of every later ingest.

use super::*;
use crate::dataset::withdrawal::{Withdrawn, readmit, withdraw};

const PEOPLE: &str = "id,age,sex\nA,40,F\nB,50,M\nC,60,F\nD,70,M\n";

fn case() -> (Case, String) {
    let genotypes = vcf("A\tB\tC\tD", &["1 100 . A G . . . GT 0/1 1/1 0/0 ./.", "2 200 . C T . . . GT 1/1 0/0 0/1 1/1"]);
    let case = Case::new(&[("people.csv", PEOPLE), ("a.vcf", &genotypes)]);
    let config = format!("{HEAD}{TABLE}{VARIANTS}");
    assert_eq!(case.ingest(&config).unwrap().individuals, 4);
    (case, config)
}

fn ages(case: &Case) -> Vec<f64> {
    age(&rows(&case.open(), &["age"], &everything()))
}

fn name() -> Name {
    "cohort".parse().unwrap()
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

#[test]
fn whoever_withdraws_is_gone_at_once_from_the_file_and_from_every_later_ingest() {
    let (case, config) = case();
    let before = case.open().version().to_owned();
    let genotypes = |case: &Case| rows(&case.open(), &[], &everything());
    let of_b = genotypes(&case).len();
    let done = withdraw(&case.data(), &name(), &ids(&["B", "nobody"]), &key()).unwrap();
    assert_eq!((done.listed, done.removed), (2, 1));
    assert_eq!(ages(&case), [40.0, 60.0, 70.0]);
    assert_eq!((of_b, genotypes(&case).len()), (4, 3));
    assert_ne!(case.open().version(), before);
    // Not in the file either.
    let store = case.open().rows.store;
    assert_eq!((store.withdrawn_rows().unwrap(), store.rows_before(store.row_groups())), (0, 3));
    // Again, and with nobody new: nothing to do.
    let version = case.open().version().to_owned();
    let again = withdraw(&case.data(), &name(), &ids(&["B"]), &key()).unwrap();
    assert_eq!((again.listed, again.removed, case.open().version()), (0, 0, version.as_str()));
    // The same files, and others that still name them.
    assert!(!case.ingest(&config).unwrap().changed);
    case.put("people.csv", &PEOPLE.replace("70", "71"));
    let report = case.ingest(&config).unwrap();
    assert_eq!((report.individuals, ages(&case)), (3, vec![40.0, 60.0, 71.0]));
    assert!(report.to_string().contains("individuals who withdrew, left out"), "{report}");
    // Let in again, with the same files.
    assert_eq!(readmit(&case.data(), &name(), &ids(&["B", "A"]), &key()).unwrap(), 1);
    assert_eq!(ages(&case), [40.0, 60.0, 71.0]);
    assert!(case.ingest(&config).unwrap().changed);
    assert_eq!(ages(&case), [40.0, 50.0, 60.0, 71.0]);
    assert!(!case.ingest(&config).unwrap().changed);
}

/// Killed before the rows are written anew: they are left out as they are read, and the same command ends it.
#[test]
fn a_withdrawal_holds_before_the_rows_are_written_anew() {
    let (case, _) = case();
    let folder = case.data().open_dir("cohort").unwrap();
    let version = folder.read_to_string("current").unwrap();
    withdraw(&case.data(), &name(), &ids(&["C"]), &key()).unwrap();
    // The version before, which is as if nothing but the list had been written.
    case.data().remove_dir_all("cohort").unwrap();
    let (list, whole) = (folder.read("withdrawn"), case.ingest(&format!("{HEAD}{TABLE}{VARIANTS}")).unwrap());
    assert!(list.is_err() && whole.individuals == 4);
    let folder = case.data().open_dir("cohort").unwrap();
    let places = [key().order("C"), key().order("A")].concat();
    folder.write("withdrawn", key().encrypt("withdrawn", &places).unwrap()).unwrap();
    assert_eq!(ages(&case), [50.0, 70.0]);
    let dataset = case.open();
    assert_ne!(dataset.version(), version);
    assert_eq!(dataset.store.withdrawn_rows().unwrap(), 2);
    // With nothing but a count asked for, and by row group.
    let nothing = dataset.select(&[], &[]).unwrap();
    assert_eq!((0..dataset.row_groups()).map(|group| dataset.read(&nothing, group).unwrap().len()).sum::<usize>(), 2);
    let done = withdraw(&case.data(), &name(), &[], &key()).unwrap();
    assert_eq!((done.listed, done.removed, ages(&case)), (0, 2, vec![50.0, 70.0]));
}

#[test]
fn a_list_that_does_not_open_lets_nobody_in() {
    let (case, _) = case();
    withdraw(&case.data(), &name(), &ids(&["C"]), &key()).unwrap();
    let folder = case.data().open_dir("cohort").unwrap();
    let mut list = folder.read("withdrawn").unwrap();
    *list.last_mut().unwrap() ^= 1;
    folder.write("withdrawn", &list).unwrap();
    assert_eq!(Dataset::open(&case.data(), &name(), &key()).unwrap_err().code(), "dataset-wrong-key");
    assert_eq!(withdraw(&case.data(), &name(), &ids(&["A"]), &key()).unwrap_err().code(), "dataset-wrong-key");
    assert_eq!(withdraw(&case.data(), &"other".parse().unwrap(), &[], &key()).unwrap_err().code(), "dataset-unknown");
    assert_eq!(format!("{:?}", Withdrawn::default()), "Withdrawn(withheld)");
}

/// Nor does anything else of it that anyone who runs rounds can count: where a part of the order is empty, it is a row group still.
#[test]
fn the_number_of_row_groups_follows_from_the_public_size_whoever_is_there_or_withdraws() {
    let (case, _) = case();
    let (config, groups) = (format!("{HEAD}{TABLE}{VARIANTS}").replace("1_000", "5_000"), 8);
    case.ingest(&config).unwrap();
    let counted = |case: &Case| {
        let dataset = case.open();
        let selection = dataset.select(&["age".to_owned()], &everything()).unwrap();
        let rows = (0..dataset.row_groups()).map(|group| dataset.read(&selection, group).unwrap().len()).sum::<usize>();
        (dataset.row_groups(), rows)
    };
    assert_eq!(counted(&case), (groups, 4));
    // Grown from that one: nobody's group is another.
    case.put("people.csv", &format!("{PEOPLE}E,80,F\n"));
    assert_eq!((case.ingest(&config).unwrap().individuals, counted(&case)), (5, (groups, 5)));
    for (person, left) in [("A", 4), ("B", 3), ("C", 2), ("D", 1)] {
        assert_eq!(withdraw(&case.data(), &name(), &ids(&[person]), &key()).unwrap().removed, 1);
        assert_eq!(counted(&case), (groups, left));
    }
}
