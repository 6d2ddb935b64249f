//! Attacks on daemons: a coordinator and sites as processes of this binary, on loopback, with folders and keys of their own.
//!
//! Two sites hold the same people, but for one man at the first. Researchers do what they can to see which is which in anything but the
//! noised numbers; everything that any process wrote is searched for that man.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::lab::{DICTIONARY, Lab, Person, RECIPE};
use super::{Defect, Row};
use crate::federation::{Federation, wait};

const SITES: [&str; 2] = ["with", "less"];
/// Releases leave at once: their moments are attacked elsewhere.
const SETTINGS: &str = "[slowest]\nassume_for_tests = true\n";
/// Nobody else is like this; no job asks for it but through the guest.
const CANARY: (&str, f64, f64) = ("CANARYqx7", 61.803_398_87, 2.493_710_528);
/// A daemon that is told to stop is gone by then, whatever runs; the round that runs takes longer.
const STOPPED: Duration = Duration::from_secs(1);
const FAILURE: &str = "failure";
const BUDGET: &str = "budget";

pub(crate) fn rows(lab: &Lab, _root: &Path) -> Result<Vec<Row>> {
    let world = World::start(lab)?;
    let mut rows = world.transcripts()?;
    rows.push(world.repeated()?);
    rows.extend(world.colluding()?);
    rows.push(world.race()?);
    let mut world = world;
    rows.push(world.killed()?);
    rows.push(world.busied(None)?);
    rows.push(world.stopped(None)?);
    rows.push(world.opened(None)?);
    rows.push(world.traces()?);
    Ok(rows)
}

/// The row about daemons that sees a defect that is planted around them.
pub(crate) fn planted(lab: &Lab, defect: Defect) -> Result<Row> {
    let mut world = World::start(lab)?;
    match defect {
        Defect::OpenDaemons => world.opened(Some(defect)),
        Defect::PlansInPlace => {
            // Who plans for ever.
            world.federation.researcher("eve")?;
            world.federation.issue()?;
            world.busied(Some(defect))
        }
        _ => world.stopped(Some(defect)),
    }
}

struct World {
    federation: Federation,
    dir: PathBuf,
}

impl World {
    fn start(lab: &Lab) -> Result<Self> {
        let dir = lab.path().join("federation");
        std::fs::create_dir(&dir)?;
        let mut federation = Federation::start(&dir, 1)?.with_cores().logging(
            "trace,cranelift=off,cranelift_codegen=off,cranelift_frontend=off,regalloc2=off,wasmtime_internal_cranelift=off",
        );
        federation.charter("project", &["ada"], &["with", "less", "poor"])?;
        std::fs::write(dir.join("hostile.wasm"), &lab.component)?;
        let people = Lab::people(24);
        let row =
            |id: &str, man: bool, age: f64, measured: f64| format!("{id},{},{age},{measured}\n", if man { "M" } else { "F" });
        for (site, budget) in [("with", "30.0"), ("less", "30.0"), ("poor", "1.0")] {
            let source = federation.source(site)?;
            let rows = people.iter().map(|Person { id, man, age, measured }| row(id, *man, *age, *measured));
            let victim = (site == "with").then(|| row(CANARY.0, true, CANARY.1, CANARY.2));
            let table: String = std::iter::once("id,sex,age,trait\n".to_owned()).chain(rows).chain(victim).collect();
            std::fs::write(source.join("people.csv"), table)?;
            std::fs::write(source.join("dictionary.toml"), DICTIONARY)?;
            let recipe = RECIPE.replace("epsilon = 1.0", &format!("epsilon = {budget}"));
            std::fs::write(source.join("DATASET.toml"), format!("name = \"cohort\"\n{recipe}"))?;
            federation.site(site, Some(SETTINGS))?;
            anyhow::ensure!(
                search(&source)?.1.len() == usize::from(site == "with"),
                "the search does not find the man in the table"
            );
            std::fs::remove_dir_all(source)?;
        }
        federation.connected(3)?;
        Ok(Self { federation, dir })
    }

    /// Submits a job of the hostile guest's to a site: its id.
    fn submit(&self, researcher: &str, site: &str, epsilon: f64, params: &str) -> Result<String> {
        let file = format!("{researcher}-{site}.toml");
        // As much as a site allows; enough for the walk through memory to begin.
        let fuel = if params.contains("chase") { 100_000_000 } else { 5_000_000 };
        let charter = if researcher == "eve" && self.dir.join("both.json").exists() { "both" } else { "project" };
        let job = format!(
            "charter = \"{charter}.json\"\nanalysis = \"hostile.wasm\"\ndataset = \"cohort\"\nepsilon = {epsilon:?}\ndelta = 1e-6\nsites = [\"{site}\"]\nmin_sites = 1\n\
             [limits]\nfuel_per_partition = {fuel}\nmemory_mib = 64\n[params]\n{params}\n"
        );
        std::fs::write(self.dir.join(&file), job)?;
        let (_, document) = self.federation.job(researcher, &["submit", &file])?;
        Ok(document
            .get("job")
            .and_then(Value::as_str)
            .with_context(|| format!("the job was not taken: {document}"))?
            .to_owned())
    }

