//! The leaves of a site's log: what happened, in public terms.
//!
//! *In*: an [`Event`], its moment, and details that only the site keeps. *Out*: the leaf's bytes, a line of JSON; or the leaf, read back from
//! them. *Refuses*: unknown kinds and fields. Nothing in a leaf can be tried out that follows from
//! data: a release's digest is salted by the release itself ([`crate::release::Release::salt`]),
//! and what a round asks, which follows from the releases before it, is among the details. Details
//! (names, titles, reasons) are not in it: the leaf holds SHA-256 of a salt and them, so that they
//! can be shown with proof, and erased without a change of the tree.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::job::JobId;
use crate::key::PublicKey;
use crate::name::Name;
use crate::review::Subject;
use crate::salt::SALT_BYTES;
use crate::words::{Code, Label};

/// Most bytes of a leaf: what a C2SP entry bundle can hold.
pub const MAX_LEAF_BYTES: usize = 65_535;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// Milliseconds since 1970. Never less than the leaf before.
    pub at_ms: i64,
    /// What happened.
    pub event: Event,
    /// SHA-256 of the salt and the details, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Digest>,
}

/// What happened. Amounts are whole numbers: 10^-12 rho, 10^-15 delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Event {
    /// The site's daemon started.
    Started {
        /// Its version.
        software: Label,
        /// SHA-256 of the program.
        program: Digest,
        /// SHA-256 of the settings file.
        settings: Digest,
    },
    /// The site's operator gave a command that changes the site or reads its books. Details: who, and on what.
    Operator {
        /// Which command.
        command: Label,
    },
    /// Another trust bundle is believed from now on.
    Trust {
        /// Its version.
        version: u64,
        /// SHA-256 of its signed bytes.
        bundle: Digest,
    },
    /// The site takes part in a project from now on, or no longer. Details: its own terms.
    Charter {
        /// The project's charter.
        charter: Digest,
        /// Its name.
        project: Name,
        /// Whether it takes part.
        accepted: bool,
    },
    /// Another version of a dataset serves from now on, or another list of people is left out of it.
    Dataset {
        /// Which.
        dataset: Name,
        /// The version's name, which was drawn at random.
        version: String,
        /// SHA-256 of the list, as it is sealed (each time with another nonce); of no bytes where there is none.
        withdrawn: Digest,
    },
    /// The terms of an account were set, or changed.
    Account {
        /// Whose data it is.
        population: Name,
        /// What may ever be spent.
        cap_rho_pico: u64,
        /// The delta of that.
        cap_delta_femto: u64,
        /// What the moments of releases may add to delta.
        cap_moments_femto: u64,
    },
    /// An offer of an accepted researcher was refused. Details: who, and why.
    Refused {
        /// The job.
        job: JobId,
        /// Its signed terms.
        manifest: Digest,
        /// The round.
        round: u32,
        /// The reason's stable code.
        code: Code,
    },
    /// An offer was turned away that no accepted researcher signed, or that was not for this site, or not valid then. The first of its
    /// code in an hour: nobody can fill a log by sending nonsense.
    Rejected {
        /// The reason's stable code.
        code: Code,
    },
    /// Other rules hold from now on.
    Policy {
        /// Their version.
        version: u64,
        /// SHA-256 of them, as the site's officers signed them.
        policy: Digest,
    },
    /// A job, or what it would release, waits for a person. Details: by which rules, and on what.
    Held {
        /// What waits.
        subject: Subject,
    },
    /// A person decided. Details: who, and why.
    Reviewed {
        /// What was looked at.
        subject: Subject,
        /// Yes or no.
        approved: bool,
    },
    /// A job was admitted. Details: who, and its title.
    Job {
        /// The job.
        job: JobId,
        /// Its signed terms.
        manifest: Digest,
        /// Its project's charter.
        charter: Digest,
        /// What it reads.
        dataset: Name,
        /// What it is paid from.
        population: Name,
    },
    /// A job's whole budget was reserved.
    Reserved {
        /// The job.
        job: JobId,
        /// How much.
        rho_pico: u64,
    },
    /// A round was charged, before it ran; at no cost where it is answered with an earlier release.
    /// Details: what is asked in it.
    Charged {
        /// The job.
        job: JobId,
        /// The round.
        round: u32,
        /// What it costs.
        rho_pico: u64,
        /// What the moment of its release adds to delta.
        moment_femto: u64,
    },
    /// A round's answer may leave: a release, or that there is none. Details: what the airlock found.
    Settled {
        /// The job.
        job: JobId,
        /// The round.
        round: u32,
        /// SHA-256 of the release, which brings its salt; of no bytes where there is none, so that
        /// a leaf is as long then.
        release: Digest,
    },
    /// A job ended: what no round was charged for is free again.
    Ended {
        /// The job.
        job: JobId,
    },
    /// The log goes on under another name, after leaves were lost that a witness had seen. What they can have spent is charged next.
    Recovered {
        /// Its former name.
        log: String,
        /// How many leaves the witness had seen.
        size: u64,
        /// Their root.
        root: Digest,
        /// How many of them are still here.
        common: u64,
    },
    /// The details of old leaves were erased, as the site's settings say.
    Erased {
        /// How many.
        details: u64,
    },
    /// Old releases' bytes and old components were removed, as the site's settings say. Their digests stay.
    Retired {
        /// How many releases.
        releases: u64,
        /// How many components, and pieces of what was compiled of them.
        components: u64,
    },
    /// A new key of the site is used from now on, in the place of the one before; the log's own signs every checkpoint that has this leaf.
    Rotated {
        /// What it is for.
        what: Purpose,
        /// The one before.
        former: PublicKey,
        /// The new one.
        key: PublicKey,
    },
    /// Nothing happened for a while: the log goes on.
    Heartbeat,
}

/// What a key of a site is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// By which the coordinator knows it.
    Link,
    /// Signs its log's checkpoints.
    Log,
    /// Cosigns others' checkpoints.
    Witness,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Link, Self::Log, Self::Witness];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Log => "log",
            Self::Witness => "witness",
        }
    }
}

impl Leaf {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names, digests and numbers are always JSON")
    }

    /// From its bytes.
    ///
    /// # Errors
    /// What serde says of them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// What [`Event::Settled`] says where nothing was released.
#[must_use]
pub fn nothing() -> Digest {
    Digest::of(b"")
}

/// What a leaf holds of its details.
#[must_use]
pub fn commitment(salt: &[u8; SALT_BYTES], details: &str) -> Digest {
    Digest::of(&[salt.as_slice(), details.as_bytes()].concat())
}
