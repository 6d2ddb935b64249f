//! From a site's files to an encrypted dataset: whole or not at all.
//!
//! *In*: a `DATASET.toml` and the folder it lies in. *Out*: a new version of the dataset, which serves from the moment the pointer
//! to it is renamed into place; until then the old one does. *Trusts*: the site's operator. *Refuses*: a second ingest of the
//! dataset at the same time, and whatever its steps refuse; what was begun is removed then.
//!
//! Memory: genotypes are packed for as many individuals at a time as fit in 256 MiB; the variant files are
//! read once for each such batch. Tables are held whole. A killed ingest leaves a folder that the next one removes.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write as _};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use cap_std::fs::{Dir, OpenOptions};
use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::dictionary::Dictionary;
use vestibule_protocol::digest::hex;
use vestibule_protocol::name::Name;

use super::config::{Config, ConfigError, Individuals, Mapping};
use super::report::IngestReport;
use super::store::{self, RowWriter};
use super::table::{self, People};
use super::variants::{self, Genotypes, Seen};
use super::{CURRENT, DatasetError, InfoFile, StoreKey, Value, catalogue_file, current, read_info};

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
            Self::DiskFull => "disk-full",
            Self::Io { .. } => "ingest-io",
            Self::Dataset(error) => error.code(),
        }
    }

    fn io(what: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { what: what.to_owned(), why: error.to_string() },
        }
    }

    fn parquet(error: parquet::errors::ParquetError) -> Self {
        let text = error.to_string();
        if let parquet::errors::ParquetError::External(source) = error
            && let Some(error) = source.downcast_ref::<std::io::Error>()
        {
            return Self::io(store::FILE, error);
        }
        if text.contains("os error 28") { Self::DiskFull } else { Self::Io { what: store::FILE.to_owned(), why: text } }
    }
}

/// Bytes of packed genotypes that are held at a time.
const GENOTYPE_BYTES: usize = 256 << 20;

/// Ingests what `config` describes, from `source`, into `data`.
///
/// # Errors
/// See [`IngestError`].
pub fn ingest(
    source: &Dir,
    config_text: &str,
    data: &Dir,
    key: &StoreKey,
    progress: &mut dyn FnMut(Progress),
) -> Result<IngestReport, IngestError> {
    ingest_within(source, config_text, data, key, progress, GENOTYPE_BYTES)
}

pub(super) fn ingest_within(
    source: &Dir,
    config_text: &str,
    data: &Dir,
    key: &StoreKey,
    progress: &mut dyn FnMut(Progress),
    genotype_bytes: usize,
) -> Result<IngestReport, IngestError> {
    let config = Config::parse(config_text)?;
    let sources = Sources::open(source, &config)?;
    let name = &config.name;
    data.create_dir_all(name.as_str()).map_err(|error| IngestError::io(name.as_str(), &error))?;
    let folder = data.open_dir(name.as_str()).map_err(|error| IngestError::io(name.as_str(), &error))?;
    let lock = folder
        .open_with("lock", OpenOptions::new().create(true).write(true))
        .map_err(|error| IngestError::io("lock", &error))?;
    let lock = lock.into_std();
    lock.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => IngestError::Busy(name.clone()),
        std::fs::TryLockError::Error(error) => IngestError::io("lock", &error),
    })?;
    let inputs = key.inputs(&sources.digest(source, config_text, progress)?);
    let serving = current(data, name)?;
    if let Some((dir, _)) = &serving
        && let Ok((_, info)) = read_info(dir, name)
        && info.inputs == inputs
    {
        let report = read_report(dir, key).unwrap_or_default();
        return Ok(IngestReport { changed: false, ..report });
    }
    clean(&folder, serving.as_ref().map(|(_, version)| version.as_str()))?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| IngestError::Io { what: "randomness".to_owned(), why: error.to_string() })?;
    let version = format!("v{}", hex(&random));
    folder.create_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
    let dir = folder.open_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
    let written = write(source, &config, &sources, &dir, &version, &inputs, key, progress, genotype_bytes);
    let report = match written {
        Ok(report) => report,
        Err(error) => {
            // What was begun is of no use; if it cannot be removed now, the next ingest does.
            let _ = folder.remove_dir_all(&version);
            return Err(error);
        }
    };
    crate::home::replace(&folder, CURRENT, version.as_bytes()).map_err(|error| IngestError::io(CURRENT, &error))?;
    sync(&folder).map_err(|error| IngestError::io(CURRENT, &error))?;
    clean(&folder, Some(&version))?;
    Ok(report)
}