    /// A job's status once it has ended.
    fn ended(&self, researcher: &str, job: &str) -> Result<Value> {
        wait("the job's end", || {
            let (_, status) = self.federation.job(researcher, &["status", job]).ok()?;
            status.get("state").and_then(Value::as_str).is_some_and(|state| state != "running").then_some(status)
        })
    }

    /// Everything that a researcher is shown of a job at a site.
    fn shown(&self, researcher: &str, site: &str, epsilon: f64, params: &str) -> Result<(Value, Value)> {
        let job = self.submit(researcher, site, epsilon, params)?;
        let status = self.ended(researcher, &job)?;
        Ok((status, self.federation.job(researcher, &["result", &job])?.1))
    }

    fn spent(&self, site: &str) -> Result<f64> {
        let budget = self.federation.vestibule(&["site", "budget", site])?;
        Ok(budget.pointer("/0/spent_rho").and_then(Value::as_f64).unwrap_or_default())
    }

    /// Whatever a guest does at one man, both sites look the same but for the noised numbers.
    fn transcripts(&self) -> Result<Vec<Row>> {
        let mut differ = BTreeSet::new();
        let hows = ["panic", "tell", "shout", "loop", "recurse", "allocate", "nan", "too long"];
        for how in hows {
            let seen = |site: &str| -> Result<Value> {
                let (status, result) = self.shown("ada", site, 0.5, &format!("how = \"{how}\""))?;
                finished(&status)?;
                Ok(masked(&serde_json::json!([status, result])))
            };
            let (with, less) = (seen(SITES[0])?, seen(SITES[1])?);
            if with != less {
                differ.insert(how);
            }
        }
        let observed = match differ.len() {
            0 => format!("{} behaviours at one man: the same with him and without", hows.len()),
            _ => format!("it shows at {differ:?}"),
        };
        let outside = Row::new(
            "see in a job's status, messages and result whether a person made the guest fail",
            FAILURE,
            "a failed job, or a count of failures",
            (differ.is_empty(), observed),
        );
        let budget = |site: &str| self.federation.vestibule(&["site", "budget", site]).map(|budget| masked(&budget));
        let same =
            budget(SITES[0])? == budget(SITES[1])? && (self.spent(SITES[0])? - self.spent(SITES[1])?).abs() < f64::EPSILON;
        let observed = if same { "both sites' accounts are the same" } else { "the sites' accounts differ" };
        Ok(vec![
            outside,
            Row::new(
                "see in the account whether a person was there",
                BUDGET,
                "a charge that depends on data",
                (same, observed.to_owned()),
            ),
        ])
    }

    /// One question, over and over.
    fn repeated(&self) -> Result<Row> {
        let question = "how = \"infinite\"";
        let numbers = |researcher: &str, epsilon: f64| self.numbers(researcher, epsilon, question);
        let first = numbers("ada", 0.5)?;
        anyhow::ensure!(numbers("ada", 0.4)? != first, "another question has the same answer");
        let before = self.spent(SITES[0])?;
        let times = 8;
        let mut same = 0;
        for _ in 0..times {
            same += u32::from(numbers("ada", 0.5)? == first);
        }
        let free = (self.spent(SITES[0])? - before).abs() < f64::EPSILON;
        let found = (
            same == times && free,
            format!(
                "{same} of {times} further jobs have the first one's answer; {}",
                if free { "nothing more was spent" } else { "more was spent" }
            ),
        );
        Ok(Row::new(
            "ask the same again and again, to average the noise away",
            BUDGET,
            "noise falls with the root of the times",
            found,
        ))
    }

    /// What a finished job at the first site released.
    fn numbers(&self, researcher: &str, epsilon: f64, question: &str) -> Result<Value> {
        let (status, result) = self.shown(researcher, SITES[0], epsilon, question)?;
        finished(&status)?;
        let numbers = result.pointer("/report/tables/0/columns/0/values").cloned();
        numbers.with_context(|| format!("a report without the released numbers: {result}"))
    }

