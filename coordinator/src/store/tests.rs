//! The store's rules: invitations are for one, jobs are kept whole, releases are kept once.

use super::*;
use crate::round::SiteState;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::message::{Receipt, SiteRequest};
use vestibule_protocol::round::{Partitioning, Plan};
use vestibule_protocol::token::{Invitation, Role};

fn request(role: Role, key: PublicKey) -> Request {
    let (organisation, country) = ("o".parse().unwrap(), "NL".parse().unwrap());
    match role {
        Role::Researcher => Request::Researcher(PersonRequest { organisation, country, key }),
        Role::Approver => Request::Approver(PersonRequest { organisation, country, key }),
        Role::Site => Request::Site(SiteRequest {
            organisation,
            country,
            link: key,
            log_origin: "l".parse().unwrap(),
            log: key,
            witness: key,
        }),
    }
}

fn key(seed: u8) -> PublicKey {
    SecretKey::from_seed([seed; 32]).unwrap().public()
}

fn open(temp: &tempfile::TempDir) -> Store {
    Store::open(&temp.path().join("c.sqlite")).unwrap()
}

fn invitation(name: &str, role: Role) -> Invitation {
    let (quic, api) = (String::new(), String::new());
    Invitation {
        role,
        name: name.parse().unwrap(),
        quic,
        tunnel: None,
        api,
        coordinator: key(9),
        consortium: Digest::of(b"roots"),
        expires: 100,
    }
}

fn id(seed: u8) -> JobId {
    JobId::from_bytes([seed; 16])
}

fn job(seed: u8, owner: u8, manifest: &[u8]) -> NewJob {
    NewJob {
        id: id(seed),
        envelope: vec![1],
        manifest: Digest::of(manifest),
        owner: key(owner),
        submitted: 5,
        title: format!("job {seed}"),
        epsilon: 0.5,
        delta: 1e-6,
        sites: vec!["a".parse().unwrap()],
        documents: vec![Digest::of(b"component"), Digest::of(b"dictionary")],
        plan: Plan { columns: vec!["age".to_owned()], variants: vec![], partitioning: Partitioning::Each, max_rounds: 3 },
    }
}

#[test]
fn an_invitation_is_for_one_role_one_key_and_one_day() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.invite(&invitation("a", Role::Site), key(1)).unwrap();
    assert_eq!(store.open_invitations(100).unwrap(), [key(1)]);
    assert_eq!(store.open_invitations(101).unwrap(), []);
    assert_eq!(store.join(key(1), key(2), &request(Role::Researcher, key(2)), 50).unwrap_err().code(), "invitation-unknown");
    assert_eq!(store.join(key(1), key(2), &request(Role::Site, key(2)), 101).unwrap_err().code(), "invitation-unknown");
    assert_eq!(store.join(key(1), key(2), &request(Role::Site, key(2)), 50).unwrap().as_str(), "a");
    // The same newcomer again: the first answer may have been lost.
    assert_eq!(store.join(key(1), key(2), &request(Role::Site, key(2)), 60).unwrap().as_str(), "a");
    assert_eq!(store.join(key(1), key(3), &request(Role::Site, key(3)), 60).unwrap_err().code(), "invitation-unknown");
    assert_eq!(store.invite(&invitation("a", Role::Site), key(4)).unwrap_err().code(), "name-taken");
    assert_eq!(store.members(Role::Site).unwrap(), [("a".parse().unwrap(), key(2))]);
    assert_eq!(store.members(Role::Researcher).unwrap(), []);
    assert_eq!(store.member(&key(2)).unwrap(), Some(("a".parse().unwrap(), Role::Site)));
    assert_eq!(store.member(&key(1)).unwrap(), None);
}

