//! Nobody is believed for being the coordinator, the site's administrator or a backup: see `docs/THREAT_MODEL.md` for the table of cases.

use std::collections::BTreeSet;

use serde_json::Value;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse;
use vestibule_protocol::job::JobId;
use vestibule_protocol::manifest::{MANIFEST_TYPE, Manifest};
use vestibule_protocol::message::{Answer, Offer};
use vestibule_protocol::round::RoundRequest;
use vestibule_protocol::trust::{BUNDLE_TYPE, Bundle, Trust};

use crate::liar::{Liar, nobody, secret};
use crate::world::{World, component, wait};

pub(crate) const SUMMARY: &str =
    "epsilon = 0.5\ndelta = 1e-6\nsites = [\"leiden\"]\nmin_sites = 1\n[params]\ncolumns = [\"age\", \"sex\"]\n";

/// What the real coordinator offered in the first round of a job.
pub(crate) fn captured(world: &World, job: &str) -> Offer {
    let store = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    let sql = "SELECT envelope, request FROM job JOIN round USING(job) WHERE job = ?1 AND round = 0";
    let (manifest, request): (Vec<u8>, Vec<u8>) = store.query_row(sql, [job], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let request: RoundRequest = serde_json::from_slice(&request).unwrap();
    Offer { manifest, round: 0, request }
}

/// The same offer under other terms, signed by the researcher.
pub(crate) fn resigned(world: &World, offer: &Offer, change: impl FnOnce(&mut Manifest)) -> Offer {
    let payload = dsse::payload(&offer.manifest, MANIFEST_TYPE).unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&payload).unwrap();
    change(&mut manifest);
    Offer { manifest: manifest.sign(&secret(world, "ada.pem")).unwrap(), ..offer.clone() }
}

pub(crate) fn new_job(manifest: &mut Manifest, number: u8) {
    manifest.job = JobId::from_bytes([number; 16]);
    // Otherwise it would be answered with the noise of the first.
    manifest.params = manifest.params.replacen('{', &format!("{{{}", " ".repeat(number.into())), 1);
}

