//! A system without protection, to measure what it lets out: the same guest in the same engine as it is commonly used. One instance
//! for everybody, contributions added as they come.
//!
//! *In*: a component, people. *Out*: what the guest gave for each. Also the place of the [`super::Defect`]s in how guests are run.

use std::time::{Duration, Instant};

use anyhow::Result;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, Store};

use super::lab::Person;

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::use_self,
    clippy::clone_on_ref_ptr,
    reason = "generated from wit/analysis.wit"
)]
mod bindings {
    wasmtime::component::bindgen!({ path: "../wit", world: "analysis" });
}

use bindings::vestibule::analysis::types::{Contribution, Individual, Value};

/// How guests are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// One instance for everybody, as long as it does not trap.
    pub(crate) reuse: bool,
    /// Fuel of one individual; or of all of them together.
    pub(crate) fuel: u64,
    /// Whether `fuel` is all of theirs.
    pub(crate) together: bool,
}

/// The engine with a component in it.
pub(crate) struct Naked {
    engine: Engine,
    component: Component,
}

impl Naked {
    pub(crate) fn new(component: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        // So that an endless loop ends.
        config.consume_fuel(true);
        let engine = text(Engine::new(&config))?;
        let component = text(Component::new(&engine, component))?;
        Ok(Self { engine, component })
    }

    /// The component as machine code.
    pub(crate) fn compiled(&self) -> Result<Vec<u8>> {
        text(self.component.serialize())
    }

    /// What the guest gives for each person's one statistic; `None` where it failed.
    pub(crate) fn run(&self, state: &[u8], people: &[Person], manner: Manner) -> Result<Vec<Option<Vec<f64>>>> {
        let mut running = None;
        let mut left = manner.fuel;
        let mut given = Vec::new();
        for person in people {
            let (mut store, instance) = match running.take().filter(|_| manner.reuse) {
                Some(running) => running,
                None => self.prepared(state)?,
            };
            text(store.set_fuel(left))?;
            let found = instance.call_contribute(&mut store, &[person.row()]);
            if manner.together {
                left = text(store.get_fuel())?;
            }
            given.push(found.as_ref().ok().and_then(|found| found.first()).map(numbers));
            if found.is_ok() {
                running = Some((store, instance));
            }
        }
        Ok(given)
    }

    /// How long the guest works for all these people, each in an instance of their own, with so much
    /// fuel, where nothing but the engine looks at it.
    pub(crate) fn timed(&self, state: &[u8], people: &[Person], fuel: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        for person in people {
            let (mut store, instance) = self.prepared(state)?;
            text(store.set_fuel(fuel))?;
            let began = Instant::now();
            // What it returns or fails with does not matter here.
            let _ = instance.call_contribute(&mut store, &[person.row()]);
            took += began.elapsed();
        }
        Ok(took)
    }

    fn prepared(&self, state: &[u8]) -> Result<(Store<()>, bindings::Analysis)> {
        let mut store = Store::new(&self.engine, ());
        text(store.set_fuel(u64::MAX))?;
        let instance = text(bindings::Analysis::instantiate(&mut store, &self.component, &Linker::new(&self.engine)))?;
        text(instance.call_prepare(&mut store, state))?.map_err(anyhow::Error::msg)?;
        Ok((store, instance))
    }
}

fn text<T>(result: wasmtime::Result<T>) -> Result<T> {
    result.map_err(|error| anyhow::anyhow!("{error:#}"))
}

impl Person {
    fn row(&self) -> Individual {
        let values = vec![Value::Level(u32::from(self.man)), Value::Number(self.age), Value::Number(self.measured)];
        Individual { values, dosages: vec![] }
    }
}

#[expect(clippy::cast_precision_loss, reason = "that is what a system without protection does")]
fn numbers(contribution: &Contribution) -> Vec<f64> {
    match contribution {
        Contribution::None => vec![],
        Contribution::Cell(cell) => vec![f64::from(*cell)],
        Contribution::Bytes(bytes) => bytes.iter().map(|byte| f64::from(*byte)).collect(),
        Contribution::Integers(integers) => integers.iter().map(|integer| *integer as f64).collect(),
        Contribution::Reals(reals) => reals.clone(),
    }
}
