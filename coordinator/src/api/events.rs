//! Live progress: the job's status as server-sent events, once at first and again whenever it changes, until it has ended.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use vestibule_protocol::job::JobId;

use super::calls::{describe, owned};
use super::types::{ApiError, JobStatus};
use super::{App, Refusal};

/// Events that wait for a slow reader; what it misses is in the next one anyway.
const WAITING: usize = 16;

/// A job's status, live.
#[utoipa::path(get, path = "/v1/jobs/{job}/events", params(("job" = String, Path)),
    responses((status = 200, description = "Server-sent events; the data of each is a JobStatus", content_type = "text/event-stream", body = JobStatus),
        (status = 404, body = ApiError)))]
pub(crate) async fn events(
    State(app): State<App>,
    Path(job): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    // Listen first, then look: no change falls between.
    let mut changes = app.changes.subscribe();
    let job = owned(&app, &job, &method, &uri, &headers, &Bytes::new())?.id;
    let (send, receive) = tokio::sync::mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let Some(status) = current(&app, job) else { return };
            let ended = status.state != "running";
            let Ok(event) = Event::default().json_data(&status) else { return };
            if send.send(Ok(event)).await.is_err() || ended {
                return;
            }
            loop {
                match changes.recv().await {
                    Ok(changed) if changed == job => break,
                    Ok(_) => {}
                    // Some changes were missed: look again.
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    });
    Ok(Sse::new(ReceiverStream::new(receive)).keep_alive(KeepAlive::default()))
}

fn current(app: &App, job: JobId) -> Option<JobStatus> {
    let job = app.store.job(job).ok()??;
    describe(app, &job).ok()
}
