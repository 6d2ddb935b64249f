//! Ed25519 keys: how a researcher, a site and a coordinator are known. One key per purpose, held by its owner.
//!
//! *In*: 32 random bytes, or PEM text. *Out*: [`SecretKey`] that signs, [`PublicKey`] that verifies and names its owner.
//! Files are standard ones: PKCS#8 (RFC 8410), encrypted by PBES2 with scrypt where a passphrase is given, and SPKI for the
//! public half, so `openssl pkey` reads them. *Refuses*: a wrong passphrase, other algorithms, anything malformed.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::der::pem::PemLabel as _;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::{Zeroize, Zeroizing};

use crate::digest::Digest;

/// DER before the 32 seed bytes of an Ed25519 PKCS#8 v1 key (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// DER before the 32 key bytes of an Ed25519 SPKI (RFC 8410, section 4).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A secret Ed25519 key. Its memory is wiped when it is dropped, and stays where it is when the key
/// moves; its `Debug` shows the public half only.
pub struct SecretKey {
    seed: Box<Zeroizing<[u8; 32]>>,
    pair: Ed25519KeyPair,
}

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// A key that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a PEM file of the expected kind.
    #[error("not a PEM {0}")]
    Pem(&'static str),
    /// Encrypted, and no passphrase was given.
    #[error("the key is protected by a passphrase: give it")]
    PassphraseNeeded,
    /// The passphrase is wrong, or the file was changed.
    #[error("the passphrase is wrong, or the key file was damaged")]
    Passphrase,
    /// Another algorithm, or malformed.
    #[error("not an Ed25519 key")]
    Algorithm,
}

impl KeyError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Pem(_) => "key-not-pem",
            Self::PassphraseNeeded => "key-passphrase-needed",
            Self::Passphrase => "key-passphrase-wrong",
            Self::Algorithm => "key-not-ed25519",
        }
    }
}

