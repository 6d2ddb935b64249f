//! The second wall: what a worker process cannot do, and what becomes of a job whose worker lies or dies.

use std::path::PathBuf;
use std::time::Duration;

use vestibule_protocol::dictionary::{Column, Kind};
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Bound, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_sandbox::{Shape, Step, Swap, Value};
use vestibule_worker::{Importer, Launch, Rehearsals, Worker, WorkerError};

use crate::world::{BINARY, World, component, root, wait};

#[test]
fn every_wall_around_a_worker_holds() {
    let worker = Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    let walls = worker.walls();
    assert!(walls.tried.len() >= 9 && walls.tried.iter().all(|(_, held)| *held), "{walls:?}");
    if walls.landlock && walls.seccomp {
        assert_eq!(walls.gaps(), Vec::<String>::new());
    } else {
        eprintln!("this kernel lacks a wall: {:?}", walls.gaps());
    }
}

#[test]
fn every_wall_around_an_importer_holds() {
    let file = std::fs::File::open(root().join("cli/demo-data/leiden/genotypes.vcf.gz")).unwrap();
    let importer = Importer::start(&Launch::importer_of(BINARY.into()), [Some(file.into()), None]).unwrap();
    let walls = importer.walls();
    assert!(walls.tried.len() >= 9 && walls.tried.iter().all(|(_, held)| *held), "{walls:?}");
    if walls.landlock && walls.seccomp {
        assert_eq!(walls.gaps(), Vec::<String>::new());
    } else {
        eprintln!("this kernel lacks a wall: {:?}", walls.gaps());
    }
    // It waits to be told what to do, and holds what it was given: a socket, nothing, nothing, and the file, for reading.
    let id = importer.id();
    let held: Vec<String> = std::fs::read_dir(format!("/proc/{id}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    let mut files = held.iter().filter(|name| !name.starts_with("socket:") && *name != "/dev/null").peekable();
    assert!(files.peek().is_some() && files.all(|name| name.ends_with("genotypes.vcf.gz")), "{held:?}");
    let number = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().map(|entry| entry.unwrap());
    let number =
        number.into_iter().find(|entry| std::fs::read_link(entry.path()).unwrap().ends_with("genotypes.vcf.gz")).unwrap();
    let flags = std::fs::read_to_string(format!("/proc/{id}/fdinfo/{}", number.file_name().to_str().unwrap())).unwrap();
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
    assert_eq!(u32::from_str_radix(&flags, 8).unwrap() & 3, 0, "for reading only");
    assert!(std::fs::read(format!("/proc/{id}/environ")).unwrap().is_empty());
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("Threads:")), ("2".into(), "1".into(), "1".into()));
}

#[test]
fn an_importer_that_is_none_is_lost() {
    let lost = |script: &str| {
        let launch = Launch { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script.to_owned()] };
        matches!(Importer::start(&launch, [None, None]), Err(WorkerError::Lost))
    };
    assert!(lost("exit 0"));
    assert!(lost("printf 'rubbish, and more rubbish' >&0; exec cat <&0 >/dev/null"));
    assert!(lost(r"printf '\000\000\000\000\000\000\000\100' >&0; exec cat <&0 >/dev/null"));
}

fn round() -> Round {
    let statistics = vec![Statistic {
        name: "n".into(),
        length: 2,
        bound: Bound::Range { lower: 0.0, upper: 1.0 },
        weight: 1.0,
        source: Source::Given,
    }];
    Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: true }).unwrap()
}

/// A worker in whose place another program says these messages, whatever it is asked.
fn impostor(messages: &[&[u8]]) -> Launch {
    let frames: Vec<u8> = messages.iter().flat_map(|bytes| [&(bytes.len() as u64).to_le_bytes(), *bytes].concat()).collect();
    let escaped: String = frames.iter().map(|byte| format!("\\{byte:03o}")).collect();
    // Its standard input is the socket. It stays until that is closed.
    let script = format!("printf '{escaped}' >&0; exec cat <&0 >/dev/null");
    Launch { program: PathBuf::from("/bin/sh"), arguments: vec!["-c".to_owned(), script] }
}

