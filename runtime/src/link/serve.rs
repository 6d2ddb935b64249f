//! Serving: one connection at a time, one task for each stream that the coordinator opens. Offers are
//! some of them at most, so that others are always answered.
//!
//! *In*: streams. *Out*: what each asks for. *Stops*: with the token it is given, at once: the
//! connection is closed. A round whose moment has not come leaves nothing behind but its charge,
//! whether it had ended or not, and runs again when the coordinator asks again. *Refuses*: frames
//! of any kind that is not a question to a site.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use vestibule_link::{CLOSE_SHUTDOWN, Dialled, Framed, LinkError, Way, dial};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::frame::Message as _;
use vestibule_protocol::message::{
    AddCheckpoint, Answer, CHUNK_BYTES, CatalogueCard, Chunk, Close, DatasetCard, Document, Done, Fetch, Hello, Offer,
    SiteCard, TrustUpdate,
};
use vestibule_protocol::words::{Label, Sentence};

use super::deciding;
use super::pause::{Pause, jittered};
use super::public::{self, Standing};
use super::witnessing;
use crate::admission::Verified;
use crate::component::ComponentError;
use crate::dataset::{Dataset, DatasetInfo};
use crate::home::Coordinator;
use crate::ledger::Settled;
use crate::policy::Admitted;
use crate::site::{Held, Outcome, Public, Site};

/// How often the log is looked at, whether it has been silent for long.
const LOOK: Duration = Duration::from_secs(600);
/// How long a closed connection may take to say so to the other end.
const GOODBYE: Duration = Duration::from_secs(1);
/// Streams that are answered at the same time, and how many of them may be offers, which wait for
/// their round's place and its moment: the others are questions that never wait for an offer.
const MAX_STREAMS: usize = 64;
const MAX_OFFERS: usize = 16;

/// Dials and serves until `stop`.
pub(crate) async fn serve(site: Arc<Site>, coordinator: Coordinator, stop: CancellationToken) -> Result<(), LinkError> {
    let mut pause = Pause::new();
    let way = Way { quic: &coordinator.quic, tunnel: coordinator.tunnel.as_deref() };
    loop {
        let dialled = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            dialled = dial(way, site.home.link_key(), coordinator.key) => dialled,
        };
        let greeted = match dialled {
            Ok(Dialled { endpoint, connection, tunnelled }) => {
                tracing::info!(coordinator = %coordinator.quic, tunnelled, "connected");
                let greeted = Arc::new(AtomicBool::new(false));
                let why = converse(&site, (&connection, &greeted), &stop).await;
                connection.close(CLOSE_SHUTDOWN, b"");
                let _ = tokio::time::timeout(GOODBYE, endpoint.wait_idle()).await;
                let greeted = greeted.load(Ordering::Relaxed);
                tracing::info!(%why, greeted, "disconnected");
                greeted
            }
            Err(error) => {
                tracing::info!(%error, "the coordinator cannot be reached; trying again");
                false
            }
        };
        let mut byte = [255];
        // Without randomness the full pause is as good.
        let _ = getrandom::fill(&mut byte);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(jittered(pause.after(greeted), byte[0])) => {}
        }
    }
}

/// Answers until the connection ends, and says why it did. Whether the coordinator greeted this site, it leaves in the flag.
async fn converse(
    site: &Arc<Site>,
    (connection, greeted): (&quinn::Connection, &Arc<AtomicBool>),
    stop: &CancellationToken,
) -> LinkError {
    let (mut streams, offers) = (JoinSet::new(), Arc::new(Semaphore::new(MAX_OFFERS)));
    streams.spawn(deciding::tell(Arc::clone(site), connection.clone()));
    let silence = Duration::from_secs(site.home.settings().heartbeat_seconds.max(1).into());
    let mut look = tokio::time::interval(silence.min(LOOK));
    streams.spawn(witnessing::introduce(Arc::clone(site), connection.clone()));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return LinkError::Closed("this site is stopping".to_owned()),
            _ = look.tick() => {
                let at = Arc::clone(site);
                streams.spawn(async move { blocking(move || at.retire(since_1970())).await });
                streams.spawn(witnessing::heartbeat(Arc::clone(site), connection.clone(), silence));
            }
            Some(done) = streams.join_next() => {
                if let Ok(Err(error)) = done {
                    let error: LinkError = error;
                    tracing::info!(%error, "a stream ended early");
                }
            }
            accepted = Framed::accept(connection), if streams.len() < MAX_STREAMS => match accepted {
                Ok(stream) => {
                    let (site, connection, greeted) = (Arc::clone(site), connection.clone(), Arc::clone(greeted));
                    let offers = Arc::clone(&offers);
                    streams.spawn(async move { answer(site, (&connection, &greeted), &offers, stream).await });
                }
                Err(error) => return error,
            },
        }
    }
}

