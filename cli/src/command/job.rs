//! `vestibule job`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use vestibule_coordinator::api::types::{JobResult, JobStatus, Receipt};
use vestibule_protocol::release::{Release, Rounding};
use vestibule_protocol::report::Report;
use vestibule_protocol::words::{Code, line};

use crate::client::Client;
use crate::failure::{Exit, Failure, coded};
use crate::files::{secret_key, write};
use crate::{html, jobfile, recompute, show, trust};

/// Who calls whom.
#[derive(Debug, Args)]
pub(crate) struct Caller {
    /// Your secret key's file.
    #[arg(long, env = "VESTIBULE_KEY")]
    key: PathBuf,
    /// The coordinator's URL.
    #[arg(long, env = "VESTIBULE_COORDINATOR")]
    coordinator: String,
}

impl Caller {
    fn client(&self) -> Result<Client> {
        Client::open(&self.coordinator, &self.key)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// The signed terms of a job that a JOB.toml describes, without submitting it; or those of a job that was: for `vestibule site policy check`.
    Manifest {
        /// The job file, or a job's id.
        job: String,
        /// Where to write it.
        #[arg(short, long)]
        output: PathBuf,
        #[command(flatten)]
        caller: Caller,
    },
    /// Sign and submit the job that a JOB.toml describes.
    Submit {
        /// The job file.
        file: PathBuf,
        #[command(flatten)]
        caller: Caller,
        /// Wait for its end and print its result.
        #[arg(long)]
        wait: bool,
    },
    /// Your jobs, newest first.
    List {
        #[command(flatten)]
        caller: Caller,
    },
    /// How a job stands.
    Status {
        /// Its id.
        id: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// Follow a job to its end.
    Watch {
        /// Its id.
        id: String,
        #[command(flatten)]
        caller: Caller,
    },
    /// A finished job's result.
    Result {
        /// Its id.
        id: String,
        #[command(flatten)]
        caller: Caller,
        /// Also write a page with tables and charts.
        #[arg(long)]
        html: Option<PathBuf>,
    },
    /// Stop a job. What its rounds were charged stays charged.
    Cancel {
        /// Its id.
        id: String,
        #[command(flatten)]
        caller: Caller,
    },
}

impl Job {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Manifest { job, output, caller } => {
                let (client, file) = (caller.client()?, Path::new(&job));
                let envelope = if file.is_file() {
                    let manifest = jobfile::Job::read(file)?.manifest(&client.sites()?)?;
                    manifest.sign(&secret_key(&caller.key)?).map_err(|error| coded(error.code(), error))?
                } else {
                    client.manifest(&job)?
                };
                write(&output, envelope)?;
                print_json_or(json, &serde_json::json!({ "file": output }), || output.display().to_string())
            }
            Self::Submit { file, caller, wait } => {
                let client = caller.client()?;
                let job = jobfile::Job::read(&file)?;
                let manifest = job.manifest(&client.sites()?)?;
                let envelope = manifest.sign(&secret_key(&caller.key)?).map_err(|error| coded(error.code(), error))?;
                client.put_component(&job.component)?;
                let id = client.submit(&envelope)?.job;
                if wait {
                    eprintln!("job {id}");
                    let status = follow(&client, &id)?;
                    return finish(&client, &caller, &status, json);
                }
                print_json_or(json, &serde_json::json!({ "job": id }), || id.clone())
            }
            Self::List { caller } => {
                let jobs = caller.client()?.jobs()?;
                print_json_or(json, &jobs, || jobs.iter().map(show::status).collect::<Vec<_>>().join("\n"))
            }
            Self::Status { id, caller } => {
                let status = caller.client()?.status(&id)?;
                print_json_or(json, &status, || show::status(&status))
            }
            Self::Watch { id, caller } => {
                let status = follow(&caller.client()?, &id)?;
                print_json_or(json, &status, || show::status(&status))
            }
            Self::Result { id, caller, html } => {
                let client = caller.client()?;
                let result = client.result(&id)?;
                let (proven, facts) = prove(&client, &caller, &id, &result)?;
                if let Some(path) = html {
                    write(&path, html::page(&facts, &result.report))?;
                    eprintln!("wrote {}", path.display());
                }
                print_result(&result, &proven, json)
            }
            Self::Cancel { id, caller } => {
                let status = caller.client()?.cancel(&id)?;
                print_json_or(json, &status, || show::status(&status))
            }
        }
    }
}

fn print_json_or<T: serde::Serialize>(json: bool, document: &T, text: impl FnOnce() -> String) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(document)?);
    } else {
        println!("{}", text());
    }
    Ok(())
}

/// What was proven of a result.
#[derive(Debug, serde::Serialize)]
struct Proven {
    /// Releases, each of which is in its site's log.
    releases: usize,
    /// The version of the trust bundle that says whose logs and witnesses those are.
    bundle: u64,
    /// What sites made of noised counts before they let them go.
    rounded: BTreeSet<String>,
    /// Sites that were to be asked and are not in the report, with what the coordinator says of them:
    /// nothing proves it.
    left_out: BTreeMap<String, String>,
}

