//! Signed notes (<https://c2sp.org/signed-note>) and the timestamped cosignatures on them (<https://c2sp.org/tlog-cosignature>).
//!
//! *In*: a text and a key, or the bytes of a note with the keys that are known. *Out*: a note; the text, with who signed it. *Refuses*:
//! control characters, more than 64 signatures, a known key's signature that does not hold. Signatures by unknown keys are passed over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::key::{PublicKey, SecretKey};

/// Most bytes of a note.
pub const MAX_NOTE_BYTES: usize = 64 << 10;
const MAX_SIGNATURES: usize = 64;

/// What a signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A log's own: of the text.
    Log,
    /// A witness': of the text, at a time (seconds since 1970), as the newest that it has seen of this log.
    Cosignature,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 0x01,
            Self::Cosignature => 0x04,
        }
    }
}

/// A key with the name it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    /// The name.
    pub name: String,
    /// The key.
    pub key: PublicKey,
    /// What its signatures say.
    pub kind: Kind,
}

impl Verifier {
    fn id(&self) -> [u8; 4] {
        let bytes = [self.name.as_bytes(), b"\n", &[self.kind.byte()], self.key.as_bytes()].concat();
        let [a, b, c, d, ..] = *Digest::of(&bytes).as_bytes();
        [a, b, c, d]
    }

    /// The key as one line of text (a `vkey`): name, key id, type and key.
    #[must_use]
    pub fn vkey(&self) -> String {
        let key = [&[self.kind.byte()], self.key.as_bytes().as_slice()].concat();
        format!("{}+{}+{}", self.name, crate::digest::hex(&self.id()), STANDARD.encode(key))
    }
}

/// A note that cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoteError {
    /// Not a note.
    #[error("not a signed note")]
    Malformed,
    /// A known key's signature does not hold.
    #[error("a signature on the note does not hold")]
    Signature,
}

impl NoteError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "note-malformed",
            Self::Signature => "note-signature",
        }
    }
}

/// A signature that holds: whose, and when where it is a witness'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct By<'a> {
    /// Whose.
    pub verifier: &'a Verifier,
    /// Seconds since 1970; 0 for a log's own.
    pub time: u64,
}

/// Signs a text that ends in a line feed, as a log.
#[must_use]
pub fn sign(text: &str, name: &str, key: &SecretKey) -> String {
    let verifier = Verifier { name: name.to_owned(), key: key.public(), kind: Kind::Log };
    format!("{text}\n{}", line(&verifier, &key.sign(text.as_bytes())))
}

/// A witness' signature line under a note's text.
#[must_use]
pub fn cosign(text: &str, name: &str, key: &SecretKey, time: u64) -> String {
    let verifier = Verifier { name: name.to_owned(), key: key.public(), kind: Kind::Cosignature };
    let signature = key.sign(&cosigned(text, time));
    line(&verifier, &[time.to_be_bytes().as_slice(), &signature].concat())
}

fn cosigned(text: &str, time: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

fn line(verifier: &Verifier, signature: &[u8]) -> String {
    let bytes = [verifier.id().as_slice(), signature].concat();
    format!("\u{2014} {} {}\n", verifier.name, STANDARD.encode(bytes))
}

/// The text of a note, and which of the `known` signed it.
///
/// # Errors
/// Not a note; a known key's signature that does not hold.
pub fn open<'a, 'b>(note: &'a str, known: &'b [Verifier]) -> Result<(&'a str, Vec<By<'b>>), NoteError> {
    let (text, signatures) = parts(note)?;
    let mut by = Vec::new();
    for (name, bytes) in signatures {
        let (id, signature) = bytes.split_at_checked(4).ok_or(NoteError::Malformed)?;
        for verifier in known.iter().filter(|verifier| verifier.name == name && verifier.id() == id) {
            let (time, holds) = match verifier.kind {
                Kind::Log => (0, verifier.key.verify(text.as_bytes(), signature)),
                Kind::Cosignature => {
                    let (time, signature) = signature.split_first_chunk::<8>().ok_or(NoteError::Signature)?;
                    let time = u64::from_be_bytes(*time);
                    (time, verifier.key.verify(&cosigned(text, time), signature))
                }
            };
            if !holds {
                return Err(NoteError::Signature);
            }
            by.push(By { verifier, time });
        }
    }
    Ok((text, by))
}

/// A signature's name and bytes.
type Line<'a> = (&'a str, Vec<u8>);

/// The text, and each signature.
fn parts(note: &str) -> Result<(&str, Vec<Line<'_>>), NoteError> {
    if note.len() > MAX_NOTE_BYTES || note.chars().any(|c| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, rest) = note.split_at_checked(at + 1).ok_or(NoteError::Malformed)?;
    let lines = rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
    let signature = |line: &'_ str| -> Option<(usize, Vec<u8>)> {
        let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
        let good = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
        good.then_some(())?;
        Some((name.len(), STANDARD.decode(encoded).ok()?))
    };
    let mut found = Vec::new();
    for line in lines.split('\n') {
        let (name, bytes) = signature(line).ok_or(NoteError::Malformed)?;
        let start = "\u{2014} ".len();
        found.push((line.get(start..start + name).ok_or(NoteError::Malformed)?, bytes));
    }
    if found.len() > MAX_SIGNATURES { Err(NoteError::Malformed) } else { Ok((text, found)) }
}

/// The note with the signatures of the `known` alone.
#[must_use]
pub fn keep_known(note: &str, known: &[Verifier]) -> Option<String> {
    let (text, _) = open(note, known).ok()?;
    let lines = note.get(text.len() + 1..)?;
    let ours = |line: &&str| {
        let mut words = line.split(' ').skip(1);
        let name = words.next().unwrap_or_default();
        let id = words.next().and_then(|signature| STANDARD.decode(signature).ok()).unwrap_or_default();
        known.iter().any(|verifier| verifier.name == name && id.starts_with(&verifier.id()))
    };
    let kept: String = lines.split_inclusive('\n').filter(|line| ours(&line.trim_end())).collect();
    Some(format!("{text}\n{kept}"))
}