async fn answer(
    site: Arc<Site>,
    (connection, greeted): (&quinn::Connection, &AtomicBool),
    offers: &Semaphore,
    mut stream: Framed,
) -> Result<(), LinkError> {
    let header = stream.header().await?;
    match header.kind {
        Hello::KIND => {
            let _: Hello = stream.payload(header).await?;
            greeted.store(true, Ordering::Relaxed);
            let card = blocking(move || card(&site)).await?;
            stream.send(&card).await?;
        }
        Fetch::KIND => {
            let Fetch { digest } = stream.payload(header).await?;
            let bytes = blocking(move || document(&site, digest)).await?.unwrap_or_default();
            stream.send(&Document { bytes: bytes.len() as u64 }).await?;
            for piece in bytes.chunks(CHUNK_BYTES) {
                stream.send(&Chunk { bytes: piece.to_vec() }).await?;
            }
        }
        Close::KIND => {
            let Close { job } = stream.payload(header).await?;
            match blocking(move || site.end(job, since_1970())).await? {
                Ok(()) => stream.send(&Done).await?,
                Err(error) => tracing::error!(%job, %error, "a job's end could not be booked"),
            }
        }
        TrustUpdate::KIND => {
            let TrustUpdate { envelope } = stream.payload(header).await?;
            match blocking(move || site.believe(&envelope, since_1970())).await? {
                Ok(()) => stream.send(&Done).await?,
                Err(error) => tracing::error!(%error, "a trust bundle could not be kept"),
            }
        }
        AddCheckpoint::KIND => {
            let AddCheckpoint { request } = stream.payload(header).await?;
            if let Some(answer) = blocking(move || witnessing::witness(&site, &request)).await? {
                stream.send(&answer).await?;
            }
        }
        _ => {
            // A coordinator that knows how to wait never has so many under way.
            let _place = offers.try_acquire().map_err(|_| LinkError::Closed("too many offers at once".to_owned()))?;
            let offer: Offer = stream.payload(header).await?;
            let last = offered(&site, connection, offer, &mut stream).await?;
            if let Answer::Refused { code, .. } = &last {
                tracing::info!(code = code.as_str(), "an offer was refused; `log show` has the line");
            }
            stream.send(&last).await?;
        }
    }
    stream.finish().await
}

/// From an offer to its last answer. `Need` and `Accepted` are sent on the way.
async fn offered(
    site: &Arc<Site>,
    connection: &quinn::Connection,
    offer: Offer,
    stream: &mut Framed,
) -> Result<Answer, LinkError> {
    // Nothing is charged before the witnesses have agreed once that this log is the one they know.
    witnessing::ready(site, connection).await?;
    let since = Instant::now();
    loop {
        match considered(site, connection, (offer.clone(), since), stream).await? {
            Considered::Answered(answer) => return Ok(answer),
            Considered::Again => {}
            Considered::Settled(verified, settled) => return answered(site, connection, &verified, settled).await,
            Considered::Held(held) => return Ok(Answer::Held { why: Sentence::cut(&held.why) }),
        }
    }
}

/// What became of an offer that was considered.
enum Considered {
    Answered(Answer),
    Settled(Box<Verified>, Settled),
    Held(Held),
    /// From the start: other data serve than those that it was prepared for.
    Again,
}

