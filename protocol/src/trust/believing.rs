//! Why a trust bundle is believed: a threshold of roots signed it, and it follows from the one before.
//!
//! *In*: envelopes that anybody may have delivered or kept; a fingerprint that was pinned. *Out*: [`Trust`], which nothing else
//! can make; or a [`Bundle`] of a draft, which nobody believes. *Trusts*: root keys. *Refuses*: bundles that too few roots
//! signed, wherever they lay.

use super::{BUNDLE_TYPE, Bundle, Revoked, Roots, Trust, TrustError};
use crate::digest::Digest;
use crate::dsse;

impl Bundle {
    /// What an envelope says, no matter who signed it: for those who are about to sign it, and look first.
    ///
    /// # Errors
    /// It cannot be read, or nobody would believe it.
    pub fn draft(envelope: &[u8]) -> Result<(Self, Digest), TrustError> {
        let trust = read(envelope)?;
        Ok((trust.bundle, trust.digest))
    }
}

impl Trust {
    /// The first bundle that is believed: signed by a threshold of the roots whose fingerprint is `pinned`.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn first(envelope: &[u8], pinned: Digest) -> Result<Self, TrustError> {
        let trust = Self::stored(envelope)?;
        let found = trust.bundle.roots.fingerprint();
        if found == pinned { Ok(trust) } else { Err(TrustError::Fingerprint { found, pinned }) }
    }

    /// The bundle after this one: newer, and signed by a threshold of the roots before and of its own. This one again is this one.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn next(&self, envelope: &[u8]) -> Result<Self, TrustError> {
        let trust = read(envelope)?;
        if trust.bundle.consortium != self.bundle.consortium {
            return Err(TrustError::Consortium);
        }
        enough(envelope, &self.bundle.roots, "former")?;
        enough(envelope, &trust.bundle.roots, "new")?;
        let (found, known) = (trust.bundle.version, self.bundle.version);
        if found == known && trust.digest != self.digest {
            return Err(TrustError::Forked { version: found });
        }
        if found < known { Err(TrustError::Old { found, known }) } else { Ok(trust) }
    }

    /// The last of bundles that were believed one after the other, from the pinned roots on. `None` where there are none.
    ///
    /// # Errors
    /// One of them does not follow from those before it.
    pub fn chain<E: AsRef<[u8]>>(envelopes: impl IntoIterator<Item = E>, pinned: Digest) -> Result<Option<Self>, TrustError> {
        envelopes.into_iter().try_fold(None, |last: Option<Self>, envelope| match last {
            Some(last) => last.next(envelope.as_ref()).map(Some),
            None => Self::first(envelope.as_ref(), pinned).map(Some),
        })
    }

    /// A bundle that a threshold of its own roots signed. Whether those are the consortium's, its caller knows from elsewhere.
    ///
    /// # Errors
    /// It cannot be read, or too few signed it.
    pub fn stored(envelope: &[u8]) -> Result<Self, TrustError> {
        let trust = read(envelope)?;
        enough(envelope, &trust.bundle.roots, "new")?;
        Ok(trust)
    }
}

/// What an envelope says; its signatures are not looked at.
fn read(envelope: &[u8]) -> Result<Trust, TrustError> {
    let payload = dsse::payload(envelope, BUNDLE_TYPE)?;
    let bundle: Bundle = serde_json::from_slice(&payload).map_err(|error| TrustError::Json(error.to_string()))?;
    let (policy, dates) = bundle.check()?;
    Ok(Trust { bundle, digest: Digest::of(&payload), policy, dates, distrusted: Revoked::default() })
}

/// Whether enough of these roots signed.
fn enough(envelope: &[u8], roots: &Roots, whose: &'static str) -> Result<(), TrustError> {
    let found = dsse::signers(envelope, BUNDLE_TYPE, &roots.keys)?.len();
    if found < roots.threshold as usize {
        return Err(TrustError::Signatures { whose, found, needed: roots.threshold });
    }
    Ok(())
}
