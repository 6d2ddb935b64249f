//! The ledger's rules: the caps, idempotence, repeats, order, ends, append-only, restarts.

use super::*;
use crate::admission::Verified;
use crate::admission::tests::{NOW, manifest, verified};
use crate::charter::Terms;
use crate::dataset::DatasetInfo;
use crate::delay;
use crate::home::Settings;
use crate::policy::decide;
use vestibule_protocol::charter::Charter;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::release::Release;
use vestibule_protocol::review::{Review, Subject};

fn admit(verified: Verified) -> Admitted {
    let info = DatasetInfo::for_tests("cohort", verified.signed().manifest().dictionary);
    decide(verified, &Settings::default(), Some(&info)).unwrap()
}

/// [`NOW`], as the ledger takes it.
const AT: Duration = Duration::from_secs(1_795_000_000);

fn ledger(temp: &tempfile::TempDir) -> Ledger {
    Ledger::open(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap()
}

/// A purse of that epsilon for the population `cohort`.
fn purse(epsilon: f64) -> Purse {
    Purse {
        population: "cohort".parse().unwrap(),
        cap: Rho::budget(epsilon, 1e-6),
        delta: 1e-6,
        moments_femto: 100_000_000,
        researcher_cap: None,
        version: "v1".to_owned(),
    }
}

/// A round of that job that waits: of one person's, under one charter.
fn whose(job: JobId) -> Whose<'static> {
    static ADA: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| "ada".parse().unwrap());
    Whose { round: (job, 0), researcher: &ADA, charter: Digest::of(b"charter") }
}

/// A job that asks what no other asks.
fn job(number: u8) -> Manifest {
    Manifest { params: number.to_string(), ..manifest(number) }
}

fn charge(ledger: &Ledger, manifest: &Manifest, round: u32) -> Result<Admission, LedgerError> {
    ledger.charge(admit(verified(manifest, round)), &purse(8.0), AT)
}

/// Another round than all others: with a state of its own.
fn charge_round(ledger: &Ledger, manifest: &Manifest, round: u32) -> Result<Admission, LedgerError> {
    let mut offer = crate::admission::tests::offer(manifest, round);
    offer.request.state = vec![u8::try_from(round).unwrap()];
    let researchers = [("ada".parse().unwrap(), crate::admission::tests::researcher().public())];
    let verified =
        crate::admission::verify(offer, &researchers, &crate::admission::tests::charters(), &"here".parse().unwrap(), NOW)
            .unwrap();
    ledger.charge(admit(verified), &purse(8.0), AT)
}

fn run(admission: Admission) -> Box<Charged> {
    let Admission::Run(charged) = admission else { panic!("{admission:?}") };
    charged
}

fn settled(admission: Admission) -> Settled {
    let Admission::Settled(settled) = admission else { panic!("{admission:?}") };
    settled
}

fn bytes(release: &[u8]) -> Settled {
    Settled { release: Some(release.to_vec()), leaves_ms: 7_000, hold: None }
}

fn half() -> Rho {
    Rho::budget(1.0, 1e-6).share(500_000_000)
}

#[test]
fn what_is_too_late_is_not_charged_and_what_was_charged_runs_all_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let late = || Some("no time is left".to_owned());
    let terms = |number| admit(verified(&manifest(number), 0));
    let error = ledger.charge(terms(1).late(late()), &purse(8.0), AT).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("release-too-late", "no time is left"));
    assert!(ledger.accounts().unwrap().is_empty(), "nothing was booked");
    run(ledger.charge(terms(1), &purse(8.0), AT).unwrap());
    // It was lost with its process: it runs under the charge that it has.
    run(ledger.charge(terms(1).late(late()), &purse(8.0), AT).unwrap());
}

#[test]
fn a_round_is_charged_once_and_answers_with_the_same_bytes_at_the_same_moment() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    assert_eq!(charged.rho(), half());
    // A crash here: the round runs again under the same charge.
    let again = run(charge(&ledger, &job(1), 0).unwrap());
    assert_eq!(ledger.commit(&again, &bytes(b"first"), ("released", None)).unwrap(), bytes(b"first"));
    // A second draw never replaces the first, nor its moment.
    let second = Settled { leaves_ms: 8_000, ..bytes(b"second") };
    assert_eq!(ledger.commit(&charged, &second, ("released", None)).unwrap(), bytes(b"first"));
    let reopened = Ledger::open(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
    assert_eq!(settled(charge(&reopened, &job(1), 0).unwrap()), bytes(b"first"));
    let account = &reopened.accounts().unwrap()[0];
    assert_eq!((account.spent, account.jobs[0].rounds), (half(), 1));
    assert_eq!(account.moments_femto, delay::DELTA_FEMTO);
    assert_eq!(account.spent.checked_add(account.reserved), Some(Rho::budget(1.0, 1e-6)));
}

