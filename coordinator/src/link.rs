//! The sites' end: accepts connections from registered keys, hears newcomers with an invitation, keeps one session a site.
//!
//! *In*: connections. *Out*: [`Sessions`], by which jobs reach sites. *Trusts*: the keys in the store, read anew for every
//! connection, so a removed key cannot come back. *Refuses*: all other keys, in the handshake; from an invitation's key,
//! anything but joining. *Stops*: with the endpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::{Connection, Endpoint};
use tokio::sync::watch;
use tokio::task::JoinSet;
use vestibule_link::{CLOSE_NOT_ALLOWED, CLOSE_REPLACED, Framed, LinkError, Tunnels, peer_key};
use vestibule_protocol::catalogue::MAX_CATALOGUE_BYTES;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::{
    AddCheckpoint, Chunk, Close, Cosigned, Document, Done, Fetch, Hello, Join, Joined, Relay, SiteCard, TrustUpdate,
};
use vestibule_protocol::name::Name;
use vestibule_protocol::tls::Pins;
use vestibule_protocol::token::Role;

use crate::drive::Shared;
use crate::run::now;
use crate::store::Request;

/// How long a handshake, or the answer to a small question, may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// How often a session looks for a newer trust bundle: another process publishes it.
const BUNDLES: std::time::Duration = std::time::Duration::from_secs(1);
/// Requests to witnesses that one site may have under way.
const MAX_RELAYS: usize = 64;
/// Dictionaries and catalogues of one site.
const MAX_DOCUMENTS: usize = 64;
/// What they may have together.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;
/// Connections that are being served at the same time.
const MAX_CONNECTIONS: usize = 2_048;

/// The sites that are connected.
#[derive(Debug)]
pub struct Sessions {
    connected: watch::Sender<HashMap<Name, Connection>>,
    nudges: watch::Sender<u64>,
    /// Which trust bundle the other end of a connection was told of last.
    told: Mutex<HashMap<usize, Digest>>,
    /// When all sites were greeted again last; held by the one who does it.
    greeted: tokio::sync::Mutex<Option<Instant>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            connected: watch::Sender::new(HashMap::new()),
            nudges: watch::Sender::new(0),
            told: Mutex::default(),
            greeted: tokio::sync::Mutex::default(),
        }
    }
}

impl Sessions {
    /// Whether a site is connected.
    #[must_use]
    pub fn has(&self, site: &Name) -> bool {
        self.connected.borrow().contains_key(site)
    }

    /// The site's connection, as soon as there is one.
    pub async fn connection(&self, site: &Name) -> Connection {
        let mut watch = self.connected.subscribe();
        loop {
            let found = watch.borrow_and_update().get(site).filter(|connection| connection.close_reason().is_none()).cloned();
            match found {
                Some(connection) => return connection,
                // The sender lives as long as `self`.
                None => drop(watch.changed().await),
            }
        }
    }

    pub(crate) async fn wait_for(&self, enough: impl Fn(&HashMap<Name, Connection>) -> bool) {
        let mut watch = self.connected.subscribe();
        // The sender lives as long as `self`.
        drop(watch.wait_for(|connected| enough(connected)).await);
    }

    /// Some jobs have ended: sites are to be told.
    pub(crate) fn nudge(&self) {
        self.nudges.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn insert(&self, site: &Name, connection: &Connection) {
        self.connected.send_modify(|connected| {
            if let Some(old) = connected.insert(site.clone(), connection.clone()) {
                old.close(CLOSE_REPLACED, b"");
            }
        });
    }

    fn remove(&self, site: &Name, connection: &Connection) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection.stable_id());
        self.connected.send_if_modified(|connected| {
            let ours = connected.get(site).is_some_and(|current| current.stable_id() == connection.stable_id());
            ours && connected.remove(site).is_some()
        });
    }
}

/// Accepts connections until the endpoint is closed.
pub async fn serve(shared: Arc<Shared>, endpoint: Endpoint, pins: Pins) {
    let mut tasks = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= MAX_CONNECTIONS {
            incoming.refuse();
            continue;
        }
        // An address that was not confirmed may be forged: under load it must confirm itself first.
        if !incoming.remote_address_validated() && tasks.len() > MAX_CONNECTIONS / 2 {
            // Cannot fail for an address that is not validated.
            let _ = incoming.retry();
            continue;
        }
        if !renew(&shared, &pins) {
            incoming.refuse();
            continue;
        }
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let connection = match incoming.accept() {
                Ok(connecting) => tokio::time::timeout(PATIENCE, connecting).await,
                Err(error) => Ok(Err(error)),
            };
            let Ok(Ok(connection)) = connection else { return };
            if let Err(error) = converse(&shared, &connection).await {
                tracing::info!(%error, "a connection ended");
            }
        });
    }
}

