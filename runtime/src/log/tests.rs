//! A log that is whole verifies; every change that anyone who owns the database can make to it is found, with its place.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::privacy::Rho;

use super::*;
use crate::admission::tests::{manifest, verified};
use crate::dataset::DatasetInfo;
use crate::home::Settings;
use crate::ledger::{Admission, Ledger, Purse, Seal, Settled};
use crate::policy::decide;

const AT: Duration = Duration::from_secs(1_795_000_000);

fn key() -> SecretKey {
    SecretKey::from_seed([9; 32]).unwrap()
}

/// Two jobs: one with an answer and ended, one charged and open; refusals, an operator's command; checkpoints on the way.
fn busy(file: &std::path::Path) -> Ledger {
    let ledger = Ledger::open(file, &Seal::for_tests()).unwrap();
    let info = DatasetInfo::for_tests("cohort", manifest(1).dictionary);
    let purse = Purse {
        population: "cohort".parse().unwrap(),
        cap: Rho::budget(8.0, 1e-6),
        delta: 1e-6,
        moments_femto: 100_000_000,
        researcher_cap: None,
        version: "v1".to_owned(),
    };
    let list = |version: &str| ledger.serve(&"cohort".parse().unwrap(), version, AT).unwrap();
    let keep = || {
        let connection = ledger.connection();
        let now = checkpoint(&connection).unwrap();
        let row = (i64::try_from(now.size).unwrap(), sign(&now, &key()));
        connection.execute("INSERT OR REPLACE INTO log_checkpoint(size, note) VALUES(?1, ?2)", row).unwrap();
    };
    let run = |number: u8| {
        let job = Manifest { params: number.to_string(), ..manifest(number) };
        let admitted = decide(verified(&job, 0), &Settings::default(), Some(&info)).unwrap();
        let Admission::Run(charged) = ledger.charge(admitted, &purse, AT).unwrap() else { panic!("settled") };
        (job.job, charged)
    };
    ledger
        .record(Event::Operator { command: "ingest".parse().unwrap() }, Some(&serde_json::json!({ "user": "ada" })), AT)
        .unwrap();
    let (job, charged) = run(1);
    keep();
    ledger
        .commit(
            &charged,
            &Settled { release: Some(b"noised".to_vec()), leaves_ms: 1_795_000_003_000, hold: None },
            ("released", None),
        )
        .unwrap();
    ledger.depart(job, 0, AT).unwrap();
    ledger.end(job, AT).unwrap();
    for round in 0..3 {
        ledger.refused(&verified(&manifest(3), round), "epsilon-over-site-cap", "too much", AT).unwrap();
    }
    ledger.rejected("signature-refused", AT).unwrap();
    ledger.rejected("signature-refused", AT + Duration::from_secs(60)).unwrap();
    keep();
    run(2);
    list("v1");
    list("v1");
    ledger.leave_out(&"cohort".parse().unwrap(), b"sealed", AT).unwrap();
    list("v2");
    ledger
}

#[test]
fn a_whole_log_verifies_and_recomputes_the_ledger() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("ledger.sqlite");
    let ledger = busy(&file);
    let account = ledger.accounts().unwrap().remove(0);
    let verified = verify(&Source::for_tests(&file), &[key().public()], None).unwrap();
    assert_eq!(verified.found, []);
    let replayed = verified.replay.accounts[&"cohort".parse().unwrap()];
    assert_eq!(replayed.spent_rho_pico, account.spent.pico());
    assert_eq!(replayed.committed_rho_pico, account.spent.pico() + account.reserved.pico());
    assert_eq!(replayed.moments_femto, account.moments_femto);
    assert_eq!((verified.checkpoints, verified.erased), (2, 0));
    let kinds: Vec<String> =
        read(&Source::for_tests(&file), None).unwrap().iter().map(|line| words(&line.leaf.event).0).collect();
    let want =
        "operator account job reserved charged settled ended refused rejected job reserved charged dataset dataset dataset";
    assert_eq!(kinds.join(" "), want, "one leaf for each step, and one for the same refusal");
    // A log's time never goes back: the answer left three seconds later, so nothing after it is earlier.
    let times: Vec<i64> = read(&Source::for_tests(&file), None).unwrap().iter().map(|line| line.leaf.at_ms).collect();
    assert!(times.is_sorted() && times.last() == Some(&1_795_000_003_000));
    assert_eq!(ledger.time(Duration::from_secs(5)).unwrap(), Duration::from_millis(1_795_000_003_000));
    // Another key signed nothing here.
    let other = SecretKey::from_seed([8; 32]).unwrap().public();
    assert!(
        verify(&Source::for_tests(&file), &[other], None).unwrap().found.iter().all(|found| found.why.contains("not signed"))
    );
}

