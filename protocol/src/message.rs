//! What a coordinator and a site say to each other. A site dials; the coordinator opens one stream for each thing it asks.
//!
//! | stream opened by | it sends | the other answers |
//! |---|---|---|
//! | coordinator | [`Hello`] | [`SiteCard`] |
//! | coordinator | [`Fetch`] | [`Document`], then [`Chunk`]s |
//! | coordinator | [`Offer`] | [`Answer`]s until a last one; after [`Answer::Need`] the coordinator sends [`Chunk`]s |
//! | coordinator | [`Close`] | [`Done`] |
//! | coordinator | [`TrustUpdate`] | [`Done`] |
//! | coordinator | [`AddCheckpoint`], of another site | [`Cosigned`] |
//! | site | [`Relay`]: an [`AddCheckpoint`] for another site | [`Cosigned`], as that site answered |
//! | site | [`Decided`] | [`Done`] |
//! | site (join key only) | [`Join`] | [`Joined`] |
//!
//! Everything is bounded by its message's cap. Field order is the wire format: never reorder, never insert; a change is a new
//! version. Golden bytes of every message stand in the tests below.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::frame::Message;
use crate::job::JobId;
use crate::key::PublicKey;
use crate::name::Name;
use crate::round::RoundRequest;
use crate::words::{Code, Country, Label, Organisation, Origin, Sentence};

/// Bytes of one chunk of a document or a component.
pub const CHUNK_BYTES: usize = 256 << 10;

macro_rules! message {
    ($name:ident, $kind:literal, $cap:expr) => {
        impl Message for $name {
            const KIND: u16 = $kind;
            const VERSION: u16 = 1;
            const CAP: u32 = $cap;
        }
    };
}

/// The coordinator greets a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The coordinator's software version, for people.
    pub software: Label,
    /// The name under which this site is registered.
    pub site: Name,
}
message!(Hello, 1, 4 << 10);

/// A site says what it has. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCard {
    /// The site's software version, for people.
    pub software: Label,
    /// Its datasets.
    pub datasets: Vec<DatasetCard>,
    /// The charters that it has accepted, by digest. A job of another project is not worth compiling.
    #[serde(default)]
    pub charters: Vec<Digest>,
}
message!(SiteCard, 2, 1 << 20);

/// One dataset, as its site describes it in public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetCard {
    /// The name that the consortium gave it.
    pub name: Name,
    /// For people.
    pub about: Sentence,
    /// Rounded by the site, for planning. Not a count of rows.
    pub approximate_size: u64,
    /// The dictionary its columns follow: a document to [`Fetch`].
    pub dictionary: Digest,
    /// The catalogues it was matched to: documents to [`Fetch`].
    pub catalogues: Vec<CatalogueCard>,
    /// GA4GH Data Use Ontology codes.
    pub duo: Vec<Label>,
    /// 10^-6 epsilon that the site has set as the dataset's lifetime cap.
    pub cap_epsilon_micro: u64,
    /// 10^-15 delta of that cap.
    pub cap_delta_femto: u64,
    /// How many individuals must take part in a round, by a noised count, for anything of it to leave; 0: any number.
    pub min_cohort: u32,
}

/// One catalogue of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueCard {
    /// Its name.
    pub name: Name,
    /// SHA-256 of its file.
    pub digest: Digest,
    /// The reference build, such as `GRCh38`.
    pub build: Label,
    /// How many variants it lists.
    pub variants: u32,
}

/// The coordinator asks for a public document that a card named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which.
    pub digest: Digest,
}
message!(Fetch, 3, 64);

/// How long the document is; that many bytes follow in [`Chunk`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Bytes to come; 0 when the site does not have it.
    pub bytes: u64,
}
message!(Document, 4, 16);

/// A piece of a document or a component, in order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// 1 to [`CHUNK_BYTES`] bytes.
    #[serde(with = "bytes")]
    pub bytes: Vec<u8>,
}
message!(Chunk, 5, CHUNK_BYTES as u32 + 16);

/// The coordinator offers one round of a job.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// The DSSE envelope as the researcher signed it.
    #[serde(with = "bytes")]
    pub manifest: Vec<u8>,
    /// Which round, counted from 0.
    pub round: u32,
    /// What is asked.
    pub request: RoundRequest,
}
message!(Offer, 6, 56 << 20);

/// What a site answers to an offer, in this order: `Need` at most once, then `Accepted`, then one of
/// `Refused`, `Settled` and `Held`, which end the stream.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The component is not here: send its bytes from this offset on.
    Need {
        /// First byte that is missing.
        from: u64,
    },
    /// The offer was admitted, its budget is reserved and the round is charged.
    Accepted,
    /// Decided before any data was touched, from the manifest, the site's rules and its ledger alone.
    Refused {
        /// A stable code.
        code: Code,
        /// A sentence for people, made from the code and public terms only.
        why: Sentence,
    },
    /// Data was touched. The release, if there is one, then spaces up to a length that follows from the round alone: so that nobody
    /// on the way learns whether there is one, or how long its numbers are. See [`Answer::settled`].
    Settled {
        /// The document, padded.
        #[serde(with = "bytes")]
        padded: Vec<u8>,
        /// That the answer is in the site's log, and that log witnessed.
        receipt: Receipt,
    },
    /// A person at the site looks at the job, or at what it would release, first. The round is to be
    /// offered again when the site says [`Decided`].
    Held {
        /// Why, in the words of the site's rules.
        why: Sentence,
    },
}

/// That a settled round is in a site's log, in a checkpoint that a quorum of witnesses cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The leaf's bytes (see [`crate::log::leaf`]).
    pub leaf: String,
    /// Its proof (<https://c2sp.org/tlog-proof>).
    pub proof: String,
}

