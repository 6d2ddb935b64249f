//! Hostile words in every field that any role can set, in every place where any role reads them.
//!
//! A document is taken apart into its strings, keys of maps too, and each is replaced by each hostile text: so a new field is in it by itself. What its type
//! still takes is shown in each place; what it refuses is an error, which is shown too. Nothing may move, hide, be a line or a tag that was not there.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use vestibule_coordinator::api::types::{ApiError, JobSite, JobStatus};
use vestibule_coordinator::store::Request;
use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::log::leaf::Leaf;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::message::{Answer, Hello, Joined, SiteCard};
use vestibule_protocol::report::Report;
use vestibule_protocol::review::Review;
use vestibule_protocol::trust::Bundle;
use vestibule_protocol::words::is_plain;

use super::shown;
use crate::html::{Facts, page};
use crate::show;

/// The screen cleared, a title set, the clipboard written, what follows hidden, C1 and bidi controls, a line of ours forged, markup, a script's end,
/// a formula, letters that pass for others, something invisible, accents over the lines above, too much of it.
fn evil() -> Vec<String> {
    let texts = [
        "\u{1b}[2J\u{1b}[1A\u{1b}[2K",
        "\u{1b}]0;t\u{7}\u{1b}]52;c;eA==\u{7}",
        "\u{1b}[8m",
        "\u{9b}2J\u{85}",
        "\u{202e}\u{2066}\u{200f}",
        "x\nPrivacy       epsilon 0.1\r\n  kyoto                finished",
        "</script></style></title><img src=x onerror=alert(1)>\"'&",
        "=HYPERLINK(\"http://x\")",
        "p\u{430}ris",
        "a\u{200b}\u{feff}\u{3164}\u{ad}b",
    ];
    let piled = format!("a{}", "\u{301}".repeat(100));
    texts.into_iter().map(str::to_owned).chain([piled, "x".repeat(100_000)]).collect()
}

/// Each document that differs from this one in one string.
fn mutants(document: &Value, evil: &str) -> Vec<Value> {
    match document {
        Value::String(_) => vec![Value::String(evil.to_owned())],
        Value::Array(list) => {
            let at = |(index, part)| {
                mutants(part, evil).into_iter().map(move |part| {
                    let mut list = list.clone();
                    list[index] = part;
                    Value::Array(list)
                })
            };
            list.iter().enumerate().flat_map(at).collect()
        }
        Value::Object(map) => {
            let at = |(name, part): (&String, &Value)| {
                let with = |name: &str, part: Value| {
                    let mut map = map.clone();
                    map.insert(name.to_owned(), part);
                    Value::Object(map)
                };
                let parts: Vec<Value> = mutants(part, evil).into_iter().map(|part| with(name, part)).collect();
                [with(evil, part.clone())].into_iter().chain(parts).collect::<Vec<_>>()
            };
            map.iter().flat_map(at).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => vec![],
    }
}

/// Whether a terminal's lines are as they would be anyway: the same heads at the margin, and none of them moves.
fn steady(text: &str, usual: &BTreeSet<String>) {
    let out = shown(text);
    assert!(out.lines().all(|line| line.split('\t').all(is_plain)), "{out:?}");
    let other = heads(&out).into_iter().find(|head| !usual.contains(head));
    assert_eq!(other, None, "a line that was not there: {out}");
}

fn heads(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.chars().take(4).collect::<String>())
        .filter(|head| head.starts_with(char::is_alphabetic))
        .collect()
}

