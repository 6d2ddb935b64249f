//! Calls of the coordinator's API, each signed with the researcher's key for that coordinator.
//!
//! *In*: a base URL, a key, and the coordinator's key that was pinned. *Out*: the documents of `vestibule_coordinator::api::types`.
//! *Refuses*: answers over their size. A coordinator that says when to ask again is asked again then.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use ureq::tls::{RootCerts, TlsConfig};
use vestibule_coordinator::api::types::{
    ApiError, JobPage, JobResult, JobStatus, JoinAnswer, JoinRequest, Receipt, Site, Stored, Submitted, researcher_join_message,
};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::{PublicKey, SecretKey};
use vestibule_protocol::request::Call;
use vestibule_protocol::words::{Code, Country, Organisation, Sentence};

use crate::failure::{Exit, Failure, coded};
use crate::files::{now, secret_key};
use crate::trust;

/// Most bytes of one answer: a report has at most 8 million cells.
const MAX_ANSWER_BYTES: u64 = 1 << 30;
/// How often a call is made again that was more than a share.
const TRIES: u32 = 60;
/// How long a coordinator may be away from one who follows a job, and how often it is called meanwhile.
const AWAY: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(500);

/// A coordinator, as one researcher calls it.
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    coordinator: PublicKey,
    key: SecretKey,
}

impl Client {
    /// For a person who has joined: what was pinned then lies beside their key.
    pub(crate) fn open(base: &str, key: &Path) -> Result<Self> {
        Ok(Self::new(base, trust::coordinator(key)?, secret_key(key)?))
    }