impl SecretKey {
    /// From 32 bytes of the operating system's randomness.
    ///
    /// # Errors
    /// Never for 32 bytes; the crypto library's own refusal is passed on.
    pub fn from_seed(mut seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Algorithm);
        let mut kept = Box::new(Zeroizing::new([0; 32]));
        kept.copy_from_slice(&seed);
        seed.zeroize();
        Ok(Self { seed: kept, pair: pair? })
    }

    /// Reads a PKCS#8 PEM, encrypted or not.
    ///
    /// # Errors
    /// Not such a file, or a passphrase that is missing or wrong.
    pub fn from_pem(text: &str, passphrase: Option<&str>) -> Result<Self, KeyError> {
        const WHAT: &str = "PKCS#8 private key (`BEGIN PRIVATE KEY` or `BEGIN ENCRYPTED PRIVATE KEY`)";
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| KeyError::Pem(WHAT))?;
        if label == PrivateKeyInfoRef::PEM_LABEL {
            return Self::from_der(document.as_bytes());
        }
        if label != EncryptedPrivateKeyInfoRef::PEM_LABEL {
            return Err(KeyError::Pem(WHAT));
        }
        let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| KeyError::Pem(WHAT))?;
        let plain = encrypted.decrypt(passphrase.ok_or(KeyError::PassphraseNeeded)?).map_err(|_| KeyError::Passphrase)?;
        Self::from_der(plain.as_bytes())
    }

    fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let (head, seed) = der.split_at_checked(PKCS8_HEAD.len()).ok_or(KeyError::Algorithm)?;
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(seed.try_into().map_err(|_| KeyError::Algorithm)?);
        if head == PKCS8_HEAD { Self::from_seed(*seed) } else { Err(KeyError::Algorithm) }
    }

    /// The key as PKCS#8 DER, for the TLS library.
    #[must_use]
    pub fn to_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_HEAD.as_slice(), self.seed.as_slice()].concat())
    }

    /// The key as PKCS#8 PEM, encrypted (PBES2, scrypt, AES-256-CBC) where a passphrase is given.
    ///
    /// # Errors
    /// The encryption library's own refusal.
    pub fn to_pem(&self, passphrase: Option<&str>) -> Result<Zeroizing<String>, KeyError> {
        let der = self.to_der();
        let plain = PrivateKeyInfoRef::try_from(der.as_slice()).map_err(|_| KeyError::Algorithm)?;
        let pem = match passphrase {
            Some(passphrase) => {
                let encrypted = plain.encrypt_with_params(stretched()?, passphrase).map_err(|_| KeyError::Passphrase)?;
                encrypted.to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            }
            None => {
                let document = SecretDocument::encode_msg(&plain).map_err(|_| KeyError::Algorithm)?;
                document.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            }
        };
        pem.map_err(|_| KeyError::Algorithm)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs `message` (RFC 8032).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The 32 seed bytes, as key material for deriving other keys. Handle with care.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

/// What a passphrase is stretched with: 2^17 steps in 128 MiB, some tenths of a second, for keys that lie in backups for years.
fn stretched() -> Result<Parameters, KeyError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    let random = aws_lc_rs::rand::fill(&mut salt).and_then(|()| aws_lc_rs::rand::fill(&mut iv));
    random.map_err(|_| KeyError::Passphrase)?;
    let params = scrypt::Params::new(17, 8, 1).map_err(|_| KeyError::Passphrase)?;
    Parameters::generate_scrypt_aes256cbc(params, &salt, iv).map_err(|_| KeyError::Passphrase)
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl PublicKey {
    /// Verifies `signature` over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    /// The 32 bytes (RFC 8032).
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From the 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As a subject public key info (RFC 8410), which is what TLS shows of a raw public key.
    #[must_use]
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_HEAD.as_slice(), &self.0].concat()
    }

    /// From a subject public key info.
    ///
    /// # Errors
    /// Any other algorithm or form.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let (head, key) = der.split_at_checked(SPKI_HEAD.len()).ok_or(KeyError::Algorithm)?;
        let key: [u8; 32] = key.try_into().map_err(|_| KeyError::Algorithm)?;
        if head == SPKI_HEAD { Ok(Self(key)) } else { Err(KeyError::Algorithm) }
    }

    /// As `BEGIN PUBLIC KEY` PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.to_spki()))
    }

    /// From `BEGIN PUBLIC KEY` PEM.
    ///
    /// # Errors
    /// Not such a file, or another algorithm.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        const WHAT: &str = "public key (`BEGIN PUBLIC KEY`)";
        let (label, document) = pkcs8::Document::from_pem(text).map_err(|_| KeyError::Pem(WHAT))?;
        if label == "PUBLIC KEY" { Self::from_spki(document.as_bytes()) } else { Err(KeyError::Pem(WHAT)) }
    }

    /// SHA-256 of the SPKI: what a key is called where a name is needed.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.to_spki())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let encoded = text.strip_prefix("ed25519:").ok_or(KeyError::Algorithm)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| KeyError::Algorithm)?;
        bytes.try_into().map(Self).map_err(|_| KeyError::Algorithm)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed([7; 32]).unwrap()
    }

    #[test]
    fn rfc_8032_test_1() {
        let seed = crate::digest::unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SecretKey::from_seed(seed).unwrap();
        assert_eq!(crate::digest::hex(&key.public().0), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(
            crate::digest::hex(&key.sign(b"")).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
        );
    }

    #[test]
    fn pem_round_trips_with_and_without_passphrase() {
        for passphrase in [None, Some("correct horse")] {
            let pem = key().to_pem(passphrase).unwrap();
            assert_eq!(SecretKey::from_pem(&pem, passphrase).unwrap().public(), key().public());
        }
        let pem = key().to_pem(Some("correct horse")).unwrap();
        assert_eq!(SecretKey::from_pem(&pem, None).unwrap_err(), KeyError::PassphraseNeeded);
        assert_eq!(SecretKey::from_pem(&pem, Some("wrong")).unwrap_err(), KeyError::Passphrase);
        assert_eq!(SecretKey::from_pem("nonsense", None).unwrap_err().code(), "key-not-pem");
        assert_eq!(PublicKey::from_pem(&key().public().to_pem()).unwrap(), key().public());
        assert_eq!(PublicKey::from_pem(&pem).unwrap_err().code(), "key-not-pem");
    }

    #[test]
    fn signatures_bind_key_and_message() {
        let signature = key().sign(b"message");
        assert!(key().public().verify(b"message", &signature));
        assert!(!key().public().verify(b"massage", &signature));
        assert!(!SecretKey::from_seed([8; 32]).unwrap().public().verify(b"message", &signature));
    }

    #[test]
    fn debug_shows_the_public_half_only() {
        assert_eq!(format!("{:?}", key()), format!("SecretKey(of {})", key().public()));
    }
}