#[test]
fn a_name_that_was_given_by_mistake_is_free_again() {
    let temp = tempfile::tempdir().unwrap();
    let (store, name): (_, Name) = (open(&temp), "a".parse().unwrap());
    assert_eq!(store.forget(&name).unwrap_err().code(), "name-unknown");
    store.invite(&invitation("a", Role::Site), key(1)).unwrap();
    store.join(key(1), key(2), &request(Role::Site, key(2)), 50).unwrap();
    store.invite(&invitation("b", Role::Site), key(5)).unwrap();
    store.forget(&name).unwrap();
    assert_eq!(store.members(Role::Site).unwrap(), []);
    // Its invitation is gone as well: the one who has it does not come back by it.
    assert_eq!(store.join(key(1), key(2), &request(Role::Site, key(2)), 50).unwrap_err().code(), "invitation-unknown");
    store.invite(&invitation("a", Role::Site), key(3)).unwrap();
    assert_eq!(store.join(key(3), key(2), &request(Role::Site, key(2)), 50).unwrap(), name);
    assert_eq!(store.join(key(5), key(6), &request(Role::Site, key(6)), 50).unwrap().as_str(), "b", "others are not meant");
}

#[test]
fn a_name_that_looks_like_a_members_is_not_invited() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.invite(&invitation("leiden", Role::Site), key(1)).unwrap();
    store.join(key(1), key(2), &request(Role::Site, key(2)), 50).unwrap();
    for (seed, like) in [(3, "Leiden"), (4, "1eiden")] {
        assert_eq!(store.invite(&invitation(like, Role::Researcher), key(seed)).unwrap_err().code(), "name-taken");
    }
    store.invite(&invitation("leuven", Role::Site), key(5)).unwrap();
}

#[test]
fn a_job_survives_a_restart_and_is_submitted_once() {
    let temp = tempfile::tempdir().unwrap();
    let site: Name = "a".parse().unwrap();
    let store = open(&temp);
    assert!(store.submit(job(1, 1, b"1")).unwrap());
    assert!(!store.submit(job(1, 1, b"1")).unwrap());
    assert_eq!(store.submit(job(1, 1, b"2")).unwrap_err().code(), "job-differs");
    store.begin_round(id(1), 0, b"request").unwrap();
    assert_eq!(store.was_asked(id(1), &site).unwrap(), None);
    assert_eq!(store.asked(id(1), &site, 60).unwrap(), 60);
    store.begin_round(id(1), 0, b"another").unwrap();
    assert_eq!(store.asked(id(1), &site, 70).unwrap(), 60, "the first time counts");
    store.release(id(1), 0, &site, b"first", &Receipt { leaf: "l".into(), proof: "p".into() }).unwrap();
    store.set_site(id(1), &site, SiteState::Late, None).unwrap();
    store.release(id(1), 0, &site, b"second", &Receipt { leaf: "m".into(), proof: "q".into() }).unwrap();
    drop(store);
    let store = open(&temp);
    assert_eq!(store.rounds(id(1)).unwrap()[0].request, b"request");
    assert_eq!(store.was_asked(id(1), &site).unwrap(), Some(60));
    assert_eq!(store.releases(id(1), 0).unwrap(), [(site.clone(), b"first".to_vec())]);
    assert_eq!(store.job_sites(id(1)).unwrap()[0].state, SiteState::Released);
    assert_eq!(store.plan(id(1)).unwrap(), Some(job(1, 1, b"1").plan));
    // The next round asks the site again.
    store.begin_round(id(1), 1, b"request").unwrap();
    assert_eq!(store.job_sites(id(1)).unwrap()[0].state, SiteState::Waiting);
    assert_eq!(store.was_asked(id(1), &site).unwrap(), None);
    let summary = store.summary(id(1)).unwrap().unwrap();
    assert_eq!((summary.rounds, summary.max_rounds, &*summary.title), (2, 3, "job 1"));
    assert_eq!(store.running().unwrap(), [id(1)]);
    assert!(store.end(id(1), JobState::Finished, None, Some(b"report")).unwrap());
    assert!(!store.end(id(1), JobState::Cancelled, None, None).unwrap());
    assert_eq!(store.running().unwrap(), []);
    assert_eq!(store.report(id(1)).unwrap().unwrap(), b"report");
    assert_eq!(store.closing(&site).unwrap(), [id(1)]);
    store.closed(id(1), &site).unwrap();
    assert_eq!(store.closing(&site).unwrap(), []);
}

