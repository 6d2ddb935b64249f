//! Calls of the coordinator's API, each signed with the researcher's key.
//!
//! *In*: a base URL and a key. *Out*: the documents of `vestibule_coordinator::api::types`. *Refuses*: answers over their size.

use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use ureq::tls::{RootCerts, TlsConfig};
use vestibule_coordinator::api::types::{
    ApiError, JobResult, JobStatus, JoinAnswer, JoinRequest, Receipt, Site, Stored, Submitted, researcher_join_message,
};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::request::authorize;
use vestibule_protocol::words::{Code, Country, Organisation, Sentence};

use crate::failure::{Exit, Failure, coded};
use crate::files::now;

/// Most bytes of one answer: a report has at most 8 million cells.
const MAX_ANSWER_BYTES: u64 = 1 << 30;

/// How long a job that is followed waits before the coordinator is called again, and how often it is: ten minutes.
const PAUSE: Duration = Duration::from_millis(500);
const MOST_TRIES: u32 = 1_200;

/// A coordinator, as one researcher calls it.
pub(crate) struct Client {
    agent: ureq::Agent,
    base: String,
    key: SecretKey,
}

impl Client {
    pub(crate) fn new(base: &str, key: SecretKey) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .tls_config(tls.build());
        Self { agent: config.build().into(), base: base.trim_end_matches('/').to_owned(), key }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> anyhow::Error {
        let message =
            format!("the coordinator at {} cannot be reached: {error}; is it running, and is the URL right?", self.base);
        Failure::of(Exit::Peer, "coordinator-unreachable", message)
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> Result<ureq::http::Response<ureq::Body>> {
        let url = format!("{}{path}", self.base);
        let header = authorize(method, path, body, now(), &self.key);
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", header)
            .header("content-type", "application/json")
            .body(body)
            .map_err(|error| Failure::input("url-malformed", format!("`{url}`: {error}")))?;
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

    pub(crate) fn jobs(&self) -> Result<Vec<JobStatus>> {
        self.json("GET", "/v1/jobs", &[])
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
        let mut failed = 0;
        loop {
            let answer = match self.call("GET", &format!("/v1/jobs/{job}/events"), &[]) {
                // It was there: it may be starting again.
                Err(_) if (1..MOST_TRIES).contains(&failed) => {
                    failed += 1;
                    std::thread::sleep(PAUSE);
                    continue;
                }
                answer => answer?,
            };
            failed = 1;
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
