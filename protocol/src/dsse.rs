//! Signed documents: DSSE envelopes over the JSON bytes exactly as sent.
//!
//! *In*: a payload and its type, or envelope bytes with the keys that are accepted. *Out*: an envelope, or the payload and who
//! signed it. The signature covers type and bytes (DSSE v1.0.2, PAE, <https://github.com/secure-systems-lab/dsse>): what is
//! verified is what is parsed, nothing is re-serialised. *Refuses*: no accepted signature, another type, unknown fields, size.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::key::{PublicKey, SecretKey};

/// Most bytes of an envelope.
pub const MAX_ENVELOPE_BYTES: usize = 256 << 10;
/// Most bytes of an envelope that several people sign for all.
pub const MAX_SHARED_BYTES: usize = 4 << 20;
/// Most signatures that are looked at.
const MAX_SIGNATURES: usize = 16;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    keyid: String,
    sig: String,
}

/// An envelope that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DsseError {
    /// Not an envelope, or over the size.
    #[error("not a DSSE envelope, or too long for one")]
    Malformed,
    /// An envelope of another document.
    #[error("the envelope holds another type of document")]
    Type,
    /// No signature by an accepted key.
    #[error("no valid signature by an accepted key")]
    Signature,
}

impl DsseError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "envelope-malformed",
            Self::Type => "envelope-type",
            Self::Signature => "signature-refused",
        }
    }
}

/// The bytes that are signed: pre-authentication encoding of type and payload.
fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs `payload` and returns the envelope's bytes.
#[must_use]
pub fn sign(payload_type: &str, payload: &[u8], key: &SecretKey) -> Vec<u8> {
    let sig = STANDARD.encode(key.sign(&pae(payload_type, payload)));
    let envelope = Envelope {
        payload: STANDARD.encode(payload),
        payload_type: payload_type.to_owned(),
        signatures: vec![Signature { keyid: key.public().id().to_string(), sig }],
    };
    serde_json::to_vec(&envelope).expect("three strings and a list of strings are always JSON")
}

/// The payload and the first accepted key with a valid signature over it. The envelope's own key ids are hints that are not used.
///
/// # Errors
/// Malformed, of another type, or not signed by any of `accepted`.
pub fn verify(envelope: &[u8], payload_type: &str, accepted: &[PublicKey]) -> Result<(Vec<u8>, PublicKey), DsseError> {
    let (payload, signatures) = open(envelope, payload_type, MAX_ENVELOPE_BYTES)?;
    let message = pae(payload_type, &payload);
    for signature in signatures {
        if let Some(key) = accepted.iter().find(|key| key.verify(&message, &signature)) {
            return Ok((payload, *key));
        }
    }
    Err(DsseError::Signature)
}

/// The payload, no matter who signed it: nothing of it is to be believed before [`signers`] are known.
///
/// # Errors
/// Malformed, or of another type.
pub fn payload(envelope: &[u8], payload_type: &str) -> Result<Vec<u8>, DsseError> {
    open(envelope, payload_type, MAX_SHARED_BYTES).map(|(payload, _)| payload)
}

/// Which of the `accepted` keys signed the envelope, each once.
///
/// # Errors
/// Malformed, or of another type.
pub fn signers(envelope: &[u8], payload_type: &str, accepted: &[PublicKey]) -> Result<Vec<PublicKey>, DsseError> {
    let (payload, signatures) = open(envelope, payload_type, MAX_SHARED_BYTES)?;
    let message = pae(payload_type, &payload);
    let signed = |key: &&PublicKey| signatures.iter().any(|signature| key.verify(&message, signature));
    let mut found: Vec<PublicKey> = accepted.iter().filter(signed).copied().collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The envelope with one more signature.
///
/// # Errors
/// Malformed, or of another type.
pub fn add_signature(envelope: &[u8], payload_type: &str, key: &SecretKey) -> Result<Vec<u8>, DsseError> {
    let (payload, _) = open(envelope, payload_type, MAX_SHARED_BYTES)?;
    let mut envelope: Envelope = serde_json::from_slice(envelope).map_err(|_| DsseError::Malformed)?;
    let sig = STANDARD.encode(key.sign(&pae(payload_type, &payload)));
    let keyid = key.public().id().to_string();
    envelope.signatures.retain(|signature| signature.keyid != keyid);
    envelope.signatures.push(Signature { keyid, sig });
    Ok(serde_json::to_vec(&envelope).expect("three strings and a list of strings are always JSON"))
}

fn open(envelope: &[u8], payload_type: &str, most: usize) -> Result<(Vec<u8>, Vec<Vec<u8>>), DsseError> {
    if envelope.len() > most {
        return Err(DsseError::Malformed);
    }
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(|_| DsseError::Malformed)?;
    if envelope.payload_type != payload_type {
        return Err(DsseError::Type);
    }
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(DsseError::Malformed);
    }
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| DsseError::Malformed);
    let signatures = envelope.signatures.iter().map(|signature| decode(&signature.sig)).collect::<Result<_, _>>()?;
    Ok((decode(&envelope.payload)?, signatures))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "application/vnd.vestibule.test+json";

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    #[test]
    fn pae_known_answer() {
        // The example of the DSSE specification.
        let want = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world";
        assert_eq!(pae("http://example.com/HelloWorld", b"hello world"), want);
    }

    #[test]
    fn an_accepted_signature_is_found_and_others_are_not() {
        let envelope = sign(KIND, b"{}", &key(1));
        let (one, two) = (key(1).public(), key(2).public());
        assert_eq!(verify(&envelope, KIND, &[two, one]), Ok((b"{}".to_vec(), one)));
        assert_eq!(verify(&envelope, KIND, &[two]), Err(DsseError::Signature));
        assert_eq!(verify(&envelope, KIND, &[]), Err(DsseError::Signature));
        assert_eq!(verify(&envelope, "other", &[one]), Err(DsseError::Type));
    }

    #[test]
    fn no_changed_byte_is_accepted_with_a_changed_meaning() {
        let envelope = sign(KIND, br#"{"epsilon_micro":1000000}"#, &key(1));
        let accepted = [key(1).public()];
        let (payload, _) = verify(&envelope, KIND, &accepted).unwrap();
        for at in 0..envelope.len() {
            for bit in [1, 0x10, 0x80] {
                let mut changed = envelope.clone();
                changed[at] ^= bit;
                if let Ok((found, _)) = verify(&changed, KIND, &accepted) {
                    assert_eq!(found, payload, "byte {at}");
                }
            }
        }
        let unknown = String::from_utf8(envelope).unwrap().replacen('{', r#"{"more":1,"#, 1);
        assert_eq!(verify(unknown.as_bytes(), KIND, &accepted), Err(DsseError::Malformed));
        assert_eq!(verify(&vec![b' '; MAX_ENVELOPE_BYTES + 1], KIND, &accepted), Err(DsseError::Malformed));
    }
}
