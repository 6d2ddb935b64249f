//! Having the log witnessed: no answer leaves before a quorum of other organisations has cosigned the log that it is in.
//!
//! *In*: the log, the trust bundle's policy, a connection to the coordinator, which carries requests to the witnesses that are sites, and their answers back;
//! the others are asked at their own addresses.
//! *Out*: cosigned checkpoints; receipts. *Trusts*: the witnesses' signatures; nothing that the coordinator says. *Refuses*: to go on where a
//! witness shows a checkpoint of this very log that this log does not have: then it was restored from a copy, or cloned, and is frozen. As a witness itself it
//! cosigns nothing before its own log was held against what others have seen, and nothing while it is frozen.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use vestibule_link::{Framed, LinkError};
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::leaf::Event;
use vestibule_protocol::log::note::{self, Verifier};
use vestibule_protocol::log::proof::AddCheckpoint;
use vestibule_protocol::message::{Cosigned, Receipt, Relay};
use vestibule_protocol::name::Name;
use vestibule_protocol::trust::Trust;

use super::direct;
use super::serve::{blocking, since_1970};
use crate::ledger::{LedgerError, SLACK};
use crate::site::Site;
use crate::witness::{Known, NOT_NOW, SKEW, Stance};

/// How long to wait before the log is shown again to witnesses that have not answered.
const SHOW_AGAIN: Duration = Duration::from_millis(500);
/// How long one witness may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A witness is asked again with the size that it showed, so often.
const ATTEMPTS: usize = 3;

/// The proof that leaf `index` is in a checkpoint that a quorum cosigned, from one that was kept or from one that is made now.
pub(super) async fn receipt(site: &Arc<Site>, connection: &quinn::Connection, index: u64) -> Result<Receipt, LinkError> {
    // One at a time: anyone who waited may find that what it needs was cosigned meanwhile.
    let _turn = site.witnessing.lock().await;
    let trust = site.trust().ok_or_else(|| closed(&"there is no trust bundle"))?;
    let log = site.log_verifier().map_err(|error| closed(&error))?;
    let kept = site.ledger.kept().map_err(|error| closed(&error))?;
    let good = |note: &String| {
        trust.policy().check(note, std::slice::from_ref(&log), site.name.as_str()).ok().filter(|found| found.size > index)
    };
    let found = kept.as_ref().and_then(|note| good(note).map(|checkpoint| (checkpoint, note.clone())));
    let (checkpoint, note) = match found {
        Some(found) => found,
        None => cosigned(site, connection, &trust, &log).await?,
    };
    let at = Arc::clone(site);
    let receipt = blocking(move || at.ledger.receipt(index, checkpoint.size, &note)).await?;
    receipt.map_err(|error| closed(&error))
}

/// Holds the log against what the witnesses have seen, as soon as the site is a member, and again until enough of them have said so: before that it
/// cosigns for nobody. Ends where it is shown, or frozen, or the connection is.
pub(super) async fn introduce(site: Arc<Site>, connection: quinn::Connection) -> Result<(), LinkError> {
    while !site.is_frozen() && !site.shown.initialized() {
        if needs_witnesses(&site)
            && site.is_member(since_1970())
            && let Err(error) = ready(&site, &connection).await
        {
            tracing::info!(%error, "the log was not held against what its witnesses have seen yet");
        }
        tokio::select! {
            biased;
            gone = connection.closed() => return Err(LinkError::Closed(gone.to_string())),
            () = tokio::time::sleep(SHOW_AGAIN) => {}
        }
    }
    Ok(())
}

/// Whether the bundle that is believed has anybody cosign.
fn needs_witnesses(site: &Site) -> bool {
    site.trust().is_some_and(|trust| !trust.policy().is_quorum(&HashSet::new()))
}

/// Has the log witnessed once since the daemon started, before anything is charged. There is no error where the site refuses every offer anyway:
/// because that has shown that it is frozen, or for another reason.
pub(super) async fn ready(site: &Arc<Site>, connection: &quinn::Connection) -> Result<(), LinkError> {
    // Where nobody must cosign, nothing was shown to anybody: a later bundle may ask for more.
    if !needs_witnesses(site) || !site.is_member(since_1970()) {
        return Ok(());
    }
    match site.shown.get_or_try_init(|| show(site, connection)).await {
        Err(error) if !site.is_frozen() => Err(error),
        _ => Ok(()),
    }
}

