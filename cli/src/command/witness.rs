//! `vestibule witness`: an oversight body that is no site, and cosigns sites' logs when they ask.
//!
//! *In*: a folder with a key, the fingerprint of a consortium's roots, the bundle that they signed, and what was cosigned last. *Out*: an HTTP service
//! (<https://c2sp.org/tlog-witness>) to put behind a proxy that speaks TLS. *Trusts*: its folder. *Refuses*: logs that the bundle does not name, and such as do not begin
//! with what they showed before; those it keeps.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use serde_json::json;
use tokio::sync::Semaphore;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::log::checkpoint::Checkpoint;
use vestibule_protocol::log::proof::{LAST_CHECKPOINT, MAX_BYTES};
use vestibule_protocol::message::Cosigned;
use vestibule_protocol::trust::{Trust, TrustError};
use vestibule_runtime::witness::{Known, Stance, Witness as Memory, verifier};

use super::daemon;
use super::key::make;
use crate::failure::{Failure, coded};
use crate::files::{now, read, read_bytes, secret_key, write};

#[derive(Debug, Subcommand)]
pub(crate) enum Witness {
    /// Make a witness in DIR, with a key of its own, for the consortium whose roots have that fingerprint. Prints what its roots put into consortium.toml.
    Init {
        /// A new folder.
        dir: PathBuf,
        /// The fingerprint, compared by phone or on paper.
        consortium: Digest,
    },
    /// Believe a bundle that the consortium's roots signed: it says which logs there are, by which keys. Holds at once.
    Believe {
        /// The witness' folder.
        dir: PathBuf,
        /// The bundle.
        bundle: PathBuf,
    },
    /// Cosign what sites ask for, over HTTP, until Ctrl-C or SIGTERM. Put a proxy with TLS before it: sites ask an https:// address.
    Serve {
        /// The witness' folder.
        dir: PathBuf,
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:8420")]
        listen: SocketAddr,
    },
    /// Say that what this witness remembers was compared with the logs, after it was restored from a copy: it counts again. It is not needed where
    /// other witnesses have cosigned since: it takes their word, log by log.
    Vouch {
        /// The witness' folder.
        dir: PathBuf,
    },
    /// What was cosigned of each log, and what logs signed that does not continue it.
    Seen {
        /// The witness' folder.
        dir: PathBuf,
    },
}

const KEY: &str = "witness.pem";
const MEMORY: &str = "witness.sqlite";
const CONSORTIUM: &str = "consortium";
const TRUST: &str = "trust.json";
/// Requests that are looked at or wait at the same time. A site asks once for each answer that leaves.
const MAX_REQUESTS: usize = 64;

impl Witness {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::Init { dir, consortium } => init(&dir, consortium, json),
            Self::Believe { dir, bundle } => {
                let trust = believe(&dir, &read_bytes(&bundle)?)?;
                let (version, expires) = (trust.bundle().version, trust.bundle().expires.clone());
                let text = format!("version {version}, until {expires}: {} logs", trust.bundle().sites.len());
                println!("{}", if json { json!({ "version": version, "expires": expires }).to_string() } else { text });
                Ok(())
            }
            Self::Serve { dir, listen } => {
                believed(&dir)?;
                let at = Arc::new(Serving { memory: memory(&dir)?, dir, turns: Semaphore::new(MAX_REQUESTS) });
                daemon(async |stop| serve(at, listen, stop).await, |_| "witness-address")
            }
            Self::Vouch { dir } => {
                let path = dir.join(MEMORY);
                Memory::vouch(&path, secret_key(&dir.join(KEY))?.seed())
                    .map_err(|error| Failure::input("witness-memory", format!("{}: {error}", path.display())))?;
                println!("{}", if json { json!({ "vouched": true }).to_string() } else { "it counts again".to_owned() });
                Ok(())
            }
            Self::Seen { dir } => seen(&dir, json),
        }
    }
}

fn init(dir: &Path, consortium: Digest, json: bool) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::input("file-unwritable", format!("{}: {error}", dir.display())))?;
    let key = make(&dir.join(KEY), false)?;
    write(&dir.join(CONSORTIUM), format!("{consortium}\n"))?;
    let path = dir.join(MEMORY);
    let secret = secret_key(&dir.join(KEY))?;
    let seed = zeroize::Zeroizing::new(*secret.seed());
    Memory::create(&path, secret, &seed)
        .map_err(|error| Failure::input("witness-memory", format!("{}: {error}", path.display())))?;
    let vkey = verifier(key.public()).vkey();
    let text = format!("[[overseer]]\nname = \"...\"\nvkey = \"{vkey}\"\nurl = \"https://...\"");
    println!("{}", if json { json!({ "vkey": vkey, "key": key.public() }).to_string() } else { text });
    Ok(())
}

/// The bundle that is believed.
fn believed(dir: &Path) -> Result<Trust> {
    let path = dir.join(TRUST);
    if !path.exists() {
        return Err(Failure::input(
            "trust-missing",
            format!("{}: no bundle is believed yet: `vestibule witness believe`", dir.display()),
        ));
    }
    Trust::stored(&read_bytes(&path)?).map_err(failed)
}

