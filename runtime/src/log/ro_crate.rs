//! One job, for an oversight body: a Five Safes RO-Crate of everything that the site knows of it.
//!
//! *In*: a site's folder, a job. *Out*: a folder: the signed charter, manifest, rules and reviews, each release that left, each line of the log about the
//! job with its proof, and `ro-crate-metadata.json`, which says what is what (<https://w3id.org/ro/crate/1.2>, <https://w3id.org/5s-crate/0.4>). *Trusts*:
//! the folder, which `log verify` is for. *Refuses*: to add any number that had not left: what was held back or failed has no details here.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::{Event, nothing};
use vestibule_protocol::log::proof::LeafProof;
use vestibule_protocol::review::Subject;
use vestibule_protocol::words::json as json_words;

use super::folder::NewFolder;
use super::verify::LogCheckError;
use super::{Line, Source, inclusion, read};
use crate::home::{LEDGER, TRUST};
use crate::ledger::Seal;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoCrate {
    /// Lines of the log.
    pub lines: usize,
    /// Releases.
    pub releases: usize,
}

/// A crate that is being written.
struct Writing {
    out: NewFolder,
    parts: Vec<Value>,
    graph: Vec<Value>,
}

impl Writing {
    /// Writes a file and describes it. Returns how others refer to it.
    fn put(&mut self, file: &str, bytes: &[u8], about: &str, format: &str) -> Result<Value, LogCheckError> {
        self.out.put(Path::new(file), bytes)?;
        let id = json!({ "@id": file });
        self.parts.push(id.clone());
        self.graph.push(json!({ "@id": file, "@type": "File", "name": about, "encodingFormat": format,
            "contentSize": bytes.len().to_string(), "sha256": Digest::of(bytes).hex() }));
        Ok(id)
    }
}

/// Writes the crate of a job into `out`, a folder that is not there yet, from the site's folder. Without `seal`, its sealed records (the terms, what left, signed words) are not in it.
///
/// # Errors
/// The site knows no such job, its ledger cannot be read, or a file cannot be written.
pub fn ro_crate(site: &Path, seal: Option<Seal>, job: JobId, out: &Path) -> Result<RoCrate, LogCheckError> {
    let source = Source::new(site.join(LEDGER), seal);
    let error = |why: rusqlite::Error| source.error(why);
    let lines = read(&source, None)?;
    let connection = source.open()?;
    let admitted = lines.iter().find_map(|line| match &line.leaf.event {
        Event::Job { job: found, manifest, charter, dataset, .. } if *found == job => {
            Some((line, *manifest, *charter, dataset.clone()))
        }
        _ => None,
    });
    let unknown = || source.error(format!("the log does not say that the job {job} was admitted"));
    let (admission, manifest, charter, dataset) = admitted.ok_or_else(unknown)?;
    let mut writing = Writing { out: NewFolder::make(out)?, parts: vec![], graph: vec![] };
    let detail = |name: &str| admission.details.as_ref().and_then(|details| details.get(name)?.as_str().map(str::to_owned));

    let terms = detail("manifest");
    let terms_file = terms
        .as_ref()
        .map(|terms| writing.put("manifest.json", terms.as_bytes(), "The job's terms, signed by the researcher (DSSE)", JSON));
    let terms_file = terms_file.transpose()?;
    let envelopes = [".json", ".left.json"].map(|suffix| site.join("charters").join(format!("{}{suffix}", charter.hex())));
    let envelope = envelopes.iter().find_map(|file| std::fs::read(file).ok());
    let signed = envelope.as_deref().and_then(|envelope| SignedCharter::verify(envelope).ok());
    let charter_file = envelope
        .map(|envelope| writing.put("charter.json", &envelope, "The project's charter, signed by its lead (DSSE)", JSON));
    let charter_file = charter_file.transpose()?;
    if let Ok(trust) = std::fs::read(site.join(TRUST)) {
        writing.put(
            "trust.json",
            &trust,
            "The consortium's trust bundle, signed by its roots (DSSE): whose keys these are",
            JSON,
        )?;
    }
    // The rules that held when the job was admitted.
    let rules = lines.iter().take_while(|line| line.number < admission.number).filter_map(|line| match &line.leaf.event {
        Event::Policy { policy, .. } => Some(*policy),
        _ => None,
    });
    let rules =
        rules.last().and_then(|policy| std::fs::read(site.join("policies").join(format!("{}.json", policy.hex()))).ok());
    let rules_file = rules
        .map(|rules| writing.put("policy.json", &rules, "The site's rules, signed by its officers (DSSE)", JSON))
        .transpose()?;

    let subjects = Subjects { job, manifest, component: component(terms.as_deref()) };
    let about = |line: &&Line| subjects.has(&line.leaf.event);
    let proofs = Proofs::of(&connection).map_err(error)?;
    let (mut releases, mut signatures, mut disclosures) = (vec![], vec![], vec![]);
    let mut count = 0;
    for line in lines.iter().filter(about) {
        count += 1;
        let (kind, _) = super::words(&line.leaf.event);
        writing.put(
            &format!("log/{}.json", line.number),
            &line.leaf.to_bytes(),
            &format!("Line {} of the site's log: {kind}", line.number),
            JSON,
        )?;
        if let Some(proof) = proofs.proof(&connection, line.number).map_err(error)? {
            let what = format!("The proof that line {} is in the witnessed log", line.number);
            writing.put(&format!("log/{}.tlog-proof", line.number), proof.as_bytes(), &what, "text/plain")?;
        }
        match &line.leaf.event {
            Event::Settled { round, release, .. } => {
                let left =
                    (*release != nothing()).then(|| released(&connection, job, *round).map_err(error)).transpose()?.flatten();
                let result = left.map(|bytes| {
                    writing.put(
                        &format!("releases/{round}.json"),
                        &bytes,
                        &format!("What left in round {round}, with its noise"),
                        JSON,
                    )
                });
                let result = result.transpose()?;
                let evidence = line.details.as_ref().filter(|_| result.is_some());
                disclosures.push(disclosure(line, *round, result.as_ref(), evidence));
                releases.extend(result);
            }
            Event::Reviewed { approved, .. } => {
                let sql = "SELECT unseal('review', leaf, envelope) FROM review WHERE leaf = ?1";
                let row = params![super::signed(line.number)];
                let signed: Option<Option<Vec<u8>>> =
                    connection.query_row(sql, row, |row| row.get(0)).optional().map_err(error)?;
                let signed = signed.flatten();
                let what = "A person's decision, signed (DSSE)";
                let file = signed
                    .map(|signed| writing.put(&format!("reviews/{}.json", line.number), &signed, what, JSON))
                    .transpose()?;
                signatures.push(sign_off(line, *approved, file.as_ref()));
            }
            _ => {}
        }
    }
    let described = Described {
        job,
        dataset: dataset.to_string(),
        admission,
        signed,
        subjects,
        files: [terms_file, charter_file, rules_file],
    };
    let metadata = described.metadata(writing.parts, writing.graph, (&releases, signatures, disclosures));
    let text = serde_json::to_string_pretty(&metadata).unwrap_or_default();
    // Whatever reads it shows others' words to people.
    writing.out.put(Path::new("ro-crate-metadata.json"), json_words(&text).as_bytes())?;
    Ok(RoCrate { lines: count, releases: releases.len() })
}

