//! One site's connection, for as long as it stays.
//!
//! *In*: a connection of a registered key. *Out*: an entry among the [`super::Sessions`]; what the site
//! is told (bundles, ended jobs) and what it asks (witnesses) or says (decisions). Each has a task of
//! its own, and none of them waits for an offer. *Stops*: with the connection.

use std::sync::{Arc, PoisonError};

use quinn::Connection;
use tokio::task::JoinSet;
use vestibule_link::{CLOSE_NOT_ALLOWED, Framed, LinkError, peer_key};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::frame::Message as _;
use vestibule_protocol::message::{AddCheckpoint, Close, Cosigned, Decided, Done, MAX_DECIDED, Relay, TrustUpdate};
use vestibule_protocol::name::Name;

use super::greeting::{greet, greet_on};
use super::{BUNDLES, Decision, PATIENCE};
use crate::shared::Shared;

/// What one site may ask and say at the same time.
const MAX_HEARD: usize = 64;

/// A site, for as long as it stays.
pub(super) async fn session(shared: &Arc<Shared>, connection: &Connection, site: &Name) -> Result<(), LinkError> {
    let greeted = tokio::time::timeout(PATIENCE.saturating_mul(6), greet(shared, connection, site)).await;
    greeted.map_err(|error| LinkError::Closed(error.to_string()))??;
    tell(shared, connection).await?;
    shared.sessions.insert(site, connection);
    tracing::info!(%site, "a site is connected");
    let mut told = JoinSet::new();
    told.spawn(closing(Arc::clone(shared), connection.clone(), site.clone()));
    told.spawn(greet_on(Arc::clone(shared), connection.clone(), site.clone()));
    told.spawn(telling(Arc::clone(shared), connection.clone(), site.clone()));
    let mut streams = JoinSet::new();
    let reason = loop {
        tokio::select! {
            reason = connection.closed() => break reason,
            Some(_) = streams.join_next() => {}
            accepted = Framed::accept(connection), if streams.len() < MAX_HEARD => {
                if let Ok(stream) = accepted {
                    streams.spawn(heard(Arc::clone(shared), site.clone(), stream));
                }
            }
        }
    };
    shared.sessions.remove(site, connection);
    Err(LinkError::Closed(format!("{site}: {reason}")))
}

/// Tells a site of jobs that have ended, those that had and those that do.
async fn closing(shared: Arc<Shared>, connection: Connection, site: Name) {
    let mut nudges = shared.sessions.nudges();
    loop {
        close_jobs(&shared, &connection, &site).await;
        tokio::select! {
            _ = nudges.changed() => {}
            // What could not be said may be said now.
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
}

/// Tells a site of newer trust bundles, and ends a connection whose key one of them revokes.
async fn telling(shared: Arc<Shared>, connection: Connection, site: Name) {
    let mut look = tokio::time::interval(BUNDLES);
    loop {
        if let Err(error) = tell(&shared, &connection).await {
            tracing::info!(%site, %error, "a trust bundle could not be delivered");
        }
        if revoked(&shared, &connection).await {
            connection.close(CLOSE_NOT_ALLOWED, b"revoked");
        }
        look.tick().await;
    }
}

/// What a site says or asks by itself.
async fn heard(shared: Arc<Shared>, from: Name, mut stream: Framed) -> Result<(), LinkError> {
    let header = stream.header().await?;
    if header.kind == Decided::KIND {
        let Decided { jobs } = stream.payload(header).await?;
        if jobs.len() > MAX_DECIDED {
            return Err(LinkError::Closed("too many jobs at once".to_owned()));
        }
        shared.sessions.decide(Decision { site: from, jobs: jobs.into() });
        stream.send(&Done).await?;
        return stream.finish().await;
    }
    relay(&shared, &from, stream.payload(header).await?, stream).await
}

/// Tells the site at the other end of the newest trust bundle, if it was not told: also before every offer, since a site that does not know
/// its consortium's bundle refuses. Whether it is to be believed is for the site to say.
pub(crate) async fn tell(shared: &Arc<Shared>, connection: &Connection) -> Result<(), LinkError> {
    let newest = shared.stored(|at| at.store.bundle()).await;
    let Some(envelope) = newest.map_err(|error| LinkError::Closed(error.to_string()))? else { return Ok(()) };
    let (id, digest) = (connection.stable_id(), Digest::of(&envelope));
    let told = || shared.sessions.told.lock().unwrap_or_else(PoisonError::into_inner);
    if told().get(&id) == Some(&digest) {
        return Ok(());
    }
    let telling = async {
        let mut stream = Framed::open(connection).await?;
        stream.send(&TrustUpdate { envelope }).await?;
        stream.receive::<Done>().await
    };
    let answered = tokio::time::timeout(PATIENCE, telling).await;
    answered.map_err(|error| LinkError::Closed(error.to_string()))??;
    told().insert(id, digest);
    Ok(())
}

/// Whether the consortium has revoked the key at the other end.
async fn revoked(shared: &Arc<Shared>, connection: &Connection) -> bool {
    let trust = shared.stored(|at| Ok(at.trust())).await;
    trust.ok().flatten().zip(peer_key(connection)).is_some_and(|(trust, key)| trust.is_revoked(&key))
}

/// Carries a site's request to a witness, and its answer back.
async fn relay(shared: &Shared, from: &Name, Relay { to, request }: Relay, mut stream: Framed) -> Result<(), LinkError> {
    let asking = async {
        let connection = shared.sessions.connection(&to).await;
        let mut stream = Framed::open(&connection).await?;
        stream.send(&AddCheckpoint { request }).await?;
        stream.receive::<Cosigned>().await
    };
    let answer = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(Ok(answer)) => answer,
        unreachable => {
            tracing::info!(%from, %to, reached = unreachable.is_ok(), "a witness did not answer");
            Cosigned { status: 503, body: String::new() }
        }
    };
    stream.send(&answer).await?;
    stream.finish().await
}

/// Tells the site of jobs that have ended, until it has confirmed each.
async fn close_jobs(shared: &Arc<Shared>, connection: &Connection, site: &Name) {
    let of = site.clone();
    let Ok(ended) = shared.stored(move |at| at.store.closing(&of)).await else { return };
    for job in ended {
        let told = async {
            let mut stream = Framed::open(connection).await?;
            stream.send(&Close { job }).await?;
            stream.receive::<Done>().await
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Done)) => {
                let of = site.clone();
                if let Err(error) = shared.stored(move |at| at.store.closed(job, &of)).await {
                    tracing::error!(%job, %error, "could not be stored");
                }
            }
            _ => return,
        }
    }
}
