//! One round, as it is asked of every site that is still in its job.
//!
//! *In*: a round. *Out*: its sites' states and proven releases, in the store. *Trusts*: the store.
//! *Refuses*: releases that do not answer what was asked, or are in no witnessed log. A site's time for
//! the round runs while it is away, and from the moment at which it is asked; not while others' jobs
//! are before this one. What waits for a person there has no place, and is asked again when the site
//! says that somebody has decided.

use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinSet;
use vestibule_link::{Framed, LinkError};
use vestibule_protocol::calibration::Calibrated;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::log::leaf::Event as Logged;
use vestibule_protocol::log::policy::NotProven;
use vestibule_protocol::manifest::Manifest;
use vestibule_protocol::message::{Answer, CHUNK_BYTES, Chunk, Offer, Receipt};
use vestibule_protocol::name::Name;
use vestibule_protocol::release::Release;
use vestibule_protocol::round::Round;

use crate::failed::{Failed, failed};
use crate::intake::Ready;
use crate::link::Decision;
use crate::patience::{Over, Patience};
use crate::round::{Event, SiteState, Verdict, verdict};
use crate::run::now;
use crate::shared::Shared;

/// A round that waits for a person is offered again so often, also where nothing was heard.
const HELD_AGAIN: Duration = Duration::from_secs(300);
/// Pauses before a site is asked again whose link broke.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Asks all sites that are still in, until those have answered that the round needs.
pub(crate) async fn answers(ask: &Arc<Ask>, min_sites: u32) -> Result<(), Failed> {
    let (shared, job) = (&ask.shared, ask.manifest().job);
    let sites = || shared.stored(move |at| at.store.job_sites(job));
    let untouched = sites().await?.iter().all(|site| site.state == SiteState::Waiting);
    if ask.index == 0 && untouched {
        ask.enough_connected().await?;
    }
    let mut asked = JoinSet::new();
    for site in sites().await?.into_iter().filter(|site| !site.state.is_done()) {
        let ask = Arc::clone(ask);
        asked.spawn(async move { ask.site(&site.site).await });
    }
    loop {
        let states: Vec<SiteState> = sites().await?.iter().map(|site| site.state).collect();
        match verdict(&states, min_sites) {
            Verdict::Complete => return Ok(()),
            Verdict::TooFew => {
                let possible = states.iter().filter(|state| !state.is_out()).count();
                return Err(failed(
                    "too-few-sites",
                    format!("{possible} sites can still answer, and the job needs {min_sites}"),
                ));
            }
            Verdict::Wait => match asked.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(_)) | None => return Err(failed("coordinator-fault", "a task of the coordinator failed")),
            },
        }
    }
}

/// One round, as it is asked of every site.
pub(crate) struct Ask {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ready: Arc<Ready>,
    pub(crate) index: u32,
    pub(crate) round: Round,
    pub(crate) calibrated: Vec<Calibrated>,
}

/// What a site has said about an offer so far: each thing once at most, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Need,
    Accepted,
}

impl Heard {
    /// With this answer. `None`: no site says that now. One that asks for the component again and
    /// again, or says again and again that it has begun, is not listened to.
    const fn then(self, answer: &Answer) -> Option<Self> {
        match (answer, self) {
            (Answer::Need { .. }, Self::Nothing) => Some(Self::Need),
            (Answer::Accepted, Self::Nothing | Self::Need) => Some(Self::Accepted),
            // A person may have to look before a round, and at its release.
            (Answer::Refused { .. }, Self::Nothing | Self::Need) | (Answer::Held { .. } | Answer::Settled { .. }, _) => {
                Some(self)
            }
            _ => None,
        }
    }
}

/// How an offer ended.
enum Offered {
    /// There is no more to come of this round.
    Done,
    /// A person at the site decides first.
    Held,
    /// The link broke.
    Broken(LinkError),
}

impl Ask {
    fn manifest(&self) -> &Manifest {
        self.ready.signed.manifest()
    }

    /// How long a site may take.
    fn limit(&self) -> Duration {
        Duration::from_secs(self.manifest().round_deadline_seconds.into())
    }

    /// Waits until as many of the named sites as the job needs are connected: with fewer, none is asked and none is charged.
    async fn enough_connected(&self) -> Result<(), Failed> {
        let (sites, needed) = (&self.manifest().sites, self.manifest().min_sites as usize);
        let enough = self
            .shared
            .sessions
            .wait_for(|connected| sites.iter().filter(|site| connected.contains_key(*site)).count() >= needed);
        let waited = tokio::time::timeout(self.limit(), enough).await;
        waited.map_err(|_| {
            failed(
                "too-few-sites",
                format!("fewer than {needed} of the named sites were connected before the deadline: nothing was charged"),
            )
        })
    }

