//! A site's rules, in Cedar: what is admitted, what waits for a person, what is refused.
//!
//! *In*: a [`Document`] of rules, and a [`Question`] made of facts that this site verified. *Out*: a [`Decision`], with the rules that made it.
//! *Trusts*: Cedar's evaluation of policies that its strict validator passed. *Refuses*: rules that do not validate without a warning, rules
//! without an id and a reason; and every question whose evaluation has an error: Cedar skips a policy that errs, so a `forbid` that errs would
//! let a `permit` win.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{
    AuthorizationError, Authorizer, Context, Decision as Answer, Entities, EntityUid, PolicyId, PolicySet, Request, Schema,
    ValidationMode, Validator,
};
use miette::Diagnostic as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::words::{Line, Reason, is_plain};

/// What rules can speak of.
pub const SCHEMA: &str = include_str!("site.cedarschema");
/// The rules that a site starts with.
pub const SHIPPED: &str = include_str!("site.cedar");
const VOCABULARY: &str = include_str!("vocabulary.json");

/// A site's policy, as its officers sign it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Whose it is.
    pub site: Name,
    /// Counted up by every change. The rules that a site starts with are version 0.
    pub version: u64,
    /// Who signs changes.
    pub officers: Officers,
    /// People of other organisations whose reviews of components count here.
    #[serde(default)]
    pub reviewers: BTreeSet<Name>,
    /// Diseases, and what each is a kind of: the part of Mondo that this site's datasets speak of.
    #[serde(default)]
    pub diseases: BTreeMap<String, BTreeSet<String>>,
    /// Regions, and the countries or regions in each, besides those that ship (EU, EEA).
    #[serde(default)]
    pub regions: BTreeMap<String, BTreeSet<String>>,
    /// The rules.
    pub rules: String,
}

/// Officers, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Officers {
    /// So many: at least 2.
    pub threshold: u32,
    /// Of these.
    pub keys: Vec<PublicKey>,
}

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// The rules' text.
    #[error("policy: {0}")]
    Rules(String),
    /// A rule without its annotation.
    #[error(
        "policy, rule {rule} from the top: every rule has an @id of its own and a @why, which people are shown, each on one line; it lacks `{missing}`"
    )]
    Unnamed {
        /// Which rule, counted from 1.
        rule: usize,
        /// What it lacks.
        missing: &'static str,
    },
}

impl RulesError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "policy-rules"
    }
}

/// What a site does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Goes on.
    Admit,
    /// Waits for a person.
    Hold,
    /// Ends here.
    Refuse,
}

/// A rule that took part in a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// Its reason.
    pub why: String,
}

/// What was decided, and by which rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What.
    pub outcome: Outcome,
    /// The rules that decided it. None where no rule permits.
    pub rules: Vec<Rule>,
    /// What went wrong in the evaluation, for the site's own log: then the outcome is to refuse.
    pub errors: Vec<String>,
}

impl Decision {
    /// In words: of the rules' reasons.
    #[must_use]
    pub fn why(&self) -> String {
        let reasons: Vec<String> = self.rules.iter().map(|rule| format!("{} ({})", rule.why, rule.id)).collect();
        match (self.errors.is_empty(), reasons.is_empty()) {
            (false, _) => "the site's rules could not be evaluated".to_owned(),
            (true, true) => {
                "no rule of the site permits it: what the dataset's people agreed to does not cover the purpose".to_owned()
            }
            (true, false) => reasons.join("; "),
        }
    }
}

/// Facts, in the form of the schema: a researcher, a dataset, and a context.
#[derive(Debug, Clone)]
pub struct Question {
    /// The researcher's name.
    pub researcher: String,
    /// The dataset's name.
    pub dataset: String,
    /// Attributes of both, as Cedar's JSON.
    pub entities: [Value; 2],
    /// The context, as Cedar's JSON.
    pub context: Value,
}

#[derive(Deserialize)]
struct Vocabulary {
    terms: BTreeMap<String, BTreeSet<String>>,
    regions: BTreeMap<String, BTreeSet<String>>,
}

