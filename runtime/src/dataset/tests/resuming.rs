//! Ingests that were killed, that have nothing to do, that are two at a time.

use super::*;

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
