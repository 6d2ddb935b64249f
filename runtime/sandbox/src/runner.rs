//! One round's private function: `contribute`, in a fresh instance for every partition.
//!
//! *In*: a round's state (public), and one partition at a time. *Out*: what the guest returned, for the reducer alone.
//! Fresh store, fresh instance, the same limits and the same state each time: so what comes out is a function of this partition
//! and of public input. No index, count, order, clock or generator reaches the guest. Fuel decides when it has worked enough,
//! never time. After a trap the store is dropped like any other.
//!
//! A failure of the guest says nothing but that it failed, except in a dry run. A failure of the host is told apart, since it
//! must end the whole job and never one partition.

use std::fmt;
use std::sync::Arc;

use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{MAX_STATE_BYTES, Round, Statistic};
use wasmtime::{Store, Trap};

use crate::analysis::describe;
use crate::bindings::AnalysisPre;
use crate::bindings::vestibule::analysis::types::{Contribution, Individual};
use crate::engine::Sandbox;
use crate::given::Given;
use crate::guard::Guard;

/// `prepare` decodes the state: fuel for it comes on top, so that a partition's own limit means the same in every round. What it
/// takes is the same for everybody, and known before any data.
const PREPARE_FUEL: u64 = 1_000_000_000;
/// Most bytes that one call may hand to the host, beyond twice the sums' own size.
const LIFTED_BYTES: usize = 1 << 20;

/// Runs `contribute` for one round. Shared by all threads.
#[derive(Clone)]
pub struct Runner {
    sandbox: Sandbox,
    pre: AnalysisPre<Guard>,
    state: Arc<[u8]>,
    limits: Limits,
    lifted: usize,
    state_fuel: u64,
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
    /// `prepare` refused the state, in the guest's own words. Public: it saw no data.
    Refused(String),
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
    pub(crate) fn new(sandbox: Sandbox, pre: AnalysisPre<Guard>, round: &Round, limits: Limits) -> Self {
        let entries: usize = round.statistics().iter().map(Statistic::given).sum();
        let lifted = entries.saturating_mul(16).saturating_add(LIFTED_BYTES).min(MAX_STATE_BYTES.saturating_mul(8));
        Self { sandbox, pre, state: round.state().into(), limits, lifted, state_fuel: 0 }
    }

    /// Runs everything up to the data: a fresh instance that takes in the state.
    pub(crate) fn rehearse(&mut self) -> Result<(), Failure> {
        let (store, _) = self.prepared()?;
        let left = store.get_fuel().map_err(|error| Failure::Host(error.to_string()))?;
        self.state_fuel = PREPARE_FUEL.saturating_sub(left);
        Ok(())
    }

    /// The fuel with which an instance takes in the state: the same for every partition.
    #[must_use]
    pub const fn state_fuel(&self) -> u64 {
        self.state_fuel
    }

    /// One partition: each individual's values in the order of the plan's columns, dosages in catalogue order over its slices.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn contribute(&self, partition: &[Individual<'_>]) -> Result<Contributions, Failure> {
        let (mut store, instance) = self.prepared()?;
        let guest = |error: &wasmtime::Error, store: &Store<Guard>| self.guest(error, store);
        store.set_fuel(self.limits.fuel_per_partition).map_err(|error| Failure::Host(error.to_string()))?;
        let given = instance.call_contribute(&mut store, partition).map_err(|error| guest(&error, &store))?;
        let left = store.get_fuel().map_err(|error| Failure::Host(error.to_string()))?;
        Ok(Contributions { given, fuel: self.limits.fuel_per_partition.saturating_sub(left) })
    }

    fn prepared(&self) -> Result<(Store<Guard>, crate::bindings::Analysis), Failure> {
        let settings = self.sandbox.settings();
        let memory = self.limits.memory_mib.min(settings.max_memory_mib);
        let mut store = Store::new(self.sandbox.engine(), Guard::new(memory, settings.symbols));
        store.limiter(|guard| guard);
        store.set_hostcall_fuel(self.lifted);
        store.set_fuel(PREPARE_FUEL).map_err(|error| Failure::Host(error.to_string()))?;
        // Until here and in `prepare` no data was seen: what fails now failed in `rehearse` too, or is the host's fault.
        let instance = self.pre.instantiate(&mut store).map_err(|error| match error.downcast_ref::<Trap>() {
            Some(_) => self.guest(&error, &store),
            None => Failure::Host(format!("{error:#}")),
        })?;
        match instance.call_prepare(&mut store, &self.state) {
            Ok(Ok(())) => Ok((store, instance)),
            Ok(Err(message)) => Err(Failure::Refused(message)),
            Err(error) => Err(self.guest(&error, &store)),
        }
    }

    fn guest(&self, error: &wasmtime::Error, store: &Store<Guard>) -> Failure {
        Failure::Guest(self.sandbox.settings().symbols.then(|| Detail(describe(error, store.data()))))
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runner(state of {} bytes)", self.state.len())
    }
}

// Whatever a guest said stays where it was said: `Debug` names the kind of failure only.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(_) => "Refused",
            Self::Guest(_) => "Guest",
            Self::Host(_) => "Host",
        })
    }
}
