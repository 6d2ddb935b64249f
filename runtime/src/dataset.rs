//! Step 9, the data: what a site holds, and how one round reads it.
//!
//! *In*: a site's own files, once, by [`ingest`] (which has [`Importers`] read them); then a plan's columns and slices. *Out*: rows, one for each individual, that
//! hold what was asked for and nothing else. *Trusts*: the store key. *Refuses*: data under another key, a plan that names
//! what is not there (public terms, so the refusal may say so).
//!
//! ```text
//! data/NAME/VERSION/info.json  the public description         data/NAME/VERSION/dictionary.toml, catalogue-N.tsv  public
//! data/NAME/VERSION/seal       HMAC of info.json, our key     data/NAME/VERSION/people.rows        encrypted rows
//! data/NAME/VERSION/report     encrypted: for the site's eyes  data/NAME/VERSION/sources            encrypted: what it was read from
//! ```
//!
//! Which version serves, and who is left out, the site's ledger says ([`Books`]).
//! Rows may lie in a bucket instead; `data/NAME/VERSION/people.object` then says in which object. All else stays in the folder, since it decides what serves.

mod base;
mod books;
mod bucket;
mod import;
mod ingest;
mod pack;
mod rows;
mod seal;
mod store;
mod tiles;
mod withdrawal;

use std::ops::Deref;
use std::sync::Arc;

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use vestibule_protocol::catalogue::{Catalogue, Variant, VariantSlice};
use vestibule_protocol::dictionary::{Column, Dictionary};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::name::Name;
use vestibule_protocol::shape;

pub use books::Books;
pub use bucket::{Bucket, StorageError, StorageSettings};
pub use import::{Importers, import};
pub(crate) use ingest::MEAN_ROWS;
pub use ingest::{IngestError, Progress, Same, ingest};
pub(crate) use pack::{BLOCK_BYTES, BLOCK_VARIANTS};
pub use rows::Rows;
pub(crate) use rows::RowsKey;
pub use seal::StoreKey;
pub(crate) use store::{GROUP_ROWS, Packed};
pub use store::{RowGroup, Selection};
pub use vestibule_importer::{Conditions, Config, ConfigError, Crypt4ghKey, IngestReport, LifetimeBudget, Note, Value};
pub(crate) use vestibule_importer::{modifiers, permission};
pub use vestibule_protocol::shape::ShapeError;
pub use withdrawal::{Withdrawal, readmit, withdraw};

/// Where a site's datasets lie: a folder, a bucket for their rows if the site says so, and who says what of it serves.
#[derive(Debug)]
pub struct DataFolder {
    dir: Dir,
    bucket: Option<Arc<Bucket>>,
    books: Option<Arc<dyn Books>>,
}

impl DataFolder {
    /// New rows go to the bucket, if there is one.
    #[must_use]
    pub const fn new(dir: Dir, bucket: Option<Arc<Bucket>>) -> Self {
        Self { dir, bucket, books: None }
    }

    /// What serves is what these books say, and not what files in the folder do.
    #[must_use]
    pub fn by(self, books: Arc<dyn Books>) -> Self {
        Self { books: Some(books), ..self }
    }

    const fn bucket(&self) -> Option<&Arc<Bucket>> {
        self.bucket.as_ref()
    }
}

impl From<Dir> for DataFolder {
    fn from(dir: Dir) -> Self {
        Self::new(dir, None)
    }
}

impl Deref for DataFolder {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.dir
    }
}

/// A dataset's public description. Holds nothing that was counted.
#[derive(Debug, Clone, PartialEq)]
pub struct DatasetInfo {
    /// Its name.
    pub name: Name,
    /// For people.
    pub about: String,
    /// As the site chose to round it.
    pub approximate_size: u64,
    /// Its columns.
    pub dictionary: Dictionary,
    /// Its catalogues.
    pub catalogues: Vec<Arc<Catalogue>>,
    /// Data Use Ontology codes.
    pub duo: Vec<String>,
    /// What the codes speak of.
    pub conditions: Conditions,
    /// Whose data it is. Datasets about the same people have one population, and are paid from one account.
    pub population: Name,
    /// What may be spent.
    pub budget: LifetimeBudget,
}

/// A dataset that serves.
#[derive(Debug)]
pub struct Dataset {
    info: DatasetInfo,
    version: String,
    rows: Rows,
}

