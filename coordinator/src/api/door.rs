//! The API's door: takes connections, and speaks HTTP/1.1 on each.
//!
//! *In*: TCP. *Out*: calls, each with its [`Visit`]. *Refuses*: HTTP/2 (one connection of it could hold what hundreds may), heads over
//! 32 KiB or slower than 10 s, anybody who takes 30 s without a call that a registered key signed, peers that do not take what they
//! are sent. Where it is full, those make room who have waited longest: see [`lobby`]. *Stops*: with its token, at once.

mod lobby;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) use lobby::Visit;
use lobby::{IDLE, Lobby};

/// A head's bytes, and what is held of a body or an answer that its reader does not take yet.
const BUFFER: usize = 32 << 10;
/// A head's lines.
const HEADERS: usize = 64;
/// How long a head may take.
const HEAD: Duration = Duration::from_secs(10);
/// After the system had no descriptor left for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`; all connections end with it.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (lobby, mut guests) = (Arc::new(Lobby::default()), JoinSet::new());
    loop {
        while guests.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                if let Some(visit) = Lobby::enter(&lobby, from.ip(), Instant::now()) {
                    guests.spawn(converse(stream, visit, router.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                lobby.make_room();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One connection, to its end.
async fn converse(stream: TcpStream, visit: Visit, router: Router) {
    // One that is gone already ends by itself.
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(IDLE));
    let _ = stream.set_nodelay(true);
    let own = visit.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(own.clone());
        router.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    loop {
        let now = Instant::now();
        let Some(left) = visit.left(now) else { return };
        tokio::select! {
            biased;
            () = visit.asked_to_leave() => return,
            // How it ended is the peer's affair.
            _ = &mut connection => return,
            () = tokio::time::sleep(left) => {}
        }
    }
}
