//! The sandbox of the command line, which keeps compiled analyses in the user's cache folder: a submission compiles a component
//! only once.
//!
//! *In*: `XDG_CACHE_HOME`, or `HOME`. *Out*: a [`Sandbox`]. *Trusts*: nothing in that folder but the key, which only the user can read.
//! Where there is no such folder, or it cannot be written, everything is compiled each time.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use vestibule_runtime::component::CodeFolder;
use vestibule_sandbox::{CodeCache, Sandbox, Settings};
use zeroize::Zeroizing;

use crate::failure::coded;
use crate::files::random;

const KEY: &str = "code.key";

/// A sandbox; with `symbols`, panics of guests are heard.
pub(crate) fn sandbox(symbols: bool) -> Result<Sandbox> {
    let settings = Settings { symbols, cache: cache().map(std::sync::Arc::new), ..Settings::default() };
    Sandbox::new(settings).map_err(|error| coded(error.code(), error))
}

fn cache() -> Option<CodeCache> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    let path = base.join("vestibule");
    std::fs::create_dir_all(path.join("code")).ok()?;
    let folder = Dir::open_ambient_dir(path, ambient_authority()).ok()?;
    let key = key(&folder)?;
    Some(CodeCache::new(Box::new(CodeFolder(folder.open_dir("code").ok()?)), &key))
}

/// The secret that seals what this user compiled. `None` while another process is writing it.
fn key(folder: &Dir) -> Option<Zeroizing<[u8; 32]>> {
    let new = folder.open_with(KEY, OpenOptions::new().write(true).create_new(true).mode(0o600));
    if let Ok(mut file) = new {
        let key = Zeroizing::new(random::<32>().ok()?);
        file.write_all(key.as_slice()).ok()?;
        return Some(key);
    }
    Some(Zeroizing::new(Zeroizing::new(folder.read(KEY).ok()?).as_slice().try_into().ok()?))
}