/// Says in the log that it goes on, where nothing else did for so long, and has it witnessed: anyone who watches sees a log that was stopped.
pub(super) async fn heartbeat(site: Arc<Site>, connection: quinn::Connection, silence: Duration) -> Result<(), LinkError> {
    if !site.is_member(since_1970()) {
        return Ok(());
    }
    let at = Arc::clone(&site);
    let beat = blocking(move || {
        let last = at.ledger.time(Duration::ZERO)?;
        let silent = since_1970().checked_sub(last).is_some_and(|time| time >= silence);
        if silent { at.ledger.record(Event::Heartbeat, None, since_1970()).map(|()| true) } else { Ok(false) }
    });
    if !beat.await?.map_err(|error| closed(&error))? {
        return Ok(());
    }
    let _turn = site.witnessing.lock().await;
    let trust = site.trust().ok_or_else(|| closed(&"there is no trust bundle"))?;
    let log = site.log_verifier().map_err(|error| closed(&error))?;
    cosigned(&site, &connection, &trust, &log).await.map(|_| ())
}

/// Shows the log to the witnesses: a quorum of them cosigns it, or says now what it has seen of it, which is in it.
async fn show(site: &Arc<Site>, connection: &quinn::Connection) -> Result<(), LinkError> {
    let _turn = site.witnessing.lock().await;
    let trust = site.trust().ok_or_else(|| closed(&"there is no trust bundle"))?;
    let log = site.log_verifier().map_err(|error| closed(&error))?;
    gather(site, connection, (&trust, &log), Enough::Shown).await.map(|_| ())
}

fn closed(error: &dyn std::fmt::Display) -> LinkError {
    LinkError::Closed(error.to_string())
}

/// A checkpoint of the log as it is now, with a quorum's cosignatures; it is kept.
async fn cosigned(
    site: &Arc<Site>,
    connection: &quinn::Connection,
    trust: &Arc<Trust>,
    log: &Verifier,
) -> Result<(Checkpoint, String), LinkError> {
    let found = gather(site, connection, (trust, log), Enough::Cosigned).await?;
    found.ok_or_else(|| closed(&"the log was not cosigned by a quorum of witnesses"))
}

/// What is asked of the witnesses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enough {
    /// That a quorum cosigns.
    Cosigned,
    /// That a quorum cosigns, or says what it has seen.
    Shown,
}

