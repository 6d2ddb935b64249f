//! The HTTP API for researchers: JSON over HTTP/1.1, described at `/openapi.json`.
//!
//! *In*: calls that a registered person signed (see `vestibule_protocol::request`). *Out*: documents of [`types`].
//! *Trusts*: the signature. *Refuses*: unsigned calls, before a byte of their bodies is read; other people's jobs (as if they were not
//! there); bodies over their limits; more calls than a person's share (429, with `Retry-After`).
//! Errors are `{code, message}`; parameters and results are never logged.
//!
//! `door` takes connections; `stay` holds what a call has until its answer is sent; `caller` says who calls, by `nonces` and
//! `shares`; `calls` answers; `live` describes each change once, and `events` passes it on.

mod caller;
mod calls;
mod door;
mod events;
mod live;
mod nonces;
mod refusal;
mod shares;
mod stay;
pub mod types;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::from_fn;
use axum::routing::{get, post, put};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use vestibule_protocol::key::PublicKey;

use crate::analyses::CallError;
use crate::shared::Shared;
use live::Live;
use nonces::Nonces;
use refusal::Refusal;
use shares::Shares;

/// Looks into the database that run or wait for its writer at the same time; others wait in turn, and take no thread.
const ASKING: usize = 16;
/// An invitation is redeemed with a few keys and words.
const MAX_JOIN_BYTES: usize = 4 << 10;

/// What every call may use.
pub(crate) type App = Arc<Api>;

/// The API's own, beside what the coordinator shares.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) shared: Arc<Shared>,
    key: PublicKey,
    component_bytes: u64,
    nonces: Nonces,
    shares: Shares,
    live: Live,
    asking: Semaphore,
    uploads: Semaphore,
    joins: Semaphore,
}

impl Api {
    /// For the coordinator with that key, where one person's components may take so many bytes.
    pub(crate) fn new(shared: Arc<Shared>, key: PublicKey, component_bytes: u64) -> App {
        Arc::new(Self {
            live: Live::new(&shared.changes),
            shared,
            key,
            component_bytes,
            nonces: Nonces::default(),
            shares: Shares::default(),
            asking: Semaphore::new(ASKING),
            uploads: Semaphore::new(calls::MAX_UPLOADS),
            joins: Semaphore::new(calls::MAX_JOINS),
        })
    }

    /// What the database or the disk says, on a thread that may wait.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let stopping = || Refusal::from(&CallError::Stopping);
        let _place = self.asking.acquire().await.map_err(|_| stopping())?;
        let at = Arc::clone(self);
        tokio::task::spawn_blocking(move || look(&at)).await.map_err(|_| stopping())?
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Vestibule coordinator",
        description = "Submit jobs, follow them, fetch their reports. All calls but `health`, `openapi.json` and `researchers` carry `Authorization: Vestibule key=...,time=...,nonce=...,body=...,signature=...`, an Ed25519 signature by a registered person over the coordinator's key, method, path, time, a nonce and the body's SHA-256. Who calls more often than a share allows is answered 429 with `Retry-After`."
    ),
    paths(
        calls::people::health,
        calls::people::join,
        calls::people::trust,
        calls::sites::sites,
        calls::sites::document,
        calls::components::put_component,
        calls::jobs::submit,
        calls::jobs::list,
        calls::jobs::status,
        events::events,
        calls::jobs::result,
        calls::jobs::receipts,
        calls::jobs::manifest,
        calls::jobs::cancel
    )
)]
struct Description;

/// Written once: it is for anybody, and so costs next to nothing.
static DESCRIPTION: LazyLock<String> = LazyLock::new(|| Description::openapi().to_json().unwrap_or_default());

fn router(app: App) -> Router {
    let description = || async { ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION.as_str()) };
    Router::new()
        .route("/openapi.json", get(description))
        .route("/v1/health", get(calls::people::health))
        .route("/v1/researchers", post(calls::people::join).layer(DefaultBodyLimit::max(MAX_JOIN_BYTES)))
        .route("/v1/sites", get(calls::sites::sites))
        .route("/v1/documents/{digest}", get(calls::sites::document))
        .route("/v1/components/{digest}", put(calls::components::put_component))
        .route("/v1/jobs", post(calls::jobs::submit).get(calls::jobs::list))
        .route("/v1/jobs/{job}", get(calls::jobs::status))
        .route("/v1/jobs/{job}/events", get(events::events))
        .route("/v1/jobs/{job}/result", get(calls::jobs::result))
        .route("/v1/jobs/{job}/receipts", get(calls::jobs::receipts))
        .route("/v1/jobs/{job}/manifest", get(calls::jobs::manifest))
        .route("/v1/trust", get(calls::people::trust))
        .route("/v1/jobs/{job}/cancel", post(calls::jobs::cancel))
        .layer(from_fn(stay::until_answered))
        .with_state(app)
}

/// Serves until `stop`. Connections end with it: whatever a call was told is on the disk.
pub(crate) async fn serve(app: App, listener: TcpListener, stop: CancellationToken) {
    tokio::select! {
        () = door::serve(listener, router(Arc::clone(&app)), stop) => {}
        () = live::describe(app) => {}
    }
}

#[cfg(test)]
mod tests;
