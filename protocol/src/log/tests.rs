//! Trees against another implementation; notes against published ones; quorums; and what happens when a byte is changed.

use std::collections::HashSet;

use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;

use super::checkpoint::Checkpoint;
use super::leaf::{Event, Leaf};
use super::note::{self, Kind, Verifier};
use super::policy::{NotProven, Policy};
use super::proof::{AddCheckpoint, LeafProof};
use super::tree::{self, Growing, Nodes};
use crate::digest::Digest;
use crate::key::SecretKey;

/// Complete subtrees in memory.
#[derive(Default)]
struct Memory(std::collections::HashMap<(u32, u64), Digest>, u64);

impl Nodes for Memory {
    type Error = std::convert::Infallible;
    fn node(&self, level: u32, number: u64) -> Result<Digest, Self::Error> {
        Ok(self.0[&(level, number)])
    }
}

impl Memory {
    fn push(&mut self, body: &[u8]) {
        for (level, number, hash) in tree::completed(self.1, tree::leaf_hash(body), self).unwrap() {
            self.0.insert((level, number), hash);
        }
        self.1 += 1;
    }
}

fn body(index: u64) -> Vec<u8> {
    index.to_be_bytes().to_vec()
}

#[test]
fn roots_and_proofs_are_those_of_another_implementation() {
    let (mut ours, mut growing, mut oracle) =
        (Memory::default(), Growing::default(), MemoryBackedTree::<Sha256, Vec<u8>>::new());
    let mut roots = vec![tree::root(0, &ours).unwrap()];
    for size in 1..=67 {
        ours.push(&body(size - 1));
        growing.push(tree::leaf_hash(&body(size - 1)));
        oracle.push(body(size - 1));
        let root = tree::root(size, &ours).unwrap();
        assert_eq!(root.as_bytes().as_slice(), oracle.root().as_bytes().as_slice());
        assert_eq!((growing.size(), growing.root()), (size, root));
        roots.push(root);
        let bytes = |proof: &[Digest]| proof.iter().flat_map(|hash| *hash.as_bytes()).collect::<Vec<u8>>();
        for index in 0..size {
            let proof = tree::inclusion(index, size, &ours).unwrap();
            assert_eq!(bytes(&proof), oracle.prove_inclusion(usize::try_from(index).unwrap()).as_bytes());
            let leaf = tree::leaf_hash(&body(index));
            assert!(tree::is_included(&leaf, index, size, &proof, &root));
            // Another place, size, leaf, root, a hash more or less.
            assert!(!tree::is_included(&leaf, index + 1, size, &proof, &root));
            assert!(size == 1 || !tree::is_included(&leaf, index ^ 1, size, &proof, &root));
            assert!(!tree::is_included(&root, index, size, &proof, &root) || size == 1 && root == leaf);
            assert!(!tree::is_included(&leaf, index, size, &proof, &leaf) || size == 1);
            let longer = [proof.as_slice(), &[root]].concat();
            assert!(!tree::is_included(&leaf, index, size, &longer, &root));
            if let Some((_, shorter)) = proof.split_last() {
                assert!(!tree::is_included(&leaf, index, size, shorter, &root));
            }
        }
        for old in 1..=size {
            let proof = tree::consistency(old, size, &ours).unwrap();
            let additions = usize::try_from(size - old).unwrap();
            assert_eq!(bytes(&proof), oracle.prove_consistency(additions).as_bytes());
            let earlier = (old, &roots[usize::try_from(old).unwrap()]);
            assert!(tree::is_consistent(earlier, (size, &root), &proof));
            assert!(!tree::is_consistent(earlier, (size, &Digest::of(b"fork")), &proof));
            assert!(!tree::is_consistent((old, &Digest::of(b"fork")), (size, &root), &proof));
            assert!(!tree::is_consistent(earlier, (size, &root), &[proof.as_slice(), &[root]].concat()));
            for at in 0..proof.len() {
                let mut changed = proof.clone();
                changed[at] = Digest::of(b"other");
                assert!(!tree::is_consistent(earlier, (size, &root), &changed), "{old} of {size}, hash {at}");
            }
            assert_eq!(tree::is_consistent((size, &root), earlier, &proof), old == size);
        }
        assert!(tree::is_consistent((0, &roots[0]), (size, &root), &[]));
    }
}

