//! From a site's files to an encrypted dataset: whole or not at all.
//!
//! *In*: a `DATASET.toml` and the folder it lies in. *Out*: a new version of the dataset, which serves from the moment [`Books`](super::Books)
//! say so; until then the old one does. *Trusts*: the site's operator. *Refuses*: a second ingest of the
//! dataset at the same time, and whatever its steps refuse; what was begun is removed then. What a killed ingest began is gone on
//! with, where the same files are ingested again. Variant files that the version which serves was read from, and which are the same, are not read again: their
//! genotypes are taken over (`growth`).
//!
//! Memory: 256 MiB of genotypes, 64 MiB of tables, one row group and everybody's places in the order of rows, whatever the files' size. Every file is read once.

mod documents;
mod groups;
mod growth;
mod journal;
mod marks;
mod people;
mod plan;
mod record;
mod rows;
mod sources;
mod spill;
mod tables;
mod variants;

use std::time::SystemTime;

use cap_std::fs::{Dir, OpenOptions};
pub(crate) use groups::MEAN_ROWS;
use vestibule_importer::{Config, ConfigError, IngestReport};
use vestibule_protocol::digest::hex;
use vestibule_protocol::name::Name;
use vestibule_worker::WorkerError;

use self::growth::Growth;
use self::journal::Journal;
pub(super) use self::record::Record;
use self::rows::{Making, Stopped};
use self::sources::Sources;
use super::bucket::StorageError;
use super::import::Importers;
use super::withdrawal::{self, Withdrawn};
use super::{DataFolder, DatasetError, StoreKey, current, read_info, store};

/// How far an ingest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, with the file's name.
    pub stage: String,
    /// Bytes of source files read so far, over all passes.
    pub done: u64,
    /// Bytes to read in all.
    pub total: u64,
}

/// Why an ingest ended without a new version. The old one still serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The recipe, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another ingest is under way.
    #[error("another ingest of dataset `{0}` is under way: wait for it to end")]
    Busy(Name),
    /// No individual.
    #[error("no individual was found in any file")]
    Nobody,
    /// The public size is not about right.
    #[error(
        "`approximate_size` is {said}, and there are {found} individuals: say about how many there are, for rows are grouped by it"
    )]
    Size {
        /// What the recipe says.
        said: u64,
        /// What was counted.
        found: u64,
    },
    /// The disk is full.
    #[error("the disk is full: free some space and run the ingest again; the dataset that served before still does")]
    DiskFull,
    /// Reading or writing failed.
    #[error("{what}: {why}")]
    Io {
        /// Which file, or what was done.
        what: String,
        /// What the system says.
        why: String,
    },
    /// An importer could not be started.
    #[error("no importer could be started: {0}")]
    Start(#[from] WorkerError),
    /// A wall around importers is missing, and must not be.
    #[error("`require_walls` is set, and this kernel leaves gaps: {0}")]
    Walls(String),
    /// The process that read a file was lost.
    #[error(
        "{file}: the process that read it was lost behind its record {records}: {why}; is the file damaged, or made to do harm? \
         The dataset that served before still does"
    )]
    Importer {
        /// The file.
        file: String,
        /// Records, or lines, that had been taken in.
        records: u64,
        /// How it ended.
        why: String,
    },
    /// The bucket for its rows.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The data folder.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
}

impl IngestError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(error) => error.code(),
            Self::Busy(_) => "ingest-busy",
            Self::Nobody => "ingest-nobody",
            Self::Size { .. } => "size-differs",
            Self::DiskFull => "disk-full",
            Self::Io { .. } => "ingest-io",
            Self::Storage(error) => error.code(),
            Self::Start(error) => error.code(),
            Self::Walls(_) => "site-walls",
            Self::Importer { .. } => "importer-lost",
            Self::Dataset(error) => error.code(),
        }
    }

    pub(super) fn io(what: &str, error: &std::io::Error) -> Self {
        if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<StorageError>()) {
            return error.clone().into();
        }
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { what: what.to_owned(), why: error.to_string() },
        }
    }
}

