//! The daemon: listens for sites and researchers, drives jobs, until it is told to stop.
//!
//! *In*: a [`Home`], and a token that stops it. *Out*: an end. Order of stopping: the API takes no more calls, the endpoint closes
//! its connections, jobs stop where they are. All they need is in the store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use vestibule_link::{CLOSE_SHUTDOWN, LinkError, Tunnels};
use vestibule_protocol::tls::Pins;
use vestibule_worker::{Launch, WorkerError};

use crate::analyses::Analyses;
use crate::documents::Documents;
use crate::home::{Addresses, Home, HomeError};
use crate::shared::Shared;
use crate::{api, drive, home::private, link, tidy};

/// What one instance of an analysis may have here at most, beyond what is for `plan` and `next` alone.
const MEMORY_MIB: u32 = 256;

/// The daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No worker process can be started.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// An address.
    #[error(
        "`{address}` in coordinator.toml cannot be listened on ({why}): is another program using the port? Choose another, or 0 for any"
    )]
    Address {
        /// As written.
        address: String,
        /// What the system says.
        why: String,
    },
    /// The API or the store stopped.
    #[error("the coordinator had to stop: {0}")]
    Stopped(String),
}

impl RunError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Home(error) => error.code(),
            Self::Worker(error) => error.code(),
            Self::Link(error) => error.code(),
            Self::Address { .. } => "address-in-use",
            Self::Stopped(_) => "coordinator-stopped",
        }
    }
}

/// Seconds since 1970, UTC.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Runs the daemon until `stop`.
///
/// # Errors
/// See [`RunError`].
pub async fn run(home: Home, stop: CancellationToken) -> Result<(), RunError> {
    private::close_what_is_made();
    let _lock = home.lock()?;
    let settings = home.settings().clone();
    let address =
        |address: &str, why: &dyn std::fmt::Display| RunError::Address { address: address.to_owned(), why: why.to_string() };
    let quic: SocketAddr = settings.quic.parse().map_err(|error| address(&settings.quic, &error))?;
    let pins = Pins::default();
    let endpoint = vestibule_link::listen(quic, home.key(), pins.clone()).map_err(|error| address(&settings.quic, &error))?;
    let listener = TcpListener::bind(&settings.api).await.map_err(|error| address(&settings.api, &error))?;
    let (quic, http) = (endpoint.local_addr(), listener.local_addr());
    let (quic, http) =
        (quic.map_err(|error| address(&settings.quic, &error))?, http.map_err(|error| address(&settings.api, &error))?);
    let tunnels = match &settings.tunnel {
        Some(at) => Some(TcpListener::bind(at).await.map_err(|error| address(at, &error))?),
        None => None,
    };
    let tunnel = tunnels.as_ref().and_then(|listener| listener.local_addr().ok()).map(|at| at.to_string());
    let tunnels = tunnels.map(|listener| Tunnels::new(listener, quic, home.key(), pins.clone())).transpose()?;
    let time = Duration::from_secs(settings.max_public_seconds.max(1).into());
    let launch = Launch::this_program(MEMORY_MIB);
    let analyses = Analyses::new(launch, home.code_cache()?, time, settings.public_places);
    let walls = analyses.clone();
    let gaps = tokio::task::spawn_blocking(move || walls.gaps()).await;
    for gap in gaps.map_err(|error| RunError::Stopped(error.to_string()))?? {
        tracing::warn!(gap, "the wall around analyses is not whole");
    }
    let shared = Arc::new(Shared::new(home.store()?, Documents::new(&home.path().join("blobs")), analyses));
    tracing::info!(%quic, %http, tunnel, "listening");
    home.set_addresses(&Addresses { quic: quic.to_string(), tunnel, api: format!("http://{http}") })?;
    let component_bytes = u64::from(settings.component_mib_per_person) << 20;
    let app = api::Api::new(Arc::clone(&shared), home.key().public(), component_bytes);
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        () = api::serve(app, listener, stop.clone()) => Ok(()),
        () = tidy::tidy(Arc::clone(&shared)) => Ok(()),
        () = link::serve(Arc::clone(&shared), endpoint.clone(), pins.clone()) => Ok(()),
        () = link::tunnels(Arc::clone(&shared), tunnels, pins) => Ok(()),
        ended = drive::drive(shared) => ended.map_err(|error| RunError::Stopped(error.to_string())),
    };
    endpoint.close(CLOSE_SHUTDOWN, b"");
    endpoint.wait_idle().await;
    ended
}
