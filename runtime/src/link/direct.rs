//! Asking a witness that is no site, over HTTPS (<https://c2sp.org/tlog-witness>): no coordinator can keep that back.
//!
//! *In*: where the trust bundle says that it is asked, and what the log asks. *Out*: its answer, as another site gives it. *Trusts*: nothing: only what the
//! witness and the log signed counts, no matter who carried it. *Refuses*: answers that are too long, other addresses than the bundle's.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::tls::{RootCerts, TlsConfig};
use vestibule_protocol::log::note::MAX_NOTE_BYTES;
use vestibule_protocol::log::proof::LAST_CHECKPOINT;
use vestibule_protocol::message::Cosigned;

/// How long the whole of it may take.
const PATIENCE: Duration = Duration::from_secs(8);

static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).timeout_global(Some(PATIENCE));
    config.tls_config(tls).build().into()
});

/// Asks. Blocks.
pub(super) fn add_checkpoint(url: &str, request: &str) -> Result<Cosigned, String> {
    let text = |error: ureq::Error| error.to_string();
    let mut answer = AGENT.post(format!("{url}/add-checkpoint")).content_type("text/plain").send(request).map_err(text)?;
    let status = answer.status().as_u16();
    let shown = answer.headers().get(LAST_CHECKPOINT).and_then(|shown| STANDARD.decode(shown.as_bytes()).ok());
    let body = match shown.filter(|_| status == 409) {
        Some(shown) => String::from_utf8(shown).map_err(|error| error.to_string())?,
        None => answer.body_mut().with_config().limit(MAX_NOTE_BYTES as u64).read_to_string().map_err(text)?,
    };
    Ok(Cosigned { status, body })
}
