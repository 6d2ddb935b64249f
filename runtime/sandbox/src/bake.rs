//! Bakes a round's public state into a component: `prepare` runs once, and what it left becomes the memory that every instance begins with.
//!
//! *In*: a component, instrumented so that its memory and globals can be read, and a round's state: public both. *Out*: another component, with
//! the same functions. *Trusts*: nothing of the guest. *Refuses*: components whose state is not all in memory and in numeric globals (a
//! table that is changed, a segment that is dropped, a handle), since a snapshot would leave that out; a `prepare` that refuses the state, traps, or
//! leaves more than can be kept.
//!
//! An instance of the result has seen no data, as the one that was snapshotted had not; the sandbox makes a fresh one of it for every partition.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmparser::{CanonicalFunction, Parser, Payload};
use wasmtime::component::{Instance, Lift, WasmList};
use wasmtime::{Result, Store};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::analysis::LoadError;
use crate::guard::Guard;
use crate::meter::Metered;
use crate::prune::prune;

/// Most stretches of memory between zeros that a snapshot may have: what lists them takes memory of its own.
const MAX_STRETCHES: usize = 16 << 20;

/// The same component with its memory and globals to be read from outside.
pub(crate) fn instrument(component: &Metered) -> std::result::Result<Metered, LoadError> {
    let refused = |why: String| LoadError::Unbakeable { why };
    for payload in Parser::new(0).parse_all(component.bytes()) {
        let Ok(Payload::ComponentCanonicalSection(functions)) = payload else { continue };
        if functions.into_iter().any(|function| !matches!(function, Ok(CanonicalFunction::Lift { .. }))) {
            return Err(refused(
                "it has resources or functions of the component model's own, whose state is not in its memory".to_owned(),
            ));
        }
    }
    let made = caught(|| component.with(|bytes| wizer().instrument_component(bytes).map(|(_, made)| made)));
    made.map_err(refused)?.map_err(|error| refused(format!("{error:#}")))
}

/// The component, with the memory and globals of an instance of [`instrument`]'s result.
pub(crate) fn snapshot(component: &Metered, store: Store<Guard>, instance: Instance) -> std::result::Result<Metered, String> {
    let mut live = Live { store, instance, fault: None };
    let made = caught(|| {
        component.with(|bytes| {
            let wizer = wizer();
            let (context, _) = wizer.instrument_component(bytes)?;
            at_once(pin!(wizer.snapshot_component(&context, &mut live))).map(prune)
        })
    });
    // What was made of a memory that could not be read is no snapshot, whatever else it is.
    if let Some(fault) = live.fault {
        return Err(fault);
    }
    made?.map_err(|error| format!("{error:#}"))
}

fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    // The contract's exports stay as they are; wizer's own convention of a function to remove is not ours.
    wizer.keep_init_func(true);
    wizer
}

/// Wizer meets what it does not foresee with a panic; a stranger's component may well be that.
fn caught<T>(work: impl FnOnce() -> T) -> std::result::Result<T, String> {
    let words = |panic: Box<dyn Any + Send>| {
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    };
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|panic| words(panic).unwrap_or_else(|| "it is of an unforeseen kind".to_owned()))
}

/// The result of a future that has nothing to wait for: [`Live`] never does.
fn at_once<T>(future: std::pin::Pin<&mut impl Future<Output = Result<T>>>) -> Result<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(wasmtime::Error::msg("the snapshot waits for something")),
    }
}

/// An instance whose state is read, by functions that wizer put into it.
struct Live {
    store: Store<Guard>,
    instance: Instance,
    fault: Option<String>,
}

impl Live {
    fn call<R: Lift + Send + Sync + 'static>(&mut self, interface: &str, function: &str) -> Option<R> {
        let found = self.found(interface, function);
        if let Err(error) = &found {
            self.fault.get_or_insert_with(|| format!("its state cannot be read: {error:#}"));
        }
        found.ok()
    }

    fn found<R: Lift + Send + Sync + 'static>(&mut self, interface: &str, function: &str) -> Result<R> {
        let missing = || wasmtime::Error::msg(format!("`{interface}#{function}` is missing"));
        let (_, interface) = self.instance.get_export(&mut self.store, None, interface).ok_or_else(missing)?;
        let (_, function) = self.instance.get_export(&mut self.store, Some(&interface), function).ok_or_else(missing)?;
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, function)?;
        // It is not the guest's, and does a few instructions.
        self.store.set_fuel(1_000_000)?;
        Ok(function.call(&mut self.store, ())?.0)
    }
}

impl ComponentInstanceState for Live {
    async fn call_func_ret_list_u8(&mut self, interface: &str, function: &str, contents: impl FnOnce(&[u8]) + Send) {
        let list = self.call::<WasmList<u8>>(interface, function);
        let bytes = list.as_ref().map(|list| list.as_le_slice(&self.store)).unwrap_or_default();
        if stretches(bytes) > MAX_STRETCHES {
            self.fault.get_or_insert_with(|| format!("more than {MAX_STRETCHES} stretches of bytes between zeros"));
        }
        contents(if self.fault.is_none() { bytes } else { &[] });
    }

    async fn call_func_ret_s32(&mut self, interface: &str, function: &str) -> i32 {
        self.call(interface, function).unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, interface: &str, function: &str) -> i64 {
        self.call(interface, function).unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, interface: &str, function: &str) -> u32 {
        self.call::<f32>(interface, function).unwrap_or_default().to_bits()
    }

    async fn call_func_ret_f64(&mut self, interface: &str, function: &str) -> u64 {
        self.call::<f64>(interface, function).unwrap_or_default().to_bits()
    }
}

/// How often a byte that is not zero follows one that is.
fn stretches(bytes: &[u8]) -> usize {
    let mut before = 0_u8;
    bytes
        .iter()
        .filter(|&&byte| {
            let begins = before == 0 && byte != 0;
            before = byte;
            begins
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_counted() {
        for (bytes, want) in [(&b""[..], 0), (b"\0\0", 0), (b"a", 1), (b"\0a\0bb\0", 2), (b"aa\0a", 2)] {
            assert_eq!(stretches(bytes), want, "{bytes:?}");
        }
    }
}
