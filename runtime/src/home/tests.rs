//! A site's folder: made once, opened with its passphrase, refused where it is not as it must be.

use super::keys::NEXT_STORE_KEY;
use super::*;
use crate::charter::Terms;
use crate::costs::Costs;

#[test]
fn a_site_is_made_once_and_opened_with_its_passphrase() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("site");
    assert_eq!(Home::open(&path, None).unwrap_err().code(), "site-io");
    let made = Home::init(&path, Some("secret")).unwrap();
    assert_eq!(Home::init(&path, Some("secret")).unwrap_err().code(), "site-exists");
    assert_eq!(made.settings(), &Settings::default());
    assert_eq!(Home::open(&path, None).unwrap_err().code(), "key-passphrase-needed");
    assert_eq!(Home::open(&path, Some("wrong")).unwrap_err().code(), "key-passphrase-wrong");
    let opened = Home::open(&path, Some("secret")).unwrap();
    assert_eq!(opened.link_key().public(), made.link_key().public());
    assert_eq!(opened.coordinator().unwrap_err().code(), "site-not-joined");
}

#[test]
fn settings_with_an_unknown_name_are_refused_with_their_line() {
    let temp = tempfile::tempdir().unwrap();
    Home::init(temp.path(), None).unwrap();
    std::fs::write(temp.path().join("site.toml"), "threads = 1\nmax_epsilon = 9\n").unwrap();
    let error = Home::open(temp.path(), None).unwrap_err();
    assert_eq!(error.code(), "site-settings");
    assert!(error.to_string().contains("max_epsilon") && error.to_string().contains("line 2"), "{error}");
}

#[test]
fn costs_that_are_no_times_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    Home::init(temp.path(), None).unwrap();
    for wrong in ["-1.0", "nan", "inf"] {
        std::fs::write(temp.path().join("site.toml"), format!("[slowest]\nmib_us = {wrong}\n")).unwrap();
        let error = Home::open(temp.path(), None).unwrap_err();
        assert!(error.code() == "site-settings" && error.to_string().contains("slowest"), "{error}");
    }
}

#[test]
fn settings_with_which_nothing_runs_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    Home::init(temp.path(), None).unwrap();
    for (wrong, right) in [
        ("max_round_tries = 0", "max_round_tries = 1"),
        ("public_places = 0", "public_places = 1"),
        ("max_public_seconds = 0", "max_public_seconds = 1"),
        ("max_running_rounds = 0", "max_running_rounds = 1"),
        ("max_round_memory_mib = 0", "max_round_memory_mib = 1"),
        ("max_memory_mib = 3073", "max_memory_mib = 3072"),
        ("threads = 4097", "threads = 4096"),
        ("max_running_rounds = 257", "max_running_rounds = 256"),
        ("max_epsilon_per_job = nan", "max_epsilon_per_job = 50.0"),
        ("max_epsilon_per_job = inf", "max_epsilon_per_job = 0.001"),
        ("max_epsilon_per_job = 0.0", "max_epsilon_per_job = 1.0"),
        ("max_epsilon_per_job = 50.1", "max_epsilon_per_job = 4.0"),
        ("max_delta_per_job = nan", "max_delta_per_job = 0.0"),
        ("max_delta_per_job = 1.0", "max_delta_per_job = 0.5"),
        ("max_delta_per_job = -1e-9", "max_delta_per_job = 1e-9"),
        ("release_tick_seconds = 3601", "release_tick_seconds = 3600"),
        ("heartbeat_seconds = 0", "heartbeat_seconds = 1"),
        ("keep_details_days = 0", "keep_details_days = 1"),
        ("keep_releases_days = 0", "keep_releases_days = 1"),
        ("keep_components_days = 0", "keep_components_days = 1"),
    ] {
        std::fs::write(temp.path().join("site.toml"), wrong).unwrap();
        let error = Home::open(temp.path(), None).unwrap_err();
        let name = wrong.split(' ').next().unwrap();
        assert!(error.code() == "site-settings" && error.to_string().contains(name), "{error}");
        std::fs::write(temp.path().join("site.toml"), right).unwrap();
        Home::open(temp.path(), None).unwrap();
    }
}

