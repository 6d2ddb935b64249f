//! What commands say when something is wrong.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::world::{BINARY, component, run};

fn fails(dir: &Path, arguments: &[&str], exit: i32, code: &str, says: &str) {
    failed(run(dir, &[&["--json"], arguments].concat()), arguments, exit, code, says);
}

fn failed(output: std::process::Output, arguments: &[&str], exit: i32, code: &str, says: &str) {
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(exit), "{arguments:?}: {document} {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(document["error"]["code"], code, "{arguments:?}: {document}");
    assert!(document["error"]["message"].as_str().unwrap().contains(says), "{arguments:?}: {document}");
}

#[test]
fn errors_name_what_is_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    fails(dir, &["site", "run", "nowhere"], 2, "site-io", "nowhere");
    fails(dir, &["coordinator", "run", "nowhere"], 2, "coordinator-missing", "coordinator init");
    assert!(run(dir, &["site", "init", "site"]).status.success());
    fails(dir, &["site", "init", "site"], 2, "site-exists", "another folder");
    fails(dir, &["site", "run", "site"], 2, "site-not-joined", "site join");
    fails(
        dir,
        &["site", "join", "site", "rubbish", "--organisation", "o", "--country", "NL"],
        2,
        "token-malformed",
        "vestibule-invitation-1",
    );
    fails(dir, &["site", "ingest", "site", "DATASET.toml"], 2, "file-unreadable", "DATASET.toml");
    std::fs::write(dir.join("DATASET.toml"), "name = \"c\"\nsize = 1\n").unwrap();
    fails(dir, &["site", "ingest", "site", "DATASET.toml"], 2, "dataset-config", "line 2");
    fails(dir, &["key", "show", "nokey.pem"], 2, "file-unreadable", "nokey.pem");
    assert!(run(dir, &["key", "new", "key.pem"]).status.success());
    fails(dir, &["key", "new", "key.pem"], 2, "file-unwritable", "never written over");
    fails(dir, &["key", "show", "key.pem.pub"], 2, "key-not-pem", "PRIVATE KEY");
    let list = ["job", "list", "--key", "key.pem", "--coordinator", "http://127.0.0.1:9"];
    fails(dir, &list, 2, "coordinator-unpinned", "researcher join");
    let shown = run(dir, &["--json", "key", "show", "key.pem"]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    std::fs::write(dir.join("key.pem.coordinator"), shown["public"].as_str().unwrap()).unwrap();
    fails(dir, &list, 3, "coordinator-unreachable", "127.0.0.1:9");
    std::fs::write(dir.join("not.wasm"), b"\0asm rubbish").unwrap();
    fails(dir, &["analysis", "inspect", "not.wasm"], 2, "component-unreadable", "not.wasm");
    assert_eq!(run(dir, &["no-such-command"]).status.code(), Some(2));
}

fn with_passphrase(dir: &Path, passphrase: &str, arguments: &[&str]) -> std::process::Output {
    Command::new(BINARY)
        .arg("--json")
        .args(arguments)
        .current_dir(dir)
        .env("VESTIBULE_PASSPHRASE", passphrase)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn a_wrong_or_missing_passphrase_opens_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    assert!(with_passphrase(dir, "right", &["site", "init", "site"]).status.success());
    assert!(with_passphrase(dir, "right", &["key", "new", "key.pem"]).status.success());
    assert!(with_passphrase(dir, "right", &["site", "budget", "site"]).status.success());
    for arguments in [&["site", "budget", "site"][..], &["site", "run", "site"], &["key", "show", "key.pem"]] {
        failed(with_passphrase(dir, "wrong", arguments), arguments, 2, "key-passphrase-wrong", "passphrase");
        fails(dir, arguments, 2, "key-passphrase-needed", "VESTIBULE_PASSPHRASE");
    }
}

/// A folder of its own on a disk of one megabyte, in a mount namespace of its own: needs no rights that a test lacks.
fn on_a_small_disk(dir: &Path, script: &str) -> Option<std::process::Output> {
    let script = format!("mount -t tmpfs -o size=1m none small || exit 99\n{script}");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .env("VESTIBULE", BINARY)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output();
    let refused = |output: &std::process::Output| output.status.code() == Some(99) || output.stderr.starts_with(b"unshare:");
    let output = output.ok().filter(|output| !refused(output));
    if output.is_none() {
        eprintln!("skipped: this machine lets nobody mount a small disk");
    }
    output
}

