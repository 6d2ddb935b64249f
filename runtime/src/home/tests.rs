//! A site's folder: made once, opened with its passphrase, refused where it is not as it must be.

use super::keys::NEXT_STORE_KEY;
use super::*;
use crate::charter::Terms;

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
    let accepted = home.accept(&envelope, terms).unwrap();
    assert_eq!(home.accept(b"{}", Terms::default()).unwrap_err().code(), "envelope-malformed");
    assert_eq!(home.charters().unwrap(), std::slice::from_ref(&accepted));
    let digest = accepted.signed().digest();
    home.leave(digest).unwrap();
    assert_eq!(home.leave(digest).unwrap_err().code(), "charter-unknown");
    assert!(home.charters().unwrap().is_empty());
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