/// Across restarts; what was taken back in good order does not count, and the count cannot be made smaller or forgotten otherwise.
#[test]
fn how_often_a_round_was_begun_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let first = ledger(&temp);
    let charged = run(charge(&first, &job(1), 0).unwrap());
    assert_eq!((first.begin(&charged).unwrap(), first.begin(&charged).unwrap()), (1, 2));
    drop(first);
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    assert_eq!(ledger.begin(&charged).unwrap(), 3);
    ledger.taken_back(job(1).job, 0).unwrap();
    assert_eq!(ledger.begin(&charged).unwrap(), 3);
    // Another round's is another's.
    let other = run(charge(&ledger, &job(2), 0).unwrap());
    assert_eq!(ledger.begin(&other).unwrap(), 1);
    for sql in ["DELETE FROM attempt", "UPDATE attempt SET round = 1", "UPDATE attempt SET begun = -1"] {
        assert!(ledger.connection().execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn a_release_is_kept_until_it_has_left_and_is_old_and_is_never_drawn_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    // When its moment was, and right after.
    let (since, soon) = (Duration::from_secs(7), Duration::from_millis(7_001));
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    ledger.commit(&charged, &bytes(b"first"), ("released", None)).unwrap();
    assert_eq!(ledger.retire(soon, 0, soon).unwrap(), 0, "it has not left");
    ledger.depart(job(1).job, 0, since).unwrap();
    assert_eq!(ledger.retire(since, 0, soon).unwrap(), 0, "it is not old");
    assert_eq!(settled(charge(&ledger, &job(1), 0).unwrap()), bytes(b"first"));
    assert_eq!(ledger.retire(soon, 0, soon).unwrap(), 1);
    assert_eq!(ledger.retire(soon, 0, soon).unwrap(), 0);
    assert_eq!(charge(&ledger, &job(1), 0).unwrap_err().code(), "release-retired");
    let key = SecretKey::from_seed([1; 32]).unwrap().public();
    let verify = || log::verify(&log::Source::for_tests(&temp.path().join("ledger.sqlite")), &[key], None).unwrap();
    assert_eq!((verify().found, verify().replay.retired), (vec![], 1));
    // Nobody removes it without a word in the log, or puts something else in its place.
    let sql = "UPDATE release SET bytes = x'00'";
    assert!(ledger.connection().execute(sql, []).unwrap_err().to_string().contains("append-only"));
}

#[test]
fn releases_alike_are_known_of_once_they_have_left() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let since = Duration::from_secs(NOW.unsigned_abs());
    let first = run(charge(&ledger, &job(1), 0).unwrap());
    run(charge(&ledger, &job(2), 0).unwrap());
    ledger.commit(&first, &bytes(b"first"), ("released", None)).unwrap();
    assert_eq!(ledger.similar(job(2).job).unwrap(), 0, "it is still to leave");
    ledger.depart(job(1).job, 0, since).unwrap();
    assert_eq!((ledger.similar(job(2).job).unwrap(), ledger.similar(job(1).job).unwrap()), (1, 0));
    assert_eq!(ledger.retire(since, 0, since).unwrap(), 1);
    assert_eq!(ledger.similar(job(2).job).unwrap(), 1, "what left has left, also where its bytes are no longer kept");
}

