//! What the ledger's file keeps from anyone who has it without the site's keys: details of the log, releases and what was found about them, signed words.
//!
//! *In*: 32 secret bytes of the site, a connection. *Out*: two functions of SQL on it, `seal(kind, row, bytes)` and `unseal(kind, row, sealed)`:
//! AES-256-GCM under a key of each kind's own, with a random nonce, bound to the row, so that no
//! record can stand in another's place. Records are padded, so that their lengths do not tell how
//! long numbers are: a release's to a length that follows from its round, `seal(kind, row, bytes,
//! least)`. Digests that rows are found again by are keyed ([`Seal::keyed`]). *Refuses*: on the
//! ledger's own connection, what does not open. On a reader's, that is NULL, and so is everything
//! where the keys are not known. Shows nothing in `Debug`.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use rusqlite::Connection;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use vestibule_protocol::digest::{Digest, hex};
use vestibule_protocol::name::Name;
use zeroize::Zeroizing;

/// Records are as long as a multiple of this: longer than what numbers in them can differ by.
const BUCKET: usize = 1_024;
/// Stands behind a record, before the zeros that pad it (ISO/IEC 7816-4).
const END: u8 = 0x80;

/// What is sealed: each kind under a key of its own.
const KINDS: [&str; 4] = ["details", "release", "evidence", "review"];

/// Seals and opens the ledger's records. Cheap to clone.
#[derive(Clone)]
pub struct Seal(Arc<Keys>);

struct Keys {
    kinds: [RandomizedNonceKey; KINDS.len()],
    names: hmac::Key,
    digests: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// From a secret that is used for nothing else.
    #[must_use]
    pub fn from_bytes(secret: &Zeroizing<[u8; 32]>) -> Self {
        let secret = hmac::Key::new(HMAC_SHA256, secret.as_slice());
        let derived = |what: &str| hmac::sign(&secret, format!("vestibule/ledger/{what}/1").as_bytes());
        let kinds = KINDS.map(|kind| {
            RandomizedNonceKey::new(&AES_256_GCM, derived(kind).as_ref()).expect("an HMAC-SHA256 tag is a key's 32 bytes")
        });
        let key = |what: &str| hmac::Key::new(HMAC_SHA256, derived(what).as_ref());
        Self(Arc::new(Keys { kinds, names: key("names"), digests: key("digests") }))
    }

    /// One that every test knows.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::from_bytes(&Zeroizing::new([5; 32]))
    }

    /// A name as text that says nothing to others, and is the same each time.
    pub(super) fn name(&self, name: &Name) -> String {
        hex(hmac::sign(&self.0.names, name.as_str().as_bytes()).as_ref())
    }

    /// A digest as another one, which nobody without the keys can try values against.
    pub(crate) fn keyed(&self, digest: Digest) -> Digest {
        let mut keyed = [0; 32];
        keyed.copy_from_slice(hmac::sign(&self.0.digests, digest.as_bytes()).as_ref());
        Digest::from_bytes(keyed)
    }

    fn key(&self, kind: &str) -> Option<&RandomizedNonceKey> {
        self.0.kinds.get(KINDS.iter().position(|known| *known == kind)?)
    }

    /// Seals what opens again, padded as if it were at least `least` bytes long.
    fn close(&self, kind: &str, row: &str, plain: &[u8], least: usize) -> Option<Vec<u8>> {
        let padded = plain.len().max(least).checked_add(1)?.checked_next_multiple_of(BUCKET)?;
        let mut sealed = Vec::with_capacity(padded.checked_add(AES_256_GCM.tag_len())?);
        sealed.extend_from_slice(plain);
        sealed.push(END);
        sealed.resize(padded, 0);
        let nonce = self.key(kind)?.seal_in_place_append_tag(Aad::from(row.as_bytes()), &mut sealed).ok()?;
        Some([nonce.as_ref().as_slice(), &sealed].concat())
    }

    fn open(&self, kind: &str, row: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = rest.to_vec();
        let length = self.key(kind)?.open_in_place(Nonce::from(nonce), Aad::from(row.as_bytes()), &mut plain).ok()?.len();
        plain.truncate(length);
        let end = plain.iter().rposition(|byte| *byte != 0).filter(|end| plain.get(*end) == Some(&END))?;
        plain.truncate(end);
        Some(plain)
    }

    /// Gives the ledger's own connection both functions. What does not open is an error.
    pub(super) fn serve(&self, connection: &Connection) -> rusqlite::Result<()> {
        let opening = self.clone();
        for arguments_of_it in [3, 4] {
            let closing = self.clone();
            connection.create_scalar_function("seal", arguments_of_it, FLAGS, move |context| {
                let (kind, row, plain) = arguments(context)?;
                // No bytes stay none: that there is nothing is said elsewhere too.
                let Some(plain) = plain else { return Ok(Vec::new()) };
                let least = if context.len() > 3 { usize::try_from(context.get::<i64>(3)?).unwrap_or(0) } else { 0 };
                closing.close(&kind, &row, &plain, least).ok_or_else(|| failed("a record could not be sealed"))
            })?;
        }
        connection.create_scalar_function("unseal", 3, FLAGS, move |context| {
            let (kind, row, sealed) = arguments(context)?;
            let Some(sealed) = sealed else { return Ok(None) };
            opening.open(&kind, &row, &sealed).map(Some).ok_or_else(|| {
                failed("a sealed record does not open: it was sealed with other keys, changed, or put in another's place")
            })
        })
    }

    /// Gives a reader's connection `unseal`, which is NULL for what does not open, and for everything where there is no `seal`.
    pub(crate) fn read(seal: Option<&Self>, connection: &Connection) -> rusqlite::Result<()> {
        let seal = seal.cloned();
        connection.create_scalar_function("unseal", 3, FLAGS, move |context| {
            let (kind, row, sealed) = arguments(context)?;
            Ok(seal.as_ref().zip(sealed).and_then(|(seal, sealed)| seal.open(&kind, &row, &sealed)))
        })
    }
}