    /// A second researcher, first of no project that the site takes part in, then of one.
    fn colluding(&self) -> Result<Vec<Row>> {
        self.federation.researcher("eve")?;
        self.federation.issue()?;
        let (status, _) = self.shown("eve", SITES[0], 0.5, "how = \"infinite\"")?;
        let code = status.pointer("/sites/0/reason/code").and_then(Value::as_str).unwrap_or_default().to_owned();
        let stranger = (code == "charter-not-member", format!("the site's answer: {code}"));
        self.federation.charter("both", &["ada", "eve"], &SITES)?;
        self.federation.vestibule(&["site", "charter", "accept", SITES[0], "both.json"])?;
        let before = self.spent(SITES[0])?;
        let same = self.numbers("eve", 0.5, "how = \"infinite\"")? == self.numbers("ada", 0.5, "how = \"infinite\"")?;
        let free = (self.spent(SITES[0])? - before).abs() < f64::EPSILON;
        let observed = if same && free { "both have the same numbers, from one draw" } else { "each has numbers of their own" };
        let found = (same && free, observed.to_owned());
        Ok(vec![
            Row::new("send a job to a site that has not accepted one", "terms", "whatever its code gets", stranger),
            Row::new("ask the same as a second researcher, and compare", BUDGET, "two draws, whose mean is nearer", found),
        ])
    }

    /// Three jobs at once, of which the budget holds one.
    fn race(&self) -> Result<Row> {
        let jobs = [("how = \"nan\"", 0.8), ("how = \"tiny\"", 0.8), ("how = \"huge\"", 0.8)];
        let ids =
            jobs.iter().map(|(params, epsilon)| self.submit("ada", "poor", *epsilon, params)).collect::<Result<Vec<_>>>()?;
        let mut finished = 0;
        for id in &ids {
            finished += u32::from(self.ended("ada", id)?.get("state").and_then(Value::as_str) == Some("finished"));
        }
        let budget = self.federation.vestibule(&["site", "budget", "poor"])?;
        let of = |key: &str| budget.pointer(&format!("/0/{key}")).and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let found = (
            finished == 1 && of("spent_rho") <= of("cap_rho"),
            format!("{finished} of 3 jobs ran, and epsilon {:.2} of {:.2} is spent", of("spent_epsilon"), of("cap_epsilon")),
        );
        Ok(Row::new(
            "submit three jobs at once, of which the budget holds one",
            BUDGET,
            "each looks before the others have spent",
            found,
        ))
    }

    /// SIGKILL in the middle of a round.
    fn killed(&mut self) -> Result<Row> {
        let before = self.spent(SITES[1])?;
        let job = self.submit("ada", SITES[1], 0.5, "how = \"chase\"")?;
        let accepted = |status: &Value| status.pointer("/sites/0/state").and_then(Value::as_str) == Some("accepted");
        wait("the round to run", || accepted(&self.federation.job("ada", &["status", &job]).ok()?.1).then_some(()))?;
        let charged = self.spent(SITES[1])? - before;
        self.federation.kill(SITES[1]);
        self.federation.run_site(SITES[1])?;
        let state = self.ended("ada", &job)?.get("state").cloned().unwrap_or_default();
        let after = self.spent(SITES[1])? - before;
        let once = charged > 0.0 && (after - charged).abs() < f64::EPSILON;
        let found = (
            once && state == "finished",
            format!("the job {}, charged {} time", state.as_str().unwrap_or_default(), (after / charged).round()),
        );
        Ok(Row::new(
            "kill the site while a round runs, and have it run again",
            BUDGET,
            "two draws for one charge, or two charges",
            found,
        ))
    }

    /// SIGTERM in the middle of a long round, and behind its end: when the daemon has gone.
    fn stopped(&mut self, defect: Option<Defect>) -> Result<Row> {
        let site = SITES[1];
        let job = self.submit("ada", site, 0.5, "how = \"chase\"")?;
        let pid = self.federation.pid(site).context("the site's daemon")?;
        wait("the round to run", || (!children(pid).is_empty()).then_some(()))?;
        let began = Instant::now();
        if defect == Some(Defect::StopAtEnd) {
            wait("the round's end", || children(pid).is_empty().then_some(()))?;
        }
        self.federation.end(site, rustix::process::Signal::TERM)?;
        let took = began.elapsed();
        self.federation.run_site(site)?;
        let state = self.ended("ada", &job)?.get("state").cloned().unwrap_or_default();
        let found = (
            took < STOPPED && state == "finished",
            format!("it is gone {:.0} ms later, and the job {}", took.as_secs_f64() * 1e3, state.as_str().unwrap_or("?")),
        );
        let unprotected = "the daemon stays until its round has ended: the moment, without noise";
        Ok(Row::new("tell a site to stop while a round runs, and see when it does", "time", unprotected, found))
    }