#[test]
fn releases_of_a_project_are_near_whatever_made_them_and_are_forgotten_after_a_while() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let since = Duration::from_secs(NOW.unsigned_abs());
    let mut other = job(1);
    other.component.sha256 = Digest::of(b"another component");
    let first = run(charge(&ledger, &other, 0).unwrap());
    run(charge(&ledger, &job(2), 0).unwrap());
    ledger.commit(&first, &bytes(b"first"), ("released", None)).unwrap();
    assert_eq!(ledger.near(job(2).job).unwrap(), 0, "it is still to leave");
    ledger.depart(other.job, 0, since).unwrap();
    assert_eq!((ledger.near(job(2).job).unwrap(), ledger.near(other.job).unwrap()), (1, 0));
    assert_eq!(ledger.similar(job(2).job).unwrap(), 0, "another component's");
    // Over other columns it is another question; so is one that is asked long after.
    let elsewhere = admit(verified(&job(3), 0)).reading(&["x".to_owned()]);
    run(ledger.charge(elsewhere, &purse(8.0), AT).unwrap());
    assert_eq!(ledger.near(job(3).job).unwrap(), 0);
    let late = |days: u64| AT + Duration::from_secs(days * 86_400);
    for (number, days, near) in [(4, 89, 1), (5, 90, 0)] {
        run(ledger.charge(admit(verified(&job(number), 0)), &purse(8.0), late(days)).unwrap());
        assert_eq!(ledger.near(job(number).job).unwrap(), near, "after {days} days");
    }
}

/// SQLite's own limit stands in for the disk's: both end a transaction with the same error, SQLITE_FULL.
#[test]
fn a_full_disk_books_nothing_and_lets_nothing_leave() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    let pages = |most: i64| {
        let connection = ledger.connection();
        let now: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let set = connection.query_row(&format!("PRAGMA max_page_count = {}", now + most), [], |row| row.get::<_, i64>(0));
        assert_eq!(set.unwrap(), now + most);
    };
    let (since, large) = (Duration::from_secs(NOW.unsigned_abs()), bytes(&[7; 100_000]));
    pages(0);
    // What was noised is not on disk: it does not leave, and nobody hears that it was.
    let error = ledger.commit(&charged, &large, ("released", None)).unwrap_err();
    assert!(error.code() == "ledger-database" && error.to_string().contains("full"), "{error}");
    assert_eq!(ledger.depart(job(1).job, 0, since).unwrap_err().code(), "round-not-settled");
    // Jobs are refused, and nothing of them is charged: until there is room again, at the latest when the free pages are used up.
    let spent = |ledger: &Ledger| ledger.accounts().unwrap()[0].spent;
    let refused = (2..60).find_map(|number| {
        let before = spent(&ledger);
        let error = charge(&ledger, &job(number), 0).err()?;
        assert_eq!(spent(&ledger), before);
        Some(error)
    });
    assert_eq!(refused.unwrap().code(), "ledger-database");
    pages(1_000);
    let again = run(charge(&ledger, &job(1), 0).unwrap());
    assert_eq!(ledger.commit(&again, &large, ("released", None)).unwrap(), large);
    ledger.depart(job(1).job, 0, since).unwrap();
    let key = SecretKey::from_seed([1; 32]).unwrap().public();
    assert_eq!(log::verify(&log::Source::for_tests(&temp.path().join("ledger.sqlite")), &[key], None).unwrap().found, vec![]);
}

#[test]
fn a_round_that_released_nothing_is_never_run_again() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    let nothing = Settled { release: None, leaves_ms: 9_000, hold: None };
    assert_eq!(ledger.commit(&charged, &nothing, ("host-fault", None)).unwrap(), nothing);
    assert_eq!(settled(charge(&ledger, &job(1), 0).unwrap()), nothing);
}

/// A whole release, as the ledger reads it again.
fn release(job: &Manifest) -> Settled {
    let release = Release {
        job: job.job,
        round: 0,
        site: "here".parse().unwrap(),
        charged_rho_pico: 5,
        rounding: None,
        statistics: vec![],
        salt: Salt::from_bytes([3; 32]),
    };
    bytes(&serde_json::to_vec(&release).unwrap())
}

#[test]
fn the_same_request_is_answered_with_the_same_draw_and_costs_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let first = Manifest { params: "\"x\"".into(), ..manifest(1) };
    let charged = run(charge(&ledger, &first, 0).unwrap());
    ledger.commit(&charged, &release(&first), ("released", None)).unwrap();
    // Another job id, title and moment; the same question of the same data.
    let same = Manifest { params: "\"x\"".into(), title: "again".parse().unwrap(), ..manifest(2) };
    let found = settled(charge(&ledger, &same, 0).unwrap());
    let read: Release = serde_json::from_slice(&found.release.clone().unwrap()).unwrap();
    assert_eq!((read.job, read.charged_rho_pico, found.leaves_ms), (same.job, 0, 7_000));
    assert_ne!(read.salt, Salt::from_bytes([3; 32]), "salt belongs to one document");
    assert_eq!(settled(charge(&ledger, &same, 0).unwrap()), found);
    // The same round asked twice within a job is one question too.
    settled(charge(&ledger, &same, 1).unwrap());
    let account = ledger.accounts().unwrap().remove(0);
    assert_eq!((account.spent, account.moments_femto), (half(), delay::DELTA_FEMTO));
    assert_eq!((account.jobs[1].reserved, account.jobs[1].spent, account.jobs[1].rounds), (Rho::ZERO, Rho::ZERO, 2));
    // What costs something reserves the job's whole budget then.
    run(charge_round(&ledger, &same, 2).unwrap());
    assert_eq!(ledger.accounts().unwrap()[0].jobs[1].reserved, Rho::budget(1.0, 1e-6));
}

