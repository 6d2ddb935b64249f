//! A site's backup: made while jobs run, of no use without the keys, and no way to spend anything twice.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::world::{World, wait};

const JOB: &str = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"leiden\"]\nmin_sites = 1\ntitle = \"Curious Quokka\"\n[params]\n";

/// Every file below `dir`, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push((entry.path(), std::fs::read(entry.path()).unwrap()));
            }
        }
    }
    found
}

/// Where `text` lies open in `dir`.
fn holders(dir: &Path, text: &str) -> Vec<PathBuf> {
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    files(dir).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(path, _)| path).collect()
}

fn asking(world: &World, columns: &str) -> String {
    world.submitted("cohort-summary", &format!("{JOB}columns = {columns}\n"))
}

#[test]
fn a_backup_says_nothing_without_the_keys_and_is_found_out_when_it_is_restored() {
    let mut world = World::new(&["kyoto", "leiden"]);
    world.approver("eva", "test");
    world.issue();
    let first = asking(&world, "[\"age\"]");
    assert_eq!(world.ended(&first)["state"], "finished", "{}", world.log());
    // Something waits for a person, and was decided, with a reason.
    world.ok(&["site", "charter", "accept", "leiden", "project.json", "--review"]);
    let second = asking(&world, "[\"sex\"]");
    wait("the site's word that it waits", || (world.job(&["status", &second]).1["sites"][0]["state"] == "held").then_some(()));
    let queue = world.ok(&["site", "queue", "leiden"]);
    let number = queue[0]["number"].to_string();
    let deny = ["site", "deny", "leiden", &number, "--key", "eva.pem", "--why", "Perfidious Pangolin"];
    world.ok(&deny);
    assert_eq!(world.ended(&second)["sites"][0]["reason"]["code"], "no-release");
    let third = asking(&world, "[\"trait\"]");
    wait("the site's word that it waits", || (world.job(&["status", &third]).1["sites"][0]["state"] == "held").then_some(()));

    // The daemon runs.
    let done = world.ok(&["site", "backup", "leiden", "backup"]);
    assert!(done["files"].as_u64().unwrap() > 10, "{done}");
    let (code, again) = world.json(&["site", "backup", "leiden", "backup"]);
    assert!(code != 0 && again["error"]["code"] == "site-io", "{again}");
    let (site, backup) = (world.dir().join("leiden"), world.dir().join("backup"));
    assert!(!backup.join("keys").exists() && !world.dir().join("backup.part").exists());
    let released = queue[0]["release"]["statistics"][0]["steps"].to_string();
    let (_, result) = world.job(&["result", &first]);
    assert_eq!(result["proven"]["releases"], 1, "{result}");
    for secret in
        ["Curious Quokka", "Perfidious Pangolin", "\"steps\"", &released, "\"charged_rho_pico\"", "\"ada\"", "\"eva\""]
    {
        let open = holders(&backup, secret);
        // Who is who in the consortium, all its members know.
        let open: Vec<_> = open.iter().filter(|path| path.parent() != Some(&backup.join("trust"))).collect();
        assert!(open.is_empty(), "{secret}: {open:?}");
    }
    assert!(!holders(world.dir(), "Curious Quokka").is_empty(), "the search finds what is there");

    // Anyone who has no keys can verify all but what is sealed, and reads what is public.
    let log = world.ok(&["log", "verify", "backup"]);
    assert!(log["whole"] == true && log["sealed"].as_u64().unwrap() > 5 && log["witnessed"].as_u64().unwrap() > 5, "{log}");
    let report = world.ok(&["log", "report", "backup"]);
    assert_eq!((&report["projects"][0]["jobs"][0]["title"], &report["projects"][0]["name"]), (&Value::Null, &json!("project")));
    // Anyone who has them, everything.
    let log = world.ok(&["log", "verify", "backup", "--keys", "leiden/keys"]);
    assert_eq!((&log["whole"], &log["sealed"]), (&json!(true), &json!(0)), "{log}");
    let report = world.ok(&["log", "report", "backup", "--keys", "leiden/keys"]);
    assert_eq!(report["projects"][0]["jobs"][0]["title"], "Curious Quokka");
    let (code, other) = world.json(&["log", "verify", "backup", "--keys", "kyoto/keys"]);
    assert!(code != 0 && other["error"]["code"] == "data-key", "{other}");

    // The site goes on, and is lost; the copy that is restored, with keys from elsewhere, has forgotten it.
    let number = world.ok(&["site", "queue", "leiden"])[0]["number"].to_string();
    world.ok(&["site", "approve", "leiden", &number, "--key", "eva.pem", "--why", "fine"]);
    assert_eq!(world.ended(&third)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    let lost = world.dir().join("lost");
    std::fs::rename(&site, &lost).unwrap();
    // A copy is no site; it becomes one with the keys, if it is what it was.
    let (code, copy) = world.json(&["site", "budget", "backup"]);
    assert!(code != 0 && copy["error"]["code"] == "site-backup", "{copy}");
    let toml = backup.join("site.toml");
    let kept = std::fs::read(&toml).unwrap();
    std::fs::write(&toml, [kept.as_slice(), b"max_epsilon_per_job = 100.0\n"].concat()).unwrap();
    let restore = ["site", "restore", "backup", "leiden", "--keys", "lost/keys"];
    let (code, changed) = world.json(&restore);
    assert!(code != 0 && changed["error"]["code"] == "backup-changed" && !site.exists(), "{changed}");
    std::fs::write(&toml, kept).unwrap();
    world.ok(&restore);
    world.start_site("leiden");
    world.all_connected();
    let fourth = asking(&world, "[\"trait\", \"age\"]");
    assert_eq!(world.ended(&fourth)["sites"][0]["reason"]["code"], "site-frozen", "{}", world.log());
    world.stop_site("leiden");
    let shown = std::fs::read_to_string(site.join("frozen.note")).unwrap();
    let done = world.ok(&["site", "recover", "leiden"]);
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
    let file = world.dir().join("consortium/consortium.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let origin = shown.split('\n').next().unwrap();
    std::fs::write(&file, text.replace(origin, done["log_origin"].as_str().unwrap())).unwrap();
    world.issue();
    world.ok(&["site", "budget", "leiden"]);
    world.start_site("leiden");
    world.all_connected();
    wait("the site to be a member again", || {
        let known = world.ok(&["log", "show", "leiden", "--last", "8"]);
        known.as_array().unwrap().iter().any(|line| line["leaf"]["event"]["kind"] == "trust").then_some(())
    });
}

#[test]
fn a_backup_is_whole_or_not_there() {
    let world = World::new(&["leiden"]);
    // A dataset that is being ingested: the backup would be of half of it.
    let lock = std::fs::File::options().write(true).open(world.dir().join("leiden/data/cohort/lock")).unwrap();
    lock.lock().unwrap();
    let (code, busy) = world.json(&["site", "backup", "leiden", "backup"]);
    assert!(code != 0 && busy["error"]["message"].as_str().unwrap().contains("ingested"), "{busy}");
    assert!(!world.dir().join("backup").exists() && !world.dir().join("backup.part").exists());
    // Its datasets can be left out.
    let small = world.ok(&["site", "backup", "leiden", "small", "--without-data"]);
    drop(lock);
    let whole = world.ok(&["site", "backup", "leiden", "backup"]);
    assert!(whole["bytes"].as_u64() > small["bytes"].as_u64(), "{whole} {small}");
    assert_eq!(std::fs::read_dir(world.dir().join("small/data")).unwrap().count(), 0);
    let folder = std::fs::metadata(world.dir().join("backup")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&folder.permissions()) & 0o777, 0o700);
    // Every one of them is a line of the log.
    let lines = world.ok(&["log", "show", "leiden"]);
    let backups = lines.as_array().unwrap().iter().filter(|line| line["leaf"]["event"]["command"] == "backup").count();
    assert_eq!(backups, 3);
}

/// A copy of the data folder alone, from before somebody withdrew, is put in the place of the folder.
#[test]
fn an_older_version_of_a_dataset_serves_nobody() {
    let world = World::new(&["kyoto", "leiden"]);
    let (data, older) = (world.dir().join("leiden/data"), world.dir().join("older"));
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(done.success());
    };
    let people = std::fs::read_to_string(world.dir().join("leiden-source/people.csv")).unwrap();
    let one = people.lines().nth(1).unwrap().split(',').next().unwrap().to_owned();
    let before = world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
    assert_eq!(before["changed"], false);
    copy(&data, &older);
    assert_eq!(world.ok(&["site", "withdraw", "leiden", "cohort", &one]), json!({ "listed": 1, "removed": 1 }));
    assert_eq!(world.ended(&asking(&world, "[\"age\"]"))["state"], "finished", "{}", world.log());

    std::fs::rename(&data, world.dir().join("newer")).unwrap();
    copy(&older, &data);
    let refused = world.ended(&asking(&world, "[\"sex\"]"));
    assert_eq!(refused["sites"][0]["reason"]["code"], "site-fault", "{refused}");
    assert!(world.log().contains("an older copy was put in its place"), "{}", world.log());
    let (code, error) = world.json(&["site", "datasets", "leiden"]);
    assert_eq!((code, &error["error"]["code"]), (2, &json!("dataset-missing")), "{error}");
    // What serves is not for files in the folder to say, and the older version has another key than the newer one's name gives.
    let (was, is) = (world.version("leiden"), world.dir().join("newer/cohort"));
    let newer = std::fs::read_dir(&is).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let renamed = data.join("cohort").join(newer.file_name().unwrap());
    std::fs::rename(&was, &renamed).unwrap();
    let refused = world.ended(&asking(&world, "[\"sex\"]"));
    assert_eq!(refused["sites"][0]["reason"]["code"], "site-fault", "{refused}");
    assert!(world.log().contains("or its files were changed"), "{}", world.log());

    // Put back, it serves again, and nothing was lost.
    std::fs::remove_dir_all(&data).unwrap();
    copy(&world.dir().join("newer"), &data);
    assert_eq!(world.ended(&asking(&world, "[\"sex\"]"))["state"], "finished", "{}", world.log());
    // Where the newer one is lost, another ingest makes one: without anyone who withdrew, for the ledger knows of them.
    std::fs::remove_dir_all(&data).unwrap();
    copy(&older, &data);
    let taken = world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
    assert_eq!(taken["changed"], true);
    assert_eq!(taken["individuals"].as_u64().unwrap() + 1, before["individuals"].as_u64().unwrap(), "{taken} {before}");
    world.version("leiden");
    assert_eq!(world.ended(&asking(&world, "[\"trait\"]"))["state"], "finished", "{}", world.log());
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
}
