//! A coordinator's API behind a TLS proxy with a certificate of the consortium's own authority.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::world::{BINARY, World};

/// Answers one request after the other: each connection carries one, and is closed after its answer.
fn proxy(config: Arc<ServerConfig>, listener: TcpListener, api: SocketAddr) {
    for incoming in listener.incoming() {
        let (config, Ok(socket)) = (Arc::clone(&config), incoming) else { continue };
        std::thread::spawn(move || -> Option<()> {
            let mut near = StreamOwned::new(ServerConnection::new(config).ok()?, socket);
            let mut request = vec![0; 1 << 16];
            let length = near.read(&mut request).ok()?;
            let text = String::from_utf8_lossy(&request[..length]).replacen("\r\n", "\r\nconnection: close\r\n", 1);
            let mut far = TcpStream::connect(api).ok()?;
            far.write_all(text.as_bytes()).ok()?;
            let mut answer = vec![];
            far.read_to_end(&mut answer).ok()?;
            near.write_all(&answer).ok()?;
            near.conn.send_close_notify();
            near.flush().ok()
        });
    }
}

fn list(dir: &Path, url: &str, trusted: &Path) -> (i32, serde_json::Value) {
    let output = Command::new(BINARY)
        .args(["--json", "job", "list", "--key", "ada.pem", "--coordinator", url])
        .current_dir(dir)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn the_api_is_called_over_https_and_only_with_a_certificate_that_the_machine_trusts() {
    let world = World::new(&[]);
    let made = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(world.dir().join(name), made.cert.pem()).unwrap();
        made
    };
    let (ours, _other) = (made("ours.pem"), made("other.pem"));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(ours.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![ours.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let api = world.api_address();
    std::thread::spawn(move || proxy(Arc::new(config), listener, api));
    let (code, jobs) = list(world.dir(), &url, &world.dir().join("ours.pem"));
    assert_eq!((code, jobs), (0, serde_json::json!([])));
    let (code, refused) = list(world.dir(), &url, &world.dir().join("other.pem"));
    assert_eq!((code, &refused["error"]["code"]), (3, &"coordinator-unreachable".into()), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().to_lowercase().contains("certificate"), "{refused}");
}