    /// A researcher's plan that never ends, and another's job meanwhile.
    fn busied(&self, defect: Option<Defect>) -> Result<Row> {
        let (done, began) = (AtomicBool::new(false), Instant::now());
        let took = std::thread::scope(|scope| -> Result<_> {
            scope.spawn(|| {
                // Refused, sooner or later.
                let _ = self.submit("eve", SITES[0], 0.5, "how = \"loop in plan\"");
                done.store(true, Ordering::Relaxed);
            });
            if defect == Some(Defect::PlansInPlace) {
                wait("the plan's end", || done.load(Ordering::Relaxed).then_some(()))?;
            }
            finished(&self.shown("ada", SITES[0], 0.3, "how = \"negative\"")?.0)?;
            Ok((!done.load(Ordering::Relaxed)).then(|| began.elapsed()))
        })?;
        let observed = match took {
            Some(took) => format!("another's job is done {:.1} s later, while that plan still runs", took.as_secs_f64()),
            None => "the plan was refused before another's job was done".to_owned(),
        };
        let unprotected = "everybody waits for as long as its fuel lasts";
        Ok(Row::new("have `plan` work for ever, so that others wait", "terms", unprotected, (took.is_some(), observed)))
    }

    /// SIGABRT, as a fault of the program's own would have it: whether there is a core. Daemons start
    /// here with as large a core as they like; whether this machine writes any is tried with another
    /// process.
    fn opened(&mut self, defect: Option<Defect>) -> Result<Row> {
        let open = open_process()?;
        let site = SITES[1];
        let dumped = if defect == Some(Defect::OpenDaemons) {
            open
        } else {
            let status = self.federation.end(site, rustix::process::Signal::ABORT)?;
            self.federation.run_site(site)?;
            status.core_dumped()
        };
        let observed = match (dumped, open) {
            (true, _) => "a core, with all that it held",
            (false, true) => "no core, where another process leaves one",
            (false, false) => "no core; but this machine writes none of any process",
        };
        Ok(Row::new(
            "have a daemon fail, and read keys and rows in what it leaves",
            FAILURE,
            "a core, with all that it held",
            (!dumped, observed.to_owned()),
        ))
    }

    /// Last: what is left of the man in everything that is not the data.
    fn traces(&mut self) -> Result<Row> {
        self.federation.stop();
        let (files, holders) = search(&self.dir)?;
        let found = (
            holders.is_empty() && files > 30,
            format!("{} of {files} files of all processes, logs at their fullest, hold a trace", holders.len()),
        );
        Ok(Row::new(
            "put a person's data into a message, a log, an error or a file",
            FAILURE,
            "the data, in the log of anyone who reads it",
            found,
        ))
    }
}

/// Whether a process that is as the system starts it leaves a core.
fn open_process() -> Result<bool> {
    let dir = tempfile::Builder::new().prefix("vestibule-core-").tempdir()?;
    let script = "ulimit -S -c $(ulimit -H -c) && kill -ABRT $$";
    let mut process = std::process::Command::new("sh");
    let ended = process.args(["-c", script]).current_dir(dir.path()).stderr(std::process::Stdio::null()).status()?;
    Ok(ended.core_dumped())
}

/// Processes that one has started: of a site, its workers.
fn children(pid: u32) -> Vec<u32> {
    let of_thread = |path: PathBuf| std::fs::read_to_string(path.join("children")).unwrap_or_default();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let all: String = threads.map(|thread| of_thread(thread.path())).collect();
    all.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A job that did not end well shows nothing.
fn finished(status: &Value) -> Result<()> {
    anyhow::ensure!(status.get("state").and_then(Value::as_str) == Some("finished"), "a job did not finish: {status}");
    Ok(())
}

/// A document without what differs from job to job: numbers, times, ids, names of sites.
fn masked(value: &Value) -> Value {
    match value {
        Value::Number(_) => Value::from(0),
        Value::String(text) => {
            let text = SITES.iter().fold(text.clone(), |text, site| text.replace(site, "SITE"));
            let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let digits = |letter: char| if letter.is_ascii_digit() { '0' } else { letter };
            Value::String(if hex { "ID".to_owned() } else { text.chars().map(digits).collect() })
        }
        Value::Array(values) => values.iter().map(masked).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), masked(value))).collect(),
        other => other.clone(),
    }
}

/// Files below a folder that hold a canary, as text or as the bytes of a number.
fn search(dir: &Path) -> Result<(usize, Vec<PathBuf>)> {
    let (name, age, measured) = CANARY;
    let texts = [name.to_owned(), "61.8033988".to_owned(), "2.4937105".to_owned()];
    let numbers = [age, measured].map(|number| number.to_le_bytes().to_vec());
    let patterns: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).chain(numbers).collect();
    let (mut files, mut holders, mut open) = (0, vec![], vec![dir.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                files += 1;
                let held = |bytes: &[u8]| patterns.iter().any(|pattern| memchr::memmem::find(bytes, pattern).is_some());
                if held(&bytes) || held(path.as_os_str().as_encoded_bytes()) {
                    holders.push(path);
                }
            }
        }
    }
    Ok((files, holders))
}