const JSON: &str = "application/json";

/// What a line can be about that has to do with the job.
struct Subjects {
    job: JobId,
    manifest: Digest,
    component: Option<Digest>,
}

impl Subjects {
    fn has(&self, event: &Event) -> bool {
        match event {
            Event::Refused { job, .. }
            | Event::Job { job, .. }
            | Event::Reserved { job, .. }
            | Event::Charged { job, .. }
            | Event::Settled { job, .. }
            | Event::Ended { job } => *job == self.job,
            Event::Held { subject } | Event::Reviewed { subject, .. } => match subject {
                Subject::Job { manifest, .. } => *manifest == self.manifest,
                Subject::Release { job, .. } => *job == self.job,
                Subject::Component { component } => Some(*component) == self.component,
            },
            _ => false,
        }
    }
}

/// The component that signed terms name.
fn component(terms: Option<&str>) -> Option<Digest> {
    use vestibule_protocol::dsse;
    use vestibule_protocol::manifest::{MANIFEST_TYPE, Manifest};
    let payload = dsse::payload(terms?.as_bytes(), MANIFEST_TYPE).ok()?;
    Some(serde_json::from_slice::<Manifest>(&payload).ok()?.component.sha256)
}

/// The newest checkpoint that was kept.
struct Proofs(Option<(String, u64)>);

impl Proofs {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT note FROM log_checkpoint ORDER BY size DESC LIMIT 1";
        let note: Option<String> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
        let size =
            |note: &str| Checkpoint::parse(&(note.split("\n\n").next()?.to_owned() + "\n")).map(|checkpoint| checkpoint.size);
        Ok(Self(note.and_then(|note| size(&note).map(|size| (note, size)))))
    }

    fn proof(&self, connection: &Connection, leaf: u64) -> rusqlite::Result<Option<String>> {
        let Some((checkpoint, size)) = self.0.as_ref().filter(|(_, size)| leaf < *size) else { return Ok(None) };
        let hashes = inclusion(connection, leaf, *size)?;
        Ok(Some(LeafProof { index: leaf, hashes, checkpoint: checkpoint.clone() }.text()))
    }
}

fn released(connection: &Connection, job: JobId, round: u32) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT unseal('release', job || ' ' || round, bytes) FROM release WHERE job = ?1 AND round = ?2";
    connection.query_row(sql, params![job.to_string(), round], |row| row.get(0)).optional().map(Option::flatten)
}

fn moment(at_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}

const DONE: &str = "http://schema.org/CompletedActionStatus";
const FAILED: &str = "http://schema.org/FailedActionStatus";

