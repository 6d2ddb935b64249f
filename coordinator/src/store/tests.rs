//! The store's rules: invitations are for one, jobs are kept whole, releases are kept once.

use super::*;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::round::Plan;
use vestibule_protocol::token::Invitation;

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

fn job(seed: u8) -> Job {
    let id = JobId::from_bytes([seed; 16]);
    Job { id, envelope: vec![1], owner: key(1), submitted: 5, state: JobState::Running, error: None, rounds: 0, max_rounds: 3 }
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
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let store = open(&temp);
    assert!(store.submit(&job(1), one, std::slice::from_ref(&site)).unwrap());
    assert!(!store.submit(&job(1), one, std::slice::from_ref(&site)).unwrap());
    assert_eq!(store.submit(&job(1), two, &[]).unwrap_err().code(), "job-differs");
    store.begin_round(job(1).id, 0, b"request").unwrap();
    store.begin_round(job(1).id, 0, b"another").unwrap();
    store.release(job(1).id, 0, &site, b"first", &Receipt { leaf: "l".into(), proof: "p".into() }).unwrap();
    store.release(job(1).id, 0, &site, b"second", &Receipt { leaf: "m".into(), proof: "q".into() }).unwrap();
    drop(store);
    let store = open(&temp);
    assert_eq!(store.rounds(job(1).id).unwrap()[0].request, b"request");
    assert_eq!(store.releases(job(1).id, 0).unwrap(), [(site.clone(), b"first".to_vec())]);
    assert_eq!(store.job_sites(job(1).id).unwrap()[0].state, SiteState::Released);
    // The next round asks the site again.
    store.begin_round(job(1).id, 1, b"request").unwrap();
    assert_eq!(store.job_sites(job(1).id).unwrap()[0].state, SiteState::Waiting);
    assert_eq!(store.job(job(1).id).unwrap().unwrap().rounds, 2);
    assert!(store.end(job(1).id, JobState::Finished, None, Some(b"report")).unwrap());
    assert!(!store.end(job(1).id, JobState::Cancelled, None, None).unwrap());
    assert_eq!(store.report(job(1).id).unwrap().unwrap(), b"report");
    assert_eq!(store.closing(&site).unwrap(), [job(1).id]);
    store.closed(job(1).id, &site).unwrap();
    assert_eq!(store.closing(&site).unwrap(), []);
}

#[test]
fn a_job_is_listed_for_its_owner() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.submit(&job(1), Digest::of(b"1"), &[]).unwrap();
    assert_eq!(store.jobs(Some(key(1))).unwrap().len(), 1);
    assert_eq!(store.jobs(Some(key(2))).unwrap().len(), 0);
    assert_eq!(store.jobs(None).unwrap().len(), 1);
}

#[test]
fn a_plan_is_kept_once_and_read_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(&temp);
    store.submit(&job(1), Digest::of(b"1"), &[]).unwrap();
    assert_eq!(store.plan(job(1).id).unwrap(), None);
    let partitioning = vestibule_protocol::round::Partitioning::Each;
    let plan = |column: &str| Plan { columns: vec![column.to_owned()], variants: vec![], partitioning, max_rounds: 3 };
    store.set_plan(job(1).id, &plan("age")).unwrap();
    store.set_plan(job(1).id, &plan("sex")).unwrap();
    assert_eq!(open(&temp).plan(job(1).id).unwrap(), Some(plan("age")));
    assert_eq!(store.set_plan(job(2).id, &plan("age")).unwrap_err().code(), "coordinator-database", "of no job");
}
