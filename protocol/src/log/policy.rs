//! Whose cosignatures make a checkpoint believable (<https://c2sp.org/tlog-policy>).
//!
//! *In*: the text of a policy: witnesses, groups of them, a quorum. *Out*: whether a checkpoint of a log is signed by it and cosigned by a
//! quorum; whether a leaf is in it. *Refuses*: names used before they are defined, or twice in groups; keys listed twice; `log` lines (whose
//! log it is, is known from elsewhere). A witness never counts for the log of its own organisation.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

use super::checkpoint::Checkpoint;
use super::leaf::Leaf;
use super::note::{self, Kind, Verifier};
use super::proof::LeafProof;
use super::tree;
use crate::key::PublicKey;

const MAX_NAMES: usize = 256;
const MAX_NAME: usize = 128;
const MAX_URL: usize = 512;

/// A quorum over witnesses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    witnesses: Vec<(String, Verifier)>,
    /// Where those that are asked over HTTPS are asked.
    urls: BTreeMap<String, String>,
    groups: Vec<Group>,
    /// `None`: no cosignature is needed.
    quorum: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    needed: usize,
    members: Vec<String>,
}

/// A policy that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("witness policy, line {line}: {why}")]
pub struct PolicyError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Why a checkpoint or a proof is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotProven {
    /// Not a proof, or not a checkpoint.
    #[error("it is not a proof of a log's leaf")]
    Malformed,
    /// The log's signature, or a known witness', does not hold.
    #[error("a signature on the checkpoint does not hold")]
    Signature,
    /// Not signed by the log.
    #[error("the checkpoint is not signed by the site's log")]
    Log,
    /// Too few cosignatures.
    #[error("the checkpoint is not cosigned by a quorum of witnesses")]
    Quorum,
    /// The leaf says something else.
    #[error("the leaf says something else")]
    Other,
    /// The leaf is not in the tree.
    #[error("the leaf is not in the tree of the checkpoint")]
    Inclusion,
}