/// Removes every version but the one that serves.
fn clean(folder: &Dir, serving: Option<&str>) -> Result<(), IngestError> {
    for entry in folder.entries().map_err(|error| IngestError::io("the dataset's folder", &error))? {
        let entry = entry.map_err(|error| IngestError::io("the dataset's folder", &error))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('v') && Some(*name) != serving) else { continue };
        // A round may still read it: an open file outlives its name.
        folder.remove_dir_all(name).map_err(|error| IngestError::io(name, &error))?;
    }
    Ok(())
}

fn sync(dir: &Dir) -> std::io::Result<()> {
    dir.open(".")?.sync_all()
}

/// What is ingested, opened as far as it is small.
struct Sources {
    dictionary_text: String,
    dictionary: Dictionary,
    catalogues: Vec<(Vec<u8>, Arc<Catalogue>)>,
    variant_files: Vec<String>,
    /// Bytes of the variant files.
    variant_bytes: u64,
}

impl Sources {
    fn open(source: &Dir, config: &Config) -> Result<Self, IngestError> {
        let io = |file: &str, error: std::io::Error| IngestError::Config(ConfigError(format!("{file}: {error}")));
        let dictionary_text = source.read_to_string(&config.dictionary).map_err(|error| io(&config.dictionary, error))?;
        let of = |file: &str, error: &dyn std::fmt::Display| IngestError::Config(ConfigError(format!("{file}: {error}")));
        let dictionary = Dictionary::parse(&dictionary_text).map_err(|error| of(&config.dictionary, &error))?;
        let mut catalogues = Vec::new();
        let (mut variant_files, mut variant_bytes) = (Vec::new(), 0_u64);
        if let Some(variants) = &config.variants {
            for file in &variants.catalogue {
                let bytes = source.read(file).map_err(|error| io(file, error))?;
                let catalogue = Catalogue::parse(&bytes).map_err(|error| of(file, &error))?;
                if catalogue.build != variants.build {
                    let why = format!(
                        "it is on {}, the variant files on {}: bring them to one build",
                        catalogue.build, variants.build
                    );
                    return Err(of(file, &why));
                }
                catalogues.push((bytes, Arc::new(catalogue)));
            }
            if catalogues.is_empty() {
                return Err(of("[variants]", &"`catalogue` names no file"));
            }
            variant_files = matching(source, &variants.files)?;
            for file in &variant_files {
                let bytes = source.metadata(file).map_err(|error| io(file, error))?.len();
                variant_bytes = variant_bytes.saturating_add(bytes);
            }
        }
        Ok(Self { dictionary_text, dictionary, catalogues, variant_files, variant_bytes })
    }

    /// SHA-256 of everything that is read, so that the same files are not ingested twice.
    fn digest(&self, source: &Dir, config_text: &str, progress: &mut dyn FnMut(Progress)) -> Result<Vec<u8>, IngestError> {
        let config = Config::parse(config_text)?;
        let mut context = Context::new(&SHA256);
        for part in [config_text.as_bytes(), self.dictionary_text.as_bytes()]
            .into_iter()
            .chain(self.catalogues.iter().map(|(bytes, _)| bytes.as_slice()))
        {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut buffer = vec![0; 1 << 20];
        for file in config.table.iter().map(|table| &table.file).chain(&self.variant_files) {
            let fail = |error: &std::io::Error| IngestError::Config(ConfigError(format!("{file}: {error}")));
            let mut input = source.open(file).map_err(|error| fail(&error))?;
            context.update(&(file.len() as u64).to_be_bytes());
            context.update(file.as_bytes());
            let total = input.metadata().map_err(|error| fail(&error))?.len();
            let mut done = 0_u64;
            loop {
                let read = input.read(&mut buffer).map_err(|error| fail(&error))?;
                let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
                context.update(bytes);
                done = done.saturating_add(read as u64);
                progress(Progress { stage: format!("checking {file}"), done, total });
            }
            context.update(&done.to_be_bytes());
        }
        Ok(context.finish().as_ref().to_vec())
    }

    fn catalogues(&self) -> Vec<Arc<Catalogue>> {
        self.catalogues.iter().map(|(_, catalogue)| Arc::clone(catalogue)).collect()
    }
}

/// The files of the source folder that match the patterns, each once, in order of their names.
fn matching(source: &Dir, patterns: &[String]) -> Result<Vec<String>, IngestError> {
    let mut found = BTreeSet::new();
    for pattern in patterns {
        let before = found.len();
        if !pattern.contains('*') {
            found.insert(pattern.clone());
            continue;
        }
        for entry in source.entries().map_err(|error| IngestError::io("the source folder", &error))? {
            let entry = entry.map_err(|error| IngestError::io("the source folder", &error))?;
            if let Some(name) = entry.file_name().to_str().filter(|name| wildcard(pattern, name)) {
                found.insert(name.to_owned());
            }
        }
        if found.len() == before {
            return Err(ConfigError(format!("`[variants] files`: no file matches `{pattern}`")).into());
        }
    }
    Ok(found.into_iter().collect())
}

/// Whether `name` matches `pattern`, in which `*` stands for any text.
fn wildcard(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|tail| {
            let mut starts = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            starts.any(|at| tail.get(at..).is_some_and(|tail| wildcard(rest, tail)))
        }),
    }
}