fn refusal(answer: Result<Answer, String>) -> String {
    match answer {
        Ok(Answer::Refused { code, .. }) => code.to_string(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn charges(world: &World, site: &str) -> u64 {
    let log = world.ok(&["log", "verify", site]);
    log["accounts"].as_array().unwrap().iter().map(|account| account["spent_rho_pico"].as_u64().unwrap()).sum()
}

pub(crate) fn leaves(world: &World, site: &str, kind: &str) -> Vec<Value> {
    let lines = world.ok(&["log", "show", site]);
    let of_kind = |line: &&Value| line["leaf"]["event"]["kind"] == kind;
    lines.as_array().unwrap().iter().filter(of_kind).map(|line| line["leaf"]["event"].clone()).collect()
}

#[test]
fn a_coordinator_that_edits_replays_or_swaps_gets_nothing() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    wait("the job's end at the site", || (leaves(&world, "leiden", "ended").len() == 1).then_some(()));
    let offer = captured(&world, &job);
    let analysis = std::fs::read(component("cohort-summary")).unwrap();
    let spent = charges(&world, "leiden");
    let liar = Liar::instead(&mut world, &["leiden"]);
    let ask = |offer: &Offer| liar.offer("leiden", offer, &analysis, &nobody);

    // Case 1: terms that were edited under the researcher's signature.
    let envelope: Value = serde_json::from_slice(&offer.manifest).unwrap();
    let payload = String::from_utf8(dsse::payload(&offer.manifest, MANIFEST_TYPE).unwrap()).unwrap();
    for (from, to) in [
        ("\"epsilon_micro\":500000", "\"epsilon_micro\":4000000"),
        ("\"dataset\":\"cohort\"", "\"dataset\":\"others\""),
        ("[\"leiden\"]", "[\"leiden\",\"kyoto\"]"),
        ("age", "sex"),
        (job.as_str(), "00112233445566778899aabbccddeeff"),
    ] {
        assert!(payload.contains(from), "{payload}");
        let mut edited = envelope.clone();
        edited["payload"] =
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, payload.replacen(from, to, 1)).into();
        let edited = Offer { manifest: serde_json::to_vec(&edited).unwrap(), ..offer.clone() };
        assert_eq!(refusal(ask(&edited)), "signature-refused", "{to}");
    }
    // A round that the signed analysis would never ask for, under the number of one that was run.
    let mut another = offer.clone();
    another.request.budget_share /= 2.0;
    assert_eq!(refusal(ask(&another)), "round-differs");

    // Case 2: the same job again, at a site that it does not name, after its time, under its id with other terms.
    let Ok(Answer::Settled { padded, .. }) = ask(&offer) else { panic!("the same bytes") };
    let ledger = rusqlite::Connection::open(world.dir().join("leiden/ledger.sqlite")).unwrap();
    let kept: String = ledger.query_row("SELECT sha256 FROM release", [], |row| row.get(0)).unwrap();
    assert_eq!(Answer::release(&padded).map(|release| Digest::of(release).to_string()), Some(kept));
    let mut beyond = offer.clone();
    beyond.round = 1;
    assert_eq!(refusal(ask(&beyond)), "round-beyond-plan");
    let elsewhere = resigned(&world, &offer, |manifest| manifest.sites = vec!["kyoto".parse().unwrap()]);
    assert_eq!(refusal(ask(&elsewhere)), "site-not-named");
    let late = resigned(&world, &offer, |manifest| {
        manifest.not_before = "2020-01-01T00:00:00Z".into();
        manifest.not_after = "2020-01-02T00:00:00Z".into();
    });
    assert_eq!(refusal(ask(&late)), "manifest-expired");
    let other = resigned(&world, &offer, |manifest| manifest.title = "other".parse().unwrap());
    assert_eq!(refusal(ask(&other)), "job-differs");

    // Case 4: another component than was signed for, and one that was compiled before it came.
    for bytes in [b"\0asm\x0d\0\x01\0 another".to_vec(), std::fs::read("/proc/self/exe").unwrap()[..1 << 20].to_vec()] {
        let swapped = resigned(&world, &offer, |manifest| {
            new_job(manifest, 1);
            manifest.component.sha256 = Digest::of(b"what the researcher signed for");
            manifest.component.bytes = bytes.len() as u64;
        });
        let code = refusal(liar.offer("leiden", &swapped, &bytes, &nobody));
        assert!(code.starts_with("component-"), "{code}");
    }
    assert_eq!(charges(&world, "leiden"), spent, "nothing of this cost anything");
    // Everything that an accepted researcher had signed, and every kind of what nobody had, is in the log.
    let codes = |kind: &str| -> BTreeSet<String> {
        leaves(&world, "leiden", kind).iter().map(|event| event["code"].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        codes("refused").is_superset(&["round-beyond-plan", "job-differs", "round-differs"].map(str::to_owned).into()),
        "{:?}",
        codes("refused")
    );
    let rejected = ["signature-refused", "site-not-named", "manifest-expired"].map(str::to_owned);
    assert!(codes("rejected").is_superset(&rejected.into()), "{:?}", codes("rejected"));
    liar.leave(&mut world);
}

/// The bundle that was issued last, changed, signed by these roots.
fn bundle(world: &World, roots: &[&str], change: impl FnOnce(&mut Bundle)) -> Vec<u8> {
    let envelope = std::fs::read(world.dir().join("consortium/bundle.json")).unwrap();
    let mut bundle = Trust::stored(&envelope).unwrap().bundle().clone();
    change(&mut bundle);
    let first = bundle.sign(&secret(world, roots[0])).unwrap();
    roots[1..].iter().fold(first, |envelope, root| dsse::add_signature(&envelope, BUNDLE_TYPE, &secret(world, root)).unwrap())
}

#[test]
fn a_bundle_is_believed_for_who_signed_it() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let offer = captured(&world, &job);
    let analysis = std::fs::read(component("cohort-summary")).unwrap();
    let liar = Liar::instead(&mut world, &["leiden"]);
    let both = ["root-1.pem", "root-2.pem"];
    let version = |version: u64| move |bundle: &mut Bundle| bundle.version = version;
    let rejected = |world: &World, code: &str| leaves(world, "leiden", "rejected").iter().any(|event| event["code"] == code);
    let refused = |world: &World, number: u8| {
        let offer = resigned(world, &offer, |manifest| new_job(manifest, number));
        refusal(liar.offer("leiden", &offer, &analysis, &nobody))
    };
    // Case 3: too few roots; the one after next, the one before, and another of the same version.
    liar.trust("leiden", bundle(&world, &both[..1], version(5)));
    assert!(rejected(&world, "trust-signatures"), "{}", world.log());
    liar.trust("leiden", bundle(&world, &both, version(3)));
    liar.trust("leiden", bundle(&world, &both, version(2)));
    assert!(rejected(&world, "trust-old"));
    liar.trust(
        "leiden",
        bundle(&world, &both, |bundle| {
            bundle.version = 3;
            bundle.sites.retain(|site| site.name.as_str() == "leiden");
        }),
    );
    assert!(rejected(&world, "trust-forked"));
    assert_eq!(leaves(&world, "leiden", "trust").last().unwrap()["version"], 3);
    // Case 12: a researcher's key, a component, this site's own key are revoked: it holds at once.
    let researcher = secret(&world, "ada.pem").public();
    liar.trust(
        "leiden",
        bundle(&world, &both, |bundle| {
            bundle.version = 4;
            bundle.revoked.keys.insert(researcher);
        }),
    );
    assert_eq!(refused(&world, 1), "signature-refused");
    liar.trust(
        "leiden",
        bundle(&world, &both, |bundle| {
            bundle.version = 5;
            bundle.revoked.components.insert(Digest::of(&analysis));
        }),
    );
    assert_eq!(refused(&world, 2), "component-revoked");
    let link = secret(&world, "leiden/keys/link.pem").public();
    liar.trust(
        "leiden",
        bundle(&world, &both, |bundle| {
            bundle.version = 6;
            bundle.revoked.keys.insert(link);
        }),
    );
    assert_eq!(refused(&world, 3), "site-not-member");
    // A coordinator that withholds every further bundle is of no use once the last has expired.
    liar.trust(
        "leiden",
        bundle(&world, &both, |bundle| {
            bundle.version = 7;
            bundle.issued = "2026-01-01T00:00:00Z".into();
            bundle.expires = "2026-01-08T00:00:00Z".into();
        }),
    );
    assert_eq!(refused(&world, 4), "trust-expired");
    // All of this survives a restart.
    drop(liar);
    world.kill_site("leiden");
    world.start_site("leiden");
    let liar = Liar::instead(&mut world, &["leiden"]);
    liar.trust("leiden", bundle(&world, &both, version(6)));
    let offer = resigned(&world, &offer, |manifest| new_job(manifest, 5));
    assert_eq!(refusal(liar.offer("leiden", &offer, &analysis, &nobody)), "trust-expired");
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
}

#[test]
fn a_bundle_that_nobody_signed_is_believed_nowhere() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    let published = std::fs::read(world.dir().join("consortium/bundle.json")).unwrap();
    let trust = Trust::stored(&published).unwrap();
    let fingerprint = trust.bundle().roots.fingerprint().to_string();
    let file = world.dir().join("leiden/trust").join(format!("{}.json", trust.digest().hex()));
    assert!(file.exists());
    let forged = bundle(&world, &["root-1.pem"], |bundle| "quorum none\n".clone_into(&mut bundle.witnesses));
    std::fs::write(world.dir().join("forged.json"), &forged).unwrap();
    // Put into a site's folder: the daemon does not start, and a verification of the log says so.
    let verify = ["log", "verify", "leiden"];
    assert_eq!(world.ok(&verify)["whole"], true);
    std::fs::write(&file, &forged).unwrap();
    let (code, error) = world.json(&["site", "run", "leiden"]);
    assert!(code != 0 && error["error"]["code"] == "trust-signatures", "{error}");
    let (code, found) = world.json(&verify);
    assert!(code == 1 && found.to_string().contains("trust bundle sha256:"), "{found}");
    std::fs::write(&file, &published).unwrap();
    // Given to an overseer: it is no bundle. One that its roots signed is believed for whose they are.
    let by = |bundle: &str, more: &[&str]| world.json(&[&["log", "verify", "leiden", "--bundle", bundle], more].concat());
    let refused = by("forged.json", &[]);
    assert!(refused.0 != 0 && refused.1["error"]["code"] == "trust-signatures", "{}", refused.1);
    let good = "consortium/bundle.json";
    let (code, log) = by(good, &[]);
    assert_eq!((code, &log["roots_pinned"], &log["roots_signed"]), (0, &false.into(), &2.into()), "{log}");
    assert_eq!(log["roots"].as_str(), Some(fingerprint.as_str()));
    assert_eq!(by(good, &["--consortium", &fingerprint]).1["roots_pinned"], true);
    let other = Digest::of(b"other").to_string();
    let refused = by(good, &["--consortium", &other]);
    assert!(refused.0 != 0 && refused.1["error"]["code"] == "trust-fingerprint", "{}", refused.1);
    let (code, found) = world.json(&["log", "verify", "leiden", "--consortium", &other]);
    assert!(code == 1 && found.to_string().contains("compare it by phone"), "{found}");
}