/// Rules that were checked, ready to decide.
#[derive(Debug)]
pub struct Rules {
    document: Document,
    digest: Digest,
    policies: PolicySet,
    schema: Schema,
    world: Entities,
}

impl Rules {
    /// Checks a document's rules against the schema, strictly.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn of(document: Document) -> Result<Self, RulesError> {
        let wrong = |why: &dyn std::fmt::Display| RulesError::Rules(why.to_string());
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| wrong(&error))?;
        let read: PolicySet = document.rules.parse().map_err(|error| unparsed(&document.rules, &error))?;
        if read.templates().next().is_some() {
            return Err(RulesError::Rules("a rule has a placeholder (?principal, ?resource): rules are whole".to_owned()));
        }
        // What officers read is what they sign.
        let hidden = document.rules.lines().position(|line| !line.split('\t').all(is_plain));
        if let Some(line) = hidden {
            let why = "it has characters that are invisible or that turn the direction of writing";
            return Err(RulesError::Rules(format!("line {}: {why}", line.saturating_add(1))));
        }
        let mut policies = PolicySet::new();
        // Cedar calls them policy0, policy1, ... as they are written.
        let place = |policy: &&cedar_policy::Policy| policy.id().to_string().trim_start_matches("policy").parse::<usize>().ok();
        let mut written: Vec<_> = read.policies().collect();
        written.sort_by_key(place);
        for (index, policy) in written.into_iter().enumerate() {
            let unnamed = |missing| RulesError::Unnamed { rule: index.saturating_add(1), missing };
            let id = policy.annotation("id").filter(|id| id.parse::<Line<1, 100>>().is_ok());
            let id = id.ok_or_else(|| unnamed("@id"))?;
            policy.annotation("why").filter(|why| why.parse::<Reason>().is_ok()).ok_or_else(|| unnamed("@why"))?;
            policies.add(policy.new_id(PolicyId::new(id))).map_err(|_| unnamed("@id"))?;
        }
        let checked = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if !checked.validation_passed_without_warnings() {
            let errors = checked.validation_errors().map(ToString::to_string);
            let all: Vec<String> = errors.chain(checked.validation_warnings().map(ToString::to_string)).collect();
            return Err(RulesError::Rules(all.join("\n")));
        }
        let world = Entities::from_json_value(Value::Array(world(&document)?), Some(&schema)).map_err(|error| wrong(&error))?;
        Ok(Self { digest: document.digest(), document, policies, schema, world })
    }

    /// The rules that a site starts with.
    #[must_use]
    pub fn shipped(site: Name) -> Self {
        Self::of(Document::shipped(site)).expect("the shipped rules are checked by a test")
    }

    /// What was signed.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// SHA-256 of it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether a job may run, at once or after a person has looked.
    #[must_use]
    pub fn job(&self, question: &Question) -> Decision {
        let may = self.ask("run", question);
        if may.outcome != Outcome::Admit {
            return may;
        }
        let at_once = self.ask("run-at-once", question);
        match at_once.outcome {
            Outcome::Admit => Decision { rules: may.rules.into_iter().chain(at_once.rules).collect(), ..at_once },
            _ if at_once.errors.is_empty() => Decision { outcome: Outcome::Hold, ..at_once },
            _ => at_once,
        }
    }

    /// Whether a release may leave at once. What cannot be decided waits for a person. Errors are named by their rule alone: what went wrong may say
    /// a number of the release.
    #[must_use]
    pub fn release(&self, question: &Question) -> Decision {
        let decision = self.ask("release-at-once", question);
        let outcome = if decision.outcome == Outcome::Admit { Outcome::Admit } else { Outcome::Hold };
        let errors = decision.errors.iter().map(|error| error.split(':').next().unwrap_or_default().to_owned()).collect();
        Decision { outcome, errors, ..decision }
    }

    fn ask(&self, action: &str, question: &Question) -> Decision {
        self.response(action, question).unwrap_or_else(|error| Decision {
            outcome: Outcome::Refuse,
            rules: vec![],
            errors: vec![format!("the facts: {error}")],
        })
    }

    fn response(&self, action: &str, question: &Question) -> Result<Decision, String> {
        fn text(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        let entity = |kind: &str, id: &str| EntityUid::from_json(uid(kind, id)).map_err(text);
        let action = entity("Action", action)?;
        let context = Context::from_json_value(question.context.clone(), Some((&self.schema, &action))).map_err(text)?;
        let (researcher, dataset) = (entity("Researcher", &question.researcher)?, entity("Dataset", &question.dataset)?);
        let request = Request::new(researcher, action, dataset, context, Some(&self.schema)).map_err(text)?;
        let asked = Value::Array(question.entities.to_vec());
        let entities = self.world.clone().add_entities_from_json_value(asked, Some(&self.schema)).map_err(text)?;
        let response = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let failed = |error: &AuthorizationError| match error {
            AuthorizationError::PolicyEvaluationError(error) => format!("rule `{}`: {error}", error.policy_id()),
        };
        let errors: Vec<String> = response.diagnostics().errors().map(failed).collect();
        let mut rules: Vec<Rule> = response.diagnostics().reason().map(|id| self.rule(id)).collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        let admitted = errors.is_empty() && response.decision() == Answer::Allow;
        Ok(Decision { outcome: if admitted { Outcome::Admit } else { Outcome::Refuse }, rules, errors })
    }

    fn rule(&self, id: &PolicyId) -> Rule {
        Rule { id: id.to_string(), why: self.policies.annotation(id, "why").unwrap_or_default().to_owned() }
    }
}

