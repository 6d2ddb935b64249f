//! How a researcher signs a call of the coordinator's HTTP API, so that only the owner of a job can submit, cancel or read it.
//!
//! *In*: method, path, body, time and key. *Out*: the value of the `Authorization` header, or who signed. *Refuses*: a changed
//! method, path or body, a time more than five minutes off, any other key.
//!
//! `Vestibule key=<ed25519:...>,time=<unix seconds>,signature=<base64>`; signed: `vestibule/request/1`, method, path with query,
//! time and the SHA-256 of the body, one a line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::Digest;
use crate::key::{PublicKey, SecretKey};

/// How far the two clocks may be apart, in seconds.
pub const MAX_CLOCK_SKEW_SECONDS: i64 = 300;

/// A call that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No header, or not one of this form.
    #[error("the call is not signed: an `Authorization: Vestibule key=...,time=...,signature=...` header is needed")]
    Missing,
    /// The clocks are too far apart, or the call is an old one.
    #[error("the call was signed more than five minutes away from the coordinator's clock: check the time of both machines")]
    Time,
    /// The signature does not fit.
    #[error("the signature does not fit this call")]
    Signature,
}

impl RequestError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "request-unsigned",
            Self::Time => "request-time",
            Self::Signature => "request-signature",
        }
    }
}

fn signed_text(method: &str, path: &str, time: i64, body: &[u8]) -> String {
    format!("vestibule/request/1\n{method}\n{path}\n{time}\n{}", Digest::of(body))
}

/// The header's value for a call made at `now` (seconds since 1970, UTC).
#[must_use]
pub fn authorize(method: &str, path: &str, body: &[u8], now: i64, key: &SecretKey) -> String {
    let signature = key.sign(signed_text(method, path, now, body).as_bytes());
    format!("Vestibule key={},time={now},signature={}", key.public(), STANDARD.encode(signature))
}

/// Whose call it is. Whether that key may make it is for the caller to decide.
///
/// # Errors
/// See [`RequestError`].
pub fn verify(header: Option<&str>, method: &str, path: &str, body: &[u8], now: i64) -> Result<PublicKey, RequestError> {
    let fields = header.and_then(|header| header.strip_prefix("Vestibule ")).ok_or(RequestError::Missing)?;
    let mut fields = fields.splitn(3, ',');
    let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(RequestError::Missing);
    let key: PublicKey = field("key=")?.parse().map_err(|_| RequestError::Missing)?;
    let time: i64 = field("time=")?.parse().map_err(|_| RequestError::Missing)?;
    let signature = STANDARD.decode(field("signature=")?).map_err(|_| RequestError::Missing)?;
    if now.checked_sub(time).is_none_or(|apart| apart.checked_abs().is_none_or(|apart| apart > MAX_CLOCK_SKEW_SECONDS)) {
        return Err(RequestError::Time);
    }
    if key.verify(signed_text(method, path, time, body).as_bytes(), &signature) {
        Ok(key)
    } else {
        Err(RequestError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_call_at_about_its_time_is_accepted() {
        let key = SecretKey::from_seed([9; 32]).unwrap();
        let header = authorize("POST", "/v1/jobs", b"body", 1_000, &key);
        let check = |method, path, body: &[u8], now| verify(Some(&header), method, path, body, now);
        assert_eq!(check("POST", "/v1/jobs", b"body", 1_000), Ok(key.public()));
        assert_eq!(check("POST", "/v1/jobs", b"body", 1_300), Ok(key.public()));
        assert_eq!(check("POST", "/v1/jobs", b"body", 1_301), Err(RequestError::Time));
        assert_eq!(check("POST", "/v1/jobs", b"body", i64::MIN), Err(RequestError::Time));
        assert_eq!(check("GET", "/v1/jobs", b"body", 1_000), Err(RequestError::Signature));
        assert_eq!(check("POST", "/v1/jobs?x", b"body", 1_000), Err(RequestError::Signature));
        assert_eq!(check("POST", "/v1/jobs", b"other", 1_000), Err(RequestError::Signature));
        for header in [None, Some(""), Some("Basic x"), Some("Vestibule key=x"), Some("Vestibule key=a,time=b,signature=c")] {
            assert_eq!(verify(header, "POST", "/v1/jobs", b"body", 1_000), Err(RequestError::Missing));
        }
    }
}
