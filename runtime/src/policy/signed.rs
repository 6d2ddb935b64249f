//! A site's policy as its officers sign it: two of them at least, and those of the policy before.
//!
//! *In*: a [`Document`] to sign, or an envelope. *Out*: [`Rules`] that may take the place of others. *Trusts*: the officers of the policy that
//! holds now. *Refuses*: too few signatures, of the officers before or of its own; an older version; another site's; rules that do not validate.

use std::collections::BTreeSet;

use vestibule_protocol::dsse::{self, DsseError};
use vestibule_protocol::key::SecretKey;

use super::rules::{Document, Officers, Rules, RulesError};

/// DSSE payload type of a policy.
pub const POLICY_TYPE: &str = "application/vnd.vestibule.policy.v1+json";

/// A policy that does not take the place of the one that holds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The envelope.
    #[error("policy: {0}")]
    Envelope(#[from] DsseError),
    /// Not the JSON of a policy.
    #[error("policy: {0}")]
    Json(String),
    /// Its rules.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Fewer officers than two.
    #[error("policy: it names {found} officers, of whom {threshold} must sign: two different ones at least must")]
    Officers {
        /// How many it names.
        found: usize,
        /// How many must sign.
        threshold: u32,
    },
    /// Too few signed.
    #[error("the policy is signed by {found} of the {whose} officers, and {needed} are needed")]
    Signatures {
        /// The new ones, or those before.
        whose: &'static str,
        /// How many signed.
        found: usize,
        /// How many must.
        needed: u32,
    },
    /// Not newer.
    #[error("the policy is of version {found}, and version {known} holds: a change has a higher one")]
    Old {
        /// Its version.
        found: u64,
        /// What holds.
        known: u64,
    },
    /// Another site's.
    #[error("the policy is of another site")]
    Site,
}

impl PolicyError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Json(_) => "policy-malformed",
            Self::Rules(error) => error.code(),
            Self::Officers { .. } => "policy-officers",
            Self::Signatures { .. } => "policy-signatures",
            Self::Old { .. } => "policy-old",
            Self::Site => "policy-other-site",
        }
    }
}

/// Checks a document and signs it with an officer's key.
///
/// # Errors
/// A document that no site would take.
pub fn sign(document: &Document, key: &SecretKey) -> Result<Vec<u8>, PolicyError> {
    officers(&document.officers)?;
    Rules::of(document.clone())?;
    Ok(dsse::sign(POLICY_TYPE, &document.payload(), key))
}

/// The policy in an envelope that enough of its own officers signed.
///
/// # Errors
/// See [`PolicyError`].
pub fn stored(envelope: &[u8]) -> Result<Rules, PolicyError> {
    let payload = dsse::payload(envelope, POLICY_TYPE)?;
    let document: Document = serde_json::from_slice(&payload).map_err(|error| PolicyError::Json(error.to_string()))?;
    // What is named by digest is the bytes that were signed.
    if document.payload() != payload {
        return Err(PolicyError::Json("it is not written as this program writes it: sign it again".to_owned()));
    }
    officers(&document.officers)?;
    enough(envelope, &document.officers, "new")?;
    Ok(Rules::of(document)?)
}

/// The policy in an envelope, if it may take the place of the one that holds.
///
/// # Errors
/// See [`PolicyError`].
pub fn next(now: &Rules, envelope: &[u8]) -> Result<Rules, PolicyError> {
    let rules = stored(envelope)?;
    let (new, old) = (rules.document(), now.document());
    if new.site != old.site {
        return Err(PolicyError::Site);
    }
    // What ships with the program has none: anyone who is first named by the site's operator is.
    if old.version > 0 {
        enough(envelope, &old.officers, "former")?;
    }
    if new.version <= old.version {
        return Err(PolicyError::Old { found: new.version, known: old.version });
    }
    Ok(rules)
}

fn officers(officers: &Officers) -> Result<(), PolicyError> {
    let found = officers.keys.iter().collect::<BTreeSet<_>>().len();
    let threshold = officers.threshold;
    let possible = found == officers.keys.len() && (2..=found).contains(&(threshold as usize));
    if possible { Ok(()) } else { Err(PolicyError::Officers { found, threshold }) }
}

fn enough(envelope: &[u8], officers: &Officers, whose: &'static str) -> Result<(), PolicyError> {
    let found = dsse::signers(envelope, POLICY_TYPE, &officers.keys)?.len();
    if found < officers.threshold as usize {
        return Err(PolicyError::Signatures { whose, found, needed: officers.threshold });
    }
    Ok(())
}
