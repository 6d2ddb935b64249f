//! What a researcher believes of a consortium: the coordinator's key and the roots' fingerprint that were pinned when they joined, and the
//! newest bundle since.
//!
//! *In*: a key's file, beside which they lie; a bundle that the coordinator delivers; receipts. *Out*: [`Trust`]; whether each release of a job is
//! in its site's witnessed log. *Refuses*: bundles that do not follow from what was believed before; a release without proof.

use std::path::{Path, PathBuf};

use anyhow::Result;
use vestibule_coordinator::api::types::Receipt;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::{KeyError, PublicKey};
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::trust::{Trust, TrustError};

use crate::client::Client;
use crate::failure::{Exit, Failure, coded};
use crate::files::{now, read, read_bytes, write};

fn beside(key: &Path, suffix: &str) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Pins the coordinator's key and the fingerprint of the consortium's roots.
pub(crate) fn pin(key: &Path, coordinator: &PublicKey, consortium: Digest) -> Result<()> {
    write(&beside(key, ".coordinator"), format!("{coordinator}\n"))?;
    write(&beside(key, ".consortium"), format!("{consortium}\n"))
}

/// The key of the coordinator that a person joined: calls are signed for it alone.
pub(crate) fn coordinator(key: &Path) -> Result<PublicKey> {
    let path = beside(key, ".coordinator");
    let unpinned = |why: &dyn std::fmt::Display| {
        let text = format!(
            "{}: {why}: it holds the key of the coordinator that you joined with this key (`vestibule researcher join TOKEN --key KEY`), \
             and is made beside it then: join first, or copy it from where you did",
            path.display()
        );
        Failure::input("coordinator-unpinned", text)
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unpinned(&error))?;
    text.trim().parse().map_err(|error: KeyError| unpinned(&error))
}

/// What was believed with a former key is believed with the one that takes its place.
pub(crate) fn carry_over(former: &Path, new: &Path) -> Result<()> {
    for suffix in [".coordinator", ".consortium", ".trust.json"] {
        let from = beside(former, suffix);
        if from.exists() {
            write(&beside(new, suffix), read_bytes(&from)?)?;
        }
    }
    Ok(())
}

/// The newest bundle, if it is to be believed after the last; it is kept.
pub(crate) fn newest(client: &Client, key: &Path) -> Result<Trust> {
    let kept = beside(key, ".trust.json");
    let failed = |error: TrustError| coded(error.code(), error);
    let envelope = client.trust()?;
    let trust = if kept.exists() {
        Trust::stored(&read_bytes(&kept)?).map_err(failed)?.next(&envelope).map_err(failed)?
    } else {
        let pinned = read(&beside(key, ".consortium"))?;
        let pinned = pinned.trim().parse().map_err(|error| Failure::input("trust-fingerprint", error))?;
        Trust::first(&envelope, pinned).map_err(failed)?
    };
    write(&kept, envelope)?;
    if !trust.is_current(now()) {
        let why = format!("the consortium's trust bundle expired {}: its roots must sign a new one", trust.bundle().expires);
        return Err(Failure::of(Exit::Refused, "trust-expired", why));
    }
    Ok(trust)
}

/// Whether every release of a job is in its site's log, and that log witnessed.
pub(crate) fn proven(trust: &Trust, job: &str, receipts: &[Receipt]) -> Result<()> {
    let job = job.parse().map_err(|error| Failure::input("job-id", error))?;
    for receipt in receipts {
        let wrong = |code: &str, why: &dyn std::fmt::Display| {
            let text = format!("the release of {} in round {} is not proven: {why}", receipt.site, receipt.round);
            Failure::of(Exit::Refused, code, text)
        };
        let site = receipt.site.parse().map_err(|error| wrong("proof-malformed", &error))?;
        let event = Event::Settled { job, round: receipt.round, release: Digest::of(receipt.release.as_bytes()) };
        trust.proven(&site, &event, &receipt.leaf, &receipt.proof).map_err(|error| wrong(error.code(), &error))?;
    }
    Ok(())
}
