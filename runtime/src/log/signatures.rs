//! The signed documents that a log speaks of: whether they are there, are what its leaves name, and were signed by those who had to.
//!
//! *In*: a site's folder or a copy of it, what opens its sealed records where that is known, what its leaves replay to, the consortium's trust bundle where it is known. *Out*: what is wrong, each with its
//! place. *Trusts*: nothing in the folder. A document whose signer the bundle no longer names is told; one that was erased, as the settings say, is
//! not missed.

use std::path::Path;

use rusqlite::Connection;
use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::log::replay::Replay;
use vestibule_protocol::manifest::{MANIFEST_TYPE, Signed};
use vestibule_protocol::name::Name;
use vestibule_protocol::review::Review;
use vestibule_protocol::trust::Trust;

use super::verify::{Found, LogCheckError};
use super::{Line, Source, read};
use crate::home::LEDGER;
use crate::ledger::Seal;
use crate::policy::rules::Rules;
use crate::policy::signed;

/// Looks at every document that the log of the site in `dir` names. `whose`: the bundle, and the site's name in it.
///
/// # Errors
/// There is no ledger that could be read.
pub fn signatures(
    (dir, seal): (&Path, Option<Seal>),
    replay: &Replay,
    whose: Option<(&Trust, &Name)>,
) -> Result<Vec<Found>, LogCheckError> {
    let source = Source::new(dir.join(LEDGER), seal);
    let error = |why: rusqlite::Error| source.error(why);
    let connection = source.open()?;
    let mut check = Check { dir, found: vec![] };
    check.policies(replay, whose.map(|(_, site)| site));
    for line in read(&source, None)? {
        check.charter(&line);
        if let Some((trust, _)) = whose {
            check.manifest(&line, &keys(trust));
        }
    }
    if let Some((trust, _)) = whose {
        check.reviews(&connection, &keys(trust)).map_err(error)?;
    }
    Ok(check.found)
}

/// Everybody's keys, former and revoked ones among them: what they signed then, they signed.
fn keys(trust: &Trust) -> Vec<PublicKey> {
    trust.bundle().persons.iter().flat_map(|person| person.former.iter().copied().chain([person.key])).collect()
}

struct Check<'a> {
    dir: &'a Path,
    found: Vec<Found>,
}

impl Check<'_> {
    fn wrong(&mut self, place: String, why: impl Into<String>) {
        self.found.push(Found { place, why: why.into() });
    }

    /// Each policy is signed by its own officers and by those of the one before.
    fn policies(&mut self, replay: &Replay, site: Option<&Name>) {
        let mut before: Option<Rules> = None;
        for (version, digest) in &replay.policies {
            let place = format!("policy {version}");
            let Ok(envelope) = std::fs::read(self.dir.join("policies").join(format!("{}.json", digest.hex()))) else {
                self.wrong(place, "the log says that it was set, and it is not in the folder `policies`");
                before = None;
                continue;
            };
            let rules = match &before {
                Some(before) => signed::next(before, &envelope),
                None => signed::stored(&envelope),
            };
            match rules {
                Ok(rules) if rules.digest() != *digest => self.wrong(place, "it is another than the log says"),
                Ok(rules) if site.is_some_and(|site| rules.document().site != *site) => {
                    self.wrong(place, "it is another site's")
                }
                Ok(rules) => before = Some(rules),
                Err(error) => self.wrong(place, error.to_string()),
            }
        }
    }

    /// A charter that was accepted is here, signed by its lead.
    fn charter(&mut self, line: &Line) {
        let Event::Charter { charter, accepted: true, .. } = &line.leaf.event else { return };
        let place = format!("charter {charter}");
        let files = [".json", ".left.json"].map(|suffix| self.dir.join("charters").join(format!("{}{suffix}", charter.hex())));
        match files.iter().find_map(|file| std::fs::read(file).ok()).map(|envelope| SignedCharter::verify(&envelope)) {
            None => self.wrong(place, "the log says that it was accepted, and it is not in the folder `charters`"),
            Some(Ok(signed)) if signed.digest() != *charter => self.wrong(place, "it is another than the log says"),
            Some(Ok(_)) => {}
            Some(Err(error)) => self.wrong(place, error.to_string()),
        }
    }

    /// A job's terms, unless they were erased, are those that its leaf names, signed by a person whom the bundle names.
    fn manifest(&mut self, line: &Line, keys: &[PublicKey]) {
        let Event::Job { job, manifest, .. } = &line.leaf.event else { return };
        let Some(terms) = line.details.as_ref().and_then(|details| details.get("manifest")?.as_str()) else { return };
        let place = format!("manifest of job {job}");
        let payload = dsse::payload(terms.as_bytes(), MANIFEST_TYPE);
        if payload.is_ok_and(|payload| Digest::of(&payload) != *manifest) {
            self.wrong(place, "it is another than the log says");
        } else if let Err(error) = Signed::verify(terms.as_bytes(), keys) {
            self.wrong(place, error.to_string());
        }
    }

    /// What people decided they signed, as it stands in the log.
    fn reviews(&mut self, connection: &Connection, keys: &[PublicKey]) -> rusqlite::Result<()> {
        let mut statement = connection
            .prepare("SELECT leaf, subject, approved, unseal('review', leaf, envelope) FROM review WHERE length(envelope) > 0 ORDER BY number")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (leaf, subject, approved): (i64, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let place = format!("decision of leaf {leaf}");
            // `verify` tells of what does not open.
            let Some(envelope) = row.get::<_, Option<Vec<u8>>>(3)? else { continue };
            match Review::verify(&envelope, keys) {
                Ok((review, _)) => {
                    if serde_json::to_string(&review.subject).ok() != Some(subject) || review.approved != approved {
                        self.wrong(place, "what was signed is another decision");
                    }
                }
                Err(error) => self.wrong(place, error.to_string()),
            }
        }
        Ok(())
    }
}