/// How an ingest goes about it: how much it holds, how often it saves its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    /// Bytes of genotypes in memory.
    pub(super) memory: usize,
    /// Bytes of variant files between two checkpoints.
    pub(super) checkpoint: u64,
    /// Reads all files, whatever is known of them.
    pub(super) afresh: bool,
    /// Seconds since 1970.
    pub(super) now: i64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { memory: 256 << 20, checkpoint: 512 << 20, afresh: false, now: 0 }
    }
}

/// What is done with variant files that the version which serves was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Same {
    /// Those that are the same are not read: their genotypes are taken over.
    TakeOver,
    /// All are read, whatever is known of them.
    ReadAgain,
}

/// Ingests what `config` describes, from `source`, into `data`. `importers` read the files, but for those that `same` says are not read.
///
/// # Errors
/// See [`IngestError`].
pub fn ingest(
    (source, config_text): (&Dir, &str),
    (data, key): (&DataFolder, &StoreKey),
    importers: &Importers,
    same: Same,
    progress: &mut dyn FnMut(Progress),
) -> Result<IngestReport, IngestError> {
    let tuning = Tuning { now: now(), afresh: same == Same::ReadAgain, ..Tuning::default() };
    ingest_tuned(source, config_text, (data, key), importers, progress, tuning)
}

pub(super) fn ingest_tuned(
    source: &Dir,
    config_text: &str,
    (data, key): (&DataFolder, &StoreKey),
    importers: &Importers,
    progress: &mut dyn FnMut(Progress),
    tuning: Tuning,
) -> Result<IngestReport, IngestError> {
    let config = Config::parse(config_text)?;
    let mut sources = Sources::open(source, &config)?;
    let name = &config.name;
    data.create_dir_all(name.as_str()).map_err(|error| IngestError::io(name.as_str(), &error))?;
    let folder = data.open_dir(name.as_str()).map_err(|error| IngestError::io(name.as_str(), &error))?;
    let _lock = locked(&folder, name)?;
    let serving = match current(data, name) {
        // What is not there is made anew.
        Err(DatasetError::Missing { .. }) => None,
        other => other?,
    };
    // What the version that serves was read from; or why that is not known.
    let record = match &serving {
        Some((dir, version)) if !tuning.afresh && !sources.variant_files.is_empty() => Some(Record::read(dir, key, version)),
        _ => None,
    };
    let known = record.as_ref().and_then(|record| record.as_ref().ok()).map(Record::known).unwrap_or_default();
    let inputs = key.inputs(&sources.identify(source, config_text, (&known, tuning.now), progress)?);
    if let Some((dir, _)) = &serving
        && let Ok((_, info)) = read_info(dir, name)
        && info.inputs == inputs
        && !withdrawal::is_stale(&folder)
        && !tuning.afresh
    {
        let report = read_report(dir, key).unwrap_or_default();
        return Ok(IngestReport { changed: false, ..report });
    }
    let least_quality = config.variants.as_ref().map_or(0, |variants| variants.reference_quality);
    let grown = match (record, &serving) {
        (Some(record), Some((dir, version))) => Some(
            record
                .map_err(str::to_owned)
                .and_then(|record| Growth::open((data, dir, version), key, record, &sources.catalogues(), least_quality)),
        ),
        _ => None,
    };
    // From what is taken over, or why nothing is.
    let (mut growth, mut unfit) = match grown {
        Some(Ok(growth)) => (Some(growth), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let serving = serving.map(|(_, version)| version);
    let withdrawn = Withdrawn::read(data, name, key)?;
    loop {
        let (from, store) = growth.take().unzip();
        // What a killed ingest began is gone on with only where the same people are in, and the same is taken over.
        let base = from.as_ref().map_or("", |growth: &Growth| growth.version.as_str());
        let people = format!("{inputs}.{}.{base}", withdrawn.name());
        let begun = begun(&folder, serving.as_deref(), &people, key)?;
        let keep: Vec<&str> =
            serving.as_deref().into_iter().chain(begun.as_ref().map(|(version, _)| version.as_str())).collect();
        clean(data, &folder, &keep)?;
        let (version, journal) = match begun {
            Some((version, journal)) => (version, Some(journal)),
            None => (fresh(&folder)?, None),
        };
        let dir = folder.open_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
        let making = Making {
            data,
            importers,
            source,
            config: &config,
            config_text,
            sources: &sources,
            dir: &dir,
            version: &version,
            inputs: &inputs,
            people: &people,
            withdrawn: &withdrawn,
            growth: from.as_ref(),
            unfit: unfit.as_deref(),
            key,
            tuning,
        };
        let report = match making.run(journal, store, progress) {
            Ok(report) => report,
            Err(stopped) => {
                // What was begun is of no use; if it cannot be removed now, the next ingest does.
                let _ = remove(data, &folder, &version);
                match stopped {
                    Stopped::Failed(error) => return Err(error),
                    Stopped::Unfit(why) => unfit = Some(why),
                }
                continue;
            }
        };
        let served = sync(&folder).and_then(|()| data.serve(name, &version)).and_then(|()| withdrawal::fresh(&folder));
        served.map_err(|error| IngestError::io(&version, &error))?;
        clean(data, &folder, &[&version])?;
        return Ok(report);
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// One ingest of a dataset at a time: held until it is dropped.
pub(super) fn locked(folder: &Dir, name: &Name) -> Result<Lock, IngestError> {
    let lock = folder
        .open_with("lock", OpenOptions::new().create(true).write(true))
        .map_err(|error| IngestError::io("lock", &error))?
        .into_std();
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Err(IngestError::Busy(name.clone())),
        Err(std::fs::TryLockError::Error(error)) => Err(IngestError::io("lock", &error)),
    }
}

/// A held lock. It is given back by name: closing the file alone leaves it with a process that was being started meanwhile, until that is another program.
pub(super) struct Lock(std::fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where this fails, the file is closed all the same.
        let _ = self.0.unlock();
    }
}

/// A version that a killed ingest of the same inputs left, with its journal.
fn begun(folder: &Dir, serving: Option<&str>, inputs: &str, key: &StoreKey) -> Result<Option<(String, Journal)>, IngestError> {
    for version in versions(folder)? {
        if Some(version.as_str()) == serving {
            continue;
        }
        let dir = folder.open_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
        if let Some(journal) = Journal::read(&dir, key, inputs) {
            return Ok(Some((version, journal)));
        }
    }
    Ok(None)
}

/// The folder of a new version.
pub(super) fn fresh(folder: &Dir) -> Result<String, IngestError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| IngestError::Io { what: "randomness".to_owned(), why: error.to_string() })?;
    let version = format!("v{}", hex(&random));
    folder.create_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
    Ok(version)
}

