//! A job's terms, as a researcher signs them: which component, on what, for how much, where, until when.
//!
//! *In*: terms to sign, or a DSSE envelope with the keys that are accepted. *Out*: [`Signed`]: the manifest, who signed it, and
//! the digest of the signed bytes. *Trusts*: the list of accepted keys. *Refuses*: any other signature, unknown or doubled
//! fields, impossible budgets, a component or dataset named twice, times outside the manifest's own.
//!
//! Money amounts of privacy are whole numbers (10^-6 epsilon, 10^-15 delta), so that all read the same terms from the bytes.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::{self, DsseError};
use crate::job::{Budget, BudgetError, JobId, Limits, Noise};
use crate::key::{PublicKey, SecretKey};
use crate::name::Name;
use crate::words::{Topic, instant};

/// DSSE payload type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.vestibule.manifest.v1+json";
/// Most bytes of the parameters.
pub const MAX_PARAMS_BYTES: usize = 64 << 10;
/// Most bytes of a component.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;
/// Most sites of a job.
pub const MAX_SITES: usize = 1_024;

/// A component, by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComponentRef {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// How many there are.
    pub bytes: u64,
}

/// A catalogue that the job relies on, by name and content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueRef {
    /// The name that the plan uses.
    pub name: Name,
    /// SHA-256 of the catalogue file: every site must have the same variants in the same order.
    pub sha256: Digest,
}

/// A job's terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Drawn by the researcher.
    pub job: JobId,
    /// The project that it belongs to: SHA-256 of its signed [`crate::charter`].
    pub charter: Digest,
    /// What it is about, for people: at most 200 characters.
    pub title: Topic,
    /// What runs.
    pub component: ComponentRef,
    /// Its parameters: a JSON text, passed to the component as it is.
    pub params: String,
    /// Which of each site's datasets.
    pub dataset: Name,
    /// The dictionary that the columns are read by.
    pub dictionary: Digest,
    /// The catalogues that the variants are read by.
    pub catalogues: Vec<CatalogueRef>,
    /// Which noise.
    pub noise: Noise,
    /// 10^-6 epsilon, for the whole job, per individual, at each site.
    pub epsilon_micro: u64,
    /// 10^-15 delta, likewise. 0 with Laplace noise.
    pub delta_femto: u64,
    /// Who is asked.
    pub sites: Vec<Name>,
    /// How many of them must take part for the job to go on.
    pub min_sites: u32,
    /// What one partition may use.
    pub limits: Limits,
    /// How long a site may take for one round, in seconds, before the job goes on without it.
    pub round_deadline_seconds: u32,
    /// RFC 3339, UTC: not valid before.
    pub not_before: String,
    /// RFC 3339, UTC: not valid after.
    pub not_after: String,
}

/// A manifest whose signature was verified and whose fields were checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed {
    manifest: Manifest,
    signer: PublicKey,
    digest: Digest,
    budget: Budget,
    valid: (i64, i64),
}

/// A manifest that is not accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The envelope or its signature.
    #[error("manifest: {0}")]
    Envelope(#[from] DsseError),
    /// Not the JSON of a manifest.
    #[error("manifest: {0}")]
    Json(String),
    /// Epsilon or delta.
    #[error("manifest: {0}")]
    Budget(#[from] BudgetError),
    /// A field outside its limits.
    #[error("manifest, field `{field}`: {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Now is outside the manifest's own times.
    #[error("manifest: valid from {not_before} to {not_after}, which does not hold now")]
    Time {
        /// From when.
        not_before: String,
        /// Until when.
        not_after: String,
    },
}

impl ManifestError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Json(_) => "manifest-malformed",
            Self::Budget(error) => error.code(),
            Self::Field { .. } => "manifest-field",
            Self::Time { .. } => "manifest-expired",
        }
    }
}

impl Manifest {
    /// Checks the terms and signs them. Returns the envelope's bytes.
    ///
    /// # Errors
    /// Terms that nobody would accept.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let payload = serde_json::to_vec(self).map_err(|error| ManifestError::Json(error.to_string()))?;
        Ok(dsse::sign(MANIFEST_TYPE, &payload, key))
    }

    fn check(&self) -> Result<(Budget, (i64, i64)), ManifestError> {
        let field = |field, why| Err(ManifestError::Field { field, why });
        if self.component.bytes == 0 || self.component.bytes > MAX_COMPONENT_BYTES {
            return field("component.bytes", "a component has 1 byte to 64 MiB");
        }
        if self.params.len() > MAX_PARAMS_BYTES || serde_json::from_str::<serde::de::IgnoredAny>(&self.params).is_err() {
            return field("params", "must be a JSON text of at most 64 KiB");
        }
        if self.sites.is_empty() || self.sites.len() > MAX_SITES {
            return field("sites", "1 to 1024 sites");
        }
        if self.sites.iter().collect::<BTreeSet<_>>().len() != self.sites.len() {
            return field("sites", "a site is named twice");
        }
        if self.min_sites == 0 || self.min_sites as usize > self.sites.len() {
            return field("min_sites", "at least 1 and at most the number of sites");
        }
        if self.catalogues.iter().map(|catalogue| &catalogue.name).collect::<BTreeSet<_>>().len() != self.catalogues.len() {
            return field("catalogues", "a catalogue is named twice");
        }
        if self.limits.fuel_per_partition == 0 || self.limits.memory_mib == 0 {
            return field("limits", "fuel and memory must be above 0");
        }
        if !(1..=7 * 24 * 3_600).contains(&self.round_deadline_seconds) {
            return field("round_deadline_seconds", "1 second to 7 days");
        }
        let Some(from) = instant(&self.not_before) else { return field("not_before", "must be an RFC 3339 time") };
        let Some(until) = instant(&self.not_after) else { return field("not_after", "must be an RFC 3339 time") };
        if from >= until {
            return field("not_after", "must be later than not_before");
        }
        #[expect(clippy::cast_precision_loss, reason = "amounts that matter are far below 2^53")]
        let (epsilon, delta) = (self.epsilon_micro as f64 / 1e6, self.delta_femto as f64 / 1e15);
        Ok((Budget::new(self.noise, epsilon, delta)?, (from, until)))
    }
}

