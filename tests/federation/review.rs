//! Where rules and people decide: what waits, whose word counts, what becomes of it.

use serde_json::Value;

use crate::world::{World, component, wait};

const SUMMARY: &str =
    "epsilon = 0.5\ndelta = 1e-6\nsites = [\"leiden\"]\nmin_sites = 1\n[params]\ncolumns = [\"age\", \"sex\"]\n";

/// Takes leiden's data in again, after a change of its recipe or dictionary.
fn again(world: &World, file: &str, from: &str, to: &str) {
    let path = world.dir().join("leiden-source").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    world.ok(&["site", "ingest", "leiden", "leiden-source/DATASET.toml"]);
}

/// A job that asks for an amount of its own, and so is answered with noise of its own.
fn asking(world: &World, epsilon: &str) -> String {
    world.submitted("cohort-summary", &SUMMARY.replace("epsilon = 0.5", &format!("epsilon = {epsilon}")))
}

/// The number in leiden's queue of whatever waits there; the coordinator knows of it.
fn held(world: &World, job: &str) -> String {
    wait("the site's word that it waits", || {
        let (_, status) = world.job(&["status", job]);
        assert_eq!(status["state"], "running", "{status}\n{}", world.log());
        (status["sites"][0]["state"] == "held").then_some(())
    });
    let queue = world.ok(&["site", "queue", "leiden"]);
    assert_eq!(queue.as_array().unwrap().len(), 1, "{queue}");
    assert!(queue[0]["about"]["keys"].as_array().is_some_and(|keys| !keys.is_empty()), "{queue}");
    queue[0]["number"].to_string()
}

fn decide(world: &World, word: &str, number: &str, key: &str) -> (i32, Value) {
    world.json(&["site", word, "leiden", number, "--key", key, "--why", "looked at it"])
}

fn refused(found: &(i32, Value), code: &str) {
    assert!(found.0 != 0 && found.1["error"]["code"] == code, "{found:?} is not {code}");
}

#[test]
fn jobs_wait_for_a_person_whose_word_counts() {
    let mut world = World::new(&["leiden"]);
    world.approver("eva", "test");
    world.approver("max", "elsewhere");
    world.issue();
    // US, user-specific restriction: no rule decides it.
    again(&world, "DATASET.toml", "\"DUO:0000042\"", "\"DUO:0000042\", \"DUO:0000026\"");
    let first = asking(&world, "0.5");
    let number = held(&world, &first);
    let (_, status) = world.job(&["status", &first]);
    let why = status["sites"][0]["reason"]["message"].as_str().unwrap();
    assert!(why.contains("hold-conditions-for-people"), "{status}");
    // Before anything is charged.
    assert_eq!(world.ok(&["log", "verify", "leiden"])["accounts"].as_array().unwrap().len(), 0);

    // Nobody's word counts who is no approver, or another organisation's.
    refused(&decide(&world, "approve", &number, "ada.pem"), "review-not-approver");
    refused(&decide(&world, "approve", &number, "max.pem"), "review-other-organisation");
    // A decision has a reason, in words that are some.
    for why in [" ", "a\nb", "\u{202e}"] {
        assert_eq!(world.json(&["site", "approve", "leiden", &number, "--key", "eva.pem", "--why", why]).0, 2);
    }
    refused(&decide(&world, "approve", "77", "eva.pem"), "queue-number");

    // A site that is killed while something waits finds it again.
    world.kill_site("leiden");
    let (code, _) = decide(&world, "approve", &number, "eva.pem");
    assert_eq!(code, 0);
    world.start_site("leiden");
    assert_eq!(world.ended(&first)["state"], "finished", "{}", world.log());

    // No is no, and costs nothing.
    let second = asking(&world, "0.6");
    let number = held(&world, &second);
    assert_eq!(decide(&world, "deny", &number, "eva.pem").0, 0);
    let status = world.ended(&second);
    assert_eq!(status["sites"][0]["reason"]["code"], "review-denied", "{status}");
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!(
        (&log["found"], log["accounts"][0]["spent_rho_pico"].as_u64().unwrap() > 0),
        (&Value::Array(vec![]), true),
        "{log}"
    );

    // Who decided, and why, is in the log; a person whose key is revoked no longer decides.
    let lines = world.ok(&["log", "show", "leiden"]);
    let reviews: Vec<&Value> =
        lines.as_array().unwrap().iter().filter(|line| line["leaf"]["event"]["kind"] == "reviewed").collect();
    assert_eq!(reviews.len(), 2, "{reviews:?}");
    assert!(reviews[0]["details"]["person"] == "eva" && reviews[0]["leaf"]["event"]["approved"] == true, "{reviews:?}");
    let third = asking(&world, "0.7");
    let number = held(&world, &third);
    let eva = world.ok(&["key", "show", "eva.pem"])["public"].as_str().unwrap().to_owned();
    world.ok(&["consortium", "revoke", "consortium", &eva, "--why", "left"]);
    world.issue();
    wait("the new bundle at the site", || {
        let lines = world.ok(&["log", "show", "leiden"]);
        let trust = |line: &&Value| line["leaf"]["event"]["kind"] == "trust";
        (lines.as_array().unwrap().iter().filter(trust).count() == 3).then_some(())
    });
    refused(&decide(&world, "approve", &number, "eva.pem"), "review-not-approver");
    assert_eq!(world.job(&["cancel", &third]).0, 0);
}

