//! When a release leaves: after a delay that was drawn, however often it is asked for; and that
//! nothing else shows when a round ended.

use serde_json::Value;

use std::time::{Duration, Instant};

use crate::walls::workers;
use crate::world::{World, wait};

/// One individual of this site can take 10 ms, whatever the job says.
const SLOW: &str = "[slowest]\nassume_for_tests = true\nrow_us = 4_000.0\n";
const JOB: &str = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";

fn millis() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// When a round was charged and when its release leaves, in milliseconds. When it ended is written nowhere.
fn moments(world: &World, job: &str) -> Option<(i64, i64)> {
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let sql = "SELECT json_extract(CAST(body AS TEXT), '$.at_ms'), leaves FROM release JOIN charge USING(job, round)
               JOIN log_leaf ON number = charge.leaf WHERE job = ?1";
    world.ledger("leiden").query_row(sql, [job], read).ok()
}

fn accepted(world: &World, job: &str) {
    let all = |status: &Value| status["sites"].as_array().unwrap().iter().all(|site| site["state"] == "accepted");
    wait("the round to run", || all(&world.job(&["status", job]).1).then_some(()));
}

/// At epsilon 1, a twentieth of rho is 0.00121: the delay is 7 standard deviations of L / sqrt(2 rho) = 203 ms, where L is
/// 4 ms and two looks of 1 ms until a partition is ended, and 4 ms to read its row, and noise of those.
/// Six of them either way are a false alarm once in 10^8 runs; ten seconds are for the round itself.
#[test]
fn a_release_leaves_when_its_delay_is_over_whoever_asks() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", SLOW);
    world.start_site("leiden");
    world.all_connected();
    let job = world.submitted("cohort-summary", JOB);
    let status = world.ended(&job);
    let done = millis();
    assert_eq!(status["state"], "finished", "{status}");
    let (charged, leaves) = moments(&world, &job).unwrap();
    assert!(done >= leaves, "it was known {} ms before it was to leave", leaves - done);
    let delay = leaves - charged;
    assert!((1_421 - 6 * 203..=1_421 + 6 * 203 + 10_000).contains(&delay), "{delay} ms");

    // Asked for again by a coordinator that came back before that moment: nothing is told earlier, run again, or charged again.
    let job = world.submitted("cohort-summary", &JOB.replace("sex", "age"));
    accepted(&world, &job);
    assert_eq!(moments(&world, &job), None, "nothing is written before its moment");
    world.kill_coordinator();
    world.start_coordinator();
    let status = world.ended(&job);
    let done = millis();
    assert_eq!(status["state"], "finished", "{status}");
    let (charged, leaves) = moments(&world, &job).unwrap();
    assert!(
        done >= leaves && leaves - charged >= 1_421 - 6 * 203,
        "charged at {charged}, to leave at {leaves}, known at {done}"
    );
    let budget = world.ok(&["site", "budget", "leiden"]);
    assert_eq!(
        (&budget[0]["jobs"][1]["rounds"], budget[0]["jobs"].as_array().unwrap().len()),
        (&Value::from(1), 2),
        "{budget}"
    );

    // The same question as the first job's, under another name and budgetless: the same numbers, at once, and nothing more is spent.
    let spent = budget[0]["spent_rho"].clone();
    let again = world.submitted("cohort-summary", JOB);
    assert_eq!(world.ended(&again)["state"], "finished");
    let numbers = |job: &str| world.job(&["result", job]).1["report"]["tables"].clone();
    let first = world.ok(&["site", "budget", "leiden"])[0]["jobs"][0]["job"].as_str().unwrap().to_owned();
    assert_eq!(numbers(&again), numbers(&first));
    assert_eq!(world.ok(&["site", "budget", "leiden"])[0]["spent_rho"], spent);
}

/// The deadline is long enough for a busy machine to say no in time.
#[test]
fn what_would_leave_after_its_deadline_is_refused_before_it_is_charged() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", &SLOW.replace("4_000.0", "188_235.0"));
    world.start_site("leiden");
    world.all_connected();
    let short = JOB.replace("[params]", "round_deadline_seconds = 60\n[params]");
    let status = world.ended(&world.submitted("cohort-summary", &short));
    let reason = &status["sites"][0]["reason"];
    assert_eq!(reason["code"], "release-too-late", "{status}");
    for says in ["up to 85 s", "fuel", "deadline is 60 s"] {
        assert!(reason["message"].as_str().unwrap().contains(says), "{reason}");
    }
    assert_eq!(world.ok(&["site", "budget", "leiden"]), Value::Array(vec![]));
    // Nor does it keep others waiting for longer than the site lets one, however late its own deadline is.
    world.kill_site("leiden");
    world.set_site("leiden", &format!("max_release_delay_seconds = 60\n{}", SLOW.replace("4_000.0", "188_235.0")));
    world.start_site("leiden");
    world.all_connected();
    let status = world.ended(&world.submitted("cohort-summary", JOB));
    let reason = &status["sites"][0]["reason"];
    assert_eq!(reason["code"], "release-too-slow", "{status}");
    assert!(reason["message"].as_str().unwrap().contains("60 s"), "{reason}");
    assert_eq!(world.ok(&["site", "budget", "leiden"]), Value::Array(vec![]));
}