fn versions(folder: &Dir) -> Result<Vec<String>, IngestError> {
    let fail = |error: &std::io::Error| IngestError::io("the dataset's folder", error);
    let mut found = Vec::new();
    for entry in folder.entries().map_err(|error| fail(&error))? {
        let name = entry.map_err(|error| fail(&error))?.file_name();
        found.extend(name.to_str().filter(|name| name.starts_with('v')).map(str::to_owned));
    }
    Ok(found)
}

/// Removes every version but those.
pub(super) fn clean(data: &DataFolder, folder: &Dir, keep: &[&str]) -> Result<(), IngestError> {
    for version in versions(folder)?.iter().filter(|version| !keep.contains(&version.as_str())) {
        // A round may still read it: an open file outlives its name, and of an object it has fetched all that it reads.
        remove(data, folder, version)?;
    }
    Ok(())
}

/// Removes a version, and first of all the object that holds its rows.
fn remove(data: &DataFolder, folder: &Dir, version: &str) -> Result<(), IngestError> {
    let gone = || store::forget(data, &folder.open_dir(version)?).and_then(|()| folder.remove_dir_all(version));
    gone().map_err(|error| IngestError::io(version, &error))
}

pub(super) fn sync(dir: &Dir) -> std::io::Result<()> {
    dir.open(".")?.sync_all()
}

fn read_report(dir: &Dir, key: &StoreKey) -> Option<IngestReport> {
    serde_json::from_slice(&key.decrypt(&dir.read("report").ok()?)?).ok()
}
