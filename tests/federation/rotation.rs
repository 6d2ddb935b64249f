//! New keys in the place of a site's old ones: while jobs run, with an overlap, for nobody else.

use serde_json::Value;

use crate::world::{World, wait};

const JOB: &str = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"leiden\", \"kyoto\"]\nmin_sites = 2\n[params]\n";

fn finished(world: &World, columns: &str) -> String {
    let job = world.submitted("cohort-summary", &format!("{JOB}columns = {columns}\n"));
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{columns}: {status}\n{}", world.log());
    job
}

fn believed(world: &World, version: usize) {
    for site in ["kyoto", "leiden"] {
        wait("the new bundle at a site", || {
            let lines = world.ok(&["log", "show", site]);
            let trust = |line: &&Value| line["leaf"]["event"]["kind"] == "trust";
            (lines.as_array().unwrap().iter().filter(trust).count() >= version).then_some(())
        });
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).recursive(true).create(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { std::fs::copy(&from, &to).map(|_| ()).unwrap() }
    }
}

#[test]
fn a_sites_keys_are_replaced_while_jobs_run() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let first = finished(&world, "[\"age\"]");
    let asked = world.ok(&["site", "rotate-keys", "leiden", "asked"]);
    let former = |what: &str| asked[what]["former"].as_str().unwrap().to_owned();
    // Asked for again, they are the same keys.
    assert_eq!(world.ok(&["site", "rotate-keys", "leiden", "asked"]), asked);
    // Nobody puts a key of theirs in a site's place: both keys sign, or nothing is written down.
    let envelope = std::fs::read_to_string(world.dir().join("asked/link.json")).unwrap();
    let mut forged: Value = serde_json::from_str(&envelope).unwrap();
    for keep in [0, 1] {
        let whole: Value = serde_json::from_str(&envelope).unwrap();
        forged["signatures"] = vec![whole["signatures"][keep].clone()].into();
        std::fs::write(world.dir().join("forged.json"), forged.to_string()).unwrap();
        let (code, refused) = world.json(&["consortium", "rotate", "consortium", "forged.json"]);
        assert!(code != 0 && refused["error"]["code"] == "signature-refused", "{refused}");
    }
    // A key that is nobody's is in nobody's place.
    for key in ["mallory.pem", "mallory-2.pem"] {
        world.ok(&["key", "new", key]);
    }
    world.ok(&["key", "rotate", "mallory.pem", "mallory-2.pem", "-o", "mallory.json"]);
    assert_eq!(world.json(&["consortium", "rotate", "consortium", "mallory.json"]).1["error"]["code"], "consortium-malformed");

    for what in ["link", "log", "witness"] {
        world.ok(&["consortium", "rotate", "consortium", &format!("asked/{what}.json")]);
    }
    world.issue();
    believed(&world, 2);
    // The daemon goes on with the old keys, which count still; those of a site that is killed and comes back are the new ones.
    finished(&world, "[\"sex\"]");
    copy(&world.dir().join("leiden"), &world.dir().join("stolen"));
    let job = world.submitted("cohort-summary", &format!("{JOB}columns = [\"trait\"]\n"));
    world.kill_site("leiden");
    world.start_site("leiden");
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status}\n{}", world.log());
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!((&log["whole"], &log["key"]), (&true.into(), &asked["log"]["key"]), "{log}");
    let lines = world.ok(&["log", "show", "leiden"]);
    let rotated: Vec<_> = lines.as_array().unwrap().iter().filter(|line| line["leaf"]["event"]["kind"] == "rotated").collect();
    assert_eq!(rotated.len(), 3, "{rotated:?}");
    // What the old keys signed is believed still.
    assert_eq!(world.job(&["result", &first]).1["proven"]["releases"], 2);

    // The overlap ends: the old keys are revoked.
    for what in ["link", "log", "witness"] {
        world.ok(&["consortium", "revoke", "consortium", &former(what), "--why", "replaced"]);
    }
    world.issue();
    believed(&world, 3);
    finished(&world, "[\"age\", \"sex\"]");
    for site in ["kyoto", "leiden"] {
        let log = world.ok(&["log", "verify", site, "--bundle", "consortium/bundle.json"]);
        assert_eq!((&log["whole"], log["witnessed"].as_u64().unwrap() > 10), (&true.into(), true), "{log}");
    }
    // Anyone who has a copy of the old keys is not even heard.
    world.stop_site("leiden");
    world.connected(1);
    let refused = |world: &World| world.log().matches("invalid peer certificate").count();
    let before = refused(&world);
    // The next keys lay beside the old ones when it was copied; a thief of backups without them has the old ones alone.
    for what in ["link", "log", "witness"] {
        std::fs::remove_file(world.dir().join(format!("stolen/keys/{what}.next.pem"))).unwrap();
    }
    world.rename_site("leiden", "stolen");
    world.start_site("stolen");
    wait("the handshake to be refused", || (refused(&world) > before).then_some(()));
    world.connected(1);
}
