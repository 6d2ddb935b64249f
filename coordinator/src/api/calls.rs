//! The calls, one function each.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::message::DatasetCard;

use super::types::{
    ApiError, Catalogue, Dataset, JobResult, JobSite, JobStatus, JoinAnswer, JoinRequest, Receipt, Site, Stored, Submitted,
    researcher_join_message, text,
};
use super::{App, Refusal, caller};
use crate::run::now;
use crate::store::{Job, JobState, PersonRequest, Proven, Request};
use vestibule_protocol::token::Role;

type Answer<T> = Result<Json<T>, Refusal>;

/// The coordinator is there.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, description = "It is there")))]
pub(crate) async fn health() -> &'static str {
    "ok"
}

/// Redeems a researcher's or an approver's invitation.
#[utoipa::path(post, path = "/v1/researchers", request_body = JoinRequest,
    responses((status = 200, body = JoinAnswer), (status = 403, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn join(State(app): State<App>, Json(request): Json<JoinRequest>) -> Answer<JoinAnswer> {
    let bad = || Refusal::new(StatusCode::FORBIDDEN, "join-refused", "the invitation or the key was not proved");
    let invitation: PublicKey = request.invitation.parse().map_err(|_| bad())?;
    let key: PublicKey = request.key.parse().map_err(|_| bad())?;
    let message = researcher_join_message(&invitation, &key);
    let signed = |key: &PublicKey, text: &str| STANDARD.decode(text).is_ok_and(|signature| key.verify(&message, &signature));
    if !signed(&invitation, &request.by_invitation) || !signed(&key, &request.by_key) {
        return Err(bad());
    }
    let person = PersonRequest { organisation: request.organisation, country: request.country, key };
    let request = match app.store.invited(invitation)? {
        Some(Role::Approver) => Request::Approver(person),
        _ => Request::Researcher(person),
    };
    let name = app.store.join(invitation, key, &request, now())?;
    tracing::info!(person = %name, "a person joined");
    Ok(Json(JoinAnswer { name: text(&name) }))
}

/// The sites and what they hold.
#[utoipa::path(get, path = "/v1/sites", responses((status = 200, body = Vec<Site>), (status = 401, body = ApiError)))]
pub(crate) async fn sites(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Answer<Vec<Site>> {
    caller(&app, &method, &uri, &headers, &Bytes::new())?;
    let cards = app.store.cards()?;
    let site = |(name, card): (_, Option<vestibule_protocol::message::SiteCard>)| Site {
        connected: app.sessions.has(&name),
        name: text(&name),
        datasets: card.map(|card| card.datasets.iter().map(dataset).collect()).unwrap_or_default(),
    };
    Ok(Json(cards.into_iter().map(site).collect()))
}

#[expect(clippy::cast_precision_loss, reason = "caps are far below 2^53 units")]
fn dataset(card: &DatasetCard) -> Dataset {
    let catalogue = |card: &vestibule_protocol::message::CatalogueCard| Catalogue {
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

/// A dictionary or catalogue.
#[utoipa::path(get, path = "/v1/documents/{digest}", params(("digest" = String, Path, description = "sha256:...")),
    responses((status = 200, description = "The file's bytes"), (status = 404, body = ApiError)))]
pub(crate) async fn document(
    State(app): State<App>,
    Path(digest): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Vec<u8>, Refusal> {
    caller(&app, &method, &uri, &headers, &Bytes::new())?;
    let digest: Digest = digest.parse().map_err(|_| Refusal::missing("document"))?;
    app.documents.get(digest).ok_or_else(|| Refusal::missing("document"))
}

/// Uploads a component.
#[utoipa::path(put, path = "/v1/components/{digest}", params(("digest" = String, Path, description = "sha256:...")),
    request_body(content_type = "application/wasm"),
    responses((status = 200, body = Stored), (status = 422, body = ApiError)))]
pub(crate) async fn put_component(
    State(app): State<App>,
    Path(digest): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Stored> {
    let (who, _) = caller(&app, &method, &uri, &headers, &body)?;
    let unusable = |code, why: &dyn std::fmt::Display| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, code, why);
    if digest.parse::<Digest>() != Ok(Digest::of(&body)) {
        return Err(unusable("component-digest", &"the bytes have another digest than the path says"));
    }
    app.analyses.inspect(&who, body.clone()).await.map_err(|error| match error.is_ours() {
        true => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), &error),
        false => unusable(error.code(), &error),
    })?;
    let stored = app.documents.put(&body);
    let digest = stored.map_err(|error| Refusal::new(StatusCode::INSUFFICIENT_STORAGE, "coordinator-disk", error))?;
    Ok(Json(Stored { digest: digest.to_string() }))
}

/// Submits a job: a manifest as a DSSE envelope, signed by the caller.
#[utoipa::path(post, path = "/v1/jobs", request_body(content_type = "application/json"),
    responses((status = 200, body = Submitted), (status = 422, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn submit(
    State(app): State<App>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Submitted> {
    caller(&app, &method, &uri, &headers, &body)?;
    match app.submit(body.to_vec(), now()).await {
        Ok(job) => Ok(Json(Submitted { job: job.to_string() })),
        Err(crate::shared::SubmitError::Store(error)) => Err(error.into()),
        Err(error) if error.is_ours() => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error)),
        Err(error) => Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error)),
    }
}