/// One offer, which came then, as far as it goes without a person.
async fn considered(
    site: &Arc<Site>,
    connection: &quinn::Connection,
    (offer, came): (Offer, Instant),
    stream: &mut Framed,
) -> Result<Considered, LinkError> {
    let (at, asked) = (Arc::clone(site), offer.clone());
    let admitted = match blocking(move || at.admit(asked, since_1970())).await? {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(Considered::Answered(refused)),
    };
    if let Err(error) = component(site, &admitted, stream).await? {
        let at = Arc::clone(site);
        return blocking(move || at.without_component(&admitted, &error, since_1970())).await.map(Considered::Answered);
    }
    let verified = admitted.verified();
    let job = verified.signed().manifest().job;
    let verified = Box::new(verified.clone());
    let turn = site.turn(job, verified.index()).lock_owned().await;
    // All that sees nobody's data comes first, beside the rounds that run; then the round waits for its place, before it is charged.
    let ready = async {
        Ok::<_, LinkError>(match public::prepare(site, admitted).await? {
            Public::Goes(standing) => Ok((standing, site.round_place(verified.researcher()).await)),
            Public::Held(held) => Err(Outcome::Held(held)),
            Public::Refused(refused) => Err(Outcome::Refused(refused)),
        })
    };
    let ready = tokio::select! {
        gone = connection.closed() => return Err(LinkError::Closed(gone.to_string())),
        () = stream.abandoned() => return Err(LinkError::Closed("the coordinator no longer waits".to_owned())),
        ready = ready => ready?,
    };
    let (Standing { prepared, spent, ahead }, permit) = match ready {
        Ok((standing, permit)) => (*standing, permit),
        Err(Outcome::Held(held)) => return Ok(Considered::Held(held)),
        Err(Outcome::Refused(refused)) => return Ok(Considered::Answered(refused)),
        Err(_) => return Err(LinkError::Closed("a task failed".to_owned())),
    };
    drop(ahead);
    let at = Arc::clone(site);
    let settled = match blocking(move || at.charge(offer, prepared, came.elapsed(), since_1970())).await? {
        Outcome::Refused(refused) => {
            spent.refused(&refused);
            return Ok(Considered::Answered(refused));
        }
        Outcome::Held(held) => return Ok(Considered::Held(held)),
        Outcome::Again => {
            // That is this site's doing.
            spent.paid();
            return Ok(Considered::Again);
        }
        Outcome::Settled(settled) => {
            // What the asking took nobody pays for; that it was not stored before its moment, it need not wait.
            drop((spent, turn, permit));
            settled
        }
        Outcome::Run(ready) => {
            spent.paid();
            tracing::info!(%job, round = verified.index(), "a round was charged, and begins");
            stream.send(&Answer::Accepted).await?;
            let at = Arc::clone(site);
            // Whether somebody is still there to hear the answer makes no difference to when the next round may begin.
            let run = tokio::spawn(async move {
                let by = Arc::clone(&at);
                let ran = blocking(move || by.run(*ready, || (since_1970(), Instant::now()))).await?;
                // Nothing is written before: a file's last change would show the end, and a stop
                // what it came before.
                tokio::time::sleep_until(ran.leaves().into()).await;
                let settled = blocking(move || at.settle(ran)).await?;
                drop((turn, permit));
                settled.ok_or_else(|| LinkError::Closed("this site is stopping".to_owned()))
            });
            run.await.map_err(|_| LinkError::Closed("a task failed".to_owned()))??
        }
    };
    Ok(Considered::Settled(verified, settled))
}

/// The last answer to a round whose moment has come: that it is held, where a person must look at it
/// first and has not.
async fn answered(
    site: &Arc<Site>,
    connection: &quinn::Connection,
    verified: &Verified,
    settled: Settled,
) -> Result<Answer, LinkError> {
    let (job, index, request) = (verified.signed().manifest().job, verified.index(), verified.round().request().clone());
    let (at, of, what) = (Arc::clone(site), verified.clone(), settled.clone());
    match blocking(move || at.release_word(&of, &what, since_1970())).await? {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(Answer::Held { why: Sentence::cut(settled.hold.as_deref().unwrap_or_default()) }),
        Err(error) => {
            tracing::error!(%job, %error, "the queue cannot be read");
            return Err(LinkError::Closed("the queue cannot be read".to_owned()));
        }
    }
    let at = Arc::clone(site);
    match blocking(move || at.depart(job, index, since_1970())).await? {
        Ok(departed) => {
            tracing::info!(%job, round = index, "an answer leaves");
            let receipt = witnessing::receipt(site, connection, departed.leaf).await?;
            let release = settled.release.as_deref().filter(|_| departed.released);
            Ok(Answer::settled(release, &request, receipt))
        }
        Err(error) => {
            tracing::error!(%job, %error, "an answer could not be logged, and does not leave");
            Err(LinkError::Closed("the log cannot be written".to_owned()))
        }
    }
}