/// A person's word about a release, as the ledger books it.
fn say(ledger: &Ledger, subject: &Subject, approved: bool, after: u64) {
    let review =
        Review { subject: subject.clone(), approved, why: "looked".parse().unwrap(), at: "2026-11-22T12:00:00Z".into() };
    ledger.review(&review, &"eva".parse().unwrap(), b"signed", AT + Duration::from_secs(after)).unwrap();
}

#[test]
fn what_has_left_has_left_whatever_is_decided_later() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    for (number, word) in [(1, true), (2, false)] {
        let job = job(number);
        let charged = run(charge(&ledger, &job, 0).unwrap());
        let held = Settled { hold: Some("the project's releases are looked at".into()), ..release(&job) };
        ledger.commit(&charged, &held, ("released", None)).unwrap();
        let digest = Digest::of(held.release.as_deref().unwrap());
        let subject = Subject::Release { site: "here".parse().unwrap(), job: job.job, round: 0, release: digest };
        assert_eq!(ledger.wait(&subject, whose(job.job), &serde_json::json!({}), (None, AT)).unwrap(), None);
        assert_eq!(ledger.depart(job.job, 0, AT).unwrap_err().code(), "round-not-reviewed");
        assert_eq!(ledger.departed(job.job, 0).unwrap(), None);
        // A word that was taken back in time is no word.
        say(&ledger, &subject, !word, 1);
        say(&ledger, &subject, word, 2);
        let left = ledger.depart(job.job, 0, AT + Duration::from_secs(3)).unwrap();
        assert_eq!(left.released, word);
        // After a crash the same leaves again: the leaf says which.
        say(&ledger, &subject, !word, 4);
        assert_eq!(ledger.depart(job.job, 0, AT + Duration::from_secs(5)).unwrap(), left);
        assert_eq!(ledger.departed(job.job, 0).unwrap(), Some(left));
    }
    let key = SecretKey::from_seed([1; 32]).unwrap().public();
    assert_eq!(log::verify(&log::Source::for_tests(&temp.path().join("ledger.sqlite")), &[key], None).unwrap().found, vec![]);
}

#[test]
fn an_answer_that_was_drawn_for_others_waits_where_this_projects_own_would() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let ask = |number: u8, hold: Option<&str>| {
        let terms = verified(&Manifest { params: "\"x\"".into(), ..manifest(number) }, 0);
        let hold = hold.map(|why| (why.to_owned(), serde_json::json!({ "project": number })));
        ledger.charge(admit(terms).holding(hold), &purse(8.0), AT).unwrap()
    };
    let charged = run(ask(1, None));
    ledger.commit(&charged, &release(&manifest(1)), ("released", None)).unwrap();
    assert!(ledger.depart(manifest(1).job, 0, AT).unwrap().released, "the first project's leave at once");
    let held = settled(ask(2, Some("looked at")));
    assert_eq!(held.hold.as_deref(), Some("looked at"));
    assert_eq!(ledger.depart(manifest(2).job, 0, AT).unwrap_err().code(), "round-not-reviewed");
    let evidence = ledger.evidence(manifest(2).job, 0).unwrap().unwrap();
    assert_eq!(evidence, serde_json::json!({ "repeated": true, "held": { "project": 2 } }));
    // Nor is it given on from there before somebody has looked; the first is there still, for projects that need no look.
    assert_eq!(settled(ask(3, None)).hold, None);
}

