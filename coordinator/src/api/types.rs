//! The documents of the API, shared with the command line.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::words::{Country, Organisation};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable, for scripts.
    pub code: String,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// A researcher redeems an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinRequest {
    /// The invitation's public key, `ed25519:...`.
    pub invitation: String,
    /// The researcher's own public key, `ed25519:...`.
    pub key: String,
    /// Base64: both keys' statement, signed by the invitation's key.
    pub by_invitation: String,
    /// Base64: the same, signed by the researcher's key.
    pub by_key: String,
    /// Whom the researcher works for.
    #[schema(value_type = String)]
    pub organisation: Organisation,
    /// Where: an ISO 3166 code of two letters.
    #[schema(value_type = String)]
    pub country: Country,
}

/// What both keys sign when a researcher joins.
#[must_use]
pub fn researcher_join_message(invitation: &PublicKey, key: &PublicKey) -> Vec<u8> {
    [b"vestibule/researcher/1".as_slice(), &invitation.to_spki(), &key.to_spki()].concat()
}

/// A researcher is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinAnswer {
    /// Under this name.
    pub name: String,
}

/// A site, as it describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Its datasets.
    pub datasets: Vec<Dataset>,
}

/// A dataset, as its site describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// For people.
    pub about: String,
    /// As the site rounded it.
    pub approximate_size: u64,
    /// How many individuals must take part in a round, by a noised count, for the site to release anything of it; 0: any number.
    pub min_cohort: u32,
    /// Digest of its dictionary; see `/v1/documents`.
    pub dictionary: String,
    /// Its catalogues.
    pub catalogues: Vec<Catalogue>,
    /// Data Use Ontology codes.
    pub duo: Vec<String>,
    /// Epsilon of its lifetime cap.
    pub cap_epsilon: f64,
    /// Delta of its lifetime cap.
    pub cap_delta: f64,
}

/// A catalogue of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Catalogue {
    /// Its name.
    pub name: String,
    /// Digest of its file; see `/v1/documents`.
    pub digest: String,
    /// Reference build.
    pub build: String,
    /// How many variants.
    pub variants: u32,
}

/// A site's release of one round, with the proof that it is in the site's log and that log witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// The round, from 0.
    pub round: u32,
    /// The site.
    pub site: String,
    /// The release, as the site wrote it.
    pub release: String,
    /// The log's leaf.
    pub leaf: String,
    /// A tlog-proof of it.
    pub proof: String,
}

/// A component was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stored {
    /// Its digest.
    pub digest: String,
}

/// A job was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Submitted {
    /// Its id.
    pub job: String,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobStatus {
    /// Its id.
    pub job: String,
    /// Its title.
    pub title: String,
    /// `running`, `finished`, `failed` or `cancelled`.
    pub state: String,
    /// Rounds begun.
    pub rounds: u32,
    /// Most rounds, by its plan.
    pub max_rounds: u32,
    /// Seconds since 1970.
    pub submitted: i64,
    /// Epsilon of the whole job, per individual, at each site.
    pub epsilon: f64,
    /// Delta.
    pub delta: f64,
    /// Its sites.
    pub sites: Vec<JobSite>,
    /// Why it ended without a report.
    pub error: Option<ApiError>,
}

/// Some of a person's jobs, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<JobStatus>,
    /// What to ask for as `after`, if there may be more.
    pub next: Option<String>,
}

/// A site's part in a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSite {
    /// Which site.
    pub site: String,
    /// `waiting`, `offered`, `accepted`, `released`, `refused`, `no_release` or `late`, in the current round.
    pub state: String,
    /// Why it is out, if it is.
    pub reason: Option<ApiError>,
}

/// What a finished job ends with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobResult {
    /// How it stands.
    pub status: JobStatus,
    /// The report of the analysis: summary, tables, Vega-Lite charts.
    #[schema(value_type = Object)]
    pub report: vestibule_protocol::report::Report,
}

/// `Name` in a path is text for a schema.
pub(crate) fn text(name: &Name) -> String {
    name.to_string()
}
