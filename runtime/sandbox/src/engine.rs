//! The wasmtime engine, set up for many short-lived instances of code that is not trusted.
//!
//! *In*: [`Settings`]. *Out*: a [`Sandbox`] that loads components. Every choice that a guest could notice is made here: which
//! proposals exist, how much memory a slot has, that fuel is counted. Nothing is left to a default that may change.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use crate::analysis::{self, Analysis, LoadError};
use crate::cache::{self, CodeCache};
use crate::fuel::COSTS;
use crate::guard::ROOM_BYTES;
use crate::meter::metered;
use crate::runner::Runner;
use crate::swap::Swap;

/// Analyses that stay compiled in memory.
const KEPT: usize = 8;
/// Bytes of a slot that are reset in place rather than unmapped: the working set of an ordinary guest.
const KEEP_RESIDENT_BYTES: usize = 8 << 20;
/// Wasm stack of one call.
const STACK_BYTES: usize = 512 << 10;
/// Entries of all tables of one instance: indirect calls of ordinary Rust guests need some hundreds.
pub(crate) const TABLE_ENTRIES: usize = 65_536;
/// Core instances, memories and tables of one component. Encoded Rust guests have one to three core instances and one memory; what reads
/// their state for baking is one more.
const CORE_INSTANCES: u32 = 8;

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that will run guests at the same time.
    pub threads: usize,
    /// Most linear memory that any call may be given, in MiB.
    pub max_memory_mib: u32,
    /// Where compiled code is kept between runs, if anywhere.
    pub cache: Option<Arc<CodeCache>>,
    /// Keep what a backtrace needs, and listen to guest panics. For dry runs on a researcher's own machine, never at a site.
    pub symbols: bool,
    /// Compile on all cores. A process that may start no threads compiles on its own.
    pub parallel_compilation: bool,
    /// One instance at a time, always in the same place: for [`crate::Alone`].
    pub alone: bool,
    /// Whether memory may be written out. Asked by default: a process that can read no file must have asked before.
    pub swap: Swap,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let swap = Swap::here();
        Self { threads, max_memory_mib: 1_024, cache: None, symbols: false, parallel_compilation: true, alone: false, swap }
    }
}

/// Loads and runs analyses. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    settings: Settings,
    loaded: Mutex<VecDeque<Analysis>>,
}

/// The engine could not be set up on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the WebAssembly engine could not be set up on this machine: {0}")]
pub struct SandboxError(String);

impl SandboxError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "sandbox-setup"
    }
}

impl Sandbox {
    /// Sets up the engine.
    ///
    /// # Errors
    /// The machine cannot reserve the address space, or is not supported.
    pub fn new(settings: Settings) -> Result<Self, SandboxError> {
        let engine = Engine::new(&config(&settings)).map_err(|error| SandboxError(format!("{error:#}")))?;
        Ok(Self(Arc::new(Inner { engine, settings, loaded: Mutex::default() })))
    }

    /// Checks and compiles a component, or finds it among those already compiled.
    ///
    /// # Errors
    /// Not a component, one that imports a function, one that is not an analysis, or one that does not compile.
    pub fn load(&self, component: &[u8]) -> Result<Analysis, LoadError> {
        let digest = Digest::of(component);
        let loaded = || self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(analysis) = loaded().iter().find(|analysis| analysis.digest() == digest) {
            return Ok(analysis.clone());
        }
        let analysis = Analysis::load(self, component, digest)?;
        let mut loaded = loaded();
        loaded.push_front(analysis.clone());
        loaded.truncate(KEPT);
        Ok(analysis)
    }

    /// What decides how components are compiled here.
    #[must_use]
    pub fn engine_digest(&self) -> Digest {
        cache::engine_digest(&self.0.engine)
    }

