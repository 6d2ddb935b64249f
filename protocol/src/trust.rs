//! The consortium's trust bundle: who its members are, by which keys, and whose word counts for what.
//!
//! *In*: an envelope that anybody may have delivered; the fingerprint of the consortium's roots, or the bundle that was believed last. *Out*:
//! [`Trust`]. *Trusts*: a threshold of root keys, known from the fingerprint that was compared by phone or on paper. *Refuses*: too few
//! signatures, of the new roots or of those before; an older version; another bundle of the same version (a fork); a key that serves two
//! purposes; what has expired. A bundle only says who exists: what a site allows is the site's.

mod believing;
mod rotation;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::dsse::{self, DsseError};
use crate::key::{PublicKey, SecretKey};
use crate::log::leaf::Event;
use crate::log::note::{Kind, Verifier};
use crate::log::policy::{NotProven, Policy};
use crate::name::Name;
use crate::words::{Country, Distinct, Organisation, Origin, instant};

pub use self::rotation::{ROTATION_TYPE, Rotation};

/// DSSE payload type of a trust bundle.
pub const BUNDLE_TYPE: &str = "application/vnd.vestibule.trust-bundle.v1+json";
/// The longest that a bundle may be believed: a coordinator that withholds a revocation can do so for no longer.
pub const MAX_DAYS: i64 = 90;
const MAX_ROOTS: usize = 16;
const MAX_MEMBERS: usize = 4_096;
const ALIKE: &str = "another member's name looks the same, so one could be taken for the other";

/// Everything that the consortium says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Its name.
    pub consortium: Name,
    /// Counted up by every bundle.
    pub version: u64,
    /// RFC 3339, UTC.
    pub issued: String,
    /// RFC 3339, UTC: no job is begun on its word after that.
    pub expires: String,
    /// The roots, whose holders sign bundles.
    pub roots: Roots,
    /// The sites.
    pub sites: Vec<Site>,
    /// The people.
    pub persons: Vec<Person>,
    /// Whose cosignatures make a site's log believable: a policy in the form of <https://c2sp.org/tlog-policy>. A site's witness has the
    /// site's name in it.
    pub witnesses: String,
    /// Organisations that the consortium knows to work for no profit, by the names that members give.
    #[serde(default)]
    pub non_profits: BTreeSet<Organisation>,
    /// What is no longer believed, whatever else says so.
    pub revoked: Revoked,
}

/// Root keys, and how many of them must sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// How many.
    pub threshold: u32,
    /// Of these.
    pub keys: Vec<PublicKey>,
}

impl Roots {
    /// What people compare: SHA-256 over the threshold and the keys, whatever their order.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let mut keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        keys.sort();
        Digest::of(format!("vestibule/roots/1\n{}\n{}\n", self.threshold, keys.join("\n")).as_bytes())
    }
}

/// A site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What jobs call it.
    pub name: Name,
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
    /// Keys that it had before.
    #[serde(default, skip_serializing_if = "Former::is_empty")]
    pub former: Former,
}

/// Keys that a site had before: they count still, until they are revoked. Those of its witness are in the witnesses' policy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Former {
    /// Of its link.
    pub link: BTreeSet<PublicKey>,
    /// Of its log.
    pub log: BTreeSet<PublicKey>,
}

impl Former {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.link.is_empty() && self.log.is_empty()
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What the consortium calls them.
    pub name: Name,
    /// Whom they work for.
    pub organisation: Organisation,
    /// Where: an ISO 3166 code of two letters.
    pub country: Country,
    /// What they may be believed as.
    pub roles: BTreeSet<Role>,
    /// Their key.
    pub key: PublicKey,
    /// Keys that they had before: what those sign counts still, until they are revoked, and anyone who names them by one means this person.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former: BTreeSet<PublicKey>,
}

/// What a person's word counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Signs manifests.
    Researcher,
    /// Reviews what others ask for.
    Approver,
    /// Oversees.
    Overseer,
}

/// What is not believed, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revoked {
    /// Keys of anybody.
    pub keys: BTreeSet<PublicKey>,
    /// Components.
    pub components: BTreeSet<Digest>,
}

/// A bundle that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    bundle: Bundle,
    digest: Digest,
    policy: Policy,
    /// When it was issued and when it expires, in seconds since 1970.
    dates: (i64, i64),
    /// What anyone who believes the bundle does not believe besides.
    distrusted: Revoked,
}