#[test]
fn a_worker_that_lies_is_lost_and_moves_nothing() {
    let ready = [&[0, 64][..], &[b'0'; 64], &[1, 1, 0]].concat();
    let done: &[u8] = &[1];
    let lost = |launch: &Launch| matches!(Worker::start(launch), Err(WorkerError::Lost));
    assert!(lost(&Launch { program: "/bin/true".into(), arguments: vec![] }));
    assert!(lost(&impostor(&[b"rubbish"])));
    assert!(lost(&impostor(&[done])));
    assert!(matches!(
        Worker::start(&Launch { program: "/no/such/program".into(), arguments: vec![] }),
        Err(WorkerError::Start(_))
    ));
    // A plan where code was asked for; a code of refusal that nobody has; more contributions than there can be.
    let started = |messages: &[&[u8]]| Worker::start(&impostor(&[&[&ready[..]], messages].concat())).unwrap();
    assert!(matches!(started(&[&[3, 2, b'{', b'}']]).compile(b"component"), Err(WorkerError::Lost)));
    assert!(matches!(started(&[&[5, 1, b'x', 1, b'y']]).load(b"code", b"component"), Err(WorkerError::Lost)));
    let ran = |last: &[u8]| {
        let mut worker = started(&[done, &[9, 0], last]);
        worker.load(b"code", b"component").unwrap().unwrap();
        worker.rehearse(b"code", &round(), Limits::default(), (1, 1, 0), &Rehearsals::default()).unwrap().unwrap();
        worker.push(&[Value::Number(1.0)], &[]);
        worker.close();
        let mut seen = vec![];
        let mut standby = || Ok(started(&[]));
        let ran = worker.run(&mut standby, &mut |found| {
            seen.push(found.is_some());
            Ok::<_, WorkerError>(())
        });
        (ran.is_ok(), seen)
    };
    // Whatever it says there, one individual counts as nothing, and another worker goes on.
    for lie in [
        &[4, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[4, 0],
        done,
        &[6],
        b"a great deal more than the answer to a batch takes, which is not read to its end",
    ] {
        assert_eq!(ran(lie), (true, vec![false]), "{lie:?}");
    }
    // It wrote nothing: one partition that contributes nothing.
    assert_eq!(ran(&[4, 1]), (true, vec![false]));
}

/// How often a process had to be given a page: the tenth field of its `stat` (proc(5)).
fn page_faults(id: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
}

/// A worker that could not tell whether there is swap, since it asked behind its walls, gave all
/// pages back behind everybody, and built its engine anew: some hundred faults for each, and 60 times
/// the time.
#[test]
fn usual_individuals_find_their_pages_behind_the_walls_too() {
    const PEOPLE: u64 = 256;
    let start = || Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    let component = std::fs::read(component("cohort-summary")).unwrap();
    let code = start().compile(&component).unwrap().unwrap();
    let kind = Kind::Number { lower: 0.0, upper: 9.0 };
    let column = Column { name: "x".parse().unwrap(), about: String::new(), kind, unit: String::new(), sensitive: false };
    let shape = Shape { variants: vec![], columns: vec![column] };
    let mut worker = start();
    worker.load(&code, &component).unwrap().unwrap();
    let step = worker.next(r#"{"columns":["x"]}"#, (&shape, &[]), Limits::default()).unwrap().unwrap();
    let Step::Round(round) = step else { panic!("a round") };
    let baked = worker.bake(&round, Limits::default()).unwrap().unwrap();
    let mut rehearsals = Rehearsals::default();
    rehearsals.push(&[(vec![Value::Number(1.0)], vec![])]);
    let mut worker = start();
    worker.rehearse(&baked, &round, Limits::default(), (1, 1, 0), &rehearsals).unwrap().unwrap();
    let mut run = || {
        let before = page_faults(worker.id());
        for person in 0..PEOPLE {
            worker.push(&[Value::Number((person % 9) as f64)], &[]);
            worker.close();
        }
        let mut counted = 0;
        let ran = worker.run(&mut || panic!("nobody is late"), &mut |found| {
            counted += u64::from(found.is_some());
            Ok::<_, WorkerError>(())
        });
        ran.unwrap();
        assert_eq!(counted, PEOPLE);
        page_faults(worker.id()) - before
    };
    // What the process touches for the first time itself is nobody's.
    run();
    let faults = run();
    let most = match Swap::here() {
        Swap::Never => PEOPLE / 16,
        Swap::Possible => PEOPLE * 50,
    };
    assert!(faults <= most, "{faults} page faults for {PEOPLE} individuals, at most {most}");
}

#[test]
fn hostile_bytes_are_refused_by_a_worker_as_by_the_sandbox() {
    let start = || Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    assert_eq!(start().compile(b"\0asm rubbish").unwrap().unwrap_err().code, "component-unreadable");
    let component = std::fs::read(component("cohort-summary")).unwrap();
    let code = start().compile(&component).unwrap().unwrap();
    let mut worker = start();
    assert!(worker.load(&code[..code.len() / 2], &component).unwrap().is_err());
    worker.load(&code, &component).unwrap().unwrap();
    let refusal = worker.plan("{}", Limits::default()).unwrap().unwrap_err();
    assert_eq!(refusal.code, "analysis-refused");
    assert!(refusal.message.contains("columns"), "{}", refusal.message);
}

/// The worker processes of a site.
pub(crate) fn workers(site: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid| parent(*pid) == Some(site)).collect()
}

/// A batch of these takes half a minute, in which a worker neither reads nor writes.
#[test]
fn workers_end_with_a_daemon_that_is_killed_and_not_with_what_all_of_a_service_are_told() {
    let mut world = World::new(&["leiden"]);
    let (_, site) = world.pids().into_iter().find(|(name, _)| name == "site leiden").unwrap();
    let slow = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[limits]\nfuel_per_partition = 100_000_000\nmemory_mib = 64\n\
        [params]\nhow = \"loop\"\n";
    let job = world.submitted("hostile", slow);
    let accepted = |site: &serde_json::Value| site["state"] == "accepted";
    wait("the round to run", || world.job(&["status", &job]).1["sites"].as_array()?.iter().all(accepted).then_some(()));
    // One that computes, for a while already: it uses a processor.
    let busy = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok().filter(|ticks: &u64| *ticks > 100)
    };
    wait("a worker that computes", || workers(site).iter().find_map(busy));
    let held = workers(site);
    for signal in ["-TERM", "-INT", "-HUP"] {
        let pids = held.iter().map(u32::to_string);
        assert!(std::process::Command::new("kill").arg(signal).args(pids).status().unwrap().success());
    }
    let there = |pid: &&u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert_eq!(held.iter().filter(there).count(), held.len(), "a worker heard what was for the daemon");
    let killed = std::time::Instant::now();
    world.kill_site("leiden");
    wait("its workers' end", || (held.iter().filter(there).count() == 0).then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
}

#[test]
fn a_worker_that_dies_costs_the_individual_that_it_was_at_and_nothing_else() {
    let world = World::new(&["leiden"]);
    let (_, site) = world.pids().into_iter().find(|(name, _)| name == "site leiden").unwrap();
    assert_eq!(workers(site), Vec::<u32>::new(), "an idle site has no workers");
    // Every man loops until his fuel is gone: long enough to be met at it.
    let slow = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[limits]\nfuel_per_partition = 100_000_000\nmemory_mib = 64\n\
        [params]\nhow = \"loop\"\n";
    let job = world.submitted("hostile", slow);
    let accepted = |site: &serde_json::Value| site["state"] == "accepted";
    wait("the round to run", || world.job(&["status", &job]).1["sites"].as_array()?.iter().all(accepted).then_some(()));
    // One whose walls are up: before that it knows nothing.
    let confined = |worker: &u32| {
        std::fs::read_to_string(format!("/proc/{worker}/status")).is_ok_and(|status| status.contains("\nSeccomp:\t2\n"))
    };
    let worker = wait("a worker", || workers(site).into_iter().find(confined));
    // What it holds is what it was given: a socket, a memory file, nothing; and what its engine opened before the walls went up.
    let held: Vec<String> = std::fs::read_dir(format!("/proc/{worker}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    let allowed = |name: &String| {
        ["socket:", "/memfd:", "/dev/null"].iter().any(|known| name.starts_with(known))
            || name.ends_with("/pagemap")
            || name.ends_with("/maps")
    };
    assert!(held.iter().all(allowed) && held.iter().filter(|name| name.starts_with("socket:")).count() <= 2, "{held:?}");
    assert!(std::fs::read(format!("/proc/{worker}/environ")).unwrap().is_empty());
    let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("Seccomp:"), field("NoNewPrivs:"), field("Threads:")), ("2".into(), "1".into(), "1".into()));
    std::process::Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap();
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "another went on: {status}");
    wait("the other workers' end", || workers(site).is_empty().then_some(()));
    // The budget is spent once; the site goes on.
    let budget = world.ok(&["site", "budget", "leiden"]);
    assert!((budget[0]["spent_epsilon"].as_f64().unwrap() - 1.0).abs() < 0.01, "{budget}");
    let summary = "epsilon = 1.0\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
    assert_eq!(world.ended(&world.submitted("cohort-summary", summary))["state"], "finished");
}