#[test]
fn details_are_erased_without_a_change_of_the_tree() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("ledger.sqlite");
    let ledger = busy(&file);
    assert_eq!(ledger.erase(AT, AT).unwrap(), 0, "nothing is as old");
    let present = || read(&Source::for_tests(&file), None).unwrap().iter().filter(|line| line.details.is_some()).count();
    let before = present();
    // The rounds' too, but not those of the job that began after the answer had left, three seconds
    // later.
    assert_eq!(ledger.erase(AT + Duration::from_secs(1), AT).unwrap(), 3);
    assert_eq!(present(), before - 3);
    drop(ledger);
    let verified = verify(&Source::for_tests(&file), &[key().public()], None).unwrap();
    assert_eq!((verified.found, verified.erased), (vec![], 3));
    // What is deleted without a word is missed.
    Connection::open(&file).unwrap().execute_batch("DELETE FROM log_detail").unwrap();
    let found = verify(&Source::for_tests(&file), &[key().public()], None).unwrap().found;
    assert!(found[0].why.contains("the log says that 3 were erased"), "{found:?}");
}

/// Who owns the machine owns the database: no trigger stops them.
fn tampered(sql: &str) -> Vec<Found> {
    let temp = tempfile::tempdir().unwrap();
    let file: PathBuf = temp.path().join("ledger.sqlite");
    drop(busy(&file));
    let connection = Connection::open(&file).unwrap();
    let triggers = "SELECT name FROM sqlite_schema WHERE type = 'trigger'";
    let names: Vec<String> =
        connection.prepare(triggers).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    names.iter().for_each(|name| connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap());
    connection.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON").unwrap();
    connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(connection);
    verify(&Source::for_tests(&file), &[key().public()], None).unwrap().found
}

#[test]
fn every_change_is_found_and_placed() {
    assert_eq!(tampered(""), []);
    for (sql, place, why) in [
        ("UPDATE charge SET rho = rho - 1", "charge", "rho is"),
        ("UPDATE charge SET moment = 0", "charge", "moment is"),
        ("DELETE FROM charge WHERE leaf = 4; DELETE FROM release; DELETE FROM departure", "charge", "it is not"),
        ("UPDATE charge SET round_digest = request", "charge", "not the one that the log says was asked"),
        ("DELETE FROM departure", "departure", "it is not"),
        ("UPDATE serving SET version = 'v1'", "serving", "version is v1"),
        ("UPDATE serving SET list = x''", "serving cohort", "not the one that the log names"),
        ("DELETE FROM serving", "serving", "it is not"),
        ("UPDATE account SET committed_rho = 0", "account", "committed_rho is 0"),
        ("UPDATE account SET cap_rho = cap_rho * 2", "account", "cap_rho is"),
        ("UPDATE account SET spent_moments = 0", "account", "spent_moments is 0"),
        ("UPDATE job SET ended = 0", "job", "ended is 0"),
        ("UPDATE job SET manifest = 'sha256:00'", "job", "manifest is"),
        ("UPDATE reservation SET rho = 1", "reservation", "rho is 1"),
        ("INSERT INTO reservation SELECT 'ffffffffffffffffffffffffffffffff', 5, 7", "reservation", "no leaf says so"),
        ("INSERT INTO release SELECT job, 7, bytes, sha256, leaves, evidence, hold FROM release", "release", "no leaf says"),
        ("UPDATE release SET bytes = x'01'", "release", "does not open"),
        ("UPDATE release SET sha256 = 'sha256:' || lower(hex(zeroblob(32)))", "release", "something else left"),
        ("UPDATE release SET sha256 = 'sha256:' || lower(hex(zeroblob(32)))", "release", "not those of its digest"),
        ("UPDATE release SET evidence = bytes", "evidence of release", "another's place"),
        ("UPDATE log_detail SET sealed = x'00' WHERE leaf = 0", "details of leaf 0", "does not open"),
        (
            "UPDATE log_detail SET sealed = (SELECT sealed FROM log_detail WHERE leaf = 2) WHERE leaf = 0",
            "details of leaf 0",
            "another's place",
        ),
        ("INSERT INTO log_detail SELECT 3, sealed FROM log_detail WHERE leaf = 0", "details of leaf 3", "promises none"),
        ("UPDATE log_node SET hash = zeroblob(32) WHERE level = 1 AND number = 0", "log_node 1/0", "not the hash"),
        // The log itself: a leaf that is changed, left out, cut off.
        (
            "UPDATE log_leaf SET body = CAST(replace(CAST(body AS TEXT), 'ingest', 'budget') AS BLOB) WHERE number = 0",
            "checkpoint of 5",
            "its root",
        ),
        ("DELETE FROM log_leaf WHERE number = 2", "leaf 3", "leaf 2 is missing"),
        ("DELETE FROM log_leaf WHERE number > 6", "checkpoint of 9", "7 leaves only"),
        ("UPDATE log_leaf SET body = CAST('{}' AS BLOB) WHERE number = 11", "leaf 11", "not a leaf"),
        ("UPDATE log_checkpoint SET note = replace(note, 'vestibule/log/', 'vestibule/lag/')", "checkpoint of", "another log"),
        ("UPDATE log_checkpoint SET size = 6 WHERE size = 5", "checkpoint of 6", "another size"),
    ] {
        let found = tampered(sql);
        let matches = |found: &&Found| found.place.starts_with(place) && found.why.contains(why);
        assert!(found.iter().any(|found| matches(&found)), "{sql}: {found:#?}");
    }
}

