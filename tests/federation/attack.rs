//! `vestibule attack`: every attack is held off; and each is seen to succeed where the mechanism is broken on purpose.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::world::{root, run};

fn attacks(arguments: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let output = run(&root(), &[&["--json", "attack"], arguments].concat());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = document["attacks"].as_array().unwrap_or_else(|| panic!("{document}")).iter().map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        (text("name"), (text("verdict"), text("observed")))
    });
    (output.status.code().unwrap(), rows.collect())
}

#[test]
fn every_attack_is_held_off() {
    let (code, rows) = attacks(&[]);
    let broken: Vec<_> = rows.iter().filter(|(_, (verdict, _))| verdict != "held").collect();
    assert!(code == 0 && broken.is_empty(), "{broken:?}");
    assert!(rows.len() >= 89, "{} attacks", rows.len());
    // The game is strong enough to see what is there: four fifths of what was charged, at least.
    let (_, observed) = &rows["tell from one released number whether a person is there"];
    let numbers: Vec<f64> = observed.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] >= 0.8 * numbers[1] && numbers[0] <= numbers[1], "{observed}");
}

/// The defect, and an attack that is made for it.
#[test]
fn each_attack_sees_the_defect_that_it_is_made_for() {
    for (defect, attack) in [
        ("reused-instance", "count in a static variable who came before"),
        ("reused-instance", "leave marks in memory for the next person"),
        ("reused-instance", "look for the last person in memory that is grown by"),
        ("reused-instance", "change the round's state, which everybody's instance begins with"),
        ("no-clamp", "return a person's data as a huge number"),
        ("no-clamp", "return bytes where reals were declared"),
        ("nan-poison", "return NaN, to poison the sum"),
        ("wall-clock", "be slow at a person, so that others run out of time"),
        ("trap-count", "trap at a person"),
        ("half-noise", "tell from one released number whether a person is there"),
        ("half-noise", "guess of 4,000 people who is in one release, each alone in a cell"),
        ("half-noise", "ask for one person's row (DataSHIELD issue 250)"),
        ("shared-noise", "take the difference of two numbers of one release"),
        ("shared-noise", "solve 512 sums over chosen subsets for 96 people's secrets (Dinur and Nissim 2003, Huth 2023)"),
        ("stale-noise", "take the difference of two releases, one made before a person came"),
        ("stale-noise", "subtract two sums that differ by one person, at epsilon 1/2 each (DataSHIELD issue 251)"),
        ("block-reach", "fingerprint whole blocks of people: who is in one, and who moved to another"),
        ("unmetered", "work behind calls at a person, where an engine looks at no fuel"),
        ("kept-pages", "write over all that was baked in, at a person"),
        ("half-longest", "spend all fuel and memory on a person, so that the release comes later"),
        ("trying-choice", "tell from the time of a choice how the sums lie"),
        ("groups-of-people", "count the parts of a round, or its tasks on a cluster"),
        ("bare-digest", "try all values until one fits the digest of a denied release"),
        ("held-rows", "see from the memory that a round takes how many people are in it"),
        ("stop-at-end", "tell a site to stop while a round runs, and see when it does"),
        ("open-daemons", "have a daemon fail, and read keys and rows in what it leaves"),
        ("plans-in-place", "have `plan` work for ever, so that others wait"),
        ("sorted-factors", "give other factors than everybody else, so that products take longer"),
        ("sleeping-task", "read in a cluster's accounting how long a task's processors were busy"),
        ("no-delay", "spend all fuel and memory on a person, so that the release comes later"),
    ]
    .chunk_by(|a, b| a.0 == b.0)
    .map(|group| (group[0].0, group.iter().map(|(_, attack)| *attack).collect::<Vec<_>>()))
    {
        let (code, rows) = attacks(&["--defect", defect]);
        assert_eq!(code, 1, "{defect}");
        for attack in attack {
            assert_eq!(rows[attack].0, "broken", "{defect}: {attack}: {}", rows[attack].1);
        }
    }
}
