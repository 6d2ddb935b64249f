//! Calls that see nobody's data (compiling, `plan`, `prepare`, `next`): each is ended when its time is over, and none takes the place of anybody else,
//! at sites and at the coordinator.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::manifest::{Manifest, Signed};

use crate::world::{World, component, vestibule_key, wait};

const HONEST: &str = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
const SPINS: &str = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[limits]\nfuel_per_partition = 1_000_000\nmemory_mib = 64\n\
    [params]\nhow = \"chase in prepare\"\n";

/// Another researcher, with a project of their own that the site takes part in, and a file for their jobs.
fn second(world: &World, site: &str) {
    world.ok(&["key", "new", "bob.pem"]);
    let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", "bob"]);
    let token = token["token"].as_str().unwrap();
    world.ok(&["researcher", "join", token, "--key", "bob.pem", "--organisation", "test", "--country", "NL"]);
    world.issue();
    let ada = vestibule_key(world.dir()).public().to_string();
    let text = std::fs::read_to_string(world.dir().join("project.toml")).unwrap();
    let text = text.replace("\"project\"", "\"other\"").replace(&ada, &key(world, "bob.pem").public().to_string());
    std::fs::write(world.dir().join("other.toml"), text).unwrap();
    world.ok(&["charter", "sign", "other.toml", "--key", "bob.pem"]);
    world.ok(&["site", "charter", "accept", site, "other.json"]);
    std::fs::copy(component("cohort-summary"), world.dir().join("cohort-summary.wasm")).unwrap();
    let job = format!("charter = \"other.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"cohort\"\n{HONEST}");
    std::fs::write(world.dir().join("bob.toml"), job).unwrap();
}

fn key(world: &World, file: &str) -> SecretKey {
    SecretKey::from_pem(&std::fs::read_to_string(world.dir().join(file)).unwrap(), None).unwrap()
}

/// A job of the second researcher's, to its end.
fn honest(world: &World) -> Value {
    let api = format!("http://{}", world.api_address());
    let document = world.ok(&["job", "submit", "bob.toml", "--key", "bob.pem", "--coordinator", &api]);
    let job = document["job"].as_str().unwrap().to_owned();
    wait("an honest job's end", || {
        let (code, status) = world.json(&["job", "status", &job, "--key", "bob.pem", "--coordinator", &api]);
        (code == 0 && status["state"] != "running").then_some(status)
    })
}

fn restart(world: &mut World, site: &str, settings: &str) {
    world.kill_site(site);
    world.set_site(site, settings);
    world.start_site(site);
    world.all_connected();
}

#[test]
fn a_flood_of_jobs_that_spin_before_any_data_leaves_others_served_and_is_refused_with_a_code() {
    let mut world = World::new(&["leiden"]);
    second(&world, "leiden");
    restart(&mut world, "leiden", "max_public_seconds = 6\n");
    // What follows is compiled already.
    assert_eq!(honest(&world)["state"], "finished");
    let alone = Instant::now();
    assert_eq!(honest(&world)["state"], "finished");
    let alone = alone.elapsed();
    let flood: Vec<String> = (0..8).map(|_| world.submitted("hostile", SPINS)).collect();
    let first = |world: &World| world.ended(&flood[0]);
    // One of them is being looked at, and all others wait for the same researcher's place.
    let (mut served, beside) = (0_u32, Instant::now());
    while served < 3 {
        assert_eq!(honest(&world)["state"], "finished");
        served += 1;
        let running = flood.iter().filter(|job| world.job(&["status", job]).1["state"] == "running").count();
        assert!(running > 0, "the flood was over before {served} honest jobs were");
    }
    eprintln!("an honest job took {alone:?} alone, and {:?} beside a flood", beside.elapsed() / served);
    let reason = first(&world)["sites"][0]["reason"].clone();
    assert_eq!(reason["code"], "analysis-too-slow", "{reason}");
    for says in ["`prepare`", "6 s"] {
        assert!(reason["message"].as_str().unwrap().contains(says), "{reason}");
    }
    // Nothing of it was charged; the honest ones were: the first, and then the same question again for nothing.
    let budget = world.ok(&["site", "budget", "leiden"]);
    assert!(budget[0]["jobs"].as_array().unwrap().iter().all(|job| job["researcher"] == "bob"), "{budget}");
}

