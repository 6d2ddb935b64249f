//! The ledger's rules: the cap, idempotence, order, ends, append-only, restarts.

use super::*;
use crate::admission::Verified;
use crate::admission::tests::{NOW, manifest, verified};
use crate::dataset::DatasetInfo;
use crate::home::Settings;
use crate::policy::decide;
use vestibule_protocol::manifest::Manifest;

fn admit(verified: Verified) -> Admitted {
    let info = DatasetInfo::for_tests("cohort", verified.signed().manifest().dictionary);
    decide(verified, &Settings::default(), Some(&info)).unwrap()
}

fn ledger(temp: &tempfile::TempDir, epsilon: f64) -> Ledger {
    let ledger = Ledger::open(&temp.path().join("ledger.sqlite")).unwrap();
    ledger.set_cap(&"cohort".parse().unwrap(), Rho::budget(epsilon, 1e-6), 1e-6).unwrap();
    ledger
}

fn charge(ledger: &Ledger, manifest: &Manifest, round: u32) -> Result<Admission, LedgerError> {
    ledger.charge(admit(verified(manifest, round)), NOW)
}

fn run(admission: Admission) -> Box<Charged> {
    let Admission::Run(charged) = admission else { panic!("{admission:?}") };
    charged
}

#[test]
fn a_round_is_charged_once_and_answers_with_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp, 8.0);
    let charged = run(charge(&ledger, &manifest(1), 0).unwrap());
    let half = Rho::budget(1.0, 1e-6).share(500_000_000);
    assert_eq!(charged.rho(), half);
    // A crash here: the round runs again under the same charge.
    let again = run(charge(&ledger, &manifest(1), 0).unwrap());
    assert_eq!(ledger.commit(&again, Some(b"first"), "released", NOW).unwrap().unwrap(), b"first");
    // A second draw never replaces the first.
    assert_eq!(ledger.commit(&charged, Some(b"second"), "released", NOW).unwrap().unwrap(), b"first");
    let reopened = Ledger::open(&temp.path().join("ledger.sqlite")).unwrap();
    let Admission::Released(bytes) = charge(&reopened, &manifest(1), 0).unwrap() else { panic!("released") };
    assert_eq!(bytes, b"first");
    let account = &reopened.accounts().unwrap()[0];
    assert_eq!((account.spent, account.jobs[0].rounds), (half, 1));
    assert_eq!(account.spent.checked_add(account.reserved), Some(Rho::budget(1.0, 1e-6)));
}

#[test]
fn a_round_that_released_nothing_is_never_run_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp, 8.0);
    let charged = run(charge(&ledger, &manifest(1), 0).unwrap());
    assert_eq!(ledger.commit(&charged, None, "host-fault", NOW).unwrap(), None);
    assert!(matches!(charge(&ledger, &manifest(1), 0).unwrap(), Admission::Nothing));
}

#[test]
fn the_cap_is_met_and_never_passed() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp, 1.0);
    run(charge(&ledger, &manifest(1), 0).unwrap());
    assert_eq!(charge(&ledger, &manifest(2), 0).unwrap_err().code(), "budget-exhausted");
    // The first job ends with half of its reservation unused: a job of at most that size fits now.
    ledger.end(manifest(1).job).unwrap();
    assert_eq!(charge(&ledger, &manifest(2), 0).unwrap_err().code(), "budget-exhausted");
    let small = Manifest { epsilon_micro: 600_000, ..manifest(3) };
    run(charge(&ledger, &small, 0).unwrap());
    let account = &ledger.accounts().unwrap()[0];
    assert!(account.spent.checked_add(account.reserved).unwrap() <= account.cap);
}

#[test]
fn other_terms_other_rounds_and_ended_jobs_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp, 8.0);
    assert_eq!(charge(&ledger, &manifest(1), 1).unwrap_err().code(), "round-order");
    run(charge(&ledger, &manifest(1), 0).unwrap());
    let other = Manifest { title: "other".into(), ..manifest(1) };
    assert_eq!(charge(&ledger, &other, 0).unwrap_err().code(), "job-differs");
    assert_eq!(charge(&ledger, &manifest(1), 2).unwrap_err().code(), "round-order");
    let mut offer = crate::admission::tests::offer(&manifest(1), 0);
    offer.request.state = vec![1];
    let researchers = [("ada".parse().unwrap(), crate::admission::tests::researcher().public())];
    let changed = crate::admission::verify(offer, &researchers, &"here".parse().unwrap(), NOW).unwrap();
    assert_eq!(ledger.charge(admit(changed), NOW).unwrap_err().code(), "round-differs");
    run(charge(&ledger, &manifest(1), 1).unwrap());
    // Two rounds of a half each: the third has nothing left.
    assert_eq!(charge(&ledger, &manifest(1), 2).unwrap_err().code(), "round-over-job-budget");
    ledger.end(manifest(1).job).unwrap();
    assert_eq!(charge(&ledger, &manifest(1), 2).unwrap_err().code(), "job-ended");
    assert_eq!(charge(&ledger, &manifest(1), 0).unwrap_err().code(), "job-ended");
}

#[test]
fn history_cannot_be_rewritten_even_with_sql() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp, 8.0);
    let charged = run(charge(&ledger, &manifest(1), 0).unwrap());
    ledger.commit(&charged, Some(b"bytes"), "released", NOW).unwrap();
    let connection = ledger.connection();
    for sql in [
        "UPDATE charge SET rho = 0",
        "DELETE FROM charge",
        "UPDATE release SET bytes = x'00'",
        "DELETE FROM release",
        "INSERT OR REPLACE INTO release SELECT job, round, x'00', sha256, code, released FROM release",
        "UPDATE job SET reserved_rho = 1",
        "DELETE FROM job",
        "INSERT INTO release VALUES('00000000000000000000000000000000', 9, x'', '', '', 0)",
        "INSERT INTO charge SELECT job, 1, round_digest, 9000000000000, 0 FROM charge",
    ] {
        assert!(connection.execute(sql, []).is_err(), "{sql}");
    }
}