    /// Checks and compiles a component to code that an engine of the same digest can load.
    ///
    /// # Errors
    /// As [`Sandbox::load`].
    pub fn compile(&self, component: &[u8]) -> Result<Vec<u8>, LoadError> {
        let (_, instrumented) = analysis::checked(component)?;
        let compiled = analysis::compile(self.engine(), &instrumented)?;
        // It is an analysis, too: this is the moment to say that it is not.
        analysis::ready(self.engine(), &compiled)?;
        compiled.serialize().map_err(|error| LoadError::NotComponent { why: format!("{error:#}") })
    }

    /// Loads what [`Sandbox::compile`] returned for this component.
    ///
    /// # Errors
    /// Code of another engine.
    ///
    /// # Safety
    /// The code is run as machine code: it must be what [`Sandbox::compile`] of an engine of the same digest returned, byte for byte.
    #[expect(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
    pub unsafe fn load_compiled(&self, code: &[u8], component: &[u8]) -> Result<Analysis, LoadError> {
        // SAFETY: the caller's promise.
        let compiled = unsafe { cache::deserialize(self.engine(), code) };
        let compiled = compiled.map_err(|error| LoadError::NotComponent { why: format!("{error:#}") })?;
        Analysis::of(self, &compiled, metered(component)?, Digest::of(component))
    }

    /// Loads what [`Analysis::bake`] returned for a round whose guests give `entries` numbers.
    ///
    /// # Errors
    /// Code of another engine.
    ///
    /// # Safety
    /// As [`Sandbox::load_compiled`]'s, of [`Analysis::bake`].
    #[expect(unsafe_code, reason = "wasmtime offers no safe way to load compiled code")]
    pub unsafe fn load_baked(&self, code: &[u8], entries: usize, limits: Limits) -> Result<Runner, LoadError> {
        // SAFETY: the caller's promise.
        let compiled = unsafe { cache::deserialize(self.engine(), code) };
        let compiled = compiled.map_err(|error| LoadError::NotComponent { why: format!("{error:#}") })?;
        Runner::new(self, &compiled, entries, limits)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

fn config(settings: &Settings) -> Config {
    // One slot for each running thread, and as many again for public calls and for slots being cleared.
    let slots = u32::try_from(settings.threads.saturating_mul(2).saturating_add(4)).unwrap_or(u32::MAX);
    let slots = if settings.alone { 1 } else { slots };
    // The scan finds the pages that a guest wrote among those that are present: one that was written out to swap since would keep what
    // it held for the next instance. Where there is swap, all pages are given back to the kernel instead, which takes four times as long.
    let (scan, keep_bytes) = match settings.swap {
        Swap::Possible => (Enabled::No, 0),
        Swap::Never => (Enabled::Auto, KEEP_RESIDENT_BYTES),
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(CORE_INSTANCES))
        .total_memories(slots)
        .total_tables(slots.saturating_mul(2))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(1)
        .max_tables_per_component(2)
        .max_memories_per_module(1)
        .max_tables_per_module(2)
        .table_elements(TABLE_ENTRIES)
        .max_memory_size(((settings.max_memory_mib as usize) << 20).saturating_add(ROOM_BYTES))
        .max_unused_warm_slots(slots)
        .linear_memory_keep_resident(keep_bytes)
        .table_keep_resident(keep_bytes)
        // Linux 6.7 and later: resets only the pages a guest wrote. Elsewhere wasmtime falls back by itself.
        .pagemap_scan(scan);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .consume_fuel(true)
        .operator_cost(COSTS.clone())
        .parallel_compilation(settings.parallel_compilation)
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .memory_init_cow(true)
        // Deterministic, and no more of wasm than Rust guests need. Threads, gc, and async are not even compiled in.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_tail_call(false)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_component_model(true)
        // NaN bits may differ between x86-64 and aarch64, never between two partitions at one site: contributions are clamped to
        // integers, where every NaN is zero. Canonicalising them would cost floating-point loops up to 2.7 times their time.
        .cranelift_nan_canonicalization(false)
        .generate_address_map(settings.symbols)
        .wasm_backtrace_max_frames(settings.symbols.then_some(std::num::NonZeroUsize::new(32)).flatten());
    config
}
