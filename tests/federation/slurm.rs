//! Rounds on a real Slurm, one node with two processors, started for each test.

pub(crate) mod cluster;
pub(crate) mod round;

use std::time::{Duration, Instant};

use serde_json::Value;
use vestibule_protocol::key::SecretKey;
use vestibule_runtime::trial;

use crate::world::{BINARY, World, wait};
use cluster::Cluster;
use round::{AN_HOUR, Laid, no_time};

/// `[executor]` of a site whose rounds run there.
fn settings(cluster: &Cluster, more: &str) -> String {
    let (folder, configuration) = (cluster.shared(), cluster.configuration());
    format!(
        "[executor]\nkind = \"slurm\"\nfolder = {folder:?}\nconfiguration = {configuration:?}\ntasks = 2\npoll_seconds = 1\n{more}"
    )
}

/// Each of its tasks waits for 8 s, give or take a few: 8 standard deviations of noise that hides 50 ms at a rho of 0.00121.
const SLOW: &str = "[slowest]\nassume_for_tests = true\nrow_us = 23_500.0\n";
const JOB: &str = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";

fn world(settings: &str) -> World {
    let mut world = World::new(&["leiden"]);
    world.kill_site("leiden");
    world.set_site("leiden", settings);
    world.start_site("leiden");
    world.all_connected();
    world
}

fn charges(world: &World, job: &str) -> i64 {
    let ledger = rusqlite::Connection::open(world.dir().join("leiden/ledger.sqlite")).unwrap();
    ledger.query_row("SELECT COUNT(*) FROM charge WHERE job = ?1", [job], |row| row.get(0)).unwrap()
}

#[test]
fn tasks_have_the_sums_that_threads_have_also_where_some_were_killed() {
    let Some(cluster) = Cluster::start() else { return };
    let laid = Laid::new();
    let threads = laid.threads(2);
    let slurm = || laid.slurm(&cluster);
    for kind in round::KINDS {
        let round = laid.round(kind);
        let exact = trial::exact_by(&*threads, round.work(&laid, no_time())).unwrap();
        assert!(exact.iter().flatten().any(|sum| *sum != 0.0), "{kind:?}");
        assert_eq!(trial::exact_by(&*slurm(), round.work(&laid, no_time())).unwrap(), exact, "{kind:?}");
        cluster.empty();
    }
    // Killed while they run: one by the cluster, which runs it again itself; one for good, which is submitted again.
    let round = laid.round(round::Kind::Given);
    let exact = trial::exact_by(&*threads, round.work(&laid, no_time())).unwrap();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| trial::exact_by(&*slurm(), round.work(&laid, round::some_seconds())).unwrap());
        let id = cluster.running(0);
        cluster.command("scontrol", &["requeue", &format!("{id}_0")]).unwrap();
        let id = cluster.running(1);
        cluster.command("scancel", &[&format!("{id}_1")]).unwrap();
        let again = wait("the lost task to be submitted again", || {
            cluster.queue().into_iter().find(|(other, task, ..)| *task == 1 && *other != id)
        });
        assert_ne!(again.0, id);
        assert_eq!(running.join().unwrap(), exact);
    });
    cluster.empty();
    // Killed each time: the round fails, and leaves nothing.
    std::thread::scope(|scope| {
        let running = scope.spawn(|| trial::exact_by(&*laid.slurm_once(&cluster), round.work(&laid, round::some_seconds())));
        let id = cluster.running(1);
        cluster.command("scancel", &[&format!("{id}_1")]).unwrap();
        assert_eq!(running.join().unwrap().unwrap_err().code(), "executor-fault");
    });
    cluster.empty();
    // Before anything is charged: what could take longer than the site lets tasks take; more than any node has.
    let round = laid.round(round::Kind::Given);
    let refused = |costs| slurm().check(&round.work(&laid, costs).ask).unwrap_err();
    assert_eq!(refused(AN_HOUR).code(), "round-too-long");
    let refused = laid.slurm_of(&cluster, "cpus_per_task = 64\n").check(&round.work(&laid, no_time()).ask).unwrap_err();
    assert_eq!(refused.code(), "cluster-refused", "{refused}");
}

