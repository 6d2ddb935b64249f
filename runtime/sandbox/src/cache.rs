//! Compiled code between runs. Loading machine code is the one thing here that could break the sandbox from outside, so nothing
//! is loaded that this host did not compile itself.
//!
//! *In*: code that was just compiled, or the name of code that may be stored. *Out*: code whose seal is ours. Stored: the HMAC
//! (SHA-256, keyed with a secret of this host, over the name and the code), then the code. The name is the component's digest
//! and the digest of everything that decides how it is compiled: what is made of it first, wasmtime's version, the settings, the processor's features.
//! *Trusts*: the key. *Refuses*: silently, by compiling again, whatever is not sealed with it.

use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use vestibule_protocol::digest::Digest;
use wasmtime::Engine;
use wasmtime::component::Component;

const TAG_BYTES: usize = 32;

/// Where sealed code lies. Not trusted: it may hold anything.
pub trait CodeStore: Send + Sync {
    /// What was stored under this name, if anything. `name` is fit for a file name.
    fn get(&self, name: &str) -> Option<Vec<u8>>;
    /// Stores it, if that is possible.
    fn put(&self, name: &str, sealed: &[u8]);
}

/// A store with the key that seals what is in it.
pub struct CodeCache {
    store: Box<dyn CodeStore>,
    key: Key,
}

impl CodeCache {
    /// `key` must be a secret of this host that is used for nothing else.
    #[must_use]
    pub fn new(store: Box<dyn CodeStore>, key: &[u8; 32]) -> Self {
        Self { store, key: Key::new(HMAC_SHA256, key) }
    }

    /// Code of that name that this host compiled earlier.
    #[must_use]
    pub fn open(&self, name: &str) -> Option<Vec<u8>> {
        let sealed = self.store.get(name)?;
        let (tag, code) = sealed.split_at_checked(TAG_BYTES)?;
        verify(&self.key, &message(name, code), tag).ok()?;
        Some(code.to_vec())
    }

    /// Keeps code that was just compiled.
    pub fn keep(&self, name: &str, code: &[u8]) {
        let tag = sign(&self.key, &message(name, code));
        self.store.put(name, &[tag.as_ref(), code].concat());
    }
}

/// The name of a component's code for an engine.
#[must_use]
pub fn code_name(engine: Digest, component: Digest) -> String {
    format!("{}-{}", component.hex(), engine.hex())
}

/// What is done to a component before it is compiled. Another word here, and nothing that was compiled before is loaded again.
const MADE_OF: &[u8] = b"instrumented by wasmtime-wizer 48; fuel checked every 2,048 units, by table 1";

/// Everything that decides how a component is compiled: what is made of it first, wasmtime's version, the settings, the processor's features.
pub(crate) fn engine_digest(engine: &Engine) -> Digest {
    let mut settings = Bytes(MADE_OF.to_vec());
    engine.precompile_compatibility_hash().hash(&mut settings);
    Digest::of(&settings.0)
}

/// Code that [`Component::serialize`] returned, loaded.
///
/// # Safety
/// It is run as machine code: it must be what an engine of this version and these settings returned, byte for byte.
#[expect(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
pub(crate) unsafe fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the caller's promise.
    unsafe { Component::deserialize(engine, code) }
}

fn message(name: &str, code: &[u8]) -> Vec<u8> {
    // The name has a fixed length, so name and code cannot be shifted against each other.
    [name.as_bytes(), code].concat()
}

/// Takes what a value would hash, so that SHA-256 can hash it.
struct Bytes(Vec<u8>);

impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
    fn finish(&self) -> u64 {
        0
    }
}

impl fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeCache")
    }
}
