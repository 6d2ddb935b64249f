//! One file of sealed chunks: what makes rows at rest unreadable and unchangeable without the key.
//!
//! ```text
//! magic  salt      chunk  chunk  ..  directory  length of the directory
//! 16     32 bytes                               8 bytes, big-endian
//! ```
//!
//! *In*: bytes, and the key of a dataset's version. *Out*: the same bytes. Each chunk, and the directory that says where they lie, is AES-256-GCM under a key
//! that is the file's own: derived from the version's key and a fresh salt. So a chunk's number can be its nonce, which binds it to its place: one that
//! was moved, or comes from another file, does not open, be it of the same version. *Refuses*: whatever does not open. Nothing is read that is not authenticated;
//! magic, salt and length are, since nothing opens where one of them was changed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};

/// AES-GCM's tag, behind every sealed piece.
pub(super) const TAG: usize = 16;
const MAGIC: &[u8; 16] = b"vestibule rows 2";
const SALT: usize = 32;
/// What lies before the first chunk.
pub(super) const HEADER: usize = MAGIC.len() + SALT;
/// What lies behind the directory.
pub(super) const END: usize = 8;

/// Which sealed piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Chunk(u64),
    Directory,
}

impl Piece {
    /// Each piece of a file is sealed once, so its name is a nonce that is used once.
    fn nonce(self) -> Nonce {
        let (kind, number) = match self {
            Self::Chunk(number) => (0_u32, number),
            Self::Directory => (1, 0),
        };
        let mut nonce = [0; NONCE_LEN];
        let bytes = kind.to_be_bytes().into_iter().chain(number.to_be_bytes());
        nonce.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
        Nonce::assume_unique_for_key(nonce)
    }
}

/// The key of one file.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    /// A new file's, with its header.
    pub(super) fn fresh(version_key: &[u8]) -> Result<(Self, Vec<u8>), String> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
        let header = [MAGIC.as_slice(), &salt].concat();
        Ok((Self::derived(version_key, &salt)?, header))
    }

    /// Of the file that begins so.
    pub(super) fn of(version_key: &[u8], header: &[u8]) -> Result<Self, String> {
        let salt = header.strip_prefix(MAGIC.as_slice()).filter(|salt| salt.len() == SALT);
        Self::derived(version_key, salt.ok_or("it is no file of rows of this version of Vestibule: ingest the dataset again")?)
    }

    fn derived(version_key: &[u8], salt: &[u8]) -> Result<Self, String> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, version_key));
        context.update(b"vestibule/rows/file/1");
        context.update(salt);
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).map_err(|error| error.to_string())?;
        Ok(Self(LessSafeKey::new(key)))
    }

    pub(super) fn seal(&self, piece: Piece, bytes: &mut Vec<u8>) -> Result<(), String> {
        self.0.seal_in_place_append_tag(piece.nonce(), Aad::empty(), bytes).map_err(|error| error.to_string())
    }

    /// Opens a piece in place.
    pub(super) fn open(&self, piece: Piece, bytes: &mut Vec<u8>) -> Result<(), String> {
        let opened = self.0.open_in_place(piece.nonce(), Aad::empty(), bytes);
        let length = opened.map_err(|_| "it was made with another key, or its bytes were changed")?.len();
        bytes.truncate(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(cipher: &Cipher, piece: Piece) -> Vec<u8> {
        let mut bytes = b"genotypes".to_vec();
        cipher.seal(piece, &mut bytes).unwrap();
        bytes
    }

    fn opens(cipher: &Cipher, piece: Piece, mut bytes: Vec<u8>) -> bool {
        cipher.open(piece, &mut bytes).is_ok_and(|()| bytes == b"genotypes")
    }

    #[test]
    fn a_piece_opens_in_its_place_of_its_file_and_nowhere_else() {
        let (one, header) = Cipher::fresh(&[1; 32]).unwrap();
        let (other, _) = Cipher::fresh(&[1; 32]).unwrap();
        let again = Cipher::of(&[1; 32], &header).unwrap();
        for piece in [Piece::Chunk(0), Piece::Chunk(1), Piece::Chunk(u64::MAX), Piece::Directory] {
            let bytes = sealed(&one, piece);
            assert!(opens(&again, piece, bytes.clone()));
            assert!(!opens(&other, piece, bytes.clone()), "another file of the same version");
            assert!(!opens(&Cipher::of(&[2; 32], &header).unwrap(), piece, bytes.clone()), "another version");
            for elsewhere in [Piece::Chunk(0), Piece::Chunk(1), Piece::Chunk(u64::MAX), Piece::Directory] {
                assert_eq!(opens(&one, elsewhere, bytes.clone()), elsewhere == piece);
            }
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(!opens(&one, piece, changed));
                assert!(!opens(&one, piece, bytes[..at].to_vec()));
            }
        }
    }

    #[test]
    fn another_header_is_another_key_or_none() {
        let (one, header) = Cipher::fresh(&[1; 32]).unwrap();
        let bytes = sealed(&one, Piece::Directory);
        for at in 0..header.len() {
            let mut changed = header.clone();
            changed[at] ^= 1;
            assert!(!Cipher::of(&[1; 32], &changed).is_ok_and(|cipher| opens(&cipher, Piece::Directory, bytes.clone())));
        }
        assert!(Cipher::of(&[1; 32], &header[..40]).is_err() && Cipher::of(&[1; 32], b"PAR1").is_err());
    }
}
