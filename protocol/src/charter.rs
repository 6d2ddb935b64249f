//! A project's terms, as its lead signs them and a committee reads them: who, why, on what, for how much, until when.
//!
//! *In*: terms to sign, or a DSSE envelope. *Out*: [`SignedCharter`]: the charter, and the digest by which manifests name it. *Trusts*: nothing
//! but the signature of the lead that the charter itself names: whether that is anybody, the trust bundle says; whether a site takes part, the
//! site. *Refuses*: unknown fields, impossible budgets and times, purposes that are no DUO or MONDO codes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::{self, DsseError};
use crate::job::{Budget, BudgetError, Noise};
use crate::key::{PublicKey, SecretKey};
use crate::name::Name;
use crate::privacy::Rho;
use crate::words::{Paragraphs, Title, instant};

/// DSSE payload type of a charter.
pub const CHARTER_TYPE: &str = "application/vnd.vestibule.charter.v1+json";
const MAX_LIST: usize = 1_024;
/// As many as a dictionary has columns.
const MAX_LISTED: usize = 10_000;

/// A project's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charter {
    /// The project's short name.
    pub project: Name,
    /// Its title.
    pub title: Title,
    /// What it is for, in words that the people in the data would understand.
    pub summary: Paragraphs,
    /// What it is for, in codes that a policy can decide by.
    pub purpose: Purpose,
    /// Who answers for it, and signs this.
    pub lead: PublicKey,
    /// Who may sign jobs under it.
    pub members: BTreeSet<PublicKey>,
    /// Which sites are asked.
    pub sites: BTreeSet<Name>,
    /// Which of their datasets.
    pub datasets: BTreeSet<Name>,
    /// Which columns jobs may read.
    pub columns: Range<Name>,
    /// Which catalogues.
    pub catalogues: Range<Name>,
    /// Which components may run.
    pub components: Range<Digest>,
    /// 10^-6 epsilon that all its jobs together may spend at each site, per individual.
    pub epsilon_micro: u64,
    /// 10^-15 delta likewise.
    pub delta_femto: u64,
    /// RFC 3339, UTC.
    pub not_before: String,
    /// RFC 3339, UTC.
    pub not_after: String,
    /// What is to come out of it.
    pub outputs: Paragraphs,
    /// Who pays.
    pub funding: Paragraphs,
    /// The ethics committee's reference, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethics: Option<Title>,
}

/// All, or those listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Range<T: Ord> {
    /// Whatever a dataset has.
    Any,
    /// These.
    Only(BTreeSet<T>),
}

impl<T: Ord> Range<T> {
    /// Whether one of them is meant.
    pub fn has(&self, one: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(these) => these.contains(one),
        }
    }

    fn listed(&self) -> Option<usize> {
        match self {
            Self::Any => None,
            Self::Only(these) => Some(these.len()),
        }
    }
}

/// Why, in codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// A research type of the GA4GH Data Use Ontology: DUO:0000031 to DUO:0000040.
    pub research: String,
    /// A disease of the Mondo ontology, such as MONDO:0005148.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disease: Option<String>,
    /// Whether it is commercial.
    #[serde(default)]
    pub commercial: bool,
    /// Whether it only develops methods.
    #[serde(default)]
    pub methods_only: bool,
    /// Whether it serves the care of patients.
    #[serde(default)]
    pub clinical_care: bool,
}

/// A charter that its lead signed, and whose fields were checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SignedCharter {
    charter: Charter,
    digest: Digest,
    rho: Rho,
    valid: (i64, i64),
}

/// A charter that is not one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CharterError {
    /// The envelope.
    #[error("charter: {0}")]
    Envelope(#[from] DsseError),
    /// Not the JSON of a charter.
    #[error("charter: {0}")]
    Json(String),
    /// Epsilon or delta.
    #[error("charter: {0}")]
    Budget(#[from] BudgetError),
    /// A field outside its limits.
    #[error("charter, field `{field}`: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl CharterError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Json(_) => "charter-malformed",
            Self::Budget(error) => error.code(),
            Self::Field { .. } => "charter-field",
        }
    }
}

impl Charter {
    /// Checks the terms and signs them, with the lead's key. Returns the envelope's bytes.
    ///
    /// # Errors
    /// Terms that nobody would accept; another key than the lead's.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, CharterError> {
        self.check()?;
        if key.public() != self.lead {
            return Err(CharterError::Field { field: "lead", why: "the charter is signed by its lead alone" });
        }
        let payload = serde_json::to_vec(self).map_err(|error| CharterError::Json(error.to_string()))?;
        Ok(dsse::sign(CHARTER_TYPE, &payload, key))
    }

    fn check(&self) -> Result<(Rho, (i64, i64)), CharterError> {
        let field = |field, why| Err(CharterError::Field { field, why });
        let code = |code: &str, prefix: &str| {
            let digits =
                code.strip_prefix(prefix).filter(|digits| digits.len() == 7 && digits.bytes().all(|c| c.is_ascii_digit()));
            digits.and_then(|digits| digits.parse::<u32>().ok())
        };
        if !code(&self.purpose.research, "DUO:").is_some_and(|number| (31..=40).contains(&number)) {
            return field("purpose.research", "a research type of the Data Use Ontology: DUO:0000031 to DUO:0000040");
        }
        if self.purpose.disease.as_ref().is_some_and(|disease| code(disease, "MONDO:").is_none()) {
            return field("purpose.disease", "a code of the Mondo ontology, such as MONDO:0005148");
        }
        let lengths = [self.members.len(), self.sites.len(), self.datasets.len()];
        if lengths.iter().any(|length| !(1..=MAX_LIST).contains(length)) {
            return field("members", "members, sites and datasets: 1 to 1,024 of each");
        }
        let listed = [self.columns.listed(), self.catalogues.listed(), self.components.listed()];
        if listed.iter().flatten().any(|listed| *listed > MAX_LISTED) {
            return field("columns", "columns, catalogues and components: all, or at most 10,000 of each");
        }
        let Some(from) = instant(&self.not_before) else { return field("not_before", "must be an RFC 3339 time") };
        let Some(until) = instant(&self.not_after) else { return field("not_after", "must be an RFC 3339 time") };
        if from >= until {
            return field("not_after", "must be later than not_before");
        }
        #[expect(clippy::cast_precision_loss, reason = "amounts that matter are far below 2^53")]
        let (epsilon, delta) = (self.epsilon_micro as f64 / 1e6, self.delta_femto as f64 / 1e15);
        let noise = if self.delta_femto == 0 { Noise::Laplace } else { Noise::Gaussian };
        Ok((Budget::new(noise, epsilon, delta)?.rho(), (from, until)))
    }
}