/// A bundle that is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The envelope.
    #[error("trust bundle: {0}")]
    Envelope(#[from] DsseError),
    /// Not the JSON of a bundle.
    #[error("trust bundle: {0}")]
    Json(String),
    /// A field that cannot be.
    #[error("trust bundle, {place}: {why}")]
    Field {
        /// Where.
        place: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Too few of the roots signed.
    #[error("the trust bundle is signed by {found} of the {whose} roots, and {needed} are needed")]
    Signatures {
        /// The new ones, or those before.
        whose: &'static str,
        /// How many signed.
        found: usize,
        /// How many must.
        needed: u32,
    },
    /// Other roots than were pinned.
    #[error("the trust bundle's roots have the fingerprint {found}, and the consortium's is {pinned}: compare it by phone")]
    Fingerprint {
        /// What it has.
        found: Digest,
        /// What was pinned.
        pinned: Digest,
    },
    /// Older.
    #[error("the trust bundle is of version {found}, and version {known} was believed before")]
    Old {
        /// Its version.
        found: u64,
        /// What was believed.
        known: u64,
    },
    /// Another one under the same number.
    #[error(
        "another trust bundle of version {version} was believed before: somebody shows different bundles to different members"
    )]
    Forked {
        /// The version.
        version: u64,
    },
    /// Another consortium's.
    #[error("the trust bundle is of another consortium")]
    Consortium,
}

impl TrustError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Envelope(error) => error.code(),
            Self::Json(_) => "trust-malformed",
            Self::Field { .. } => "trust-field",
            Self::Signatures { .. } => "trust-signatures",
            Self::Fingerprint { .. } => "trust-fingerprint",
            Self::Old { .. } => "trust-old",
            Self::Forked { .. } => "trust-forked",
            Self::Consortium => "trust-consortium",
        }
    }
}

impl Bundle {
    /// Checks the bundle and signs it with a root's key.
    ///
    /// # Errors
    /// A bundle that nobody would believe.
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, TrustError> {
        self.check()?;
        let payload = serde_json::to_vec(self).map_err(|error| TrustError::Json(error.to_string()))?;
        Ok(dsse::sign(BUNDLE_TYPE, &payload, key))
    }

    /// The policy, and when the bundle was issued and expires (seconds since 1970).
    fn check(&self) -> Result<(Policy, (i64, i64)), TrustError> {
        let field = |place: &str, why| Err(TrustError::Field { place: place.to_owned(), why });
        let Roots { threshold, keys } = &self.roots;
        if keys.is_empty() || keys.len() > MAX_ROOTS || !(1..=keys.len()).contains(&(*threshold as usize)) {
            return field("roots", "1 to 16 roots, and a threshold of at least 1 and at most as many as there are");
        }
        if self.sites.len() > MAX_MEMBERS || self.persons.len() > MAX_MEMBERS {
            return field("members", "at most 4096 sites and as many persons");
        }
        let policy = Policy::parse(&self.witnesses)
            .map_err(|error| TrustError::Field { place: format!("witnesses, line {}", error.line), why: error.why })?;
        let (mut names, mut used) = (Distinct::default(), BTreeSet::new());
        let origins: BTreeSet<&str> = self.sites.iter().map(|site| site.log_origin.as_str()).collect();
        if origins.len() != self.sites.len() {
            return field("sites", "two sites have the same log");
        }
        for name in self.sites.iter().map(|site| &site.name).chain(self.persons.iter().map(|person| &person.name)) {
            if let Err(like) = names.add(name) {
                return field(&format!("`{name}`"), if like == *name { "the name is used twice" } else { ALIKE });
            }
        }
        let of_sites = self.sites.iter().flat_map(|site| {
            let former = site.former.link.iter().chain(&site.former.log).copied();
            former.chain([site.link, site.log])
        });
        let of_witnesses = policy.witnesses().iter().map(|(_, verifier)| verifier.key);
        let of_people = self.persons.iter().flat_map(|person| person.former.iter().copied().chain([person.key]));
        for key in keys.iter().copied().chain(of_sites).chain(of_witnesses).chain(of_people) {
            if !used.insert(key) {
                return Err(TrustError::Field { place: key.to_string(), why: "a key serves one purpose of one member" });
            }
        }
        let Some(issued) = instant(&self.issued) else { return field("issued", "must be an RFC 3339 time") };
        let Some(expires) = instant(&self.expires) else { return field("expires", "must be an RFC 3339 time") };
        if expires <= issued || expires.saturating_sub(issued) > MAX_DAYS * 86_400 {
            return field("expires", "must be later than `issued`, by 90 days at most");
        }
        Ok((policy, (issued, expires)))
    }
}

impl Trust {
    /// The same bundle, less what somebody does not believe for reasons of their own. Nothing can be added to a bundle so.
    #[must_use]
    pub fn without(self, distrusted: Revoked) -> Self {
        Self { distrusted, ..self }
    }