#[test]
fn titles_and_signed_words_are_erased_with_the_details() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    run(charge(&ledger, &job(1), 0).unwrap());
    let of_job = Subject::Job { site: "here".parse().unwrap(), manifest: Digest::of(b"manifest") };
    let of_component = Subject::Component { component: Digest::of(b"component") };
    let about = serde_json::json!({ "researcher": "ada" });
    ledger.wait(&of_job, whose(job(1).job), &about, (None, AT)).unwrap();
    say(&ledger, &of_job, true, 0);
    say(&ledger, &of_component, true, 0);
    let title = || ledger.accounts().unwrap()[0].jobs[0].title.clone();
    assert!(ledger.erase(AT, AT).unwrap() == 0 && title().is_some(), "nothing is old");
    let later = AT + Duration::from_secs(60);
    assert!(ledger.erase(later, later).unwrap() > 0);
    assert_eq!((title(), ledger.queue().unwrap()[0].about.clone()), (None, serde_json::Value::Null));
    assert_eq!(ledger.reviewed(&of_job).unwrap(), None, "what a person signed about a job is gone");
    assert_eq!(
        ledger.reviewed(&of_component).unwrap().as_deref(),
        Some(&b"signed"[..]),
        "a component's review goes on counting"
    );
    let key = SecretKey::from_seed([1; 32]).unwrap().public();
    assert_eq!(log::verify(&log::Source::for_tests(&temp.path().join("ledger.sqlite")), &[key], None).unwrap().found, vec![]);
    for sql in ["UPDATE job SET researcher = 'other'", "UPDATE review SET envelope = x'00'", "UPDATE review SET approved = 0"] {
        assert!(ledger.connection().execute(sql, []).unwrap_err().to_string().contains("append-only"), "{sql}");
    }
}

#[test]
fn an_answer_that_has_not_left_yet_is_nobodys_answer() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &manifest(1), 0).unwrap());
    let leaves_ms = i64::try_from(AT.as_millis()).unwrap() + 1;
    ledger.commit(&charged, &Settled { leaves_ms, ..release(&manifest(1)) }, ("released", None)).unwrap();
    // That the second is charged too says nothing of whether the first has ended.
    run(charge(&ledger, &manifest(2), 0).unwrap());
    let later = AT + Duration::from_millis(1);
    settled(ledger.charge(admit(verified(&manifest(3), 0)), &purse(8.0), later).unwrap());
}

#[test]
fn whatever_decides_the_answer_makes_it_another_request() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let first = manifest(1);
    let charged = run(charge(&ledger, &first, 0).unwrap());
    ledger.commit(&charged, &release(&first), ("released", None)).unwrap();
    let limits = first.limits;
    let other = [
        Manifest { params: "\"y\"".into(), ..manifest(2) },
        Manifest { epsilon_micro: 999_999, ..manifest(3) },
        Manifest { delta_femto: 999_999_999, ..manifest(4) },
        Manifest { noise: vestibule_protocol::job::Noise::Laplace, delta_femto: 0, ..manifest(5) },
        Manifest {
            component: vestibule_protocol::manifest::ComponentRef { sha256: Digest::of(b"x"), bytes: 1 },
            ..manifest(6)
        },
        Manifest {
            limits: vestibule_protocol::job::Limits { fuel_per_partition: limits.fuel_per_partition - 1, ..limits },
            ..manifest(7)
        },
    ];
    for manifest in &other {
        run(charge(&ledger, manifest, 0).unwrap());
    }
    // New rows under the old name.
    let changed = Purse { version: "v2".to_owned(), ..purse(8.0) };
    run(ledger.charge(admit(verified(&manifest(8), 0)), &changed, AT).unwrap());
    settled(charge(&ledger, &manifest(9), 0).unwrap());
}

#[test]
fn the_cap_is_met_and_never_passed() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charge = |manifest: &Manifest| ledger.charge(admit(verified(manifest, 0)), &purse(1.0), AT);
    run(charge(&job(1)).unwrap());
    assert_eq!(charge(&job(2)).unwrap_err().code(), "budget-exhausted");
    // The first job ends with half of its reservation unused: a job of at most that size fits now.
    ledger.end(job(1).job, AT).unwrap();
    assert_eq!(charge(&job(2)).unwrap_err().code(), "budget-exhausted");
    let small = Manifest { epsilon_micro: 600_000, ..job(3) };
    run(charge(&small).unwrap());
    let account = &ledger.accounts().unwrap()[0];
    assert!(account.spent.checked_add(account.reserved).unwrap() <= account.cap);
    assert_eq!(account.jobs.len(), 2, "what was refused is not entered");
}