#[expect(clippy::too_many_arguments, reason = "the one place where all parts of an ingest come together")]
fn write(
    source: &Dir,
    config: &Config,
    sources: &Sources,
    dir: &Dir,
    version: &str,
    inputs: &str,
    key: &StoreKey,
    progress: &mut dyn FnMut(Progress),
    genotype_bytes: usize,
) -> Result<IngestReport, IngestError> {
    let mut report = IngestReport { changed: true, ..IngestReport::default() };
    let mappings = config.mappings(&sources.dictionary)?;
    let mut people = tables(source, config, sources, &mappings, &mut report)?;
    let catalogues = sources.catalogues();
    let mut with_genotypes = BTreeSet::new();
    for file in &sources.variant_files {
        with_genotypes.extend(variants::samples(file, open(source, file)?)?);
    }
    if config.variants.as_ref().is_some_and(|variants| variants.individuals == Individuals::Table) {
        let before = with_genotypes.len();
        with_genotypes.retain(|id| people.contains_key(id));
        let left_out = before.saturating_sub(with_genotypes.len());
        let why = || "`individuals = \"table\"` in [variants]".to_owned();
        report.note_many("individuals in a variant file and in no table, left out", left_out as u64, why);
    }
    let both = with_genotypes.iter().filter(|id| people.contains_key(*id)).count();
    report.with_table = people.len() as u64;
    report.with_genotypes = with_genotypes.len() as u64;
    if !sources.variant_files.is_empty() && !config.table.is_empty() {
        report.note_many(
            "individuals in a table and in no variant file: dosages missing",
            people.len().saturating_sub(both) as u64,
            String::new,
        );
        report.note_many(
            "individuals in a variant file and in no table: values missing",
            with_genotypes.len().saturating_sub(both) as u64,
            String::new,
        );
        for note in report.notes.values_mut() {
            note.examples.retain(|example| !example.is_empty());
        }
    }
    let mut ids: Vec<String> =
        people.keys().cloned().chain(with_genotypes.iter().cloned()).collect::<BTreeSet<_>>().into_iter().collect();
    if ids.is_empty() {
        return Err(IngestError::Nobody);
    }
    ids.sort_by_cached_key(|id| key.order(id));
    report.individuals = ids.len() as u64;
    report.variants = catalogues.iter().map(|catalogue| catalogue.variants.len() as u64).sum();
    let defaults = constants(&mappings)?;
    let sizes: Vec<usize> = catalogues.iter().map(|catalogue| catalogue.variants.len()).collect();
    let file = dir.create(store::FILE).map_err(|error| IngestError::io(store::FILE, &error))?.into_std();
    let mut writer = RowWriter::new(file, &key.version(version), &sources.dictionary, &sizes).map_err(IngestError::parquet)?;
    let batch = (genotype_bytes / variants::bytes_per_person(&catalogues).max(1)).max(1);
    let passes = ids.chunks(batch).len() as u64;
    let total = sources.variant_bytes.saturating_mul(passes);
    let mut seen = Seen::new(&catalogues);
    let mut done = 0_u64;
    for (pass, batch) in ids.chunks(batch).enumerate() {
        let mut genotypes = Genotypes::new(batch, &catalogues);
        for file in &sources.variant_files {
            progress(Progress { stage: format!("reading {file}"), done, total });
            let first = (pass == 0).then_some(&mut report);
            variants::read(file, open(source, file)?, &catalogues, &mut genotypes, &mut seen, first)?;
            done = done.saturating_add(source.metadata(file).map_or(0, |metadata| metadata.len()));
        }
        progress(Progress { stage: "writing".to_owned(), done, total });
        for (place, id) in batch.iter().enumerate() {
            let mut values = people.remove(id).unwrap_or_else(|| vec![Value::Missing; mappings.len()]);
            for (value, default) in values.iter_mut().zip(&defaults) {
                if let Some(default) = default {
                    *value = *default;
                }
            }
            writer.push(id.clone(), values, genotypes.of(place).to_vec()).map_err(IngestError::parquet)?;
        }
    }
    report.variants_matched = seen.count();
    let file = writer.finish().map_err(IngestError::parquet)?;
    file.sync_all().map_err(|error| IngestError::io(store::FILE, &error))?;
    documents(config, sources, dir, version, inputs, key, &report)?;
    sync(dir).map_err(|error| IngestError::io(version, &error))?;
    Ok(report)
}

