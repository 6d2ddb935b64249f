//! Tells the coordinator of decisions about what waits here, so that it offers those rounds again.
//!
//! *In*: a connection. *Out*: [`Decided`], soon after another process of this site booked a
//! decision, or set other rules. *Stops*: with the connection. Offers themselves wait for nobody: one
//! that a person must decide about is answered, and its stream is free.

use std::sync::Arc;
use std::time::Duration;

use vestibule_link::{Framed, LinkError};
use vestibule_protocol::message::{Decided, Done, MAX_DECIDED};

use super::serve::blocking;
use crate::site::Site;

/// How often the queue is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Looks until the connection ends. What was decided before it began, the coordinator finds out when
/// it offers everything again.
pub(super) async fn tell(site: Arc<Site>, connection: quinn::Connection) -> Result<(), LinkError> {
    let mut seen = None;
    loop {
        let at = Arc::clone(&site);
        match blocking(move || at.decided(seen.unwrap_or_default())).await? {
            Ok((mark, jobs)) => {
                if seen.is_some() {
                    for jobs in jobs.chunks(MAX_DECIDED) {
                        let mut stream = Framed::open(&connection).await?;
                        stream.send(&Decided { jobs: jobs.to_vec() }).await?;
                        stream.receive::<Done>().await?;
                    }
                }
                seen = Some(mark);
            }
            Err(error) => tracing::error!(%error, "the queue cannot be read"),
        }
        tokio::select! {
            gone = connection.closed() => return Err(LinkError::Closed(gone.to_string())),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