impl SignedCharter {
    /// Verifies the lead's signature, then checks the same bytes.
    ///
    /// # Errors
    /// See [`CharterError`].
    pub fn verify(envelope: &[u8]) -> Result<Self, CharterError> {
        let payload = dsse::payload(envelope, CHARTER_TYPE)?;
        let charter: Charter = serde_json::from_slice(&payload).map_err(|error| CharterError::Json(error.to_string()))?;
        dsse::verify(envelope, CHARTER_TYPE, &[charter.lead])?;
        let (rho, valid) = charter.check()?;
        Ok(Self { charter, digest: Digest::of(&payload), rho, valid })
    }

    /// The terms.
    #[must_use]
    pub const fn charter(&self) -> &Charter {
        &self.charter
    }

    /// SHA-256 of the signed bytes: how manifests name it.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What all its jobs together may spend.
    #[must_use]
    pub const fn rho(&self) -> Rho {
        self.rho
    }

    /// Whether `now` (seconds since 1970) is within its time.
    #[must_use]
    pub const fn is_valid_at(&self, now: i64) -> bool {
        now >= self.valid.0 && now <= self.valid.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    fn good() -> Charter {
        Charter {
            project: "lipids".parse().unwrap(),
            title: "Common variants and blood lipids".parse().unwrap(),
            summary: "We look for small differences in the genome that go with more fat in the blood.".parse().unwrap(),
            purpose: Purpose {
                research: "DUO:0000037".into(),
                disease: Some("MONDO:0005148".into()),
                commercial: false,
                methods_only: false,
                clinical_care: false,
            },
            lead: key(1).public(),
            members: BTreeSet::from([key(1).public(), key(2).public()]),
            sites: BTreeSet::from(["leiden".parse().unwrap()]),
            datasets: BTreeSet::from(["cohort".parse().unwrap()]),
            columns: Range::Only(BTreeSet::from(["age".parse().unwrap()])),
            catalogues: Range::Any,
            components: Range::Any,
            epsilon_micro: 4_000_000,
            delta_femto: 1_000_000_000,
            not_before: "2026-11-01T00:00:00Z".into(),
            not_after: "2027-11-01T00:00:00Z".into(),
            outputs: "frequencies and effects".parse().unwrap(),
            funding: "public".parse().unwrap(),
            ethics: None,
        }
    }

    #[test]
    fn its_lead_signs_it_and_nobody_else() {
        let envelope = good().sign(&key(1)).unwrap();
        let signed = SignedCharter::verify(&envelope).unwrap();
        assert_eq!(signed.charter(), &good());
        assert!(signed.is_valid_at(1_795_000_000) && !signed.is_valid_at(1_900_000_000));
        assert_eq!(good().sign(&key(2)).unwrap_err().code(), "charter-field");
        let payload = serde_json::to_vec(&good()).unwrap();
        let other = dsse::sign(CHARTER_TYPE, &payload, &key(2));
        assert_eq!(SignedCharter::verify(&other).unwrap_err().code(), "signature-refused");
        let text = String::from_utf8(payload).unwrap();
        for changed in [text.replacen('{', r#"{"more":1,"#, 1), text.replacen('{', r#"{"project":"x","#, 1)] {
            let envelope = dsse::sign(CHARTER_TYPE, changed.as_bytes(), &key(1));
            assert_eq!(SignedCharter::verify(&envelope).unwrap_err().code(), "charter-malformed");
        }
        assert!(good().columns.has(&"age".parse().unwrap()) && !good().columns.has(&"sex".parse().unwrap()));
    }

    #[test]
    fn each_bad_field_is_named() {
        let bad = |want: &str, change: &dyn Fn(&mut Charter)| {
            let mut charter = good();
            change(&mut charter);
            let error = charter.sign(&key(1)).unwrap_err();
            assert!(error.to_string().contains(want), "{error} does not name {want}");
        };
        let many = (0..=MAX_LISTED).map(|n| format!("c{n}").parse().unwrap());
        bad("columns", &|c| c.columns = Range::Only(many.clone().collect()));
        bad("purpose.research", &|c| c.purpose.research = "DUO:0000042".into());
        bad("purpose.research", &|c| c.purpose.research = "health".into());
        bad("purpose.disease", &|c| c.purpose.disease = Some("diabetes".into()));
        bad("members", &|c| c.members.clear());
        bad("not_before", &|c| c.not_before = "now".into());
        bad("not_after", &|c| c.not_after = c.not_before.clone());
        bad("epsilon", &|c| c.epsilon_micro = 0);
    }
}
