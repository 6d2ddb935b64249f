//! Live progress: the job's status as server-sent events, once at first and again whenever it changes, until it has ended.

use std::convert::Infallible;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};

use super::caller::Owned;
use super::shares::What;
use super::stay::Stay;
use super::types::{ApiError, JobStatus};
use super::{App, Refusal};

/// A job's status, live.
#[utoipa::path(get, path = "/v1/jobs/{job}/events", params(("job" = String, Path)),
    responses((status = 200, description = "Server-sent events; the data of each is a JobStatus", content_type = "text/event-stream", body = JobStatus),
        (status = 404, body = ApiError), (status = 429, body = ApiError)))]
pub(crate) async fn events(
    State(app): State<App>,
    Extension(stay): Extension<Stay>,
    Owned { job, caller }: Owned,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    stay.hold(app.shares.begin(&caller.name, What::Stream, Instant::now())?);
    let told = WatchStream::new(app.live.listen(job)).filter_map(|text| text.map(|text| Ok(Event::default().data(&*text))));
    Ok(Sse::new(told).keep_alive(KeepAlive::default()))
}