#[test]
fn a_researcher_takes_no_release_without_its_proof() {
    let world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let (code, result) = world.job(&["result", &job]);
    assert_eq!((code, &result["proven"]["releases"]), (0, &1.into()), "{result}");
    // An overseer verifies a copy of the site's log by the bundle, which is not the site's.
    let log = world.ok(&["log", "verify", "leiden", "--bundle", "consortium/bundle.json"]);
    assert!(log["witnessed"].as_u64().unwrap() > 5 && log["leaves"].as_u64() >= log["witnessed"].as_u64(), "{log}");
    std::fs::copy(world.dir().join("kyoto/coordinator.json"), world.dir().join("leiden/coordinator.json")).unwrap();
    let (code, other) = world.json(&["log", "verify", "leiden", "--bundle", "consortium/bundle.json"]);
    assert!(code == 1 && other.to_string().contains("not signed by the key that the log had then"), "{other}");
    // The coordinator changes a number that a site released, or passes off another site's or another time's proof for it.
    let store = rusqlite::Connection::open(world.dir().join("coordinator/coordinator.sqlite")).unwrap();
    let (json, leaf, proof): (String, String, String) = store
        .query_row("SELECT CAST(json AS TEXT), leaf, proof FROM release", [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let set = |json: &str, leaf: &str, proof: &str| {
        store.execute("UPDATE release SET json = CAST(?1 AS BLOB), leaf = ?2, proof = ?3", (json, leaf, proof)).unwrap();
    };
    let refused = |json: &str, leaf: &str, proof: &str, code: &str| {
        set(json, leaf, proof);
        let (exit, document) = world.job(&["result", &job]);
        assert_eq!((exit, &document["error"]["code"]), (1, &code.into()), "{document}");
    };
    let at = json.find("\"steps\":[").unwrap() + 9;
    let changed = format!("{}9{}", &json[..at], &json[at..]);
    refused(&changed, &leaf, &proof, "proof-other");
    let leaf_of_change = leaf.replace(&Digest::of(json.as_bytes()).to_string(), &Digest::of(changed.as_bytes()).to_string());
    refused(&changed, &leaf_of_change, &proof, "proof-inclusion");
    let unwitnessed = proof.rsplit_once("\u{2014} vestibule/witness").unwrap().0;
    refused(&json, &leaf, unwitnessed, "proof-quorum");
    refused(&json, &leaf, &proof.replacen("index ", "index 1", 1), "proof-inclusion");
    refused(&json, &leaf, "", "proof-malformed");
    set(&json, &leaf, &proof);
    assert_eq!(world.job(&["result", &job]).0, 0);
    // It changes the report itself, or passes off a job with fewer sites for whole.
    let report: String = store.query_row("SELECT CAST(report AS TEXT) FROM job", [], |row| row.get(0)).unwrap();
    let numbers = report.find("\"numbers\":[").unwrap();
    // Behind a digit that a number may begin with, so that it stays a number.
    let at = numbers + report[numbers..].find(|c: char| ('1'..='9').contains(&c)).unwrap() + 1;
    let set = |report: &str| store.execute("UPDATE job SET report = CAST(?1 AS BLOB)", [report]).unwrap();
    set(&format!("{}9{}", &report[..at], &report[at..]));
    let (exit, document) = world.job(&["result", &job]);
    assert_eq!((exit, &document["error"]["code"]), (1, &"result-differs".into()), "{document}");
    set(&report);
    store.execute_batch("CREATE TABLE away AS SELECT * FROM release; DELETE FROM release").unwrap();
    let (exit, document) = world.job(&["result", &job]);
    assert_eq!((exit, &document["error"]["code"]), (1, &"result-differs".into()), "{document}");
    store.execute_batch("INSERT INTO release SELECT * FROM away").unwrap();
    assert_eq!(world.job(&["result", &job]).0, 0);
    // An older bundle than the researcher has believed, or none.
    world.issue();
    assert_eq!(world.job(&["result", &job]).0, 0);
    store.execute("DELETE FROM bundle WHERE version = 2", []).unwrap();
    assert_eq!(world.job(&["result", &job]).1["error"]["code"], "trust-old");
}

#[test]
fn a_revoked_site_is_cut_off_at_once() {
    let world = World::new(&["kyoto", "leiden", "accra"]);
    let link = secret(&world, "leiden/keys/link.pem").public().to_string();
    world.ok(&["consortium", "revoke", "consortium", &link, "--why", "stolen"]);
    world.issue();
    // Case 12: its connection is closed, and it cannot come back.
    world.connected(2);
    // A handshake that is over at its end is not taken for a greeting: it dials again ever more seldom.
    let greeted = |line: &str| line.contains("disconnected") && line.contains("false");
    wait("a dial that nobody greeted", || world.log().lines().any(greeted).then_some(()));
    let job = world.submitted("cohort-summary", &SUMMARY.replace("leiden", "kyoto"));
    assert_eq!(world.ended(&job)["sites"][0]["state"], "released", "{}", world.log());
    world.connected(2);
}

#[test]
fn a_site_can_believe_less_than_its_consortium_and_nothing_more() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let asked = SUMMARY.replace("[\"leiden\"]", "[\"kyoto\", \"leiden\"]");
    let states = |world: &World, epsilon: &str| -> Vec<String> {
        let job = world.submitted("cohort-summary", &asked.replace("0.5", epsilon));
        let status = world.ended(&job);
        let sites = status["sites"].as_array().unwrap().iter();
        sites.map(|site| format!("{} {}", site["site"].as_str().unwrap(), site["state"].as_str().unwrap())).collect()
    };
    assert_eq!(states(&world, "0.5"), ["kyoto released", "leiden released"], "{}", world.log());
    let component = Digest::of(&std::fs::read(component("cohort-summary")).unwrap());
    let ada = crate::world::vestibule_key(world.dir()).public();
    // Leiden alone does not run the component; then, does not know the researcher.
    for (epsilon, distrust) in [("0.6", format!("components = [\"{component}\"]")), ("0.7", format!("keys = [\"{ada}\"]"))] {
        world.stop_site("leiden");
        world.set_site("leiden", &format!("[distrust]\n{distrust}\n"));
        world.start_site("leiden");
        world.all_connected();
        assert_eq!(states(&world, epsilon), ["kyoto released", "leiden refused"], "{distrust}\n{}", world.log());
    }
    // There is no setting by which a site would believe anybody whom its consortium does not vouch for.
    world.stop_site("leiden");
    world.set_site("leiden", &format!("[trust]\nkeys = [\"{ada}\"]\n"));
    let (code, error) = world.json(&["site", "budget", "leiden"]);
    assert_eq!((code, error["error"]["code"].as_str()), (2, Some("site-settings")), "{error}");
}

#[test]
fn a_silent_log_says_that_it_goes_on_and_reports_what_was_done() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    world.set_site("leiden", "heartbeat_seconds = 1\n");
    world.start_site("leiden");
    wait("two heartbeats", || (leaves(&world, "leiden", "heartbeat").len() >= 2).then_some(()));
    wait("their witness", || {
        let log = world.ok(&["log", "verify", "leiden"]);
        (log["witnessed"].as_u64().unwrap() > log["leaves"].as_u64().unwrap() - 3).then_some(())
    });
    // The report: why, who, which columns, what left; and each line's proof holds.
    let report = world.ok(&["log", "report", "leiden", "--html", "report.html"]);
    let project = &report["projects"][0];
    assert_eq!((&project["name"], &project["summary"]), (&"project".into(), &"Whether it holds.".into()));
    let told = &project["jobs"][0];
    assert_eq!((&told["researcher"], &told["columns"]), (&"ada".into(), &serde_json::json!(["age", "sex"])), "{told}");
    let round = &told["rounds"][0];
    assert!(round["released"].as_array().is_some_and(|released| !released.is_empty()), "{round}");
    let trust = Trust::stored(&std::fs::read(world.dir().join("consortium/bundle.json")).unwrap()).unwrap();
    let leiden = "leiden".parse().unwrap();
    for proof in [&told["admitted"], &round["charged"], &round["settled"]] {
        let body = proof["line"].as_str().unwrap().as_bytes();
        let proven = trust.policy().prove(body, proof["proof"].as_str().unwrap(), &trust.logs(&leiden), "leiden");
        assert!(proven.is_ok(), "{proof}: {proven:?}");
    }
    let page = std::fs::read_to_string(world.dir().join("report.html")).unwrap();
    assert!(page.contains("Whether it holds.") && page.contains("c2sp.org/tlog-proof@v1") && !page.contains("<script"));
}