/// All memory of a process that can be read.
fn memory(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" r") && !line.contains("[v")) {
        let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let mut part = vec![0; usize::try_from(number(end) - number(start)).unwrap()];
        if file.read_exact_at(&mut part, number(start)).is_ok() {
            all.append(&mut part);
        }
    }
    all
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    let (first, rest) = part.split_first().unwrap();
    let mut at = 0;
    while let Some(found) = all[at..].iter().position(|byte| byte == first) {
        at += found + 1;
        if all[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// The processes of a program with these words on its command line.
fn processes(words: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let said =
        |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    all.filter(|pid| said(pid).is_ok_and(|line| line.contains(words))).collect()
}

#[test]
fn a_sites_job_runs_on_slurm_and_no_node_has_a_key_of_the_site() {
    let Some(cluster) = Cluster::start() else { return };
    let world = world(&settings(&cluster, SLOW));
    let job = world.submitted("cohort-summary", JOB);
    let (.., name) = wait("a task to run", || cluster.queue().into_iter().find(|(.., state, _)| state == "RUNNING"));
    let folder = cluster.shared().join(&name);
    let task = wait("its process", || processes(&format!("{BINARY} task {}", folder.display())).first().copied());
    // It has read its rows, and waits.
    let key = std::fs::read(folder.join("key")).unwrap();
    let all = wait("it to know the round's key", || Some(memory(task)).filter(|all| contains(all, &key)));
    for file in ["link", "store", "log", "witness"] {
        let pem = std::fs::read_to_string(world.dir().join(format!("leiden/keys/{file}.pem"))).unwrap();
        let key = SecretKey::from_pem(&pem, None).unwrap();
        assert!(!contains(&all, key.seed().as_slice()), "a node has keys/{file}.pem");
        let body = pem.lines().nth(1).unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!contains(&bytes, key.seed().as_slice()) && !contains(&bytes, body.as_bytes()), "{file}");
        }
    }
    // Names and environment say nothing of whose data or which project it is.
    let environment = std::fs::read(format!("/proc/{task}/environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment).replace('\0', "\n");
    // What Slurm itself says, and whose process it is; nothing of the daemon's, which has VESTIBULE_LOG.
    let known = [
        "PATH",
        "PWD",
        "ENVIRONMENT",
        "HOSTNAME",
        "TMPDIR",
        "SHLVL",
        "OLDPWD",
        "USER",
        "HOME",
        "LOGNAME",
        "SHELL",
        "MAIL",
        "_",
    ];
    let known = |line: &str| line.split_once('=').is_some_and(|(name, _)| known.contains(&name) || name.starts_with("SLURM"));
    assert!(environment.lines().all(known), "{environment}");
    let shown = cluster.command("scontrol", &["show", "job"]).unwrap();
    for word in ["leiden", "cohort", "project", "ada"] {
        assert!(!shown.contains(word) && !environment.contains(word), "{word}: {shown}");
    }
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    cluster.empty();
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!((&log["whole"], &log["releases"]), (&true.into(), &1.into()), "{log}");
}

#[test]
fn a_daemon_that_is_killed_or_stopped_leaves_no_task_behind_and_its_round_runs_again_under_the_same_charge() {
    let Some(cluster) = Cluster::start() else { return };
    let mut world = world(&settings(&cluster, SLOW));
    let job = world.submitted("cohort-summary", JOB);
    let killed = cluster.running(0);
    world.kill_site("leiden");
    assert!(cluster.queue().iter().any(|(id, ..)| *id == killed), "a killed daemon cannot end its tasks");
    world.start_site("leiden");
    let again = wait("the round to run again", || {
        let queue = cluster.queue();
        let again = queue.iter().find(|(id, ..)| *id != killed)?.0.clone();
        queue.iter().all(|(id, _, state, _)| *id != killed || state == "COMPLETING").then_some(again)
    });
    // Stopped: it takes its tasks back at once.
    assert_eq!(cluster.running(0), again);
    let begun = Instant::now();
    world.stop_site("leiden");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    cluster.empty();
    world.start_site("leiden");
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    cluster.empty();
    assert_eq!(charges(&world, &job), 1);
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!((&log["whole"], &log["releases"]), (&true.into(), &1.into()), "{log}");
    // A partition that is not there: refused before anything is charged, and the reason is the site's own to see.
    world.stop_site("leiden");
    world.set_site("leiden", &settings(&cluster, &format!("partition = \"nowhere\"\n{SLOW}")));
    world.start_site("leiden");
    world.all_connected();
    let status = world.ended(&world.submitted("cohort-summary", &JOB.replace("sex", "age")));
    assert_eq!(status["sites"][0]["reason"]["code"], "site-fault", "{status}");
    assert!(world.log().contains("nvalid partition"), "{}", world.log());
    let budget: Value = world.ok(&["site", "budget", "leiden"]);
    assert_eq!(budget[0]["jobs"].as_array().unwrap().len(), 1, "{budget}");
}
