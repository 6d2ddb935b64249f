//! What others signed and this site believes: whom it dials, the trust bundles, the charters with its own terms.
//!
//! *In*: documents that were verified, and their moment. *Out*: the same, verified again each time: by the pinned roots, by
//! their signers, and as the log names them. *Trusts*: the ledger's rows, the site's data key. *Refuses*: files that the log does not
//! name, or that are others than it names; a coordinator or a consortium that nobody joined here.

use std::time::Duration;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use vestibule_protocol::digest::{Digest, hex, unhex};
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::Trust;

use super::keys::derived;
use super::{COORDINATOR, Home, HomeError, replace};
use crate::charter::{Accepted, Terms};
use crate::ledger::SLACK;

/// What the seal over the pinned keys is derived for.
const PIN_LABEL: &[u8] = b"vestibule/site/pin/1";
/// The field of `coordinator.json` that holds the seal.
const SEAL: &str = "seal";

/// Whom a site dials, from its invitation. Addresses may be changed by hand; the name and the keys are sealed.
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

impl Coordinator {
    /// What `coordinator.json` says. Whether its seal holds takes the site's keys.
    ///
    /// # Errors
    /// What serde says of it.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        split(json).map(|(coordinator, _)| coordinator)
    }

    fn pinned(&self) -> String {
        format!("{}\n{}\n{}\n", self.site, self.key, self.consortium)
    }
}

/// The document, and its seal if it has one.
fn split(json: &[u8]) -> Result<(Coordinator, Option<[u8; 32]>), String> {
    let mut fields: Map<String, Value> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let seal = fields.remove(SEAL).and_then(|seal| unhex(seal.as_str()?));
    let coordinator = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
    Ok((coordinator, seal))
}

/// Where the bundle lies that the log names.
pub(crate) fn bundle_file(bundle: Digest) -> String {
    format!("trust/{}.json", bundle.hex())
}

/// Where a charter lies.
pub(crate) fn charter_file(charter: Digest) -> String {
    format!("charters/{}.json", charter.hex())
}

/// Where the site's own terms under a charter lie.
pub(crate) fn terms_file(charter: Digest, terms: Digest) -> String {
    format!("charters/{}.{}.terms.json", charter.hex(), terms.hex())
}

/// The latest that it can be when a bundle was just issued; where nobody cosigns, and says later what time it is, all the time that it is believed.
fn latest(trust: &Trust) -> Duration {
    let (issued, expires) = trust.dates();
    let seconds = |at: i64| Duration::from_secs(at.max(0).unsigned_abs());
    if trust.policy().is_quorum(&std::collections::HashSet::new()) {
        seconds(expires)
    } else {
        seconds(issued).saturating_add(SLACK)
    }
}

