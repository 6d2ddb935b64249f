//! `vestibule site queue`, `approve` and `deny`: what waits for a person, and what they say.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::review::{Review, Subject};
use vestibule_protocol::words::{Reason, line};
use vestibule_runtime::ledger::{Kind, Waiting};

use super::{home, print, recorded, since_1970};
use crate::failure::{Failure, coded};
use crate::files::{read_bytes, rfc3339, secret_key};

/// Prints what waits; with `all`, also what was decided.
pub(super) fn show(dir: &Path, number: Option<u64>, all: bool, json: bool) -> Result<()> {
    let site = recorded(dir, "queue", json!({ "number": number }))?;
    let queue = site.ledger().map_err(home)?.queue().map_err(|error| coded(error.code(), error))?;
    let wanted =
        |entry: &&Waiting| number.map_or(all || entry.approved.is_none() && !entry.ended, |number| entry.number == number);
    let found: Vec<&Waiting> = queue.iter().filter(wanted).collect();
    if let (Some(number), []) = (number, found.as_slice()) {
        return Err(Failure::input("queue-number", format!("nothing of the number {number} waits or waited here")));
    }
    let text = match found.as_slice() {
        [] => "nothing waits".to_owned(),
        found => found.iter().map(|entry| page(entry, number.is_some())).collect::<Vec<_>>().join("\n\n"),
    };
    print(json, &json!(found), &text);
    Ok(())
}

/// What a person reads.
fn page(entry: &Waiting, whole: bool) -> String {
    let about = &entry.about;
    let text = |name: &str| about.get(name).and_then(Value::as_str).map_or_else(|| "-".into(), line);
    let list = |name: &str| {
        let words = about.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        words.iter().filter_map(Value::as_str).map(line).collect::<Vec<_>>().join(", ")
    };
    let state = match entry.approved {
        None if entry.ended => "ended",
        None => "waits",
        Some(true) => "approved",
        Some(false) => "denied",
    };
    let kind = match entry.kind {
        Kind::Job => "a job",
        Kind::Release => "a release",
    };
    let mut lines = vec![
        format!("{}  {kind}, {state}, since {}", entry.number, rfc3339(entry.since_ms)),
        format!("   {} ({})", text("title"), text("job")),
        format!("   project {}, by {}", text("project"), text("researcher")),
    ];
    let rules = about.get("rules").or_else(|| about.pointer("/held/rules")).and_then(Value::as_array);
    for rule in rules.into_iter().flatten() {
        let word = |name: &str| rule.get(name).and_then(Value::as_str).map(line).unwrap_or_default();
        lines.push(format!("   because {} ({})", word("why"), word("id")));
    }
    if entry.kind == Kind::Job {
        let amount = |name: &str| about.get(name).and_then(Value::as_f64).unwrap_or_default();
        lines.push(format!("   reads {} of {}: {}", counted(about), text("dataset"), list("columns")));
        lines.push(format!("   by the component {}", text("component")));
        lines.push(format!("   for epsilon {} and delta {:e}", amount("epsilon_micro") / 1e6, amount("delta_femto") / 1e15));
    }
    for check in about.get("checks").and_then(Value::as_array).into_iter().flatten() {
        let word = |name: &str| check.get(name).and_then(Value::as_str).map(line).unwrap_or_default();
        lines.push(format!("   {:8} {:5} {}", word("check"), word("result"), word("found")));
    }
    for statistic in about.get("statistics").and_then(Value::as_array).into_iter().flatten() {
        let name = statistic.get("name").and_then(Value::as_str).map(line).unwrap_or_default();
        let number = |field: &str| statistic.get(field).and_then(Value::as_f64).unwrap_or_default();
        lines.push(format!(
            "   {name}: {} numbers, noise of standard deviation {:.4}, {} of them within two of those",
            number("entries"),
            number("standard_deviation"),
            number("within_two_standard_deviations")
        ));
    }
    if let Some(release) = entry.release.as_ref().filter(|_| whole) {
        lines.push(format!("   what would leave, with its noise:\n{release:#}"));
    }
    lines.join("\n")
}

fn counted(about: &Value) -> String {
    let variants = about.get("variants").and_then(Value::as_u64).unwrap_or_default();
    if variants == 0 { "columns".to_owned() } else { format!("{variants} variants and columns") }
}

/// What a person says of what waits.
pub(super) struct Word<'a> {
    pub(super) number: u64,
    pub(super) approved: bool,
    pub(super) key: &'a Path,
    pub(super) why: Reason,
    /// Of the component, from now on, rather than of this one job.
    pub(super) component: bool,
}

/// Signs and books it.
pub(super) fn decide(dir: &Path, word: Word<'_>, json: bool) -> Result<()> {
    let Word { number, approved, key, why, component } = word;
    let site = recorded(dir, if approved { "approve" } else { "deny" }, json!({ "number": number }))?;
    let queue = site.ledger().map_err(home)?.queue().map_err(|error| coded(error.code(), error))?;
    let entry = queue.into_iter().find(|entry| entry.number == number);
    let entry = entry.ok_or_else(|| Failure::input("queue-number", format!("nothing of the number {number} waits here")))?;
    let own: Vec<PublicKey> =
        entry.about.get("keys").and_then(|keys| serde_json::from_value(keys.clone()).ok()).unwrap_or_default();
    let subject = if component { of_component(&entry.about)? } else { entry.subject };
    let envelope = signed(subject, approved, why, key)?;
    let (review, person) =
        vestibule_runtime::review::book(&site, &envelope, &own, since_1970()).map_err(|error| coded(error.code(), error))?;
    let done = if review.approved { "approved" } else { "denied" };
    print(json, &json!({ "number": number, "decision": done, "by": person }), &format!("{number} is {done} by {person}"));
    Ok(())
}

fn of_component(about: &Value) -> Result<Subject> {
    let digest = about.get("component").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
    let why = "this entry is about a release: components are approved by the entry of a job, or by `vestibule review`";
    digest.map(|component| Subject::Component { component }).ok_or_else(|| Failure::input("queue-component", why))
}

/// A review, signed.
pub(crate) fn signed(subject: Subject, approved: bool, why: Reason, key: &Path) -> Result<Vec<u8>> {
    let at = OffsetDateTime::now_utc().replace_nanosecond(0)?.format(&Rfc3339)?;
    let review = Review { subject, approved, why, at };
    review.sign(&secret_key(key)?).map_err(|error| coded(error.code(), error))
}

/// Takes in a review that somebody signed elsewhere.
pub(super) fn import(dir: &Path, file: &Path, json: bool) -> Result<()> {
    let site = recorded(dir, "review", json!({ "file": file }))?;
    let envelope = read_bytes(file)?;
    let booked = vestibule_runtime::review::book(&site, &envelope, &[], since_1970());
    let (review, person) = booked.map_err(|error| coded(error.code(), format!("{}: {error}", file.display())))?;
    let done = if review.approved { "approved" } else { "denied" };
    print(json, &json!({ "subject": review.subject, "decision": done, "by": person }), &format!("{done} by {person}"));
    Ok(())
}