#[test]
fn charters_are_accepted_and_left() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let envelope = crate::charter::tests::charter().sign(&crate::admission::tests::researcher()).unwrap();
    let terms = Terms { epsilon_micro: Some(1_000_000), ..Terms::default() };
    let at = std::time::Duration::from_secs(100);
    let accepted = home.accept(&envelope, terms, at).unwrap();
    assert_eq!(home.accept(b"{}", Terms::default(), at).unwrap_err().code(), "envelope-malformed");
    assert_eq!(home.charters().unwrap(), std::slice::from_ref(&accepted));
    let digest = accepted.signed().digest();
    home.leave(digest, at).unwrap();
    assert_eq!(home.leave(digest, at).unwrap_err().code(), "charter-unknown");
    assert!(home.charters().unwrap().is_empty());
}

/// A bundle of one root, under which nobody must cosign.
fn bundle(root: u8, version: u64) -> Vec<u8> {
    use vestibule_protocol::trust::{Bundle, Revoked, Roots};
    let root = SecretKey::from_seed([root; 32]).unwrap();
    let bundle = Bundle {
        consortium: "test".parse().unwrap(),
        version,
        issued: "2026-01-01T00:00:00Z".into(),
        expires: "2026-01-08T00:00:00Z".into(),
        roots: Roots { threshold: 1, keys: vec![root.public()] },
        sites: vec![],
        persons: vec![],
        witnesses: "quorum none\n".into(),
        non_profits: std::collections::BTreeSet::new(),
        revoked: Revoked::default(),
    };
    bundle.sign(&root).unwrap()
}

fn joined(home: &Home, root: u8) -> Coordinator {
    let consortium = vestibule_protocol::trust::Trust::stored(&bundle(root, 1)).unwrap().bundle().roots.fingerprint();
    let key = SecretKey::from_seed([8; 32]).unwrap().public();
    let coordinator = Coordinator { site: "leiden".parse().unwrap(), quic: "host:1".into(), tunnel: None, key, consortium };
    home.set_coordinator(&coordinator).unwrap();
    coordinator
}

#[test]
fn the_pinned_keys_are_changed_by_nobody_without_the_sites_own() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let coordinator = joined(&home, 1);
    assert_eq!(home.coordinator().unwrap(), coordinator);
    let file = temp.path().join(COORDINATOR);
    let kept = std::fs::read_to_string(&file).unwrap();
    // Where it is dialled, its operator may change.
    std::fs::write(&file, kept.replace("host:1", "other:2")).unwrap();
    assert_eq!(home.coordinator().unwrap().quic, "other:2");
    let other = Digest::of(b"other").to_string();
    for (was, is) in
        [("leiden", "kyoto"), (coordinator.consortium.to_string().as_str(), other.as_str()), ("\"seal\": \"", "\"seal\": \"0")]
    {
        std::fs::write(&file, kept.replace(was, is)).unwrap();
        assert_eq!(home.coordinator().unwrap_err().code(), "pin-differs", "{is}");
    }
    // Another site's, whole.
    let elsewhere = tempfile::tempdir().unwrap();
    joined(&Home::init(elsewhere.path(), None).unwrap(), 1);
    std::fs::copy(elsewhere.path().join(COORDINATOR), &file).unwrap();
    assert_eq!(home.coordinator().unwrap_err().code(), "pin-differs");
}

#[test]
fn a_trust_bundle_is_what_the_roots_signed_and_the_log_names() {
    use vestibule_protocol::trust::Trust;
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let (pinned, at) = (joined(&home, 1).consortium, std::time::Duration::from_secs(100));
    assert_eq!(home.trust().unwrap(), None);
    for version in [1, 2] {
        let envelope = bundle(1, version);
        home.believe(&envelope, &Trust::first(&envelope, pinned).unwrap(), at).unwrap();
        assert_eq!(home.trust().unwrap().unwrap().bundle().version, version);
    }
    let last = temp.path().join(bundle_file(*home.ledger().unwrap().bundles().unwrap().last().unwrap()));
    // One of other roots, one that the roots signed and the log does not name, an older one, one that nobody signed.
    let unsigned = String::from_utf8(bundle(1, 2)).unwrap();
    let at = unsigned.find("\"sig\":\"").unwrap() + 7;
    let unsigned = format!("{}AAAA{}", &unsigned[..at], &unsigned[at + 4..]);
    for (forged, code) in [
        (bundle(2, 2), "trust-signatures"),
        (bundle(1, 3), "document-differs"),
        (bundle(1, 1), "document-differs"),
        (unsigned.into_bytes(), "trust-signatures"),
    ] {
        std::fs::write(&last, forged).unwrap();
        assert_eq!(home.trust().unwrap_err().code(), code);
    }
    std::fs::remove_file(&last).unwrap();
    assert_eq!(home.trust().unwrap_err().code(), "site-io");
}

