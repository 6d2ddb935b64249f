//! What the rules would say of a job, and why: before it comes, or while it waits.
//!
//! *In*: a site's folder, a signed manifest, its component if the site has none of it yet. *Out*: the decision with its rules and facts. *Trusts*:
//! what the daemon trusts. *Refuses*: what the daemon would refuse before its rules are asked, with the same codes. Nothing is booked or logged.

use std::time::Duration;

use serde_json::Value;
use vestibule_protocol::message::Offer;
use vestibule_protocol::review::Subject;
use vestibule_protocol::round::{Bound, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_protocol::trust::Role;
use vestibule_sandbox::CodeCache;
use vestibule_worker::Launch;

use super::Refused;
use super::judging::{Judged, parties};
use crate::admission;
use crate::component::{CodeFolder, Components};
use crate::dataset::Dataset;
use crate::guests::Guests;
use crate::home::Home;
use crate::policy;
use crate::policy::rules::Decision;
use crate::review;

/// What the rules say.
#[derive(Debug)]
pub struct Explained {
    /// The decision.
    pub decision: Decision,
    /// The facts, for people.
    pub about: Value,
    /// What a person has decided about the job, if somebody has.
    pub word: Option<bool>,
}

/// Why there is no answer: a code and a sentence.
pub type Unexplained = (&'static str, String);

impl From<Refused> for Unexplained {
    fn from(refused: Refused) -> Self {
        (refused.code, refused.why)
    }
}

/// Asks the rules that hold at a site about a job. `component`: its bytes, where the site does not have them.
///
/// # Errors
/// The job would be refused before the rules are asked, or the folder cannot be read.
pub fn explain(home: &Home, manifest: &[u8], component: Option<Vec<u8>>, since: Duration) -> Result<Explained, Unexplained> {
    macro_rules! known {
        ($result:expr) => {
            $result.map_err(|error| (error.code(), error.to_string()))?
        };
    }
    let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let site = known!(home.coordinator()).site;
    let missing = || ("trust-missing", "the site has no trust bundle of its consortium yet".to_owned());
    let trust = known!(home.trust()).ok_or_else(missing)?;
    let researchers = trust.keys(Role::Researcher);
    // Rules are asked about jobs; which round comes first, the analysis says to the coordinator.
    let statistic = Statistic { name: "any".into(), length: 1, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: false };
    let offer = Offer { manifest: manifest.to_vec(), round: 0, request };
    let charters = known!(home.charters());
    let verified = known!(admission::verify(offer, &researchers, &charters, &site, now));
    let data = known!(home.data());
    let terms = verified.signed().manifest().clone();
    let info = known!(Dataset::info_of(&data, &terms.dataset));
    let admitted = known!(policy::decide(verified.clone(), home.settings(), info.as_ref()));
    let bytes = match component {
        Some(bytes) => bytes,
        None => {
            let kept = known!(Components::new(known!(home.folder("blobs"))).get(terms.component));
            let why = "the site does not have the component yet: give its file".to_owned();
            kept.ok_or(("component-missing", why))?
        }
    };
    if vestibule_protocol::digest::Digest::of(&bytes) != terms.component.sha256 {
        return Err(("component-differs", "the file is not the component that the manifest names".to_owned()));
    }
    let cache = CodeCache::new(Box::new(CodeFolder(known!(home.folder("code")))), &home.code_key());
    let settings = home.settings();
    let guests = Guests::new(Launch::this_program(settings.max_memory_mib), cache);
    let guests = guests.within(Duration::from_secs(settings.max_public_seconds.into()));
    let plan = known!(known!(guests.load(&bytes)).plan(&terms.params, admitted.limits()));
    known!(verified.charter().reads(&plan.columns));
    let dataset = known!(Dataset::open(&data, &terms.dataset, &home.store_key()));
    let selection = known!(dataset.select(&plan.columns, &plan.variants));
    let ledger = known!(home.ledger());
    let rules = std::sync::Arc::new(known!(policy::holding(home, &ledger, &site)));
    let word = |subject: &Subject| -> Result<Option<bool>, Unexplained> {
        let Some(envelope) = known!(ledger.reviewed(subject)) else { return Ok(None) };
        let counted = review::counts(&envelope, &trust, &site, &rules, &parties(&verified));
        Ok(counted.ok().map(|(review, _)| review.approved))
    };
    let reviewed = word(&Subject::Component { component: terms.component.sha256 })? == Some(true);
    let read = (&verified, &plan, selection.variants());
    let judged = Judged::of((std::sync::Arc::clone(&rules), &trust), read, reviewed, now)?;
    let decision = judged.job(dataset.info());
    let about = judged.about(&decision);
    let word = word(&Subject::Job { site: site.clone(), manifest: verified.signed().digest() })?;
    Ok(Explained { decision, about, word })
}