/// Asks all witnesses until enough have answered. A checkpoint that a quorum cosigned is kept.
async fn gather(
    site: &Arc<Site>,
    connection: &quinn::Connection,
    (trust, log): (&Arc<Trust>, &Verifier),
    enough: Enough,
) -> Result<Option<(Checkpoint, String)>, LinkError> {
    let (checkpoint, mut note) = site.ledger.checkpoint(site.home.log_key()).map_err(|error| closed(&error))?;
    let mut asked = JoinSet::new();
    let (mut agreed, mut times, mut later) = (HashSet::new(), Vec::new(), Vec::new());
    let spawn = |asked: &mut JoinSet<_>, by: By, to: Name, keys: Vec<Verifier>, note: String| {
        let (site, checkpoint, logs) = (Arc::clone(site), checkpoint.clone(), trust.logs(&site.name));
        asked.spawn(async move {
            let asking = ask(&site, &by, to.clone(), (&checkpoint, &note), &logs, &keys);
            let answer = tokio::time::timeout(PATIENCE, asking).await;
            (by, to, keys, answer.unwrap_or_else(|_| Err(Refused::Link("it does not answer".to_owned()))))
        });
    };
    for (name, _) in trust.policy().witnesses() {
        // Names that are no name are those of a site's keys before.
        let Ok(to) = name.parse::<Name>() else { continue };
        let by = match trust.policy().url(name) {
            Some(url) => By::Itself(url.into()),
            None if trust.bundle().sites.iter().any(|site| site.name == to) => By::Coordinator(connection.clone()),
            None => continue,
        };
        let mut keys = trust.policy().of_site(name);
        keys.retain(|verifier| !trust.is_revoked(&verifier.key));
        if to == site.name || keys.is_empty() {
            continue;
        }
        spawn(&mut asked, by, to, keys, note.clone());
    }
    loop {
        if let Ok(checkpoint) = trust.policy().check(&note, std::slice::from_ref(log), site.name.as_str()) {
            let (at, kept, time) = (Arc::clone(site), note.clone(), usual(&mut times));
            let kept = blocking(move || {
                at.ledger.keep(checkpoint.size, &kept)?;
                time.map_or(Ok(()), |time| at.ledger.proven(time.saturating_add(SLACK)))
            });
            kept.await?.map_err(|error| closed(&error))?;
            return Ok(Some((checkpoint, note)));
        }
        if enough == Enough::Shown && trust.policy().is_quorum(&agreed.iter().map(Name::as_str).collect()) {
            let (at, time) = (Arc::clone(site), usual(&mut times));
            let kept = blocking(move || time.map_or(Ok(()), |time| at.ledger.proven(time.saturating_add(SLACK))));
            kept.await?.map_err(|error| closed(&error))?;
            return Ok(None);
        }
        match asked.join_next().await {
            Some(Ok((_, to, _, Ok(Said::Cosigned { line, time })))) => {
                note.push_str(&line);
                times.push(time);
                agreed.insert(to);
                // A witness that has forgotten takes the word of another.
                for (by, to, keys) in std::mem::take(&mut later) {
                    spawn(&mut asked, by, to, keys, note.clone());
                }
            }
            Some(Ok((_, to, _, Ok(Said::Seen { time })))) => {
                times.push(time);
                agreed.insert(to);
            }
            Some(Ok((_, witness, _, Err(Refused::Ahead(shown))))) => {
                site.freeze(&witness, &shown);
                return Err(closed(&"a witness has seen more of this log than there is: the site is frozen"));
            }
            Some(Ok((by, witness, keys, Err(Refused::Later)))) => {
                tracing::info!(%witness, "a witness cannot know yet what it has seen");
                later.push((by, witness, keys));
            }
            Some(Ok((_, witness, _, Err(Refused::Link(why))))) => tracing::info!(%witness, why, "a witness did not cosign"),
            Some(Err(_)) => {}
            None => return Err(closed(&"the log was not cosigned by a quorum of witnesses")),
        }
    }
}

/// What most of them take the time to be: the earlier one in the middle, so that no single clock decides where there are several.
fn usual(times: &mut [u64]) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len().checked_sub(1)? / 2).map(|time| Duration::from_secs(*time))
}

/// What a witness said, and when by its own clock (seconds since 1970).
enum Said {
    /// Its signature line under the checkpoint.
    Cosigned { line: String, time: u64 },
    /// What it has seen of this log is in it; it does not cosign now.
    Seen { time: u64 },
}

enum Refused {
    /// The witness, or the way to it.
    Link(String),
    /// It does not know what it has seen, or its own log is not what others have.
    Later,
    /// It showed a checkpoint of this log, signed by it and by the witness, that this log does not have.
    Ahead(String),
}

impl From<LedgerError> for Refused {
    fn from(error: LedgerError) -> Self {
        Self::Link(error.to_string())
    }
}

/// By which way a witness is asked.
enum By {
    Coordinator(quinn::Connection),
    /// At this address.
    Itself(Arc<str>),
}

impl By {
    async fn carry(&self, to: Name, request: String) -> Result<Cosigned, LinkError> {
        match self {
            Self::Coordinator(connection) => {
                let mut stream = Framed::open(connection).await?;
                stream.send(&Relay { to, request }).await?;
                stream.receive().await
            }
            Self::Itself(url) => {
                let url = Arc::clone(url);
                let answer = blocking(move || direct::add_checkpoint(&url, &request)).await?;
                answer.map_err(LinkError::Closed)
            }
        }
    }
}