impl Document {
    /// What a site starts with. It has no officers: the first that sign a policy are named in it.
    #[must_use]
    pub fn shipped(site: Name) -> Self {
        let officers = Officers { threshold: 2, keys: vec![] };
        let (reviewers, diseases, regions) = Default::default();
        Self { site, version: 0, officers, reviewers, diseases, regions, rules: SHIPPED.to_owned() }
    }

    /// Its signed bytes.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, keys and texts are always JSON")
    }

    /// SHA-256 of them.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.payload())
    }
}

/// The first error of a text that is no policy, with its line: what follows is often its consequence.
fn unparsed(rules: &str, errors: &cedar_policy::ParseErrors) -> RulesError {
    let place = errors.iter().next().and_then(|error| error.labels()?.next().map(|label| label.offset()));
    let before = rules.get(..place.unwrap_or(0)).unwrap_or(rules);
    RulesError::Rules(format!("line {}: {errors}", before.matches('\n').count().saturating_add(1)))
}

/// A name of the schema's, as Cedar's JSON.
pub(crate) fn uid(kind: &str, id: &str) -> Value {
    json!({ "type": format!("Site::{kind}"), "id": id })
}

/// An entity as a value.
pub(crate) fn entity(kind: &str, id: &str) -> Value {
    json!({ "__entity": uid(kind, id) })
}

/// What is a kind of what: terms, regions, diseases.
fn world(document: &Document) -> Result<Vec<Value>, RulesError> {
    let shipped: Vocabulary = serde_json::from_str(VOCABULARY).map_err(|error| RulesError::Rules(error.to_string()))?;
    let mut parents: BTreeMap<(&str, String), BTreeSet<String>> = BTreeMap::new();
    for (kind, kinds) in [("Term", &shipped.terms), ("Disease", &document.diseases)] {
        for (child, of) in kinds {
            of.iter().for_each(|parent| _ = parents.entry((kind, parent.clone())).or_default());
            parents.entry((kind, child.clone())).or_default().extend(of.iter().cloned());
        }
    }
    for (region, members) in shipped.regions.iter().chain(&document.regions) {
        parents.entry(("Country", region.clone())).or_default();
        for member in members {
            parents.entry(("Country", member.clone())).or_default().insert(region.clone());
        }
    }
    let one = |((kind, id), parents): (&(&str, String), &BTreeSet<String>)| {
        let parents: Vec<Value> = parents.iter().map(|parent| uid(kind, parent)).collect();
        json!({ "uid": uid(kind, id), "attrs": {}, "parents": parents })
    };
    Ok(parents.iter().map(one).collect())
}