/// Whether a cancelled round had ended in time to be stopped would tell how long it took, so it runs on as if nothing had been said.
#[test]
fn a_cancelled_job_tells_nothing_of_its_round() {
    let world = World::new(&["leiden"]);
    let slow = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[limits]\nfuel_per_partition = 100_000_000\nmemory_mib = 8\n\
        [params]\nhow = \"loop\"\n";
    let job = world.submitted("hostile", slow);
    accepted(&world, &job);
    assert_eq!(world.job(&["cancel", &job]).1["state"], "cancelled");
    wait("the site to know", || {
        let ended: bool =
            world.ledger("leiden").query_row("SELECT ended FROM job WHERE job = ?1", [&job], |row| row.get(0)).ok()?;
        ended.then_some(())
    });
    assert_eq!(moments(&world, &job), None, "the round was to run still");
    wait("the round's end", || moments(&world, &job));
    let sql = "SELECT json_extract(CAST(unseal('evidence', job || ' ' || round, evidence) AS TEXT), '$.code') FROM release WHERE job = ?1";
    let code: String = world.ledger("leiden").query_row(sql, [&job], |row| row.get(0)).unwrap();
    assert_eq!(code, "released");
}

#[test]
fn with_a_tick_it_leaves_on_the_tick() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", "release_tick_seconds = 2\n");
    world.start_site("leiden");
    world.all_connected();
    let job = world.submitted("cohort-summary", JOB);
    assert_eq!(world.ended(&job)["state"], "finished");
    let (_, leaves) = moments(&world, &job).unwrap();
    assert!(leaves % 2_000 == 0 && millis() >= leaves, "{leaves}");
    // Where the tick can come after the deadline, nothing is charged.
    let soon =
        world.submitted("cohort-summary", &JOB.replace("min_sites = 1\n", "min_sites = 1\nround_deadline_seconds = 1\n"));
    let status = world.ended(&soon);
    assert_eq!(status["sites"][0]["reason"]["code"], "release-too-late", "{status}");
    assert_eq!(moments(&world, &soon), None);
}

/// A daemon that is told to stop is gone by then, on a machine that does other things too. The
/// rounds below take longer.
const STOPPED: Duration = Duration::from_secs(5);

/// One round has ended and waits for its moment, 7 standard deviations of 2 s away; one is in the
/// middle, for minutes. A stop shows nothing of which, and neither does what follows: both run
/// again under the charge that they have.
#[test]
fn a_stop_shows_nothing_of_the_round_that_runs() {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", &SLOW.replace("4_000.0", "47_000.0"));
    world.start_site("leiden");
    world.all_connected();
    let long = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[limits]\nfuel_per_partition = 100_000_000\nmemory_mib = 8\n\
        [params]\nhow = \"loop\"\n";
    for (analysis, text, ended) in [("cohort-summary", JOB, true), ("hostile", long, false)] {
        let (_, site) = world.pids().into_iter().find(|(name, _)| name == "site leiden").unwrap();
        let job = world.submitted(analysis, text);
        accepted(&world, &job);
        if ended {
            wait("the round's end", || workers(site).is_empty().then_some(()));
        }
        let held = workers(site);
        assert_eq!(held.is_empty(), ended);
        let asked = Instant::now();
        world.stop_site("leiden");
        let took = asked.elapsed();
        assert!(took < STOPPED, "{analysis}: {took:?}");
        eprintln!("{analysis}: stopped after {took:?}");
        let there = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        wait("its workers' end", || (!held.iter().any(there)).then_some(()));
        assert!(asked.elapsed() < STOPPED, "workers outlived it");
        assert_eq!(moments(&world, &job), None, "{analysis}: nothing was written of it");

        let state = |world: &World| world.job(&["status", &job]).1["sites"][0]["state"].clone();
        wait("the coordinator to know", || (state(&world) != "accepted").then_some(()));
        world.start_site("leiden");
        accepted(&world, &job);
        if ended {
            let status = world.ended(&job);
            assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
            let (charged, leaves) = moments(&world, &job).unwrap();
            assert!(leaves - charged > 14_200 - 6 * 2_030, "{}", leaves - charged);
        } else {
            assert_eq!(world.job(&["cancel", &job]).1["state"], "cancelled");
        }
        let sql = "SELECT (SELECT COUNT(*) FROM charge WHERE job = ?1), (SELECT COUNT(*) FROM release WHERE job = ?1)";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?));
        let counts = world.ledger("leiden").query_row(sql, [&job], read).unwrap();
        assert_eq!(counts, (1, u32::from(ended)), "{analysis}");
        let log = world.ok(&["log", "verify", "leiden"]);
        assert_eq!(log["found"], Value::Array(vec![]), "{log}");
    }
}