#[test]
fn datasets_about_the_same_people_are_paid_from_one_account() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charge = |manifest: &Manifest, population: &str| {
        let info = DatasetInfo { name: manifest.dataset.clone(), ..DatasetInfo::for_tests("any", manifest.dictionary) };
        let admitted = decide(verified(manifest, 0), &Settings::default(), Some(&info)).unwrap();
        ledger.charge(admitted, &Purse { population: population.parse().unwrap(), ..purse(1.0) }, AT)
    };
    let later = Manifest { dataset: "later".parse().unwrap(), ..job(2) };
    run(charge(&job(1), "people").unwrap());
    assert_eq!(charge(&later, "people").unwrap_err().code(), "budget-exhausted");
    // What was spent cannot be left behind by calling the people something else.
    assert_eq!(charge(&job(3), "others").unwrap_err().code(), "population-differs");
    run(charge(&later, "others").unwrap());
}

#[test]
fn a_researcher_has_a_cap_of_their_own() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let purse = Purse { researcher_cap: Some(Rho::budget(1.0, 1e-6)), ..purse(8.0) };
    let charge = |manifest: &Manifest| ledger.charge(admit(verified(manifest, 0)), &purse, AT);
    run(charge(&job(1)).unwrap());
    assert_eq!(charge(&job(2)).unwrap_err().code(), "researcher-budget-exhausted");
    ledger.end(job(1).job, AT).unwrap();
    run(charge(&Manifest { epsilon_micro: 600_000, ..job(3) }).unwrap());
}

#[test]
fn a_charter_has_a_cap_of_its_own() {
    use crate::charter::tests::{accepted, charter as project};
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let small = accepted(&Charter { epsilon_micro: 1_300_000, ..project() }, Terms::default());
    let charge = |manifest: &Manifest| {
        let manifest = Manifest { charter: small.signed().digest(), ..manifest.clone() };
        let researchers = [("ada".parse().unwrap(), crate::admission::tests::researcher().public())];
        let offer = crate::admission::tests::offer(&manifest, 0);
        let here = "here".parse().unwrap();
        let verified = crate::admission::verify(offer, &researchers, std::slice::from_ref(&small), &here, NOW).unwrap();
        ledger.charge(admit(verified), &purse(8.0), AT)
    };
    run(charge(&job(1)).unwrap());
    assert_eq!(charge(&job(2)).unwrap_err().code(), "charter-budget-exhausted");
    // Another project's budget is its own.
    run(ledger.charge(admit(verified(&job(3), 0)), &purse(8.0), AT).unwrap());
}

#[test]
fn the_moments_of_releases_have_a_cap_too() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let purse = Purse { moments_femto: 2 * delay::DELTA_FEMTO, ..purse(8.0) };
    let charge = |manifest: &Manifest| ledger.charge(admit(verified(manifest, 0)), &purse, AT);
    run(charge(&job(1)).unwrap());
    run(charge(&job(2)).unwrap());
    assert_eq!(charge(&job(3)).unwrap_err().code(), "budget-exhausted");
}

#[test]
fn other_terms_other_rounds_and_ended_jobs_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    assert_eq!(charge(&ledger, &job(1), 1).unwrap_err().code(), "round-order");
    run(charge(&ledger, &job(1), 0).unwrap());
    let other = Manifest { title: "other".parse().unwrap(), ..job(1) };
    assert_eq!(charge(&ledger, &other, 0).unwrap_err().code(), "job-differs");
    assert_eq!(charge(&ledger, &job(1), 2).unwrap_err().code(), "round-order");
    let mut offer = crate::admission::tests::offer(&job(1), 0);
    offer.request.state = vec![1];
    let researchers = [("ada".parse().unwrap(), crate::admission::tests::researcher().public())];
    let changed =
        crate::admission::verify(offer, &researchers, &crate::admission::tests::charters(), &"here".parse().unwrap(), NOW)
            .unwrap();
    assert_eq!(ledger.charge(admit(changed), &purse(8.0), AT).unwrap_err().code(), "round-differs");
    run(charge(&ledger, &job(1), 1).unwrap());
    // Two rounds of a half each: the third has nothing left.
    assert_eq!(charge(&ledger, &job(1), 2).unwrap_err().code(), "round-over-job-budget");
    ledger.end(job(1).job, AT).unwrap();
    assert_eq!(charge(&ledger, &job(1), 2).unwrap_err().code(), "job-ended");
    assert_eq!(charge(&ledger, &job(1), 0).unwrap_err().code(), "job-ended");
}