/// The caller's jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", responses((status = 200, body = Vec<JobStatus>)))]
pub(crate) async fn list(State(app): State<App>, method: Method, uri: Uri, headers: HeaderMap) -> Answer<Vec<JobStatus>> {
    let (_, key) = caller(&app, &method, &uri, &headers, &Bytes::new())?;
    let jobs = app.store.jobs(None)?;
    let own = jobs.iter().filter(|job| app.same_person(&job.owner, &key));
    Ok(Json(own.map(|job| describe(&app, job)).collect::<Result<_, _>>()?))
}

/// How a job stands.
#[utoipa::path(get, path = "/v1/jobs/{job}", params(("job" = String, Path)),
    responses((status = 200, body = JobStatus), (status = 404, body = ApiError)))]
pub(crate) async fn status(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<JobStatus> {
    let job = owned(&app, &job, &method, &uri, &headers, &Bytes::new())?;
    Ok(Json(describe(&app, &job)?))
}

/// The report of a finished job.
#[utoipa::path(get, path = "/v1/jobs/{job}/result", params(("job" = String, Path)),
    responses((status = 200, body = JobResult), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn result(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<JobResult> {
    let job = owned(&app, &job, &method, &uri, &headers, &Bytes::new())?;
    let status = describe(&app, &job)?;
    let Some(report) = app.store.report(job.id)? else {
        let why = status.error.as_ref().map_or("it is not finished yet".to_owned(), |error| error.message.clone());
        return Err(Refusal::new(StatusCode::CONFLICT, "job-without-result", format!("the job has no result: {why}")));
    };
    let fault = |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "coordinator-database", error);
    Ok(Json(JobResult { status, report: serde_json::from_slice(&report).map_err(fault)? }))
}

/// The sites' releases of a job, each with the proof that it is in the site's witnessed log.
#[utoipa::path(get, path = "/v1/jobs/{job}/receipts", params(("job" = String, Path)),
    responses((status = 200, body = Vec<Receipt>), (status = 404, body = ApiError)))]
pub(crate) async fn receipts(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<Vec<Receipt>> {
    let job = owned(&app, &job, &method, &uri, &headers, &Bytes::new())?;
    let receipt = |Proven { round, site, release, receipt }: Proven| Receipt {
        round,
        site: text(&site),
        release: String::from_utf8_lossy(&release).into_owned(),
        leaf: receipt.leaf,
        proof: receipt.proof,
    };
    Ok(Json(app.store.receipts(job.id)?.into_iter().map(receipt).collect()))
}

/// The manifest of a job, as its owner signed it.
#[utoipa::path(get, path = "/v1/jobs/{job}/manifest", params(("job" = String, Path)),
    responses((status = 200, description = "The envelope"), (status = 404, body = ApiError)))]
pub(crate) async fn manifest(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Vec<u8>, Refusal> {
    Ok(owned(&app, &job, &method, &uri, &headers, &Bytes::new())?.envelope)
}

/// The consortium's trust bundle: a DSSE envelope, to be believed for who signed it.
#[utoipa::path(get, path = "/v1/trust",
    responses((status = 200, description = "The envelope"), (status = 404, body = ApiError)))]
pub(crate) async fn trust(State(app): State<App>) -> Result<Vec<u8>, Refusal> {
    app.store.bundle()?.ok_or_else(|| Refusal::missing("trust bundle"))
}

/// Cancels a job. What its rounds were charged at the sites stays charged.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", params(("job" = String, Path)),
    responses((status = 200, body = JobStatus), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<JobStatus> {
    let job = owned(&app, &job, &method, &uri, &headers, &body)?;
    if !app.cancel(job.id)? && job.state != JobState::Cancelled {
        return Err(Refusal::new(StatusCode::CONFLICT, "job-ended", "the job has ended already"));
    }
    let job = app.store.job(job.id)?.ok_or_else(|| Refusal::missing("job"))?;
    Ok(Json(describe(&app, &job)?))
}

/// The caller's job of that id; anybody else's is as if it were not there.
pub(super) fn owned(
    app: &App,
    id: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Job, Refusal> {
    let (_, key) = caller(app, method, uri, headers, body)?;
    let id: JobId = id.parse().map_err(|_| Refusal::missing("job"))?;
    app.store.job(id)?.filter(|job| app.same_person(&job.owner, &key)).ok_or_else(|| Refusal::missing("job"))
}

pub(super) fn describe(app: &App, job: &Job) -> Result<JobStatus, Refusal> {
    let fault = |error: &dyn std::fmt::Display| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "coordinator-database", error);
    let signed = vestibule_protocol::manifest::Signed::verify(&job.envelope, &[job.owner]).map_err(|error| fault(&error))?;
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    };
    let reason = |reason: &Option<(String, String)>| {
        reason.as_ref().map(|(code, message)| ApiError { code: code.clone(), message: message.clone() })
    };
    let site = |site: &crate::store::JobSite| JobSite {
        site: text(&site.site),
        state: word(serde_json::to_value(site.state)),
        reason: reason(&site.reason),
    };
    Ok(JobStatus {
        job: job.id.to_string(),
        title: signed.manifest().title.to_string(),
        state: word(serde_json::to_value(job.state)),
        rounds: job.rounds,
        max_rounds: job.max_rounds,
        submitted: job.submitted,
        epsilon: signed.budget().epsilon(),
        delta: signed.budget().delta(),
        sites: app.store.job_sites(job.id)?.iter().map(site).collect(),
        error: reason(&job.error),
    })
}
