//! The description names every route. Unsigned calls are refused before their bodies are read, and none is answered that was signed for
//! another coordinator, made before, or is not its caller's.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{Request as Call, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Frame;
use tower::ServiceExt as _;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::JobId;
use vestibule_protocol::key::SecretKey;
use vestibule_protocol::request;
use vestibule_protocol::round::{Partitioning, Plan};
use vestibule_protocol::token::{Invitation, Role};
use vestibule_worker::Launch;

use super::*;
use crate::analyses::Analyses;
use crate::documents::Documents;
use crate::run::now;
use crate::store::{NewJob, PersonRequest, Request, Store};

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32]).unwrap()
}

const COORDINATOR: u8 = 9;
const ADA: u8 = 1;
const BOB: u8 = 2;
const APPROVER: u8 = 3;
const NOBODY: u8 = 4;

struct World {
    _temp: tempfile::TempDir,
    app: App,
}

impl World {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("c.sqlite")).unwrap();
        for (name, seed, role) in
            [("ada", ADA, Role::Researcher), ("bob", BOB, Role::Researcher), ("eve", APPROVER, Role::Approver)]
        {
            let (invited, own) = (key(seed + 100).public(), key(seed).public());
            store.invite(&invitation(name, role), invited).unwrap();
            let person = PersonRequest { organisation: "o".parse().unwrap(), country: "NL".parse().unwrap(), key: own };
            let request = if role == Role::Approver { Request::Approver(person) } else { Request::Researcher(person) };
            store.join(invited, own, &request, 1).unwrap();
        }
        store.publish(1, b"bundle").unwrap();
        for seed in 1..=3 {
            store.submit(job(seed)).unwrap();
        }
        std::fs::create_dir(temp.path().join("blobs")).unwrap();
        let documents = Documents::new(&temp.path().join("blobs"));
        documents.put(b"component").unwrap();
        documents.put(b"dictionary").unwrap();
        store.take_component(&"ada".parse().unwrap(), Digest::of(b"component"), 9, 1, 100).unwrap();
        let cache = vestibule_sandbox::CodeCache::new(Box::new(crate::analyses::Folder(temp.path().to_owned())), &[0; 32]);
        let analyses = Analyses::new(Launch::this_program(64), cache, Duration::from_secs(1), 1);
        let shared = Arc::new(Shared::new(store, documents, analyses));
        Self { _temp: temp, app: Api::new(shared, key(COORDINATOR).public(), 100) }
    }

    fn invite(&self, name: &str, invited: &SecretKey, role: Role) {
        self.app.shared.store.invite(&invitation(name, role), invited.public()).unwrap();
    }

    async fn send(&self, call: Call<Body>) -> (StatusCode, serde_json::Value, Response<()>) {
        let (head, body) = router(Arc::clone(&self.app)).oneshot(call).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let document = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into());
        (head.status, document, Response::from_parts(head, ()))
    }

    /// Status and code, or an empty one.
    async fn said(&self, call: Call<Body>) -> (u16, String) {
        let (status, document, _) = self.send(call).await;
        (status.as_u16(), document["code"].as_str().unwrap_or_default().to_owned())
    }
}

fn invitation(name: &str, role: Role) -> Invitation {
    Invitation {
        role,
        name: name.parse().unwrap(),
        quic: String::new(),
        tunnel: None,
        api: String::new(),
        coordinator: key(COORDINATOR).public(),
        consortium: Digest::of(b"roots"),
        expires: i64::MAX,
    }
}

fn job(seed: u8) -> NewJob {
    NewJob {
        id: JobId::from_bytes([seed; 16]),
        envelope: b"envelope".to_vec(),
        manifest: Digest::of(&[seed]),
        owner: key(ADA).public(),
        submitted: seed.into(),
        title: "a job".to_owned(),
        epsilon: 0.5,
        delta: 1e-6,
        sites: vec![],
        documents: vec![Digest::of(b"component")],
        plan: Plan { columns: vec![], variants: vec![], partitioning: Partitioning::Each, max_rounds: 1 },
    }
}

/// A call's head: signed for a coordinator, by a key, with a nonce.
fn header(method: &str, path: &str, body: &[u8], who: u8, (coordinator, nonce): (u8, u8)) -> String {
    let coordinator = key(coordinator).public();
    request::Call { coordinator: &coordinator, method, path }.authorize(body, now(), [nonce; 16], &key(who))
}

fn call(method: &str, path: &str, header: &str, body: impl Into<Body>) -> Call<Body> {
    Call::builder().method(method).uri(path).header("authorization", header).body(body.into()).unwrap()
}

fn signed(method: &str, path: &str, who: u8, nonce: u8) -> Call<Body> {
    call(method, path, &header(method, path, b"", who, (COORDINATOR, nonce)), Body::empty())
}

