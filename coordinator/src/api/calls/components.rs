//! How components come: looked at by their heads, then piece by piece to the disk, then read once by a confined process.
//!
//! *In*: bytes whose digest the caller signed. *Out*: a file of that digest, counted to the caller. *Refuses*: before a byte is read,
//! what is too large or beyond the caller's room; after that, other bytes than were signed, and what no analysis is. What the
//! caller has uploaded already is not read again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::manifest::MAX_COMPONENT_BYTES;

use super::Answer;
use crate::api::caller::Caller;
use crate::api::shares::What;
use crate::api::types::{ApiError, Stored};
use crate::api::{Api, App, Refusal};
use crate::documents::Part;
use crate::run::now;
use crate::store::StoreError;

/// Components that come at the same time: so much of the disk is taken by what nobody has looked at.
pub(crate) const MAX_UPLOADS: usize = 8;
/// What is gathered before it is written.
const PIECE: usize = 256 << 10;
/// How long the next bytes may take.
const NEXT: Duration = Duration::from_secs(10);
/// How long all of them may take.
const WHOLE: Duration = Duration::from_secs(600);

/// Uploads a component.
#[utoipa::path(put, path = "/v1/components/{digest}", params(("digest" = String, Path, description = "sha256:...")),
    request_body(content_type = "application/wasm"),
    responses((status = 200, body = Stored), (status = 413, body = ApiError), (status = 422, body = ApiError),
        (status = 429, body = ApiError), (status = 507, body = ApiError)))]
pub(crate) async fn put_component(
    State(app): State<App>,
    Path(digest): Path<String>,
    headers: HeaderMap,
    caller: Caller,
    body: Body,
) -> Answer<Stored> {
    let other = || unusable("component-digest", "the bytes have another digest than the path says");
    let digest = digest.parse::<Digest>().ok().filter(|digest| *digest == caller.body).ok_or_else(other)?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let length = length.filter(|length| (1..=MAX_COMPONENT_BYTES).contains(length)).ok_or_else(|| {
        let why = "a component has 1 byte to 64 MiB, and says so in `Content-Length`";
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "component-size", why)
    })?;
    let who = caller.name.clone();
    if app.ask(move |app| known(app, &who, digest, length)).await? {
        return Ok(Json(Stored { digest: digest.to_string() }));
    }
    let _upload = app.shares.begin(&caller.name, What::Upload, Instant::now())?;
    let crowded = |_| Refusal::busy("as many components are coming as may come at the same time", Duration::from_secs(5));
    let _place = app.uploads.try_acquire().map_err(crowded)?;
    let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "request-slow", "the component did not come within ten minutes");
    let part = tokio::time::timeout(WHOLE, receive(&app, body, length)).await.map_err(late)??;
    if part.bytes() != length || part.digest() != digest {
        return Err(other());
    }
    let part = Arc::new(part);
    let read = Arc::clone(&part);
    let looked = app.shared.analyses.inspect(&caller.name, move || read.read()).await;
    looked.map_err(|error| Refusal::from(&error))?;
    let kept = app.ask(move |app| {
        let store = &app.shared.store;
        let gone = store.take_component(&caller.name, digest, length, now(), app.component_bytes)?;
        for other in gone.into_iter().filter(|gone| *gone != digest) {
            app.shared.documents.remove(other);
        }
        let part = Arc::into_inner(part).ok_or_else(|| StoreError::Database("a component is still being read".to_owned()))?;
        app.shared.documents.keep(part).map_err(|error| Refusal::disk(&error))
    });
    Ok(Json(Stored { digest: kept.await?.to_string() }))
}

fn unusable(code: &'static str, why: &str) -> Refusal {
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, why)
}

/// Whether the caller has uploaded it already; that there is room for it, if not.
fn known(app: &Api, who: &vestibule_protocol::name::Name, digest: Digest, length: u64) -> Result<bool, Refusal> {
    let store = &app.shared.store;
    if store.has_component(who, digest)? && app.shared.documents.has(digest) {
        // As if it came now: it is not among the first to make room.
        store.take_component(who, digest, length, now(), app.component_bytes)?;
        return Ok(true);
    }
    let (used, most) = (store.component_bytes(who, digest)?, app.component_bytes);
    if used.saturating_add(length) > most {
        return Err(StoreError::Components { used, most }.into());
    }
    Ok(false)
}

/// Writes what comes to the disk; at most what was said.
async fn receive(app: &App, mut body: Body, length: u64) -> Result<Part, Refusal> {
    let documents = app.shared.documents.clone();
    let mut part = app.ask(move |_| documents.begin().map_err(|error| Refusal::disk(&error))).await?;
    let mut gathered: Vec<u8> = Vec::new();
    loop {
        let slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "request-slow", "nothing came for ten seconds");
        let frame = tokio::time::timeout(NEXT, body.frame()).await.map_err(slow)?;
        let ended = frame.is_none();
        if let Some(frame) = frame {
            let frame =
                frame.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "request-broken", "the component broke off"))?;
            gathered.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        if part.bytes().saturating_add(gathered.len() as u64) > length {
            return Err(unusable("component-digest", "more bytes came than were said"));
        }
        if ended || gathered.len() >= PIECE {
            let written = move |_: &Api| {
                part.write(&gathered).map_err(|error| Refusal::disk(&error))?;
                gathered.clear();
                Ok((part, gathered))
            };
            (part, gathered) = app.ask(written).await?;
        }
        if ended {
            return Ok(part);
        }
    }
}
