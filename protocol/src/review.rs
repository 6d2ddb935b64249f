//! A person's signed word on something that waits for one: a job, a component, a release.
//!
//! *In*: a [`Review`] to sign, or a DSSE envelope with the keys that are accepted. *Out*: the review, and whose key signed it. *Trusts*: the list of
//! accepted keys. *Refuses*: any other signature, unknown fields, an answer without a reason. A review names by digest what was looked at: it
//! holds for those bytes and no others, and a review of a job or a release for one site alone.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::{self, DsseError};
use crate::job::JobId;
use crate::key::{PublicKey, SecretKey};
use crate::name::Name;
use crate::words::{Reason, instant};

/// DSSE payload type of a review.
pub const REVIEW_TYPE: &str = "application/vnd.vestibule.review.v1+json";

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Of what.
    pub subject: Subject,
    /// Yes or no.
    pub approved: bool,
    /// Why.
    pub why: Reason,
    /// RFC 3339, UTC.
    pub at: String,
}

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// A job, by its signed terms, at a site.
    Job {
        /// The site.
        site: Name,
        /// SHA-256 of the manifest.
        manifest: Digest,
    },
    /// A component: anyone who asks for it, wherever it runs.
    Component {
        /// SHA-256 of its bytes.
        component: Digest,
    },
    /// What is about to leave a site.
    Release {
        /// The site.
        site: Name,
        /// The job.
        job: JobId,
        /// The round.
        round: u32,
        /// SHA-256 of the release, which brings its salt.
        release: Digest,
    },
}

/// A review that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The envelope or its signature.
    #[error("review: {0}")]
    Envelope(#[from] DsseError),
    /// Not the JSON of a review.
    #[error("review: {0}")]
    Json(String),
    /// A field outside its limits.
    #[error("review, field `{field}`: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl ReviewError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Json(_) => "review-malformed",
            Self::Field { .. } => "review-field",
        }
    }
}

impl Review {
    /// Checks the review and signs it. Returns the envelope's bytes.
    ///
    /// # Errors
    /// A review that nobody would accept.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, ReviewError> {
        self.check()?;
        let payload = serde_json::to_vec(self).map_err(|error| ReviewError::Json(error.to_string()))?;
        Ok(dsse::sign(REVIEW_TYPE, &payload, key))
    }

    /// Verifies an envelope against the accepted keys, then checks the same bytes.
    ///
    /// # Errors
    /// See [`ReviewError`].
    pub fn verify(envelope: &[u8], accepted: &[PublicKey]) -> Result<(Self, PublicKey), ReviewError> {
        let (payload, signer) = dsse::verify(envelope, REVIEW_TYPE, accepted)?;
        let review: Self = serde_json::from_slice(&payload).map_err(|error| ReviewError::Json(error.to_string()))?;
        review.check()?;
        Ok((review, signer))
    }

    fn check(&self) -> Result<(), ReviewError> {
        match instant(&self.at) {
            Some(_) => Ok(()),
            None => Err(ReviewError::Field { field: "at", why: "must be an RFC 3339 time" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    #[test]
    fn a_review_is_its_signers_and_has_a_reason() {
        let subject = Subject::Job { site: "here".parse().unwrap(), manifest: Digest::of(b"m") };
        let review =
            Review { subject, approved: true, why: "looked at it".parse().unwrap(), at: "2026-11-24T00:00:00Z".into() };
        let envelope = review.sign(&key(1)).unwrap();
        assert_eq!(Review::verify(&envelope, &[key(2).public(), key(1).public()]).unwrap(), (review.clone(), key(1).public()));
        assert_eq!(Review::verify(&envelope, &[key(2).public()]).unwrap_err().code(), "signature-refused");
        for why in ["", " ", "x\ny"] {
            assert!(why.parse::<Reason>().is_err(), "a decision has a reason, on one line");
        }
        assert_eq!(Review { at: "now".into(), ..review.clone() }.sign(&key(1)).unwrap_err().code(), "review-field");
        let text = String::from_utf8(serde_json::to_vec(&review).unwrap()).unwrap();
        let more = dsse::sign(REVIEW_TYPE, text.replacen('{', r#"{"more":1,"#, 1).as_bytes(), &key(1));
        assert_eq!(Review::verify(&more, &[key(1).public()]).unwrap_err().code(), "review-malformed");
    }
}