/// Believes a bundle, if it follows from the last one.
fn believe(dir: &Path, envelope: &[u8]) -> Result<Trust> {
    let trust = if dir.join(TRUST).exists() {
        believed(dir)?.next(envelope).map_err(failed)?
    } else {
        let pinned = read(&dir.join(CONSORTIUM))?;
        let pinned = pinned.trim().parse().map_err(|error| Failure::input("trust-fingerprint", error))?;
        Trust::first(envelope, pinned).map_err(failed)?
    };
    // Whole or not at all: a service that runs reads it.
    let part = dir.join("trust.json.part");
    write(&part, envelope)?;
    std::fs::rename(&part, dir.join(TRUST))?;
    Ok(trust)
}

fn failed(error: TrustError) -> anyhow::Error {
    coded(error.code(), error)
}

fn memory(dir: &Path) -> Result<Memory> {
    let path = dir.join(MEMORY);
    let secret = secret_key(&dir.join(KEY))?;
    let seed = zeroize::Zeroizing::new(*secret.seed());
    Memory::open(&path, secret, &seed, u64::try_from(now()).unwrap_or(0))
        .map_err(|error| Failure::input("witness-memory", format!("{}: {error}", path.display())))
}

struct Serving {
    memory: Memory,
    dir: PathBuf,
    turns: Semaphore,
}

async fn serve(at: Arc<Serving>, listen: SocketAddr, stop: tokio_util::sync::CancellationToken) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    let routes = Router::new().route("/add-checkpoint", post(add)).layer(DefaultBodyLimit::max(MAX_BYTES)).with_state(at);
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// One request of a log.
async fn add(State(at): State<Arc<Serving>>, body: Bytes) -> (StatusCode, HeaderMap, String) {
    let busy = |code: StatusCode| (code, HeaderMap::new(), String::new());
    let Ok(_turn) = at.turns.try_acquire() else { return busy(StatusCode::SERVICE_UNAVAILABLE) };
    let answering = {
        let at = Arc::clone(&at);
        tokio::task::spawn_blocking(move || answer(&at, &body))
    };
    match answering.await {
        Ok(Ok(Cosigned { status, body })) => http(status, body),
        Ok(Err(error)) => {
            eprintln!("a checkpoint was not cosigned: {error}");
            busy(StatusCode::INTERNAL_SERVER_ERROR)
        }
        Err(_) => busy(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn answer(at: &Serving, body: &[u8]) -> Result<Cosigned> {
    let Ok(request) = std::str::from_utf8(body) else { return Ok(Cosigned { status: 400, body: String::new() }) };
    // Read each time: another bundle holds at once.
    let trust = believed(&at.dir)?;
    let known = |origin: &str| Known::of(&trust, origin, &at.memory.key());
    Ok(at.memory.add(request, known, Stance::Cosigns, u64::try_from(now()).unwrap_or(0))?)
}

/// As C2SP has it: 409 says in the body how large the last one was. In a header, what a log of a site can believe.
fn http(status: u16, body: String) -> (StatusCode, HeaderMap, String) {
    let (status, mut headers) = (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), HeaderMap::new());
    match status {
        StatusCode::OK => (status, headers, body),
        StatusCode::CONFLICT => {
            let text = body.split_once("\n\n").map(|(text, _)| format!("{text}\n"));
            let size = text.as_deref().and_then(Checkpoint::parse).map_or(0, |last| last.size);
            headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/x.tlog.size"));
            if size > 0
                && let Ok(shown) = STANDARD.encode(&body).parse()
            {
                headers.insert(LAST_CHECKPOINT, shown);
            }
            (status, headers, format!("{size}\n"))
        }
        _ => (status, headers, String::new()),
    }
}

fn seen(dir: &Path, json: bool) -> Result<()> {
    let memory = memory(dir)?;
    let (logs, evidence) = (memory.seen()?, memory.evidence()?);
    if json {
        let logs: Vec<_> = logs.iter().map(|(origin, size)| json!({ "log": origin, "leaves": size })).collect();
        let lies: Vec<_> = evidence.iter().map(|(origin, request)| json!({ "log": origin, "request": request })).collect();
        println!("{}", json!({ "cosigned": logs, "evidence": lies }));
        return Ok(());
    }
    for (origin, size) in logs {
        println!("{origin}: {size} leaves");
    }
    for (origin, request) in evidence {
        println!("\n{origin} signed what does not continue that:\n{request}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_those_of_c2sp() {
        let (status, headers, body) = http(409, String::new());
        assert_eq!((status.as_u16(), headers.get(LAST_CHECKPOINT), body.as_str()), (409, None, "0\n"));
        let note = format!("log.example\n7\n{}\n\n\u{2014} log.example AAAA\n", STANDARD.encode([1; 32]));
        let (status, headers, body) = http(409, note.clone());
        assert_eq!(
            (status.as_u16(), body.as_str(), &headers["content-type"]),
            (409, "7\n", &"text/x.tlog.size".parse().unwrap())
        );
        assert_eq!(STANDARD.decode(headers[LAST_CHECKPOINT].as_bytes()).unwrap(), note.as_bytes());
        assert_eq!(http(200, "line\n".into()).2, "line\n");
        for status in [400, 403, 404, 422] {
            assert_eq!((http(status, note.clone()).0.as_u16(), http(status, note.clone()).2), (status, String::new()));
        }
    }
}
