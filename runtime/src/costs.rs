//! The slowest that a site's machine does what one individual can have it do.
//!
//! *In*: what a worker measured, at the daemon's first start on a machine; `[slowest]` in
//! `site.toml`. *Out*: [`Costs`], from which the limit of one partition's time and the delays of
//! releases follow. *Refuses*: costs that are no times. Settings can raise what was measured, and
//! nothing else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_sandbox::Slowest;

/// The slowest that a machine does what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Nanoseconds of a unit of fuel.
    pub fuel_ns: f64,
    /// Microseconds of a MiB of memory that is touched for the first time, and taken back afterwards.
    pub mib_us: f64,
    /// Microseconds for an individual's row: reading, handing over, a fresh instance, what it hands
    /// over beyond the sums.
    pub row_us: f64,
    /// Nanoseconds for each of its values and dosages, and for each entry of the sums.
    pub entry_ns: f64,
    /// Microseconds of building the engine anew behind an instance that touched what others do not.
    pub settle_us: f64,
    /// Microseconds, beyond that, of a MiB of code and of the state that was baked into it.
    pub code_mib_us: f64,
    /// Microseconds until a worker has started, which one more does when another was ended.
    pub takeover_us: f64,
    /// Microseconds of a MiB that a worker is sent.
    pub send_mib_us: f64,
}

/// What runs beside an individual can make it slower than it was when it was measured alone.
const MARGIN: f64 = 1.5;
/// Reading a value and adding an entry up is the host's work, which no guest makes slower.
const ENTRY_NS: f64 = 50.0;

impl Costs {
    /// No time at all.
    pub const NONE: Self = Self::each_of([0.0; 8]);
    /// What a machine takes that nobody measured, for quotes: about what was measured, with the margin, on
    /// two virtual processors of a Xeon server (2026).
    pub const USUAL: Self = Self::each_of([40.0, 1_500.0, 310.0, 80.0, 200.0, 1_700.0, 5_500.0, 2_300.0]);

    /// No machine is quicker: what says so was not measured.
    const LEAST: Self = Self::each_of([2.0, 50.0, 100.0, ENTRY_NS, 20.0, 50.0, 500.0, 50.0]);

    /// By what was measured in a worker, how long such a worker takes to start, and to be sent a MiB.
    #[must_use]
    pub fn measured(slowest: Slowest, start: Duration, sent: Duration) -> Self {
        let Slowest { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us } = slowest;
        let [takeover_us, send_mib_us] = [start, sent].map(|time| time.as_secs_f64() * 1e6);
        let seen = [fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us];
        Self::each_of(seen.map(|cost| cost * MARGIN)).at_least(Self::LEAST)
    }

    /// The larger of both, each.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        let mut own = self.each();
        own.iter_mut().zip(other.each()).for_each(|(own, other)| *own = own.max(other));
        Self::each_of(own)
    }

    const fn each(&self) -> [f64; 8] {
        let Self { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us } = *self;
        [fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us]
    }

    const fn each_of(costs: [f64; 8]) -> Self {
        let [fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us] = costs;
        Self { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us }
    }

    fn are_times(&self) -> bool {
        self.each().into_iter().all(|cost| cost.is_finite() && cost >= 0.0)
    }
}

/// `[slowest]`: what an operator knows to be slower than it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the cost of that name")]
pub struct Raised {
    pub fuel_ns: f64,
    pub mib_us: f64,
    pub row_us: f64,
    pub entry_ns: f64,
    pub settle_us: f64,
    pub code_mib_us: f64,
    pub takeover_us: f64,
    pub send_mib_us: f64,
    /// Take these as they are, and measure nothing: for tests of sites alone, which attack moments by
    /// themselves. A daemon refuses it outside of them.
    pub assume_for_tests: bool,
}