#[test]
fn releases_wait_where_the_site_took_part_on_that_term() {
    let mut world = World::new(&["leiden"]);
    world.approver("eva", "test");
    world.issue();
    world.ok(&["site", "charter", "accept", "leiden", "project.json", "--review"]);
    let spent = |world: &World| world.ok(&["log", "verify", "leiden"])["accounts"][0]["spent_rho_pico"].as_u64().unwrap();

    let first = asking(&world, "0.5");
    let number = held(&world, &first);
    let charged = spent(&world);
    assert!(charged > 0);
    let entry = world.ok(&["site", "queue", "leiden", &number])[0].clone();
    let checks: Vec<&str> =
        entry["about"]["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["charge", "noise", "shape", "numbers", "variants", "labels"]);
    assert_eq!(entry["about"]["held"]["rules"][0]["id"], "hold-reviewed-projects", "{entry}");
    // What a person looks at is what would leave: the noised numbers.
    let steps = entry["release"]["statistics"][0]["steps"].as_array().unwrap().len();
    assert!(steps > 0 && entry["release"]["job"] == first.as_str(), "{entry}");
    assert_eq!(decide(&world, "approve", &number, "eva.pem").0, 0);
    assert_eq!(world.ended(&first)["state"], "finished", "{}", world.log());
    let (code, result) = world.job(&["result", &first]);
    assert_eq!(code, 0, "{result}");

    // An oversight body can have all that the site knows of it, as a crate whose parts are all there.
    world.ok(&["log", "crate", "leiden", &first, "crate"]);
    let file = |name: &str| std::fs::read(world.dir().join("crate").join(name)).unwrap();
    let metadata: Value = serde_json::from_slice(&file("ro-crate-metadata.json")).unwrap();
    let graph = metadata["@graph"].as_array().unwrap();
    let entity = |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap_or_else(|| panic!("{id}: {metadata:#}"));
    for part in entity("./")["hasPart"].as_array().unwrap() {
        let id = part["@id"].as_str().unwrap();
        assert_eq!(entity(id)["sha256"], vestibule_protocol::digest::Digest::of(&file(id)).hex(), "{id}");
    }
    assert_eq!(entity("#run")["result"][0]["@id"], "releases/0.json");
    let left: Value = serde_json::from_slice(&file("releases/0.json")).unwrap();
    assert_eq!(left["statistics"], entry["release"]["statistics"]);
    for id in entity("./")["mentions"].as_array().unwrap() {
        entity(id["@id"].as_str().unwrap());
    }

    // No: nothing leaves, what was charged stays charged, and outside it looks as if nothing had come of it. Also after a crash.
    let second = asking(&world, "0.6");
    let number = held(&world, &second);
    let charged = spent(&world);
    world.kill_site("leiden");
    assert_eq!(decide(&world, "deny", &number, "eva.pem").0, 0);
    world.start_site("leiden");
    let status = world.ended(&second);
    assert_eq!((&status["state"], &status["sites"][0]["reason"]["code"]), (&"failed".into(), &"no-release".into()), "{status}");
    assert_eq!(spent(&world), charged);
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!(log["found"], Value::Array(vec![]), "{log}");

    world.ok(&["log", "crate", "leiden", &second, "denied"]);
    assert!(!world.dir().join("denied/releases").exists());
    let metadata = std::fs::read_to_string(world.dir().join("denied/ro-crate-metadata.json")).unwrap();
    assert!(metadata.contains("FailedActionStatus") && !metadata.contains("within two"), "{metadata}");

    // The same again is not answered from what was held back, nor past the person's look from what was let out.
    let third = asking(&world, "0.5");
    let number = held(&world, &third);
    assert_eq!(spent(&world), charged);
    assert_eq!(decide(&world, "deny", &number, "eva.pem").0, 0);
    assert_eq!(world.ended(&third)["sites"][0]["reason"]["code"], "no-release");
    let report = world.ok(&["log", "report", "leiden", "--html", "report.html"]);
    assert_eq!(report["decided"], serde_json::json!({ "release approved": 1, "release denied": 2 }), "{report}");
    let html = std::fs::read_to_string(world.dir().join("report.html")).unwrap();
    assert!(html.contains("Decided by people") && html.contains("release denied"));
    let page = crate::world::run(world.dir(), &["site", "queue", "leiden", "--all"]);
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(
        page.contains("a release, approved") && page.contains("a release, denied") && page.contains("standard deviation"),
        "{page}"
    );
}

/// What an adversary has who has all but the keys and the answer: the public log, with its lines,
/// and a copy of the folder. Of the answer they know everything but one small number: they try all
/// that it can be.
#[test]
fn what_a_person_denied_cannot_be_tried_out() {
    use vestibule_protocol::digest::Digest;
    let world = World::new(&["leiden"]);
    world.approver("eva", "test");
    world.issue();
    world.ok(&["site", "charter", "accept", "leiden", "project.json", "--review"]);
    let job = asking(&world, "0.5");
    let number = held(&world, &job);
    let entry = world.ok(&["site", "queue", "leiden", &number])[0].clone();
    assert_eq!(decide(&world, "deny", &number, "eva.pem").0, 0);
    assert_eq!(world.ended(&job)["sites"][0]["reason"]["code"], "no-release");
    world.ok(&["log", "export", "leiden", "exported"]);
    world.ok(&["site", "backup", "leiden", "copied"]);
    let shown = world.ok(&["log", "show", "copied"]).to_string();
    let mut seen = shown.into_bytes();
    let mut folders = vec![world.dir().join("exported"), world.dir().join("copied")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => seen.extend(std::fs::read(entry.path()).unwrap()),
            }
        }
    }
    let is_there = |digest: &Digest| {
        memchr::memmem::find(&seen, digest.hex().as_bytes()).is_some()
            || memchr::memmem::find(&seen, digest.as_bytes()).is_some()
    };
    // The very document, with its salt: this is how it is checked, and that the search finds it.
    let mut release: vestibule_protocol::release::Release = serde_json::from_value(entry["release"].clone()).unwrap();
    let digest = |release: &_| Digest::of(&serde_json::to_vec(release).unwrap());
    assert!(is_there(&digest(&release)), "the log says which release was denied");
    let right = release.statistics[0].steps[0];
    release.statistics[0].steps[0] = right ^ 1;
    assert!(!is_there(&digest(&release)), "another value is not the one that was denied");
    // Without it, none of the values that the number could have, as the form was before there was
    // salt, and with other salt.
    release.salt = vestibule_protocol::salt::Salt::from_bytes([0; 32]);
    for guess in right.saturating_sub(2_000)..right.saturating_add(2_000) {
        release.statistics[0].steps[0] = guess;
        let whole = serde_json::to_string(&release).unwrap();
        let plain = whole.replace(&format!(",\"salt\":\"{}\"", "00".repeat(32)), "");
        assert_ne!(plain, whole);
        let numbers = serde_json::to_vec(&release.statistics).unwrap();
        let forms = [whole.as_bytes(), plain.as_bytes(), &numbers].map(Digest::of);
        assert!(!forms.iter().any(is_there), "{guess} is told from others");
    }
    // Nor do lengths tell how many digits it has: a sealed record is as long as its round's longest
    // answer.
    let sql = "SELECT length(bytes) FROM release WHERE job = ?1";
    let length: u32 = world.ledger("copied").query_row(sql, [&job], |row| row.get(0)).unwrap();
    let shortest = serde_json::to_vec(&release).unwrap().len();
    assert!(length as usize > shortest && length % 1_024 == 12 + 16, "{length}");
}