/// Lets sites come through tunnels, if there is a port for them. Never ends.
pub(crate) async fn tunnels(shared: Arc<Shared>, tunnels: Option<Tunnels>, pins: Pins) {
    match tunnels {
        Some(tunnels) => tunnels.serve(move || renew(&shared, &pins)).await,
        None => std::future::pending().await,
    }
}

/// From now on, the keys that are registered now. `false` where they cannot be read.
fn renew(shared: &Shared, pins: &Pins) -> bool {
    match keys(shared) {
        Ok(keys) => {
            pins.replace(keys);
            true
        }
        Err(error) => {
            tracing::error!(%error, "the registered keys cannot be read");
            false
        }
    }
}

fn keys(shared: &Shared) -> Result<Vec<PublicKey>, crate::store::StoreError> {
    let mut keys: Vec<PublicKey> = sites(shared)?.into_iter().map(|(_, key)| key).collect();
    keys.extend(shared.store.open_invitations(now())?);
    Ok(keys)
}

/// The sites' keys: those that they joined with, and those that the trust bundle names in their place; none that was revoked.
fn sites(shared: &Shared) -> Result<Vec<(Name, PublicKey)>, crate::store::StoreError> {
    let mut keys = shared.store.members(Role::Site)?;
    if let Some(trust) = shared.trust() {
        let named =
            |(site, _): &(Name, PublicKey)| trust.links(site).into_iter().map(|key| (site.clone(), key)).collect::<Vec<_>>();
        let named: Vec<_> = keys.iter().flat_map(named).collect();
        keys.extend(named);
        keys.retain(|(_, key)| !trust.is_revoked(key));
    }
    Ok(keys)
}

async fn converse(shared: &Arc<Shared>, connection: &Connection) -> Result<(), LinkError> {
    let closed = |error: &dyn std::fmt::Display| LinkError::Closed(error.to_string());
    let key = peer_key(connection).ok_or_else(|| closed(&"no key was shown"))?;
    let members = sites(shared).map_err(|error| closed(&error))?;
    match members.into_iter().find(|(_, member)| *member == key) {
        Some((site, _)) => session(shared, connection, &site).await,
        None => {
            let joined = tokio::time::timeout(PATIENCE, join(shared, connection, key)).await;
            connection.close(CLOSE_NOT_ALLOWED, b"");
            joined.map_err(|error| closed(&error))?
        }
    }
}

/// A newcomer, who proved the key of an invitation.
async fn join(shared: &Arc<Shared>, connection: &Connection, invitation: PublicKey) -> Result<(), LinkError> {
    let mut stream = Framed::accept(connection).await?;
    let Join { request, proofs } = stream.receive().await?;
    let answer = if request.is_proved(&invitation, &proofs) {
        match shared.store.join(invitation, request.link, &Request::Site(request), now()) {
            Ok(name) => {
                tracing::info!(site = %name, "a site joined");
                Joined::Welcome { name }
            }
            Err(error) => Joined::Refused { why: error.to_string() },
        }
    } else {
        Joined::Refused { why: "the keys were not proved".to_owned() }
    };
    stream.send(&answer).await?;
    stream.finish().await
}

/// A site, for as long as it stays.
async fn session(shared: &Arc<Shared>, connection: &Connection, site: &Name) -> Result<(), LinkError> {
    let greeted = tokio::time::timeout(PATIENCE.saturating_mul(6), greet(shared, connection, site)).await;
    greeted.map_err(|error| LinkError::Closed(error.to_string()))??;
    tell(shared, connection).await?;
    shared.sessions.insert(site, connection);
    tracing::info!(%site, "a site is connected");
    let mut nudges = shared.sessions.nudges.subscribe();
    let mut streams = JoinSet::new();
    let mut look = tokio::time::interval(BUNDLES);
    let reason = loop {
        close_jobs(shared, connection, site).await;
        if let Err(error) = tell(shared, connection).await {
            tracing::info!(%site, %error, "a trust bundle could not be delivered");
        }
        if revoked(shared, connection) {
            connection.close(CLOSE_NOT_ALLOWED, b"revoked");
        }
        tokio::select! {
            reason = connection.closed() => break reason,
            _ = nudges.changed() => {}
            _ = look.tick() => {}
            Some(_) = streams.join_next() => {}
            accepted = Framed::accept(connection), if streams.len() < MAX_RELAYS => {
                if let Ok(stream) = accepted {
                    streams.spawn(relay(Arc::clone(shared), site.clone(), stream));
                }
            }
        }
    };
    shared.sessions.remove(site, connection);
    Err(LinkError::Closed(format!("{site}: {reason}")))
}

