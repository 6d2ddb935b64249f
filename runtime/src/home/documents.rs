//! What others signed, or said, that the folder keeps: the trust bundle, whom to dial, rules, charters; and why the site is frozen.
//!
//! *In*: documents whose signatures were looked at, each whole. *Out*: the same, read anew each time. *Refuses*: files that are none of them.

use serde::{Deserialize, Serialize};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::{Trust, TrustError};

use super::{COORDINATOR, FROZEN, Home, HomeError, TRUST, replace};
use crate::charter::{Accepted, Terms};
use crate::costs::{self, Costs, Known};

/// What was measured of this machine.
const SLOWEST: &str = "slowest.json";
/// Tests of sites set this for their daemons.
const ASSUME: &str = "VESTIBULE_ASSUME_COSTS";

/// Whom a site dials, from its invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinator {
    /// The name under which this site is registered.
    pub site: Name,
    /// `host:port` of the QUIC listener.
    pub quic: String,
    /// `host:port` where it takes QUIC inside of TLS, if it does: for networks that let no UDP out.
    pub tunnel: Option<String>,
    /// The coordinator's key: no other is accepted.
    pub key: PublicKey,
    /// The fingerprint of the consortium's roots: no other trust bundle is believed.
    pub consortium: Digest,
}

impl Home {
    /// The trust bundle that is believed, if one came yet.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn trust(&self) -> Result<Option<Trust>, HomeError> {
        let path = self.path.join(TRUST);
        match self.dir.read(TRUST) {
            Ok(envelope) => {
                let wrong = |error: TrustError| HomeError::Settings { path, why: error.to_string() };
                Ok(Some(Trust::stored(&envelope).map_err(wrong)?.without(self.settings.distrust.clone())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path, source }),
        }
    }

    /// Keeps a bundle that is believed.
    pub(crate) fn set_trust(&self, envelope: &[u8]) -> Result<(), HomeError> {
        replace(&self.dir, TRUST, envelope).map_err(|source| HomeError::Io { path: self.path.join(TRUST), source })
    }