#[test]
fn two_officers_set_rules_that_hold_at_once() {
    let mut world = World::new(&["leiden"]);
    world.approver("max", "elsewhere");
    world.issue();
    for officer in ["one", "two"] {
        world.ok(&["key", "new", &format!("{officer}.pem")]);
    }
    // A column is sensitive: the shipped rules hold what reads it, unless its component was reviewed by somebody whose word counts.
    again(&world, "dictionary.toml", "name = \"sex\"", "name = \"sex\"\nsensitive = true");
    // The coordinator learns of it when the site dials again.
    world.stop_site("leiden");
    world.start_site("leiden");
    let sign = |officer: &str| world.json(&["site", "policy", "sign", "change", "--key", &format!("{officer}.pem")]);
    let set = || world.json(&["site", "policy", "set", "leiden", "change/policy.json"]);
    let edit = |file: &str, from: &str, to: &str| {
        let path = world.dir().join("change").join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        std::fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let toml = format!("charter = \"project.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"cohort\"\n{SUMMARY}");
    std::fs::write(world.dir().join("job.toml"), toml).unwrap();
    std::fs::copy(component("cohort-summary"), world.dir().join("cohort-summary.wasm")).unwrap();
    let explain = || {
        wait("the new dictionary at the coordinator", || {
            let (code, _) = world.job(&["manifest", "job.toml", "-o", "manifest.json"]);
            let manifest =
                ["site", "policy", "check", "leiden", "--manifest", "manifest.json", "--component", "cohort-summary.wasm"];
            let (checked, document) = world.json(&manifest);
            (code == 0 && checked == 0).then_some(document)
        })
    };
    let explained = explain();
    assert_eq!(
        (&explained["outcome"], &explained["rules"][0]["id"]),
        (&"hold".into(), &"hold-sensitive-columns".into()),
        "{explained}"
    );
    assert_eq!(explained["facts"]["columns"], serde_json::json!(["age", "sex"]));

    world.ok(&["site", "policy", "new", "leiden", "change", "--officer", "one.pem.pub", "--officer", "two.pem.pub"]);
    edit("policy.toml", "reviewers = []", "reviewers = [\"max\"]");
    // Rules that do not validate are not signed.
    edit("rules.cedar", "context.out.review", "context.out.revue");
    refused(&sign("one"), "policy-rules");
    refused(&world.json(&["site", "policy", "check", "leiden", "--folder", "change"]), "policy-rules");
    edit("rules.cedar", "context.out.revue", "context.out.review");
    world.ok(&["site", "policy", "check", "leiden", "--folder", "change"]);
    assert_eq!(sign("one").0, 0);
    refused(&set(), "policy-signatures");
    assert_eq!(sign("two").0, 0);
    assert_eq!(set().0, 0);
    refused(&set(), "policy-old");

    // Reviews of components by people of elsewhere count now, and make routine what was not.
    world.ok(&["review", "cohort-summary.wasm", "--key", "max.pem", "--why", "reads what it says", "-o", "review.json"]);
    world.ok(&["site", "review", "leiden", "review.json"]);
    assert_eq!(explain()["outcome"], "admit");
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    // Not those of researchers, and not about jobs.
    world.ok(&["review", "cohort-summary.wasm", "--key", "ada.pem", "--why", "mine", "-o", "own.json"]);
    refused(&world.json(&["site", "review", "leiden", "own.json"]), "review-not-approver");

    // A rule of the site's own refuses, and says why.
    std::fs::remove_dir_all(world.dir().join("change")).unwrap();
    world.ok(&["site", "policy", "new", "leiden", "change"]);
    let rule = "@id(\"no-ages\")\n@why(\"ages are for no project of 2026\")\nforbid(principal, action == Site::Action::\"run\", resource)\n\
                when { context.job.columns.contains(\"age\") };\n\n@id(\"permit-consented-use\")";
    edit("rules.cedar", "@id(\"permit-consented-use\")", rule);
    assert_eq!((sign("one").0, sign("two").0, set().0), (0, 0, 0));
    let job = world.submitted("cohort-summary", &SUMMARY.replace("0.5", "0.6"));
    let status = world.ended(&job);
    let reason = &status["sites"][0]["reason"];
    assert_eq!(reason["code"], "policy-refused", "{status}");
    assert!(reason["message"].as_str().unwrap().contains("ages are for no project of 2026"), "{status}");

    // Everything that was signed is what the log says. Anyone who puts other rules in their place is found out.
    let log = world.ok(&["log", "verify", "leiden"]);
    assert_eq!(log["found"], Value::Array(vec![]), "{log}");
    let policies = world.dir().join("leiden/policies");
    let newest =
        world.ok(&["site", "policy", "show", "leiden"])["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let others = std::fs::read_dir(&policies).unwrap().map(|entry| entry.unwrap().path());
    let older = others.into_iter().find(|path| !path.ends_with(format!("{newest}.json"))).unwrap();
    std::fs::copy(older, policies.join(format!("{newest}.json"))).unwrap();
    refused(&world.json(&["site", "policy", "show", "leiden"]), "policy-differs");
    let wrong = |what: &str| {
        let (code, log) = world.json(&["log", "verify", "leiden"]);
        let found = log["found"].as_array().unwrap();
        assert!(code == 1 && found.len() == 1 && found[0].to_string().contains(what), "{log}");
    };
    wrong("policy 2");
    std::fs::remove_file(policies.join(format!("{newest}.json"))).unwrap();
    wrong("not in the folder");
}

#[test]
fn a_key_takes_the_place_of_another_without_a_new_charter() {
    let world = World::new(&["leiden"]);
    let first = asking(&world, "0.5");
    assert_eq!(world.ended(&first)["state"], "finished", "{}", world.log());
    world.ok(&["key", "new", "ada-2.pem"]);
    let rotated = world.ok(&["key", "rotate", "ada.pem", "ada-2.pem", "-o", "rotation.json"]);
    world.ok(&["consortium", "rotate", "consortium", "rotation.json"]);
    // Nobody has it any more, as a key of now.
    world.ok(&["key", "new", "other.pem"]);
    world.ok(&["key", "rotate", "other.pem", "ada-2.pem", "-o", "theirs.json"]);
    refused(&world.json(&["consortium", "rotate", "consortium", "theirs.json"]), "consortium-malformed");
    world.issue();
    wait("the new bundle at the site", || {
        let lines = world.ok(&["log", "show", "leiden"]);
        let trust = |line: &&Value| line["leaf"]["event"]["kind"] == "trust";
        (lines.as_array().unwrap().iter().filter(trust).count() == 2).then_some(())
    });
    // Both count: the charter names her by the former one.
    let with = |key: &str, arguments: &[&str]| {
        let address = world.api_address().to_string();
        let call = ["--key", key, "--coordinator", &format!("http://{address}")];
        world.json(&[&["job"], arguments, call.as_slice()].concat())
    };
    let second = asking(&world, "0.6");
    assert_eq!(world.ended(&second)["state"], "finished", "{}", world.log());
    let submit = |key: &str, epsilon: &str| {
        let toml = format!("charter = \"project.json\"\nanalysis = \"cohort-summary.wasm\"\ndataset = \"cohort\"\n{SUMMARY}");
        std::fs::write(world.dir().join("job.toml"), toml.replace("0.5", epsilon)).unwrap();
        with(key, &["submit", "job.toml", "--wait"])
    };
    let (code, document) = submit("ada-2.pem", "0.7");
    assert_eq!(code, 0, "{document}\n{}", world.log());
    assert_eq!(with("ada-2.pem", &["list"]).1.as_array().unwrap().len(), 3, "her jobs are hers");
    assert_eq!(with("ada-2.pem", &["result", &first]).0, 0);
    // Revoked, the former one counts for nothing.
    world.ok(&["consortium", "revoke", "consortium", rotated["former"].as_str().unwrap(), "--why", "no longer used"]);
    world.issue();
    refused(&submit("ada.pem", "0.8"), "researcher-unknown");
    refused(&with("ada.pem", &["result", &first]), "researcher-unknown");
    assert_eq!(with("ada-2.pem", &["list"]).1.as_array().unwrap().len(), 3);
}

#[test]
fn a_site_lets_go_of_counts_as_coarsely_as_it_likes() {
    let world = World::new(&["kyoto", "leiden"]);
    world.ok(&["site", "charter", "accept", "leiden", "project.json", "--suppress-below", "300", "--round-to", "5"]);
    let job = world
        .submitted("cohort-summary", &SUMMARY.replace("[\"leiden\"]", "[\"*\"]").replace("min_sites = 1", "min_sites = 2"));
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let released = |site: &str| {
        let ledger = world.ledger(site);
        let bytes: Vec<u8> = ledger
            .query_row("SELECT unseal('release', job || ' ' || round, bytes) FROM release", [], |row| row.get(0))
            .unwrap();
        serde_json::from_slice::<Value>(&bytes).unwrap()
    };
    // 503 people of two sexes: one of the two counts at least is below 300, and becomes 0; what is not is a multiple of 5.
    let (rounded, plain) = (released("leiden"), released("kyoto"));
    assert!(rounded["rounding"]["suppress_below"] == 300 && plain.get("rounding").is_none(), "{rounded}");
    let counts = |release: &Value| -> Vec<f64> {
        let statistics = release["statistics"].as_array().unwrap();
        let sexes = statistics.iter().find(|statistic| statistic["name"].as_str().unwrap().contains("sex")).unwrap();
        let one = f64::exp2(sexes["log2_scale"].as_f64().unwrap());
        sexes["steps"].as_array().unwrap().iter().map(|steps| steps.as_f64().unwrap() / one).collect()
    };
    let (rounded, plain) = (counts(&rounded), counts(&plain));
    assert!(rounded.iter().all(|count| *count == 0.0 || (*count >= 300.0 && count % 5.0 == 0.0)), "{rounded:?}");
    assert!(rounded.contains(&0.0) && plain.iter().any(|count| count.fract() != 0.0), "{rounded:?} {plain:?}");
    let (code, result) = world.job(&["result", &job]);
    assert_eq!(code, 0, "{result}");
    let words = result["proven"]["rounded"].as_array().unwrap();
    assert!(words.len() == 1 && words[0].as_str().unwrap().contains("leiden: counts below 300"), "{words:?}");
}

/// 503 people, of whom none but those are counted; a noise of 41 for what a job of epsilon 0.7 may spend on counting them.
#[test]
fn nothing_leaves_of_a_cohort_that_a_noised_count_finds_too_small() {
    let mut world = World::new(&["leiden"]);
    let spent = |world: &World| world.ok(&["log", "verify", "leiden"])["accounts"][0]["spent_rho_pico"].as_u64().unwrap();
    let found = |world: &World| {
        let lines = world.ok(&["log", "show", "leiden"]);
        let settled = lines.as_array().unwrap().iter().rfind(|line| line["leaf"]["event"]["kind"] == "settled").unwrap();
        settled["details"].clone()
    };
    again(&world, "DATASET.toml", "name", "conditions = { min_cohort = 100 }\nname");
    // The coordinator learns of it when the site dials again.
    world.stop_site("leiden");
    world.start_site("leiden");
    world.all_connected();
    let job = asking(&world, "0.7");
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let checks = found(&world)["checks"].as_array().unwrap().clone();
    let cohort = checks.iter().find(|check| check["check"] == "cohort").unwrap_or_else(|| panic!("{checks:?}"));
    assert!(cohort["found"].as_str().unwrap().ends_with("where 100 must"), "{cohort}");

    // More than there are by far. From outside it is a round of which nothing came; what it cost is spent.
    again(&world, "DATASET.toml", "min_cohort = 100 ", "min_cohort = 3000 ");
    world.stop_site("leiden");
    world.start_site("leiden");
    world.all_connected();
    let before = spent(&world);
    let job = asking(&world, "0.7");
    let status = world.ended(&job);
    assert_eq!((&status["state"], &status["sites"][0]["reason"]["code"]), (&"failed".into(), &"no-release".into()), "{status}");
    let details = found(&world);
    let noised = details["cohort"]["noised"].as_i64().unwrap();
    assert!((100..=900).contains(&noised) && details["cohort"]["least"] == 3000, "{details}");
    let once = spent(&world) - before;
    assert!(once > 0);
    // Nor does asking again wear the noise down at no cost.
    let job = asking(&world, "0.7");
    assert_eq!(world.ended(&job)["sites"][0]["reason"]["code"], "no-release");
    assert_eq!(spent(&world) - before, 2 * once);
    assert_ne!(found(&world)["cohort"]["noised"], noised, "another draw (the same once in 100)");
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
    // Everybody can know beforehand; the site's own page says so too.
    assert_eq!(world.ok(&["site", "datasets", "leiden"])[0]["conditions"]["min_cohort"], 3000);
    assert_eq!(world.sites()[0]["datasets"][0]["min_cohort"], 3000, "{}", world.sites());
}
