//! `site.toml`: what a site's operator can set.
//!
//! *In*: TOML. *Out*: [`Settings`], of which every line has a default. *Refuses*: names that it does not know.

use serde::{Deserialize, Serialize};
use vestibule_protocol::trust::Revoked;

use crate::costs::Raised;
use crate::dataset::StorageSettings;
use crate::executor::ExecutorSettings;
use crate::ledger::MostHeld;

/// A site's settings, as `site.toml` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Threads that run guests. 0: one for each processor.
    pub threads: usize,
    /// Largest epsilon that one job may ask for.
    pub max_epsilon_per_job: f64,
    /// Largest delta that one job may ask for.
    pub max_delta_per_job: f64,
    /// Most fuel that one partition may be given.
    pub max_fuel_per_partition: u64,
    /// Most memory that one instance may be given, in MiB.
    pub max_memory_mib: u32,
    /// Most memory that the sums of a round, and what is read of its rows at a time, may take, in MiB: of the process that runs it, beside its workers.
    pub max_round_memory_mib: u64,
    /// How often a charged round is begun, where each time before it was lost with its process. Then it releases nothing.
    pub max_round_tries: u32,
    /// Rounds that run at the same time.
    pub max_running_rounds: usize,
    /// Longest that one call may take that sees nobody's data (compiling, `plan`, `prepare`), in seconds.
    pub max_public_seconds: u32,
    /// Offers whose calls that see nobody's data run at the same time; one researcher has all but one of these places at most.
    pub public_places: usize,
    /// What a researcher's jobs may take of this site's time within a day without being charged, in seconds. Then they are refused unseen.
    pub refused_seconds_per_day: u32,
    /// Do not start on a kernel that cannot put up every wall around the processes in which guests run.
    pub require_walls: bool,
    /// Answers that follow from data leave at whole multiples of so many seconds since 1970. 0: when their delay is over.
    pub release_tick_seconds: u32,
    /// Longest that a release may have to wait for its moment, in seconds: so long it has its round's place.
    pub max_release_delay_seconds: u32,
    /// Jobs of one researcher that may wait for a person here at the same time.
    pub max_held_per_researcher: u32,
    /// The same of one charter.
    pub max_held_per_charter: u32,
    /// After so many seconds in which nothing was logged, the log says that it goes on, and is witnessed.
    pub heartbeat_seconds: u32,
    /// Details of the log (names, titles, reasons) are erased after so many days. The log itself stays.
    pub keep_details_days: u32,
    /// Releases' bytes are removed so many days after they were stored, if they have left. Their digests stay.
    pub keep_releases_days: u32,
    /// Components, and what was compiled of them, are removed when they were not used for so many days.
    pub keep_components_days: u32,
    /// What is slower on this machine than it was measured: delays of releases follow from it.
    pub slowest: Raised,
    /// Keys and components that this site does not believe, whatever the consortium's trust bundle says.
    pub distrust: Revoked,
    /// Where the rows of datasets are kept, if not in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSettings>,
    /// Where rounds run.
    pub executor: ExecutorSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 0,
            max_epsilon_per_job: 4.0,
            max_delta_per_job: 1e-5,
            max_fuel_per_partition: 100_000_000,
            max_memory_mib: 256,
            max_round_memory_mib: 8_192,
            max_round_tries: 3,
            max_running_rounds: 1,
            max_public_seconds: 30,
            public_places: 2,
            refused_seconds_per_day: 600,
            require_walls: false,
            max_release_delay_seconds: 900,
            release_tick_seconds: 0,
            max_held_per_researcher: 20,
            max_held_per_charter: 50,
            heartbeat_seconds: 86_400,
            keep_details_days: 3_650,
            keep_releases_days: 365,
            keep_components_days: 365,
            slowest: Raised::default(),
            distrust: Revoked::default(),
            storage: None,
            executor: ExecutorSettings::default(),
        }
    }
}

/// Most that `max_memory_mib` and `threads` can be: an instance addresses less than 4 GiB.
const MOST_MEMORY_MIB: u32 = 3_072;
const MOST_THREADS: usize = 4_096;
/// Most rounds at the same time: each has workers of its own.
const MOST_ROUNDS: usize = 256;
/// Most that one job can ask for anywhere.
const MOST_EPSILON: f64 = vestibule_protocol::job::MAX_EPSILON;
/// The longest tick: a round has its place until then.
const MOST_TICK_SECONDS: u32 = 3_600;

impl Settings {
    /// Jobs that may wait for a person at the same time.
    pub(crate) const fn most_held(&self) -> MostHeld {
        MostHeld { researcher: self.max_held_per_researcher, charter: self.max_held_per_charter }
    }

