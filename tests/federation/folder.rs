//! A coordinator's folder: nobody else of the machine reads it or holds its locks; and who was invited by mistake is forgotten.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::world::World;

/// The modes of all that lies in a folder.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, data) = {
            let entry = entry.unwrap();
            (entry.path(), entry.metadata().unwrap())
        };
        all.push((path.display().to_string(), data.mode() & 0o777));
        if data.is_dir() {
            all.extend(modes(&path));
        }
    }
    all
}

#[test]
fn nobody_else_of_the_machine_comes_into_a_coordinators_folder() {
    let mut world = World::new(&[]);
    let folder = world.dir().join("coordinator");
    assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
    let all = modes(&folder);
    assert!(all.len() > 8, "{all:?}");
    for (path, mode) in all {
        assert_eq!(mode & 0o077, 0, "{path} has mode {mode:o}");
    }
    world.kill_coordinator();
    for path in ["coordinator", "coordinator/keys", "coordinator/keys/coordinator.pem"] {
        let path = world.dir().join(path);
        let closed = std::fs::metadata(&path).unwrap().permissions();
        let open = std::fs::Permissions::from_mode(closed.mode() | 0o044);
        std::fs::set_permissions(&path, open).unwrap();
        for command in [["coordinator", "run", "coordinator"].as_slice(), &["coordinator", "requests", "coordinator"]] {
            let (code, document) = world.json(command);
            assert_eq!((code, &document["error"]["code"]), (2, &"coordinator-open".into()), "{document}");
            assert!(document["error"]["message"].as_str().unwrap().contains("chmod go-rwx"), "{document}");
        }
        std::fs::set_permissions(&path, closed).unwrap();
    }
    world.start_coordinator();
}

#[test]
fn a_name_that_was_given_by_mistake_is_forgotten_and_free_unless_the_consortium_knows_it() {
    let world = World::new(&[]);
    let join = |name: &str, key: &str| {
        let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", name]);
        let token = token["token"].as_str().unwrap().to_owned();
        world.json(&["researcher", "join", &token, "--key", key, "--organisation", "test", "--country", "NL"])
    };
    for key in ["bob.pem", "other.pem"] {
        world.ok(&["key", "new", key]);
    }
    assert_eq!(join("bob", "bob.pem").0, 0);
    assert_eq!(world.call("bob", "GET", "/v1/jobs", b"").0, 200);
    world.ok(&["coordinator", "forget", "coordinator", "bob"]);
    assert_eq!(world.call("bob", "GET", "/v1/jobs", b"").0, 403, "the key is nobody's");
    assert_eq!(join("bob", "other.pem").0, 0, "the name is free");
    let (_, requests) = world.json(&["coordinator", "requests", "coordinator"]);
    assert!(!requests.to_string().contains(&world.key("bob").public().to_string()), "{requests}");
    let refused = world.json(&["coordinator", "forget", "coordinator", "ada"]);
    assert_eq!((refused.0, &refused.1["error"]["code"]), (2, &"name-in-bundle".into()), "{}", refused.1);
    let refused = world.json(&["coordinator", "forget", "coordinator", "nobody"]);
    assert_eq!((refused.0, &refused.1["error"]["code"]), (2, &"name-unknown".into()), "{}", refused.1);
}

/// With the words that a terminal or a bundle could not bear.
#[test]
fn who_says_of_themselves_what_no_bundle_could_does_not_join() {
    let world = World::new(&[]);
    world.ok(&["key", "new", "bob.pem"]);
    let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", "bob"]);
    let token = token["token"].as_str().unwrap();
    for (organisation, country) in [("x\u{1b}[2J", "NL"), (&*"x".repeat(5_000), "NL"), ("test", "xx")] {
        let join = ["researcher", "join", token, "--key", "bob.pem", "--organisation", organisation, "--country", country];
        assert_eq!(world.json(&join).0, 2, "{organisation:?} {country:?}");
    }
    world.ok(&["researcher", "join", token, "--key", "bob.pem", "--organisation", "test", "--country", "NL"]);
}

#[test]
fn a_job_is_submitted_by_the_one_who_signed_it_and_by_nobody_else() {
    let world = World::new(&["leiden"]);
    world.ok(&["key", "new", "bob.pem"]);
    let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", "bob"]);
    let token = token["token"].as_str().unwrap();
    world.ok(&["researcher", "join", token, "--key", "bob.pem", "--organisation", "test", "--country", "NL"]);
    let toml = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
    let job = world.submitted("cohort-summary", toml);
    world.job(&["manifest", "job.toml", "-o", "signed.json"]);
    let envelope = std::fs::read(world.dir().join("signed.json")).unwrap();
    let (status, document) = world.document("bob", "POST", "/v1/jobs", &envelope);
    assert_eq!((status, &document["code"]), (403, &"submit-not-signer".into()), "{document}");
    let (status, document) = world.document("ada", "POST", "/v1/jobs", &envelope);
    assert_eq!(status, 200, "{document}");
    // Nor by anyone, of a component that they never showed.
    assert_eq!(world.ended(&job)["state"], "finished");
}
