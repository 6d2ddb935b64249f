//! Crypt4GH files (`.c4gh`) as a source: what was encrypted for this site is read without ever lying on its disk in clear.
//!
//! *In*: a file that begins with `crypt4gh`, the site's [`Crypt4ghKey`]. *Out*: a [`Read`] of what is in it, edit lists applied. *Trusts*: nothing: every
//! segment is authenticated before a byte of it is given out. *Refuses*: files for others, changed segments, other versions and methods. Source:
//! Crypt4GH file format 1.0, GA4GH (<https://samtools.github.io/hts-specs/crypt4gh.pdf>), section numbers below. That a file was cut at the end
//! of a segment the format cannot tell; the formats inside can.

use std::io::{Error, ErrorKind, Read, Result};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2b512, Digest as _};
use zeroize::Zeroizing;

/// How a file begins (2.1).
pub const MAGIC: &[u8; 8] = b"crypt4gh";
const SEGMENT: usize = 65_536;
const TAG: usize = 16;
const MAX_PACKETS: u32 = 1_024;
const MAX_PACKET_BYTES: u32 = 1 << 20;

/// What files for this site are encrypted with: X25519.
pub struct Crypt4ghKey {
    secret: PrivateKey,
    public: [u8; 32],
}

impl std::fmt::Debug for Crypt4ghKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Crypt4ghKey")
    }
}

impl Crypt4ghKey {
    /// From 32 secret bytes.
    ///
    /// # Panics
    /// Never: any 32 bytes are a key of X25519.
    #[must_use]
    pub fn from_bytes(secret: &Zeroizing<[u8; 32]>) -> Self {
        let secret = PrivateKey::from_private_key(&X25519, secret.as_slice()).expect("any 32 bytes are a key of X25519");
        let key = secret.compute_public_key().expect("a key of X25519 has a public half");
        let public = key.as_ref().try_into().expect("X25519's public keys have 32 bytes");
        Self { secret, public }
    }

    /// The public half, as Crypt4GH's tools read it.
    #[must_use]
    pub fn public(&self) -> String {
        format!("-----BEGIN CRYPT4GH PUBLIC KEY-----\n{}\n-----END CRYPT4GH PUBLIC KEY-----\n", STANDARD.encode(self.public))
    }

    /// What this reader shares with a packet's writer (2.2.1): of BLAKE2b-512 over the X25519 secret, the reader's and the writer's public key, the
    /// first half.
    fn shared(&self, writer: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>> {
        let peer = UnparsedPublicKey::new(&X25519, writer);
        agree(&self.secret, peer, wrong("a writer's key is none"), |secret| {
            let hash = Blake2b512::new().chain_update(secret).chain_update(self.public).chain_update(writer).finalize();
            let mut half = Zeroizing::new([0; 32]);
            half.copy_from_slice(hash.first_chunk::<32>().expect("64 bytes have a first half"));
            Ok(half)
        })
    }
}

fn wrong(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, format!("Crypt4GH: {}", why.into()))
}

fn open<'a>(key: &[u8], nonce: [u8; NONCE_LEN], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), sealed).ok().map(|plain| &*plain)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The plain bytes of a Crypt4GH file.
pub struct Decrypted<R> {
    input: R,
    keys: Vec<Zeroizing<[u8; 32]>>,
    sealed: Vec<u8>,
    plain: std::ops::Range<usize>,
    segment: u64,
    edits: Option<Edits>,
}

/// An edit list (2.2.3): how many bytes are left out, then how many are kept, and so on.
struct Edits {
    lengths: std::vec::IntoIter<u64>,
    left: u64,
    keeps: bool,
    /// Behind the list's end: all is kept, or nothing is.
    ended: bool,
}

impl<R> std::fmt::Debug for Decrypted<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decrypted")
    }
}