impl Answer {
    /// No answer about this round is longer than this, in bytes: its release, which is padded to that length, and its receipt.
    #[must_use]
    pub fn most_bytes(round: &RoundRequest) -> usize {
        const RECEIPT: usize = crate::log::leaf::MAX_LEAF_BYTES + crate::log::proof::MAX_BYTES;
        /// Of what is written down around them.
        const FRAME: usize = 64;
        crate::release::most_bytes(round).saturating_add(RECEIPT + FRAME)
    }

    /// The last answer of a round in which data was touched: its release (the same bytes on every retry), or that there is none,
    /// which never says why.
    #[must_use]
    pub fn settled(release: Option<&[u8]>, round: &RoundRequest, receipt: Receipt) -> Self {
        let mut padded = release.unwrap_or_default().to_vec();
        padded.resize(padded.len().max(crate::release::most_bytes(round)), b' ');
        Self::Settled { padded, receipt }
    }

    /// What [`Self::settled`] was given.
    #[must_use]
    pub fn release(padded: &[u8]) -> Option<&[u8]> {
        Some(padded.trim_ascii_end()).filter(|release| !release.is_empty())
    }
}
message!(Answer, 7, 96 << 20);

/// The coordinator says that a job has ended at this site: no more rounds will come. One that runs, runs to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Which job.
    pub job: JobId,
}
message!(Close, 8, 64);

/// It is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done;
message!(Done, 9, 8);

/// A site that dialled with the key of its join token asks to be known by keys of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// What it asks to be known as.
    pub request: SiteRequest,
    /// Signatures over [`join_message`] by the keys of its link, log and witness, 64 bytes each.
    #[serde(with = "bytes")]
    pub proofs: Vec<u8>,
}
message!(Join, 10, 4 << 10);

/// What a site asks the consortium to know it as. A coordinator passes it on; only a trust bundle makes it so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRequest {
    /// Whose it is.
    pub organisation: Organisation,
    /// Where: an ISO 3166 code of two letters.
    pub country: Country,
    /// The key of its link.
    pub link: PublicKey,
    /// Which log is its.
    pub log_origin: Origin,
    /// The key that signs it.
    pub log: PublicKey,
    /// The key that cosigns others'.
    pub witness: PublicKey,
}

impl SiteRequest {
    /// Whether the keys it names signed it, for this invitation.
    #[must_use]
    pub fn is_proved(&self, invitation: &PublicKey, proofs: &[u8]) -> bool {
        let message = join_message(invitation, self);
        let (signatures, rest) = proofs.as_chunks::<64>();
        let keys = [self.link, self.log, self.witness];
        rest.is_empty() && signatures.len() == 3 && keys.iter().zip(signatures).all(|(key, proof)| key.verify(&message, proof))
    }
}

/// A new trust bundle for a site, as the roots signed it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustUpdate {
    /// The envelope.
    #[serde(with = "bytes")]
    pub envelope: Vec<u8>,
}
message!(TrustUpdate, 12, 4 << 20);

/// A log's checkpoint for a witness, in the form of C2SP's `add-checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddCheckpoint {
    /// See [`crate::log::proof::AddCheckpoint`].
    pub request: String,
}
message!(AddCheckpoint, 13, 72 << 10);

/// A site asks another for its cosignature, by way of the coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Which site.
    pub to: Name,
    /// What it is asked.
    pub request: String,
}
message!(Relay, 14, 72 << 10);

/// A witness' answer. The status is that of C2SP's HTTP interface: 200, 400, 403, 404, 409, 422; 428 from one that does not cosign now; 429 to a log that asks too
/// often; or 503 from a coordinator that cannot reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosigned {
    /// How it went.
    pub status: u16,
    /// 200: signature lines. 409: the checkpoint that the witness cosigned last. 428: the same, cosigned again now, or empty. Else empty.
    pub body: String,
}
message!(Cosigned, 15, 72 << 10);

/// A site says that somebody has decided about what waited there: these jobs' rounds are to be
/// offered again. It does not say how they decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Which jobs, at most [`MAX_DECIDED`].
    pub jobs: Vec<JobId>,
}
message!(Decided, 16, 40 << 10);

/// Jobs in one [`Decided`].
pub const MAX_DECIDED: usize = 1_000;

/// How a request to join ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Joined {
    /// The key is registered under this name.
    Welcome {
        /// The name in the invitation.
        name: Name,
    },
    /// It is not.
    Refused {
        /// Why.
        why: Sentence,
    },
}
message!(Joined, 11, 8 << 10);

/// What a joining site's keys sign: possession of them, bound to this invitation and to each other.
#[must_use]
pub fn join_message(invitation: &PublicKey, request: &SiteRequest) -> Vec<u8> {
    let request = postcard::to_stdvec(request).expect("strings and keys can always be written");
    [b"vestibule/join/2".as_slice(), &invitation.to_spki(), &request].concat()
}

/// Byte strings as one length and the bytes, not as a sequence of numbers.
mod bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl std::fmt::Debug for TrustUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustUpdate({} bytes)", self.envelope.len())
    }
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes)", self.bytes.len())
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Offer(round {}, manifest of {} bytes)", self.round, self.manifest.len())
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Need { from } => write!(f, "Need(from {from})"),
            Self::Accepted => f.write_str("Accepted"),
            Self::Refused { code, .. } => write!(f, "Refused({code})"),
            Self::Settled { padded, .. } => write!(f, "Settled({} bytes)", padded.len()),
            Self::Held { .. } => f.write_str("Held"),
        }
    }
}

#[cfg(test)]
mod tests;
