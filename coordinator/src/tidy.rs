//! Removes documents that nothing names any more.
//!
//! *In*: the store, the folder of documents. *Out*: room. *Refuses*: to remove what a job, a site or a fresh upload names.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::run::now;
use crate::shared::Shared;
use crate::store::StoreError;

/// A component that no job names is kept for so long after its upload.
const UNNAMED_SECONDS: i64 = 7 * 24 * 3_600;
/// How often it is looked at.
const PAUSE: Duration = Duration::from_secs(3_600);

/// Tidies now and then, until dropped.
pub(crate) async fn tidy(shared: Arc<Shared>) {
    let mut pause = tokio::time::interval(PAUSE);
    loop {
        pause.tick().await;
        let at = Arc::clone(&shared);
        let tidied = tokio::task::spawn_blocking(move || once(&at, now(), SystemTime::now())).await;
        match tidied {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "documents that nothing named were removed"),
            Ok(Err(error)) => tracing::warn!(%error, "documents that nothing names could not be removed"),
        }
    }
}

fn once(shared: &Shared, now: i64, clock: SystemTime) -> Result<usize, StoreError> {
    shared.store.forget_components(now.saturating_sub(UNNAMED_SECONDS))?;
    let named: HashSet<_> = shared.store.named()?.into_iter().collect();
    let removed = shared.documents.remove_unnamed(&named, clock);
    removed.map_err(|error| StoreError::Database(format!("blobs: {error}")))
}
