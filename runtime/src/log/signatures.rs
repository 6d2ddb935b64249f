//! The signed documents that a log speaks of: whether they are there, are what its leaves name, and were signed by those who had to.
//!
//! *In*: a site's folder or a copy of it, its ledger at one moment, what its leaves replay to, the consortium's fingerprint and trust bundle where they are known. *Out*: what
//! is wrong, each with its place. *Trusts*: nothing in the folder. A document whose signer the bundle no longer names is told; one that was erased, as the settings say, is
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
use crate::home::{bundle_file, charter_file, terms_file};
use crate::policy::rules::Rules;
use crate::policy::signed;

/// Looks at every document that the log of the site in `dir` names. `pinned`: the fingerprint of the consortium's roots, where it is known. `whose`: the
/// bundle, and the site's name in it.
///
/// # Errors
/// There is no ledger that could be read.
pub fn signatures(
    (dir, source): (&Path, &Source),
    replay: &Replay,
    pinned: Option<Digest>,
    whose: Option<(&Trust, &Name)>,
) -> Result<Vec<Found>, LogCheckError> {
    let error = |why: rusqlite::Error| source.error(why);
    let connection = source.open()?;
    let mut check = Check { dir, found: vec![] };
    check.bundles(replay, pinned);
    check.policies(replay, whose.map(|(_, site)| site));
    for line in read(source, None)? {
        check.charter(&line);
        if let Some((trust, _)) = whose {
            check.manifest(&line, &keys(trust));
        }
    }
    if let Some((trust, _)) = whose {
        check.reviews(connection, &keys(trust)).map_err(error)?;
    }
    Ok(check.found)
}

/// The bundle that a site believed last, from its folder or a copy of it: as it follows, over all that its log names, from the `pinned` roots.
///
/// # Errors
/// There is no ledger that could be read; in it, why the bundle is not to be believed.
pub fn believed(dir: &Path, source: &Source, pinned: Digest) -> Result<Result<Option<Trust>, Found>, LogCheckError> {
    let connection = source.open()?;
    let named = || -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare("SELECT sha256 FROM trust ORDER BY leaf")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    let named = named().map_err(|why| source.error(why))?;
    let bundles: Vec<Digest> = named.iter().filter_map(|digest| digest.parse().ok()).collect();
    Ok(follow(dir, &bundles, pinned))
}

/// Bundles one after the other, from the pinned roots on.
fn follow(dir: &Path, bundles: &[Digest], pinned: Digest) -> Result<Option<Trust>, Found> {
    let mut last: Option<Trust> = None;
    for bundle in bundles {
        let wrong = |why: String| Found { place: format!("trust bundle {bundle}"), why };
        let missing = "the log says that it was believed, and it is not in the folder `trust`";
        let envelope = std::fs::read(dir.join(bundle_file(*bundle))).map_err(|_| wrong(missing.to_owned()))?;
        let next = match &last {
            Some(last) => last.next(&envelope),
            None => Trust::first(&envelope, pinned),
        };
        let next = next.map_err(|error| wrong(error.to_string()))?;
        if next.digest() != *bundle {
            return Err(wrong("it is another than the log says".to_owned()));
        }
        last = Some(next);
    }
    Ok(last)
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

    /// Each trust bundle follows from the pinned roots.
    fn bundles(&mut self, replay: &Replay, pinned: Option<Digest>) {
        let Some(pinned) = pinned else { return };
        let bundles: Vec<Digest> = replay.bundles.iter().map(|(.., bundle)| *bundle).collect();
        self.found.extend(follow(self.dir, &bundles, pinned).err());
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

    /// A charter that was accepted is here, signed by its lead, with the terms under which it was.
    fn charter(&mut self, line: &Line) {
        let Event::Charter { charter, terms, accepted: true, .. } = &line.leaf.event else { return };
        let place = format!("charter {charter}");
        let read = |file: String| std::fs::read(self.dir.join(file)).ok();
        let own = read(terms_file(*charter, *terms)).map(|own| Digest::of(&own) == *terms);
        match read(charter_file(*charter)).map(|envelope| SignedCharter::verify(&envelope)) {
            None => self.wrong(place, "the log says that it was accepted, and it is not in the folder `charters`"),
            Some(Ok(signed)) if signed.digest() != *charter => self.wrong(place, "it is another than the log says"),
            Some(Ok(_)) if own != Some(true) => {
                self.wrong(place, "the site's own terms are not in the folder `charters` as the log says");
            }
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