impl Home {
    fn pin_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, derived(&self.data_key, PIN_LABEL).as_slice())
    }

    /// Whom to dial.
    ///
    /// # Errors
    /// The site has not joined; its name or one of the pinned keys is not the one that it joined with.
    pub fn coordinator(&self) -> Result<Coordinator, HomeError> {
        if !self.dir.exists(COORDINATOR) {
            return Err(HomeError::NotJoined(self.path.clone()));
        }
        let path = self.path.join(COORDINATOR);
        let text = self.dir.read(COORDINATOR).map_err(|source| HomeError::Io { path: path.clone(), source })?;
        let (found, seal) = split(&text).map_err(|why| HomeError::Settings { path: path.clone(), why })?;
        let holds = seal.is_some_and(|seal| hmac::verify(&self.pin_key(), found.pinned().as_bytes(), &seal).is_ok());
        if holds { Ok(found) } else { Err(HomeError::Pin(path)) }
    }

    /// Remembers whom to dial.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_coordinator(&self, coordinator: &Coordinator) -> Result<(), HomeError> {
        let fields = serde_json::to_value(coordinator).expect("names, an address and a key are always JSON");
        let Value::Object(mut fields) = fields else { unreachable!("a struct with names is an object") };
        let seal = hmac::sign(&self.pin_key(), coordinator.pinned().as_bytes());
        fields.insert(SEAL.to_owned(), hex(seal.as_ref()).into());
        let text = serde_json::to_vec_pretty(&fields).expect("a value is always JSON");
        replace(&self.dir, COORDINATOR, &text).map_err(|source| HomeError::Io { path: self.path.join(COORDINATOR), source })
    }

    /// A file that the log names, if it is the one that it names.
    fn document(&self, file: &str, is: impl FnOnce(&[u8]) -> bool) -> Result<Vec<u8>, HomeError> {
        let path = self.path.join(file);
        let bytes = self.dir.read(file).map_err(|source| HomeError::Io { path: path.clone(), source })?;
        if is(&bytes) { Ok(bytes) } else { Err(HomeError::Differs(path)) }
    }

    /// The trust bundle that is believed, if one came yet: the last one that the log names, as it follows from the pinned roots.
    ///
    /// # Errors
    /// The file of a bundle cannot be read, or is not what the log names; too few of the roots signed one.
    pub fn trust(&self) -> Result<Option<Trust>, HomeError> {
        let bundles = self.ledger()?.bundles()?;
        let Some(last) = bundles.last() else { return Ok(None) };
        let pinned = self.coordinator()?.consortium;
        let read = |bundle: &Digest| self.document(&bundle_file(*bundle), |_| true);
        let envelopes = bundles.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let path = self.path.join(bundle_file(*last));
        let trust = Trust::chain(&envelopes, pinned).map_err(|source| HomeError::Trust { path: path.clone(), source })?;
        match trust {
            Some(trust) if trust.digest() == *last => Ok(Some(trust.without(self.settings.distrust.clone()))),
            _ => Err(HomeError::Differs(path)),
        }
    }

    /// Keeps a bundle that is believed from now on, and says so in the log.
    pub(crate) fn believe(&self, envelope: &[u8], new: &Trust, since: Duration) -> Result<(), HomeError> {
        // The file first: it counts once the log names it.
        let file = bundle_file(new.digest());
        replace(&self.dir, &file, envelope).map_err(|source| HomeError::Io { path: self.path.join(&file), source })?;
        self.ledger()?.proven(latest(new))?;
        Ok(self.ledger()?.believe(new.bundle().version, new.digest(), since)?)
    }

    /// Takes part in a project from now on, under terms of its own, and says so in the log.
    ///
    /// # Errors
    /// It is not a charter; a file or the ledger cannot be written.
    pub fn accept(&self, envelope: &[u8], terms: Terms, since: Duration) -> Result<Accepted, HomeError> {
        let accepted = Accepted::new(envelope, terms)?;
        let charter = accepted.signed().digest();
        let bytes = serde_json::to_vec_pretty(accepted.terms()).expect("names and numbers are always JSON");
        let terms = Digest::of(&bytes);
        for (file, bytes) in [(terms_file(charter, terms), bytes.as_slice()), (charter_file(charter), envelope)] {
            replace(&self.dir, &file, bytes).map_err(|source| HomeError::Io { path: self.path.join(&file), source })?;
        }
        let details = serde_json::json!(accepted.terms());
        let project = &accepted.signed().charter().project;
        self.ledger()?.take_part((charter, project), (terms, &details), since)?;
        Ok(accepted)
    }

    /// No longer takes part in a project. Its files stay, for reports on what was done under it.
    ///
    /// # Errors
    /// It did not; the ledger cannot be written.
    pub fn leave(&self, charter: Digest, since: Duration) -> Result<(), HomeError> {
        let known = self.charters()?.into_iter().find(|accepted| accepted.signed().digest() == charter);
        let known = known.ok_or(HomeError::Unknown(charter))?;
        match self.ledger()?.leave(charter, &known.signed().charter().project, since)? {
            true => Ok(()),
            false => Err(HomeError::Unknown(charter)),
        }
    }

    /// The charters under which this site takes part, by project: those that the log names, with the terms that it names. Read anew each
    /// time, so that a withdrawal holds at once.
    ///
    /// # Errors
    /// A file cannot be read, or is not what the log names.
    pub fn charters(&self) -> Result<Vec<Accepted>, HomeError> {
        let mut found = Vec::new();
        for (charter, terms) in self.ledger()?.charters()? {
            let (file, of_terms) = (charter_file(charter), terms_file(charter, terms));
            let own = self.document(&of_terms, |bytes| Digest::of(bytes) == terms)?;
            let own = serde_json::from_slice(&own)
                .map_err(|error| HomeError::Settings { path: self.path.join(&of_terms), why: error.to_string() })?;
            let accepted = Accepted::new(&self.document(&file, |_| true)?, own)?;
            if accepted.signed().digest() != charter {
                return Err(HomeError::Differs(self.path.join(file)));
            }
            found.push(accepted);
        }
        found.sort_by(|one, other| one.signed().charter().project.cmp(&other.signed().charter().project));
        Ok(found)
    }
}
