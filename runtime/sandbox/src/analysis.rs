//! A loaded analysis and its public functions: `plan`, `next` and `prepare`, which never see data.
//!
//! *In*: a component that imports no function; parameters, shape, released numbers, a round's state. *Out*: checked plans, rounds and reports;
//! the component with that state in it.
//! *Refuses*: components that are not analyses, with the reason; whatever the component itself refuses, with its own words
//! (it has seen public input only, so its words are public too); results outside the limits of the protocol.

use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::Variant;
use vestibule_protocol::dictionary::Column;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Limits;
use vestibule_protocol::manifest::MAX_COMPONENT_BYTES;
use vestibule_protocol::release::Released;
use vestibule_protocol::report::Report;
use vestibule_protocol::round::{Plan, Round, Statistic};
use vestibule_protocol::words::lines;
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use crate::bake;
use crate::bindings::{Analysis as Instance, AnalysisPre};
use crate::cache::{code_name, deserialize};
use crate::convert;
use crate::engine::Sandbox;
use crate::guard::Guard;
use crate::inspect::look;
use crate::meter::{Metered, metered};
use crate::runner::Runner;

/// Public calls run once a round and see nobody's data: how long they work tells nothing, and is bounded for all jobs alike.
const PUBLIC_FUEL: u64 = 20_000_000_000;
/// `prepare` decodes a round's state once, before any data: it has this much fuel, whatever partitions have.
const PREPARE_FUEL: u64 = 4_000_000_000;
/// They see all numbers of all rounds, and build tables: they have this much memory even if partitions have less.
const PUBLIC_MEMORY_MIB: u32 = 1_024;
/// Most bytes of all lists that one public call may hand to the host.
const PUBLIC_LIFTED_BYTES: usize = 256 << 20;

/// A component that was checked and compiled. Cheap to clone.
#[derive(Clone)]
pub struct Analysis {
    sandbox: Sandbox,
    pre: AnalysisPre<Guard>,
    digest: Digest,
    component: Metered,
}

/// What an analysis asks for next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Another pass over the data.
    Round(Round),
    /// The end.
    Report(Report),
}

/// The public shape of what a plan asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// The variants of the plan's slices, in the order of an individual's dosages.
    pub variants: Vec<Variant>,
    /// The plan's columns, in the order of an individual's values.
    pub columns: Vec<Column>,
}

/// A component that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Not a valid component.
    #[error("not a WebAssembly component that can run here: {why}")]
    NotComponent {
        /// What the validator says.
        why: String,
    },
    /// It imports something that could do something.
    #[error(
        "the component imports `{import}`: an analysis imports no function. Build it with `vestibule analysis build`, which leaves WASI out"
    )]
    Import {
        /// The first such import.
        import: String,
    },
    /// It does not export what an analysis exports.
    #[error("the component is not an analysis: {why}")]
    NotAnalysis {
        /// What is missing or differs.
        why: String,
    },
    /// What `prepare` leaves in it could not be kept for `contribute`.
    #[error(
        "the component cannot be run from a snapshot of its memory: {why}. Build it with `vestibule analysis build`, as one module that \
         changes no table"
    )]
    Unbakeable {
        /// What stands in the way.
        why: String,
    },
    /// It has more parts than an analysis has.
    #[error("the component is more complex than an analysis may be: it has {found} {what}, and {most} are allowed")]
    TooComplex {
        /// Of what.
        what: &'static str,
        /// How many it has, as far as they were counted.
        found: u64,
        /// How many are allowed.
        most: u64,
    },
    /// Its work cannot be counted.
    #[error(
        "the component's work cannot be counted: {why}. Build it with `vestibule analysis build`, as one module, optimised"
    )]
    Unmetered {
        /// What stands in the way.
        why: String,
    },
    /// It is too large.
    #[error("the component has {bytes} bytes: at most {MAX_COMPONENT_BYTES} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl LoadError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotComponent { .. } => "component-unreadable",
            Self::Import { .. } => "component-imports",
            Self::NotAnalysis { .. } => "component-not-analysis",
            Self::Unbakeable { .. } => "component-unbakeable",
            Self::TooComplex { .. } => "component-too-complex",
            Self::Unmetered { .. } => "component-unmetered",
            Self::TooLarge { .. } => "component-too-large",
        }
    }
}

/// A public function of an analysis that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The analysis refused its input, in its own words.
    #[error("the analysis refused its input in `{function}`: {message}")]
    Refused {
        /// `plan`, `next` or `prepare`.
        function: &'static str,
        /// The analysis' own words, shortened and printable.
        message: String,
    },
    /// It trapped: a panic, too much fuel or memory.
    #[error("the analysis failed in `{function}`: {message}")]
    Trapped {
        /// `plan`, `next` or `prepare`.
        function: &'static str,
        /// What the engine says.
        message: String,
    },
    /// It returned something outside the limits.
    #[error("the analysis returned something that cannot be used from `{function}`: {message}")]
    Unusable {
        /// `plan`, `next`, or `prepare`, which leaves a state.
        function: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl GuestError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "analysis-refused",
            Self::Trapped { .. } => "analysis-trapped",
            Self::Unusable { .. } => "analysis-unusable",
        }
    }
}