/// Not for triggers or views, which anyone who can write the file can change.
const FLAGS: FunctionFlags = FunctionFlags::SQLITE_UTF8.union(FunctionFlags::SQLITE_DIRECTONLY);

/// The kind, the row, and bytes where there are any.
fn arguments(context: &Context<'_>) -> rusqlite::Result<(String, String, Option<Vec<u8>>)> {
    let row = match context.get_raw(1) {
        ValueRef::Integer(number) => number.to_string(),
        // Of a row that is not there: an outer join asks for it.
        ValueRef::Null => return Ok((context.get(0)?, String::new(), None)),
        other => other.as_str()?.to_owned(),
    };
    let bytes = match context.get_raw(2) {
        ValueRef::Null => None,
        bytes => Some(bytes.as_bytes()?).filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec),
    };
    Ok((context.get(0)?, row, bytes))
}

fn failed(why: &str) -> rusqlite::Error {
    rusqlite::Error::UserFunctionError(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(secret: u8) -> Seal {
        Seal::from_bytes(&Zeroizing::new([secret; 32]))
    }

    #[test]
    fn a_record_opens_in_its_own_place_alone() {
        let sealed = seal(1).close("details", "7", b"ada", 0).unwrap();
        assert_eq!(seal(1).open("details", "7", &sealed).as_deref(), Some(&b"ada"[..]));
        assert!(!sealed.windows(3).any(|part| part == b"ada"));
        assert_ne!(seal(1).close("details", "7", b"ada", 0).unwrap(), sealed, "a nonce each");
        for (secret, kind, row) in [(2, "details", "7"), (1, "review", "7"), (1, "details", "8"), (1, "other", "7")] {
            assert_eq!(seal(secret).open(kind, row, &sealed), None, "{secret} {kind} {row}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal(1).open("details", "7", &changed), None, "byte {at}");
            assert_eq!(seal(1).open("details", "7", &sealed[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn lengths_tell_no_more_than_a_bucket_or_what_they_are_padded_to() {
        let length = |plain: &[u8], least: usize| {
            let sealed = seal(1).close("release", "7", plain, least).unwrap();
            assert_eq!(seal(1).open("release", "7", &sealed).as_deref(), Some(plain), "{plain:?}");
            sealed.len()
        };
        let overhead = length(b"1", 0) - BUCKET;
        for plain in [&b"1"[..], b"1000", &[0; 3], &[END; 3], &[1; BUCKET - 1]] {
            assert_eq!(length(plain, 0), BUCKET + overhead);
            assert_eq!(length(plain, 3 * BUCKET), 4 * BUCKET + overhead);
        }
        assert_eq!(length(&[1; BUCKET], 0), 2 * BUCKET + overhead);
    }

    #[test]
    fn a_keyed_digest_is_the_same_each_time_and_another_under_each_key() {
        let digest = Digest::of(b"asked");
        assert_eq!(seal(1).keyed(digest), seal(1).keyed(digest));
        assert!(![seal(2).keyed(digest), seal(1).keyed(Digest::of(b"other")), digest].contains(&seal(1).keyed(digest)));
    }

    #[test]
    fn sql_seals_and_opens_where_the_keys_are_known() {
        let connection = Connection::open_in_memory().unwrap();
        seal(1).serve(&connection).unwrap();
        let sealed: Vec<u8> = connection.query_row("SELECT seal('review', 3, x'616461')", [], |row| row.get(0)).unwrap();
        let open = |connection: &Connection, row: &str| {
            connection.query_row("SELECT unseal('review', ?2, ?1)", (&sealed, row), |row| row.get::<_, Option<Vec<u8>>>(0))
        };
        assert_eq!(open(&connection, "3").unwrap().as_deref(), Some(&b"ada"[..]));
        assert!(open(&connection, "4").unwrap_err().to_string().contains("another's place"));
        for (keys, found) in [(Some(seal(1)), Some(b"ada".to_vec())), (Some(seal(2)), None), (None, None)] {
            let reader = Connection::open_in_memory().unwrap();
            Seal::read(keys.as_ref(), &reader).unwrap();
            assert_eq!(open(&reader, "3").unwrap(), found);
        }
        // Nothing stays nothing.
        let empty = "SELECT length(seal('review', 3, x'')) = 0 AND unseal('review', 3, x'') IS NULL AND unseal('review', 3, NULL) IS NULL
                     AND unseal('review', NULL, NULL) IS NULL";
        assert!(connection.query_row(empty, [], |row| row.get::<_, bool>(0)).unwrap());
    }
}