impl Signed {
    /// Verifies an envelope against the accepted keys, then parses and checks the same bytes. Times are left to
    /// [`Self::valid_at`], since a stored manifest is read again later.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn verify(envelope: &[u8], accepted: &[PublicKey]) -> Result<Self, ManifestError> {
        let (payload, signer) = dsse::verify(envelope, MANIFEST_TYPE, accepted)?;
        let manifest: Manifest = serde_json::from_slice(&payload).map_err(|error| ManifestError::Json(error.to_string()))?;
        let (budget, valid) = manifest.check()?;
        Ok(Self { manifest, signer, digest: Digest::of(&payload), budget, valid })
    }

    /// Whether `now` (seconds since 1970, UTC) is within the manifest's own times.
    ///
    /// # Errors
    /// [`ManifestError::Time`].
    pub fn valid_at(&self, now: i64) -> Result<(), ManifestError> {
        if now >= self.valid.0 && now <= self.valid.1 {
            return Ok(());
        }
        let Manifest { not_before, not_after, .. } = self.manifest.clone();
        Err(ManifestError::Time { not_before, not_after })
    }

    /// When the last of its rounds is over, at any site (seconds since 1970): no round begins after its times, and each has its deadline.
    #[must_use]
    pub fn over(&self) -> i64 {
        self.valid.1.saturating_add(self.manifest.round_deadline_seconds.into())
    }

    /// The terms.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whose key signed them.
    #[must_use]
    pub const fn signer(&self) -> PublicKey {
        self.signer
    }

    /// SHA-256 of the signed bytes: same job, other digest, is another job and is refused.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What the job may spend.
    #[must_use]
    pub const fn budget(&self) -> Budget {
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Manifest {
        Manifest {
            job: JobId::from_bytes([3; 16]),
            charter: Digest::of(b"charter"),
            title: "frequencies of chromosome 22".parse().unwrap(),
            component: ComponentRef { sha256: Digest::of(b"wasm"), bytes: 4 },
            params: "{}".into(),
            dataset: "cohort".parse().unwrap(),
            dictionary: Digest::of(b"dictionary"),
            catalogues: vec![],
            noise: Noise::Gaussian,
            epsilon_micro: 1_000_000,
            delta_femto: 1_000_000_000,
            sites: vec!["a".parse().unwrap(), "b".parse().unwrap()],
            min_sites: 2,
            limits: Limits::default(),
            round_deadline_seconds: 600,
            not_before: "2026-11-01T00:00:00Z".into(),
            not_after: "2026-12-01T00:00:00Z".into(),
        }
    }

    #[test]
    fn signed_terms_are_read_back() {
        let key = SecretKey::from_seed([1; 32]).unwrap();
        let envelope = good().sign(&key).unwrap();
        let signed = Signed::verify(&envelope, &[key.public()]).unwrap();
        assert_eq!(signed.manifest(), &good());
        assert_eq!(signed.signer(), key.public());
        assert!((signed.budget().epsilon() - 1.0).abs() < 1e-12);
        assert!(signed.valid_at(1_795_000_000).is_ok());
        assert_eq!(signed.valid_at(1_700_000_000).unwrap_err().code(), "manifest-expired");
        assert_eq!(signed.valid_at(1_900_000_000).unwrap_err().code(), "manifest-expired");
        let other = SecretKey::from_seed([2; 32]).unwrap();
        assert_eq!(Signed::verify(&envelope, &[other.public()]).unwrap_err().code(), "signature-refused");
    }

    #[test]
    fn each_bad_field_is_named() {
        let key = SecretKey::from_seed([1; 32]).unwrap();
        let bad = |want: &str, change: &dyn Fn(&mut Manifest)| {
            let mut manifest = good();
            change(&mut manifest);
            let error = manifest.sign(&key).unwrap_err();
            assert!(error.to_string().contains(want), "{error} does not name {want}");
        };
        bad("component.bytes", &|m| m.component.bytes = 0);
        bad("component.bytes", &|m| m.component.bytes = MAX_COMPONENT_BYTES + 1);
        bad("params", &|m| m.params = "{".into());
        bad("sites", &|m| m.sites.clear());
        bad("twice", &|m| m.sites[1] = m.sites[0].clone());
        bad("min_sites", &|m| m.min_sites = 0);
        bad("min_sites", &|m| m.min_sites = 3);
        bad("limits", &|m| m.limits.memory_mib = 0);
        bad("round_deadline_seconds", &|m| m.round_deadline_seconds = 0);
        bad("not_before", &|m| m.not_before = "yesterday".into());
        bad("not_after", &|m| m.not_after = m.not_before.clone());
        bad("epsilon", &|m| m.epsilon_micro = 0);
        bad("delta", &|m| m.delta_femto = 0);
    }

    #[test]
    fn unknown_and_doubled_fields_are_refused() {
        let key = SecretKey::from_seed([1; 32]).unwrap();
        let text = serde_json::to_string(&good()).unwrap();
        for changed in [text.replacen('{', r#"{"more":1,"#, 1), text.replacen('{', r#"{"min_sites":1,"#, 1)] {
            let envelope = dsse::sign(MANIFEST_TYPE, changed.as_bytes(), &key);
            assert_eq!(Signed::verify(&envelope, &[key.public()]).unwrap_err().code(), "manifest-malformed");
        }
    }
}
