//! What continues is cosigned; what forks is kept, once; a copy of a memory knows nothing for sure.

use super::*;
use crate::ledger::{Ledger, Seal};
use std::time::Duration;
use vestibule_protocol::log::leaf::Event;

const SECRET: [u8; 32] = [7; 32];

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

fn beat(ledger: &Ledger, times: u64) {
    (0..times).for_each(|second| ledger.record(Event::Heartbeat, None, Duration::from_secs(second)).unwrap());
}

/// What the log asks, whose last size at the witness it believes to be `old`.
fn ask(ledger: &Ledger, old: u64) -> String {
    let (now, checkpoint) = ledger.checkpoint(&key(1)).unwrap();
    AddCheckpoint { old, hashes: ledger.consistency(old, now.size).unwrap(), checkpoint }.text()
}

#[test]
fn a_witness_cosigns_what_goes_on_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
    let log = crate::log::verifier(&ledger.checkpoint(&key(1)).unwrap().0.origin, key(1).public());
    let known = |origin: &str| Known { log: (origin == log.name).then(|| log.clone()).into_iter().collect(), others: vec![] };
    let file = temp.path().join("witness.sqlite");
    let witness = Witness::create(&file, key(2), &SECRET).unwrap();
    let open = || Witness::open(&file, key(2), &SECRET, 1).unwrap();
    beat(&ledger, 3);
    let cosigned = witness.add(&ask(&ledger, 0), known, Stance::Cosigns, 100).unwrap();
    assert_eq!(cosigned.status, 200);
    let (at_three, note) = ledger.checkpoint(&key(1)).unwrap();
    let verifiers = [verifier(key(2).public())];
    let whole = note + &cosigned.body;
    let (_, by) = note::open(&whole, &verifiers).unwrap();
    assert_eq!((by.len(), by[0].time), (1, 100));
    let backup = temp.path().join("backup.sqlite");
    ledger.connection().execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    beat(&ledger, 4);
    assert_eq!(witness.add(&ask(&ledger, 3), known, Stance::Cosigns, 101).unwrap().status, 200);
    // Again, and after a restart: the same is cosigned again.
    assert_eq!(open().add(&ask(&ledger, 7), known, Stance::Cosigns, 102).unwrap().status, 200);
    // A log that does not know how far the witness is, is shown its own checkpoint.
    let behind = witness.add(&ask(&ledger, 3), known, Stance::Cosigns, 103).unwrap();
    assert_eq!(behind.status, 409);
    let (text, by) = note::open(&behind.body, &verifiers).unwrap();
    assert_eq!((Checkpoint::parse(text).unwrap().size, by.len()), (7, 1));
    assert_eq!(witness.evidence().unwrap(), vec![]);
    // A restored backup that goes another way is a fork, of whatever length, and its request is kept.
    let restored = Ledger::open(&backup, &Seal::for_tests()).unwrap();
    restored.record(Event::Operator { command: "other".parse().unwrap() }, None, Duration::ZERO).unwrap();
    for (more, status) in [(3, 409), (5, 422)] {
        beat(&restored, more);
        let request = ask(&restored, 7);
        let found = witness.add(&request, known, Stance::Cosigns, 104).unwrap();
        assert_eq!((found.status, &found.body), (status, &behind.body), "what it cosigned last is what it shows");
        assert_eq!(witness.evidence().unwrap().last(), Some(&(log.name.clone(), request)));
    }
    // The log itself goes on.
    beat(&ledger, 1);
    assert_eq!(witness.add(&ask(&ledger, 7), known, Stance::Cosigns, 105).unwrap().status, 200);
    assert_eq!(at_three.size, 3);
}

#[test]
fn strangers_and_nonsense_get_no_cosignature() {
    let temp = tempfile::tempdir().unwrap();
    let ledger = Ledger::create(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
    beat(&ledger, 3);
    let witness = Witness::create(&temp.path().join("witness.sqlite"), key(2), &SECRET).unwrap();
    let origin = ledger.checkpoint(&key(1)).unwrap().0.origin;
    let log = crate::log::verifier(&origin, key(1).public());
    let status = |request: &str, log: Option<Verifier>| {
        witness
            .add(request, |_| Known { log: log.clone().into_iter().collect(), others: vec![] }, Stance::Cosigns, 1)
            .unwrap()
            .status
    };
    let good = ask(&ledger, 0);
    assert_eq!(status("old", Some(log.clone())), 400);
    assert_eq!(status(&good, None), 404);
    assert_eq!(status(&good, Some(crate::log::verifier(&origin, key(9).public()))), 403);
    assert_eq!(status(&good.replacen("old 0", "old 9", 1), Some(log.clone())), 400);
    assert_eq!(status(&good.replacen("old 0", "old 2", 1), Some(log.clone())), 409);
    let (text, rest) = good.split_once("\n\n").unwrap();
    assert_eq!(status(&format!("{text}\nAAAA\n\n{rest}"), Some(log.clone())), 400);
    assert_eq!(status(&good, Some(log)), 200);
}

/// A log, who it is to a witness, and what it asks.
struct Lab {
    temp: tempfile::TempDir,
    ledger: Ledger,
    log: Verifier,
}

impl Lab {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let ledger = Ledger::create(&temp.path().join("ledger.sqlite"), &Seal::for_tests()).unwrap();
        let log = crate::log::verifier(&ledger.checkpoint(&key(1)).unwrap().0.origin, key(1).public());
        Self { temp, ledger, log }
    }

    fn file(&self) -> std::path::PathBuf {
        self.temp.path().join("witness.sqlite")
    }

    fn known(&self, _: &str) -> Known {
        Known { log: vec![self.log.clone()], others: vec![verifier(key(3).public())] }
    }

    fn add(&self, witness: &Witness, request: &str, stance: Stance, now: u64) -> Cosigned {
        witness.add(request, |origin| self.known(origin), stance, now).unwrap()
    }
}

