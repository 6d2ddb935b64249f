//! What there is to compute on, and the public documents that say what it means.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use tokio_util::io::ReaderStream;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::message::{CatalogueCard, DatasetCard, SiteCard};

use super::Answer;
use crate::api::caller::Caller;
use crate::api::types::{ApiError, Catalogue, Dataset, Site, text};
use crate::api::{App, Refusal};

/// What is read of a file at once.
const PIECE: usize = 64 << 10;

/// The sites and what they hold.
#[utoipa::path(get, path = "/v1/sites", responses((status = 200, body = Vec<Site>), (status = 401, body = ApiError)))]
pub(crate) async fn sites(State(app): State<App>, _: Caller) -> Answer<Vec<Site>> {
    let cards = app.ask(|app| Ok(app.shared.store.cards()?)).await?;
    let site = |(name, card): (_, Option<SiteCard>)| Site {
        connected: app.shared.sessions.has(&name),
        name: text(&name),
        datasets: card.map(|card| card.datasets.iter().map(dataset).collect()).unwrap_or_default(),
    };
    Ok(Json(cards.into_iter().map(site).collect()))
}

#[expect(clippy::cast_precision_loss, reason = "caps are far below 2^53 units")]
fn dataset(card: &DatasetCard) -> Dataset {
    let catalogue = |card: &CatalogueCard| Catalogue {
        name: text(&card.name),
        digest: card.digest.to_string(),
        build: card.build.to_string(),
        variants: card.variants,
    };
    Dataset {
        name: text(&card.name),
        about: card.about.to_string(),
        approximate_size: card.approximate_size,
        min_cohort: card.min_cohort,
        dictionary: card.dictionary.to_string(),
        catalogues: card.catalogues.iter().map(catalogue).collect(),
        duo: card.duo.iter().map(ToString::to_string).collect(),
        cap_epsilon: card.cap_epsilon_micro as f64 / 1e6,
        cap_delta: card.cap_delta_femto as f64 / 1e15,
    }
}

/// A dictionary or catalogue, or a component that the caller uploaded.
#[utoipa::path(get, path = "/v1/documents/{digest}", params(("digest" = String, Path, description = "sha256:...")),
    responses((status = 200, description = "The file's bytes, which the reader holds against the digest"), (status = 404, body = ApiError)))]
pub(crate) async fn document(State(app): State<App>, Path(digest): Path<String>, caller: Caller) -> Result<Response, Refusal> {
    let missing = || Refusal::missing("document");
    let digest: Digest = digest.parse().map_err(|_| missing())?;
    let opened = app.ask(move |app| {
        let store = &app.shared.store;
        if store.is_component(digest)? && !store.has_component(&caller.name, digest)? {
            return Err(missing());
        }
        app.shared.documents.open(digest).map_err(|_| missing())
    });
    let (file, length) = opened.await?;
    let body = Body::from_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE));
    let head = [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    Ok((head, body).into_response())
}