fn sign_off(line: &Line, approved: bool, file: Option<&Value>) -> Value {
    let details = |name: &str| line.details.as_ref().and_then(|details| details.get(name)).cloned().unwrap_or(Value::Null);
    json!({ "@id": format!("#sign-off-{}", line.number), "@type": "AssessAction", "additionalType": { "@id": "https://w3id.org/shp#SignOff" },
        "name": format!("A person's decision: {}", if approved { "yes" } else { "no" }), "description": details("why"),
        "agent": { "@type": "Person", "name": details("person") }, "endTime": moment(line.leaf.at_ms), "result": file,
        "actionStatus": if approved { DONE } else { FAILED } })
}

fn disclosure(line: &Line, round: u32, result: Option<&Value>, evidence: Option<&Value>) -> Value {
    let checks = evidence.and_then(|evidence| evidence.get("checks")).and_then(Value::as_array);
    let words: Vec<String> = checks
        .into_iter()
        .flatten()
        .map(|check| {
            let word = |name: &str| check.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{}: {} ({})", word("check"), word("result"), word("found"))
        })
        .collect();
    json!({ "@id": format!("#disclosure-{round}"), "@type": "AssessAction", "additionalType": { "@id": "https://w3id.org/shp#DisclosureCheck" },
        "name": format!("The airlock, round {round}"), "description": words.join("; "), "endTime": moment(line.leaf.at_ms), "object": result,
        "actionStatus": if result.is_some() { DONE } else { FAILED } })
}

/// What the crate is about.
struct Described<'a> {
    job: JobId,
    dataset: String,
    admission: &'a Line,
    signed: Option<SignedCharter>,
    subjects: Subjects,
    /// Manifest, charter, rules.
    files: [Option<Value>; 3],
}

impl Described<'_> {
    fn metadata(
        self,
        parts: Vec<Value>,
        mut graph: Vec<Value>,
        (releases, signatures, disclosures): (&[Value], Vec<Value>, Vec<Value>),
    ) -> Value {
        let Self { job, dataset, admission, signed, subjects, files: [terms, charter, rules] } = self;
        let details =
            |name: &str| admission.details.as_ref().and_then(|details| details.get(name)).cloned().unwrap_or(Value::Null);
        let project = signed.as_ref().map(|signed| signed.charter());
        let component = subjects.component.map_or_else(|| "#component".to_owned(), |digest| format!("urn:{digest}"));
        let at = moment(admission.leaf.at_ms);
        let refer = |actions: &[Value]| {
            actions.iter().filter_map(|action| action.get("@id").map(|id| json!({ "@id": id }))).collect::<Vec<_>>()
        };
        let mut mentions = vec![json!({ "@id": "#run" })];
        mentions.extend(refer(&signatures));
        mentions.extend(refer(&disclosures));
        let root = json!({ "@id": "./", "@type": "Dataset", "conformsTo": { "@id": "https://w3id.org/5s-crate/0.4" },
            "name": format!("Job {job}, at one site"), "description": "What was asked of the site's data, on whose word, what was decided, what left, and the proof that all of it is in the site's witnessed log.",
            "datePublished": at, "license": "As the charter and the dataset's conditions of use say", "mainEntity": { "@id": component }, "mentions": mentions,
            "sourceOrganization": { "@id": "#project" }, "hasPart": parts });
        let run = json!({ "@id": "#run", "@type": "CreateAction", "name": details("title"), "instrument": { "@id": component },
            "agent": { "@id": "#researcher" }, "object": [{ "@id": "#dataset" }, terms], "result": releases, "startTime": at,
            "actionStatus": if releases.is_empty() { FAILED } else { DONE } });
        let validation = json!({ "@id": "#rules", "@type": "AssessAction", "additionalType": { "@id": "https://w3id.org/shp#ValidationCheck" },
            "name": "The site's charter and rules", "instrument": [charter, rules], "object": terms, "endTime": at, "actionStatus": DONE });
        graph.extend([
            json!({ "@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": { "@id": "./" }, "conformsTo": { "@id": "https://w3id.org/ro/crate/1.2" } }),
            root,
            json!({ "@id": component, "@type": "SoftwareApplication", "name": "The analysis: a WebAssembly component without imports", "identifier": component }),
            json!({ "@id": "#researcher", "@type": "Person", "name": details("researcher"), "memberOf": { "@id": "#project" } }),
            json!({ "@id": "#project", "@type": "Project", "name": project.map(|project| project.title.clone()), "identifier": project.map(|project| project.project.to_string()),
                "description": project.map(|project| project.summary.clone()), "funding": project.map(|project| project.funding.clone()), "keywords": project.map(|project| project.purpose.research.clone()) }),
            json!({ "@id": "#dataset", "@type": "Dataset", "name": dataset, "variableMeasured": details("columns") }),
            run,
            validation,
        ]);
        graph.extend(signatures);
        graph.extend(disclosures);
        strip(&mut graph);
        json!({ "@context": ["https://w3id.org/ro/crate/1.2/context", { "sha256": "https://w3id.org/ro/terms/workflow-run#sha256" }], "@graph": graph })
    }
}

/// What is not known is left out.
fn strip(graph: &mut [Value]) {
    for entity in graph.iter_mut().filter_map(Value::as_object_mut) {
        entity.retain(|_, value| !value.is_null());
        for list in entity.values_mut().filter_map(Value::as_array_mut) {
            list.retain(|value| !value.is_null());
        }
    }
}
