//! Logs and their witnesses: sites, and oversight bodies that are none. A log that was rewritten, rolled back or kept from them releases nothing.

use std::path::Path;

use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::log::note;
use vestibule_protocol::log::proof::AddCheckpoint;
use vestibule_protocol::message::{Answer, Cosigned, Relay};
use vestibule_protocol::trust::Trust;

use crate::liar::{Liar, nobody, secret};
use crate::trust::{SUMMARY, captured, charges, leaves, new_job, resigned};
use crate::world::{World, component, wait};

/// Kyoto's cosignature, as it would be.
fn honest(world: &World) -> impl Fn(Relay) -> Cosigned + use<> {
    let key = secret(world, "kyoto/keys/witness.pem");
    move |relay| {
        let asked = AddCheckpoint::parse(&relay.request).unwrap();
        let text = note::open(&asked.checkpoint, &[]).unwrap().0;
        let line = note::cosign(text, &vestibule_runtime::witness::name_of(&key.public()), &key, 1_800_000_000);
        Cosigned { status: 200, body: line }
    }
}

#[test]
fn no_answer_leaves_without_a_quorum_of_witnesses() {
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let offer = captured(&world, &job);
    let offer = resigned(&world, &offer, |manifest| new_job(manifest, 1));
    let analysis = std::fs::read(component("cohort-summary")).unwrap();
    let liar = Liar::instead(&mut world, &["leiden"]);
    // Case 10: witnesses that are not asked, answer nonsense, sign with another key, or sign something else.
    let other = secret(&world, "root-1.pem");
    let forged = move |relay: Relay| {
        let asked = AddCheckpoint::parse(&relay.request).unwrap();
        let text = note::open(&asked.checkpoint, &[]).unwrap().0.to_owned();
        let line = note::cosign(&text, &vestibule_runtime::witness::name_of(&other.public()), &other, 1);
        Cosigned { status: 200, body: line }
    };
    let honest = honest(&world);
    let for_something_else = |relay: Relay| {
        let mut asked = AddCheckpoint::parse(&relay.request).unwrap();
        asked.checkpoint = asked.checkpoint.replacen("vestibule/log/", "vestibule/lag/", 1);
        honest(Relay { request: asked.text(), ..relay })
    };
    // A larger checkpoint that this log never signed freezes nobody.
    let made_up = |_: Relay| Cosigned {
        status: 409,
        body: "vestibule/log/00\n9999\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n\u{2014} vestibule/log/00 AAAAAAAA\n"
            .into(),
    };
    let nonsense = |_: Relay| Cosigned { status: 200, body: "\u{2014} nobody AAAAAAAA\n".into() };
    let liars: [(&str, crate::liar::Witness<'_>); 5] = [
        ("silent", &nobody),
        ("nonsense", &nonsense),
        ("forged", &forged),
        ("else", &for_something_else),
        ("made up", &made_up),
    ];
    for (what, witness) in liars {
        let answer = liar.offer("leiden", &offer, &analysis, witness);
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    let spent = charges(&world, "leiden");
    // The round was run once, and its answer leaves as soon as it is witnessed.
    let Ok(Answer::Settled { padded, receipt }) = liar.offer("leiden", &offer, &analysis, &honest) else { panic!("settled") };
    assert_eq!(charges(&world, "leiden"), spent);
    let trust = Trust::stored(&std::fs::read(world.dir().join("consortium/bundle.json")).unwrap()).unwrap();
    let release = Digest::of(Answer::release(&padded).unwrap());
    let event = Event::Settled { job: JobId::from_bytes([1; 16]), round: 0, release };
    assert_eq!(trust.proven(&"leiden".parse().unwrap(), &event, &receipt.leaf, &receipt.proof), Ok(()));
    assert!(!world.dir().join("leiden/frozen.note").exists());
    // Also before it begins anything, a site that was started anew must have been seen.
    drop(liar);
    world.kill_site("leiden");
    world.start_site("leiden");
    let liar = Liar::instead(&mut world, &["leiden"]);
    let next = resigned(&world, &offer, |manifest| new_job(manifest, 2));
    assert!(liar.offer("leiden", &next, &analysis, &nobody).is_err());
    assert_eq!(charges(&world, "leiden"), spent, "it was not even charged");
}

fn copy(from: &Path, to: &Path) {
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).recursive(true).create(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() { copy(&from, &to) } else { std::fs::copy(&from, &to).map(|_| ()).unwrap() }
    }
}

#[test]
fn a_restored_backup_spends_nothing_again() {
    let mut world = World::new(&["kyoto", "leiden"]);
    // What lost leaves can have spent follows from the most that a job may ask for.
    world.set_site("leiden", "max_epsilon_per_job = 0.5\n");
    world.stop_site("leiden");
    world.start_site("leiden");
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    // Case 8: the site's folder is restored from a copy that was made before the last job.
    world.stop_site("leiden");
    let (now, backup) = (world.dir().join("leiden"), world.dir().join("backup"));
    copy(&now, &backup);
    world.start_site("leiden");
    world.all_connected();
    let second = SUMMARY.replace("\"age\", \"sex\"", "\"sex\"");
    let job = world.submitted("cohort-summary", &second);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    let lost = charges(&world, "leiden");
    std::fs::rename(&now, world.dir().join("lost")).unwrap();
    copy(&backup, &now);
    assert!(charges(&world, "leiden") < lost, "the copy has forgotten a charge");
    world.start_site("leiden");
    world.all_connected();
    // The same question would be answered with fresh noise, at no cost that anybody remembers.
    let job = world.submitted("cohort-summary", &second);
    let status = world.ended(&job);
    assert_eq!(status["sites"][0]["reason"]["code"], "site-frozen", "{status}\n{}", world.log());
    let shown = std::fs::read_to_string(now.join("frozen.note")).unwrap();
    assert!(shown.starts_with("vestibule/log/"), "{shown}");
    // It stays so.
    world.stop_site("leiden");
    world.start_site("leiden");
    world.all_connected();
    let job = world.submitted("cohort-summary", &second);
    assert_eq!(world.ended(&job)["sites"][0]["reason"]["code"], "site-frozen");
    assert_eq!(charges(&world, "leiden"), charges(&world, "backup"));
    // The ceremony: all that the lost leaves can have spent is spent, and the roots put the log's new name in place of the old.
    world.stop_site("leiden");
    let origin = shown.split('\n').next().unwrap().to_owned();
    let done = world.ok(&["site", "recover", "leiden"]);
    assert!(charges(&world, "leiden") >= lost, "{done}");
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
    assert_eq!(world.json(&["site", "recover", "leiden"]).0, 2, "once");
    world.start_site("leiden");
    world.all_connected();
    let third = SUMMARY.replace("\"age\", \"sex\"", "\"age\"");
    let job = world.submitted("cohort-summary", &third);
    assert_ne!(world.ended(&job)["state"], "finished", "its log is nobody's that the consortium knows");
    let file = world.dir().join("consortium/consortium.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&origin, done["log_origin"].as_str().unwrap())).unwrap();
    world.issue();
    let job = world.submitted("cohort-summary", &third);
    let status = world.ended(&job);
    assert_eq!(status["state"], "finished", "{status} {done}");
    assert_eq!(world.job(&["result", &job]).1["proven"]["releases"], 1);
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
}

/// Two sites are restored from copies of one moment, and the third, which has seen more, is kept away.
#[test]
fn restored_sites_do_not_vouch_for_each_other() {
    let mut world = World::new(&["kyoto", "leiden", "pune"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    let dir = world.dir().to_owned();
    let at = |name: String| dir.join(name);
    let restored = ["leiden", "pune"];
    let folders = restored.map(|site| (at(site.to_owned()), at(format!("{site}-copy")), at(format!("{site}-lost"))));
    restored.iter().for_each(|site| world.stop_site(site));
    folders.iter().for_each(|(now, kept, _)| copy(now, kept));
    restored.iter().for_each(|site| world.start_site(site));
    world.all_connected();
    let second = SUMMARY.replace("\"age\", \"sex\"", "\"sex\"");
    let job = world.submitted("cohort-summary", &second);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    ["kyoto", "leiden", "pune"].iter().for_each(|site| world.stop_site(site));
    for (now, kept, lost) in &folders {
        std::fs::rename(now, lost).unwrap();
        copy(kept, now);
    }
    restored.iter().for_each(|site| world.start_site(site));
    world.connected(2);
    let before = charges(&world, "leiden");
    assert!(before < charges(&world, "leiden-lost"), "the copy has forgotten a charge");
    let job = world.submitted("cohort-summary", &second);
    wait("that pune was asked", || world.log().contains("a witness cannot know yet what it has seen").then_some(()));
    assert_eq!((world.job(&["status", &job]).1["state"].as_str(), charges(&world, "leiden")), (Some("running"), before));
    // The one that remembers comes back.
    world.start_site("kyoto");
    assert_eq!(world.ended(&job)["sites"][0]["reason"]["code"], "site-frozen", "{}", world.log());
    wait("pune's freezing", || at("pune/frozen.note".to_owned()).exists().then_some(()));
    assert_eq!(charges(&world, "leiden"), before);
}

#[test]
fn a_log_that_was_rewritten_is_known_to_its_witnesses() {
    use vestibule_protocol::log::tree::{self, Nodes};
    struct Memory(std::collections::HashMap<(u32, u64), Digest>);
    impl Nodes for Memory {
        type Error = ();
        fn node(&self, level: u32, number: u64) -> Result<Digest, ()> {
            self.0.get(&(level, number)).copied().ok_or(())
        }
    }
    let mut world = World::new(&["kyoto", "leiden"]);
    let job = world.submitted("cohort-summary", SUMMARY);
    assert_eq!(world.ended(&job)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    // Case 9: the administrator changes one line of the log, and all hashes after it, so that the log is whole in itself.
    let database = rusqlite::Connection::open(world.dir().join("leiden/ledger.sqlite")).unwrap();
    database.execute_batch("DROP TRIGGER log_leaf_fixed; DROP TRIGGER log_node_fixed; DROP TRIGGER log_node_kept").unwrap();
    let changed = database.execute(
        "UPDATE log_leaf SET body = CAST(replace(CAST(body AS TEXT), 'charter-accept', 'charter-ACCEPT') AS BLOB)
         WHERE CAST(body AS TEXT) LIKE '%charter-accept%'",
        [],
    );
    assert_eq!(changed, Ok(1));
    let bodies: Vec<Vec<u8>> = database
        .prepare("SELECT body FROM log_leaf ORDER BY number")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    database.execute_batch("DELETE FROM log_node").unwrap();
    let mut memory = Memory(std::collections::HashMap::new());
    for (index, body) in (0..).zip(&bodies) {
        for (level, number, hash) in tree::completed(index, tree::leaf_hash(body), &memory).unwrap() {
            let row = (level, i64::try_from(number).unwrap(), hash.as_bytes());
            database.execute("INSERT INTO log_node VALUES(?1, ?2, ?3)", row).unwrap();
            memory.0.insert((level, number), hash);
        }
    }
    drop(database);
    // Offline, the checkpoints that were kept give it away; with those gone, only the witnesses remember.
    let (code, found) = world.json(&["log", "verify", "leiden"]);
    assert!(code == 1 && found.to_string().contains("its root is not that of the leaves"), "{found}");
    let database = rusqlite::Connection::open(world.dir().join("leiden/ledger.sqlite")).unwrap();
    database.execute_batch("DELETE FROM log_checkpoint").unwrap();
    drop(database);
    assert_eq!(world.ok(&["log", "verify", "leiden"])["whole"], true);
    world.start_site("leiden");
    world.all_connected();
    let job = world.submitted("cohort-summary", &SUMMARY.replace("\"age\", \"sex\"", "\"sex\""));
    let status = world.ended(&job);
    assert_eq!(status["sites"][0]["reason"]["code"], "site-frozen", "{status}\n{}", world.log());
    let witness = rusqlite::Connection::open(world.dir().join("kyoto/witness.sqlite")).unwrap();
    let evidence: i64 = witness.query_row("SELECT COUNT(*) FROM evidence", [], |row| row.get(0)).unwrap();
    assert!(evidence > 0, "what leiden signed is kept as evidence");
}

struct Oversight(std::process::Child);

impl Drop for Oversight {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An oversight body cosigns a site's log over HTTP, and no coordinator is between them: without it nothing leaves, and it remembers.
#[test]
fn a_witness_that_is_no_site_is_asked_at_its_own_address() {
    let mut world = World::new(&["leiden"]);
    let bundle = |world: &World| std::fs::read(world.dir().join("consortium/bundle.json")).unwrap();
    let roots = Trust::stored(&bundle(&world)).unwrap().bundle().roots.fingerprint().to_string();
    let made = world.ok(&["witness", "init", "dpa", &roots]);
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let url = format!("http://{listen}");
    let (code, error) = world.json(&["witness", "serve", "dpa", "--listen", &listen]);
    assert_eq!((code, &error["error"]["code"]), (2, &"trust-missing".into()), "{error}");
    // The roots name it, and have each answer wait for it.
    let file = world.dir().join("consortium/consortium.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("overseers = 0", "overseers = 1");
    let named = format!("{text}\n[[overseer]]\nname = \"dpa\"\nvkey = {}\nurl = {url:?}\n", made["vkey"]);
    std::fs::write(&file, named.replace("\nvkey = \"", "\nvkey = \"x")).unwrap();
    assert!(world.json(&["consortium", "issue", "consortium", "--key", "root-1.pem"]).1.to_string().contains("vkey of dpa"));
    std::fs::write(&file, named).unwrap();
    world.issue();
    let version = Trust::stored(&bundle(&world)).unwrap().bundle().version;
    wait("the site's belief", || leaves(&world, "leiden", "trust").iter().any(|leaf| leaf["version"] == version).then_some(()));
    world.ok(&["witness", "believe", "dpa", "consortium/bundle.json"]);
    let serve = |dir: &Path| {
        let mut command = std::process::Command::new(crate::world::BINARY);
        let command = command.args(["witness", "serve", "dpa", "--listen", &listen]).current_dir(dir);
        let started = Oversight(command.stderr(std::process::Stdio::null()).spawn().unwrap());
        wait("the witness", || std::net::TcpStream::connect(&listen).ok());
        started
    };

    // It is not there: nothing is charged, and nothing leaves.
    let first = world.submitted("cohort-summary", SUMMARY);
    wait("that it is missed", || world.log().contains("not cosigned by a quorum of witnesses").then_some(()));
    assert_eq!((world.job(&["status", &first]).1["state"].as_str(), charges(&world, "leiden")), (Some("running"), 0));
    let oversight = serve(world.dir());
    assert_eq!(world.ended(&first)["state"], "finished", "{}", world.log());
    let (code, result) = world.job(&["result", &first]);
    assert_eq!((code, &result["proven"]["releases"]), (0, &1.into()), "{result}");
    let log = world.ok(&["log", "verify", "leiden", "--bundle", "consortium/bundle.json"]);
    let seen = world.ok(&["witness", "seen", "dpa"]);
    let cosigned = seen["cosigned"][0]["leaves"].as_u64().unwrap();
    assert!(log["whole"] == true && log["witnessed"] == cosigned && cosigned > 5, "{log} {seen}");
    // Anyone who else asks, with something else, is refused as C2SP says.
    for (body, want) in [("nonsense", 400), ("old 0\n\nsomebody.example\n1\nAAAA\n\n", 404)] {
        let answer =
            ureq::post(format!("{url}/add-checkpoint")).config().http_status_as_error(false).build().send(body).unwrap();
        assert_eq!(answer.status().as_u16(), want, "{body}");
    }

    // The site is restored from a copy: the witness has seen more, and shows what the log signed.
    world.stop_site("leiden");
    let (now, backup) = (world.dir().join("leiden"), world.dir().join("backup"));
    copy(&now, &backup);
    world.start_site("leiden");
    world.all_connected();
    let second = world.submitted("cohort-summary", &SUMMARY.replace("\"age\", \"sex\"", "\"sex\""));
    assert_eq!(world.ended(&second)["state"], "finished", "{}", world.log());
    world.stop_site("leiden");
    std::fs::rename(&now, world.dir().join("lost")).unwrap();
    copy(&backup, &now);
    world.start_site("leiden");
    world.all_connected();
    let third = world.submitted("cohort-summary", &SUMMARY.replace("\"age\", \"sex\"", "\"sex\""));
    let status = world.ended(&third);
    assert_eq!(status["sites"][0]["reason"]["code"], "site-frozen", "{status}\n{}", world.log());
    drop(oversight);
}
