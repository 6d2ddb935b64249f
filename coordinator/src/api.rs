//! The HTTP API for researchers: JSON over HTTP/1.1, described at `/openapi.json`.
//!
//! *In*: calls that a registered researcher signed (see `vestibule_protocol::request`). *Out*: documents of [`types`].
//! *Trusts*: the signature. *Refuses*: unsigned calls, other people's jobs (as if they were not there), bodies over their limits.
//! Errors are `{code, message}`; parameters and results are never logged.

mod calls;
mod events;
pub mod types;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use utoipa::OpenApi;
use vestibule_protocol::dsse::MAX_ENVELOPE_BYTES;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::MAX_COMPONENT_BYTES;
use vestibule_protocol::name::Name;
use vestibule_protocol::request;

use crate::run::now;
use crate::shared::Shared;

/// What every call may use.
pub(crate) type App = Arc<Shared>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Vestibule coordinator",
        description = "Submit jobs, follow them, fetch their reports. All calls but `health`, `openapi.json` and `researchers` carry `Authorization: Vestibule key=...,time=...,signature=...`, an Ed25519 signature over method, path, time and body by a registered researcher."
    ),
    paths(
        calls::health,
        calls::join,
        calls::sites,
        calls::document,
        calls::put_component,
        calls::submit,
        calls::list,
        calls::status,
        events::events,
        calls::result,
        calls::receipts,
        calls::manifest,
        calls::trust,
        calls::cancel
    )
)]
struct Description;

/// The API's routes.
pub fn router(shared: App) -> Router {
    let component_limit = DefaultBodyLimit::max(usize::try_from(MAX_COMPONENT_BYTES).unwrap_or(usize::MAX));
    Router::new()
        .route("/openapi.json", get(|| async { axum::Json(Description::openapi()) }))
        .route("/v1/health", get(calls::health))
        .route("/v1/researchers", post(calls::join))
        .route("/v1/sites", get(calls::sites))
        .route("/v1/documents/{digest}", get(calls::document))
        .route("/v1/components/{digest}", put(calls::put_component).layer(component_limit))
        .route("/v1/jobs", post(calls::submit).get(calls::list))
        .route("/v1/jobs/{job}", get(calls::status))
        .route("/v1/jobs/{job}/events", get(events::events))
        .route("/v1/jobs/{job}/result", get(calls::result))
        .route("/v1/jobs/{job}/receipts", get(calls::receipts))
        .route("/v1/jobs/{job}/manifest", get(calls::manifest))
        .route("/v1/trust", get(calls::trust))
        .route("/v1/jobs/{job}/cancel", post(calls::cancel))
        .layer(DefaultBodyLimit::max(MAX_ENVELOPE_BYTES))
        .with_state(shared)
}

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl std::fmt::Display) -> Self {
        Self { status, code, message: message.to_string() }
    }

    pub(crate) fn missing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }
}

impl From<crate::store::StoreError> for Refusal {
    fn from(error: crate::store::StoreError) -> Self {
        let status = match error {
            crate::store::StoreError::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.code(), error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = types::ApiError { code: self.code.to_owned(), message: self.message };
        (self.status, axum::Json(body)).into_response()
    }
}

/// Who signed the call: a registered researcher, or a refusal.
pub(crate) fn caller(
    app: &App,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Name, PublicKey), Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let path = uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    let key = request::verify(header, method.as_str(), path, body, now())
        .map_err(|error| Refusal::new(StatusCode::UNAUTHORIZED, error.code(), error))?;
    let known = app.researchers()?.into_iter().find(|(_, member)| *member == key);
    known.ok_or_else(|| {
        let why = "this key is not registered here: join with `vestibule researcher join` and the invitation you were given";
        Refusal::new(StatusCode::FORBIDDEN, "researcher-unknown", why)
    })
}

#[cfg(test)]
mod tests;