    /// What it says.
    #[must_use]
    pub const fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// SHA-256 of the signed bytes.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Whose cosignatures are enough.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether jobs may be begun on its word at `now` (seconds since 1970).
    #[must_use]
    pub const fn is_current(&self, now: i64) -> bool {
        now <= self.dates.1
    }

    /// When it was issued, and until when jobs may be begun on its word (seconds since 1970).
    #[must_use]
    pub const fn dates(&self) -> (i64, i64) {
        self.dates
    }

    /// Whether a key was revoked, or is distrusted here.
    #[must_use]
    pub fn is_revoked(&self, key: &PublicKey) -> bool {
        [&self.bundle.revoked, &self.distrusted].iter().any(|revoked| revoked.keys.contains(key))
    }

    /// Whether a component was revoked, or is distrusted here.
    #[must_use]
    pub fn is_revoked_component(&self, component: &Digest) -> bool {
        [&self.bundle.revoked, &self.distrusted].iter().any(|revoked| revoked.components.contains(component))
    }

    /// The person whose key this is, if they have that role and the key was not revoked.
    #[must_use]
    pub fn person(&self, key: &PublicKey, role: Role) -> Option<&Person> {
        let person = self.bundle.persons.iter().find(|person| person.key == *key || person.former.contains(key))?;
        (person.roles.contains(&role) && !self.is_revoked(key)).then_some(person)
    }

    /// The keys of everybody who has that role, with their owners' names: those of now, and former ones that were not revoked.
    #[must_use]
    pub fn keys(&self, role: Role) -> Vec<(Name, PublicKey)> {
        let of = |person: &Person| {
            let keys = person.former.iter().copied().chain([person.key]);
            keys.filter(|key| self.person(key, role).is_some()).map(|key| (person.name.clone(), key)).collect::<Vec<_>>()
        };
        self.bundle.persons.iter().flat_map(of).collect()
    }

    /// All keys of the person whose key it is, also those that were revoked since: what they signed
    /// is theirs.
    #[must_use]
    pub fn keys_of_person(&self, key: &PublicKey) -> Vec<PublicKey> {
        let has = |person: &&Person| person.key == *key || person.former.contains(key);
        let of = |person: &Person| person.former.iter().copied().chain([person.key]).collect();
        self.bundle.persons.iter().find(has).map_or_else(|| vec![*key], of)
    }

    /// Whether two keys are one person's.
    #[must_use]
    pub fn same_person(&self, one: &PublicKey, other: &PublicKey) -> bool {
        let has = |person: &Person, key: &PublicKey| person.key == *key || person.former.contains(key);
        one == other || self.bundle.persons.iter().any(|person| has(person, one) && has(person, other))
    }

    /// A site.
    #[must_use]
    pub fn site(&self, name: &Name) -> Option<&Site> {
        self.bundle.sites.iter().find(|site| site.name == *name)
    }

    /// Whether a site's log, witnessed by a quorum, says that this happened.
    ///
    /// # Errors
    /// [`NotProven`].
    pub fn proven(&self, site: &Name, event: &Event, leaf: &str, proof: &str) -> Result<(), NotProven> {
        let found = self.policy.prove(leaf.as_bytes(), proof, &self.logs(site), site.as_str())?;
        if found.event == *event { Ok(()) } else { Err(NotProven::Other) }
    }

    /// The keys by which a site's link is known: the one it has, and those before; none that was revoked.
    #[must_use]
    pub fn links(&self, name: &Name) -> Vec<PublicKey> {
        let keys = self.site(name).into_iter().flat_map(|site| [site.link].into_iter().chain(site.former.link.iter().copied()));
        keys.filter(|key| !self.is_revoked(key)).collect()
    }

    /// How a site's log is verified: by the key it has, and by those before; by none that was revoked.
    #[must_use]
    pub fn logs(&self, name: &Name) -> Vec<Verifier> {
        let Some(site) = self.site(name) else { return vec![] };
        let keys = [site.log].into_iter().chain(site.former.log.iter().copied()).filter(|key| !self.is_revoked(key));
        keys.map(|key| Verifier { name: site.log_origin.to_string(), key, kind: Kind::Log }).collect()
    }

    /// How a site's log is verified by the key it has: `None` where that was revoked, or there is no such site.
    #[must_use]
    pub fn log(&self, name: &Name) -> Option<Verifier> {
        let site = self.site(name).filter(|site| !self.is_revoked(&site.log))?;
        Some(Verifier { name: site.log_origin.to_string(), key: site.log, kind: Kind::Log })
    }
}

#[cfg(test)]
mod tests;
