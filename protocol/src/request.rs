//! How a person signs a call of the coordinator's HTTP API, so that only the owner of a job can submit, cancel or read it.
//!
//! *In*: the coordinator, method, path, body's digest, time, nonce and key. *Out*: the value of the `Authorization` header, or who
//! signed. *Refuses*: a call of another coordinator, a changed method or path, a time more than five minutes off, any other key.
//! What a header says of the body is signed too, so that all this is known before a byte of the body is read. Whether the body is
//! that one, and whether a nonce was seen before, is for the coordinator to look at.
//!
//! `Vestibule key=<ed25519:...>,time=<unix seconds>,nonce=<32 hex>,body=<sha256:...>,signature=<base64>`; signed:
//! `vestibule/request/2`, the coordinator's key, method, path with query, time, nonce and the body's digest, one a line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::{Digest, hex, unhex};
use crate::key::{PublicKey, SecretKey};

/// How far the two clocks may be apart, in seconds.
pub const MAX_CLOCK_SKEW_SECONDS: i64 = 300;

/// What makes two calls differ that are the same in all else.
pub type Nonce = [u8; 16];

/// A call that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No header, or not one of this form.
    #[error(
        "the call is not signed: an `Authorization: Vestibule key=...,time=...,nonce=...,body=...,signature=...` header is needed"
    )]
    Missing,
    /// The clocks are too far apart, or the call is an old one.
    #[error("the call was signed more than five minutes away from the coordinator's clock: check the time of both machines")]
    Time,
    /// The signature does not fit.
    #[error("the signature does not fit this call of this coordinator")]
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

/// A call, without what differs each time.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Whose API it is.
    pub coordinator: &'a PublicKey,
    /// `GET`, `PUT`, `POST`.
    pub method: &'a str,
    /// Path with query.
    pub path: &'a str,
}

impl Call<'_> {
    fn signed_text(&self, time: i64, nonce: &Nonce, body: Digest) -> String {
        let Self { coordinator, method, path } = self;
        format!("vestibule/request/2\n{coordinator}\n{method}\n{path}\n{time}\n{}\n{body}", hex(nonce))
    }

    /// The header's value for a call made at `now` (seconds since 1970, UTC). No two calls may have the same nonce.
    #[must_use]
    pub fn authorize(&self, body: &[u8], now: i64, nonce: Nonce, key: &SecretKey) -> String {
        let body = Digest::of(body);
        let signature = STANDARD.encode(key.sign(self.signed_text(now, &nonce, body).as_bytes()));
        format!("Vestibule key={},time={now},nonce={},body={body},signature={signature}", key.public(), hex(&nonce))
    }
}

/// What a header says; nothing of it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    key: PublicKey,
    time: i64,
    nonce: Nonce,
    body: Digest,
    signature: Vec<u8>,
}

/// A call that its key signed for this coordinator at about this time. Whether that key may make it is for others to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Who signed.
    pub key: PublicKey,
    /// When, in seconds since 1970.
    pub time: i64,
    /// What makes it differ from others.
    pub nonce: Nonce,
    /// The digest that its body must have.
    pub body: Digest,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// It is none, or of another form.
    pub fn parse(header: Option<&str>) -> Result<Self, RequestError> {
        let fields = header.and_then(|header| header.strip_prefix("Vestibule ")).ok_or(RequestError::Missing)?;
        let mut fields = fields.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name)).ok_or(RequestError::Missing);
        let read = Self {
            key: field("key=")?.parse().map_err(|_| RequestError::Missing)?,
            time: field("time=")?.parse().map_err(|_| RequestError::Missing)?,
            nonce: unhex(field("nonce=")?).ok_or(RequestError::Missing)?,
            body: field("body=")?.parse().map_err(|_| RequestError::Missing)?,
            signature: STANDARD.decode(field("signature=")?).map_err(|_| RequestError::Missing)?,
        };
        if fields.next().is_some() { Err(RequestError::Missing) } else { Ok(read) }
    }

    /// Whose call it says that it is: to be looked up before anything is reckoned.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Holds it against the call that it came with, at `now`.
    ///
    /// # Errors
    /// The time, or the signature.
    pub fn verify(self, call: Call<'_>, now: i64) -> Result<Signed, RequestError> {
        let Self { key, time, nonce, body, signature } = self;
        if now.checked_sub(time).is_none_or(|apart| apart.checked_abs().is_none_or(|apart| apart > MAX_CLOCK_SKEW_SECONDS)) {
            return Err(RequestError::Time);
        }
        if key.verify(call.signed_text(time, &nonce, body).as_bytes(), &signature) {
            Ok(Signed { key, time, nonce, body })
        } else {
            Err(RequestError::Signature)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32]).unwrap()
    }

    #[test]
    fn only_the_signed_call_of_that_coordinator_at_about_its_time_is_accepted() {
        let (coordinator, other) = (key(8).public(), key(7).public());
        let call = |coordinator, method, path| Call { coordinator, method, path };
        let jobs = call(&coordinator, "POST", "/v1/jobs");
        let header = jobs.authorize(b"body", 1_000, [1; 16], &key(9));
        let check = |call: Call<'_>, now| Header::parse(Some(&header)).unwrap().verify(call, now);
        let good = Signed { key: key(9).public(), time: 1_000, nonce: [1; 16], body: Digest::of(b"body") };
        assert_eq!(check(jobs, 1_000), Ok(good));
        assert_eq!(check(jobs, 1_300), Ok(good));
        assert_eq!(check(jobs, 1_301), Err(RequestError::Time));
        assert_eq!(check(jobs, i64::MIN), Err(RequestError::Time));
        assert_eq!(check(call(&coordinator, "GET", "/v1/jobs"), 1_000), Err(RequestError::Signature));
        assert_eq!(check(call(&coordinator, "POST", "/v1/jobs?x"), 1_000), Err(RequestError::Signature));
        assert_eq!(check(call(&other, "POST", "/v1/jobs"), 1_000), Err(RequestError::Signature));
    }

    #[test]
    fn a_header_whose_words_were_changed_is_not_accepted() {
        let coordinator = key(8).public();
        let jobs = Call { coordinator: &coordinator, method: "POST", path: "/v1/jobs" };
        let header = jobs.authorize(b"body", 1_000, [1; 16], &key(9));
        let (body, nonce) = (Digest::of(b"body").to_string(), hex(&[1; 16]));
        for (old, new) in [(&*body, &*Digest::of(b"other").to_string()), (&*nonce, &*hex(&[2; 16])), ("time=1000", "time=1001")]
        {
            let changed = header.replace(old, new);
            assert_ne!(changed, header);
            assert_eq!(Header::parse(Some(&changed)).unwrap().verify(jobs, 1_000), Err(RequestError::Signature), "{new}");
        }
        let more = format!("{header},key=x");
        for header in [None, Some(""), Some("Basic x"), Some("Vestibule key=x"), Some("Vestibule key=a,time=b"), Some(&more)] {
            assert_eq!(Header::parse(header), Err(RequestError::Missing));
        }
    }

    #[test]
    fn what_is_signed_is_written_as_it_always_was() {
        let coordinator = key(8).public();
        let call = Call { coordinator: &coordinator, method: "GET", path: "/v1/jobs?limit=2" };
        let text = format!(
            "vestibule/request/2\n{coordinator}\nGET\n/v1/jobs?limit=2\n7\n{}\n{}",
            "03".repeat(16),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(call.signed_text(7, &[3; 16], Digest::of(b"")), text);
    }
}