impl NotProven {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "proof-malformed",
            Self::Signature => "proof-signature",
            Self::Log => "proof-log",
            Self::Quorum => "proof-quorum",
            Self::Other => "proof-other",
            Self::Inclusion => "proof-inclusion",
        }
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`], with its line.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        let (mut defined, mut used, mut quorum) = (HashSet::new(), HashSet::new(), None);
        for (at, line) in text.lines().enumerate() {
            let error = |why| PolicyError { line: at + 1, why };
            let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
            let mut define = |name: &str| {
                if name.len() > MAX_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(error("a name has 1 to 128 visible ASCII characters"));
                }
                match defined.len() < MAX_NAMES && name != "none" && defined.insert(name.to_owned()) {
                    true => Ok(name.to_owned()),
                    false => Err(error("the name is taken, or there are too many")),
                }
            };
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["witness", name, vkey, url @ ..] if url.len() <= 1 => {
                    let verifier = verifier(vkey).ok_or(error("not a witness' key (vkey of type 4)"))?;
                    if policy.witnesses.iter().any(|(_, known)| known.key == verifier.key) {
                        return Err(error("the key is listed twice"));
                    }
                    if let [url] = url {
                        let url = submission(url).ok_or(error("not an https:// address where it is asked"))?;
                        policy.urls.insert((*name).to_owned(), url);
                    }
                    policy.witnesses.push((define(name)?, verifier));
                }
                ["group", name, needed, members @ ..] if !members.is_empty() => {
                    let needed = match *needed {
                        "any" => Some(1),
                        "all" => Some(members.len()),
                        number => super::checkpoint::decimal(number).and_then(|number| usize::try_from(number).ok()),
                    };
                    let needed = needed.filter(|needed| (1..=members.len()).contains(needed));
                    let needed = needed.ok_or(error("a group needs `any`, `all`, or 1 to as many as it has members"))?;
                    let group = define(name)?;
                    for member in members {
                        if *member == *name || !defined.contains(*member) {
                            return Err(error("a member is not defined above"));
                        }
                        if !used.insert((*member).to_owned()) {
                            return Err(error("a member is in a group already"));
                        }
                    }
                    let members = members.iter().map(|member| (*member).to_owned()).collect();
                    policy.groups.push(Group { name: group, needed, members });
                }
                ["quorum", name] => {
                    if quorum.is_some() {
                        return Err(error("there is a quorum already"));
                    }
                    if *name != "none" && !defined.contains(*name) {
                        return Err(error("the quorum is not defined above"));
                    }
                    quorum = Some(*name);
                }
                _ => return Err(error("expected `witness NAME VKEY [URL]`, `group NAME any|all|K MEMBER…` or `quorum NAME`")),
            }
        }
        let missing = PolicyError { line: text.lines().count(), why: "there is no `quorum` line" };
        let quorum = quorum.ok_or(missing)?;
        policy.quorum = (quorum != "none").then(|| quorum.to_owned());
        Ok(policy)
    }

    /// The witnesses, by the policy's names for them.
    #[must_use]
    pub fn witnesses(&self) -> &[(String, Verifier)] {
        &self.witnesses
    }

    /// Where a witness is asked over HTTPS (<https://c2sp.org/tlog-witness>): what `/add-checkpoint` is appended to.
    #[must_use]
    pub fn url(&self, witness: &str) -> Option<&str> {
        self.urls.get(witness).map(String::as_str)
    }

    /// Whether these of the policy's witnesses are a quorum.
    #[must_use]
    pub fn is_quorum(&self, witnesses: &HashSet<&str>) -> bool {
        let Some(quorum) = &self.quorum else { return true };
        let mut holds: HashMap<&str, bool> =
            self.witnesses.iter().map(|(name, _)| (name.as_str(), witnesses.contains(name.as_str()))).collect();
        for group in &self.groups {
            let have = group.members.iter().filter(|member| holds.get(member.as_str()) == Some(&true)).count();
            holds.insert(&group.name, have >= group.needed);
        }
        holds.get(quorum.as_str()) == Some(&true)
    }

    /// The verifiers of the witness that a site is: of its key, and of the one before where another takes its place.
    #[must_use]
    pub fn of_site(&self, site: &str) -> Vec<Verifier> {
        self.witnesses.iter().filter(|(name, _)| owner(name) == site).map(|(_, verifier)| verifier.clone()).collect()
    }

    /// The checkpoint of a note, if one of a log's keys signed it and a quorum cosigned it. `own` is the witness that belongs to the one who has the log:
    /// its cosignature counts for nothing.
    ///
    /// # Errors
    /// [`NotProven`].
    pub fn check(&self, note: &str, log: &[Verifier], own: &str) -> Result<Checkpoint, NotProven> {
        let mut known = log.to_vec();
        known.extend(self.witnesses.iter().map(|(_, verifier)| verifier.clone()));
        let (text, by) = note::open(note, &known).map_err(|error| match error {
            note::NoteError::Signature => NotProven::Signature,
            note::NoteError::Malformed => NotProven::Malformed,
        })?;
        let checkpoint = Checkpoint::parse(text).ok_or(NotProven::Malformed)?;
        if !by.iter().any(|by| log.contains(by.verifier) && by.verifier.name == checkpoint.origin) {
            return Err(NotProven::Log);
        }
        let cosigned = |verifier: &Verifier| by.iter().any(|by| by.verifier == verifier);
        let witnesses = self.witnesses.iter().filter(|(name, verifier)| owner(name) != own && cosigned(verifier));
        let witnesses: HashSet<&str> = witnesses.map(|(name, _)| name.as_str()).collect();
        if self.is_quorum(&witnesses) { Ok(checkpoint) } else { Err(NotProven::Quorum) }
    }

    /// The leaf of these bytes, if `proof` shows that it is in a checkpoint of the log with these keys that a quorum cosigned.
    ///
    /// # Errors
    /// [`NotProven`].
    pub fn prove(&self, leaf: &[u8], proof: &str, log: &[Verifier], own: &str) -> Result<Leaf, NotProven> {
        let proof = LeafProof::parse(proof).ok_or(NotProven::Malformed)?;
        let checkpoint = self.check(&proof.checkpoint, log, own)?;
        let hash = tree::leaf_hash(leaf);
        if !tree::is_included(&hash, proof.index, checkpoint.size, &proof.hashes, &checkpoint.root) {
            return Err(NotProven::Inclusion);
        }
        Leaf::parse(leaf).map_err(|_| NotProven::Malformed)
    }
}

/// The site whose witness a name of the policy means: `leiden/1` is a key that `leiden` had before.
fn owner(name: &str) -> &str {
    name.split_once('/').map_or(name, |(site, _)| site)
}

/// An address where a witness is asked: over TLS, or on this machine.
fn submission(url: &str) -> Option<String> {
    // No more than a place: `http://127.0.0.1:80@elsewhere/` is elsewhere.
    let parsed = Url::parse(url).ok().filter(|_| url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let bare =
        parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none() && parsed.fragment().is_none();
    let here = match parsed.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address == Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => address == Ipv6Addr::LOCALHOST,
    };
    let sealed = parsed.scheme() == "https" || (parsed.scheme() == "http" && here);
    (bare && sealed).then(|| parsed.as_str().trim_end_matches('/').to_owned())
}

/// A witness' key from its `vkey`.
#[must_use]
pub fn verifier(vkey: &str) -> Option<Verifier> {
    let (name, rest) = vkey.split_once('+')?;
    let (_, key) = rest.split_once('+')?;
    let key = STANDARD.decode(key).ok()?;
    let (kind, key) = key.split_first()?;
    let key = PublicKey::from_bytes(key.try_into().ok()?);
    let found = Verifier { name: name.to_owned(), key, kind: Kind::Cosignature };
    (*kind == 4 && !name.is_empty() && found.vkey() == vkey).then_some(found)
}
