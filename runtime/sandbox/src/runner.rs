//! One round's private function: `contribute`, in a fresh instance for every partition.
//!
//! *In*: a component with the round's state baked in (public), and one partition at a time. *Out*: what the guest returned, for the reducer alone.
//! Fresh store, fresh instance of the same snapshot, the same limits each time: so what comes out is a function of this partition
//! and of public input. No index, count, order, clock or generator reaches the guest. Fuel decides when it has worked enough,
//! never time. After a trap the store is dropped like any other.
//!
//! A failure of the guest says nothing but that it failed, except in a dry run. A failure of the host is told apart, since it
//! must end the whole job and never one partition.

use std::fmt;

use vestibule_protocol::job::Limits;
use vestibule_protocol::round::MAX_STATE_BYTES;
use wasmtime::component::Component;
use wasmtime::{Store, Trap};

use crate::analysis::{LoadError, describe, ready};
use crate::bindings::AnalysisPre;
use crate::bindings::vestibule::analysis::types::{Contribution, Individual};
use crate::engine::Sandbox;
use crate::given::Given;
use crate::guard::Guard;

/// Most bytes that one call may hand to the host, beyond twice the sums' own size.
pub(crate) const LIFTED_BYTES: usize = 16 << 10;

/// Runs `contribute` for one round. Shared by all threads.
#[derive(Clone)]
pub struct Runner {
    sandbox: Sandbox,
    pre: AnalysisPre<Guard>,
    limits: Limits,
    lifted: usize,
    code_bytes: usize,
}

/// What one partition contributed: for the reducer, which clamps it. Shows its size only.
pub struct Contributions {
    given: Vec<Contribution>,
    fuel: u64,
}

impl Contributions {
    /// One for each statistic, if the guest kept to its contract.
    #[must_use]
    pub fn as_slice(&self) -> &[Contribution] {
        &self.given
    }

    /// The same, for the reducer.
    #[must_use]
    pub fn given(&self) -> Vec<Given<'_>> {
        self.given.iter().map(Given::from).collect()
    }

    /// What it took. Somebody's: for dry runs.
    #[must_use]
    pub const fn fuel(&self) -> u64 {
        self.fuel
    }
}

impl fmt::Debug for Contributions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Contributions(withheld)")
    }
}

/// Why there is no contribution.
#[derive(Clone, PartialEq, Eq)]
pub enum Failure {
    /// The guest trapped or returned what is no list of contributions. Counts as no contribution. Details in a dry run only.
    Guest(Option<Detail>),
    /// The host could not do its part. The job ends.
    Host(String),
}

/// What a guest's failure was, in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail(String);

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Runner {
    /// `compiled`: of a baked component. `entries`: numbers that its guests give, of all statistics together.
    pub(crate) fn new(sandbox: &Sandbox, compiled: &Component, entries: usize, limits: Limits) -> Result<Self, LoadError> {
        let lifted = entries.saturating_mul(16).saturating_add(LIFTED_BYTES).min(MAX_STATE_BYTES.saturating_mul(8));
        let image = compiled.image_range();
        let code_bytes = (image.end as usize).saturating_sub(image.start as usize);
        Ok(Self { sandbox: sandbox.clone(), pre: ready(sandbox.engine(), compiled)?, limits, lifted, code_bytes })
    }

    /// One partition: each individual's values in the order of the plan's columns, dosages in catalogue order over its slices.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn contribute(&self, partition: &[Individual<'_>]) -> Result<Contributions, Failure> {
        let host = |error: wasmtime::Error| Failure::Host(format!("{error:#}"));
        let settings = self.sandbox.settings();
        let memory = self.limits.memory_mib.min(settings.max_memory_mib);
        let mut store = Store::new(self.sandbox.engine(), Guard::new(memory, settings.symbols));
        store.limiter(|guard| guard);
        store.set_hostcall_fuel(self.lifted);
        store.set_fuel(self.limits.fuel_per_partition).map_err(host)?;
        // Until here no data was seen: what traps now does so for everybody.
        let instance = self.pre.instantiate(&mut store).map_err(|error| match error.downcast_ref::<Trap>() {
            Some(_) => self.guest(&error, &store),
            None => host(error),
        })?;
        let given = instance.call_contribute(&mut store, partition).map_err(|error| self.guest(&error, &store))?;
        let left = store.get_fuel().map_err(host)?;
        Ok(Contributions { given, fuel: self.limits.fuel_per_partition.saturating_sub(left) })
    }

    /// How much code there is, with the state that was baked into it.
    #[must_use]
    pub const fn code_bytes(&self) -> usize {
        self.code_bytes
    }

    /// Makes an instance that does nothing, and drops it.
    pub(crate) fn come_and_go(&self) {
        let memory = self.limits.memory_mib.min(self.sandbox.settings().max_memory_mib);
        let mut store = Store::new(self.sandbox.engine(), Guard::new(memory, false));
        store.limiter(|guard| guard);
        // One that cannot be made fails for everybody, and is told there.
        let _ = store.set_fuel(self.limits.fuel_per_partition);
        let _ = self.pre.instantiate(&mut store);
    }

    fn guest(&self, error: &wasmtime::Error, store: &Store<Guard>) -> Failure {
        Failure::Guest(self.sandbox.settings().symbols.then(|| Detail(describe(error, store.data()))))
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runner")
    }
}

// Whatever a guest said stays where it was said: `Debug` names the kind of failure only.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest(_) => "Guest",
            Self::Host(_) => "Host",
        })
    }
}