/// What sees nobody's data has a limit of its own: a worker that says nothing until then is ended, and is asked nothing more.
#[test]
fn a_worker_that_is_silent_before_any_data_is_ended_when_its_time_is_over() {
    let ready = [&[0, 64][..], &[b'0'; 64], &[1, 1, 0]].concat();
    let silent = |messages: &[&[u8]]| {
        let mut worker = Worker::start(&impostor(&[&[&ready[..]], messages].concat())).unwrap();
        worker.allow(Duration::from_millis(200));
        worker
    };
    let limits = Limits::default();
    let code = |answer: Result<(), WorkerError>| answer.unwrap_err().code();
    let mut worker = silent(&[]);
    assert_eq!(code(worker.compile(b"component").map(|_| ())), "analysis-too-slow");
    assert_eq!(code(worker.plan("{}", limits).map(|_| ())), "worker-lost");
    let done: &[u8] = &[1];
    let mut worker = silent(&[done]);
    assert!(worker.load(b"code", b"component").unwrap().is_ok(), "it answered in time");
    assert!(worker.is_alive());
    let error = worker.plan("{}", limits).unwrap_err();
    assert!(matches!(error, WorkerError::TooSlow { call: "`plan`", seconds: 0 }), "{error}");
    let shape = Shape { variants: vec![], columns: vec![] };
    assert_eq!(code(silent(&[]).next("{}", (&shape, &[]), limits).map(|_| ())), "analysis-too-slow");
    assert_eq!(code(silent(&[]).bake(&round(), limits).map(|_| ())), "analysis-too-slow");
    assert_eq!(code(silent(&[]).inspect(b"component").map(|_| ())), "analysis-too-slow");
    // A step that no guest may say: a report of more than there may be, a round without statistics.
    let said = |json: &str| {
        let length = u8::try_from(json.len()).unwrap();
        let message = [&[8, length][..], json.as_bytes()].concat();
        silent(&[&message]).next("{}", (&shape, &[]), limits)
    };
    assert!(said(r#"{"Report":{"summary":"s","tables":[],"charts":[]}}"#).unwrap().is_ok());
    assert!(matches!(
        said(r#"{"Report":{"summary":"s","tables":[],"charts":[{"title":"t","spec":"no"}]}}"#),
        Err(WorkerError::Lost)
    ));
    assert!(matches!(
        said(r#"{"Round":{"statistics":[],"budget_share":1,"state":[],"dosages":true}}"#),
        Err(WorkerError::Lost)
    ));
}

#[test]
fn a_worker_that_works_beside_rounds_lets_them_go_first() {
    let worker = Worker::start(&Launch::of(BINARY.into(), 64)).unwrap();
    let nice = || {
        let id: String = format!("{worker:?}").chars().filter(char::is_ascii_digit).collect();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // Behind the name, which is in brackets: the nineteenth field is the seventeenth.
        stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse::<i32>().unwrap()
    };
    let before = nice();
    worker.step_back();
    assert_eq!(nice(), before + 5);
}