#[test]
fn evidence_is_kept_once_for_a_size_of_few_sizes_and_without_what_nobody_signed() {
    let lab = Lab::new();
    let witness = Witness::create(&lab.file(), key(2), &SECRET).unwrap();
    beat(&lab.ledger, 3);
    assert_eq!(lab.add(&witness, &ask(&lab.ledger, 0), Stance::Cosigns, 100).status, 200);
    // Forged checkpoints of the size that was seen and of others, each with signatures of nobody beside the log's own.
    let forged = |size: u64, root: u8| {
        let forged = Checkpoint { origin: lab.log.name.clone(), size, root: Digest::of(&[root]) };
        let mut checkpoint = crate::log::sign(&forged, &key(1));
        (0..60).for_each(|_| checkpoint.push_str(&note::cosign(&forged.text(), "nobody.example", &key(9), 1)));
        AddCheckpoint { old: 3, hashes: vec![], checkpoint }.text()
    };
    for root in 0..20 {
        assert_eq!(lab.add(&witness, &forged(3, root), Stance::Cosigns, 101).status, 409);
        assert_eq!(lab.add(&witness, &forged(4 + u64::from(root), root), Stance::Cosigns, 101).status, 422);
    }
    let evidence = witness.evidence().unwrap();
    assert_eq!(evidence.len() as i64, MAX_EVIDENCE);
    assert!(evidence.iter().all(|(_, request)| request.len() < 512 && !request.contains("nobody")), "{evidence:?}");
    let sizes = evidence.iter().filter(|(_, request)| request.contains(&format!("{}\n3\n", lab.log.name))).count();
    assert_eq!(sizes, 1);
}

#[test]
fn a_log_that_asks_too_often_is_told_so_and_no_other_is() {
    let lab = Lab::new();
    let witness = Witness::create(&lab.file(), key(2), &SECRET).unwrap();
    beat(&lab.ledger, 1);
    let asked = ask(&lab.ledger, 0);
    assert_eq!(lab.add(&witness, &asked, Stance::Cosigns, 100).status, 200);
    let forged = Checkpoint { origin: lab.log.name.clone(), size: 1, root: Digest::of(b"x") };
    let forged = AddCheckpoint { old: 1, hashes: vec![], checkpoint: crate::log::sign(&forged, &key(1)) }.text();
    let statuses: Vec<u16> = (0..rate::BURST + 1).map(|_| lab.add(&witness, &forged, Stance::Cosigns, 100).status).collect();
    assert_eq!((statuses[0], statuses.last()), (409, Some(&TOO_MANY)));
    // What it has shown already is cosigned again; another log is not kept waiting; a second later there is room.
    assert_eq!(lab.add(&witness, &ask(&lab.ledger, 1), Stance::Cosigns, 100).status, 200);
    let other = Lab::new();
    beat(&other.ledger, 1);
    assert_eq!(other.add(&witness, &ask(&other.ledger, 0), Stance::Cosigns, 100).status, 200);
    assert_eq!(lab.add(&witness, &forged, Stance::Cosigns, 101).status, 409);
}