impl Analysis {
    /// Checks and compiles a component, or takes its code from the cache.
    pub(crate) fn load(sandbox: &Sandbox, component: &[u8], digest: Digest) -> Result<Self, LoadError> {
        let (metered, instrumented) = checked(component)?;
        let engine = sandbox.engine();
        let cache = sandbox.settings().cache.as_deref();
        let name = code_name(sandbox.engine_digest(), digest);
        let known = cache.and_then(|cache| cache.open(&name)).and_then(|code| {
            // SAFETY: the seal was verified over these very bytes with a key that only this host holds and uses for nothing else,
            // and the only thing ever sealed with it, below, is what `Component::serialize` returned here. Engine settings and
            // wasmtime's version are in the name, which the seal covers, and are checked once more by wasmtime.
            #[expect(unsafe_code, reason = "argued above")]
            unsafe { deserialize(engine, &code) }.ok()
        });
        let compiled = if let Some(known) = known {
            known
        } else {
            let compiled = compile(engine, &instrumented)?;
            if let (Some(cache), Ok(code)) = (cache, compiled.serialize()) {
                cache.keep(&name, &code);
            }
            compiled
        };
        Self::of(sandbox, &compiled, metered, digest)
    }

    /// Ready to run. `compiled`: of the instrumented component.
    pub(crate) fn of(sandbox: &Sandbox, compiled: &Component, component: Metered, digest: Digest) -> Result<Self, LoadError> {
        let pre = ready(sandbox.engine(), compiled)?;
        Ok(Self { sandbox: sandbox.clone(), pre, digest, component })
    }

    /// SHA-256 of the component.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Asks the analysis what it wants to read.
    ///
    /// # Errors
    /// The analysis refuses the parameters, traps, or asks for something outside the limits.
    pub fn plan(&self, params: &str, limits: Limits) -> Result<Plan, GuestError> {
        let (mut store, instance) = self.public("plan", limits)?;
        let answer = instance.call_plan(&mut store, params);
        let plan = answered("plan", answer, &store)?;
        convert::plan(plan).checked().map_err(|error| GuestError::Unusable { function: "plan", message: error.to_string() })
    }

    /// Asks the analysis what comes next, given all that was released so far.
    ///
    /// # Errors
    /// The analysis refuses, traps, or asks for something outside the limits.
    pub fn next(&self, params: &str, shape: &Shape, history: &[Vec<Released>], limits: Limits) -> Result<Step, GuestError> {
        let (mut store, instance) = self.public("next", limits)?;
        let columns = convert::Columns::new(&shape.columns);
        let infos = columns.infos();
        let variants: Vec<_> = shape.variants.iter().map(convert::variant).collect();
        let history: Vec<Vec<_>> = history.iter().map(|round| round.iter().map(convert::released).collect()).collect();
        let history: Vec<&[_]> = history.iter().map(Vec::as_slice).collect();
        let answer = instance.call_next(&mut store, params, convert::shape(&variants, &infos), &history);
        let step = answered("next", answer, &store)?;
        convert::step(step).map_err(|message| GuestError::Unusable { function: "next", message })
    }

    /// Gets ready to run one round: bakes its state in, on an instance that sees no data.
    ///
    /// # Errors
    /// `prepare` refuses the state, traps, or leaves what cannot be kept.
    pub fn runner(&self, round: &Round, limits: Limits) -> Result<Runner, GuestError> {
        let compiled = self.baked(round, limits)?;
        let given = round.statistics().iter().map(Statistic::given).sum();
        Runner::new(&self.sandbox, &compiled, given, limits).map_err(|error| unusable(&error))
    }

    /// The same as code, which [`Sandbox::load_baked`] of an engine of the same digest takes.
    ///
    /// # Errors
    /// As [`Analysis::runner`].
    pub fn bake(&self, round: &Round, limits: Limits) -> Result<Vec<u8>, GuestError> {
        self.baked(round, limits)?.serialize().map_err(|error| unusable(&format!("{error:#}")))
    }

    /// The component with the round's state in it, compiled.
    fn baked(&self, round: &Round, limits: Limits) -> Result<Component, GuestError> {
        let memory = limits.memory_mib.min(self.sandbox.settings().max_memory_mib);
        let mut store = self.store("prepare", memory, PREPARE_FUEL)?;
        let instance = self.pre.instance_pre().instantiate(&mut store);
        let instance = instance.map_err(|error| trapped("prepare", &error, &store))?;
        let exports = Instance::new(&mut store, &instance).map_err(|error| trapped("prepare", &error, &store))?;
        let answer = exports.call_prepare(&mut store, round.state());
        answered("prepare", answer, &store)?;
        store.data_mut().leave_room();
        let component = bake::snapshot(&self.component, store, instance).map_err(|why| unusable(&why))?;
        compile(self.sandbox.engine(), &component).map_err(|error| unusable(&error))
    }

