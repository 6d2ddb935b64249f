//! Many jobs at once, and many that wait for a person: others go on, and nothing is charged in vain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{World, component, run, wait};

const SITES: [&str; 3] = ["leiden", "kyoto", "pune"];
/// Jobs of one researcher, submitted at once.
const JOBS: usize = 60;
/// Jobs that wait for a person: more than a connection has streams.
const HELD: usize = 70;
/// A bundle is at every connected site by then, whatever else waits there.
const BUNDLE: Duration = Duration::from_secs(5);

/// Submits so many small jobs, each of which asks for an amount of its own.
fn submit(world: &World, (count, sites, from): (usize, &str, usize), more: &str) -> Vec<Value> {
    let wasm = world.dir().join("cohort-summary.wasm");
    if !wasm.exists() {
        std::fs::copy(component("cohort-summary"), wasm).unwrap();
    }
    let (next, done) = (AtomicUsize::new(0), std::sync::Mutex::new(vec![]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let epsilon = 0.01 + 1e-4 * (from + number) as f64;
                    let file = format!("many-{}.toml", from + number);
                    let text = format!(
                        "charter = \"project.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"cohort\"\n\
                         epsilon = {epsilon:.4}\ndelta = 1e-9\nsites = {sites}\n{more}\n\
                         [limits]\nfuel_per_partition = 100_000\nmemory_mib = 4\n[params]\ncolumns = [\"age\"]\n"
                    );
                    std::fs::write(world.dir().join(&file), text).unwrap();
                    let (code, document) = world.job(&["submit", &file]);
                    assert_eq!(code, 0, "{document}\n{}", world.log());
                    done.lock().unwrap().push(document["job"].clone());
                }
            });
        }
    });
    done.into_inner().unwrap()
}

fn states(world: &World) -> Vec<String> {
    let (_, jobs) = world.job(&["list"]);
    jobs.as_array().unwrap().iter().map(|job| job["state"].as_str().unwrap().to_owned()).collect()
}

/// More jobs than a connection has streams, and a coordinator that is killed in between: all finish, with every site, and each charge has
/// its release.
#[test]
fn many_jobs_at_once_all_finish_at_every_site() {
    let mut world = World::new(&SITES);
    let began = Instant::now();
    let sites = format!("{SITES:?}");
    let jobs = submit(&world, (JOBS, &sites, 0), "min_sites = 3");
    world.kill_coordinator();
    world.start_coordinator();
    wait("the jobs' ends", || {
        let states = states(&world);
        (states.len() == JOBS && states.iter().all(|state| state != "running")).then_some(())
    });
    eprintln!("{JOBS} jobs over {} sites: {:.1} s", SITES.len(), began.elapsed().as_secs_f64());
    for job in jobs {
        let (_, status) = world.job(&["status", job.as_str().unwrap()]);
        assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
        let released = |site: &Value| site["state"] == "released";
        assert!(status["sites"].as_array().unwrap().iter().all(released), "{status}");
    }
    for site in SITES {
        let ledger = world.ledger(site);
        let count =
            |table: &str| -> i64 { ledger.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap() };
        assert_eq!((count("charge"), count("departure")), (JOBS as i64, JOBS as i64), "{site}");
    }
}

/// Jobs that wait for a person have no stream and no place: another's job goes on, and so does news; nobody holds more than may be held.
#[test]
fn jobs_that_wait_for_a_person_keep_nobody_waiting() {
    let mut world = World::new(&["leiden", "kyoto"]);
    world.approver("eva", "test");
    world.issue();
    let recipe = world.dir().join("leiden-source/DATASET.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let second = text.replacen("\"DUO:0000042\"", "\"DUO:0000042\", \"DUO:0000026\"", 1);
    std::fs::write(&recipe, second.replacen("name = \"cohort\"", "name = \"held\"", 1)).unwrap();
    world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
    world.stop_site("leiden");
    world.set_site("leiden", &format!("max_held_per_researcher = {HELD}\nmax_held_per_charter = 100\n"));
    world.start_site("leiden");
    world.all_connected();
    // All of these are for people to look at.
    world.charter("held", "epsilon = 50.0", &["leiden", "kyoto"]);
    let text = std::fs::read_to_string(world.dir().join("held.toml")).unwrap();
    std::fs::write(world.dir().join("held.toml"), text.replace("[\"cohort\"]", "[\"held\"]")).unwrap();
    world.ok(&["charter", "sign", "held.toml", "--key", "ada.pem"]);
    world.ok(&["site", "charter", "accept", "leiden", "held.json"]);
    std::fs::copy(component("cohort-summary"), world.dir().join("cohort-summary.wasm")).unwrap();
    let ask = |number: usize| {
        let epsilon = 0.01 + 1e-4 * number as f64;
        let text = format!(
            "charter = \"held.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"held\"\nepsilon = {epsilon:.4}\n\
             delta = 1e-9\nsites = [\"leiden\"]\nmin_sites = 1\nround_deadline_seconds = 86400\n\
             [params]\ncolumns = [\"age\"]\n"
        );
        std::fs::write(world.dir().join("held-job.toml"), text).unwrap();
        let (code, document) = world.job(&["submit", "held-job.toml"]);
        assert_eq!(code, 0, "{document}\n{}", world.log());
        document["job"].as_str().unwrap().to_owned()
    };
    let held: Vec<String> = (0..HELD).map(ask).collect();
    let queue = || world.ok(&["site", "queue", "leiden"]).as_array().unwrap().clone();
    wait("the queue", || (queue().len() == HELD).then_some(()));
    // One more than may wait.
    let status = world.ended(&ask(HELD));
    assert_eq!(status["sites"][0]["reason"]["code"], "too-many-held", "{status}");

    // Another's job, and news.
    let sites = "[\"leiden\", \"kyoto\"]";
    for job in submit(&world, (1, sites, 0), "min_sites = 2") {
        assert_eq!(world.ended(job.as_str().unwrap())["state"], "finished", "{}", world.log());
    }
    let bundles = |site: &str| {
        let lines = world.ok(&["log", "show", site]);
        lines.as_array().unwrap().iter().filter(|line| line["leaf"]["event"]["kind"] == "trust").count()
    };
    let before = [bundles("leiden"), bundles("kyoto")];
    world.approver("max", "test");
    world.issue();
    let began = Instant::now();
    wait("the bundle", || (bundles("leiden") > before[0] && bundles("kyoto") > before[1]).then_some(()));
    assert!(began.elapsed() < BUNDLE, "{:?}", began.elapsed());

    // A word about one of them lets that one go on, and no other; one that is cancelled leaves the queue.
    let number = queue()[0]["number"].to_string();
    let job = queue()[0]["about"]["job"].as_str().unwrap().to_owned();
    world.ok(&["site", "approve", "leiden", &number, "--key", "eva.pem", "--why", "looked at it"]);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    assert_eq!(queue().len(), HELD - 1);
    let other = held.iter().find(|other| **other != job).unwrap();
    assert_eq!(world.job(&["cancel", other]).0, 0);
    wait("it leaves the queue", || (queue().len() == HELD - 2).then_some(()));
    let still = world.job(&["status", held.last().unwrap()]).1;
    assert_eq!(still["sites"][0]["state"], "held", "{still}");
    // A component that a person has looked at lets all of its jobs go on.
    let number = queue()[0]["number"].to_string();
    let said =
        run(world.dir(), &["site", "approve", "leiden", &number, "--component", "--key", "eva.pem", "--why", "looked at it"]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
