//! Step 5: whose offer is it, and is it meant for us?
//!
//! *In*: an offer as it came over the link, the consortium's researchers, the charters that this site has accepted, its name, and now.
//! *Out*: [`Verified`]: terms that a member of an accepted project signed, valid now, naming this site; and a round within its limits.
//! *Trusts*: the list of accepted keys, the clock. *Refuses*: everything else, with a code that depends on the offer alone.

use std::sync::Arc;

use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::{ManifestError, Signed};
use vestibule_protocol::message::Offer;
use vestibule_protocol::name::Name;
use vestibule_protocol::round::{Round, RoundError};

use crate::charter::{Accepted, CharterRefusal};

/// An offer whose terms were verified.
#[derive(Debug, Clone)]
pub struct Verified {
    signed: Signed,
    researcher: Name,
    site: Name,
    index: u32,
    round: Round,
    round_digest: Digest,
    charter: Accepted,
    envelope: Arc<[u8]>,
}

/// An offer that is not for us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It names other sites.
    #[error("the manifest does not name this site")]
    OtherSites,
    /// The charter.
    #[error(transparent)]
    Charter(#[from] CharterRefusal),
    /// The round.
    #[error(transparent)]
    Round(#[from] RoundError),
}

impl AdmissionError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Manifest(error) => error.code(),
            Self::OtherSites => "site-not-named",
            Self::Charter(error) => error.code(),
            Self::Round(error) => error.code(),
        }
    }
}

/// Verifies an offer at `now` (seconds since 1970, UTC): signed by one of the `researchers`, as a member of one of the `charters`.
///
/// # Errors
/// See [`AdmissionError`].
pub fn verify(
    offer: Offer,
    researchers: &[(Name, PublicKey)],
    charters: &[Accepted],
    site: &Name,
    now: i64,
) -> Result<Verified, AdmissionError> {
    let keys: Vec<PublicKey> = researchers.iter().map(|(_, key)| *key).collect();
    let signed = Signed::verify(&offer.manifest, &keys)?;
    signed.valid_at(now)?;
    if !signed.manifest().sites.contains(site) {
        return Err(AdmissionError::OtherSites);
    }
    let named = signed.manifest().charter;
    let charter = charters.iter().find(|charter| charter.signed().digest() == named).ok_or(CharterRefusal::Unknown(named))?;
    let researcher = researchers.iter().find(|(_, key)| *key == signed.signer()).map(|(name, _)| name.clone());
    let researcher = researcher.expect("the signer is one of the keys that came from this list");
    let own: Vec<PublicKey> = researchers.iter().filter(|(name, _)| *name == researcher).map(|(_, key)| *key).collect();
    charter.admits(&signed, &own, site, now)?;
    let round_digest = Digest::of(&serde_json::to_vec(&offer.request).unwrap_or_default());
    let round = Round::check(offer.request)?;
    let charter = charter.clone();
    let (site, index, envelope) = (site.clone(), offer.round, offer.manifest.into());
    Ok(Verified { signed, researcher, site, index, round, round_digest, charter, envelope })
}

impl Verified {
    /// The signed terms.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// The same, as they came.
    #[must_use]
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Who signed them, by the name this site gave.
    #[must_use]
    pub const fn researcher(&self) -> &Name {
        &self.researcher
    }

    /// The project's charter, as this site accepted it.
    #[must_use]
    pub const fn charter(&self) -> &Accepted {
        &self.charter
    }

    /// This site's name.
    #[must_use]
    pub const fn site(&self) -> &Name {
        &self.site
    }

    /// Which round, counted from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// What the round asks.
    #[must_use]
    pub const fn round(&self) -> &Round {
        &self.round
    }

    /// SHA-256 of the round as asked: a round that is offered again must be the same.
    #[must_use]
    pub const fn round_digest(&self) -> Digest {
        self.round_digest
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vestibule_protocol::job::{JobId, Limits, Noise};
    use vestibule_protocol::key::SecretKey;
    use vestibule_protocol::manifest::{ComponentRef, Manifest};
    use vestibule_protocol::round::{Bound, RoundRequest, Statistic};
    use vestibule_protocol::scores::Source;

    pub(crate) const NOW: i64 = 1_795_000_000;

    pub(crate) fn researcher() -> SecretKey {
        SecretKey::from_seed([1; 32]).unwrap()
    }

    pub(crate) fn manifest(job: u8) -> Manifest {
        Manifest {
            job: JobId::from_bytes([job; 16]),
            charter: charters()[0].signed().digest(),
            title: vestibule_protocol::words::Topic::default(),
            component: ComponentRef { sha256: Digest::of(b""), bytes: 1 },
            params: "{}".into(),
            dataset: "cohort".parse().unwrap(),
            dictionary: Digest::of(b""),
            catalogues: vec![],
            noise: Noise::Gaussian,
            epsilon_micro: 1_000_000,
            delta_femto: 1_000_000_000,
            sites: vec!["here".parse().unwrap()],
            min_sites: 1,
            limits: Limits::default(),
            round_deadline_seconds: 60,
            not_before: "2026-11-01T00:00:00Z".into(),
            not_after: "2026-12-01T00:00:00Z".into(),
        }
    }

    pub(crate) fn charters() -> [Accepted; 1] {
        [crate::charter::tests::accepted(&crate::charter::tests::charter(), crate::charter::Terms::default())]
    }

    pub(crate) fn request() -> RoundRequest {
        let statistic = Statistic { name: "n".into(), length: 1, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
        RoundRequest { statistics: vec![statistic], budget_share: 0.5, state: vec![], dosages: true }
    }

    pub(crate) fn offer(manifest: &Manifest, round: u32) -> Offer {
        Offer { manifest: manifest.sign(&researcher()).unwrap(), round, request: request() }
    }

    pub(crate) fn verified(manifest: &Manifest, round: u32) -> Verified {
        let researchers = [("ada".parse().unwrap(), researcher().public())];
        verify(offer(manifest, round), &researchers, &charters(), &"here".parse().unwrap(), NOW).unwrap()
    }

    #[test]
    fn only_offers_for_us_by_accepted_keys_pass() {
        let good = manifest(1);
        let accepted = [("ada".parse().unwrap(), researcher().public())];
        let here = "here".parse().unwrap();
        assert_eq!(verify(offer(&good, 0), &accepted, &charters(), &here, NOW).unwrap().researcher().as_str(), "ada");
        let code = |result: Result<Verified, AdmissionError>| result.unwrap_err().code();
        assert_eq!(code(verify(offer(&good, 0), &[], &charters(), &here, NOW)), "signature-refused");
        assert_eq!(code(verify(offer(&good, 0), &accepted, &charters(), &"there".parse().unwrap(), NOW)), "site-not-named");
        assert_eq!(code(verify(offer(&good, 0), &accepted, &charters(), &here, NOW + 10_000_000)), "manifest-expired");
        assert_eq!(code(verify(offer(&good, 0), &accepted, &[], &here, NOW)), "charter-unknown");
        let mut bad = offer(&good, 0);
        bad.request.statistics.clear();
        assert_eq!(code(verify(bad, &accepted, &charters(), &here, NOW)), "round-count");
    }
}