fn open(source: &Dir, file: &str) -> Result<cap_std::fs::File, IngestError> {
    source.open(file).map_err(|error| IngestError::Config(ConfigError(format!("{file}: {error}"))))
}

fn tables(
    source: &Dir,
    config: &Config,
    sources: &Sources,
    mappings: &[Option<(&super::config::MapConfig, Mapping)>],
    report: &mut IngestReport,
) -> Result<People, IngestError> {
    let names: Vec<&str> = sources.dictionary.columns.iter().map(|column| column.name.as_str()).collect();
    let mut people: People = HashMap::new();
    let mut found = vec![false; mappings.len()];
    for table in &config.table {
        let input = open(source, &table.file)?;
        table::read(table, input, mappings, &names, &mut found, &mut people, report)?;
    }
    for ((mapping, found), name) in mappings.iter().zip(found).zip(names) {
        if let Some((map, _)) = mapping
            && let Some(column) = &map.column
            && !found
        {
            let file = map.table.as_deref().unwrap_or("the tables");
            return Err(ConfigError(format!("`[map.{name}]`: there is no column `{column}` in {file}")).into());
        }
    }
    Ok(people)
}

/// The values of mappings that are the same for everybody.
fn constants(mappings: &[Option<(&super::config::MapConfig, Mapping)>]) -> Result<Vec<Option<Value>>, IngestError> {
    let constant = |mapping: &Option<(&super::config::MapConfig, Mapping)>| {
        let Some((config, mapping)) = mapping else { return Ok(None) };
        let Some(text) = &config.constant else { return Ok(None) };
        let value = table::value(mapping, text, '.');
        value.map(Some).map_err(|why| IngestError::Config(ConfigError(format!("`constant = \"{text}\"`: {why}"))))
    };
    mappings.iter().map(constant).collect()
}

/// Writes everything beside the rows: public documents, the description with its seal, the report.
fn documents(
    config: &Config,
    sources: &Sources,
    dir: &Dir,
    version: &str,
    inputs: &str,
    key: &StoreKey,
    report: &IngestReport,
) -> Result<(), IngestError> {
    let put = |file: &str, bytes: &[u8]| -> Result<(), IngestError> {
        let write = || -> std::io::Result<()> {
            let mut out = dir.create(file)?;
            out.write_all(bytes)?;
            out.sync_all()
        };
        write().map_err(|error| IngestError::io(file, &error))
    };
    put("dictionary.toml", sources.dictionary_text.as_bytes())?;
    for (index, (bytes, _)) in sources.catalogues.iter().enumerate() {
        put(&catalogue_file(index), bytes)?;
    }
    let info = InfoFile {
        name: config.name.clone(),
        about: config.about.clone(),
        approximate_size: config.approximate_size,
        dictionary: sources.dictionary.digest,
        catalogues: sources.catalogues.iter().map(|(_, catalogue)| catalogue.digest).collect(),
        duo: config.duo.clone(),
        budget: config.budget,
        inputs: inputs.to_owned(),
    };
    let info = serde_json::to_vec_pretty(&info).expect("texts and numbers are always JSON");
    put("info.json", &info)?;
    put("seal", &key.seal(version, &info))?;
    let report = serde_json::to_vec(report).expect("texts and numbers are always JSON");
    put("report", &key.encrypt(version, &report).map_err(|why| IngestError::Io { what: "report".to_owned(), why })?)
}

fn read_report(dir: &Dir, key: &StoreKey) -> Option<IngestReport> {
    serde_json::from_slice(&key.decrypt(&dir.read("report").ok()?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::wildcard;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, want) in [
            ("*.vcf.gz", "a.vcf.gz", true),
            ("*.vcf.gz", "a.vcf.gz.tbi", false),
            ("chr*.bcf", "chr20.bcf", true),
            ("chr*.bcf", "20.bcf", false),
            ("a*b*c", "axxbyyc", true),
            ("*", "", true),
            ("a", "b", false),
        ] {
            assert_eq!(wildcard(pattern, name), want, "{pattern} {name}");
        }
    }
}