/// A dataset that cannot be used. For the site's own log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// No such dataset.
    #[error("there is no dataset `{0}`: make one with `vestibule site ingest`")]
    Unknown(Name),
    /// An older copy was put in its place.
    #[error(
        "dataset `{name}`: version {version} serves, and it is not in the data folder: an older copy was put in its place, or a part is missing. \
         Put back what was there last, or ingest the dataset again"
    )]
    Missing {
        /// The dataset.
        name: Name,
        /// What the ledger says that serves.
        version: String,
    },
    /// Another key, or changed files.
    #[error("dataset `{0}` does not open with this site's store key: it was made with another key, or its files were changed")]
    WrongKey(Name),
    /// A file that cannot be read.
    #[error("dataset `{name}`, {file}: {why}")]
    Damaged {
        /// The dataset.
        name: Name,
        /// The file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// The bucket that its rows lie in.
    #[error("dataset `{name}`: {source}")]
    Storage {
        /// The dataset.
        name: Name,
        /// What went wrong.
        source: StorageError,
    },
    /// The folder.
    #[error("the data folder: {0}")]
    Io(#[from] std::io::Error),
}

impl DatasetError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "dataset-unknown",
            Self::Missing { .. } => "dataset-missing",
            Self::WrongKey(_) => "dataset-wrong-key",
            Self::Damaged { .. } => "dataset-damaged",
            Self::Storage { source, .. } => source.code(),
            Self::Io(_) => "dataset-io",
        }
    }
}

/// `info.json`: what the public description needs besides the documents that lie beside it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InfoFile {
    name: Name,
    about: String,
    approximate_size: u64,
    dictionary: Digest,
    catalogues: Vec<Digest>,
    duo: Vec<String>,
    conditions: Conditions,
    population: Name,
    budget: LifetimeBudget,
    /// HMAC, under the store key, of everything that was ingested: the same means there is nothing to do.
    inputs: String,
}

/// The datasets of a data folder.
///
/// # Errors
/// The folder cannot be read.
pub fn list(data: &DataFolder) -> Result<Vec<Name>, DatasetError> {
    let mut names = Vec::new();
    for entry in data.entries()? {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok());
        if let Some(name) = name
            && entry.file_type()?.is_dir()
            && data.serving(&name)?.is_some()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The folder of the version that serves.
fn current(data: &DataFolder, name: &Name) -> Result<Option<(Dir, String)>, DatasetError> {
    let Some(version) = data.serving(name)? else { return Ok(None) };
    match data.open_dir(format!("{name}/{version}")) {
        Ok(dir) => Ok(Some((dir, version))),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        // A site that no longer has a dataset has removed its whole folder.
        Err(_) if !data.exists(name.as_str()) => Ok(None),
        Err(_) => Err(DatasetError::Missing { name: name.clone(), version }),
    }
}

fn read_info(dir: &Dir, name: &Name) -> Result<(DatasetInfo, InfoFile), DatasetError> {
    let damaged = |file: &str, why: String| DatasetError::Damaged { name: name.clone(), file: file.to_owned(), why };
    let read = |file: &str| dir.read(file).map_err(|error| damaged(file, error.to_string()));
    let file: InfoFile =
        serde_json::from_slice(&read("info.json")?).map_err(|error| damaged("info.json", error.to_string()))?;
    let text = String::from_utf8(read("dictionary.toml")?).map_err(|error| damaged("dictionary.toml", error.to_string()))?;
    let dictionary = Dictionary::parse(&text).map_err(|error| damaged("dictionary.toml", error.to_string()))?;
    let mut catalogues = Vec::new();
    for index in 0..file.catalogues.len() {
        let path = catalogue_file(index);
        let catalogue = Catalogue::parse(&read(&path)?).map_err(|error| damaged(&path, error.to_string()))?;
        catalogues.push(Arc::new(catalogue));
    }
    if dictionary.digest != file.dictionary
        || !catalogues.iter().map(|catalogue| catalogue.digest).eq(file.catalogues.iter().copied())
    {
        return Err(damaged("info.json", "a document beside it has another digest than it says".to_owned()));
    }
    let info = DatasetInfo {
        name: file.name.clone(),
        about: file.about.clone(),
        approximate_size: file.approximate_size,
        dictionary,
        catalogues,
        duo: file.duo.clone(),
        conditions: file.conditions.clone(),
        population: file.population.clone(),
        budget: file.budget,
    };
    Ok((info, file))
}

fn catalogue_file(index: usize) -> String {
    format!("catalogue-{index}.tsv")
}

/// A version by the name under which it is paid for. Without somebody it is another dataset: what was released of it before is no answer.
fn shown(version: &str, withdrawn: &withdrawal::Withdrawn) -> String {
    if withdrawn.is_empty() { version.to_owned() } else { format!("{version}-{}", withdrawn.name()) }
}

impl Dataset {
    /// The public description, which needs no key. `None` where there is no such dataset.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn info_of(data: &DataFolder, name: &Name) -> Result<Option<DatasetInfo>, DatasetError> {
        let Some((dir, _)) = current(data, name)? else { return Ok(None) };
        read_info(&dir, name).map(|(info, _)| Some(info))
    }

    /// The dictionary or catalogue of that digest, as the file's bytes.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn document(data: &DataFolder, name: &Name, digest: Digest) -> Result<Option<Vec<u8>>, DatasetError> {
        let Some((dir, _)) = current(data, name)? else { return Ok(None) };
        let (info, _) = read_info(&dir, name)?;
        if info.dictionary.digest == digest {
            return Ok(Some(dir.read("dictionary.toml")?));
        }
        let place = info.catalogues.iter().position(|catalogue| catalogue.digest == digest);
        place.map(|index| dir.read(catalogue_file(index)).map_err(DatasetError::from)).transpose()
    }

    /// Opens a dataset to read its rows.
    ///
    /// # Errors
    /// There is none, the key is another, or a file is damaged.
    pub fn open(data: &DataFolder, name: &Name, key: &StoreKey) -> Result<Self, DatasetError> {
        let (dir, version) = current(data, name)?.ok_or_else(|| DatasetError::Unknown(name.clone()))?;
        if !key.sealed(&version, &dir.read("info.json")?, &dir.read("seal")?) {
            return Err(DatasetError::WrongKey(name.clone()));
        }
        let (info, _) = read_info(&dir, name)?;
        let withdrawn = withdrawal::Withdrawn::read(data, name, key)?;
        let shown = shown(&version, &withdrawn);
        let source = store::Source::of(data, &dir).map_err(|error| rows::unread(name, error))?;
        let rows = Rows::open(name, source, key.version(&version), withdrawn)?;
        Ok(Self { info, version: shown, rows })
    }

    /// Which version serves now: [`Dataset::version`] of what [`Dataset::open`] would open.
    ///
    /// # Errors
    /// There is no such dataset; the files cannot be read.
    pub(crate) fn version_of(data: &DataFolder, name: &Name, key: &StoreKey) -> Result<String, DatasetError> {
        let (_, version) = current(data, name)?.ok_or_else(|| DatasetError::Unknown(name.clone()))?;
        Ok(shown(&version, &withdrawal::Withdrawn::read(data, name, key)?))
    }

    /// The public description.
    #[must_use]
    pub const fn info(&self) -> &DatasetInfo {
        &self.info
    }

    /// Which version of its rows serves: another after every ingest that changed something, and after every withdrawal.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where its rows lie.
    #[must_use]
    pub fn place(&self) -> String {
        self.store.place()
    }

    /// Where the rows of a dataset lie, which needs no key. `None` where there is no such dataset.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn place_of(data: &DataFolder, name: &Name) -> Result<Option<String>, DatasetError> {
        let Some((dir, _)) = current(data, name)? else { return Ok(None) };
        Ok(Some(store::place_of(&dir)?))
    }

    /// What a plan asks for, found.
    ///
    /// # Errors
    /// It names what is not there.
    pub fn select(&self, columns: &[String], slices: &[VariantSlice]) -> Result<Selection, ShapeError> {
        Selection::new(&self.info, columns, slices)
    }
}

