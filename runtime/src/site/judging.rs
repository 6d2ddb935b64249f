//! Step 6 and step 12, where rules and people decide: may a job run, may what it would release leave.
//!
//! *In*: admitted terms, the plan of their component, the dataset's sealed description; later, what the airlock cleared. *Out*: that it goes on, that
//! a person must look, or a refusal. *Trusts*: the rules that the site's officers signed, as the log says; signed words of people that count here.
//! *Refuses*: to go on when the rules cannot be read or evaluated.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::review::Subject;
use vestibule_protocol::round::Plan;
use vestibule_protocol::trust::{Person, Role, Trust};

use super::{Refused, Site, own};
use crate::admission::Verified;
use crate::airlock::{Cleared, Counts};
use crate::dataset::DatasetInfo;
use crate::home::HomeError;
use crate::ledger::{LedgerError, Settled, Whose};
use crate::policy;
use crate::policy::facts::{Facts, Outgoing};
use crate::policy::rules::{Decision, Outcome, Rules};
use crate::review;

/// A job as the rules saw it.
#[derive(Debug)]
pub(crate) struct Judged {
    rules: Arc<Rules>,
    verified: Verified,
    researcher: Person,
    not_for_profit: bool,
    plan: Plan,
    pub(super) variants: usize,
    reviewed: bool,
    now: i64,
}

/// That a person must look first, and why.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) why: String,
}

impl Judged {
    /// What the rules say of a job whose researcher the trust bundle names.
    pub(super) fn of(
        (rules, trust): (Arc<Rules>, &Trust),
        (verified, plan, variants): (&Verified, &Plan, usize),
        reviewed: bool,
        now: i64,
    ) -> Result<Self, Refused> {
        let researcher = trust.person(&verified.signed().signer(), Role::Researcher).cloned();
        let researcher = researcher.ok_or(("trust-researcher", "the trust bundle no longer names the researcher"))?;
        let not_for_profit = trust.bundle().non_profits.contains(&researcher.organisation);
        let (verified, plan) = (verified.clone(), plan.clone());
        Ok(Self { rules, verified, researcher, not_for_profit, plan, variants, reviewed, now })
    }

    fn facts<'a>(&'a self, dataset: &'a DatasetInfo) -> Facts<'a> {
        let Self { verified, researcher, plan, .. } = self;
        let (not_for_profit, variants, reviewed, now) = (self.not_for_profit, self.variants, self.reviewed, self.now);
        Facts { verified, researcher, not_for_profit, dataset, plan, variants, reviewed, now }
    }

    pub(crate) fn job(&self, dataset: &DatasetInfo) -> Decision {
        logged(self.rules.job(&self.facts(dataset).question()))
    }

    fn release(&self, dataset: &DatasetInfo, out: Outgoing) -> Decision {
        logged(self.rules.release(&self.facts(dataset).release(out)))
    }

    /// What a person needs to know of the job, in public terms.
    pub(crate) fn about(&self, decision: &Decision) -> Value {
        let (signed, charter) = (self.verified.signed(), self.verified.charter().signed());
        let (manifest, terms) = (signed.manifest(), charter.charter());
        json!({
            "job": manifest.job, "title": manifest.title, "round": self.verified.index(),
            "project": terms.project, "charter": charter.digest(), "purpose": terms.purpose,
            "researcher": self.researcher.name, "organisation": self.researcher.organisation, "country": self.researcher.country,
            "dataset": manifest.dataset, "component": manifest.component.sha256, "component_reviewed": self.reviewed,
            "columns": self.plan.columns, "variants": self.variants, "rounds": self.plan.max_rounds, "sites": manifest.sites,
            "epsilon_micro": manifest.epsilon_micro, "delta_femto": manifest.delta_femto,
            "rules": decision.rules, "policy": self.rules.document().version,
            "keys": parties(&self.verified),
        })
    }
}

fn logged(decision: Decision) -> Decision {
    for error in &decision.errors {
        tracing::error!(%error, "the site's rules could not be evaluated");
    }
    decision
}

/// Whose round waits.
fn whose(verified: &Verified) -> Whose<'_> {
    Whose {
        round: (verified.signed().manifest().job, verified.index()),
        researcher: verified.researcher(),
        charter: verified.charter().signed().digest(),
    }
}

/// Whose work it is: they do not decide about it.
pub(super) fn parties(verified: &Verified) -> Vec<PublicKey> {
    let charter = verified.charter().signed().charter();
    let mut keys: Vec<PublicKey> = charter.members.iter().copied().collect();
    keys.extend([verified.signed().signer(), charter.lead]);
    keys.sort();
    keys.dedup();
    keys
}

