//! How long this machine takes at its slowest for what a guest can have it do.
//!
//! *In*: how much memory guests may have. *Out*: [`Slowest`], measured now, in this process, with the
//! engine, the fuel and the pool that guests have. *Trusts*: the kernel's account of this thread's
//! time on a processor, so that a busy machine is not taken for a slow one. Each figure is the largest
//! of several.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmtime::component::{Component, Linker};
use wasmtime::{Instance, Module, Result, Store};

use crate::engine::{Sandbox, Settings};
use crate::guard::Guard;
use crate::meter;
use crate::runner::LIFTED_BYTES;
use crate::swap::Swap;
use crate::usage::own_time;

const GUEST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.wasm"));
const LISTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lists.wasm"));
/// How often each thing is measured.
const TIMES: usize = 3;
/// Pages of 64 KiB in a MiB.
const MIB_PAGES: u32 = 16;
/// MiB that pages are touched in.
const TOUCHED_MIB: u32 = 32;
/// The same, of a memory that begins with a state: each page is a copy, and is reset in place.
const STATE_MIB: u32 = 8;
/// MiB of a snapshot that is loaded.
const LOADED_MIB: usize = 4;

/// The slowest that was seen here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slowest {
    /// Nanoseconds of a unit of fuel.
    pub fuel_ns: f64,
    /// Microseconds of a MiB of memory that an instance touches, and that is taken back with its engine.
    pub mib_us: f64,
    /// Microseconds of making an instance, of lifting the most lists that it can hand over beyond its
    /// sums, and of a stretch of code without a check of its fuel.
    pub row_us: f64,
    /// Nanoseconds of lifting what an entry of the sums may take.
    pub entry_ns: f64,
    /// Microseconds of building the engine anew behind an instance ([`crate::Alone`]).
    pub settle_us: f64,
    /// Microseconds, beyond that, of a MiB of code and snapshot.
    pub code_mib_us: f64,
}

/// Measures. Takes about a second.
///
/// # Errors
/// The engine cannot be set up here.
pub fn measure(memory_mib: u32, swap: Swap) -> Result<Slowest> {
    let settings = Settings {
        threads: 1,
        max_memory_mib: memory_mib.max(TOUCHED_MIB),
        parallel_compilation: false,
        alone: true,
        swap,
        ..Settings::default()
    };
    let sandbox = Sandbox::new(settings.clone()).map_err(wasmtime::Error::new)?;
    let metered = meter::module(GUEST).map_err(|error| wasmtime::Error::msg(format!("{error:?}")))?;
    let module = Module::new(sandbox.engine(), &metered)?;
    let fuel_ns = fuel(&sandbox, &module, memory_mib)?;
    let mib_us = touched(&settings, &metered, TOUCHED_MIB)?.max(touched(&settings, &with_state(&metered)?, STATE_MIB)?);
    let byte_ns = lifted(&sandbox)?;
    drop(module);
    drop(sandbox);
    let settle_us = built(&settings, 0)?;
    let loaded = built(&settings, LOADED_MIB)?;
    let stretch_us = meter::STRETCH as f64 * fuel_ns / 1e3;
    Ok(Slowest {
        fuel_ns,
        mib_us,
        row_us: LIFTED_BYTES as f64 * byte_ns / 1e3 + stretch_us + ROW_US,
        entry_ns: byte_ns * ENTRY_BYTES,
        settle_us,
        code_mib_us: (loaded - settle_us).max(0.0) / LOADED_MIB as f64,
    })
}

/// What an entry may take of what is lifted.
const ENTRY_BYTES: f64 = 16.0;
/// An instance that does nothing takes some 8 us, handed over and back; as many times more as a busy
/// machine may take.
const ROW_US: f64 = 100.0;

/// The largest of several figures.
fn largest(mut one: impl FnMut() -> Result<f64>) -> Result<f64> {
    (0..TIMES).try_fold(0.0, |largest: f64, _| Ok(largest.max(one()?)))
}

fn store(sandbox: &Sandbox) -> Result<Store<Guard>> {
    let mut store = Store::new(sandbox.engine(), Guard::new(sandbox.settings().max_memory_mib, false));
    store.limiter(|guard| guard);
    store.set_fuel(u64::MAX / 2)?;
    Ok(store)
}

/// Nanoseconds of a unit of fuel, by whatever takes longest for it.
fn fuel(sandbox: &Sandbox, module: &Module, memory_mib: u32) -> Result<f64> {
    let mut store = store(sandbox)?;
    let instance = Instance::new(&mut store, module, &[])?;
    let lay = instance.get_typed_func::<u32, ()>(&mut store, "lay")?;
    let pages = memory_mib.max(1).saturating_mul(MIB_PAGES);
    lay.call(&mut store, 1 << pages.ilog2())?;
    let mut slowest = 0.0_f64;
    for (name, turns) in [("chase", 500), ("subnormal", 2_000), ("leap", 100_000), ("ask", 10_000)] {
        let work = instance.get_typed_func::<u32, ()>(&mut store, name)?;
        slowest = slowest.max(largest(|| {
            let (before, began) = (store.get_fuel()?, own_time());
            work.call(&mut store, turns)?;
            let taken = before.saturating_sub(store.get_fuel()?);
            Ok(since(began).as_nanos() as f64 / taken.max(1) as f64)
        })?);
    }
    Ok(slowest)
}

