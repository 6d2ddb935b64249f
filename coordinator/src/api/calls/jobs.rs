//! Jobs: submitted by those who signed them, followed and cancelled by their owners.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use vestibule_protocol::job::JobId;

use super::Answer;
use crate::api::caller::{Caller, Owned, Written};
use crate::api::live::Text;
use crate::api::types::{ApiError, JobPage, JobResult, JobSite, JobStatus, Receipt, Submitted, text};
use crate::api::{Api, App, Refusal};
use crate::run::now;
use crate::store::{JobState, Place, Proven, Summary};

/// Jobs of one page.
const MAX_PAGE: usize = 100;

/// Submits a job: a manifest as a DSSE envelope, signed by the caller's own key.
#[utoipa::path(post, path = "/v1/jobs", request_body(content_type = "application/json"),
    responses((status = 200, body = Submitted), (status = 403, body = ApiError), (status = 422, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn submit(State(app): State<App>, Written { caller, body }: Written) -> Answer<Submitted> {
    let job = app.shared.submit(body.to_vec(), caller.key, now()).await?;
    Ok(Json(Submitted { job: job.to_string() }))
}

/// Which page of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// `next` of the page before.
    after: Option<String>,
}

/// The caller's jobs, newest first, a hundred at a time.
#[utoipa::path(get, path = "/v1/jobs", params(("after" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, body = JobPage), (status = 422, body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller, page: Result<Query<Page>, QueryRejection>) -> Answer<JobPage> {
    let malformed = || Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "page-malformed", "`after` is `next` of another page");
    let Query(Page { after }) = page.map_err(|_| malformed())?;
    let after = after.map(|after| place(&after).ok_or_else(malformed)).transpose()?;
    let found = app.ask(move |app| {
        let (jobs, next) = app.shared.store.page(&app.shared.keys_of(&caller.key), after, MAX_PAGE)?;
        let next = next.map(|Place { submitted, row }| format!("{submitted}.{row}"));
        Ok(JobPage { jobs: jobs.into_iter().map(describe).collect(), next })
    });
    Ok(Json(found.await?))
}

fn place(text: &str) -> Option<Place> {
    let (submitted, row) = text.split_once('.')?;
    Some(Place { submitted: submitted.parse().ok()?, row: row.parse().ok()? })
}

/// How a job stands.
#[utoipa::path(get, path = "/v1/jobs/{job}", params(("job" = String, Path)),
    responses((status = 200, body = JobStatus), (status = 404, body = ApiError)))]
pub(crate) async fn status(State(app): State<App>, Owned { job, .. }: Owned) -> Answer<JobStatus> {
    app.ask(move |app| status_of(app, job)).await.map(Json)
}

/// The report of a finished job.
#[utoipa::path(get, path = "/v1/jobs/{job}/result", params(("job" = String, Path)),
    responses((status = 200, body = JobResult), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn result(State(app): State<App>, Owned { job, .. }: Owned) -> Result<Response, Refusal> {
    let found = app.ask(move |app| {
        let status = status_of(app, job)?;
        let Some(report) = app.shared.store.report(job)? else {
            let why = status.error.as_ref().map_or("it is not finished yet", |error| &error.message);
            return Err(Refusal::new(StatusCode::CONFLICT, "job-without-result", format!("the job has no result: {why}")));
        };
        // It was written by this program, and is passed on as it is: it may be large.
        let mut document = [b"{\"status\":", json(&status)?.as_slice(), b",\"report\":", &report].concat();
        document.push(b'}');
        Ok(document)
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], found.await?).into_response())
}

/// The sites' releases of a job, each with the proof that it is in the site's witnessed log.
#[utoipa::path(get, path = "/v1/jobs/{job}/receipts", params(("job" = String, Path)),
    responses((status = 200, body = Vec<Receipt>), (status = 404, body = ApiError)))]
pub(crate) async fn receipts(State(app): State<App>, Owned { job, .. }: Owned) -> Result<Response, Refusal> {
    let receipt = |Proven { round, site, release, receipt }: Proven| Receipt {
        round,
        site: text(&site),
        release: String::from_utf8_lossy(&release).into_owned(),
        leaf: receipt.leaf,
        proof: receipt.proof,
    };
    let found = app.ask(move |app| json(&app.shared.store.receipts(job)?.into_iter().map(receipt).collect::<Vec<_>>()));
    Ok(([(header::CONTENT_TYPE, "application/json")], found.await?).into_response())
}

/// The manifest of a job, as its owner signed it.
#[utoipa::path(get, path = "/v1/jobs/{job}/manifest", params(("job" = String, Path)),
    responses((status = 200, description = "The envelope"), (status = 404, body = ApiError)))]
pub(crate) async fn manifest(State(app): State<App>, Owned { job, .. }: Owned) -> Result<Vec<u8>, Refusal> {
    app.ask(move |app| Ok(app.shared.store.job(job)?.ok_or_else(|| Refusal::missing("job"))?.envelope)).await
}

/// Cancels a job. What its rounds were charged at the sites stays charged.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", params(("job" = String, Path)),
    responses((status = 200, body = JobStatus), (status = 404, body = ApiError), (status = 409, body = ApiError)))]
pub(crate) async fn cancel(State(app): State<App>, Owned { job, .. }: Owned) -> Answer<JobStatus> {
    let cancelled = app.ask(move |app| {
        let ended = app.shared.cancel(job)?;
        let summary = app.shared.store.summary(job)?.ok_or_else(|| Refusal::missing("job"))?;
        if !ended && summary.state != JobState::Cancelled {
            return Err(Refusal::new(StatusCode::CONFLICT, "job-ended", "the job has ended already"));
        }
        Ok(describe(summary))
    });
    cancelled.await.map(Json)
}

fn status_of(app: &Api, job: JobId) -> Result<JobStatus, Refusal> {
    app.shared.store.summary(job)?.map(describe).ok_or_else(|| Refusal::missing("job"))
}

/// A job's status as JSON, and whether it has ended.
pub(crate) fn text_of(app: &Api, job: JobId) -> Result<Option<(Text, bool)>, Refusal> {
    let Some(summary) = app.shared.store.summary(job)? else { return Ok(None) };
    let ended = summary.state != JobState::Running;
    Ok(Some((String::from_utf8_lossy(&json(&describe(summary))?).into(), ended)))
}

fn json(document: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let fault = |error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "coordinator-fault", error);
    serde_json::to_vec(document).map_err(fault)
}

fn describe(summary: Summary) -> JobStatus {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    };
    let reason = |reason: Option<(String, String)>| reason.map(|(code, message)| ApiError { code, message });
    let site = |site: crate::store::JobSite| JobSite {
        site: text(&site.site),
        state: word(serde_json::to_value(site.state)),
        reason: reason(site.reason),
    };
    JobStatus {
        job: summary.id.to_string(),
        title: summary.title,
        state: word(serde_json::to_value(summary.state)),
        rounds: summary.rounds,
        max_rounds: summary.max_rounds,
        submitted: summary.submitted,
        epsilon: summary.epsilon,
        delta: summary.delta,
        sites: summary.sites.into_iter().map(site).collect(),
        error: reason(summary.error),
    }
}
