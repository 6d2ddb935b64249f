//! What passes between the daemon and its tasks is sealed with a key of the round's own.
//!
//! *In*: bytes, and what they are. *Out*: AES-256-GCM with a random nonce, bound to the round's id and to what the bytes are, so that one
//! task's sums under another's name, or another round's, do not open. *Trusts*: the one who has the key: the daemon, and the nodes that the
//! round's folder was shown to. It is drawn for each round and is forgotten with it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

/// A round on a cluster: random, so that its name says nothing.
pub(super) type RoundId = [u8; 16];

/// What is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// What all tasks are told.
    Tasks,
    /// What a task found.
    Partial(u32),
}

/// What sealing adds to the end of what is sealed.
pub(super) const TAG_BYTES: usize = 16;

/// A round's key.
pub(super) struct RoundKey {
    bytes: Zeroizing<[u8; 32]>,
    id: RoundId,
}

impl RoundKey {
    /// A new one.
    pub(super) fn draw(id: RoundId) -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self { bytes, id })
    }

    /// The one that was written down.
    pub(super) fn read(id: RoundId, bytes: &[u8]) -> Option<Self> {
        Some(Self { bytes: Zeroizing::new(bytes.try_into().ok()?), id })
    }

    /// For the file that nodes read it from.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    fn key(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.bytes.as_slice()).ok()
    }

    fn aad(&self, what: What) -> Aad<Vec<u8>> {
        let (kind, index) = match what {
            What::Tasks => (0_u8, 0),
            What::Partial(index) => (1, index),
        };
        Aad::from([b"vestibule/executor/1".as_slice(), &self.id, &[kind], &index.to_be_bytes()].concat())
    }

    /// Seals in place: what was not sealed is nowhere else.
    pub(super) fn seal(&self, what: What, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.key()?.seal_in_place_append_tag(self.aad(what), &mut plain).ok()?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut plain);
        Some(sealed)
    }

    /// What was sealed as that, with this key, for this round; and nothing else.
    pub(super) fn open(&self, what: What, mut sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        let nonce = *sealed.first_chunk::<NONCE_LEN>()?;
        let mut rest = sealed.split_off(NONCE_LEN);
        let length = self.key()?.open_in_place(Nonce::from(&nonce), self.aad(what), &mut rest).ok()?.len();
        rest.truncate(length);
        Some(Zeroizing::new(rest))
    }
}

impl std::fmt::Debug for RoundKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoundKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sealed_as_that_for_that_round_opens() {
        let key = RoundKey::draw([1; 16]).unwrap();
        let sealed = key.seal(What::Partial(1), b"sums".to_vec()).unwrap();
        assert_eq!(key.open(What::Partial(1), sealed.clone()).unwrap().as_slice(), b"sums");
        assert_eq!(
            RoundKey::read([1; 16], key.bytes()).unwrap().open(What::Partial(1), sealed.clone()).unwrap().as_slice(),
            b"sums"
        );
        // Another task's, the description's, another round's with the same key, another key's.
        assert!(key.open(What::Partial(2), sealed.clone()).is_none());
        assert!(key.open(What::Tasks, sealed.clone()).is_none());
        assert!(RoundKey::read([2; 16], key.bytes()).unwrap().open(What::Partial(1), sealed.clone()).is_none());
        assert!(RoundKey::draw([1; 16]).unwrap().open(What::Partial(1), sealed.clone()).is_none());
        for length in 0..sealed.len() {
            assert!(key.open(What::Partial(1), sealed[..length].to_vec()).is_none(), "{length}");
        }
        for byte in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[byte] ^= 1;
            assert!(key.open(What::Partial(1), changed).is_none(), "{byte}");
        }
        assert!(RoundKey::read([1; 16], b"short").is_none());
        assert_eq!(format!("{key:?}"), "RoundKey");
    }
}