/// What was on its way when a site's time was over.
#[test]
fn a_site_that_is_out_stays_out_and_its_releases_come_too_late() {
    let temp = tempfile::tempdir().unwrap();
    let (store, site): (_, Name) = (open(&temp), "a".parse().unwrap());
    store.submit(job(1, 1, b"1")).unwrap();
    store.begin_round(id(1), 0, b"request").unwrap();
    let late = Some(("late".to_owned(), "it did not answer".to_owned()));
    store.set_site(id(1), &site, SiteState::Late, late.clone()).unwrap();
    store.set_site(id(1), &site, SiteState::Accepted, None).unwrap();
    store.release(id(1), 0, &site, b"r", &Receipt { leaf: "l".into(), proof: "p".into() }).unwrap();
    assert_eq!(store.job_sites(id(1)).unwrap(), [JobSite { site, state: SiteState::Late, reason: late }]);
    assert_eq!(store.releases(id(1), 0).unwrap(), []);
}

/// Its time for a round begins when it is asked, once: not when it is asked again, nor in the round before.
#[test]
fn a_site_was_asked_for_a_round_once() {
    let temp = tempfile::tempdir().unwrap();
    let (store, site): (_, Name) = (open(&temp), "a".parse().unwrap());
    store.submit(job(1, 1, b"1")).unwrap();
    store.begin_round(id(1), 0, b"request").unwrap();
    assert_eq!(store.was_asked(id(1), &site).unwrap(), None);
    store.asked(id(1), &site, 100).unwrap();
    store.asked(id(1), &site, 200).unwrap();
    store.begin_round(id(1), 0, b"request").unwrap();
    assert_eq!(open(&temp).was_asked(id(1), &site).unwrap(), Some(100));
    store.begin_round(id(1), 1, b"request").unwrap();
    assert_eq!(store.was_asked(id(1), &site).unwrap(), None);
}

#[test]
fn an_owners_jobs_are_listed_newest_first_page_by_page() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    for seed in 1..=5 {
        // Three came in the same second.
        let submitted = if seed < 3 { 5 } else { 9 };
        store.submit(NewJob { submitted, ..job(seed, if seed == 2 { 8 } else { 1 }, &[seed]) }).unwrap();
    }
    let ids = |owners: &[PublicKey], after| {
        let (page, next) = store.page(owners, after, 2).unwrap();
        (page.iter().map(|job| job.id).collect::<Vec<_>>(), next)
    };
    let (first, next) = ids(&[key(1)], None);
    assert_eq!(first, [id(5), id(4)]);
    let (second, next) = ids(&[key(1)], next);
    assert_eq!(second, [id(3), id(1)]);
    assert_eq!(ids(&[key(1)], next), (vec![], None));
    assert_eq!(ids(&[key(8)], None), (vec![id(2)], None));
    // A person has the jobs of all their keys.
    assert_eq!(store.page(&[key(8), key(1)], None, 9).unwrap().0.len(), 5);
    assert_eq!(store.page(&[key(8)], None, 9).unwrap().0[0].sites[0].site.as_str(), "a");
}