#[test]
fn history_cannot_be_rewritten_even_with_sql() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let charged = run(charge(&ledger, &job(1), 0).unwrap());
    ledger.commit(&charged, &bytes(b"bytes"), ("released", None)).unwrap();
    let connection = ledger.connection();
    for sql in [
        "UPDATE charge SET rho = 0",
        "UPDATE charge SET moment = 0",
        "DELETE FROM charge",
        "UPDATE release SET bytes = x'00'",
        "UPDATE release SET leaves = 0",
        "DELETE FROM release",
        "INSERT OR REPLACE INTO release SELECT job, round, x'00', sha256, leaves, evidence, hold FROM release",
        "UPDATE reservation SET rho = 1",
        "DELETE FROM reservation",
        "INSERT OR REPLACE INTO reservation SELECT job, 1, leaf FROM job",
        "UPDATE dataset SET population = 'other'",
        "DELETE FROM dataset",
        "DELETE FROM account",
        "DELETE FROM job",
        "INSERT INTO release VALUES('00000000000000000000000000000000', 9, x'', '', 0, NULL, NULL)",
        "INSERT INTO charge SELECT job, 1, round_digest, request, 9000000000000, 0, 0, leaf FROM charge",
        "INSERT INTO charge SELECT job, 1, round_digest, request, 0, 0, 0, leaf FROM charge",
        "INSERT INTO charge SELECT job, 1, round_digest, request, 0, 0, 0, 99 FROM charge",
        "UPDATE log_leaf SET body = x'00'",
        "DELETE FROM log_leaf",
        "INSERT INTO log_leaf VALUES(99, x'00')",
        "INSERT OR REPLACE INTO log_leaf VALUES(0, x'00')",
        "UPDATE log_node SET hash = zeroblob(32)",
        "DELETE FROM log_node",
        "UPDATE log_origin SET origin = 'other'",
    ] {
        assert!(connection.execute(sql, []).is_err(), "{sql}");
    }
}

#[test]
fn what_serves_is_a_leaf_each_time_it_changes() {
    let temp = tempfile::tempdir().unwrap();
    let (ledger, cohort, other) = (ledger(&temp), "cohort".parse::<Name>().unwrap(), "other".parse::<Name>().unwrap());
    let leaves = || ledger.transaction(|tx| log::size(tx).map_err(database(tx))).unwrap();
    assert_eq!((ledger.serving(&cohort).unwrap(), ledger.withdrawn(&cohort).unwrap()), (None, None));
    assert_eq!(ledger.leave_out(&cohort, b"somebody", AT).unwrap_err().code(), "ledger-database", "nothing serves");
    ledger.serve(&cohort, "v1", AT).unwrap();
    ledger.leave_out(&cohort, b"somebody", AT).unwrap();
    ledger.serve(&cohort, "v2", AT).unwrap();
    ledger.serve(&cohort, "v2", AT).unwrap();
    assert_eq!((ledger.serving(&cohort).unwrap().as_deref(), leaves()), (Some("v2"), 3));
    assert_eq!(ledger.withdrawn(&cohort).unwrap().as_deref(), Some(&b"somebody"[..]), "whatever serves");
    assert_eq!(ledger.serving(&other).unwrap(), None);
    // A list that is another than the log names lets nobody in, nor does one that is gone.
    let sql = |sql: &str| ledger.connection().execute_batch(sql);
    assert!(sql("DELETE FROM serving").is_err() && sql("UPDATE serving SET version = 'v1'").is_err(), "history stays");
    sql("DROP TRIGGER serving_goes_on").unwrap();
    for list in ["x''", "x'00'"] {
        sql(&format!("UPDATE serving SET list = {list}")).unwrap();
        let error = ledger.withdrawn(&cohort).unwrap_err().to_string();
        assert!(error.contains("not the one that the log names"), "{error}");
    }
}