    pub(crate) fn new(base: &str, coordinator: PublicKey, key: SecretKey) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .tls_config(tls.build());
        Self { agent: config.build().into(), base: base.trim_end_matches('/').to_owned(), coordinator, key }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> anyhow::Error {
        let message =
            format!("the coordinator at {} cannot be reached: {error}; is it running, and is the URL right?", self.base);
        Failure::of(Exit::Peer, "coordinator-unreachable", message)
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<ureq::http::Response<ureq::Body>> {
        let url = format!("{}{path}", self.base);
        let call = Call { coordinator: &self.coordinator, method, path };
        for _ in 1..TRIES {
            let answer = self.once(&url, call, body)?;
            if answer.status() != ureq::http::StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer);
            }
            let seconds = answer.headers().get("retry-after").and_then(|seconds| seconds.to_str().ok()?.parse().ok());
            std::thread::sleep(Duration::from_secs(seconds.unwrap_or(1).clamp(1, 10)));
        }
        self.once(&url, call, body)
    }

    fn once(&self, url: &str, call: Call<'_>, body: &[u8]) -> Result<ureq::http::Response<ureq::Body>> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        let request = ureq::http::Request::builder()
            .method(call.method)
            .uri(url)
            .header("authorization", call.authorize(body, now(), nonce, &self.key))
            .header("content-type", "application/json");
        // What is refused by its head is not sent.
        let request = if call.method == "PUT" { request.header("expect", "100-continue") } else { request };
        let request = request.body(body).map_err(|error| Failure::input("url-malformed", format!("`{url}`: {error}")))?;
        self.agent.run(request).map_err(|error| self.unreachable(&error))
    }

    fn bytes(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut answer = self.call(method, path, body)?;
        let mut bytes = Vec::new();
        let read = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ApiError>(&bytes) {
            Ok(error) if error.code.parse::<Code>().is_ok() => Err(coded(&error.code, Sentence::cut(&error.message))),
            _ => {
                let text = format!("{} answered {}: is it a Vestibule coordinator?", self.base, answer.status());
                Err(Failure::of(Exit::Peer, "coordinator-answer", text))
            }
        }
    }

    fn json<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T> {
        let bytes = self.bytes(method, path, body)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::of(Exit::Peer, "coordinator-answer", format!("an answer cannot be read: {error}")))
    }

    pub(crate) fn sites(&self) -> Result<Vec<Site>> {
        self.json("GET", "/v1/sites", &[])
    }

    pub(crate) fn put_component(&self, component: &[u8]) -> Result<Stored> {
        self.json("PUT", &format!("/v1/components/{}", Digest::of(component)), component)
    }

    pub(crate) fn submit(&self, envelope: &[u8]) -> Result<Submitted> {
        self.json("POST", "/v1/jobs", envelope)
    }

    /// All jobs, newest first.
    pub(crate) fn jobs(&self) -> Result<Vec<JobStatus>> {
        let mut all = Vec::new();
        let mut path = "/v1/jobs".to_owned();
        loop {
            let JobPage { jobs, next } = self.json("GET", &path, &[])?;
            // A page without jobs is the last, no matter what it says.
            let next = next.filter(|_| !jobs.is_empty());
            all.extend(jobs);
            match next {
                Some(next) => path = format!("/v1/jobs?after={next}"),
                None => return Ok(all),
            }
        }
    }

    pub(crate) fn status(&self, job: &str) -> Result<JobStatus> {
        self.json("GET", &format!("/v1/jobs/{job}"), &[])
    }

    pub(crate) fn result(&self, job: &str) -> Result<JobResult> {
        self.json("GET", &format!("/v1/jobs/{job}/result"), &[])
    }

    pub(crate) fn receipts(&self, job: &str) -> Result<Vec<Receipt>> {
        self.json("GET", &format!("/v1/jobs/{job}/receipts"), &[])
    }

    /// A job's manifest, as it was signed.
    pub(crate) fn manifest(&self, job: &str) -> Result<Vec<u8>> {
        self.bytes("GET", &format!("/v1/jobs/{job}/manifest"), &[])
    }

    /// A component, dictionary or catalogue.
    pub(crate) fn document(&self, digest: Digest) -> Result<Vec<u8>> {
        self.bytes("GET", &format!("/v1/documents/{digest}"), &[])
    }

    /// The trust bundle's envelope.
    pub(crate) fn trust(&self) -> Result<Vec<u8>> {
        self.bytes("GET", "/v1/trust", &[])
    }

    pub(crate) fn cancel(&self, job: &str) -> Result<JobStatus> {
        self.json("POST", &format!("/v1/jobs/{job}/cancel"), &[])
    }

    /// Follows a job until it has ended, through lost connections; `seen` is called with every status.
    pub(crate) fn watch(&self, job: &str, mut seen: impl FnMut(&JobStatus)) -> Result<JobStatus> {
        let mut heard: Option<Instant> = None;
        loop {
            let answer = match self.call("GET", &format!("/v1/jobs/{job}/events"), &[]) {
                // It was there: it may be starting again.
                Err(_) if heard.is_some_and(|heard| heard.elapsed() < AWAY) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                answer => answer?,
            };
            if !answer.status().is_success() {
                return self.status(job);
            }
            let mut lines = BufReader::new(answer.into_body().into_reader()).lines();
            while let Some(Ok(line)) = lines.next() {
                let Some(status) = line.strip_prefix("data:").and_then(|data| serde_json::from_str::<JobStatus>(data).ok())
                else {
                    continue;
                };
                seen(&status);
                if status.state != "running" {
                    return Ok(status);
                }
            }
            // The stream broke: the coordinator may be starting again.
            heard = Some(Instant::now());
            std::thread::sleep(PAUSE);
        }
    }

    /// Redeems an invitation.
    pub(crate) fn join(&self, invitation: &SecretKey, organisation: Organisation, country: Country) -> Result<JoinAnswer> {
        let message = researcher_join_message(&invitation.public(), &self.key.public());
        let request = JoinRequest {
            invitation: invitation.public().to_string(),
            key: self.key.public().to_string(),
            by_invitation: STANDARD.encode(invitation.sign(&message)),
            by_key: STANDARD.encode(self.key.sign(&message)),
            organisation,
            country,
        };
        self.json("POST", "/v1/researchers", &serde_json::to_vec(&request)?)
    }
}
