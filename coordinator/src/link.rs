//! The sites' end: accepts connections from registered keys, hears newcomers with an invitation, keeps one session a site.
//!
//! *In*: connections. *Out*: [`Sessions`], by which jobs reach sites. *Trusts*: the keys in the store, read anew for every
//! connection, so a removed key cannot come back. *Refuses*: all other keys, in the handshake; from an invitation's key,
//! anything but joining. *Stops*: with the endpoint.

mod greeting;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::{Connection, Endpoint};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use vestibule_link::{CLOSE_NOT_ALLOWED, CLOSE_REPLACED, LinkError, Tunnels, peer_key};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::tls::Pins;
use vestibule_protocol::token::Role;

pub(crate) use self::greeting::greet_again;
use self::greeting::join;
use self::session::session;
pub(crate) use self::session::tell;
use crate::run::now;
use crate::shared::Shared;

/// How long a handshake, or the answer to a small question, may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// How often a session looks for a newer trust bundle: another process publishes it.
const BUNDLES: std::time::Duration = std::time::Duration::from_secs(1);
/// Decisions that those who wait for one may be behind by.
const DECISIONS: usize = 256;
/// Connections that are being served at the same time.
const MAX_CONNECTIONS: usize = 2_048;

/// That somebody at a site has decided about jobs that waited there.
#[derive(Debug, Clone)]
pub struct Decision {
    site: Name,
    jobs: Arc<[JobId]>,
}

impl Decision {
    /// Whether it is about this one.
    pub(crate) fn is_about(&self, site: &Name, job: JobId) -> bool {
        self.site == *site && self.jobs.contains(&job)
    }
}

/// The sites that are connected.
#[derive(Debug)]
pub struct Sessions {
    connected: watch::Sender<HashMap<Name, Connection>>,
    nudges: watch::Sender<u64>,
    decisions: broadcast::Sender<Decision>,
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
            decisions: broadcast::Sender::new(DECISIONS),
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

    fn nudges(&self) -> watch::Receiver<u64> {
        self.nudges.subscribe()
    }

    /// What sites say of decisions from now on.
    pub(crate) fn decisions(&self) -> broadcast::Receiver<Decision> {
        self.decisions.subscribe()
    }

    fn decide(&self, decision: Decision) {
        // Nobody may wait for one.
        let _ = self.decisions.send(decision);
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
        if !renew(&shared, &pins).await {
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
    let renewed = move || {
        let (shared, pins) = (Arc::clone(&shared), pins.clone());
        async move { renew(&shared, &pins).await }
    };
    match tunnels {
        Some(tunnels) => tunnels.serve(renewed).await,
        None => std::future::pending().await,
    }
}

/// From now on, the keys that are registered now. `false` where they cannot be read.
async fn renew(shared: &Arc<Shared>, pins: &Pins) -> bool {
    match shared.stored(keys).await {
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
    let members = shared.stored(sites).await.map_err(|error| closed(&error))?;
    match members.into_iter().find(|(_, member)| *member == key) {
        Some((site, _)) => session(shared, connection, &site).await,
        None => {
            let joined = tokio::time::timeout(PATIENCE, join(shared, connection, key)).await;
            connection.close(CLOSE_NOT_ALLOWED, b"");
            joined.map_err(|error| closed(&error))?
        }
    }
}
