//! An answer that is not what was asked for: a status, a stable code, a sentence, and when to ask again.

use std::time::Duration;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use vestibule_protocol::request::RequestError;

use super::types::ApiError;
use crate::analyses::CallError;
use crate::shared::SubmitError;
use crate::store::StoreError;

/// What was refused, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// In seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl std::fmt::Display) -> Self {
        Self { status, code, message: message.to_string(), retry_after: None }
    }

    pub(crate) fn missing(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", format!("there is no such {what}"))
    }

    /// More than a share, for now.
    pub(crate) fn busy(message: &str, retry: Duration) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-calls", message);
        Self { retry_after: Some(retry.as_secs().max(1)), ..refusal }
    }

    pub(crate) fn disk(error: &std::io::Error) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "coordinator-disk", error)
    }

    #[cfg(test)]
    pub(crate) const fn code(&self) -> &'static str {
        self.code
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Database(_) => StatusCode::INTERNAL_SERVER_ERROR,
            StoreError::Full | StoreError::Components { .. } => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.code(), error)
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error.code(), error)
    }
}

impl From<&CallError> for Refusal {
    fn from(error: &CallError) -> Self {
        let status = if error.is_ours() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
        Self::new(status, error.code(), error)
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Store(error) => error.into(),
            error if error.is_ours() => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error),
            error if error.code() == "submit-not-signer" => Self::new(StatusCode::FORBIDDEN, error.code(), error),
            error => Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(ApiError { code: self.code.to_owned(), message: self.message });
        match self.retry_after {
            Some(seconds) => (self.status, [(header::RETRY_AFTER, seconds.to_string())], body).into_response(),
            None => (self.status, body).into_response(),
        }
    }
}
