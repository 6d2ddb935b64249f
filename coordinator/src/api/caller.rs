//! Who calls: known from the head of a call alone, before its body is read.
//!
//! *In*: a call's head. *Out*: [`Member`], [`Caller`], [`Owned`], [`Written`]: a handler that takes one cannot be reached without it.
//! *Trusts*: signatures by registered keys. *Refuses*: unsigned calls, calls that were made before, keys that nobody knows, calls
//! beyond a person's share, other people's jobs, bodies that are not the signed ones.

use std::time::{Duration, Instant};

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, StatusCode, header};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::dsse::MAX_ENVELOPE_BYTES;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::request::{Call, Header};

use super::door::Visit;
use super::shares::What;
use super::stay::Stay;
use super::{App, Refusal};
use crate::run::now;

/// How long a signed body of a few hundred kilobytes may take.
const BODY: Duration = Duration::from_secs(30);

/// A person who joined or whom the trust bundle names.
#[derive(Debug)]
pub(crate) struct Member {
    /// Their name.
    pub(crate) name: Name,
    researcher: bool,
    key: PublicKey,
    body: Digest,
}

/// A researcher.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Their name.
    pub(crate) name: Name,
    /// The key that they signed with.
    pub(crate) key: PublicKey,
    /// The digest that the body must have.
    pub(crate) body: Digest,
}

/// A job of the caller's.
#[derive(Debug)]
pub(crate) struct Owned {
    /// The job.
    pub(crate) job: JobId,
    /// Whose it is.
    pub(crate) caller: Caller,
}

/// A small body, as the caller signed it.
#[derive(Debug)]
pub(crate) struct Written {
    /// Who signed it.
    pub(crate) caller: Caller,
    /// The body.
    pub(crate) body: Bytes,
}

impl FromRequestParts<App> for Member {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let mut headers = parts.headers.get_all(header::AUTHORIZATION).iter();
        let header = headers.next().filter(|_| headers.next().is_none()).and_then(|value| value.to_str().ok());
        let path = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let call = Call { coordinator: &app.key, method: parts.method.as_str(), path };
        let signed = Header::parse(header)?.verify(call, now())?;
        let known = app.ask(move |app| Ok(app.shared.who(&signed.key)?)).await?;
        let person = known.ok_or_else(|| {
            let why =
                "this key is not registered here: join with `vestibule researcher join` and the invitation you were given";
            Refusal::new(StatusCode::FORBIDDEN, "researcher-unknown", why)
        })?;
        let clock = Instant::now();
        app.shares.count(&person.name, clock)?;
        if parts.method != Method::GET && parts.method != Method::HEAD {
            app.nonces.take(&signed, now())?;
        }
        let pass = app.shares.begin(&person.name, What::Call, clock)?;
        if let Some(stay) = parts.extensions.get::<Stay>() {
            stay.hold(pass);
            if let Some(visit) = parts.extensions.get::<Visit>() {
                stay.hold(visit.begin());
            }
        }
        Ok(Self { name: person.name, researcher: person.researcher, key: signed.key, body: signed.body })
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let Member { name, researcher, key, body } = Member::from_request_parts(parts, app).await?;
        if !researcher {
            let why = "only researchers submit jobs and see them";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "researcher-unknown", why));
        }
        Ok(Self { name, key, body })
    }
}

impl FromRequestParts<App> for Owned {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let missing = || Refusal::missing("job");
        let Path(job) = Path::<String>::from_request_parts(parts, app).await.map_err(|_| missing())?;
        let job: JobId = job.parse().map_err(|_| missing())?;
        let key = caller.key;
        let own =
            app.ask(move |app| Ok(app.shared.store.owner(job)?.is_some_and(|owner| app.shared.same_person(&owner, &key))));
        if own.await? { Ok(Self { job, caller }) } else { Err(missing()) }
    }
}

impl FromRequest<App> for Written {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "request-slow", "the body did not come within 30 seconds");
        let read = tokio::time::timeout(BODY, to_bytes(body, MAX_ENVELOPE_BYTES)).await.map_err(late)?;
        let body = read.map_err(|_| {
            let why = format!("the body broke off, or has more than {MAX_ENVELOPE_BYTES} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", why)
        })?;
        if Digest::of(&body) != caller.body {
            let why = "the body is not the one that was signed";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "request-signature", why));
        }
        Ok(Self { caller, body })
    }
}