/// Shows what is left of each mutant of a document. `places`: texts on a terminal and pages.
fn everywhere<T: Serialize + DeserializeOwned>(sample: &T, places: impl Fn(&T) -> (Vec<String>, Vec<String>)) -> usize {
    let document = serde_json::to_value(sample).unwrap();
    let (texts, pages) = places(sample);
    let usual: Vec<_> = texts.iter().map(|text| heads(text)).collect();
    let tags = |page: &str| page.matches('<').count();
    let mut taken = 0;
    for evil in evil() {
        for mutant in mutants(&document, &evil) {
            match serde_json::from_value::<T>(mutant) {
                Err(error) => {
                    let out = shown(&error.to_string()).into_owned();
                    assert!(out.lines().all(is_plain), "{out:?}");
                }
                Ok(found) => {
                    taken += 1;
                    let text = serde_json::to_string(&found).unwrap();
                    let out = shown(&text);
                    assert!(is_plain(&out), "{out}");
                    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), serde_json::to_value(&found).unwrap());
                    let (found, drawn) = places(&found);
                    found.iter().zip(&usual).for_each(|(text, usual)| steady(text, usual));
                    for (page, usual) in drawn.iter().zip(&pages) {
                        assert_eq!(tags(page), tags(usual), "markup that was not there");
                        // Behind that stands the library, which is our own.
                        let ours = page.split("id=\"library\"").next().unwrap();
                        assert!(ours.lines().all(is_plain), "something in the page moves");
                    }
                }
            }
        }
    }
    taken
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

fn read<T: DeserializeOwned>(document: Value) -> T {
    serde_json::from_value(document).unwrap()
}

fn charter() -> vestibule_protocol::charter::Charter {
    let lead = key(1).public();
    read(
        json!({ "project": "lipids", "title": "t", "summary": "s", "purpose": { "research": "DUO:0000037", "disease": "MONDO:0005148" },
        "lead": lead, "members": [lead], "sites": ["leiden"], "datasets": ["cohort"], "columns": { "only": ["age"] },
        "catalogues": { "only": ["array"] }, "components": "any", "epsilon_micro": 1_000_000, "delta_femto": 1_000_000_000,
        "not_before": "2026-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z", "outputs": "o", "funding": "f", "ethics": "e" }),
    )
}

fn manifest() -> Manifest {
    let digest = Digest::of(b"d");
    read(
        json!({ "job": "03030303030303030303030303030303", "charter": digest, "title": "t", "component": { "sha256": digest, "bytes": 4 },
        "params": "{}", "dataset": "cohort", "dictionary": digest, "catalogues": [{ "name": "array", "sha256": digest }], "noise": "gaussian",
        "epsilon_micro": 1_000_000, "delta_femto": 1_000_000_000, "sites": ["leiden"], "min_sites": 1,
        "limits": { "fuel_per_partition": 1, "memory_mib": 1 }, "round_deadline_seconds": 600,
        "not_before": "2026-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z" }),
    )
}

fn report() -> Report {
    read(json!({ "summary": "s", "tables": [{ "title": "t", "columns": [{ "name": "c", "values": { "texts": ["x"] } }] }],
        "charts": [{ "title": "c", "spec": "{\"title\":\"x\"}" }] }))
}

#[test]
fn no_charter_rewrites_its_page() {
    let taken = everywhere(&charter(), |charter| match charter.sign(&key(1)) {
        Ok(envelope) => (vec![crate::command::charter::page(&SignedCharter::verify(&envelope).unwrap())], vec![]),
        Err(_) => (vec![], vec![]),
    });
    assert!(taken > 0);
}

#[test]
fn no_report_and_no_manifest_rewrites_theirs() {
    let facts =
        |manifest: &Manifest| Facts { manifest: manifest.clone(), rounds: 1, sites: vec![("leiden".parse().unwrap(), 1)] };
    assert!(everywhere(&report(), |report| (vec![show::report(report)], vec![page(&facts(&manifest()), report)])) > 0);
    assert!(everywhere(&manifest(), |manifest| (vec![], vec![page(&facts(manifest), &report())])) > 0);
}

