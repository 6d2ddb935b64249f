//! Calls that anybody may make, and what every member may know.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::token::Role;

use super::Answer;
use crate::api::caller::Member;
use crate::api::types::{ApiError, JoinAnswer, JoinRequest, researcher_join_message, text};
use crate::api::{App, Refusal};
use crate::run::now;
use crate::store::{PersonRequest, Request};

/// Invitations that are redeemed at the same time: it takes two signatures, of people who have no share yet.
pub(crate) const MAX_JOINS: usize = 4;

/// The coordinator is there.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, description = "It is there")))]
pub(crate) async fn health() -> &'static str {
    "ok"
}

/// Redeems a researcher's or an approver's invitation.
#[utoipa::path(post, path = "/v1/researchers", request_body = JoinRequest,
    responses((status = 200, body = JoinAnswer), (status = 403, body = ApiError), (status = 409, body = ApiError),
        (status = 422, body = ApiError), (status = 429, body = ApiError)))]
pub(crate) async fn join(State(app): State<App>, request: Result<Json<JoinRequest>, JsonRejection>) -> Answer<JoinAnswer> {
    let malformed = |error: JsonRejection| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "join-malformed", error.body_text());
    let Json(request) = request.map_err(malformed)?;
    let crowded = |_| Refusal::busy("many join at this moment", Duration::from_secs(1));
    let _place = app.joins.try_acquire().map_err(crowded)?;
    let bad = || Refusal::new(StatusCode::FORBIDDEN, "join-refused", "the invitation or the key was not proved");
    let invitation: PublicKey = request.invitation.parse().map_err(|_| bad())?;
    let key: PublicKey = request.key.parse().map_err(|_| bad())?;
    let joined = app.ask(move |app| {
        let message = researcher_join_message(&invitation, &key);
        let signed =
            |key: &PublicKey, text: &str| STANDARD.decode(text).is_ok_and(|signature| key.verify(&message, &signature));
        if !signed(&invitation, &request.by_invitation) || !signed(&key, &request.by_key) {
            return Err(bad());
        }
        let store = &app.shared.store;
        let person = PersonRequest { organisation: request.organisation, country: request.country, key };
        let request = match store.invited(invitation)? {
            Some(Role::Approver) => Request::Approver(person),
            _ => Request::Researcher(person),
        };
        Ok(store.join(invitation, key, &request, now())?)
    });
    let name = joined.await?;
    tracing::info!(person = %name, "a person joined");
    Ok(Json(JoinAnswer { name: text(&name) }))
}

/// The consortium's trust bundle, for its members: a DSSE envelope, to be believed for who signed it.
#[utoipa::path(get, path = "/v1/trust",
    responses((status = 200, description = "The envelope"), (status = 401, body = ApiError), (status = 404, body = ApiError)))]
pub(crate) async fn trust(State(app): State<App>, _: Member) -> Result<Vec<u8>, Refusal> {
    app.ask(|app| app.shared.store.bundle()?.ok_or_else(|| Refusal::missing("trust bundle"))).await
}