/// Microseconds of a MiB, of so many, that is touched and taken back with the engine.
fn touched(settings: &Settings, metered: &[u8], mib: u32) -> Result<f64> {
    largest(|| {
        let sandbox = Sandbox::new(settings.clone()).map_err(wasmtime::Error::new)?;
        let module = Module::new(sandbox.engine(), metered)?;
        let mut store = store(&sandbox)?;
        let instance = Instance::new(&mut store, &module, &[])?;
        let touch = instance.get_typed_func::<u32, ()>(&mut store, "touch")?;
        let began = own_time();
        touch.call(&mut store, mib * MIB_PAGES)?;
        drop((store, module, sandbox));
        Ok(micros(since(began)) / f64::from(mib))
    })
}

/// Nanoseconds of a byte that is lifted, in lists of one.
fn lifted(sandbox: &Sandbox) -> Result<f64> {
    let component = Component::new(sandbox.engine(), LISTS)?;
    let pre = Linker::<Guard>::new(sandbox.engine()).instantiate_pre(&component)?;
    // What the host counts for a list, and for what is in it.
    let count = LIFTED_BYTES / (size_of::<Vec<u8>>() + 1);
    largest(|| {
        let mut store = store(sandbox)?;
        store.set_hostcall_fuel(LIFTED_BYTES.saturating_mul(2));
        let instance = pre.instantiate(&mut store)?;
        let lists = instance.get_typed_func::<(u32,), (Vec<Vec<u8>>,)>(&mut store, "lists")?;
        let began = own_time();
        let (lists,) = lists.call(&mut store, (u32::try_from(count)?,))?;
        let elapsed = since(began);
        drop(lists);
        Ok((elapsed.as_nanos() as f64) / LIFTED_BYTES as f64)
    })
}

/// Microseconds of building an engine with code of so many MiB, until an instance came and went.
fn built(settings: &Settings, mib: usize) -> Result<f64> {
    let bytes = mib << 20;
    let pages = bytes.div_ceil(65_536) + 1;
    let module = snapshot(bytes, pages);
    let sandbox = Sandbox::new(settings.clone()).map_err(wasmtime::Error::new)?;
    let code = Component::new(sandbox.engine(), module)?.serialize()?;
    drop(sandbox);
    largest(|| {
        let began = own_time();
        let sandbox = Sandbox::new(settings.clone()).map_err(wasmtime::Error::new)?;
        // SAFETY: what an engine of the same settings has just made, in this very process.
        #[expect(unsafe_code, reason = "argued above")]
        let component = unsafe { Component::deserialize(sandbox.engine(), &code) }?;
        let pre = Linker::<Guard>::new(sandbox.engine()).instantiate_pre(&component)?;
        let mut store = store(&sandbox)?;
        pre.instantiate(&mut store)?;
        drop((store, pre, component, sandbox));
        Ok(micros(since(began)))
    })
}

/// The guest, whose memory begins with [`STATE_MIB`] of a state.
fn with_state(module: &[u8]) -> Result<Vec<u8>> {
    use wasm_encoder::{ConstExpr, DataSection, MemorySection, MemoryType, Module, RawSection};
    let mut memories = MemorySection::new();
    let minimum = u64::from(STATE_MIB * MIB_PAGES);
    memories.memory(MemoryType { minimum, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut out = Module::new();
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        let payload = payload?;
        if matches!(payload, wasmparser::Payload::MemorySection(_)) {
            out.section(&memories);
        } else if let Some((id, range)) = payload.as_section() {
            out.section(&RawSection { id, data: module.get(range).unwrap_or_default() });
        }
    }
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), std::iter::repeat_n(1, (STATE_MIB as usize) << 20));
    out.section(&data);
    Ok(out.finish())
}

/// A component whose memory begins with so many bytes.
fn snapshot(bytes: usize, pages: usize) -> Vec<u8> {
    use wasm_encoder::{
        Component, ConstExpr, DataSection, InstanceSection, MemorySection, MemoryType, Module, ModuleArg, ModuleSection,
    };
    let mut memories = MemorySection::new();
    let minimum = pages as u64;
    memories.memory(MemoryType { minimum, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), std::iter::repeat_n(1, bytes));
    let mut module = Module::new();
    module.section(&memories).section(&data);
    let mut instances = InstanceSection::new();
    instances.instantiate(0, std::iter::empty::<(&str, ModuleArg)>());
    let mut component = Component::new();
    component.section(&ModuleSection(&module)).section(&instances);
    component.finish()
}

fn since(began: Duration) -> Duration {
    own_time().saturating_sub(began)
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// That each thing can be measured, and is what it should be in the order of its size.
    #[test]
    fn everything_is_measured() {
        let Slowest { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us } = measure(8, Swap::here()).unwrap();
        for (figure, least, most) in [
            (fuel_ns, 0.5, 1_000.0),
            (mib_us, 20.0, 100_000.0),
            (row_us, 100.0, 100_000.0),
            (entry_ns, 1.0, 10_000.0),
            (settle_us, 50.0, 1_000_000.0),
            (code_mib_us, 10.0, 1_000_000.0),
        ] {
            assert!((least..most).contains(&figure), "{figure} in {least}..{most}");
        }
        eprintln!("{:?}", measure(64, Swap::here()).unwrap());
    }
}