#[test]
fn a_published_note_is_read_and_written() {
    // The example of Go's `sumdb/note`, which the format comes from.
    let seed = crate::digest::unhex("810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173").unwrap();
    let key = SecretKey::from_seed(seed).unwrap();
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let published = format!(
        "{text}\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    );
    assert_eq!(note::sign(text, "PeterNeumann", &key), published);
    let verifier = Verifier { name: "PeterNeumann".into(), key: key.public(), kind: Kind::Log };
    assert_eq!(verifier.vkey(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    let known = [verifier];
    let (found, by) = note::open(&published, &known).unwrap();
    assert_eq!((found, by.len()), (text, 1));
    // Nobody known signed it.
    assert_eq!(note::open(&published, &[]).unwrap().1, []);
    for at in 0..published.len() {
        let mut changed = published.clone().into_bytes();
        changed[at] ^= 1;
        let Ok(changed) = String::from_utf8(changed) else { continue };
        let accepted = note::open(&changed, &known).is_ok_and(|(found, by)| !by.is_empty() && found != text);
        assert!(!accepted, "byte {at}");
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

fn witness(seed: u8) -> Verifier {
    Verifier { name: format!("witness.example/{seed}"), key: key(seed).public(), kind: Kind::Cosignature }
}

fn policy() -> Policy {
    let text = format!(
        "# sites, and an oversight body\nwitness a {}\nwitness b {}\nwitness c {}\nwitness o {} https://o.example\n\
         group sites 2 a b c\n\tgroup oversight any o\ngroup both all sites oversight\nquorum both\n",
        witness(1).vkey(),
        witness(2).vkey(),
        witness(3).vkey(),
        witness(4).vkey()
    );
    Policy::parse(&text).unwrap()
}

#[test]
fn a_quorum_is_what_the_policy_says() {
    let policy = policy();
    let quorum = |names: &[&'static str]| policy.is_quorum(&names.iter().copied().collect::<HashSet<_>>());
    assert!(quorum(&["a", "b", "o"]) && quorum(&["a", "b", "c", "o"]));
    assert!(!quorum(&["a", "b", "c"]) && !quorum(&["a", "o"]) && !quorum(&[]) && !quorum(&["both", "sites"]));
    assert!(Policy::parse("quorum none\n").unwrap().is_quorum(&HashSet::new()));
    assert_eq!((policy.url("o"), policy.url("a")), (Some("https://o.example"), None));
    let vkey = witness(1).vkey();
    for (text, line, why) in [
        (String::new(), 0, "quorum"),
        ("quorum x".into(), 1, "defined above"),
        (format!("witness a {vkey}\nwitness b {vkey}\nquorum a"), 2, "twice"),
        (format!("witness a {vkey}\nwitness a {vkey}\nquorum a"), 2, "twice"),
        (format!("witness none {vkey}\nquorum none"), 1, "taken"),
        (format!("witness a {vkey}x\nquorum a"), 1, "vkey"),
        (format!("witness a {vkey}\ngroup g 2 a\nquorum g"), 2, "as many"),
        (format!("witness a {vkey}\ngroup g 1 a g\nquorum g"), 2, "defined above"),
        (format!("witness a {vkey}\ngroup g 1 a\ngroup h 1 a\nquorum g"), 3, "already"),
        (format!("log {vkey}\nquorum none"), 1, "expected"),
        ("quorum none\nquorum none".into(), 2, "already"),
        (format!("witness a {vkey} http://a.example\nquorum a"), 1, "https"),
        (format!("witness a {vkey} https://\nquorum a"), 1, "https"),
        // Only looks like this machine, or like a place.
        (format!("witness a {vkey} http://127.0.0.1:8420@evil.example/w\nquorum a"), 1, "https"),
        (format!("witness a {vkey} http://localhost.evil.example/w\nquorum a"), 1, "https"),
        (format!("witness a {vkey} https://a.example@evil.example/w\nquorum a"), 1, "https"),
        (format!("witness a {vkey} https://a.example/?w\nquorum a"), 1, "https"),
        (format!("witness \u{1b}a {vkey}\nquorum none"), 1, "visible"),
        (format!("witness a {vkey} https://a.example b\nquorum a"), 1, "expected"),
    ] {
        let error = Policy::parse(&text).unwrap_err();
        assert!(error.why.contains(why) && error.line == line, "{text}: {error}");
    }
}

#[test]
fn a_leaf_is_proven_by_log_and_quorum_and_nothing_less() {
    let log = Verifier { name: "vestibule.example/log".into(), key: key(9).public(), kind: Kind::Log };
    let mut nodes = Memory::default();
    let leaves: Vec<Vec<u8>> = (0..5).map(|at_ms| Leaf { at_ms, event: Event::Heartbeat, details: None }.to_bytes()).collect();
    leaves.iter().for_each(|leaf| nodes.push(leaf));
    let checkpoint = Checkpoint { origin: log.name.clone(), size: 5, root: tree::root(5, &nodes).unwrap() };
    let text = checkpoint.text();
    assert_eq!(Checkpoint::parse(&text), Some(checkpoint));
    let signed = note::sign(&text, &log.name, &key(9));
    let cosigned = |seeds: &[u8]| {
        seeds.iter().fold(signed.clone(), |note, seed| note + &note::cosign(&text, &witness(*seed).name, &key(*seed), 7))
    };
    let proof = |seeds: &[u8]| {
        LeafProof { index: 3, hashes: tree::inclusion(3, 5, &nodes).unwrap(), checkpoint: cosigned(seeds) }.text()
    };
    let policy = policy();
    let good = proof(&[1, 2, 4]);
    assert_eq!(policy.prove(&leaves[3], &good, std::slice::from_ref(&log), "c").unwrap().at_ms, 3);
    assert_eq!(policy.prove(&leaves[2], &good, std::slice::from_ref(&log), "c"), Err(NotProven::Inclusion));
    assert_eq!(policy.prove(&leaves[3], &proof(&[1, 4]), std::slice::from_ref(&log), "c"), Err(NotProven::Quorum));
    // Its own witness does not count.
    assert_eq!(policy.prove(&leaves[3], &good, std::slice::from_ref(&log), "a"), Err(NotProven::Quorum));
    let other = Verifier { key: key(8).public(), ..log.clone() };
    assert_eq!(policy.prove(&leaves[3], &good, std::slice::from_ref(&other), "c"), Err(NotProven::Log));
    let named = Verifier { name: "vestibule.example/other".into(), ..log.clone() };
    assert_eq!(policy.prove(&leaves[3], &good, std::slice::from_ref(&named), "c"), Err(NotProven::Log));
    // Signed by the witnesses, not by the log.
    let unsigned = note::keep_known(&cosigned(&[1, 2, 4]), &[witness(1), witness(2), witness(4)]).unwrap();
    assert_eq!(policy.check(&unsigned, std::slice::from_ref(&log), "c"), Err(NotProven::Log));
    for at in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[at] ^= 1;
        let Ok(changed) = String::from_utf8(changed) else { continue };
        assert!(policy.prove(&leaves[3], &changed, std::slice::from_ref(&log), "c").is_err(), "byte {at}");
    }
}

#[test]
fn what_is_asked_of_a_witness_is_read_back() {
    for hashes in [vec![], vec![Digest::of(b"a"), Digest::of(b"b")]] {
        let asked = AddCheckpoint { old: 20, hashes, checkpoint: "origin\n21\nroot\n\n\u{2014} x y\n".into() };
        assert_eq!(AddCheckpoint::parse(&asked.text()), Some(asked));
    }
    for bad in ["", "old 1", "old 01\n\nx", "old 1\nAA==\n\nx", "old -1\n\nx", "new 1\n\nx"] {
        assert_eq!(AddCheckpoint::parse(bad), None, "{bad}");
    }
}

#[test]
fn leaves_have_one_form() {
    let job = crate::job::JobId::from_bytes([3; 16]);
    let event = Event::Settled { job, round: 1, release: Digest::of(b"release") };
    let leaf = Leaf { at_ms: 1_795_000_000_123, event, details: Some(super::leaf::commitment(&[1; 32], "{}")) };
    let golden = format!(
        "{{\"at_ms\":1795000000123,\"event\":{{\"kind\":\"settled\",\"job\":\"{job}\",\"round\":1,\"release\":\"{}\"}},\"details\":\"{}\"}}",
        Digest::of(b"release"),
        Digest::of(&[[1; 32].as_slice(), b"{}"].concat())
    );
    assert_eq!(String::from_utf8(leaf.to_bytes()).unwrap(), golden);
    assert_eq!(Leaf::parse(golden.as_bytes()).unwrap(), leaf);
    assert!(Leaf::parse(golden.replacen("at_ms", "at", 1).as_bytes()).is_err());
    assert!(Leaf::parse(golden.replacen("\"round\"", "\"more\":1,\"round\"", 1).as_bytes()).is_err());
}