    /// Refuses what no site can run with, by its name and what to do.
    pub(crate) fn check(&self) -> Result<(), String> {
        let at_least_1 = [
            ("max_fuel_per_partition", self.max_fuel_per_partition),
            ("max_memory_mib", self.max_memory_mib.into()),
            ("max_round_memory_mib", self.max_round_memory_mib),
            ("max_round_tries", self.max_round_tries.into()),
            ("max_running_rounds", self.max_running_rounds as u64),
            ("max_public_seconds", self.max_public_seconds.into()),
            ("public_places", self.public_places as u64),
            ("max_release_delay_seconds", self.max_release_delay_seconds.into()),
        ];
        if let Some((name, _)) = at_least_1.iter().find(|(_, value)| *value == 0) {
            return Err(format!("`{name}` is 0, with which no job can run: give 1 at least, or leave it out"));
        }
        if self.heartbeat_seconds == 0 {
            return Err("`heartbeat_seconds` is 0, which would fill the log: give 1 at least, or leave it out".to_owned());
        }
        let kept = [
            ("keep_details_days", self.keep_details_days),
            ("keep_releases_days", self.keep_releases_days),
            ("keep_components_days", self.keep_components_days),
        ];
        if let Some((name, _)) = kept.iter().find(|(_, days)| *days == 0) {
            return Err(format!(
                "`{name}` is 0, which would erase everything at the next start: give 1 at least, or leave it out"
            ));
        }
        // Neither is NaN within any range.
        if !(self.max_epsilon_per_job > 0.0 && self.max_epsilon_per_job <= MOST_EPSILON) {
            return Err(format!(
                "`max_epsilon_per_job` is {}: give more than 0 and at most {MOST_EPSILON}",
                self.max_epsilon_per_job
            ));
        }
        if !(0.0..1.0).contains(&self.max_delta_per_job) {
            return Err(format!("`max_delta_per_job` is {}: give 0 at least and less than 1", self.max_delta_per_job));
        }
        if self.release_tick_seconds > MOST_TICK_SECONDS {
            return Err(format!("`release_tick_seconds` is {}: give {MOST_TICK_SECONDS} at most", self.release_tick_seconds));
        }
        if self.max_running_rounds > MOST_ROUNDS {
            return Err(format!("`max_running_rounds` is {}: give {MOST_ROUNDS} at most", self.max_running_rounds));
        }
        if self.max_memory_mib > MOST_MEMORY_MIB {
            return Err(format!("`max_memory_mib` is {}: give {MOST_MEMORY_MIB} at most", self.max_memory_mib));
        }
        if self.threads > MOST_THREADS {
            return Err(format!("`threads` is {}: give {MOST_THREADS} at most, or 0 for one each processor", self.threads));
        }
        self.slowest.check().map_err(str::to_owned)
    }
}

/// What a fresh `site.toml` says.
pub const SETTINGS_TEMPLATE: &str = "\
# Settings of this site. Every line is optional; these are the defaults.
threads = 0                            # threads that run guests; 0: one for each processor
max_epsilon_per_job = 4.0              # a job that asks for more is refused
max_delta_per_job = 1e-5
max_fuel_per_partition = 100_000_000   # wasmtime fuel, about one unit per instruction
max_memory_mib = 256                   # memory of one instance
max_round_memory_mib = 8192            # memory of one round's sums and rows, over all threads, beside its instances
max_round_tries = 3                    # a charged round that was lost with its process so often releases nothing
max_running_rounds = 1                 # rounds that run at the same time; more of them share processors, and can be told from each other's length
max_public_seconds = 30                # compiling, `plan` and `prepare`, which see no data: each may take so long
public_places = 2                      # jobs for which that is done at the same time, beside rounds; one researcher has one place less
refused_seconds_per_day = 600          # a researcher whose jobs took so much of it within a day, uncharged, is refused
require_walls = false                  # true: do not start where the kernel lacks Landlock or seccomp
max_release_delay_seconds = 900        # a job whose release could have to wait longer for its moment is refused: it would keep others waiting
release_tick_seconds = 0               # e.g. 60: results leave on the minute after their delay
max_held_per_researcher = 20           # so many jobs of one researcher may wait for a person here; more are refused
max_held_per_charter = 50              # the same of one charter
heartbeat_seconds = 86_400             # after so long without a line, the log says that it goes on, and other sites witness it
keep_releases_days = 365               # what left is kept for so long, to be sent again and to answer the same question; its digest stays
keep_components_days = 365             # components that were not used for so long are removed
keep_details_days = 3650               # names, titles and reasons beside the log are erased after so long; the log itself stays
# How slow this machine is at its slowest is measured at the first start (slowest.json). A cost that is known to be higher:
# [slowest]
# fuel_ns = 40.0                       # a unit of fuel
# mib_us = 1500.0                      # a MiB of memory that is touched for the first time
# row_us = 310.0                       # reading one individual, and a fresh instance
# entry_ns = 80.0                      # a value, a dosage, an entry of the sums
# settle_us = 200.0                    # building the engine anew behind an instance that touched what others do not
# code_mib_us = 1700.0                 # of a MiB of code and of a round's state
# takeover_us = 5500.0                 # starting another worker, where one was ended
# send_mib_us = 2300.0                 # of a MiB that a worker is sent
# [distrust]                           # not believed here, whatever the consortium's trust bundle says
# keys = []                            # of people and sites, \"ed25519:...\"
# components = []                      # \"sha256:...\"
# [storage]                            # rows of datasets in S3-compatible storage, instead of here (docs/DATASETS.md)
# url = \"s3://bucket/prefix\"
# endpoint = \"https://host:port\"      # if it is not AWS
# region = \"eu-central-1\"
# credentials = \"keys/storage.toml\"   # access_key_id and secret_access_key; left out: the machine's own role
# Where rounds run: threads of this machine, or a cluster (docs/OPERATING.md, \"On a cluster\").
[executor]
kind = \"threads\"
";
