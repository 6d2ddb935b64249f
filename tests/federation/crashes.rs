//! Killed daemons: SIGKILL at moments spread over a two-round job, then a restart. No job is lost, no round is charged twice, and
//! what the coordinator holds is what the site's ledger holds, byte for byte; every log verifies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::world::World;

/// A day for each round: sites that are killed every second answer when that is over.
const JOB: &str = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 2\nround_deadline_seconds = 86400\n[params]\noutcome = \"trait\"\ncovariates = [\"age\"]\n\
    catalogue = \"panel\"\nslices = [[\"8\", 1, 150_000_000]]\n";

/// Of a project that leiden looks at.
const ASKED: &str = "charter = \"asked.json\"\ndelta = 1e-6\nsites = [\"leiden\"]\nmin_sites = 1\nround_deadline_seconds = 86400\n[params]\ncolumns = [\"sex\"]\n";

/// Rules by which leiden looks at every job of one project before it runs; and, as it took part on that term, at what it would release. At all sites, rules
/// that let one project ask much the same some thousand times.
fn looked_at(world: &World, sites: &[&str]) {
    for officer in ["one", "two"] {
        world.ok(&["key", "new", &format!("{officer}.pem")]);
    }
    for site in sites {
        let folder = format!("change-{site}");
        world.ok(&["site", "policy", "new", site, &folder, "--officer", "one.pem.pub", "--officer", "two.pem.pub"]);
        let rules = world.dir().join(&folder).join("rules.cedar");
        let mut text = std::fs::read_to_string(&rules).unwrap();
        for (fact, most) in [("similar", "200"), ("near", "100")] {
            let rule = format!("context.out.{fact} > {most}");
            assert!(text.contains(&rule), "{rule}");
            text = text.replace(&rule, &format!("context.out.{fact} > 100000"));
        }
        if *site == "leiden" {
            text += "\n@id(\"hold-asked\")\n@why(\"the project is looked at\")\nforbid(principal, action == Site::Action::\"run-at-once\", resource)\n\
                     when { context.job.project == \"asked\" };\n";
        }
        std::fs::write(rules, text).unwrap();
        for officer in ["one", "two"] {
            world.ok(&["site", "policy", "sign", &folder, "--key", &format!("{officer}.pem")]);
        }
        world.ok(&["site", "policy", "set", site, &format!("{folder}/policy.json")]);
    }
    world.charter("asked", "epsilon = 50.0", &["leiden"]);
    world.ok(&["site", "charter", "accept", "leiden", "asked.json", "--review"]);
}

/// What a person decided about a job of that project: whether it runs, and then, whether its release leaves.
#[derive(Default)]
struct Decided {
    job: Option<bool>,
    release: Option<bool>,
}

/// Says yes or no to whatever waits at leiden.
fn decide(world: &World, decided: &mut BTreeMap<String, Decided>, mut yes: impl FnMut() -> bool) {
    let queue = world.ok(&["site", "queue", "leiden"]);
    for entry in queue.as_array().unwrap() {
        let (number, approved) = (entry["number"].to_string(), yes());
        let word = if approved { "approve" } else { "deny" };
        world.ok(&["site", word, "leiden", &number, "--key", "eva.pem", "--why", "looked at it"]);
        let of = decided.get_mut(entry["about"]["job"].as_str().unwrap()).unwrap();
        let slot = if entry["kind"] == "job" { &mut of.job } else { &mut of.release };
        // Nobody is asked twice, however often the site was killed.
        assert_eq!(slot.replace(approved), None, "{entry}");
    }
}