    /// Asks one site until it has answered or its time is over.
    async fn site(&self, site: &Name) -> Result<(), Failed> {
        let (job, charter) = (self.manifest().job, self.manifest().charter);
        let (signer, of) = (self.ready.signed.signer(), site.clone());
        let found = self.shared.stored(move |at| {
            let known = at.store.job_sites(job)?.into_iter().find(|known| known.site == of);
            if known.is_some_and(|known| matches!(known.state, SiteState::Offered | SiteState::Accepted)) {
                // By a coordinator that was here before.
                at.store.set_site(job, &of, SiteState::Waiting, None)?;
            }
            Ok((at.person(&signer).ok(), at.store.was_asked(job, &of)?))
        });
        let (who, since) = found.await?;
        // Their key may have been revoked since: the site will say so.
        let who = who.unwrap_or_else(|| site.clone());
        let before = since.map_or(0, |since| u64::try_from(now().saturating_sub(since)).unwrap_or(0));
        let mut patience = Patience::of(self.limit().saturating_sub(Duration::from_secs(before)));
        let mut pause = FIRST_PAUSE;
        loop {
            let Ok(connection) = patience.spend(self.shared.sessions.connection(site)).await else { break };
            let place = tokio::select! {
                place = self.shared.offers.take(site, charter, &who) => place,
                _ = connection.closed() => continue,
            };
            let of = site.clone();
            self.shared.stored(move |at| at.store.asked(job, &of, now())).await?;
            // What is decided meanwhile is heard.
            let mut decisions = self.shared.sessions.decisions();
            let offered = patience.spend(self.offer(site, &connection)).await;
            drop(place);
            let waited = match offered {
                Ok(offered) => match offered? {
                    Offered::Done => return Ok(()),
                    Offered::Held => patience.spend(decided(&mut decisions, (site, job), &connection)).await,
                    Offered::Broken(error) => {
                        tracing::info!(%job, %site, %error, "the link broke during a round; the site will be asked again");
                        self.shared.set_site(job, site, SiteState::Waiting, None).await?;
                        // A site that is there but closes every stream is not asked in a tight loop.
                        let waited = patience.spend(tokio::time::sleep(pause)).await;
                        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                        waited
                    }
                },
                Err(Over) => break,
            };
            if waited == Err(Over) {
                break;
            }
        }
        let sites = self.shared.stored(move |at| at.store.job_sites(job)).await?;
        let held = sites.iter().any(|of| of.site == *site && of.state == SiteState::Held);
        let reason = match held {
            true => (
                "late-held",
                "nobody at the site had decided about it before the round's deadline: once they have, submit it again with a later one",
            ),
            false => (
                "late",
                "it did not answer before the round's deadline: submit the same again with a later one \
                 (`round_deadline_seconds`); what it charged for is answered at no further cost",
            ),
        };
        Ok(self.shared.set_site(job, site, SiteState::Waiting.after(Event::Deadline), Some(reason)).await?)
    }

    /// Whether a site's answer is in its log, and that log witnessed. Nothing else is passed on to researchers.
    async fn proven(&self, site: &Name, release: Option<&[u8]>, receipt: &Receipt) -> Result<(), NotProven> {
        let trust = self.shared.stored(|at| Ok(at.trust())).await;
        let trust = trust.ok().flatten().ok_or(NotProven::Log)?;
        let settled =
            Logged::Settled { job: self.manifest().job, round: self.index, release: Digest::of(release.unwrap_or_default()) };
        trust.proven(site, &settled, &receipt.leaf, &receipt.proof)
    }