#[test]
fn a_witness_whose_own_log_was_not_shown_says_what_it_has_seen_and_cosigns_nothing() {
    let lab = Lab::new();
    let witness = Witness::create(&lab.file(), key(2), &SECRET).unwrap();
    beat(&lab.ledger, 3);
    let verifiers = [verifier(key(2).public())];
    let said = |answer: &Cosigned, now| {
        assert_eq!(answer.status, NOT_NOW);
        let (text, by) = note::open(&answer.body, &verifiers).unwrap();
        assert_eq!((by.len(), by[0].time), (1, now));
        Checkpoint::parse(text).unwrap().size
    };
    assert_eq!(said(&lab.add(&witness, &ask(&lab.ledger, 0), Stance::Remembers, 50), 50), 0);
    assert_eq!(lab.add(&witness, &ask(&lab.ledger, 0), Stance::Cosigns, 51).status, 200);
    beat(&lab.ledger, 1);
    let answer = lab.add(&witness, &ask(&lab.ledger, 3), Stance::Remembers, 60);
    assert_eq!(said(&answer, 60), 3);
    assert!(
        note::open(&answer.body, std::slice::from_ref(&lab.log)).is_ok_and(|(_, by)| by.len() == 1),
        "the log signed it too"
    );
    assert_eq!(witness.seen().unwrap(), [(lab.log.name.clone(), 3)]);
    // A frozen site says nothing at all.
    let silent = lab.add(&witness, &ask(&lab.ledger, 3), Stance::Silent, 61);
    assert_eq!((silent.status, silent.body.as_str()), (NOT_NOW, ""));
}

#[test]
fn a_copy_of_a_memory_counts_for_nothing_until_another_witness_has_cosigned() {
    let lab = Lab::new();
    let witness = Witness::create(&lab.file(), key(2), &SECRET).unwrap();
    beat(&lab.ledger, 3);
    assert_eq!(lab.add(&witness, &ask(&lab.ledger, 0), Stance::Cosigns, 100).status, 200);
    drop(witness);
    // Where it was, it remembers, also with another key in the place of its own.
    let rotated = Witness::open(&lab.file(), key(4), &SECRET, 999).unwrap();
    assert_eq!(lab.add(&rotated, &ask(&lab.ledger, 3), Stance::Cosigns, 999).status, 200);
    drop(rotated);
    let witness = Witness::open(&lab.file(), key(2), &SECRET, 1_000).unwrap();
    assert_eq!(lab.add(&witness, &ask(&lab.ledger, 3), Stance::Cosigns, 1_000).status, 200);
    drop(witness);
    let (copy, lost) = (lab.temp.path().join("copy.sqlite"), lab.temp.path().join("lost.sqlite"));
    std::fs::copy(lab.file(), &copy).unwrap();
    beat(&lab.ledger, 2);
    let (checkpoint, note) = lab.ledger.checkpoint(&key(1)).unwrap();
    let with = |old: u64, by: u8, time: u64| {
        let line = note::cosign(&checkpoint.text(), &name_of(&key(by).public()), &key(by), time);
        AddCheckpoint { old, hashes: lab.ledger.consistency(old, 5).unwrap(), checkpoint: format!("{note}{line}") }.text()
    };
    for (file, old) in [(&copy, 3), (&lost, 0)] {
        let open = || Witness::open(file, key(2), &SECRET, 2_000).unwrap();
        let witness = open();
        let add = |request: &str, stance| lab.add(&witness, request, stance, 2_000);
        let nothing = |answer: Cosigned| assert_eq!((answer.status, answer.body.as_str()), (NOT_NOW, ""));
        nothing(add(&ask(&lab.ledger, old), Stance::Cosigns));
        nothing(add(&ask(&lab.ledger, old), Stance::Remembers));
        // By itself, by a stranger, and by another witness before this one was copied.
        nothing(add(&with(old, 2, 2_000), Stance::Cosigns));
        nothing(add(&with(old, 9, 2_000), Stance::Cosigns));
        nothing(add(&with(old, 3, 2_000 - SKEW - 1), Stance::Cosigns));
        // To be opened again makes it no surer.
        nothing(lab.add(&open(), &ask(&lab.ledger, old), Stance::Cosigns, 2_001));
        assert_eq!(add(&with(old, 3, 2_000 - SKEW), Stance::Cosigns).status, 200);
        assert_eq!(add(&ask(&lab.ledger, 5), Stance::Cosigns).status, 200);
        // Of every other log it knows as little as before, until somebody says that it was compared.
        let other = Lab::new();
        beat(&other.ledger, 1);
        nothing(other.add(&witness, &ask(&other.ledger, 0), Stance::Cosigns, 2_000));
        drop(witness);
        Witness::vouch(file, &SECRET).unwrap();
        assert_eq!(other.add(&open(), &ask(&other.ledger, 0), Stance::Cosigns, 2_000).status, 200);
    }
    // Nobody without the key says that a copy is none.
    let connection = Connection::open(&copy).unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&copy).unwrap());
    connection.execute("UPDATE place SET inode = ?1, since = NULL, seal = zeroblob(32)", [inode.to_string()]).unwrap();
    connection.execute("UPDATE seen SET sure = 1", []).unwrap();
    drop(connection);
    let forged = Witness::open(&copy, key(2), &SECRET, 2_000).unwrap();
    assert_eq!(lab.add(&forged, &ask(&lab.ledger, 5), Stance::Cosigns, 2_000).status, NOT_NOW);
}