/// Asks one witness about the checkpoint.
async fn ask(
    site: &Arc<Site>,
    by: &By,
    to: Name,
    (checkpoint, note): (&Checkpoint, &str),
    logs: &[Verifier],
    witness: &[Verifier],
) -> Result<Said, Refused> {
    let mut old = site.ledger.seen_by(to.as_str(), None)?;
    let known = [logs, witness].concat();
    for _ in 0..ATTEMPTS {
        let hashes = site.ledger.consistency(old.min(checkpoint.size), checkpoint.size)?;
        let request = AddCheckpoint { old: old.min(checkpoint.size), hashes, checkpoint: note.to_owned() }.text();
        let answer = by.carry(to.clone(), request).await.map_err(|error| Refused::Link(error.to_string()))?;
        if answer.status == 200 {
            let whole = format!("{note}{}", answer.body);
            let by = note::open(&whole, &known).map(|(_, by)| by).unwrap_or_default();
            let Some(by) = by.into_iter().find(|by| witness.contains(by.verifier)) else {
                return Err(Refused::Link("its cosignature does not hold".to_owned()));
            };
            site.ledger.seen_by(to.as_str(), Some(checkpoint.size))?;
            return Ok(Said::Cosigned { line: answer.body, time: by.time });
        }
        if answer.status == NOT_NOW {
            return seen(site, &answer.body, (&checkpoint.origin, logs), witness);
        }
        // It shows what it cosigned last. Only what this log and the witness signed counts: the coordinator could say anything.
        let shown = note::open(&answer.body, &known)
            .ok()
            .filter(|(_, by)| [logs, witness].iter().all(|keys| by.iter().any(|by| keys.contains(by.verifier))));
        let shown = shown.and_then(|(text, _)| Checkpoint::parse(text));
        let Some(shown) = shown else {
            // One that shows no checkpoint says how large the last one was: nobody else can have told it of a larger log, but it proves nothing.
            let size = if answer.body.is_empty() { Some(0) } else { answer.body.trim_end().parse::<u64>().ok() };
            match size.filter(|_| answer.status == 409) {
                Some(size) if size > checkpoint.size => {
                    let have = checkpoint.size;
                    let why =
                        format!("it has cosigned {size} leaves, where there are {have}: was this site restored from a copy?");
                    return Err(Refused::Link(why));
                }
                // Also 0: it lost its memory, or it is new.
                Some(size) if size != old => {
                    old = size;
                    continue;
                }
                _ => {}
            }
            return Err(Refused::Link(format!("it answered {}", answer.status)));
        };
        if site.ledger.root_at(shown.size)? != Some(shown.root) {
            return Err(Refused::Ahead(answer.body));
        }
        if shown.size > checkpoint.size {
            return Err(Refused::Link("it has cosigned a later checkpoint meanwhile".to_owned()));
        }
        old = shown.size;
    }
    Err(Refused::Link("it answers for other sizes again and again".to_owned()))
}

/// What a witness says that it has seen of this log, now, where it does not cosign.
fn seen(site: &Site, body: &str, (origin, logs): (&str, &[Verifier]), witness: &[Verifier]) -> Result<Said, Refused> {
    if body.is_empty() {
        return Err(Refused::Later);
    }
    let wrong = || Refused::Link("what it says that it has seen is not signed by it, now".to_owned());
    let known = [logs, witness].concat();
    let (text, by) = note::open(body, &known).map_err(|_| wrong())?;
    // An older word could be another's to repeat.
    let now = since_1970().as_secs();
    let fresh = by.iter().find(|by| witness.contains(by.verifier) && by.time.abs_diff(now) <= SKEW);
    let (Some(fresh), Some(shown)) = (fresh, Checkpoint::parse(text)) else { return Err(wrong()) };
    let signed = shown.size == 0 || by.iter().any(|by| logs.contains(by.verifier));
    if !signed || shown.origin != origin {
        return Err(wrong());
    }
    if shown.size > 0 && site.ledger.root_at(shown.size)? != Some(shown.root) {
        return Err(Refused::Ahead(body.to_owned()));
    }
    Ok(Said::Seen { time: fresh.time })
}

/// Answers another site's request, as a witness.
pub(super) fn witness(site: &Site, request: &str) -> Option<Cosigned> {
    let trust = site.trust()?;
    let known = |origin: &str| match trust.site(&site.name) {
        Some(own) if own.log_origin == origin => Known::default(),
        _ => Known::of(&trust, origin, &site.witness.key()),
    };
    let stance = match site.shown.initialized() {
        _ if site.is_frozen() => Stance::Silent,
        true => Stance::Cosigns,
        false => Stance::Remembers,
    };
    site.witness
        .add(request, known, stance, since_1970().as_secs())
        .map_err(|error| tracing::error!(%error, "a checkpoint could not be kept"))
        .ok()
}
