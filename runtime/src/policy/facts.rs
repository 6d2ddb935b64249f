//! The facts that a site's rules are asked about, as Cedar's JSON.
//!
//! *In*: terms that were verified, the researcher as the trust bundle knows them, the dataset's sealed description, the component's plan. *Out*:
//! a [`Question`]. *Trusts*: the steps before. Nothing here follows from an individual's data, nor from what was spent.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vestibule_protocol::round::{Partitioning, Plan};
use vestibule_protocol::trust::Person;

use super::rules::{Question, entity, uid};
use crate::admission::Verified;
use crate::airlock::Counts;
use crate::dataset::{DatasetInfo, modifiers, permission};

/// What a job is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its terms.
    pub verified: &'a Verified,
    /// Who signed them.
    pub researcher: &'a Person,
    /// Whether the consortium says that their organisation works for no profit.
    pub not_for_profit: bool,
    /// What it reads from.
    pub dataset: &'a DatasetInfo,
    /// What it reads.
    pub plan: &'a Plan,
    /// How many variants that is.
    pub variants: usize,
    /// Whether its component was reviewed.
    pub reviewed: bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// What a release is judged by, besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outgoing {
    /// Whether the project was accepted on the term that releases are looked at.
    pub review: bool,
    /// Of its numbers.
    pub counts: Counts,
    /// Releases alike that went before.
    pub similar: u64,
    /// Releases of the same project over the same columns and lists of variants of the same people, by whatever component, lately.
    pub near: u64,
}

impl Facts<'_> {
    /// About the job.
    #[must_use]
    pub fn question(&self) -> Question {
        self.with(json!({ "job": self.job() }))
    }

    /// About one of its releases.
    #[must_use]
    pub fn release(&self, out: Outgoing) -> Question {
        let Outgoing { review, counts: Counts { entries, chosen, faint, rare }, similar, near } = out;
        let out = json!({ "review": review, "entries": entries, "chosen": chosen, "similar": similar, "faint": faint,
            "rare": rare, "near": near });
        self.with(json!({ "job": self.job(), "out": out }))
    }

    fn with(&self, context: Value) -> Question {
        let Self { researcher, dataset, .. } = self;
        let (name, set) = (dataset.name.to_string(), dataset.name.as_str());
        Question {
            researcher: researcher.name.to_string(),
            dataset: name,
            entities: [
                json!({ "uid": uid("Researcher", researcher.name.as_str()), "parents": [], "attrs": {
                    "organisation": researcher.organisation,
                    "country": entity("Country", &researcher.country),
                    "not_for_profit": self.not_for_profit,
                } }),
                json!({ "uid": uid("Dataset", set), "parents": [], "attrs": described(dataset) }),
            ],
            context,
        }
    }

    fn job(&self) -> Value {
        let (signed, charter) = (self.verified.signed(), self.verified.charter().signed().charter());
        let manifest = signed.manifest();
        let purpose = &charter.purpose;
        let mut why = json!({ "research": entity("Term", &purpose.research), "commercial": purpose.commercial,
            "methods_only": purpose.methods_only, "clinical_care": purpose.clinical_care });
        if let (Some(disease), Value::Object(why)) = (&purpose.disease, &mut why) {
            why.insert("disease".to_owned(), entity("Disease", disease));
        }
        let sensitive = |column: &&String| self.dataset.dictionary.column(column).is_some_and(|(_, column)| column.sensitive);
        let sensitive: Vec<&String> = self.plan.columns.iter().filter(sensitive).collect();
        json!({
            "now": moment(OffsetDateTime::from_unix_timestamp(self.now).unwrap_or(OffsetDateTime::UNIX_EPOCH)),
            "project": charter.project,
            "purpose": why,
            "ethics": charter.ethics.is_some(),
            "component": manifest.component.sha256.to_string(),
            "reviewed": self.reviewed,
            "columns": self.plan.columns,
            "sensitive": sensitive,
            "variants": self.variants,
            "blocks": matches!(self.plan.partitioning, Partitioning::Blocks(_)),
            "rounds": self.plan.max_rounds,
            "epsilon_micro": manifest.epsilon_micro,
            "delta_femto": manifest.delta_femto,
            "sites": manifest.sites.len(),
        })
    }
}

/// A dataset's attributes.
fn described(info: &DatasetInfo) -> Value {
    let mut attributes = Map::new();
    let mut put = |name: &str, value: Value| attributes.insert(name.to_owned(), value);
    if let Some(code) = permission(&info.duo) {
        put("permission", entity("Term", code));
    }
    put("modifiers", modifiers(&info.duo).map(|code| entity("Term", code)).collect());
    put("diseases", info.conditions.diseases.iter().map(|code| entity("Disease", code)).collect());
    put("countries", info.conditions.countries.iter().map(|code| entity("Country", code)).collect());
    put("projects", json!(info.conditions.projects));
    if let Some(until) = info.conditions.until() {
        put("use_until", moment(until));
    }
    put("individuals", json!(info.approximate_size));
    Value::Object(attributes)
}

/// Cedar's extension type of a moment.
fn moment(at: OffsetDateTime) -> Value {
    let text = at.format(&Rfc3339).unwrap_or_default();
    json!({ "__extn": { "fn": "datetime", "arg": text } })
}
