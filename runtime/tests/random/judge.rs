//! One component, run as a worker runs it, with a clock.
//!
//! *In*: a component, a job's limits, what this machine costs. *Out*: how long one hostile individual
//! took of the process' own time, and the limit that its worker would have had; or the code it was refused with. *Refuses*: a
//! component behind which ordinary individuals are slower than before.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::delay::Load;
use vestibule_runtime::partitions::Partitions;
use vestibule_sandbox::{Alone, Ground, Individual, Room, Sandbox, Settings};

use crate::guest::{HOSTILE, ORDINARY};

/// Most memory of any job of the test's.
pub(crate) const MAX_MEMORY_MIB: u32 = 64;
/// How often a time is taken that is too long: what else runs here makes times longer only.
const TRIES: usize = 20;
/// Ordinary individuals that are looked at before and after a hostile one.
const ORDINARIES: usize = 20;

/// How long one individual took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged {
    pub time: Duration,
    pub limit: Duration,
    /// Ordinary individuals before, and behind the hostile one.
    pub before: Ordinary,
    pub behind: Ordinary,
}

/// Some ordinary individuals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordinary {
    pub fastest: Duration,
    /// Who touched something first.
    pub faulted: u64,
}

impl Judged {
    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<String> {
        let (before, behind) = (self.before, self.behind);
        if self.time > self.limit {
            return Some(format!("took {:?} of {:?}", self.time, self.limit));
        }
        if behind.faulted > before.faulted + 1 {
            return Some(format!("{} of {ORDINARIES} behind it touched something first", behind.faulted));
        }
        let slower = behind.fastest > before.fastest * 2 + Duration::from_micros(50);
        slower.then(|| format!("those behind it took {:?}, before {:?}", behind.fastest, before.fastest))
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.time.as_secs_f64() / self.limit.as_secs_f64()
    }
}

fn round(entries: u64) -> Round {
    let length = u32::try_from(entries.max(1)).unwrap();
    let bound = if length == 1 { Bound::OneCell } else { Bound::Range { lower: 0.0, upper: 1.0 } };
    let statistic = Statistic { name: "n".into(), length, bound, weight: 1.0, source: Source::Given };
    Round::check(RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: true }).unwrap()
}

/// A code, and the words for it.
pub(crate) type Refused = (&'static str, String);

/// Runs `component`.
///
/// # Errors
/// What it is refused with.
pub(crate) fn judge(component: &[u8], entries: u64, rehearsed: bool, limits: Limits, costs: Costs) -> Result<Judged, Refused> {
    let settings = Settings {
        threads: 1,
        max_memory_mib: MAX_MEMORY_MIB,
        alone: true,
        parallel_compilation: false,
        ..Settings::default()
    };
    let sandbox = Sandbox::new(settings.clone()).unwrap();
    // What `load` returns stays with its sandbox, which would never be dropped.
    let compiled = sandbox.compile(component).map_err(|error| (error.code(), error.to_string()))?;
    // SAFETY: what this very engine has just made.
    let analysis = unsafe { sandbox.load_compiled(&compiled, component) };
    let analysis = analysis.map_err(|error| (error.code(), error.to_string()))?;
    let code = analysis.bake(&round(entries), limits).map_err(|error| (error.code(), error.to_string()))?;
    let entries = usize::try_from(entries.max(1)).unwrap();
    // SAFETY: what this very engine has just made.
    let runner = unsafe { sandbox.load_baked(&code, entries, limits) }.map_err(|error| (error.code(), error.to_string()))?;
    let load = Load::new(limits, 1, Partitions::of(Partitioning::Each, 1), runner.code_bytes());
    drop((runner, analysis, sandbox));
    let rehearsals = [of(ORDINARY), of(HOSTILE)];
    let rehearsals = Room::Rehearsed(&rehearsals[..if rehearsed { 2 } else { 1 }]);
    // SAFETY: what an engine of the same settings has just made.
    let alone = unsafe { Alone::new(Ground::new().unwrap(), settings, code, entries, limits, rehearsals) };
    let mut guests = Guests(alone.map_err(|error| (error.code(), error.to_string()))?);
    // What the allocator takes at first is nobody's.
    guests.ordinary();
    let before = guests.ordinary();
    let limit = load.laying(guests.0.pages().bytes()).limit(entries, costs);
    let mut time = guests.take(HOSTILE);
    let behind = guests.ordinary();
    for _ in 1..TRIES {
        if time <= limit {
            break;
        }
        guests.take(ORDINARY);
        time = time.min(guests.take(HOSTILE));
    }
    Ok(Judged { time, limit, before, behind })
}

/// Time that this process was on a processor, which is what a worker's limit counts.
fn own() -> Duration {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(own.tv_sec.unsigned_abs(), u32::try_from(own.tv_nsec).unwrap())
}

/// A worker's guests.
struct Guests(Alone);

impl Guests {
    fn take(&mut self, how: u8) -> Duration {
        let partition = of(how);
        let began = own();
        drop(self.0.contribute(&partition));
        self.0.settle().unwrap();
        own().saturating_sub(began)
    }

    fn ordinary(&mut self) -> Ordinary {
        let given_back = self.0.given_back();
        let fastest = (0..ORDINARIES).map(|_| self.take(ORDINARY)).min().unwrap_or_default();
        Ordinary { fastest, faulted: self.0.given_back() - given_back }
    }
}

fn of(how: u8) -> Vec<Individual<'static>> {
    let dosages: &[u8] = if how == HOSTILE { &[HOSTILE] } else { &[ORDINARY] };
    vec![Individual { values: &[], dosages }]
}