/// Tells the site at the other end of the newest trust bundle, if it was not told: also before every offer, since a site that does not know
/// its consortium's bundle refuses. Whether it is to be believed is for the site to say.
pub(crate) async fn tell(shared: &Arc<Shared>, connection: &Connection) -> Result<(), LinkError> {
    let Some(envelope) = shared.store.bundle().map_err(|error| LinkError::Closed(error.to_string()))? else { return Ok(()) };
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
fn revoked(shared: &Shared, connection: &Connection) -> bool {
    let trust = shared.trust();
    trust.zip(peer_key(connection)).is_some_and(|(trust, key)| trust.is_revoked(&key))
}

/// Carries a site's request to a witness, and its answer back.
async fn relay(shared: Arc<Shared>, from: Name, mut stream: Framed) -> Result<(), LinkError> {
    let Relay { to, request } = stream.receive().await?;
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

/// Learns again what the connected sites have: something may have changed since they came. Once a second at most, no matter who asks for it.
pub(crate) async fn greet_again(shared: &Arc<Shared>) {
    let mut greeted = shared.sessions.greeted.lock().await;
    if greeted.is_some_and(|last| last.elapsed() < BUNDLES) {
        return;
    }
    let connected: Vec<_> =
        shared.sessions.connected.borrow().iter().map(|(site, connection)| (site.clone(), connection.clone())).collect();
    let mut greeting = JoinSet::new();
    for (site, connection) in connected {
        let shared = Arc::clone(shared);
        greeting.spawn(async move { tokio::time::timeout(PATIENCE, greet(&shared, &connection, &site)).await });
    }
    // What one of them does not say now, it has said before.
    while greeting.join_next().await.is_some() {}
    *greeted = Some(Instant::now());
}

/// Learns what the site has, and the public documents that go with it.
async fn greet(shared: &Arc<Shared>, connection: &Connection, site: &Name) -> Result<(), LinkError> {
    let mut stream = Framed::open(connection).await?;
    stream.send(&Hello { software: env!("CARGO_PKG_VERSION").to_owned(), site: site.clone() }).await?;
    let card: SiteCard = stream.receive().await?;
    let mut documents: Vec<Digest> = Vec::new();
    for dataset in &card.datasets {
        documents.push(dataset.dictionary);
        documents.extend(dataset.catalogues.iter().map(|catalogue| catalogue.digest));
    }
    if documents.len() > MAX_DOCUMENTS {
        return Err(LinkError::Closed(format!("{site} names {} documents, of {MAX_DOCUMENTS} at most", documents.len())));
    }
    let mut room = MAX_DOCUMENT_BYTES;
    for digest in documents {
        if !shared.documents.has(digest) {
            fetch(shared, connection, digest).await?;
        }
        let bytes = shared.documents.open(digest).map_or(0, |(_, bytes)| bytes);
        room = room
            .checked_sub(bytes)
            .ok_or_else(|| LinkError::Closed(format!("{site} names more documents than there is room for")))?;
    }
    shared.store.set_card(site, &card).map_err(|error| LinkError::Closed(error.to_string()))
}

async fn fetch(shared: &Arc<Shared>, connection: &Connection, digest: Digest) -> Result<(), LinkError> {
    let mut stream = Framed::open(connection).await?;
    stream.send(&Fetch { digest }).await?;
    let Document { bytes: length } = stream.receive().await?;
    if length == 0 || length > MAX_CATALOGUE_BYTES {
        return Err(LinkError::Closed(format!("document {digest} has {length} bytes")));
    }
    let mut bytes: Vec<u8> = Vec::new();
    while (bytes.len() as u64) < length {
        let chunk: Chunk = stream.receive().await?;
        bytes.extend(chunk.bytes);
    }
    if Digest::of(&bytes) != digest {
        return Err(LinkError::Closed(format!("document {digest} came with other bytes")));
    }
    shared.documents.put(&bytes).map_err(|error| LinkError::Closed(error.to_string()))?;
    Ok(())
}

/// Tells the site of jobs that have ended, until it has confirmed each.
async fn close_jobs(shared: &Arc<Shared>, connection: &Connection, site: &Name) {
    let Ok(ended) = shared.store.closing(site) else { return };
    for job in ended {
        let told = async {
            let mut stream = Framed::open(connection).await?;
            stream.send(&Close { job }).await?;
            stream.receive::<Done>().await
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(Done)) => {
                if let Err(error) = shared.store.closed(job, site) {
                    tracing::error!(%job, %error, "could not be stored");
                }
            }
            _ => return,
        }
    }
}