/// Has the component in this site's folder: from the coordinator, from where an earlier transfer stopped, if it is not there yet.
async fn component(
    site: &Arc<Site>,
    admitted: &Admitted,
    stream: &mut Framed,
) -> Result<Result<(), ComponentError>, LinkError> {
    let wanted = admitted.verified().signed().manifest().component;
    let at = Arc::clone(site);
    match blocking(move || at.components().get(wanted).map(|found| found.is_some())).await? {
        Ok(true) => return Ok(Ok(())),
        Ok(false) => {}
        Err(error) => return Ok(Err(error)),
    }
    let turn = site.components().turn(wanted).await;
    // Another offer may have brought it meanwhile.
    let at = Arc::clone(site);
    match blocking(move || at.components().get(wanted).map(|found| found.is_some())).await? {
        Ok(true) => return Ok(Ok(())),
        Ok(false) => {}
        Err(error) => return Ok(Err(error)),
    }
    let mut incoming = match site.components().receive(turn) {
        Ok(incoming) => incoming,
        Err(error) => return Ok(Err(error)),
    };
    stream.send(&Answer::Need { from: incoming.offset() }).await?;
    while !incoming.complete() {
        let Chunk { bytes } = stream.receive().await?;
        if let Err(error) = incoming.push(&bytes) {
            return Ok(Err(error));
        }
    }
    Ok(incoming.finish().map(|_| ()))
}

fn card(site: &Site) -> SiteCard {
    let datasets = infos(site).into_iter().map(|info| DatasetCard {
        name: info.name.clone(),
        about: Sentence::cut(&info.about),
        approximate_size: info.approximate_size,
        dictionary: info.dictionary.digest,
        catalogues: info
            .catalogues
            .iter()
            .map(|catalogue| CatalogueCard {
                name: catalogue.name.clone(),
                digest: catalogue.digest,
                build: Label::cut(&catalogue.build),
                variants: u32::try_from(catalogue.variants.len()).unwrap_or(u32::MAX),
            })
            .collect(),
        duo: info.duo.iter().map(|code| Label::cut(code)).collect(),
        cap_epsilon_micro: info.budget.epsilon_micro(),
        cap_delta_femto: info.budget.delta_femto(),
        min_cohort: info.conditions.min_cohort,
    });
    let charters = site.home.charters().unwrap_or_else(|error| {
        tracing::error!(%error, "the charters cannot be listed");
        Vec::new()
    });
    let charters = charters.iter().map(|charter| charter.signed().digest()).collect();
    SiteCard { software: Label::cut(env!("CARGO_PKG_VERSION")), datasets: datasets.collect(), charters }
}

fn infos(site: &Site) -> Vec<DatasetInfo> {
    let read = || -> Result<Vec<_>, String> {
        let data = site.home.data().map_err(|error| error.to_string())?;
        let names = crate::dataset::list(&data).map_err(|error| error.to_string())?;
        Ok(names.iter().filter_map(|name| Dataset::info_of(&data, name).transpose()).collect())
    };
    let found = read().unwrap_or_else(|error| {
        tracing::error!(%error, "the datasets cannot be listed");
        Vec::new()
    });
    // One that is damaged, or that an older copy took the place of, does not hide the others.
    let sound = |info: Result<_, _>| info.inspect_err(|error| tracing::error!(%error, "a dataset is not offered")).ok();
    found.into_iter().filter_map(sound).collect()
}

/// A dictionary or catalogue of one of the datasets: public documents, by digest.
fn document(site: &Site, digest: Digest) -> Option<Vec<u8>> {
    let data = site.home.data().ok()?;
    infos(site).iter().find_map(|info| Dataset::document(&data, &info.name, digest).ok().flatten())
}

/// Disk and computation, off the threads that keep the link alive.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| LinkError::Closed("a task failed".to_owned()))
}

pub(super) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
