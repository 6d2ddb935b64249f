//! The key that a site's datasets are encrypted with, and what is derived from it.
//!
//! *In*: 32 secret bytes. *Out*: a data key for each version of a dataset (HKDF-like: HMAC-SHA256 under the store key over a
//! label and the version), seals over public descriptions, and the keyed order of rows. Shows nothing in `Debug`.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use vestibule_protocol::digest::hex;
use zeroize::{Zeroize as _, Zeroizing};

use vestibule_importer::Crypt4ghKey;

/// The secret of a site's data folder. Kept outside that folder.
pub struct StoreKey(Box<Zeroizing<[u8; 32]>>);

impl StoreKey {
    /// From 32 secret bytes.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let kept = Box::new(Zeroizing::new(bytes));
        bytes.zeroize();
        Self(kept)
    }

    fn mac(&self, label: &str, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, self.0.as_slice()));
        context.update(label.as_bytes());
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }

    /// The AES-256 key of one version of a dataset.
    pub(super) fn version(&self, version: &str) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.mac("vestibule/dataset/rows/1", &[version.as_bytes()]).as_ref().to_vec())
    }

    /// The seal over a version's public description.
    pub(super) fn seal(&self, version: &str, info: &[u8]) -> Vec<u8> {
        self.mac("vestibule/dataset/info/1", &[version.as_bytes(), info]).as_ref().to_vec()
    }

    /// Whether `seal` is ours.
    pub(super) fn sealed(&self, version: &str, info: &[u8], seal: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.seal(version, info), seal).is_ok()
    }

    /// What was ingested, as text that says nothing to others.
    pub(crate) fn inputs(&self, digest: &[u8]) -> String {
        hex(self.mac("vestibule/dataset/inputs/1", &[digest]).as_ref())
    }

    /// A note for the site's own eyes, encrypted (AES-256-GCM) with a key and a nonce of its own.
    pub(crate) fn encrypt(&self, version: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        // With room for the tag: one that grows leaves what is in it in memory that is given back.
        let mut sealed = Vec::with_capacity(plain.len().saturating_add(AES_256_GCM.tag_len()));
        sealed.extend_from_slice(plain);
        let key = self.note_key(version)?;
        let nonce =
            key.seal_in_place_append_tag(Aad::from(version.as_bytes()), &mut sealed).map_err(|error| error.to_string())?;
        let length = u8::try_from(version.len()).map_err(|error| error.to_string())?;
        Ok([&[length], version.as_bytes(), nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// What [`Self::encrypt`] encrypted.
    pub(crate) fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (&length, rest) = sealed.split_first()?;
        let (version, rest) = rest.split_at_checked(usize::from(length))?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.note_key(std::str::from_utf8(version).ok()?).ok()?;
        let mut plain = rest.to_vec();
        let length = key.open_in_place(Nonce::from(nonce), Aad::from(version), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    fn note_key(&self, version: &str) -> Result<RandomizedNonceKey, String> {
        let key = self.mac("vestibule/dataset/report/1", &[version.as_bytes()]);
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|error| error.to_string())
    }

    /// What source files can be encrypted with for this site. It follows from the store key: anyone who can read the datasets can read those.
    #[must_use]
    pub fn crypt4gh(&self) -> Crypt4ghKey {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(self.mac("vestibule/dataset/crypt4gh/1", &[]).as_ref());
        Crypt4ghKey::from_bytes(&secret)
    }

    /// The key of a version's scratch file.
    pub(super) fn scratch(&self, version: &str) -> Result<RandomizedNonceKey, String> {
        let key = self.mac("vestibule/dataset/scratch/1", &[version.as_bytes()]);
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(|error| error.to_string())
    }

    /// Where a person's row goes: an order that does not depend on what the person's data are.
    pub(super) fn order(&self, id: &str) -> [u8; 16] {
        let tag = self.mac("vestibule/dataset/order/1", &[id.as_bytes()]);
        let mut out = [0; 16];
        out.copy_from_slice(tag.as_ref().first_chunk::<16>().expect("an HMAC-SHA256 tag has 32 bytes"));
        out
    }
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey")
    }
}