impl Deref for Dataset {
    type Target = Rows;

    fn deref(&self) -> &Rows {
        &self.rows
    }
}

impl DatasetInfo {
    /// The public shape of what a plan asks for: its variants and columns, in order.
    ///
    /// # Errors
    /// It names what is not there.
    pub fn shape(&self, columns: &[String], slices: &[VariantSlice]) -> Result<(Vec<Variant>, Vec<Column>), ShapeError> {
        shape::resolve(&self.dictionary, &self.catalogues, columns, slices)
    }

    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, dictionary: Digest) -> Self {
        let text = "name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n";
        let mut parsed = Dictionary::parse(text).unwrap();
        parsed.digest = dictionary;
        Self {
            name: name.parse().unwrap(),
            about: String::new(),
            approximate_size: 100,
            dictionary: parsed,
            catalogues: vec![],
            duo: vec!["DUO:0000042".to_owned()],
            conditions: Conditions::default(),
            population: name.parse().unwrap(),
            budget: LifetimeBudget { epsilon: 8.0, delta: 1e-6, researcher_epsilon: None },
        }
    }
}

/// Row groups of so many people, of whom nothing is known but as many blocks of genotypes; and all of it selected.
#[cfg(test)]
pub(crate) fn of_people(groups: &[usize], blocks: usize) -> (Rows, Selection) {
    let dictionary = Dictionary::parse("name = \"d\"\n[[column]]\nname = \"x\"\ntype = \"flag\"\n").unwrap();
    let key = [7; 32];
    let mut writer =
        store::RowWriter::new(tempfile::tempfile().unwrap(), &key, &dictionary, &[blocks * BLOCK_VARIANTS]).unwrap();
    for &people in groups {
        let rows: Vec<_> = (0..people).map(|_| (0, vec![Value::Flag(true)])).collect();
        let block = |block: usize| (0..people * BLOCK_BYTES).map(|at| ((at * 7) ^ (at / 1_000) ^ block) as u8).collect();
        writer.group(&rows, (blocks, &|at| Ok(block(at)))).unwrap();
    }
    let source = store::Source::of_file(writer.finish().unwrap()).unwrap();
    let rows = Rows::open(&"people".parse().unwrap(), source, key.to_vec().into(), withdrawal::Withdrawn::default()).unwrap();
    (rows, Selection::of_everything(1, &[(0, blocks)]))
}

#[cfg(test)]
mod tests;