#[test]
fn a_charter_that_the_log_does_not_name_counts_for_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let envelope = crate::charter::tests::charter().sign(&crate::admission::tests::researcher()).unwrap();
    let at = std::time::Duration::from_secs(100);
    let accepted = home.accept(&envelope, Terms { review: true, ..Terms::default() }, at).unwrap();
    let charter = accepted.signed().digest();
    let (_, terms) = home.ledger().unwrap().charters().unwrap()[0];
    // Other terms in the place of the ones that were accepted.
    let file = temp.path().join(terms_file(charter, terms));
    let kept = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, kept.replace("true", "false")).unwrap();
    assert_eq!(home.charters().unwrap_err().code(), "document-differs");
    std::fs::write(&file, &kept).unwrap();
    // Files of a charter that nobody here accepted.
    let other = Home::init(&temp.path().join("other"), None).unwrap();
    for name in [charter_file(charter), terms_file(charter, terms)] {
        std::fs::copy(temp.path().join(&name), temp.path().join("other").join(&name)).unwrap();
    }
    assert_eq!(other.charters().unwrap(), []);
    assert_eq!(home.charters().unwrap(), [accepted]);
}

#[test]
fn the_store_key_is_replaced_and_the_old_one_opens_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path();
    let home = Home::init(path, Some("secret")).unwrap();
    let (old, data_key) = (std::fs::read(path.join(STORE_KEY)).unwrap(), home.store_key().inputs(b"x"));
    home.rotate_store_key(Some("secret")).unwrap();
    let new = std::fs::read(path.join(STORE_KEY)).unwrap();
    assert!(new != old && !path.join(NEXT_STORE_KEY).exists());
    assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
    std::fs::write(path.join(STORE_KEY), &old).unwrap();
    assert_eq!(Home::open(path, Some("secret")).unwrap_err().code(), "data-key");
    // Killed after the data key was sealed anew, and before the new key was in its place.
    std::fs::write(path.join(NEXT_STORE_KEY), &new).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path.join(NEXT_STORE_KEY), mode).unwrap();
    assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
    // The next rotation ends it first: at no moment is the one key that opens overwritten.
    let opened = Home::open(path, Some("secret")).unwrap();
    assert_eq!(opened.rotate_store_key(None).unwrap_err().code(), "key-passphrase-needed");
    opened.rotate_store_key(Some("secret")).unwrap();
    assert!(!path.join(NEXT_STORE_KEY).exists());
    assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
    // Killed before the data key was sealed anew: the next key opens nothing, and the old one holds.
    std::fs::write(path.join(NEXT_STORE_KEY), &old).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path.join(NEXT_STORE_KEY), mode).unwrap();
    assert_eq!(Home::open(path, Some("secret")).unwrap().store_key().inputs(b"x"), data_key);
}

#[test]
fn keys_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    Home::init(temp.path(), None).unwrap();
    let file = temp.path().join("keys/log.pem");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Home::open(temp.path(), None).unwrap_err();
    assert!(error.code() == "key-mode" && error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn two_daemons_cannot_share_a_folder() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let lock = home.lock().unwrap();
    assert_eq!(Home::open(temp.path(), None).unwrap().lock().unwrap_err().code(), "site-in-use");
    drop(lock);
    home.lock().unwrap();
}

#[test]
fn a_folder_is_its_own_accounts_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("site");
    drop(Home::init(&path, None).unwrap().lock().unwrap());
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    for folder in FOLDERS.into_iter().chain([""]) {
        assert_eq!(mode(folder), 0o700, "{folder}");
    }
    for file in ["site.toml", "lock", LEDGER, WITNESS, "data.key", "keys/log.pem"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    for (name, open) in [("", 0o755), ("", 0o710), (LEDGER, 0o644), (WITNESS, 0o640), ("lock", 0o604)] {
        let kept = mode(name);
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(open)).unwrap();
        let error = Home::open(&path, None).unwrap_err();
        assert!(error.code() == "folder-mode" && error.to_string().contains("chmod"), "{name}: {error}");
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(kept)).unwrap();
        Home::open(&path, None).unwrap();
    }
}

