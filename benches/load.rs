//! Many jobs at once: `cargo speed -- load JOBS RESEARCHERS SITES`. All are submitted, then the coordinator is killed and started
//! again; every job must end as finished at every site, and every charge must have its release.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::row;
use super::world::{World, component, run};

/// Sites of the demo: further ones have the same people again.
const SITES: [&str; 5] = ["leiden", "kyoto", "pune", "bogota", "accra"];
/// What is asked about: of more than two hundred alike, a person would look at the next.
const COLUMNS: [&[&str]; 7] =
    [&["age"], &["sex"], &["trait"], &["age", "sex"], &["age", "trait"], &["sex", "trait"], &["age", "sex", "trait"]];
/// How long it may take until the next job ends.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn load(jobs: usize, researchers: usize, sites: usize) {
    let names: Vec<String> =
        (0..sites)
            .map(|n| {
                if n < SITES.len() { SITES[n].to_owned() } else { format!("{}{}", SITES[n % SITES.len()], n / SITES.len() + 1) }
            })
            .collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let people: Vec<String> = (0..researchers).map(|n| format!("r{n}")).collect();
    join(&world, &people, &names);
    std::fs::copy(component("cohort-summary"), world.dir().join("cohort-summary.wasm")).unwrap();

    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for person in &people {
            let (world, next, names) = (&world, &next, &names);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= jobs {
                        return;
                    }
                    submit(world, person, number, names);
                }
            });
        }
    });
    row(&format!("{jobs} jobs of {researchers} researchers submitted"), format!("{:.1} s", began.elapsed().as_secs_f64()));
    let before = most_memory(&world);
    world.kill_coordinator();
    world.start_coordinator();
    let mut left = (jobs, Instant::now());
    while left.0 > 0 {
        // Asking is a process for each researcher.
        std::thread::sleep(Duration::from_secs(5));
        let running =
            people.iter().map(|person| states(&world, person).iter().filter(|state| *state == "running").count()).sum();
        if running < left.0 {
            left = (running, Instant::now());
        }
        assert!(left.1.elapsed() < PATIENCE, "{running} jobs do not end\n{}", world.log());
    }
    let seconds = began.elapsed().as_secs_f64();
    row(
        &format!("and over {sites} sites, with a coordinator that was killed in between: all finished"),
        format!("{seconds:.1} s: {:.1} rounds a second", (jobs * sites) as f64 / seconds),
    );
    row(
        "most memory of the coordinator, before it was killed and after",
        format!("{before:.0} MB, {:.0} MB", most_memory(&world)),
    );
    let ended: Vec<String> = people.iter().flat_map(|person| states(&world, person)).collect();
    assert!(ended.len() == jobs && ended.iter().all(|state| state == "finished"), "{ended:?}");
    for site in &names {
        let ledger = world.ledger(site);
        let count = |table: &str| {
            ledger.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap() as usize
        };
        assert_eq!((count("charge"), count("departure")), (jobs, jobs), "{site}");
    }
}

/// Researchers, each with a project that all sites accept: of one with more than a hundred releases, a person would look at the next.
fn join(world: &World, people: &[String], sites: &[String]) {
    for person in people {
        let key = format!("{person}.pem");
        world.ok(&["key", "new", &key]);
        let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", person]);
        let token = token["token"].as_str().unwrap();
        world.ok(&["researcher", "join", token, "--key", &key, "--organisation", "test", "--country", "NL"]);
    }
    world.issue();
    let project = std::fs::read_to_string(world.dir().join("project.toml")).unwrap();
    let lead = world.key("ada").public().to_string();
    for person in people {
        let members = [lead.clone(), world.key(person).public().to_string()];
        let text = project.replace(&format!("members = [{lead:?}]"), &format!("members = {members:?}"));
        let file = format!("{person}.toml");
        std::fs::write(world.dir().join(&file), text.replace("project = \"project\"", &format!("project = {person:?}")))
            .unwrap();
        world.ok(&["charter", "sign", &file, "--key", "ada.pem"]);
        for site in sites {
            world.ok(&["site", "charter", "accept", site, &format!("{person}.json")]);
        }
    }
}

/// Each asks for an amount of its own: the same question would be answered from the ledger.
fn submit(world: &World, person: &str, number: usize, sites: &[String]) {
    let text = format!(
        "charter = \"{person}.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"cohort\"\nepsilon = {:.6}\ndelta = 1e-9\n\
         sites = {sites:?}\nmin_sites = {}\n[limits]\nfuel_per_partition = 100_000\nmemory_mib = 4\n[params]\ncolumns = {:?}\n",
        0.01 + 1e-6 * number as f64,
        sites.len(),
        COLUMNS[number % COLUMNS.len()],
    );
    let file = format!("job-{number}.toml");
    std::fs::write(world.dir().join(&file), text).unwrap();
    let key = format!("{person}.pem");
    let output = run(world.dir(), &["--json", "job", "submit", &file, "--key", &key, "--coordinator", &world.api()]);
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), world.log());
}

fn states(world: &World, person: &str) -> Vec<String> {
    let key = format!("{person}.pem");
    let jobs = world.ok(&["job", "list", "--key", &key, "--coordinator", &world.api()]);
    jobs.as_array().unwrap().iter().map(|job: &Value| job["state"].as_str().unwrap().to_owned()).collect()
}

/// The most memory that the coordinator had so far, in MB: `VmHWM` of proc(5).
fn most_memory(world: &World) -> f64 {
    let (_, pid) = world.pids().into_iter().find(|(name, _)| name == "coordinator").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}
