//! Compiled code between runs. Loading machine code is the one thing here that could break the sandbox from outside, so nothing
//! is loaded that this host did not compile itself.
//!
//! *In*: code that was just compiled, or the name of code that may be stored. *Out*: code whose seal is ours. Stored: the HMAC
//! (SHA-256, keyed with a secret of this host, over the name and the code), then the code. The name is the component's digest
//! and the digest of everything that decides how it is compiled: wasmtime's version, the settings, the processor's features.
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

    /// Code for this component that this host compiled earlier with the same settings.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let name = name(engine, digest);
        let sealed = self.store.get(&name)?;
        let (tag, code) = sealed.split_at_checked(TAG_BYTES)?;
        verify(&self.key, &message(&name, code), tag).ok()?;
        // SAFETY: `deserialize` runs what it is given as machine code, and asks that it be what `serialize` returned. The tag was
        // verified just now over this very buffer with a key that only this host holds and uses for nothing else, and the only
        // thing ever sealed with it, in `save` below, is what `Component::serialize` returned here. Engine settings and wasmtime's
        // version are in the name, which the tag covers, and are checked once more by wasmtime.
        #[expect(unsafe_code, reason = "wasmtime offers no safe way to load compiled code; argued above")]
        unsafe { Component::deserialize(engine, code) }.ok()
    }

    /// Keeps code that was just compiled.
    pub(crate) fn save(&self, engine: &Engine, digest: Digest, component: &Component) {
        let Ok(code) = component.serialize() else { return };
        let name = name(engine, digest);
        let tag = sign(&self.key, &message(&name, &code));
        self.store.put(&name, &[tag.as_ref(), &code].concat());
    }
}

fn message(name: &str, code: &[u8]) -> Vec<u8> {
    // The name has a fixed length, so name and code cannot be shifted against each other.
    [name.as_bytes(), code].concat()
}

fn name(engine: &Engine, digest: Digest) -> String {
    let mut settings = Bytes(Vec::new());
    engine.precompile_compatibility_hash().hash(&mut settings);
    format!("{}-{}", digest.hex(), Digest::of(&settings.0).hex())
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