impl Raised {
    /// Refuses what is no time.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.costs().are_times() { Ok(()) } else { Err("`[slowest]`: costs are numbers that are not negative") }
    }

    /// These, or what was measured where that is more.
    pub(crate) fn over<E>(&self, measure: impl FnOnce() -> Result<Costs, E>) -> Result<Costs, E> {
        if self.assume_for_tests { Ok(self.costs()) } else { measure().map(|measured| measured.at_least(self.costs())) }
    }

    /// For the limit of a partition's time: one that was assumed is never shorter than the usual.
    pub(crate) fn patience(&self, costs: Costs) -> Costs {
        if self.assume_for_tests { costs.at_least(Costs::USUAL) } else { costs }
    }

    const fn costs(&self) -> Costs {
        let Self { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us, assume_for_tests: _ } =
            *self;
        Costs { fuel_ns, mib_us, row_us, entry_ns, settle_us, code_mib_us, takeover_us, send_mib_us }
    }
}

/// What was measured, and on which machine: on another one it is measured again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    machine: String,
    /// With the margin.
    pub costs: Costs,
}

impl Known {
    /// Of this machine.
    #[must_use]
    pub fn new(machine: String, costs: Costs) -> Self {
        Self { machine, costs }
    }

    /// What was measured on this machine, if it was.
    #[must_use]
    pub fn read(bytes: &[u8], machine: &str) -> Option<Costs> {
        let known: Self = serde_json::from_slice(bytes).ok()?;
        let costs = known.costs;
        (known.machine == machine && costs.are_times() && costs.at_least(Costs::LEAST) == costs).then_some(costs)
    }
}

/// What tells this machine from others, for guests of so much memory: its processors, its kernel, and
/// the program.
///
/// # Errors
/// The kernel does not say it.
pub fn machine(program: &str, memory_mib: u32) -> std::io::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path);
    let processors = read("/proc/cpuinfo")?;
    let model = processors.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let model = model.and_then(|line| line.split_once(':')).map_or("", |(_, model)| model.trim());
    let [name, kernel] = ["hostname", "osrelease"].map(|name| read(&format!("/proc/sys/kernel/{name}")));
    let (name, kernel) = (name?, kernel?);
    Ok(format!("{}; {count} x {model}; Linux {}; {program}; {memory_mib} MiB", name.trim(), kernel.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Slowest =
        Slowest { fuel_ns: 20.0, mib_us: 300.0, row_us: 100.0, entry_ns: 1.0, settle_us: 200.0, code_mib_us: 900.0 };

    #[test]
    fn settings_only_raise_what_was_measured() {
        let measured = Costs::measured(SEEN, Duration::from_millis(4), Duration::from_millis(1));
        assert_eq!((measured.fuel_ns, measured.entry_ns, measured.takeover_us), (30.0, 50.0, 6_000.0));
        let raised = Raised { fuel_ns: 99.0, mib_us: 1.0, ..Raised::default() };
        let costs = raised.over(|| Ok::<_, ()>(measured)).unwrap();
        assert_eq!((costs.fuel_ns, costs.mib_us, costs.row_us), (99.0, 450.0, 150.0));
        let assumed = Raised { assume_for_tests: true, ..raised };
        assert_eq!(assumed.over(|| Err("nothing is measured")).unwrap().mib_us, 1.0);
        for wrong in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(Raised { row_us: wrong, ..raised }.check().is_err());
        }
        assert!(raised.check().is_ok());
    }

    #[test]
    fn what_was_measured_on_another_machine_is_not_believed() {
        let here = machine("a program", 256).unwrap();
        let known = Known::new(here.clone(), Costs::measured(SEEN, Duration::ZERO, Duration::ZERO));
        let bytes = serde_json::to_vec(&known).unwrap();
        assert_eq!(Known::read(&bytes, &here), Some(known.costs));
        assert_eq!(Known::read(&bytes, &machine("another", 256).unwrap()), None);
        assert_eq!(Known::read(&bytes, &machine("a program", 512).unwrap()), None);
        assert_eq!(Known::read(b"{}", &here), None);
        // Nor what no machine takes.
        for less in [Costs { fuel_ns: 0.0, ..known.costs }, Costs { takeover_us: 1.0, ..known.costs }, Costs::NONE] {
            let bytes = serde_json::to_vec(&Known::new(here.clone(), less)).unwrap();
            assert_eq!(Known::read(&bytes, &here), None, "{less:?}");
        }
    }
}
