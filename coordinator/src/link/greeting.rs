//! What the coordinator learns of a site: what it has, and the public documents that go with it; and
//! newcomers, who join by an invitation.
//!
//! *In*: a connection. *Out*: cards and documents, in the store. *Refuses*: more documents than
//! a site may have; those that are too long, or not those of their digest; keys that were not proved.

use std::sync::Arc;
use std::time::Instant;

use quinn::Connection;
use tokio::task::JoinSet;
use vestibule_link::{Framed, LinkError};
use vestibule_protocol::catalogue::MAX_CATALOGUE_BYTES;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::{Chunk, Document, Fetch, Hello, Join, Joined, SiteCard};
use vestibule_protocol::name::Name;
use vestibule_protocol::words::{Label, Sentence};

use super::{BUNDLES, PATIENCE};
use crate::run::now;
use crate::shared::Shared;
use crate::store::{Request, StoreError};

/// Dictionaries and catalogues of one site.
const MAX_DOCUMENTS: usize = 64;
/// How often a site is asked what it has.
const GREETINGS: std::time::Duration = std::time::Duration::from_secs(10);
/// What they may have together.
const MAX_DOCUMENT_BYTES: u64 = 1 << 30;

/// A newcomer, who proved the key of an invitation.
pub(super) async fn join(shared: &Arc<Shared>, connection: &Connection, invitation: PublicKey) -> Result<(), LinkError> {
    let mut stream = Framed::accept(connection).await?;
    let Join { request, proofs } = stream.receive().await?;
    let answer = if request.is_proved(&invitation, &proofs) {
        let joined = shared.stored(move |at| at.store.join(invitation, request.link, &Request::Site(request), now()));
        match joined.await {
            Ok(name) => {
                tracing::info!(site = %name, "a site joined");
                Joined::Welcome { name }
            }
            Err(error) => Joined::Refused { why: Sentence::cut(&error.to_string()) },
        }
    } else {
        Joined::Refused { why: Sentence::cut("the keys were not proved") }
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

/// Learns again, as long as it is connected: a site may have read in another dataset, or accepted a charter.
pub(super) async fn greet_on(shared: Arc<Shared>, connection: Connection, site: Name) {
    loop {
        tokio::time::sleep(GREETINGS).await;
        // What it does not say now, it has said before.
        let _ = tokio::time::timeout(PATIENCE.saturating_mul(6), greet(&shared, &connection, &site)).await;
    }
}

/// Learns what the site has, and the public documents that go with it.
pub(super) async fn greet(shared: &Arc<Shared>, connection: &Connection, site: &Name) -> Result<(), LinkError> {
    let mut stream = Framed::open(connection).await?;
    stream.send(&Hello { software: Label::cut(env!("CARGO_PKG_VERSION")), site: site.clone() }).await?;
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
        let bytes = match kept(shared, digest).await? {
            Some(bytes) => bytes,
            None => fetch(shared, connection, digest).await?,
        };
        room = room
            .checked_sub(bytes)
            .ok_or_else(|| LinkError::Closed(format!("{site} names more documents than there is room for")))?;
    }
    let site = site.clone();
    let keep = move |at: &Shared| {
        let known = at.store.cards()?.into_iter().any(|(name, known)| name == site && known.as_ref() == Some(&card));
        if known { Ok(()) } else { at.store.set_card(&site, &card) }
    };
    shared.stored(keep).await.map_err(closed)
}

fn closed(error: StoreError) -> LinkError {
    LinkError::Closed(error.to_string())
}

/// How long a document is that is here.
async fn kept(shared: &Arc<Shared>, digest: Digest) -> Result<Option<u64>, LinkError> {
    let length = shared.stored(move |at| Ok(at.documents.open(digest).ok().map(|(_, bytes)| bytes)));
    length.await.map_err(closed)
}

/// Asks for a document and keeps it; how long it is.
async fn fetch(shared: &Arc<Shared>, connection: &Connection, digest: Digest) -> Result<u64, LinkError> {
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
    let came = bytes.len() as u64;
    let put = move |at: &Shared| at.documents.put(&bytes).map_err(|error| StoreError::Database(format!("blobs: {error}")));
    shared.stored(put).await.map_err(closed)?;
    Ok(came)
}