impl Site {
    /// The rules that hold, as the log says.
    fn rules(&self) -> Result<Arc<Rules>, Refused> {
        let set = self.ledger.policy().map_err(|error| own("ledger", &error))?.map(|(_, digest)| digest);
        let mut known = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, rules)) = known.as_ref().filter(|(of, _)| *of == set) {
            return Ok(Arc::clone(rules));
        }
        let rules = policy::holding(&self.home, &self.ledger, &self.name);
        let rules = rules.map_err(|error: HomeError| own("policy", &error))?;
        let rules = Arc::new(rules);
        *known = Some((set, Arc::clone(&rules)));
        Ok(rules)
    }

    /// What somebody whose word counts here decided last about a subject.
    pub(crate) fn word(
        &self,
        subject: &Subject,
        trust: &Trust,
        rules: &Rules,
        parties: &[PublicKey],
    ) -> Result<Option<bool>, LedgerError> {
        let Some(envelope) = self.ledger.reviewed(subject)? else { return Ok(None) };
        let counted = review::counts(&envelope, trust, &self.name, rules, parties);
        let counted = counted.inspect_err(|error| tracing::warn!(%error, "a review no longer counts"));
        Ok(counted.ok().map(|(review, _)| review.approved))
    }

    /// Asks the rules about a job: `None` where it goes on.
    pub(super) fn judge(
        &self,
        verified: &Verified,
        (plan, variants): (&Plan, usize),
        dataset: &DatasetInfo,
        since: Duration,
    ) -> Result<(Judged, Option<Held>), Refused> {
        let ledger = |error: LedgerError| own("ledger", &error);
        let (rules, trust) = (self.rules()?, self.trust().ok_or(("trust-missing", "the site has no trust bundle"))?);
        let parties = parties(verified);
        let component = Subject::Component { component: verified.signed().manifest().component.sha256 };
        let reviewed = self.word(&component, &trust, &rules, &parties).map_err(ledger)? == Some(true);
        let now = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let judged = Judged::of((Arc::clone(&rules), &trust), (verified, plan, variants), reviewed, now)?;
        let decision = judged.job(dataset);
        let subject = Subject::Job { site: self.name.clone(), manifest: verified.signed().digest() };
        match decision.outcome {
            Outcome::Admit => Ok((judged, None)),
            Outcome::Refuse => Err(("policy-refused", decision.why()).into()),
            Outcome::Hold => match self.word(&subject, &trust, &rules, &parties).map_err(ledger)? {
                Some(true) => Ok((judged, None)),
                Some(false) => {
                    Err(("review-denied", "a person at the site has looked at the job and decided against it").into())
                }
                None => {
                    let most = Some(self.home.settings().most_held());
                    let waits = self.ledger.wait(&subject, whose(verified), &judged.about(&decision), (most, since));
                    waits.map_err(|error| match error {
                        LedgerError::TooManyHeld => Refused::from((error.code(), error)),
                        error => ledger(error),
                    })?;
                    Ok((judged, Some(Held { why: decision.why() })))
                }
            },
        }
    }

    /// Why a person must look at what was cleared before it leaves, if one must; with what they need to know of the job.
    pub(super) fn outgoing(&self, judged: &Judged, dataset: &DatasetInfo, cleared: &Cleared) -> Option<(String, Value)> {
        self.hold(judged, dataset, cleared.counts())
    }

    /// The same about an answer that is there already, by what its terms alone say of it: all of its numbers may be faint, and those for variants rare.
    pub(super) fn again(&self, judged: &Judged, dataset: &DatasetInfo, calibrated: &[Calibrated]) -> Option<(String, Value)> {
        self.hold(judged, dataset, Counts::most(judged.verified.round().statistics(), calibrated, judged.variants))
    }

    fn hold(&self, judged: &Judged, dataset: &DatasetInfo, counts: Counts) -> Option<(String, Value)> {
        let job = judged.verified.signed().manifest().job;
        // Without the ledger's word, as if there were many.
        let many = u64::from(u32::MAX);
        let (similar, near) = (self.ledger.similar(job).unwrap_or(many), self.ledger.near(job).unwrap_or(many));
        let review = judged.verified.charter().terms().review;
        let decision = judged.release(dataset, Outgoing { review, counts, similar, near });
        (decision.outcome != Outcome::Admit).then(|| {
            let mut about = judged.about(&decision);
            if let Value::Object(about) = &mut about {
                about.insert("releases_alike_before".to_owned(), json!(similar));
                about.insert("releases_of_the_project_before".to_owned(), json!(near));
                about.insert("chosen_by_the_data".to_owned(), json!(counts.chosen));
                about.insert("rare_alleles".to_owned(), json!(counts.rare));
            }
            (decision.why(), about)
        })
    }

    /// Whether a release that waits for a person may leave: `None` while nobody has decided. Puts it into the queue. What has left before is not
    /// decided about again.
    pub(crate) fn release_word(
        &self,
        verified: &Verified,
        settled: &Settled,
        since: Duration,
    ) -> Result<Option<bool>, LedgerError> {
        let (Some(bytes), Some(why)) = (&settled.release, &settled.hold) else { return Ok(Some(true)) };
        let (job, round) = (verified.signed().manifest().job, verified.index());
        if let Some(departed) = self.ledger.departed(job, round)? {
            return Ok(Some(departed.released));
        }
        let subject = Subject::Release { site: self.name.clone(), job, round, release: Digest::of(bytes) };
        let (Some(trust), Ok(rules)) = (self.trust(), self.rules()) else { return Ok(None) };
        let parties = parties(verified);
        if let Some(word) = self.word(&subject, &trust, &rules, &parties)? {
            return Ok(Some(word));
        }
        let mut about = self.ledger.evidence(job, round)?.unwrap_or_else(|| json!({}));
        if let Value::Object(about) = &mut about {
            about.insert("why".to_owned(), json!(why));
            about.insert("title".to_owned(), json!(verified.signed().manifest().title));
            about.insert("project".to_owned(), json!(verified.charter().signed().charter().project));
            about.insert("researcher".to_owned(), json!(verified.researcher()));
            about.insert("job".to_owned(), json!(job));
            about.insert("round".to_owned(), json!(round));
            about.insert("keys".to_owned(), json!(parties));
        }
        // It was charged for: it waits, however many do.
        self.ledger.wait(&subject, whose(verified), &about, (None, since))?;
        Ok(None)
    }
}
