//! Who must sign, what may follow what, and bundles that nobody would believe.

use super::*;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

fn roots(seeds: &[u8], threshold: u32) -> Roots {
    Roots { threshold, keys: seeds.iter().map(|seed| key(*seed).public()).collect() }
}

fn site(name: &str, seed: u8) -> Site {
    Site {
        name: name.parse().unwrap(),
        organisation: format!("hospital of {name}").parse().unwrap(),
        country: "NL".parse().unwrap(),
        link: key(seed).public(),
        log_origin: format!("vestibule/log/{seed}").parse().unwrap(),
        former: Former::default(),
        log: key(seed + 1).public(),
    }
}

fn bundle() -> Bundle {
    let witness = |name: &str, seed: u8| {
        let verifier = Verifier { name: format!("vestibule/{name}"), key: key(seed).public(), kind: Kind::Cosignature };
        format!("witness {name} {}\n", verifier.vkey())
    };
    let ada = Person {
        name: "ada".parse().unwrap(),
        organisation: "university".parse().unwrap(),
        country: "DE".parse().unwrap(),
        roles: BTreeSet::from([Role::Researcher]),
        key: key(50).public(),
        former: BTreeSet::from([key(51).public()]),
    };
    Bundle {
        consortium: "north".parse().unwrap(),
        version: 1,
        issued: "2026-11-24T00:00:00Z".into(),
        expires: "2026-12-01T00:00:00Z".into(),
        roots: roots(&[1, 2, 3], 2),
        sites: vec![site("leiden", 10), site("kyoto", 20)],
        persons: vec![ada],
        witnesses: witness("leiden", 12) + &witness("kyoto", 22) + "group sites 1 leiden kyoto\nquorum sites\n",
        non_profits: BTreeSet::new(),
        revoked: Revoked::default(),
    }
}

fn signed(bundle: &Bundle, seeds: &[u8]) -> Vec<u8> {
    let first = bundle.sign(&key(seeds[0])).unwrap();
    seeds[1..].iter().fold(first, |envelope, seed| dsse::add_signature(&envelope, BUNDLE_TYPE, &key(*seed)).unwrap())
}

#[test]
fn former_keys_count_until_they_are_revoked() {
    let of = |revoked: &[u8]| {
        let keys = revoked.iter().map(|seed| key(*seed).public()).collect();
        let bundle = Bundle { revoked: Revoked { keys, components: BTreeSet::new() }, ..bundle() };
        Trust::first(&signed(&bundle, &[1, 2]), bundle.roots.fingerprint()).unwrap()
    };
    let name =
        |trust: &Trust, seed: u8| trust.person(&key(seed).public(), Role::Researcher).map(|person| person.name.to_string());
    let trust = of(&[]);
    assert_eq!((name(&trust, 50), name(&trust, 51)), (Some("ada".into()), Some("ada".into())));
    assert_eq!((trust.keys(Role::Researcher).len(), trust.keys(Role::Approver).len()), (2, 0));
    assert!(
        trust.same_person(&key(50).public(), &key(51).public()) && !trust.same_person(&key(50).public(), &key(52).public())
    );
    let trust = of(&[51]);
    assert_eq!((name(&trust, 50), name(&trust, 51), trust.keys(Role::Researcher).len()), (Some("ada".into()), None, 1));
    // It is still hers: she does not decide about what it signed.
    assert!(trust.same_person(&key(50).public(), &key(51).public()));
}

#[test]
fn a_threshold_of_the_pinned_roots_must_sign() {
    let pinned = bundle().roots.fingerprint();
    let trust = Trust::first(&signed(&bundle(), &[1, 3]), pinned).unwrap();
    assert_eq!(trust.bundle(), &bundle());
    let code = |envelope: &[u8]| Trust::first(envelope, pinned).unwrap_err().code();
    assert_eq!(code(&signed(&bundle(), &[1])), "trust-signatures");
    // The same root twice is one root; others are none.
    assert_eq!(code(&signed(&bundle(), &[1, 1, 9])), "trust-signatures");
    let other = Bundle { roots: roots(&[1, 2, 3], 1), ..bundle() };
    assert_eq!(code(&signed(&other, &[1, 2, 3])), "trust-fingerprint");
    assert_eq!(Trust::first(b"{}", pinned).unwrap_err().code(), "envelope-malformed");
    let good = signed(&bundle(), &[1, 2]);
    for at in (0..good.len()).step_by(7) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(Trust::first(&changed, pinned).map_or(true, |found| found == trust), "byte {at}");
    }
    assert!(trust.is_current(1_796_000_000) && !trust.is_current(1_796_083_201));
}