    fn public(&self, function: &'static str, limits: Limits) -> Result<(Store<Guard>, Instance), GuestError> {
        let memory = limits.memory_mib.max(PUBLIC_MEMORY_MIB).min(self.sandbox.settings().max_memory_mib);
        let mut store = self.store(function, memory, PUBLIC_FUEL)?;
        let instance = self.pre.instantiate(&mut store).map_err(|error| trapped(function, &error, &store))?;
        Ok((store, instance))
    }

    fn store(&self, function: &'static str, memory_mib: u32, fuel: u64) -> Result<Store<Guard>, GuestError> {
        let mut store = Store::new(self.sandbox.engine(), Guard::new(memory_mib, self.sandbox.settings().symbols));
        store.limiter(|guard| guard);
        store.set_hostcall_fuel(PUBLIC_LIFTED_BYTES);
        store.set_fuel(fuel).map_err(|error| trapped(function, &error, &store))?;
        Ok(store)
    }
}

/// What of a compiled component can be found out once for all its instances.
pub(crate) fn ready(engine: &Engine, compiled: &Component) -> Result<AnalysisPre<Guard>, LoadError> {
    // The linker stays empty: there is nothing that a component could be given.
    let pre = Linker::<Guard>::new(engine).instantiate_pre(compiled).and_then(AnalysisPre::new);
    pre.map_err(|error| LoadError::NotAnalysis { why: format!("{error:#}") })
}

fn unusable(why: &dyn std::fmt::Display) -> GuestError {
    GuestError::Unusable { function: "prepare", message: printable(&why.to_string()) }
}

/// Compiles nothing of a component that is too large, imports a function, cannot be metered, or
/// cannot be baked. Returns it metered, and that instrumented.
pub(crate) fn checked(component: &[u8]) -> Result<(Metered, Metered), LoadError> {
    if component.len() as u64 > MAX_COMPONENT_BYTES {
        return Err(LoadError::TooLarge { bytes: component.len() });
    }
    match look(component)?.imports.into_iter().next() {
        Some(import) => Err(LoadError::Import { import }),
        None => {
            let metered = metered(component)?;
            let instrumented = bake::instrument(&metered)?;
            Ok((metered, instrumented))
        }
    }
}

/// The only way to compiled code: all of it has its fuel checked.
pub(crate) fn compile(engine: &Engine, component: &Metered) -> Result<Component, LoadError> {
    Component::new(engine, component.bytes()).map_err(|error| LoadError::NotComponent { why: format!("{error:#}") })
}

fn answered<T>(
    function: &'static str,
    answer: wasmtime::Result<Result<T, String>>,
    store: &Store<Guard>,
) -> Result<T, GuestError> {
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(message)) => Err(GuestError::Refused { function, message: printable(&message) }),
        Err(error) => Err(trapped(function, &error, store)),
    }
}

fn trapped(function: &'static str, error: &wasmtime::Error, store: &Store<Guard>) -> GuestError {
    // These have fuel of their own, which no job sets.
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            let most = if function == "prepare" { PREPARE_FUEL } else { PUBLIC_FUEL };
            format!("it used up its fuel, {most} units for one call that sees nobody's data: do less in it")
        }
        _ => describe(error, store.data()),
    };
    GuestError::Trapped { function, message }
}

/// A trap in words: the panic message and the backtrace where they were kept, else the trap's own name.
pub(crate) fn describe(error: &wasmtime::Error, guard: &Guard) -> String {
    let cause = match (guard.panic_message(), error.downcast_ref::<Trap>()) {
        (Some(message), _) => message,
        (None, Some(Trap::OutOfFuel)) => {
            "it used up its fuel: do less in one call, or raise `fuel_per_partition` if it is `contribute`".to_owned()
        }
        (None, Some(Trap::UnreachableCodeReached)) if guard.was_refused() => {
            "it ran out of memory: hold less at once, or raise `memory_mib`".to_owned()
        }
        (None, Some(Trap::UnreachableCodeReached)) => {
            "it panicked; `vestibule analysis try` shows the message and where".to_owned()
        }
        (None, Some(trap)) => trap.to_string(),
        (None, None) => match error.root_cause().to_string() {
            cause if cause.starts_with("memory minimum size of ") => {
                format!(
                    "its memory is larger from the start than `memory_mib` lets it be: raise that ({cause}, of 64 KiB each)"
                )
            }
            cause => cause,
        },
    };
    // A guest says what it panics with, and what its functions are called.
    printable(&match error.downcast_ref::<WasmBacktrace>() {
        Some(trace) if !trace.frames().is_empty() => format!("{cause}\n{trace}"),
        _ => cause,
    })
}

/// Words of a guest, as they may be shown on a terminal.
fn printable(text: &str) -> String {
    lines(&text.chars().take(2_000).collect::<String>()).into_owned()
}

impl std::fmt::Debug for Analysis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Analysis({})", self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_of_its_failure_moves_no_terminal() {
        let said = describe(&wasmtime::Error::msg("\u{1b}]0;title\u{7} and\nmore"), &Guard::new(1, false));
        assert_eq!(said, "\\u{1b}]0;title\\u{7} and\nmore");
    }
}