#[test]
fn no_peer_moves_a_terminal() {
    let error = || Some(ApiError { code: "c".into(), message: "m".into() });
    let site = JobSite { site: "leiden".into(), state: "refused".into(), reason: error() };
    let (job, title, state) = ("j".to_owned(), "t".to_owned(), "running".to_owned());
    let status = JobStatus {
        job,
        title,
        state,
        rounds: 1,
        max_rounds: 2,
        submitted: 0,
        epsilon: 1.0,
        delta: 0.0,
        sites: vec![site],
        error: error(),
    };
    // A job's own line begins with its id, whatever that is.
    assert!(everywhere(&status, |status| (vec![format!("job: {}", show::status(status))], vec![])) > 0);
    let said = |words: &dyn std::fmt::Display| (vec![format!("said: {words}")], vec![]);
    let answer = read::<Answer>(json!({ "Refused": { "code": "c", "why": "w" } }));
    everywhere(&answer, |answer| match answer {
        Answer::Refused { code, why } => said(&format_args!("{why} ({code})")),
        other => said(&format_args!("{other:?}")),
    });
    everywhere(&read::<Answer>(json!({ "Held": { "why": "w" } })), |answer| match answer {
        Answer::Held { why } => said(why),
        other => said(&format_args!("{other:?}")),
    });
    everywhere(&read::<Joined>(json!({ "Refused": { "why": "w" } })), |joined| said(&format_args!("{joined:?}")));
    everywhere(&read::<Hello>(json!({ "software": "1", "site": "a" })), |hello| said(&hello.software));
    let digest = Digest::of(b"d");
    let card = json!({ "software": "1", "charters": [digest], "datasets": [{ "name": "d", "about": "a", "approximate_size": 1, "dictionary": digest,
        "catalogues": [{ "name": "c", "digest": digest, "build": "GRCh38", "variants": 1 }], "duo": ["DUO:0000042"],
        "cap_epsilon_micro": 1, "cap_delta_femto": 1, "min_cohort": 1 }] });
    everywhere(&read::<SiteCard>(card), |card| {
        let words =
            card.datasets.iter().flat_map(|set| [set.about.as_str()].into_iter().chain(set.duo.iter().map(|duo| duo.as_str())));
        said(&words.collect::<Vec<_>>().join(" "))
    });
}

#[test]
fn no_newcomer_and_no_approver_moves_what_roots_and_auditors_read() {
    let key = key(1).public();
    let site = json!({ "organisation": "o", "country": "NL", "link": key, "log_origin": "vestibule/log/1", "log": key, "witness": key });
    let told = |text: String| (vec![text], vec![]);
    everywhere(&read::<Request>(json!({ "site": site })), |request| told(serde_json::to_string_pretty(request).unwrap()));
    everywhere(&read::<Request>(json!({ "researcher": { "organisation": "o", "country": "NL", "key": key } })), |request| {
        told(serde_json::to_string_pretty(request).unwrap())
    });
    let review = json!({ "subject": { "kind": "component", "component": Digest::of(b"c") }, "approved": true, "why": "w", "at": "2026-01-01T00:00:00Z" });
    everywhere(&read::<Review>(review), |review| told(format!("why: {}", review.why)));
    let bundle = json!({ "consortium": "north", "version": 1, "issued": "2026-01-01T00:00:00Z", "expires": "2026-01-02T00:00:00Z",
        "roots": { "threshold": 1, "keys": [key] }, "witnesses": "quorum none\n", "non_profits": ["o"], "revoked": { "keys": [], "components": [] },
        "sites": [{ "name": "leiden", "organisation": "o", "country": "NL", "link": key, "log_origin": "l", "log": key }],
        "persons": [{ "name": "ada", "organisation": "o", "country": "NL", "roles": ["researcher"], "key": key }] });
    everywhere(&read::<Bundle>(bundle), |bundle| {
        let rows =
            bundle.sites.iter().map(|site| vec!["site".to_owned(), site.organisation.to_string(), site.log_origin.to_string()]);
        told(show::grid(&["site", "organisation", "log"], rows))
    });
    let leaf = json!({ "at_ms": 1, "event": { "kind": "refused", "job": "03030303030303030303030303030303", "manifest": Digest::of(b"m"),
        "round": 0, "code": "c" } });
    everywhere(&read::<Leaf>(leaf), |leaf| {
        let (kind, rest) = vestibule_runtime::log::words(&leaf.event);
        told(show::grid(&["what", ""], [vec![format!("what {kind}"), rest]]))
    });
}