#[test]
fn without_the_keys_everything_but_what_is_sealed_is_verified() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("ledger.sqlite");
    drop(busy(&file));
    let sealed =
        read(&Source::for_tests(&file), None).unwrap().iter().filter(|line| line.leaf.details.is_some()).count() as u64;
    let closed = Source::new(&file, None);
    let found = verify(&closed, &[key().public()], None).unwrap();
    // Besides details: a release, and what the airlock found.
    assert_eq!((found.found, found.sealed), (vec![], sealed + 2));
    let lines = read(&closed, None).unwrap();
    assert!(lines.iter().all(|line| line.details.is_none()));
    assert_eq!(lines.iter().filter(|line| line.sealed).count() as u64, sealed);
    let page = serde_json::to_string(&report(&closed, temp.path()).unwrap()).unwrap();
    assert!(!page.contains("\"ada\"") && page.contains("cohort"), "{page}");
    let page = serde_json::to_string(&report(&Source::for_tests(&file), temp.path()).unwrap()).unwrap();
    assert!(page.contains("\"ada\""), "{page}");
    // Other keys are wrong keys, not none.
    let other = Seal::from_bytes(&zeroize::Zeroizing::new([6; 32]));
    let found = verify(&Source::new(&file, Some(other)), &[key().public()], None).unwrap();
    assert_eq!((found.found.len() as u64, found.sealed), (sealed + 2, 0), "{:?}", found.found);
    // The file itself says none of it to anyone who reads its bytes.
    for name in std::fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().path()) {
        let bytes = std::fs::read(&name).unwrap();
        for secret in ["noised", "too much", "\"user\"", "A job"] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{secret} in {}", name.display());
        }
    }
}

#[test]
fn a_log_that_was_written_anew_is_not_the_one_that_was_signed() {
    // Everything is recomputed after a change, as the owner of the machine could: only the signed checkpoints know.
    let temp = tempfile::tempdir().unwrap();
    let (one, two) = (temp.path().join("one.sqlite"), temp.path().join("two.sqlite"));
    drop(busy(&one));
    let ledger = Ledger::open(&two, &Seal::for_tests()).unwrap();
    ledger.record(Event::Heartbeat, None, AT).unwrap();
    drop(ledger);
    let connection = Connection::open(&two).unwrap();
    connection.execute_batch("DROP TRIGGER log_origin_fixed").unwrap();
    connection.execute("ATTACH ?1 AS one", [one.to_str().unwrap()]).unwrap();
    connection
        .execute_batch(
            "UPDATE log_origin SET origin = (SELECT origin FROM one.log_origin); INSERT INTO log_checkpoint SELECT * FROM one.log_checkpoint",
        )
        .unwrap();
    drop(connection);
    let found = verify(&Source::for_tests(&two), &[key().public()], None).unwrap().found;
    assert!(found.iter().any(|found| found.why.contains("1 leaves only")), "{found:#?}");
}

#[test]
fn a_ledger_of_other_tables_is_not_opened() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("ledger.sqlite");
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE account(population TEXT)").unwrap();
    let error = Ledger::open(&file, &Seal::for_tests()).unwrap_err();
    assert!(error.to_string().contains("version 0"), "{error}");
    let error = verify(&Source::for_tests(&temp.path().join("none.sqlite")), &[key().public()], None).unwrap_err();
    assert_eq!(error.code(), "log-unreadable");
}
