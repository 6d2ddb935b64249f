//! Runs what the coordinator needs of analyses (`plan`, `next`, a look at a component) in worker processes behind the walls that sites have.
//!
//! *In*: a component, and what its function is called with; for whom. *Out*: plans and steps, checked. *Trusts*: code that this coordinator
//! compiled and sealed; nothing that a worker says. *Refuses*: a call that takes longer than it may. Few calls run at a time, each person has a
//! fair share of the places, and anyone who finds none free waits: that is never the analysis' fault.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_protocol::name::Name;
use vestibule_protocol::release::Released;
use vestibule_protocol::round::Plan;
use vestibule_sandbox::{CodeCache, CodeStore, Shape, Step, code_name};
use vestibule_worker::{Launch, Places, Refusal, Worker, WorkerError};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The analysis or the sandbox refused, in words made of public input.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The worker.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
}

impl CallError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Worker(error) => error.code(),
            Self::Stopping => "coordinator-stopping",
        }
    }

    /// Whether the coordinator is at fault, and the same call may do later.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self, Self::Worker(WorkerError::Start(_)) | Self::Stopping)
    }
}

/// Runs analyses. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Analyses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    launch: Launch,
    cache: CodeCache,
    time: Duration,
    places: Places<Name>,
    /// A worker that was started already, for the next caller.
    spare: Mutex<Option<Worker>>,
}

impl Analyses {
    /// `cache` must be sealed with a secret of this coordinator that is used for nothing else. Each call may take `time`; so many
    /// `places`, of which one person has all but one at most.
    #[must_use]
    pub fn new(launch: Launch, cache: CodeCache, time: Duration, places: usize) -> Self {
        let places = places.max(1);
        let places = Places::new(places, places.saturating_sub(1));
        Self(Arc::new(Inner { launch, cache, time, places, spare: Mutex::default() }))
    }

    /// What does not hold of the wall around workers, in words. Blocks.
    ///
    /// # Errors
    /// No worker can be started.
    pub fn gaps(&self) -> Result<Vec<String>, WorkerError> {
        Ok(self.0.worker()?.walls().gaps())
    }

    /// Whether a component is one that could be run. It is read when there is a place: those that wait take no memory.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn inspect(
        &self,
        who: &Name,
        component: impl FnOnce() -> std::io::Result<Vec<u8>> + Send + 'static,
    ) -> Result<(), CallError> {
        self.call(who, move |inner| {
            let component = component().map_err(WorkerError::Start)?;
            inner.worker()?.inspect(&component)?.map_err(CallError::Refused)
        })
        .await
    }

    /// What a component wants to read.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn plan(&self, who: &Name, component: Arc<[u8]>, (params, limits): (String, Limits)) -> Result<Plan, CallError> {
        self.call(who, move |inner| inner.loaded(&component)?.plan(&params, limits)?.map_err(CallError::Refused)).await
    }

    /// What comes next, given all that was released so far.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn next(
        &self,
        who: &Name,
        component: Arc<[u8]>,
        (params, limits): (String, Limits),
        (shape, history): (Arc<Shape>, Vec<Vec<Released>>),
    ) -> Result<Step, CallError> {
        let next = move |inner: &Inner| {
            inner.loaded(&component)?.next(&params, (&shape, &history), limits)?.map_err(CallError::Refused)
        };
        self.call(who, next).await
    }

    /// One call, once there is a place, on a thread that may wait. It runs to its end, and its place is free then, no matter who still waits for it.
    async fn call<T: Send + 'static>(
        &self,
        who: &Name,
        call: impl FnOnce(&Inner) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let place = self.0.places.take(who).await;
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || {
            let done = call(&inner);
            drop(place);
            inner.refill();
            done
        });
        done.await.map_err(|_| CallError::Stopping)?
    }
}

impl Inner {
    fn worker(&self) -> Result<Worker, WorkerError> {
        let spare = self.spare().take().and_then(|mut worker| worker.is_alive().then_some(worker));
        let mut worker = spare.map_or_else(|| Worker::start(&self.launch), Ok)?;
        worker.allow(self.time);
        Ok(worker)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Worker>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a worker ready for the next call. That none can be started, callers will hear.
    fn refill(&self) {
        if self.spare().is_none()
            && let Ok(worker) = Worker::start(&self.launch)
        {
            *self.spare() = Some(worker);
        }
    }

    /// A component in a fresh worker; compiled before, in another, if it never was.
    fn loaded(&self, component: &[u8]) -> Result<Worker, CallError> {
        let mut worker = self.worker()?;
        let name = code_name(worker.engine(), Digest::of(component));
        let code = match self.cache.open(&name) {
            Some(code) => code,
            None => {
                let code = worker.compile(component)?.map_err(CallError::Refused)?;
                self.cache.keep(&name, &code);
                worker = self.worker()?;
                code
            }
        };
        worker.load(&code, component)?.map_err(CallError::Refused)?;
        Ok(worker)
    }
}

/// Compiled code in a folder. Not trusted: it is sealed.
#[derive(Debug)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl CodeStore for Folder {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(name)).ok()
    }

    fn put(&self, name: &str, sealed: &[u8]) {
        let mut random = [0; 8];
        // Code that could not be kept is compiled again.
        let written = getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string())).and_then(|()| {
            let part = self.0.join(format!("{name}.{}.part", vestibule_protocol::digest::hex(&random)));
            let written = write(&part, sealed).and_then(|()| std::fs::rename(&part, self.0.join(name)));
            written.inspect_err(|_| drop(std::fs::remove_file(&part)))
        });
        if let Err(error) = written {
            tracing::warn!(%error, "compiled code could not be kept");
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}