    /// Sends the offer over one connection and waits for the last answer.
    async fn offer(&self, site: &Name, connection: &Connection) -> Result<Offered, Failed> {
        macro_rules! link {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(error) => return Ok(Offered::Broken(error)),
                }
            };
        }
        let job = self.manifest().job;
        let envelope = self.shared.stored(move |at| at.store.job(job)).await?.map(|job| job.envelope).unwrap_or_default();
        let offer = Offer { manifest: envelope, round: self.index, request: self.round.request().clone() };
        link!(crate::link::tell(&self.shared, connection).await);
        let mut stream = link!(Framed::open(connection).await);
        link!(stream.send(&offer).await);
        self.shared.set_site(job, site, SiteState::Waiting.after(Event::Offer), None).await?;
        let (most, mut heard) = (Answer::most_bytes(self.round.request()), Heard::Nothing);
        loop {
            let header = link!(stream.header().await);
            let answer: Answer = link!(stream.payload(link!(header.within(most).map_err(LinkError::from))).await);
            let Some(then) = heard.then(&answer) else {
                return Ok(Offered::Broken(LinkError::Closed("the site said what it cannot say then".to_owned())));
            };
            heard = then;
            match answer {
                Answer::Need { from } => {
                    let digest = self.manifest().component.sha256;
                    let bytes = self.shared.stored(move |at| Ok(at.documents.get(digest))).await?.unwrap_or_default();
                    let rest = usize::try_from(from).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
                    for piece in rest.chunks(CHUNK_BYTES) {
                        link!(stream.send(&Chunk { bytes: piece.to_vec() }).await);
                    }
                }
                Answer::Accepted => self.shared.set_site(job, site, SiteState::Offered.after(Event::Accept), None).await?,
                Answer::Held { why } => {
                    let reason = ("held", why.as_str());
                    self.shared.set_site(job, site, SiteState::Offered.after(Event::Hold), Some(reason)).await?;
                    return Ok(Offered::Held);
                }
                Answer::Refused { code, why } => {
                    self.shared
                        .set_site(job, site, SiteState::Offered.after(Event::Refuse), Some((code.as_str(), why.as_str())))
                        .await?;
                    return Ok(Offered::Done);
                }
                Answer::Settled { padded, receipt } => {
                    if let Err(error) = self.proven(site, Answer::release(&padded), &receipt).await {
                        let why = format!("its answer is not proven by its log: {error}");
                        self.shared.set_site(job, site, SiteState::NoRelease, Some((error.code(), &why))).await?;
                        return Ok(Offered::Done);
                    }
                    let Some(json) = Answer::release(&padded) else {
                        let reason =
                            ("no-release", "the site released nothing; its budget is spent and its operator can see why");
                        self.shared.set_site(job, site, SiteState::Accepted.after(Event::Nothing), Some(reason)).await?;
                        return Ok(Offered::Done);
                    };
                    match Release::parse(json, job, self.index, site, &self.round, &self.calibrated) {
                        Ok(_) => {
                            let (index, of, json) = (self.index, site.clone(), json.to_owned());
                            let kept = self.shared.stored(move |at| {
                                at.store.release(job, index, &of, &json, &receipt)?;
                                at.changed(job);
                                Ok(())
                            });
                            kept.await?;
                        }
                        Err(error) => {
                            let why = error.to_string();
                            self.shared.set_site(job, site, SiteState::NoRelease, Some((error.code(), &why))).await?;
                        }
                    }
                    return Ok(Offered::Done);
                }
            }
        }
    }
}

/// Waits until the site has said that somebody decided about a job there, or has gone, or some time
/// has passed.
async fn decided(decisions: &mut Receiver<Decision>, (site, job): (&Name, JobId), connection: &Connection) {
    let heard = async {
        // What was missed may have been about this one.
        while let Ok(decision) = decisions.recv().await {
            if decision.is_about(site, job) {
                return;
            }
        }
    };
    tokio::select! {
        () = heard => {}
        _ = connection.closed() => {}
        () = tokio::time::sleep(HELD_AGAIN) => {}
    }
}

#[cfg(test)]
mod tests {
    use vestibule_protocol::words::{Code, Sentence};

    use super::*;

    #[test]
    fn a_site_says_each_thing_once_and_nothing_but_its_answer_once_it_has_begun() {
        let (need, accepted) = (Answer::Need { from: 0 }, Answer::Accepted);
        let held = Answer::Held { why: Sentence::cut("a person decides") };
        let refused = Answer::Refused { code: Code::own("budget-exhausted"), why: Sentence::cut("no") };
        let settled = Answer::Settled { padded: vec![], receipt: Receipt { leaf: String::new(), proof: String::new() } };
        let said = |answers: &[&Answer]| answers.iter().try_fold(Heard::Nothing, |heard, answer| heard.then(answer));
        for right in [
            &[&need, &accepted, &settled][..],
            &[&accepted, &settled],
            &[&settled],
            &[&need, &held],
            &[&accepted, &held],
            &[&need, &refused],
            &[&refused],
        ] {
            assert!(said(right).is_some(), "{right:?}");
        }
        for wrong in [&[&need, &need][..], &[&accepted, &need], &[&accepted, &accepted], &[&accepted, &refused]] {
            assert!(said(wrong).is_none(), "{wrong:?}");
        }
    }
}
