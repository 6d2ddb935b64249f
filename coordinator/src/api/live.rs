//! How jobs stand, live: each change is described once, no matter how many listen.
//!
//! *In*: which jobs change. *Out*: the newest description of each job that somebody listens to. *Refuses*: nothing; a reader who is
//! slow misses what lies between, and it holds nobody up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use vestibule_protocol::job::JobId;

use super::{App, calls};

/// Between two looks: what changes meanwhile is described together.
const PAUSE: Duration = Duration::from_millis(50);

/// A job's status as JSON.
pub(crate) type Text = Arc<str>;

/// The jobs that somebody listens to.
#[derive(Debug)]
pub(crate) struct Live {
    listened: Mutex<HashMap<JobId, watch::Sender<Option<Text>>>>,
    changes: broadcast::Sender<JobId>,
    /// From the beginning, so that no change falls between; for the one who describes.
    heard: Mutex<Option<broadcast::Receiver<JobId>>>,
}

impl Live {
    pub(crate) fn new(changes: &broadcast::Sender<JobId>) -> Self {
        let heard = Mutex::new(Some(changes.subscribe()));
        Self { listened: Mutex::default(), changes: changes.clone(), heard }
    }

    fn listened(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<Option<Text>>>> {
        self.listened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears how a job stands, soon and after each change, until it has ended.
    pub(crate) fn listen(&self, job: JobId) -> watch::Receiver<Option<Text>> {
        let heard = self.listened().entry(job).or_insert_with(|| watch::Sender::new(None)).subscribe();
        // As if it had changed: it is described with all that did.
        let _ = self.changes.send(job);
        heard
    }

    /// Those of the changed jobs, or of all, that somebody listens to. Those whom nobody listens to any more are forgotten.
    fn wanted(&self, changed: Option<&HashSet<JobId>>) -> Vec<JobId> {
        let mut listened = self.listened();
        listened.retain(|_, sender| sender.receiver_count() > 0);
        listened.keys().filter(|job| changed.is_none_or(|changed| changed.contains(*job))).copied().collect()
    }

    /// Tells all who listen. After the end nothing comes: their streams end.
    fn tell(&self, job: JobId, text: Text, ended: bool) {
        let mut listened = self.listened();
        if let Some(sender) = listened.get(&job) {
            sender.send_replace(Some(text));
        }
        if ended {
            listened.remove(&job);
        }
    }
}

/// Describes what changes, until dropped.
pub(crate) async fn describe(app: App) {
    let heard = app.live.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut heard) = heard else { return std::future::pending().await };
    loop {
        let mut changed = HashSet::new();
        let mut all = match heard.recv().await {
            Ok(job) => !changed.insert(job),
            // Some changes were missed: look at all.
            Err(RecvError::Lagged(_)) => true,
            Err(RecvError::Closed) => return,
        };
        loop {
            match heard.try_recv() {
                Ok(job) => drop(changed.insert(job)),
                Err(TryRecvError::Lagged(_)) => all = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for job in app.live.wanted((!all).then_some(&changed)) {
            let described = app.ask(move |app| calls::jobs::text_of(app, job)).await;
            match described {
                Ok(Some((text, ended))) => app.live.tell(job, text, ended),
                Ok(None) => drop(app.live.listened().remove(&job)),
                Err(error) => tracing::warn!(%job, ?error, "a job could not be described"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_who_listen_hear_the_same_words_and_end_with_the_job() {
        let (changes, _) = broadcast::channel(4);
        let live = Live::new(&changes);
        let job = JobId::from_bytes([1; 16]);
        let (mut one, mut other) = (live.listen(job), live.listen(job));
        assert_eq!(live.wanted(Some(&HashSet::from([JobId::from_bytes([2; 16])]))), []);
        assert_eq!(live.wanted(Some(&HashSet::from([job]))), [job]);
        live.tell(job, "half".into(), false);
        // A slow reader misses what lies between, and never the last.
        live.tell(job, "done".into(), true);
        for listener in [&mut one, &mut other] {
            listener.changed().await.unwrap();
            assert_eq!(listener.borrow_and_update().as_deref(), Some("done"));
            assert!(listener.changed().await.is_err(), "the stream ends");
        }
        assert_eq!(live.wanted(None), []);
    }

    #[test]
    fn a_job_that_nobody_listens_to_is_not_described() {
        let (changes, _) = broadcast::channel(4);
        let live = Live::new(&changes);
        let job = JobId::from_bytes([1; 16]);
        drop(live.listen(job));
        assert_eq!(live.wanted(None), []);
        assert!(live.listened().is_empty());
    }
}