impl<R: Read> Decrypted<R> {
    /// Reads the header, whose magic has not been read yet.
    ///
    /// # Errors
    /// It is no header, or for somebody else.
    pub fn new(mut input: R, key: &Crypt4ghKey) -> Result<Self> {
        let mut head = [0; 16];
        input.read_exact(&mut head)?;
        let (magic, rest) = head.split_at(8);
        if magic != MAGIC || number(rest, 0) != Some(1) {
            return Err(wrong("only files of version 1 are read"));
        }
        let packets = number(rest, 4).filter(|packets| (1..=MAX_PACKETS).contains(packets));
        let (mut keys, mut edits) = (Vec::new(), None);
        for _ in 0..packets.ok_or_else(|| wrong("the header says an impossible number of packets"))? {
            let Some(plain) = packet(&mut input, key)? else { continue };
            match (number(&plain, 0), number(&plain, 4)) {
                // 2.2.2: segments' key, ChaCha20-Poly1305.
                (Some(0), Some(0)) => {
                    let secret = plain.get(8..40).and_then(|secret| secret.try_into().ok());
                    keys.push(Zeroizing::new(secret.ok_or_else(|| wrong("a segment key is too short"))?));
                }
                (Some(0), Some(method)) => {
                    return Err(wrong(format!("segments are encrypted by method {method}, which is not known")));
                }
                (Some(1), Some(count)) if edits.is_none() => edits = Some(Edits::new(&plain, count)?),
                (Some(1), Some(_)) => return Err(wrong("there is more than one edit list")),
                _ => return Err(wrong("a packet is of a kind that is not known")),
            }
        }
        if keys.is_empty() {
            return Err(wrong(
                "the file is not encrypted for this site: encrypt it for the key that `vestibule site crypt4gh` prints",
            ));
        }
        Ok(Self { input, keys, sealed: Vec::new(), plain: 0..0, segment: 0, edits })
    }

    /// Reads and opens the next segment. Whether there was one.
    fn next(&mut self) -> Result<bool> {
        let most = NONCE_LEN + SEGMENT + TAG;
        self.sealed.clear();
        (&mut self.input).take(most as u64).read_to_end(&mut self.sealed)?;
        if self.sealed.is_empty() {
            return Ok(false);
        }
        let segment = self.segment;
        self.segment = segment.saturating_add(1);
        let fail = || wrong(format!("segment {segment} was changed or cut, or its key is missing"));
        let (nonce, sealed) = self.sealed.split_first_chunk_mut::<NONCE_LEN>().ok_or_else(fail)?;
        let length = sealed.len().checked_sub(TAG).filter(|length| *length > 0).ok_or_else(fail)?;
        if let [key] = self.keys.as_slice() {
            open(key.as_slice(), *nonce, sealed).ok_or_else(fail)?;
        } else {
            // A key that is not this segment's leaves nothing usable behind: each tries on a copy.
            let opened = self.keys.iter().find_map(|key| {
                let mut copy = sealed.to_vec();
                open(key.as_slice(), *nonce, &mut copy).map(<[u8]>::to_vec)
            });
            sealed.get_mut(..length).ok_or_else(fail)?.copy_from_slice(&opened.ok_or_else(fail)?);
        }
        self.plain = NONCE_LEN..NONCE_LEN.saturating_add(length);
        Ok(true)
    }
}

/// A packet's content, if it is for this key.
fn packet(input: &mut impl Read, key: &Crypt4ghKey) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    let rest = length
        .checked_sub(4)
        .filter(|_| length <= MAX_PACKET_BYTES)
        .ok_or_else(|| wrong("a packet has an impossible length"))?;
    let mut bytes = vec![0; rest as usize];
    input.read_exact(&mut bytes)?;
    // 2.2: other methods may be somebody else's packet.
    if number(&bytes, 0) != Some(0) {
        return Ok(None);
    }
    let parts = bytes.get_mut(4..).and_then(|rest| rest.split_first_chunk_mut::<32>());
    let parts = parts.and_then(|(writer, rest)| Some((*writer, rest.split_first_chunk_mut::<NONCE_LEN>()?)));
    let Some((writer, (nonce, sealed))) = parts else { return Err(wrong("a packet is too short")) };
    let shared = key.shared(&writer)?;
    Ok(open(shared.as_slice(), *nonce, sealed).map(|plain| Zeroizing::new(plain.to_vec())))
}

impl Edits {
    fn new(plain: &[u8], count: u32) -> Result<Self> {
        let lengths = plain.get(8..).unwrap_or_default().chunks_exact(8);
        let lengths: Vec<u64> =
            lengths.filter_map(|bytes| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))).collect();
        if u32::try_from(lengths.len()) != Ok(count) {
            return Err(wrong("the edit list is not as long as it says"));
        }
        let mut edits = Self { lengths: lengths.into_iter(), left: 0, keeps: true, ended: false };
        edits.advance();
        Ok(edits)
    }

    /// Goes to the next length, while nothing is left of this one.
    fn advance(&mut self) {
        while self.left == 0 && !self.ended {
            self.keeps = !self.keeps;
            match self.lengths.next() {
                Some(length) => self.left = length,
                // After a last "leave out" the rest is kept; after a last "keep" it is left out.
                None => self.ended = true,
            }
        }
    }

    /// How many of the next `bytes` are alike, and whether they are kept.
    fn run(&mut self, bytes: usize) -> (usize, bool) {
        if self.ended {
            return (bytes, self.keeps);
        }
        let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes);
        let keeps = self.keeps;
        self.left = self.left.saturating_sub(taken as u64);
        self.advance();
        (taken, keeps)
    }
}