#[test]
fn what_refused_jobs_take_of_a_day_is_limited_for_each_researcher_also_over_restarts() {
    let mut world = World::new(&["leiden"]);
    second(&world, "leiden");
    let settings = "max_public_seconds = 6\nrefused_seconds_per_day = 15\n";
    restart(&mut world, "leiden", settings);
    let code = |world: &World| {
        let status = world.ended(&world.submitted("hostile", SPINS));
        status["sites"][0]["reason"].clone()
    };
    // Each takes six seconds, and what compiling took: as long as that is below the limit, the next is looked at, and no longer.
    let booked = |world: &World, jobs: i64| {
        wait("what was taken to be booked", || {
            let sql = "SELECT COUNT(*), COALESCE(SUM(spent_ms), 0) FROM unpaid";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
            let (rows, spent) = world.ledger("leiden").query_row(sql, [], read).ok()?;
            (rows == jobs).then_some(spent)
        })
    };
    let (mut jobs, mut spent) = (0, 0);
    while spent < 15_000 {
        assert_eq!(code(&world)["code"], "analysis-too-slow", "{spent} ms were taken");
        jobs += 1;
        let now = booked(&world, jobs);
        assert!(now >= spent + 6_000, "{spent} ms, then {now} ms");
        spent = now;
    }
    let worn = code(&world);
    assert_eq!(worn["code"], "refused-work-exhausted", "{worn}");
    assert!(worn["message"].as_str().unwrap().contains(" minutes"), "{worn}");
    restart(&mut world, "leiden", settings);
    assert_eq!(code(&world)["code"], "refused-work-exhausted");
    assert_eq!(honest(&world)["state"], "finished", "others are not meant");
    // What was refused unseen and what was charged count for nothing: an honest researcher may go on for as long as the budget lasts.
    assert!(booked(&world, jobs) < spent + 1_000);
}