#[test]
fn a_full_disk_is_named_and_the_dataset_that_served_still_does() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    demo_files(dir);
    std::fs::create_dir(dir.join("small")).unwrap();
    // The first dataset is the table alone, which fits. The second has genotypes, in a space that is nearly used up.
    let recipe = std::fs::read_to_string(dir.join("DATASET.toml")).unwrap();
    let (table, _) = recipe.split_once("[variants]").unwrap();
    std::fs::write(dir.join("TABLE.toml"), table).unwrap();
    let script = "set -e
        \"$VESTIBULE\" site init small/site >/dev/null
        \"$VESTIBULE\" site ingest small/site TABLE.toml >/dev/null
        before=$(ls -d small/site/data/cohort/v*)
        free=$(df --output=avail -k small | tail -1)
        head -c $((free - 100))k /dev/zero > small/ballast
        \"$VESTIBULE\" --json site ingest small/site DATASET.toml && exit 98
        rm small/ballast
        test \"$before\" = \"$(ls -d small/site/data/cohort/v*)\" || exit 97
        \"$VESTIBULE\" site ingest small/site TABLE.toml | grep -q 'nothing to do' || exit 95
        exit 42";
    let Some(output) = on_a_small_disk(dir, script) else { return };
    let (out, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(42), "{out}\n{talk}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["error"]["code"], "disk-full", "{document}");
    assert!(document["error"]["message"].as_str().unwrap().contains("free some space"), "{document}");
}

fn demo_files(dir: &Path) {
    let data = crate::world::root().join("cli/demo-data");
    for file in ["DATASET.toml", "dictionary.toml", "panel.catalogue.tsv", "leiden/people.csv", "leiden/genotypes.vcf.gz"] {
        std::fs::copy(data.join(file), dir.join(Path::new(file).file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_busy_port_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(run(temp.path(), &["coordinator", "init", "c"]).status.success());
    let address = taken.local_addr().unwrap().to_string();
    std::fs::write(temp.path().join("c/coordinator.toml"), format!("quic = \"127.0.0.1:0\"\napi = \"{address}\"\n")).unwrap();
    fails(temp.path(), &["coordinator", "run", "c"], 2, "address-in-use", &address);
}

#[test]
fn inspect_shows_no_imports_of_a_good_component() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["cohort-summary", "allele-frequency", "linear-association", "logistic-regression", "median-regression"] {
        let output = run(temp.path(), &["--json", "analysis", "inspect", component(name).to_str().unwrap()]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["imports"], serde_json::json!([]), "{name}: {document}");
        assert_eq!(document["exports"], serde_json::json!(["plan", "next", "prepare", "contribute"]), "{name}");
    }
}

#[test]
fn a_quote_and_a_dry_run_agree_on_the_noise() {
    let temp = tempfile::tempdir().unwrap();
    demo_files(temp.path());
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = run(temp.path(), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Of everybody alone, and of blocks: in each of ten some fifty people are enough for a fit.
    let fit = r#"{"outcome":"trait","covariates":["age","sex"],"blocks":10}"#;
    for (name, params, first) in [("cohort-summary", r#"{"columns":["age"]}"#, 503.0), ("median-regression", fit, 10.0)] {
        let component = component(name);
        let file = component.to_str().unwrap();
        let quoted = json(&[
            "--json",
            "analysis",
            "quote",
            file,
            "--params",
            params,
            "--dictionary",
            "dictionary.toml",
            "--individuals",
            "503",
        ]);
        // A fit over the largest block may take nearly all of the fuel that jobs have by default.
        let fuel = ["--fuel", "10000000"];
        let arguments = ["--json", "analysis", "try", file, "--params", params, "--data", "DATASET.toml"];
        let tried = json(&[&arguments[..], &fuel].concat());
        assert_eq!(tried["fault_count"], 0);
        let (quoted, tried) = (quoted["statistics"].as_array().unwrap(), tried["rounds"][0]["statistics"].as_array().unwrap());
        for (quoted, tried) in quoted.iter().zip(tried) {
            assert_eq!((&quoted["name"], &quoted["noise_sd"]), (&tried["name"], &tried["noise_sd"]));
        }
        assert_eq!(tried[0]["exact"][0], first);
    }
    // Several numbers of blocks beside each other: the noise of a mean over twice as many is half of it.
    let file = component("median-regression");
    let quote = |vary: &str| {
        let arguments = ["--json", "analysis", "quote", file.to_str().unwrap(), "--params", fit, "--vary", vary];
        run(temp.path(), &[&arguments[..], &["--dictionary", "dictionary.toml", "--individuals", "503"]].concat())
    };
    let compared: serde_json::Value = serde_json::from_slice(&quote("blocks=5,10").stdout).unwrap();
    let of = |at: usize| compared["quotes"][at]["statistics"][1]["noise_sd_of_mean"].as_f64().unwrap();
    assert_eq!((&compared["quotes"][0]["blocks"], &compared["quotes"][1]["blocks"]), (&5.into(), &10.into()));
    assert!((of(0) / of(1) - 2.0).abs() < 1e-9, "{compared}");
    for (vary, says) in [("blocks", "NAME=VALUE"), ("blocks=1", "blocks"), ("block=5", "block")] {
        let output = quote(vary);
        assert!(output.status.code() == Some(2) && String::from_utf8_lossy(&output.stdout).contains(says), "{vary}");
    }
}