impl<R: Read> Read for Decrypted<R> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.plain.is_empty() && !self.next()? {
                return Ok(0);
            }
            let wanted = self.plain.len().min(out.len());
            let (taken, keeps) = self.edits.as_mut().map_or((wanted, true), |edits| edits.run(wanted));
            let bytes = self.sealed.get(self.plain.start..).and_then(|rest| rest.get(..taken)).unwrap_or_default();
            self.plain.start = self.plain.start.saturating_add(taken);
            if keeps && taken > 0 {
                out.get_mut(..taken).expect("no more is taken than wanted").copy_from_slice(bytes);
                return Ok(taken);
            }
        }
    }
}

/// A file for one reader, as other tools write it, with these packets beside the one that holds the segments' key: for tests.
pub(crate) fn encrypted(content: &[u8], reader: &Crypt4ghKey, packets: &[&[u8]]) -> Option<Vec<u8>> {
    let seal = |key: &[u8], plain: &[u8]| -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).ok()?;
        Some([&nonce, sealed.as_slice()].concat())
    };
    let (writer, segment_key) = (Crypt4ghKey::from_bytes(&Zeroizing::new([3; 32])), [5; 32]);
    let shared = agree(&writer.secret, UnparsedPublicKey::new(&X25519, reader.public), wrong("no key"), |secret| {
        Ok(Blake2b512::new().chain_update(secret).chain_update(reader.public).chain_update(writer.public).finalize())
    });
    let shared = shared.ok()?;
    let key_packet = [[0; 8].as_slice(), &segment_key].concat();
    let count = u32::try_from(packets.len()).ok()?.checked_add(1)?;
    let mut file = [MAGIC.as_slice(), &1_u32.to_le_bytes(), &count.to_le_bytes()].concat();
    for packet in std::iter::once(key_packet.as_slice()).chain(packets.iter().copied()) {
        let sealed = seal(shared.get(..32)?, packet)?;
        let packet = [0_u32.to_le_bytes().as_slice(), &writer.public, &sealed].concat();
        file.extend(u32::try_from(packet.len().checked_add(4)?).ok()?.to_le_bytes());
        file.extend(packet);
    }
    for segment in content.chunks(SEGMENT) {
        file.extend(seal(&segment_key, segment)?);
    }
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with PyPI's crypt4gh 1.8.6 (`tests/data/README.md`): 70,000 bytes for the key of 32 sevens; the same for another key as well; the
    /// same with an edit list that leaves out 5, keeps 20, leaves out 66,000, and keeps 10.
    const WHOLE: &[u8] = include_bytes!("../tests/data/whole.c4gh");
    const TWO: &[u8] = include_bytes!("../tests/data/two-readers.c4gh");
    const EDITED: &[u8] = include_bytes!("../tests/data/edited.c4gh");

    fn key(seed: u8) -> Crypt4ghKey {
        Crypt4ghKey::from_bytes(&Zeroizing::new([seed; 32]))
    }

    fn content() -> Vec<u8> {
        (0..70_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect()
    }

    fn read(file: &[u8], key: &Crypt4ghKey) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        Decrypted::new(file, key)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn files_that_other_tools_wrote_are_read() {
        assert!(read(WHOLE, &key(7)).unwrap() == content());
        assert!(read(TWO, &key(7)).unwrap() == content() && read(TWO, &key(9)).unwrap() == content());
        let whole = content();
        let edited = [&whole[5..25], &whole[66_025..66_035]].concat();
        assert_eq!(read(EDITED, &key(7)).unwrap(), edited);
        assert!(key(7).public().contains("BEGIN CRYPT4GH PUBLIC KEY"));
    }

    #[test]
    fn files_for_others_and_changed_ones_are_refused() {
        let why = |file: &[u8], key: &Crypt4ghKey| read(file, key).unwrap_err().to_string();
        assert!(why(WHOLE, &key(9)).contains("site crypt4gh"));
        for at in [0, 8, 12, 17, 40, 100, 200, WHOLE.len() - 1, WHOLE.len() - 4_000] {
            let mut changed = WHOLE.to_vec();
            changed[at] ^= 1;
            assert!(read(&changed, &key(7)).is_err(), "byte {at}");
        }
        // Every cut but one at the end of a segment is seen, and none panics.
        let header = WHOLE.len() - (NONCE_LEN + SEGMENT + TAG) - (NONCE_LEN + 70_000 - SEGMENT + TAG);
        for cut in (0..WHOLE.len()).step_by(97).chain([header - 1, header + 1]) {
            assert!(read(&WHOLE[..cut], &key(7)).is_err(), "{cut}");
        }
    }
}