#[test]
fn what_follows_is_newer_and_signed_by_former_and_new_roots() {
    let first = Trust::first(&signed(&bundle(), &[1, 2]), bundle().roots.fingerprint()).unwrap();
    let second = Bundle { version: 2, ..bundle() };
    let next = first.next(&signed(&second, &[2, 3])).unwrap();
    assert_eq!(next.bundle().version, 2);
    assert_eq!(next.next(&signed(&second, &[1, 2])).unwrap(), next, "the same again, by other roots, is the same");
    assert_eq!(next.next(&signed(&bundle(), &[1, 2])).unwrap_err().code(), "trust-old");
    let fork = Bundle { expires: "2026-12-02T00:00:00Z".into(), ..second.clone() };
    assert_eq!(next.next(&signed(&fork, &[1, 2])).unwrap_err().code(), "trust-forked");
    let renamed = Bundle { consortium: "south".parse().unwrap(), version: 3, ..bundle() };
    assert_eq!(next.next(&signed(&renamed, &[1, 2])).unwrap_err().code(), "trust-consortium");
    // New roots need the word of the former, and the other way round.
    let rotated = Bundle { version: 3, roots: roots(&[4, 5, 6], 2), ..bundle() };
    assert_eq!(next.next(&signed(&rotated, &[4, 5])).unwrap_err().code(), "trust-signatures");
    assert_eq!(next.next(&signed(&rotated, &[1, 2])).unwrap_err().code(), "trust-signatures");
    assert_eq!(next.next(&signed(&rotated, &[1, 2, 4, 5])).unwrap().bundle().roots, rotated.roots);
}

#[test]
fn people_and_logs_are_known_until_they_are_revoked() {
    let believed = |bundle: &Bundle| Trust::first(&signed(bundle, &[1, 2]), bundle.roots.fingerprint()).unwrap();
    let trust = believed(&bundle());
    let (ada, leiden) = (key(50).public(), "leiden".parse().unwrap());
    assert_eq!(trust.person(&ada, Role::Researcher).unwrap().country.as_str(), "DE");
    assert!(trust.person(&ada, Role::Approver).is_none() && trust.person(&key(59).public(), Role::Researcher).is_none());
    assert_eq!(trust.log(&leiden).unwrap().key, key(11).public());
    let keys = BTreeSet::from([ada, key(11).public()]);
    let revoked = Bundle { revoked: Revoked { keys, components: BTreeSet::new() }, ..bundle() };
    let trust = believed(&revoked);
    assert!(trust.person(&ada, Role::Researcher).is_none() && trust.log(&leiden).is_none());
}

#[test]
fn impossible_bundles_are_refused_with_their_place() {
    let bad = |want: &str, change: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle();
        change(&mut bundle);
        let error = bundle.sign(&key(1)).unwrap_err();
        assert!(error.to_string().contains(want), "{error} does not say {want}");
    };
    bad("roots", &|b| b.roots.threshold = 0);
    bad("roots", &|b| b.roots.threshold = 4);
    bad("roots", &|b| b.roots.keys.clear());
    bad("`leiden`: the name is used twice", &|b| b.persons[0].name = "leiden".parse().unwrap());
    bad("one purpose", &|b| b.sites[0].log = b.sites[0].link);
    bad("one purpose", &|b| b.persons[0].key = b.sites[1].log);
    bad("one purpose", &|b| b.persons[0].key = b.roots.keys[0]);
    bad("one purpose", &|b| b.persons[0].key = key(12).public());
    bad("same log", &|b| b.sites[0].log_origin = b.sites[1].log_origin.clone());
    for like in ["Leiden", "1eiden", "LEIDEN"] {
        bad("looks the same", &|b| b.persons[0].name = like.parse().unwrap());
        bad("looks the same", &|b| b.sites[1].name = like.parse().unwrap());
    }
    bad("line 1: a name", &|b| b.witnesses = b.witnesses.replace("witness leiden", "witness lei\u{1b}den"));
    bad("witnesses, line", &|b| b.witnesses = "quorum nobody\n".into());
    bad("issued", &|b| b.issued = "today".into());
    bad("90 days", &|b| b.expires = "2027-11-24T00:00:00Z".into());
    bad("90 days", &|b| b.expires = b.issued.clone());
}
