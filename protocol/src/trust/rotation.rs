//! That a new key of a person, or of a site, takes the place of the one before: signed with both, so that nobody gives another a key, or takes theirs.
//!
//! *In*: both secret keys, or an envelope. *Out*: [`Rotation`], for the consortium's roots to put into the next bundle. *Trusts*: the two signatures.
//! *Refuses*: one without the other.

use serde::{Deserialize, Serialize};

use crate::dsse::{self, DsseError};
use crate::key::{PublicKey, SecretKey};

/// DSSE payload type of a rotation.
pub const ROTATION_TYPE: &str = "application/vnd.vestibule.rotation.v1+json";

/// One key in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// The key that a person or a site has.
    pub former: PublicKey,
    /// The one that takes its place.
    pub key: PublicKey,
}

impl Rotation {
    /// Signed with both keys. Returns the envelope's bytes.
    #[must_use]
    pub fn sign(former: &SecretKey, new: &SecretKey) -> Vec<u8> {
        let rotation = Self { former: former.public(), key: new.public() };
        let payload = serde_json::to_vec(&rotation).expect("two keys are always JSON");
        let once = dsse::sign(ROTATION_TYPE, &payload, former);
        dsse::add_signature(&once, ROTATION_TYPE, new).expect("an envelope of ours takes a second signature")
    }

    /// Verifies both signatures.
    ///
    /// # Errors
    /// One is missing, or it is no rotation.
    pub fn verify(envelope: &[u8]) -> Result<Self, DsseError> {
        let payload = dsse::payload(envelope, ROTATION_TYPE)?;
        let rotation: Self = serde_json::from_slice(&payload).map_err(|_| DsseError::Malformed)?;
        let signers = dsse::signers(envelope, ROTATION_TYPE, &[rotation.former, rotation.key])?;
        if signers.len() == 2 { Ok(rotation) } else { Err(DsseError::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_sign() {
        let key = |seed: u8| SecretKey::from_seed([seed; 32]).unwrap();
        let envelope = Rotation::sign(&key(1), &key(2));
        assert_eq!(Rotation::verify(&envelope).unwrap(), Rotation { former: key(1).public(), key: key(2).public() });
        let payload = dsse::payload(&envelope, ROTATION_TYPE).unwrap();
        for alone in [1, 2, 3] {
            let envelope = dsse::sign(ROTATION_TYPE, &payload, &key(alone));
            assert_eq!(Rotation::verify(&envelope).unwrap_err(), DsseError::Signature);
        }
        assert_eq!(Rotation::verify(&Rotation::sign(&key(1), &key(1))).unwrap_err(), DsseError::Signature);
    }
}