#[test]
fn a_site_without_its_ledger_does_not_open_its_books() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    drop(home);
    std::fs::remove_file(temp.path().join(LEDGER)).unwrap();
    assert_eq!(Home::open(temp.path(), None).unwrap().ledger().unwrap_err().code(), "ledger-missing");
    assert!(!temp.path().join(LEDGER).exists());
}

#[test]
fn a_backup_is_restored_with_the_keys_or_not_at_all() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let home = Home::init(&at("site"), None).unwrap();
    let coordinator = joined(&home, 1);
    home.backup(&at("backup"), true).unwrap();
    assert!(!at("backup").join(WITNESS).exists() && !at("backup/data.key").exists());
    let restore = |keys: &str, to: &str| Home::restore(&at("backup"), &at(keys), &at(to), None);
    restore("site/keys", "again").unwrap();
    let again = Home::open(&at("again"), None).unwrap();
    assert_eq!(again.coordinator().unwrap(), coordinator);
    assert_eq!(again.store_key().inputs(b"x"), home.store_key().inputs(b"x"));
    assert_eq!(restore("site/keys", "again").unwrap_err().code(), "site-io");
    // A copy by hand is no site, also where its list was taken away.
    std::fs::rename(at("again/keys"), at("backup/keys")).unwrap();
    assert_eq!(Home::open(&at("backup"), None).unwrap_err().code(), "site-backup");
    let list = std::fs::read(at("backup/backup.json")).unwrap();
    std::fs::remove_file(at("backup/backup.json")).unwrap();
    assert_eq!(Home::open(&at("backup"), None).unwrap_err().code(), "site-io");
    assert_eq!(restore("site/keys", "more").unwrap_err().code(), "site-io");
    std::fs::write(at("backup/backup.json"), &list).unwrap();
    // Every file of it, changed, taken away, or put in another's place; and the list itself.
    for name in ["site.toml", COORDINATOR, LEDGER] {
        let kept = std::fs::read(at("backup").join(name)).unwrap();
        std::fs::write(at("backup").join(name), [kept.as_slice(), b" "].concat()).unwrap();
        assert_eq!(restore("site/keys", "more").unwrap_err().code(), "backup-changed", "{name}");
        std::fs::remove_file(at("backup").join(name)).unwrap();
        assert_eq!(restore("site/keys", "more").unwrap_err().code(), "backup-changed", "{name}");
        std::fs::write(at("backup").join(name), kept).unwrap();
    }
    let text = String::from_utf8(list).unwrap();
    std::fs::write(at("backup/backup.json"), text.replacen("sha256:", "sha256:0", 1)).unwrap();
    assert_eq!(restore("site/keys", "more").unwrap_err().code(), "backup-changed");
    std::fs::write(at("backup/backup.json"), &text).unwrap();
    Home::init(&at("other"), None).unwrap();
    assert_eq!(restore("other/keys", "more").unwrap_err().code(), "data-key");
    assert!(!at("more").exists() && !at("more.part").exists());
    restore("site/keys", "more").unwrap();
}

#[test]
fn the_slowest_of_all_starts_is_what_counts() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::init(temp.path(), None).unwrap();
    let start = |costs: Costs| home.costs(|| Ok::<_, HomeError>(costs)).unwrap();
    let quiet = Costs::USUAL;
    let busy = Costs { fuel_ns: quiet.fuel_ns * 1.6, ..quiet };
    let other = Costs { mib_us: quiet.mib_us * 2.0, ..quiet };
    assert_eq!(start(quiet), quiet);
    assert_eq!(start(busy), busy);
    assert_eq!(start(quiet), busy, "it was slower once");
    assert_eq!(start(other), Costs { mib_us: other.mib_us, ..busy });
    // Where the file is gone, it begins anew.
    std::fs::remove_file(temp.path().join("slowest.json")).unwrap();
    assert_eq!(start(quiet), quiet);
}
