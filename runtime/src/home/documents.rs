//! What the folder keeps besides: rules, what was measured of this machine, why the site is frozen.
//!
//! *In*: documents whose signatures were looked at, each whole. *Out*: the same, read anew each time. *Refuses*: files that are none of them.

use vestibule_protocol::digest::Digest;

use super::{FROZEN, Home, HomeError, replace};
use crate::costs::{self, Costs, Known};

/// What was measured of this machine.
const SLOWEST: &str = "slowest.json";
/// Tests of sites set this for their daemons.
const ASSUME: &str = "VESTIBULE_ASSUME_COSTS";

impl Home {
    /// What a witness showed that this log does not have, where the site is frozen.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn frozen(&self) -> Result<Option<String>, HomeError> {
        match self.dir.read_to_string(FROZEN) {
            Ok(shown) => Ok(Some(shown)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HomeError::Io { path: self.path.join(FROZEN), source }),
        }
    }

    /// How slow this machine is: what is measured now, or was at a start before, whichever is more. A
    /// machine that was found quiet is slower at other times; none becomes quicker for good.
    pub(crate) fn costs<E: From<HomeError>>(&self, measure: impl FnOnce() -> Result<Costs, E>) -> Result<Costs, E> {
        let io = |source| HomeError::Io { path: self.path.join(SLOWEST), source };
        if self.settings.slowest.assume_for_tests {
            if std::env::var_os(ASSUME).is_none() {
                let why = format!(
                    "`[slowest]`: with `assume_for_tests` the moments of releases tell of people; it is for tests of sites, which set \
                     {ASSUME}: leave it out"
                );
                return Err(HomeError::Settings { path: self.path.join("site.toml"), why }.into());
            }
            tracing::warn!("the moments of this site's releases tell of people: `[slowest]` says `assume_for_tests`");
        }
        let program = Digest::of(&std::fs::read("/proc/self/exe").map_err(io)?).hex();
        let machine = costs::machine(&program, self.settings.max_memory_mib).map_err(io)?;
        self.settings.slowest.over(|| {
            // A file that cannot be read, or is another machine's, is written anew.
            let known = self.dir.read(SLOWEST).ok().and_then(|bytes| Known::read(&bytes, &machine));
            let now = measure()?;
            let costs = known.map_or(now, |known| now.at_least(known));
            if known != Some(costs) {
                let bytes = serde_json::to_vec_pretty(&Known::new(machine, costs)).map_err(|error| io(error.into()))?;
                self.dir.write(SLOWEST, bytes).map_err(io)?;
                tracing::info!("this machine was measured to be slower than at any start before: see slowest.json");
            }
            Ok(costs)
        })
    }

    /// No longer frozen: what the witness showed is kept under another name.
    pub(crate) fn thaw(&self) -> Result<(), HomeError> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let io = |source| HomeError::Io { path: self.path.join(FROZEN), source };
        self.dir.rename(FROZEN, &self.dir, format!("recovered-{now}.note")).map_err(io)
    }

    pub(crate) fn freeze(&self, shown: &str) -> Result<(), HomeError> {
        replace(&self.dir, FROZEN, shown.as_bytes()).map_err(|source| HomeError::Io { path: self.path.join(FROZEN), source })
    }

    /// A policy that was set, as it was signed.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn policy(&self, digest: Digest) -> Result<Vec<u8>, HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        self.dir.read(&file).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }

    /// Keeps a policy that is set.
    pub(crate) fn keep_policy(&self, digest: Digest, envelope: &[u8]) -> Result<(), HomeError> {
        let file = format!("policies/{}.json", digest.hex());
        replace(&self.dir, &file, envelope).map_err(|source| HomeError::Io { path: self.path.join(file), source })
    }
}
