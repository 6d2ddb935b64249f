//! A hostile load on a real coordinator: raw sockets without a key, and one person with hundreds of streams. Its memory and its
//! descriptors stay within stated limits, each such connection is gone after 30 s, and an honest person waits for nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

use crate::world::{World, wait};

/// What a connection without a key may cost.
const COST_KB: u64 = 64;
/// How long it may stay; and what a busy machine takes to say so.
const STAY: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_secs(5);
/// How long an honest person may wait for an answer that takes milliseconds, on a machine with two processors that runs other tests.
const LATENCY: Duration = Duration::from_secs(2);

/// Resident memory of the coordinator, in kB.
fn memory(world: &World) -> u64 {
    let (_, pid) = world.pids().into_iter().find(|(name, _)| name == "coordinator").unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream
}

/// A list and an unsigned answer, each within the latency.
fn honest(world: &World, what: &str) {
    for _ in 0..5 {
        let start = Instant::now();
        let (status, answer) = world.call("ada", "GET", "/v1/jobs", b"");
        assert_eq!(status, 200, "{what}: {}", String::from_utf8_lossy(&answer));
        assert!(start.elapsed() < LATENCY, "{what}: {:?}", start.elapsed());
    }
    let start = Instant::now();
    let mut stream = connect(world.api_address());
    stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
    assert!(start.elapsed() < LATENCY, "{what}: {:?}", start.elapsed());
}

/// Reads until the other end closes. How long it took, and what came.
fn closed(stream: &mut TcpStream, start: Instant) -> (Duration, String) {
    let mut came = Vec::new();
    let ended = stream.read_to_end(&mut came);
    let gone = |error: &std::io::Error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    assert!(ended.as_ref().map_or_else(gone, |_| true), "it is open after {:?}: {ended:?}", start.elapsed());
    (start.elapsed(), String::from_utf8_lossy(&came).into_owned())
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n")
}

#[test]
fn forty_unsigned_uploads_cost_next_to_nothing_and_are_not_read() {
    let world = World::new(&[]);
    honest(&world, "before");
    let (before, to) = (memory(&world), world.api_address());
    let start = Instant::now();
    std::thread::scope(|scope| {
        let uploads: Vec<_> = (0..40)
            .map(|number| {
                scope.spawn(move || {
                    let mut stream = connect(to);
                    let length = 62 << 20;
                    let forged = if number % 2 == 0 { "" } else { "authorization: Vestibule key=x\r\n" };
                    let head = head("PUT", "/v1/components/x", &format!("content-length: {length}\r\n{forged}"));
                    stream.write_all(head.as_bytes()).unwrap();
                    let piece = vec![b'x'; 1 << 20];
                    let mut sent = 0;
                    // Until the other end takes no more of it.
                    while sent < length && stream.write_all(&piece).is_ok() {
                        sent += piece.len();
                    }
                    (sent, closed(&mut stream, start).0)
                })
            })
            .collect();
        honest(&world, "during the uploads");
        let peak = memory(&world);
        assert!(peak < before + 40 * COST_KB, "{before} kB, then {peak} kB");
        for upload in uploads {
            let (sent, took) = upload.join().unwrap();
            // What lies in the system's own buffers was sent, too.
            assert!(sent < 32 << 20, "{sent} bytes were taken");
            assert!(took < STAY + SLACK, "{took:?}");
        }
    });
    honest(&world, "after");
    assert!(memory(&world) < before + 40 * COST_KB);
}

#[test]
fn who_says_nothing_or_half_of_it_is_gone_after_thirty_seconds() {
    let world = World::new(&[]);
    let to = world.api_address();
    let half = [
        ("nothing", String::new()),
        ("half a head", "GET /v1/health HTTP/1.1\r\nhost:".to_owned()),
        (
            "half of a newcomer's body",
            head("POST", "/v1/researchers", "content-type: application/json\r\ncontent-length: 1000\r\n") + "{\"key\":",
        ),
        ("an idle connection", head("GET", "/v1/health", "")),
        ("half of an unsigned job", head("POST", "/v1/jobs", "content-length: 1000\r\n") + "{"),
        ("half of an unsigned component", head("PUT", "/v1/components/x", "content-length: 1000\r\n") + "x"),
    ];
    std::thread::scope(|scope| {
        let waiting: Vec<_> = half
            .iter()
            .map(|(what, sent)| {
                scope.spawn(move || {
                    let (start, mut stream) = (Instant::now(), connect(to));
                    stream.write_all(sent.as_bytes()).unwrap();
                    (*what, closed(&mut stream, start).0)
                })
            })
            .collect();
        let slow = scope.spawn(move || {
            // One letter of an endless head for each answer that does not come within a second.
            let (start, mut stream) = (Instant::now(), connect(to));
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            stream.write_all(b"GET /v1/health HTTP/1.1\r\nx: ").unwrap();
            loop {
                match stream.read(&mut [0; 1_024]) {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Ok(0) | Err(_) => return start.elapsed(),
                    Ok(_) => {}
                }
                if stream.write_all(b"x").is_err() {
                    return start.elapsed();
                }
                assert!(start.elapsed() < STAY * 2, "it is open");
            }
        });
        // And calls on one connection without an end, none of them signed.
        let busy = scope.spawn(move || {
            let (start, mut stream) = (Instant::now(), connect(to));
            let call = head("GET", "/v1/health", "");
            while stream.write_all(call.as_bytes()).is_ok() && !matches!(stream.read(&mut [0; 1_024]), Ok(0) | Err(_)) {
                assert!(start.elapsed() < STAY * 2, "it is open");
            }
            start.elapsed()
        });
        honest(&world, "beside the slow");
        for waiting in waiting {
            let (what, took) = waiting.join().unwrap();
            assert!(took < STAY + SLACK, "{what}: {took:?}");
        }
        let (slow, busy) = (slow.join().unwrap(), busy.join().unwrap());
        assert!(slow < STAY + SLACK && busy < STAY + SLACK, "{slow:?} {busy:?}");
    });
}

