//! No byte of a file of rows counts that was not authenticated in its place.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::dataset::store::{RowGroup, RowWriter, Source, Store};
use crate::dataset::withdrawal::Withdrawn;
use vestibule_protocol::dictionary::Dictionary;

const KEY: [u8; 32] = [9; 32];

/// Four row groups, of five people, nobody, nobody and three; all kinds of columns, two catalogues, of which one has two blocks.
fn file(seed: u8) -> std::fs::File {
    let dictionary = Dictionary::parse(DICTIONARY).unwrap();
    let mut writer = RowWriter::new(tempfile::tempfile().unwrap(), &KEY, &dictionary, &[4_097, 9]).unwrap();
    for (part, people) in [(0_u8, 5_u8), (1, 0), (2, 0), (3, 3)] {
        let row = |person: u8| {
            let number = person.wrapping_mul(31).wrapping_add(seed);
            let known = !number.is_multiple_of(3);
            let values = [
                Value::Number(f64::from(number)),
                Value::Level(u32::from(number % 2)),
                if known { Value::Number(0.5) } else { Value::Missing },
                Value::Flag(known),
                Value::Day(i32::from(number)),
            ];
            (u64::from(part) << 60 | u64::from(person), values.to_vec())
        };
        let rows: Vec<(u64, Vec<Value>)> = (0..people).map(row).collect();
        let block = |block: u8| (0..usize::from(people) * 1_024).map(|at| at as u8 ^ block ^ seed ^ part).collect();
        let all: [Vec<u8>; 3] = [block(1), block(2), block(3)];
        writer.group(&rows, (all.len(), &|number| Ok(all[number].clone()))).unwrap();
    }
    writer.finish().unwrap()
}