/// Beside a round, a `prepare` takes longer: whether it is within its limit, and how much is booked for it, would tell when the round
/// ended. So it is stopped until the round's moment, and none of that time is its own.
#[test]
fn what_sees_no_data_rests_while_a_round_runs() {
    const LIMIT_MS: i64 = 2_000;
    /// Its end alone is seconds before its moment.
    const SOON: Duration = Duration::from_secs(3);
    let mut world = World::new(&["leiden"]);
    second(&world, "leiden");
    // A release leaves some 11 s after its round.
    let slow = "max_public_seconds = 2\n[slowest]\nassume_for_tests = true\nfuel_ns = 40.0\n";
    // Compiled before.
    drop(world.ended(&world.submitted("hostile", &SPINS.replace("chase in prepare", "refuse in prepare"))));
    restart(&mut world, "leiden", slow);
    let spent = |world: &World| {
        let sql = "SELECT COALESCE(SUM(spent_ms), 0) FROM unpaid";
        world.ledger("leiden").query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let before = spent(&world);
    let api = format!("http://{}", world.api_address());
    let text = std::fs::read_to_string(world.dir().join("bob.toml")).unwrap().replace("epsilon = 0.5", "epsilon = 1.0");
    std::fs::write(world.dir().join("bob.toml"), text).unwrap();
    let first = world.ok(&["job", "submit", "bob.toml", "--key", "bob.pem", "--coordinator", &api])["job"].clone();
    let state = |world: &World| {
        let (_, status) = world.json(&["job", "status", first.as_str().unwrap(), "--key", "bob.pem", "--coordinator", &api]);
        status["sites"][0]["state"].clone()
    };
    wait("the round", || (state(&world) == "accepted").then_some(()));
    let begun = Instant::now();
    let beside = world.submitted("hostile", SPINS);
    let (_, site) = world.pids().into_iter().find(|(name, _)| name == "site leiden").unwrap();
    // `T` is stopped (proc(5)).
    let stopped = |worker: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    let rests = || crate::walls::workers(site).iter().any(stopped);
    wait("a worker that rests", || rests().then_some(()));
    // Until the moment, and not only until the end, which was seconds before: what comes then is known to the coordinator soon.
    let mut woke = None;
    while state(&world) == "accepted" {
        if !rests() {
            let woke: Instant = *woke.get_or_insert_with(Instant::now);
            assert!(woke.elapsed() < SOON, "it works before the round's moment");
        }
        assert_eq!(world.job(&["status", &beside]).1["state"], "running");
    }
    let rested = begun.elapsed();
    let status = world.ended(&beside);
    assert_eq!(status["sites"][0]["reason"]["code"], "analysis-too-slow", "{status}");
    let own = wait("what was taken to be booked", || Some(spent(&world) - before).filter(|own| *own > 0));
    eprintln!("{own} ms of its own, {rested:?} beside the round");
    assert!(rested.as_millis() > 5_000, "{rested:?}");
    assert!((LIMIT_MS..LIMIT_MS + 1_500).contains(&own), "{own} ms");
}

/// The terms that ada signed for a job.
fn terms(world: &World, job: &str) -> Manifest {
    let (_, envelope) = world.call("ada", "GET", &format!("/v1/jobs/{job}/manifest"), b"");
    Signed::verify(&envelope, &[vestibule_key(world.dir()).public()]).unwrap().manifest().clone()
}

#[test]
fn at_the_coordinator_a_plan_that_spins_is_ended_and_keeps_nobody_waiting() {
    let mut world = World::new(&["leiden"]);
    second(&world, "leiden");
    let file = world.dir().join("coordinator/coordinator.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    world.kill_coordinator();
    std::fs::write(&file, format!("{settings}max_public_seconds = 6\n")).unwrap();
    world.start_coordinator();
    world.all_connected();
    assert_eq!(honest(&world)["state"], "finished");
    let ada = vestibule_key(world.dir());
    let honest_of_ada = world.submitted("hostile", &SPINS.replace("chase in prepare", "infinite"));
    let good = terms(&world, &honest_of_ada);
    world.ended(&honest_of_ada);
    let spins = |number: u8| {
        let params = good.params.replace("infinite", "chase in plan");
        Manifest { job: JobId::from_bytes([number; 16]), params, ..good.clone() }.sign(&ada).unwrap()
    };
    let (over, most) = (AtomicUsize::new(0), 6);
    std::thread::scope(|scope| {
        for number in 1..=most {
            let (world, over, envelope) = (&world, &over, spins(number));
            scope.spawn(move || {
                // The command line looks at a plan itself before it submits.
                let (status, document) = world.document("ada", "POST", "/v1/jobs", &envelope);
                over.fetch_add(1, Ordering::Relaxed);
                assert_eq!((status, &document["code"]), (422, &"analysis-too-slow".into()), "{document}");
                assert!(document["message"].as_str().unwrap().contains("`plan` took longer than 6 s"), "{document}");
            });
        }
        assert_eq!(honest(&world)["state"], "finished");
        assert!(over.load(Ordering::Relaxed) < usize::from(most), "the flood was over before an honest job was");
    });
    // A project that no named site takes part in is refused before anything is compiled, whatever the plan would do.
    let stranger = Manifest { charter: Digest::of(b"none"), job: JobId::from_bytes([99; 16]), ..good };
    let params = stranger.params.replace("infinite", "chase in plan");
    let stranger = Manifest { params, ..stranger }.sign(&ada).unwrap();
    let (status, document) = world.document("ada", "POST", "/v1/jobs", &stranger);
    assert_eq!((status, &document["code"]), (422, &"charter-not-accepted".into()), "{document}");
}

/// A restart finds plans where they were kept: no component is asked for one again, and the job goes on.
#[test]
fn a_restart_asks_no_component_for_its_plan_again() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    let job = world.submitted("cohort-summary", HONEST);
    world.kill_coordinator();
    let kept = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    let plans: i64 = kept.query_row("SELECT COUNT(*) FROM plan WHERE job = ?1", [&job], |row| row.get(0)).unwrap();
    assert_eq!(plans, 1);
    drop(kept);
    world.start_coordinator();
    world.start_site("leiden");
    assert_eq!(world.ended(&job)["state"], "finished");
}