#[test]
fn a_day_of_refused_work_has_a_bound_and_ends() {
    let temp = tempfile::tempdir().unwrap();
    let (ada, bob) = ("ada".parse().unwrap(), "bob".parse().unwrap());
    let (second, most) = (Duration::from_secs(1), Duration::from_secs(10));
    let day = Duration::from_secs(86_400);
    let book = |spent: u32, at: u32| ledger(&temp).unpaid(&ada, second * spent, AT + second * at).unwrap();
    // Opened anew each time, as after a restart.
    let worn = |who: &Name, at: Duration| ledger(&temp).worn(who, most, at).unwrap();
    book(4, 0);
    book(5, 10);
    assert_eq!(worn(&ada, AT + second * 20), None, "nine seconds are less than ten");
    book(1, 30);
    // The first four are forgotten a day after they were booked.
    assert_eq!(worn(&ada, AT + second * 30), Some(AT + day));
    assert_eq!(worn(&bob, AT + second * 30), None);
    assert_eq!(worn(&ada, AT + day - Duration::from_millis(1)), Some(AT + day));
    assert_eq!(worn(&ada, AT + day), None);
    // A single row over the limit counts too, and until it is a day old.
    book(20, 40);
    assert_eq!(worn(&ada, AT + second * 40), Some(AT + second * 40 + day));
    // What a row books removes what is old, and no more.
    ledger(&temp).unpaid(&bob, second, AT + day + second * 20).unwrap();
    let rows: i64 = ledger(&temp).connection().query_row("SELECT COUNT(*) FROM unpaid", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);
    let names: i64 = ledger(&temp)
        .connection()
        .query_row("SELECT COUNT(*) FROM unpaid WHERE researcher IN ('ada', 'bob')", [], |row| row.get(0))
        .unwrap();
    assert_eq!(names, 0, "names are not kept in the clear");
}

#[test]
fn so_many_jobs_of_a_person_or_charter_wait_and_no_more() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let bob = "bob".parse().unwrap();
    let most = Some(MostHeld { researcher: 2, charter: 3 });
    let wait = |number: u8, of_bob: bool, charter: &[u8]| {
        let subject = Subject::Job { site: "here".parse().unwrap(), manifest: Digest::of(&[number]) };
        let of = whose(job(number).job);
        let researcher = if of_bob { &bob } else { of.researcher };
        let of = Whose { researcher, charter: Digest::of(charter), ..of };
        ledger.wait(&subject, of, &serde_json::json!({}), (most, AT)).map_err(|error| error.code())
    };
    assert_eq!([wait(1, false, b"a"), wait(2, false, b"a")], [Ok(None), Ok(None)]);
    assert_eq!(wait(3, false, b"a"), Err("too-many-held"), "a third of ada's");
    assert_eq!(wait(1, false, b"a"), Ok(None), "one that waits already");
    assert_eq!(wait(4, true, b"a"), Ok(None));
    assert_eq!(wait(5, true, b"a"), Err("too-many-held"), "a fourth of the charter's");
    assert_eq!(wait(5, true, b"b"), Ok(None));
    // What was decided, and what has ended, waits no longer.
    let decided = Subject::Job { site: "here".parse().unwrap(), manifest: Digest::of(&[1]) };
    say(&ledger, &decided, false, 0);
    assert_eq!(wait(3, false, b"b"), Ok(None));
    assert_eq!(wait(6, false, b"c"), Err("too-many-held"));
    ledger.end(job(2).job, AT).unwrap();
    assert_eq!(wait(6, false, b"c"), Ok(None));
    let ended: Vec<bool> = ledger.queue().unwrap().iter().map(|waiting| waiting.ended).collect();
    assert_eq!(ended, [false, true, false, false, false, false]);
}

#[test]
fn a_decision_tells_of_its_job_and_others_tell_of_all_that_wait() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = ledger(&temp);
    let subject = |number: u8| Subject::Job { site: "here".parse().unwrap(), manifest: Digest::of(&[number]) };
    for number in [1, 2, 3] {
        ledger.wait(&subject(number), whose(job(number).job), &serde_json::json!({}), (None, AT)).unwrap();
    }
    let (mark, _) = ledger.decided(Mark::default()).unwrap();
    assert_eq!(ledger.decided(mark).unwrap(), (mark, vec![]));
    say(&ledger, &subject(2), true, 0);
    let (mark, jobs) = ledger.decided(mark).unwrap();
    assert_eq!(jobs, [job(2).job]);
    assert_eq!(ledger.decided(mark).unwrap().1, []);
    ledger.end(job(3).job, AT).unwrap();
    say(&ledger, &Subject::Component { component: Digest::of(b"component") }, true, 0);
    let (mark, jobs) = ledger.decided(mark).unwrap();
    assert_eq!(jobs, [job(1).job], "all that wait, and that nobody has decided about");
    ledger.set_policy(1, Digest::of(b"policy"), AT).unwrap();
    assert_eq!(ledger.decided(mark).unwrap().1, [job(1).job]);
}