#[test]
fn components_that_no_job_names_make_room_and_those_of_jobs_do_not() {
    let temp = tempfile::tempdir().unwrap();
    let (store, ada, bob): (_, Name, Name) = (open(&temp), "ada".parse().unwrap(), "bob".parse().unwrap());
    let take = |who: &Name, name: &[u8], now| store.take_component(who, Digest::of(name), 40, now, 100);
    assert_eq!(take(&ada, b"component", 1), Ok(vec![]));
    assert_eq!(take(&ada, b"old", 2), Ok(vec![]));
    assert_eq!(take(&bob, b"old", 2), Ok(vec![]), "everybody has their own room");
    // Over the limit: the oldest goes, and its file stays, since bob has it too.
    store.submit(job(1, 1, b"1")).unwrap();
    assert_eq!(take(&ada, b"new", 3), Ok(vec![]));
    assert!(!store.has_component(&ada, Digest::of(b"old")).unwrap() && store.has_component(&bob, Digest::of(b"old")).unwrap());
    assert_eq!(take(&ada, b"newer", 4), Ok(vec![Digest::of(b"new")]));
    assert_eq!(store.component_bytes(&ada, Digest::of(b"newer")).unwrap(), 40);
    // What jobs name stays, and then there is no room.
    store.submit(NewJob { documents: vec![Digest::of(b"newer")], ..job(2, 1, b"2") }).unwrap();
    let refused = take(&ada, b"newest", 5).unwrap_err();
    assert_eq!(refused, StoreError::Components { used: 80, most: 100 });
    assert!(!store.has_component(&ada, Digest::of(b"newest")).unwrap(), "nothing is left of what was refused");
    assert_eq!(store.take_component(&ada, Digest::of(b"fits"), 20, 6, 100), Ok(vec![]));
    assert_eq!(store.take_component(&ada, Digest::of(b"fits"), 20, 7, 100), Ok(vec![]), "the same again");
    // In time, what no job names is forgotten.
    assert_eq!(store.forget_components(7).unwrap(), 1, "bob's");
    let named = store.named().unwrap();
    for (name, wanted) in
        [(b"component".as_slice(), true), (b"dictionary", true), (b"newer", true), (b"fits", true), (b"old", false)]
    {
        assert_eq!(named.contains(&Digest::of(name)), wanted, "{name:?}");
    }
}

#[test]
fn what_comes_together_is_written_together_and_a_step_that_fails_leaves_the_others_whole() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.submit(job(200, 1, b"200")).unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=100 {
            let store = store.clone();
            scope.spawn(move || match seed % 2 {
                0 => assert!(store.submit(job(seed, 1, &[seed])).unwrap()),
                _ => assert_eq!(store.submit(job(200, 1, &[seed])).unwrap_err().code(), "job-differs"),
            });
        }
    });
    assert_eq!(store.running().unwrap().len(), 51);
    // A step that fails after it wrote.
    let name: Name = "a".parse().unwrap();
    let failed = store.write(|tx| {
        tx.execute("UPDATE job SET title = 'changed'", [])?;
        Err::<(), _>(StoreError::Invitation)
    });
    assert_eq!(failed.unwrap_err().code(), "invitation-unknown");
    assert_eq!(store.summary(id(2)).unwrap().unwrap().title, "job 2");
    assert_eq!(store.forget(&name).unwrap_err().code(), "name-unknown");
}

#[test]
fn a_full_disk_is_said_and_all_goes_on_when_there_is_room() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    let pages = |most: i64| {
        store.write(move |tx| Ok(tx.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get::<_, i64>(0))?))
    };
    let full = pages(1).unwrap();
    let large = |seed: u8| NewJob { envelope: vec![0; 1 << 20], ..job(seed, 1, &[seed]) };
    let refused = store.submit(large(1)).unwrap_err();
    assert_eq!(refused.code(), "coordinator-disk", "{refused}");
    assert_eq!(store.running().unwrap(), [], "{full} pages");
    pages(100_000).unwrap();
    assert!(store.submit(large(1)).unwrap());
}

#[test]
fn the_database_is_its_users_alone_and_of_this_version() {
    use std::os::unix::fs::MetadataExt as _;
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.submit(job(1, 1, b"1")).unwrap();
    for file in ["c.sqlite", "c.sqlite-wal", "c.sqlite-shm"] {
        assert_eq!(std::fs::metadata(temp.path().join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
    }
    store.write(|tx| Ok(tx.execute_batch("PRAGMA user_version = 1")?)).unwrap();
    drop(store);
    assert_eq!(Store::open(&temp.path().join("c.sqlite")).unwrap_err().code(), "coordinator-database");
}
