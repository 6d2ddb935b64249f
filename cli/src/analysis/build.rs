//! `analysis build`: from a crate to a component that imports nothing.
//!
//! *In*: a crate that uses the SDK. *Out*: one file, the same bytes for the same source whatever folder it lies in. The crate is
//! compiled for wasm32-unknown-unknown, where `std` has nothing to call, and encoded as a component. *Refuses*: a machine
//! without the target that cannot get it, with what to do; a component that imports a function after all, by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use vestibule_protocol::digest::Digest;
use wit_component::ComponentEncoder;

use crate::failure::{Exit, Failure, coded};
use crate::files::write;

/// The target of every analysis.
const TARGET: &str = "wasm32-unknown-unknown";
/// Room for an ordinary analysis from the start: growing memory costs a site more than anything else it does for an individual.
const INITIAL_MEMORY_BYTES: u32 = 4 << 20;
const STACK_BYTES: u32 = 256 << 10;

/// What was built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its size.
    pub(crate) bytes: usize,
    /// Its digest.
    pub(crate) digest: Digest,
}

/// Builds the crate in `dir`; the component goes to `out`, by default `NAME.wasm` in `dir`.
pub(crate) fn build(dir: &Path, out: Option<&Path>, talk: &mut dyn FnMut(&str)) -> Result<Built> {
    ensure_target(talk)?;
    let dir = dir.canonicalize().map_err(|error| Failure::input("crate-missing", format!("{}: {error}", dir.display())))?;
    if !dir.join("Cargo.toml").exists() {
        return Err(Failure::input("crate-missing", format!("{} has no Cargo.toml: it is not a crate", dir.display())));
    }
    talk("compiling");
    let core = compile(&dir)?;
    let module = std::fs::read(&core)?;
    let encoded = ComponentEncoder::default().validate(true).module(&module).and_then(|encoder| encoder.encode());
    let component = encoded.map_err(|error| {
        Failure::input(
            "not-an-analysis",
            format!("{}: {error:#}; does the crate call `vestibule_sdk::analysis!`?", dir.display()),
        )
    })?;
    let inspection = vestibule_sandbox::inspect(&component).map_err(|error| coded(error.code(), error))?;
    if let Some(import) = inspection.imports.into_iter().next() {
        let error = vestibule_sandbox::LoadError::Import { import };
        return Err(coded(error.code(), error));
    }
    let name = core.file_stem().and_then(|stem| stem.to_str()).unwrap_or("analysis").replace('_', "-");
    let path = out.map_or_else(|| dir.join(format!("{name}.wasm")), Path::to_owned);
    let part = path.with_extension("wasm.part");
    write(&part, &component)?;
    std::fs::rename(&part, &path)?;
    Ok(Built { path, bytes: component.len(), digest: inspection.digest })
}

/// The wasm target, fetched by rustup where it is missing.
fn ensure_target(talk: &mut dyn FnMut(&str)) -> Result<()> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot
        .map_err(|error| Failure::input("rust-missing", format!("rustc cannot be run ({error}): install Rust with rustup")))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).exists() {
        return Ok(());
    }
    talk("fetching the wasm target");
    let fetched = Command::new("rustup").args(["target", "add", TARGET]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match fetched {
        Ok(status) if status.success() => Ok(()),
        _ => {
            let why = format!("the target {TARGET} is missing and `rustup target add {TARGET}` did not work: run it yourself");
            Err(Failure::input("wasm-target-missing", why))
        }
    }
}

/// Compiles the crate and returns the core module's path.
fn compile(dir: &Path) -> Result<PathBuf> {
    let home =
        std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo"))).unwrap_or_default();
    let root = workspace_root(dir)?;
    let flags = [
        "-Ctarget-feature=+simd128".to_owned(),
        format!("-Clink-arg=-zstack-size={STACK_BYTES}"),
        format!("-Clink-arg=--initial-memory={INITIAL_MEMORY_BYTES}"),
        "-Clink-arg=--stack-first".to_owned(),
        // Panic messages hold paths: the same source gives the same bytes wherever it lies.
        format!("--remap-path-prefix={}=", root.display()),
        format!("--remap-path-prefix={home}="),
    ];
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(dir)
        .args(["build", "--lib", "--release", "--target", TARGET, "--message-format=json-render-diagnostics"])
        .arg("--target-dir")
        .arg(root.join("target/guests"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_STRIP", "debuginfo")
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::input("rust-missing", format!("cargo cannot be run ({error}): install Rust with rustup")))?;
    if !output.status.success() {
        return Err(Failure::input("crate-does-not-compile", format!("{} does not compile; see above", dir.display())));
    }
    let manifest = dir.join("Cargo.toml");
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let ours = message.get("manifest_path").and_then(|path| path.as_str()).is_some_and(|path| Path::new(path) == manifest);
        let files = message.get("filenames").and_then(|files| files.as_array()).filter(|_| ours);
        let wasm = files.and_then(|files| files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm")));
        if let Some(wasm) = wasm {
            return Ok(wasm.into());
        }
    }
    let why = format!("{} makes no wasm module: give its [lib] `crate-type = [\"cdylib\", \"rlib\"]`", dir.display());
    Err(Failure::of(Exit::Input, "not-an-analysis", why))
}

/// The folder of the workspace that the crate belongs to, which is its own where it is in none.
fn workspace_root(dir: &Path) -> Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(dir)
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(path.parent().map_or_else(|| dir.to_owned(), Path::to_owned))
}