    /// What a witness showed that this log does not have, where the site is frozen.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn frozen(&self) -> Result<Option<String>, HomeError> {
        match self.dir.read_to_string(FROZEN) {
            Ok(shown) => Ok(Some(shown)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path: self.path.join(FROZEN), source }),
        }
    }

    /// How slow this machine is: by `slowest.json` if that is of this machine, or measured now.
    pub(crate) fn costs<E: From<HomeError>>(&self, measure: impl FnOnce() -> Result<Costs, E>) -> Result<Costs, E> {
        let io = |source| HomeError::Io { path: self.path.join(SLOWEST), source };
        if self.settings.slowest.assume_for_tests {
            if std::env::var_os(ASSUME).is_none() {
                let why = format!(
                    "`[slowest]`: with `assume_for_tests` the moments of releases tell of people; it is for tests of sites, which set \
                     {ASSUME}: leave it out"
                );
                return Err(HomeError::Settings { path: self.path.join("site.toml"), why }.into());
            }
            tracing::warn!("the moments of this site's releases tell of people: `[slowest]` says `assume_for_tests`");
        }
        let program = Digest::of(&std::fs::read("/proc/self/exe").map_err(io)?).hex();
        let machine = costs::machine(&program, self.settings.max_memory_mib).map_err(io)?;
        self.settings.slowest.over(|| {
            // A file that cannot be read, or is another machine's, is written anew.
            if let Some(known) = self.dir.read(SLOWEST).ok().and_then(|bytes| Known::read(&bytes, &machine)) {
                return Ok(known);
            }
            let costs = measure()?;
            let bytes = serde_json::to_vec_pretty(&Known::new(machine, costs)).map_err(|error| io(error.into()))?;
            self.dir.write(SLOWEST, bytes).map_err(io)?;
            tracing::info!("measured how slow this machine is at its slowest: see slowest.json");
            Ok(costs)
        })
    }

    /// No longer frozen: what the witness showed is kept under another name.
    pub(crate) fn thaw(&self) -> Result<(), HomeError> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let io = |source| HomeError::Io { path: self.path.join(FROZEN), source };
        self.dir.rename(FROZEN, &self.dir, format!("recovered-{now}.note")).map_err(io)
    }

    pub(crate) fn freeze(&self, shown: &str) -> Result<(), HomeError> {
        replace(&self.dir, FROZEN, shown.as_bytes()).map_err(|source| HomeError::Io { path: self.path.join(FROZEN), source })
    }

    /// Whom to dial.
    ///
    /// # Errors
    /// The site has not joined.
    pub fn coordinator(&self) -> Result<Coordinator, HomeError> {
        if !self.dir.exists(COORDINATOR) {
            return Err(HomeError::NotJoined(self.path.clone()));
        }
        let path = self.path.join(COORDINATOR);
        let text = self.dir.read(COORDINATOR).map_err(|source| HomeError::Io { path: path.clone(), source })?;
        serde_json::from_slice(&text).map_err(|error| HomeError::Settings { path, why: error.to_string() })
    }

    /// Remembers whom to dial.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_coordinator(&self, coordinator: &Coordinator) -> Result<(), HomeError> {
        let text = serde_json::to_vec_pretty(coordinator).expect("names, an address and a key are always JSON");
        replace(&self.dir, COORDINATOR, &text).map_err(|source| HomeError::Io { path: self.path.join(COORDINATOR), source })
    }

    /// A policy that was set, as it was signed.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn policy(&self, digest: Digest) -> Result<Vec<u8>, HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        self.dir.read(&file).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }

    /// Keeps a policy that is set.
    pub(crate) fn keep_policy(&self, digest: Digest, envelope: &[u8]) -> Result<(), HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        replace(&self.dir, &file, envelope).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }

    /// Takes part in a project from now on, under terms of its own.
    ///
    /// # Errors
    /// It is not a charter; the file cannot be written.
    pub fn accept(&self, envelope: &[u8], terms: Terms) -> Result<Accepted, HomeError> {
        let accepted = Accepted::new(envelope, terms)?;
        let stem = accepted.signed().digest().hex();
        let terms = serde_json::to_vec_pretty(accepted.terms()).expect("names and numbers are always JSON");
        for (file, bytes) in
            [(format!("charters/{stem}.terms.json"), terms.as_slice()), (format!("charters/{stem}.json"), envelope)]
        {
            replace(&self.dir, &file, bytes).map_err(|source| HomeError::Io { path: self.path.join(&file), source })?;
        }
        Ok(accepted)
    }

    /// No longer takes part in a project.
    ///
    /// # Errors
    /// It did not; the file cannot be removed.
    pub fn leave(&self, charter: Digest) -> Result<(), HomeError> {
        let (file, left) = (format!("charters/{}.json", charter.hex()), format!("charters/{}.left.json", charter.hex()));
        // It stays, for reports on what was done under it.
        self.dir.rename(&file, &self.dir, &left).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => HomeError::Unknown(charter),
            _ => HomeError::Io { path: self.path.join(&file), source },
        })
    }

    /// The charters that this site has accepted, by project. Read anew each time, so that a withdrawal holds at once.
    ///
    /// # Errors
    /// The folder or a file in it cannot be read.
    pub fn charters(&self) -> Result<Vec<Accepted>, HomeError> {
        let folder = self.path.join("charters");
        let io = |source| HomeError::Io { path: folder.clone(), source };
        let mut found = Vec::new();
        for entry in self.dir.read_dir("charters").map_err(io)? {
            let file = entry.map_err(io)?.file_name();
            let stem = file.to_str().and_then(|file| file.strip_suffix(".json")).filter(|stem| !stem.contains('.'));
            let Some(stem) = stem else { continue };
            let path = |suffix: &str| format!("charters/{stem}{suffix}");
            let terms = self.dir.read(path(".terms.json")).map_err(io)?;
            let terms = serde_json::from_slice(&terms)
                .map_err(|error| HomeError::Settings { path: self.path.join(path(".terms.json")), why: error.to_string() })?;
            found.push(Accepted::new(&self.dir.read(path(".json")).map_err(io)?, terms)?);
        }
        found.sort_by(|one, other| one.signed().charter().project.cmp(&other.signed().charter().project));
        Ok(found)
    }
}