#[test]
fn http_2_and_absurd_heads_are_refused_at_once() {
    let world = World::new(&[]);
    let (before, to) = (memory(&world), world.api_address());
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned();
    let long = head("GET", "/v1/health", &format!("x: {}\r\n", "x".repeat(100 << 10)));
    let many = head("GET", "/v1/health", &"x: y\r\n".repeat(1_000));
    let path = head("GET", &format!("/{}", "x".repeat(100 << 10)), "");
    let upgrade = head(
        "GET",
        "/v1/health",
        "connection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    );
    for (what, sent) in
        [("a preface", preface), ("a long line", long), ("many lines", many), ("a long path", path), ("an upgrade", upgrade)]
    {
        let (start, mut stream) = (Instant::now(), connect(to));
        // It may be refused before all of it is sent.
        let _ = stream.write_all(sent.as_bytes());
        let (took, said) = closed(&mut stream, start);
        assert!(took < LATENCY, "{what}: {took:?}");
        let upgraded = said.starts_with("HTTP/1.1 101") || !(said.is_empty() || said.starts_with("HTTP/1.1 "));
        assert!(!upgraded, "{what}: {said:?}");
    }
    assert!(memory(&world) < before + 5 * COST_KB.max(1_024), "{before} kB, then {} kB", memory(&world));
    honest(&world, "after");
}

#[test]
fn eleven_hundred_idle_connections_keep_nobody_out_and_make_room() {
    let world = World::new(&[]);
    honest(&world, "before");
    let (_, pid) = world.pids().into_iter().find(|(name, _)| name == "coordinator").unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let few = Rlimit { current: Some(1_024), maximum: Some(1_024) };
    rustix::process::prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let own = rustix::process::getrlimit(Resource::Nofile);
    if own.maximum.is_some_and(|most| most < 4_096) {
        eprintln!("1,100 connections were not tried: this process may have few descriptors");
        return;
    }
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let before = memory(&world);
    let start = Instant::now();
    let mut idle: Vec<TcpStream> = (0..1_100).map(|_| connect(world.api_address())).collect();
    honest(&world, "beside 1,100 idle connections");
    // Half with a call that was answered, and is not signed.
    for stream in idle.iter_mut().rev().take(60) {
        stream.write_all(head("GET", "/openapi.json", "").as_bytes()).unwrap();
    }
    honest(&world, "beside 1,100 idle connections, some of which asked for something");
    let peak = memory(&world);
    assert!(peak < before + 512 * COST_KB, "{before} kB, then {peak} kB");
    let (took, _) = closed(&mut idle[0], start);
    assert!(took < STAY, "the first has made room: {took:?}");
    for stream in idle.iter_mut().rev().take(10) {
        let (took, _) = closed(stream, start);
        assert!(took < STAY + SLACK, "{took:?}");
    }
    honest(&world, "after");
}

#[test]
fn one_person_with_eight_hundred_event_streams_holds_nobody_up() {
    let mut world = World::new(&["leiden"]);
    world.ok(&["key", "new", "bob.pem"]);
    let token = world.ok(&["coordinator", "invite", "coordinator", "researcher", "bob"]);
    let token = token["token"].as_str().unwrap();
    world.ok(&["researcher", "join", token, "--key", "bob.pem", "--organisation", "test", "--country", "NL"]);
    world.kill_site("leiden");
    let toml = "epsilon = 0.5\ndelta = 1e-6\nsites = [\"*\"]\nmin_sites = 1\n[params]\ncolumns = [\"sex\"]\n";
    let job = world.submitted("cohort-summary", toml);
    let (before, path) = (memory(&world), format!("/v1/jobs/{job}/events"));
    // None of them is read beyond its first line.
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..800 {
        let authorization = format!("authorization: {}\r\n", world.authorize("ada", "GET", &path, b""));
        let mut stream = connect(world.api_address());
        stream.write_all(head("GET", &path, &authorization).as_bytes()).unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        match &line {
            b"HTTP/1.1 200" => open.push(stream),
            b"HTTP/1.1 429" => refused += 1,
            other => panic!("{}", String::from_utf8_lossy(other)),
        }
    }
    assert_eq!((open.len(), refused), (8, 792));
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(world.call("bob", "GET", "/v1/sites", b"").0, 200);
        assert!(start.elapsed() < LATENCY, "{:?}", start.elapsed());
    }
    let peak = memory(&world);
    assert!(peak < before + 16 * 1_024, "{before} kB, then {peak} kB");
    // The command line is told to come again, and does; those who listen hear the end, and are let go.
    world.start_site("leiden");
    assert_eq!(world.ended(&job)["state"], "finished");
    for stream in &mut open {
        let (_, said) = closed_stream(stream);
        assert!(said.contains("\"state\":\"finished\""), "{said}");
    }
    let (code, status) = world.job(&["watch", &job]);
    assert_eq!((code, &status["state"]), (0, &"finished".into()));
}

/// An event stream's rest: its connection stays, and its body ends.
fn closed_stream(stream: &mut TcpStream) -> (Duration, String) {
    let start = Instant::now();
    let mut said = String::new();
    let rest = wait("the end of a stream", || {
        let mut piece = [0; 4_096];
        let read = stream.read(&mut piece).unwrap();
        said.push_str(&String::from_utf8_lossy(&piece[..read]));
        (read == 0 || said.ends_with("\r\n0\r\n\r\n")).then(|| said.clone())
    });
    (start.elapsed(), rest)
}