/// The sites of a manifest whose releases are not all there, with the coordinator's word about each.
fn left_out(facts: &html::Facts, status: &JobStatus) -> BTreeMap<String, String> {
    let missing = facts.sites.iter().filter(|(_, releases)| *releases < facts.rounds as usize);
    let word = |site: &str| {
        let known = status.sites.iter().find(|known| known.site == site);
        let code = known.and_then(|known| known.reason.as_ref()).map(|reason| reason.code.as_str());
        line(code.or(known.map(|known| known.state.as_str())).unwrap_or("nothing")).into_owned()
    };
    missing.map(|(site, _)| (site.to_string(), word(site.as_str()))).collect()
}

/// Which sites released less of counts than they had, in words.
fn rounded(receipts: &[Receipt]) -> BTreeSet<String> {
    let words = |receipt: &Receipt| {
        let release: Release = serde_json::from_str(&receipt.release).ok()?;
        let Rounding { suppress_below, round_to } = release.rounding?;
        Some(format!(
            "{}: counts below {suppress_below} are released as 0, others as multiples of {}",
            line(&receipt.site),
            round_to.max(1)
        ))
    };
    receipts.iter().filter_map(words).collect()
}

/// Fetches the sites' releases of a job with their receipts, and computes the report again. A release that is not in its site's witnessed log is an
/// error, and so is a report that does not follow from them.
fn prove(client: &Client, caller: &Caller, job: &str, result: &JobResult) -> Result<(Proven, html::Facts)> {
    let trust = trust::newest(client, &caller.key)?;
    let receipts = client.receipts(job)?;
    trust::proven(&trust, job, &receipts)?;
    let own = secret_key(&caller.key)?.public();
    // Also what the same person signed with a former key is theirs.
    let persons = trust.bundle().persons.iter().flat_map(|person| person.former.iter().copied().chain([person.key]));
    let keys: Vec<_> = persons.filter(|key| trust.same_person(key, &own)).chain([own]).collect();
    let (again, facts) = recompute::report(client, &keys, job, &receipts)?;
    // Both as JSON reads them: a number is what its text says.
    let read = |report: &Report| serde_json::from_str::<serde_json::Value>(&serde_json::to_string(report)?);
    if read(&again)? != read(&result.report)? {
        let why = "the report is not what the sites' releases give: the coordinator has changed it, or runs another program";
        return Err(Failure::of(Exit::Refused, "result-differs", why));
    }
    let left_out = left_out(&facts, &result.status);
    let bundle = trust.bundle().version;
    Ok((Proven { releases: receipts.len(), bundle, rounded: rounded(&receipts), left_out }, facts))
}

fn print_result(result: &JobResult, proven: &Proven, json: bool) -> Result<()> {
    let document = serde_json::json!({ "status": result.status, "report": result.report, "proven": proven });
    let Proven { releases, bundle, rounded, left_out } = proven;
    print_json_or(json, &document, || {
        let proof = format!(
            "{releases} releases, each proven to be in its site's witnessed log (trust bundle {bundle}); the report was computed from them again here"
        );
        let missing = left_out.iter().map(|(site, word)| {
            format!("{site} was to be asked and is not in this report: {word}. Only the coordinator says so.")
        });
        let missing: Vec<String> = missing.collect();
        let words = rounded.iter().chain(&missing).map(String::as_str).chain([proof.as_str()]);
        let words = words.collect::<Vec<_>>().join("\n");
        format!("{}\n\n{}\n{words}", show::status(&result.status), show::report(&result.report))
    })
}

/// What `submit --wait` ends with.
fn finish(client: &Client, caller: &Caller, status: &JobStatus, json: bool) -> Result<()> {
    if status.state == "finished" {
        let result = client.result(&status.job)?;
        let (proven, _) = prove(client, caller, &status.job, &result)?;
        return print_result(&result, &proven, json);
    }
    let (code, why) = status
        .error
        .as_ref()
        .filter(|error| error.code.parse::<Code>().is_ok())
        .map_or(("job-ended", "no reason was given"), |error| (error.code.as_str(), error.message.as_str()));
    let ended = format!("the job ended as {}: {}\n{}", line(&status.state), line(why), show::status(status));
    Err(Failure::of(Exit::Refused, code, ended))
}

/// Follows a job with a bar for each site, on a terminal.
fn follow(client: &Client, id: &str) -> Result<JobStatus> {
    let bars = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:20} {spinner} {msg}")?;
    let mut sites: Vec<(String, ProgressBar)> = Vec::new();
    let draw = std::io::stderr().is_terminal();
    let seen = |status: &JobStatus| {
        if !draw {
            return;
        }
        for site in &status.sites {
            if !sites.iter().any(|(name, _)| *name == site.site) {
                let bar =
                    bars.add(ProgressBar::new_spinner().with_style(style.clone()).with_prefix(line(&site.site).into_owned()));
                bar.enable_steady_tick(std::time::Duration::from_millis(120));
                sites.push((site.site.clone(), bar));
            }
            if let Some((_, bar)) = sites.iter().find(|(name, _)| *name == site.site) {
                bar.set_message(format!("round {}: {}", status.rounds, line(&site.state)));
            }
        }
    };
    let status = client.watch(id, seen)?;
    bars.clear()?;
    Ok(status)
}