#[test]
fn every_route_is_described() {
    let description: serde_json::Value = serde_json::from_str(&DESCRIPTION).unwrap();
    let mut described: Vec<String> = description["paths"].as_object().unwrap().keys().cloned().collect();
    described.push("/openapi.json".to_owned());
    described.sort();
    let source = include_str!("../api.rs");
    let mut routes: Vec<String> =
        source.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")?.split('"').next().map(str::to_owned)).collect();
    routes.sort();
    assert_eq!(described, routes);
}

/// A body that says whether anybody asked for it.
struct Watched(Arc<AtomicBool>);

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    }
}

/// Of whatever the description names: a new route is in it by itself.
#[tokio::test]
async fn no_call_without_a_known_key_is_answered_or_has_its_body_read() {
    let world = World::new();
    let description: serde_json::Value = serde_json::from_str(&DESCRIPTION).unwrap();
    let mut tried = 0;
    for (route, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            if ["/v1/health", "/v1/researchers"].contains(&route.as_str()) {
                continue;
            }
            let path = route.replace("{job}", &JobId::from_bytes([1; 16]).to_string());
            let path = path.replace("{digest}", &Digest::of(b"component").to_string());
            let good = header(&method, &path, b"x", ADA, (COORDINATOR, tried));
            let forged = good.replace("signature=", "signature=AAAA");
            let others = header(&method, &path, b"x", NOBODY, (COORDINATOR, tried));
            let elsewhere = header(&method, &path, b"x", ADA, (COORDINATOR - 1, tried));
            let cases = [
                ("", 401, "request-unsigned"),
                (&*forged, 401, "request-signature"),
                (&*others, 403, "researcher-unknown"),
                (&*elsewhere, 401, "request-signature"),
            ];
            for (header, status, code) in cases {
                let read = Arc::new(AtomicBool::new(false));
                let body = Body::new(Watched(Arc::clone(&read)));
                let said = world.said(call(&method, &path, header, body)).await;
                assert_eq!(said, (status, code.to_owned()), "{method} {path}");
                assert!(!read.load(Ordering::Relaxed), "{method} {path} reads the body");
            }
            let twice =
                Call::builder().method(&*method).uri(&path).header("authorization", &good).header("authorization", &good);
            assert_eq!(world.said(twice.body(Body::empty()).unwrap()).await.0, 401, "{method} {path}: two headers");
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
}

/// Who says of themselves what no bundle could say of them.
#[tokio::test]
async fn who_could_stand_in_no_bundle_does_not_join() {
    let world = World::new();
    let (invited, own) = (key(200), key(5));
    world.invite("max", &invited, Role::Researcher);
    let message = types::researcher_join_message(&invited.public(), &own.public());
    let by = |key: &SecretKey| STANDARD.encode(key.sign(&message));
    let join = |organisation: &str, country: &str| {
        let request = serde_json::json!({
            "invitation": invited.public().to_string(), "key": own.public().to_string(),
            "by_invitation": by(&invited), "by_key": by(&own), "organisation": organisation, "country": country,
        });
        let call = Call::builder().method("POST").uri("/v1/researchers").header("content-type", "application/json");
        world.send(call.body(Body::from(request.to_string())).unwrap())
    };
    let (long, longest) = ("x".repeat(201), "x".repeat(200));
    for (organisation, country) in [("o\u{1b}[2J", "NL"), (&*long, "NL"), ("", "NL"), ("o", "xx"), ("o", "NLD"), ("o", "")] {
        let (status, document, _) = join(organisation, country).await;
        assert_eq!((status.as_u16(), &document["code"]), (422, &"join-malformed".into()), "{organisation:?} {country:?}");
        let why = document["message"].as_str().unwrap();
        assert!(why.contains("expected ") && !why.contains('\u{1b}'), "{why:?}");
    }
    let (status, document, _) = join(&longest, "NL").await;
    assert_eq!((status.as_u16(), &document["name"]), (200, &"max".into()), "{document}");
}

#[tokio::test]
async fn a_change_is_made_once_and_a_look_as_often_as_one_likes() {
    let world = World::new();
    let path = format!("/v1/jobs/{}/cancel", JobId::from_bytes([1; 16]));
    let head = header("POST", &path, b"", ADA, (COORDINATOR, 1));
    assert_eq!(world.said(call("POST", &path, &head, "")).await.0, 200);
    assert_eq!(world.said(call("POST", &path, &head, "")).await, (409, "request-repeated".to_owned()));
    assert_eq!(world.said(signed("POST", &path, ADA, 2)).await.0, 200, "signed anew");
    for _ in 0..2 {
        assert_eq!(world.said(signed("GET", "/v1/jobs", ADA, 3)).await.0, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_not_the_signed_one_is_refused() {
    let world = World::new();
    let head = header("POST", "/v1/jobs", b"signed", ADA, (COORDINATOR, 1));
    assert_eq!(world.said(call("POST", "/v1/jobs", &head, "other")).await, (401, "request-signature".to_owned()));
    let large = vec![0; vestibule_protocol::dsse::MAX_ENVELOPE_BYTES + 1];
    let head = header("POST", "/v1/jobs", &large, ADA, (COORDINATOR, 2));
    assert_eq!(world.said(call("POST", "/v1/jobs", &head, large)).await, (413, "request-too-large".to_owned()));
    let path = format!("/v1/components/{}", Digest::of(b"other"));
    let head = header("PUT", &path, b"signed", ADA, (COORDINATOR, 3));
    assert_eq!(world.said(call("PUT", &path, &head, "signed")).await, (422, "component-digest".to_owned()));
}

#[tokio::test]
async fn other_peoples_jobs_and_components_are_as_if_they_were_not_there() {
    let world = World::new();
    let path = |end: &str| format!("/v1/jobs/{}{end}", JobId::from_bytes([1; 16]));
    for (method, end) in
        [("GET", ""), ("GET", "/result"), ("GET", "/receipts"), ("GET", "/manifest"), ("GET", "/events"), ("POST", "/cancel")]
    {
        assert_eq!(world.said(signed(method, &path(end), BOB, 1)).await, (404, "not-found".to_owned()), "{end}");
    }
    assert_eq!(world.send(signed("GET", &path("/manifest"), ADA, 1)).await.1, "envelope");
    let jobs = world.send(signed("GET", "/v1/jobs", BOB, 1)).await.1;
    assert_eq!(jobs, serde_json::json!({ "jobs": [], "next": null }));
    let document = |bytes: &[u8]| format!("/v1/documents/{}", Digest::of(bytes));
    for (who, component, dictionary) in [(ADA, 200, 200), (BOB, 404, 200), (APPROVER, 403, 403)] {
        assert_eq!(world.said(signed("GET", &document(b"component"), who, 1)).await.0, component);
        assert_eq!(world.said(signed("GET", &document(b"dictionary"), who, 1)).await.0, dictionary);
    }
    // The trust bundle names people: it is for members, and for all of them.
    for (who, status) in [(ADA, 200), (BOB, 200), (APPROVER, 200), (NOBODY, 403)] {
        assert_eq!(world.said(signed("GET", "/v1/trust", who, 1)).await.0, status);
    }
}

#[tokio::test]
async fn lists_come_page_by_page() {
    let world = World::new();
    let (_, page, _) = world.send(signed("GET", "/v1/jobs", ADA, 1)).await;
    assert_eq!(page["jobs"].as_array().unwrap().len(), 3);
    assert_eq!(page["jobs"][0]["submitted"], 3);
    let (_, page, _) = world.send(signed("GET", "/v1/jobs?after=3.9223372036854775807", ADA, 1)).await;
    assert_eq!(page["jobs"].as_array().unwrap().len(), 3);
    let (_, page, _) = world.send(signed("GET", "/v1/jobs?after=2.0", ADA, 1)).await;
    assert_eq!(page["jobs"].as_array().unwrap().len(), 1);
    for query in ["after=x", "after=1", "after=1.x", "before=1.1", "after=99999999999999999999.1"] {
        let said = world.said(signed("GET", &format!("/v1/jobs?{query}"), ADA, 1)).await;
        assert_eq!(said, (422, "page-malformed".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_person_who_calls_too_often_is_told_when_to_come_again_and_others_are_served() {
    let world = World::new();
    let mut refused = None;
    for _ in 0..1_000 {
        let (status, document, head) = world.send(signed("GET", "/v1/trust", BOB, 1)).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            assert_eq!(document["code"], "too-many-calls");
            refused = head.headers().get("retry-after").map(|seconds| seconds.to_str().unwrap().parse::<u64>().unwrap());
            break;
        }
    }
    assert_eq!(refused, Some(1));
    assert_eq!(world.said(signed("GET", "/v1/trust", ADA, 1)).await.0, 200);
}

#[tokio::test]
async fn a_component_that_is_here_is_not_read_again_and_one_without_room_not_at_all() {
    let world = World::new();
    let put = |bytes: &[u8], length: u64, nonce| {
        let path = format!("/v1/components/{}", Digest::of(bytes));
        let read = Arc::new(AtomicBool::new(false));
        let head = header("PUT", &path, bytes, ADA, (COORDINATOR, nonce));
        let mut call = call("PUT", &path, &head, Body::new(Watched(Arc::clone(&read))));
        call.headers_mut().insert("content-length", length.into());
        (call, read)
    };
    for (bytes, length, status, code, reads) in [
        (b"component".as_slice(), 9, 200, "", false),
        (b"another", 92, 507, "component-quota", false),
        (b"another", 0, 413, "component-size", false),
        (b"another", (64 << 20) + 1, 413, "component-size", false),
        // It ends before it began.
        (b"another", 91, 422, "component-digest", true),
    ] {
        let (call, read) = put(bytes, length, u8::try_from(length % 251).unwrap());
        assert_eq!(world.said(call).await, (status, code.to_owned()), "{length}");
        assert_eq!(read.load(Ordering::Relaxed), reads, "{length}");
    }
}