/// Kills at random moments of random processes, with jobs under way all the while, some of which people decide about: `VESTIBULE_KILLS` of them, 40 by
/// default. The seed is printed.
#[test]
fn kills_at_random_moments_leave_every_log_whole() {
    let sites = ["bogota", "kyoto", "leiden"];
    let kills: u32 = std::env::var("VESTIBULE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(40);
    let seed = u64::try_from(crate::world::now()).unwrap();
    eprintln!("seed {seed}");
    // An LCG (Knuth, MMIX) is random enough for when and whom to kill.
    let mut state = seed;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut world = World::new(&sites);
    // Nobody knows how often one round is hit.
    for site in sites {
        world.kill_site(site);
        world.set_site(site, "max_round_tries = 1000\n");
        world.start_site(site);
    }
    world.all_connected();
    world.approver("eva", "test");
    world.issue();
    looked_at(&world, &sites);
    let (mut jobs, mut open) = (Vec::new(), Vec::new());
    let (mut asked, mut waits): (BTreeMap<String, Decided>, Vec<String>) = (BTreeMap::new(), vec![]);
    for _ in 0..kills {
        // Three that people decide about, twice: three times of four they say yes.
        waits.retain(|job| world.job(&["status", job]).1["state"] == "running");
        while waits.len() < 3 && asked.len() < 200 {
            let terms = format!("epsilon = 0.1{:03}\n{ASKED}", asked.len());
            let (code, document) = world.submit("cohort-summary", &terms);
            if code != 0 {
                break;
            }
            let job = document["job"].as_str().unwrap().to_owned();
            asked.insert(job.clone(), Decided::default());
            waits.push(job);
        }
        decide(&world, &mut asked, || random(4) > 0);
        // Two jobs at a time, none of which asks what another asked.
        open.retain(|job: &String| world.job(&["status", job]).1["state"] == "running");
        while open.len() < 2 && jobs.len() < 500 {
            let epsilon = format!("epsilon = 0.1{:03}", jobs.len());
            let (code, document) = world.submit("linear-association", &JOB.replace("epsilon = 1.0", &epsilon));
            if code != 0 {
                break;
            }
            let job = document["job"].as_str().unwrap().to_owned();
            jobs.push(job.clone());
            open.push(job);
        }
        // Mostly at once; now and then, a job goes on by some steps.
        let longest = if random(8) == 0 { 3_000 } else { 120 };
        std::thread::sleep(Duration::from_millis(random(longest)));
        match random(4) {
            0 => {
                world.kill_coordinator();
                world.start_coordinator();
            }
            site => {
                let site = sites[usize::try_from(site).unwrap() - 1];
                world.kill_site(site);
                world.start_site(site);
            }
        }
    }
    for job in &jobs {
        let status = world.ended(job);
        assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    }
    let (mut charged, mut released) = (0, 0);
    for job in asked.keys().cloned().collect::<Vec<_>>() {
        let status = crate::world::wait("the end of a job that was looked at", || {
            decide(&world, &mut asked, || random(4) > 0);
            let (code, status) = world.job(&["status", &job]);
            (code == 0 && status["state"] != "running").then_some(status)
        });
        let want = match asked[&job] {
            Decided { job: Some(false), release: None } => "review-denied",
            Decided { job: Some(true), release: Some(false) } => {
                charged += 1;
                "no-release"
            }
            Decided { job: Some(true), release: Some(true) } => {
                (charged, released) = (charged + 1, released + 1);
                assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
                continue;
            }
            _ => panic!("{status} was not decided about"),
        };
        assert_eq!((&status["state"], &status["sites"][0]["reason"]["code"]), (&"failed".into(), &want.into()), "{status}");
    }
    assert!(asked.len() >= 3);
    eprintln!("{} jobs of two rounds; {} were decided about: {charged} charged, {released} released", jobs.len(), asked.len());
    let coordinator = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    for site in sites {
        let log = world.ok(&["log", "verify", site]);
        // Two rounds of each job: charged once, released once, what the coordinator holds is what the log says.
        let (charged, released) = if site == "leiden" { (charged, released) } else { (0, 0) };
        assert_eq!((&log["whole"], &log["releases"]), (&true.into(), &(2 * jobs.len() + released).into()), "{site}: {log}");
        let ledger = world.ledger(site);
        let count = |sql: &str| ledger.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
        assert_eq!(count("SELECT COUNT(*) FROM charge WHERE rho > 0"), 2 * jobs.len() + charged, "{site}");
        let sql = "SELECT job, round, json FROM release WHERE site = ?1";
        let held: Vec<(String, u32, Vec<u8>)> = coordinator
            .prepare(sql)
            .unwrap()
            .query_map([site], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(held.len(), 2 * jobs.len() + released, "{site}");
        for (job, round, json) in held {
            let sql = "SELECT unseal('release', job || ' ' || round, bytes) FROM release WHERE job = ?1 AND round = ?2";
            let kept: Vec<u8> = ledger.query_row(sql, (&job, round), |row| row.get(0)).unwrap();
            assert_eq!(json, kept, "{site} {job} round {round}");
        }
    }
}

#[test]
fn kills_lose_no_job_and_charge_no_round_twice() {
    let mut world = World::new(&["kyoto", "leiden"]);
    // Learn how long a job takes here, to spread the kills over it.
    let start = Instant::now();
    assert_eq!(world.ended(&world.submitted("linear-association", JOB))["state"], "finished");
    let usual = start.elapsed();
    let mut jobs = Vec::new();
    for attempt in 0..8_u32 {
        let job = world.submitted("linear-association", JOB);
        let moment = Instant::now() + usual.mul_f64(f64::from(attempt / 2) / 6.0);
        while Instant::now() < moment {
            std::thread::sleep(Duration::from_millis(1));
        }
        if attempt % 2 == 0 {
            world.kill_coordinator();
            world.start_coordinator();
        } else {
            world.kill_site("leiden");
            world.start_site("leiden");
        }
        let status = world.ended(&job);
        assert_eq!(status["state"], "finished", "attempt {attempt}: {status}\n{}", world.log());
        jobs.push(job);
    }
    let coordinator = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    for site in ["kyoto", "leiden"] {
        let log = world.ok(&["log", "verify", site]);
        assert_eq!((&log["whole"], &log["releases"]), (&true.into(), &(2 * (jobs.len() + 1)).into()), "{log}");
        let ledger = world.ledger(site);
        for job in &jobs {
            let charges: i64 = ledger.query_row("SELECT COUNT(*) FROM charge WHERE job = ?1", [job], |row| row.get(0)).unwrap();
            assert_eq!(charges, 2, "{site} {job}");
            let (reserved, spent): (i64, i64) = ledger
                .query_row("SELECT reserved_rho, spent_rho FROM job_account WHERE job = ?1", [job], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .unwrap();
            assert!(spent <= reserved && spent * 100 >= reserved * 99, "{site} {job}: {spent} of {reserved}");
            for round in 0..2 {
                let held: Vec<u8> = coordinator
                    .query_row(
                        "SELECT json FROM release WHERE job = ?1 AND round = ?2 AND site = ?3",
                        (job, round, site),
                        |row| row.get(0),
                    )
                    .unwrap();
                let kept: Vec<u8> = ledger
                    .query_row(
                        "SELECT unseal('release', job || ' ' || round, bytes) FROM release WHERE job = ?1 AND round = ?2",
                        (job, round),
                        |row| row.get(0),
                    )
                    .unwrap();
                assert_eq!(held, kept, "{site} {job} round {round}");
            }
        }
    }
}

/// A site that dies of a round, as one does that runs out of memory, does not for ever. The answer's moment is drawn like any other: 7 standard deviations
/// of 203 ms (see `time`) after the fourth start, and six of them either way are a false alarm once in 10^8 runs.
#[test]
fn a_round_that_is_lost_again_and_again_releases_nothing_and_is_no_loop() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", "[slowest]\nassume_for_tests = true\nrow_us = 4_000.0\n");
    world.start_site("leiden");
    world.all_connected();
    let slow = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\nround_deadline_seconds = 3600\n[limits]\n\
        fuel_per_partition = 100_000_000\nmemory_mib = 8\n[params]\nhow = \"loop\"\n";
    let job = world.submitted("hostile", slow);
    let begun = |world: &World| -> i64 {
        let sql =
            "SELECT begun FROM attempt WHERE job = ?1 AND NOT EXISTS(SELECT 1 FROM release WHERE release.job = attempt.job)";
        world.ledger("leiden").query_row(sql, [&job], |row| row.get(0)).unwrap_or(0)
    };
    for tries in 1..=3 {
        crate::world::wait("the round to be begun", || (begun(&world) == tries).then_some(()));
        world.kill_site("leiden");
        world.start_site("leiden");
    }
    let killed = crate::world::now() * 1_000;
    let status = world.ended(&job);
    let known = (crate::world::now() + 1) * 1_000;
    assert_eq!((&status["state"], &status["sites"][0]["reason"]["code"]), (&"failed".into(), &"no-release".into()), "{status}");
    let sql = "SELECT json_extract(CAST(unseal('evidence', job || ' ' || round, evidence) AS TEXT), '$.code'), leaves, begun
               FROM release JOIN attempt USING(job, round) WHERE job = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (code, leaves, begun) = world.ledger("leiden").query_row(sql, [&job], read).unwrap();
    assert_eq!((code.as_str(), begun), ("round-lost", 4));
    assert!(leaves >= killed + 1_421 - 6 * 203 && known >= leaves, "{leaves}, {killed}, {known}");
    let budget = world.ok(&["site", "budget", "leiden"]);
    assert_eq!(budget[0]["jobs"][0]["rounds"], 1, "{budget}");
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
}

#[test]
fn a_round_that_would_take_too_much_memory_is_refused_before_it_is_charged() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", "threads = 2\nmax_round_memory_mib = 70\n");
    world.start_site("leiden");
    world.all_connected();
    let small = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
    assert_eq!(world.ended(&world.submitted("cohort-summary", small))["state"], "finished", "{}", world.log());
    let large = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\nhow = \"subsets\"\ncells = 300000\n";
    let status = world.ended(&world.submitted("hostile", large));
    let reason = &status["sites"][0]["reason"];
    assert_eq!(reason["code"], "round-too-large", "{status}");
    assert!(reason["message"].as_str().unwrap().contains("a round may take 70: ask for fewer entries"), "{reason}");
    assert_eq!(world.ok(&["site", "budget", "leiden"])[0]["jobs"].as_array().unwrap().len(), 1);
}