fn bytes(file: &std::fs::File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// A row: its place, its values, its dosages.
type Read = (u64, Vec<Value>, Vec<u8>);

thread_local! {
    /// The same for all files of these columns: to make it takes longer than to read them.
    static ROOM: std::cell::Cell<Option<RowGroup>> = const { std::cell::Cell::new(None) };
}

/// Everything that is in it, or that it does not open.
fn read(file: &std::fs::File) -> Result<Vec<Read>, String> {
    let store = Store::open(Source::of_file(file.try_clone().unwrap()).unwrap(), &KEY, Withdrawn::default())
        .map_err(|error| error.to_string())?;
    let everything = Selection::of_everything(5, &[(0, 2), (1, 1)]);
    let mut all = vec![];
    let mut rows = ROOM.take().unwrap_or_else(|| store.room(&everything).unwrap().unwrap());
    for group in 0..store.row_groups() {
        if let Err(error) = store.read(group, &mut rows) {
            ROOM.set(Some(rows));
            return Err(error.to_string());
        }
        for index in 0..rows.len() {
            let (mut values, mut dosages) = (vec![], vec![]);
            rows.fill(index, &mut values, &mut dosages);
            all.push((rows.place(index), values, dosages));
        }
    }
    ROOM.set(Some(rows));
    Ok(all)
}

#[test]
fn every_changed_byte_is_noticed() {
    let file = file(1);
    let (whole, good) = (bytes(&file), read(&file).unwrap());
    assert!(good.len() == 8 && good[0].2.len() == 3 * 4_096);
    assert!(good[1].0 == 1 && good[1].1[0] == Value::Number(32.0) && good[5].0 == 3 << 60);
    for (at, byte) in whole.iter().enumerate() {
        file.write_all_at(&[byte ^ 1 << (at % 8)], at as u64).unwrap();
        assert!(read(&file).is_err(), "byte {at} of {}", whole.len());
        file.write_all_at(&[*byte], at as u64).unwrap();
    }
    assert!(read(&file).unwrap() == good);
}

#[test]
fn a_file_that_is_shorter_or_longer_is_refused() {
    let file = file(1);
    let whole = bytes(&file);
    file.set_len(whole.len() as u64 + 1).unwrap();
    assert!(read(&file).is_err());
    for length in (0..whole.len() as u64).rev().step_by(61).chain(0..70) {
        file.set_len(length).unwrap();
        assert!(read(&file).is_err(), "{length} of {}", whole.len());
    }
    // Without its middle, and with its middle twice.
    for (head, tail) in [(2_000, 3_000), (3_000, 2_000)] {
        file.set_len(0).unwrap();
        file.write_all_at(&[&whole[..head], &whole[tail..]].concat(), 0).unwrap();
        assert!(read(&file).is_err());
    }
    file.set_len(0).unwrap();
    assert!(read(&file).is_err());
}

#[test]
fn pieces_that_changed_places_are_refused() {
    let (one, other) = (file(1), file(1));
    let (whole, again) = (bytes(&one), bytes(&other));
    assert_eq!(whole.len(), again.len());
    let ranges =
        Store::open(Source::of_file(one.try_clone().unwrap()).unwrap(), &KEY, Withdrawn::default()).unwrap().chunk_ranges();
    assert_eq!(ranges.len(), 4 * 9);
    let put = |range: &std::ops::Range<u64>, from: &[u8]| one.write_all_at(from, range.start).unwrap();
    let part = |range: &std::ops::Range<u64>, of: &[u8]| of[range.start as usize..range.end as usize].to_vec();
    let mut swapped = 0;
    for (at, a) in ranges.iter().enumerate() {
        // The same chunk of a file that was written with the same key.
        put(a, &part(a, &again));
        assert!(read(&one).is_err(), "chunk {at} of another file");
        put(a, &part(a, &whole));
        for b in &ranges[at + 1..] {
            if a.end - a.start == b.end - b.start {
                put(a, &part(b, &whole));
                put(b, &part(a, &whole));
                assert!(read(&one).is_err());
                put(a, &part(a, &whole));
                put(b, &part(b, &whole));
                swapped += 1;
            }
        }
    }
    assert!(swapped > 8, "{swapped}");
    // The other file's header, directory and end, one at a time and all chunks but none of these.
    let (first, end) = (ranges[0].start, ranges[35].end);
    for range in [0..first, end..whole.len() as u64, first..end] {
        put(&range, &part(&range, &again));
        assert!(read(&one).is_err());
        put(&range, &part(&range, &whole));
    }
    assert!(read(&one).is_ok());
}

#[test]
fn lengths_say_how_many_people_there_are_and_nothing_of_them() {
    let lengths: Vec<usize> = (0..20).map(|seed| bytes(&file(seed)).len()).collect();
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

#[test]
fn the_rows_of_another_version_are_refused() {
    let case = Case::new(&[("people.csv", "id,age,sex\nA,30,F\n")]);
    let config = format!("{HEAD}{TABLE}");
    case.ingest(&config).unwrap();
    let rows = |case: &Case| format!("cohort/{}/people.rows", case.data().read_to_string("cohort/current").unwrap());
    let before = case.data().read(rows(&case)).unwrap();
    case.put("people.csv", "id,age,sex\nA,31,F\n");
    case.ingest(&config).unwrap();
    let data = case.data();
    let now = data.read(rows(&case)).unwrap();
    assert_eq!(before.len(), now.len());
    let open = || Dataset::open(&data, &"cohort".parse().unwrap(), &key()).map_err(|error| error.code());
    let end = now.len() - 120;
    for other in [before.clone(), [&now[..end], &before[end..]].concat(), [&before[..end], &now[end..]].concat()] {
        data.write(rows(&case), &other).unwrap();
        assert_eq!(open().map(|_| ()), Err("dataset-damaged"));
    }
    data.write(rows(&case), &now).unwrap();
    // A file in clear is no file of rows, whatever it is.
    data.write(rows(&case), b"PAR1 .. PAR1").unwrap();
    assert_eq!(open().map(|_| ()), Err("dataset-damaged"));
    data.write(rows(&case), &now).unwrap();
    // What is noticed only as it is read.
    let mut changed = now.clone();
    changed[60] ^= 1;
    data.write(rows(&case), &changed).unwrap();
    let dataset = open().unwrap();
    let selection = dataset.select(&["age".into()], &[]).unwrap().with_places();
    assert_eq!(dataset.read(&selection, 0).unwrap_err().code(), "dataset-damaged");
}
