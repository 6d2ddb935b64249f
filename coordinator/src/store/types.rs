//! What the database keeps, as others see it.

use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::{Receipt, SiteRequest};
use vestibule_protocol::name::Name;
use vestibule_protocol::round::Plan;
use vestibule_protocol::token::Role;
use vestibule_protocol::words::{Country, Organisation};

use crate::round::SiteState;

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Its rounds are under way.
    Running,
    /// Its report is here.
    Finished,
    /// It ended without one.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// A job to be kept.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// The manifest's envelope.
    pub envelope: Vec<u8>,
    /// The manifest's digest.
    pub manifest: Digest,
    /// Who owns it.
    pub owner: PublicKey,
    /// When it came, in seconds since 1970.
    pub submitted: i64,
    /// What its owner calls it.
    pub title: String,
    /// Epsilon of the whole job.
    pub epsilon: f64,
    /// Delta.
    pub delta: f64,
    /// The sites that it names.
    pub sites: Vec<Name>,
    /// Its component, dictionary and catalogues.
    pub documents: Vec<Digest>,
    /// What its component said it reads.
    pub plan: Plan,
}

/// A job, as its owner signed it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The manifest's envelope.
    pub envelope: Vec<u8>,
    /// Who owns it.
    pub owner: PublicKey,
}

/// How a job stands.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its id.
    pub id: JobId,
    /// Who owns it.
    pub owner: PublicKey,
    /// What its owner calls it.
    pub title: String,
    /// Epsilon of the whole job.
    pub epsilon: f64,
    /// Delta.
    pub delta: f64,
    /// When it came, in seconds since 1970.
    pub submitted: i64,
    /// How it stands.
    pub state: JobState,
    /// Why it failed: a code and a sentence.
    pub error: Option<(String, String)>,
    /// Rounds begun.
    pub rounds: u32,
    /// Most rounds, by its plan.
    pub max_rounds: u32,
    /// Its sites.
    pub sites: Vec<JobSite>,
}

/// A place in a list of jobs: those after it are older.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// When the job before it came.
    pub submitted: i64,
    /// Which of those of that second it was.
    pub row: i64,
}

/// What a newcomer asks the consortium to know them as.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A site, with its keys.
    Site(SiteRequest),
    /// A researcher.
    Researcher(PersonRequest),
    /// An approver.
    Approver(PersonRequest),
}

/// A person, with their key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PersonRequest {
    /// Whom they work for.
    pub organisation: Organisation,
    /// Where: an ISO 3166 code of two letters.
    pub country: Country,
    /// Their key.
    pub key: PublicKey,
}

impl Request {
    pub(super) const fn role(&self) -> Role {
        match self {
            Self::Site(_) => Role::Site,
            Self::Researcher(_) => Role::Researcher,
            Self::Approver(_) => Role::Approver,
        }
    }
}

/// A site's part in a job, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSite {
    /// Which site.
    pub site: Name,
    /// Its state in the current round.
    pub state: SiteState,
    /// Why it refused: a code and a sentence.
    pub reason: Option<(String, String)>,
}

/// A release, as stored, with the proof that it is in its site's witnessed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The round.
    pub round: u32,
    /// The site.
    pub site: Name,
    /// What it released: JSON.
    pub release: Vec<u8>,
    /// The proof.
    pub receipt: Receipt,
}

/// A round, as stored.
#[derive(Debug, Clone)]
pub struct StoredRound {
    /// The request, as JSON.
    pub request: Vec<u8>,
}
