//! Withdrawal of consent: anyone who withdraws is in no round from the next job on, and in no file once the rows are written anew.
//!
//! *In*: ids. *Out*: a list of their places in the keyed order, sealed, where [`Books`](super::Books) say what serves; then a version without their rows.
//! *Trusts*: the site's operator, who knows who asked. *Refuses*: a dataset without a list that opens, where there is one: nobody is let back in
//! because a file is damaged.
//!
//! The list holds no ids, and holds for every later version: a withdrawn individual whom a hospital's files still name is left out at ingest. Until
//! the rows are written anew they are left out as they are read. What was released before stands, as it must: nobody can tell who was in it.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use cap_std::fs::Dir;
use vestibule_protocol::digest::hex;
use vestibule_protocol::name::Name;

use super::ingest::{self, IngestError};
use super::store::{CopyError, Sink};
use super::{DataFolder, Dataset, DatasetError, StoreKey, catalogue_file, current, store};

/// Says that the next ingest has somebody to take in again, though its files are the same.
const STALE: &str = "stale";
/// What the list is encrypted for.
const LABEL: &str = "withdrawn";

/// Places in the keyed order: see [`StoreKey::order`].
#[derive(Clone, Default)]
pub(super) struct Withdrawn(BTreeSet<[u8; 16]>);

/// What a withdrawal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    /// Ids that were not on the list before.
    pub listed: u64,
    /// Rows that were in the file and are not any more.
    pub removed: u64,
}

impl Withdrawn {
    /// The list of a dataset.
    pub(super) fn read(data: &DataFolder, name: &Name, key: &StoreKey) -> Result<Self, DatasetError> {
        let Some(sealed) = data.withdrawn(name)? else { return Ok(Self::default()) };
        let plain = key.decrypt(&sealed).ok_or_else(|| DatasetError::WrongKey(name.clone()))?;
        let (places, rest) = plain.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(DatasetError::Damaged {
                name: name.clone(),
                file: LABEL.to_owned(),
                why: "it is cut short".to_owned(),
            });
        }
        Ok(Self(places.iter().copied().collect()))
    }

    fn write(&self, data: &DataFolder, name: &Name, key: &StoreKey) -> Result<(), IngestError> {
        let plain: Vec<u8> = self.0.iter().flatten().copied().collect();
        let sealed = key.encrypt(LABEL, &plain).map_err(|why| IngestError::Io { what: LABEL.to_owned(), why })?;
        data.leave_out(name, &sealed).map_err(|error| IngestError::io(LABEL, &error))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody is on it.
    pub(super) fn has(&self, order: &[u8; 16]) -> bool {
        self.0.contains(order)
    }

    /// Whether a row is one of theirs, by the head of its place: that another's is the same has a chance of 2^-64 for each pair.
    pub(super) fn has_head(&self, head: u64) -> bool {
        let mut from = [0; 16];
        from.iter_mut().zip(head.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        self.0.range(from..).next().is_some_and(|found| found.starts_with(&head.to_be_bytes()))
    }

    /// What [`Self::has_head`] needs of it.
    pub(super) fn heads(&self) -> Vec<u64> {
        self.0.iter().filter_map(|place| place.first_chunk::<8>()).map(|head| u64::from_be_bytes(*head)).collect()
    }

    /// Of [`Self::heads`]: it knows heads, and no more of anybody's place.
    pub(super) fn of_heads(heads: &[u64]) -> Self {
        let place = |head: &u64| {
            let mut place = [0; 16];
            place.iter_mut().zip(head.to_be_bytes()).for_each(|(to, byte)| *to = byte);
            place
        };
        Self(heads.iter().map(place).collect())
    }

    /// Another list, another name. It tells nothing of who is on it, since places are keyed.
    pub(super) fn name(&self) -> String {
        let all: Vec<u8> = self.0.iter().flatten().copied().collect();
        hex(digest(&SHA256, &all).as_ref().get(..8).unwrap_or_default())
    }
}

// Who withdrew is not for a log.
impl std::fmt::Debug for Withdrawn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Withdrawn(withheld)")
    }
}

/// Puts individuals on the list, and writes the rows anew without all that are on it. If the second is cut short, rows are left out as they are read;
/// the same command again, also with no ids, ends it.
///
/// # Errors
/// An ingest is under way; the dataset cannot be read or written.
pub fn withdraw(data: &DataFolder, name: &Name, ids: &[String], key: &StoreKey) -> Result<Withdrawal, IngestError> {
    let folder = folder(data, name)?;
    let _lock = ingest::locked(&folder, name)?;
    let mut list = Withdrawn::read(data, name, key)?;
    let before = list.0.len();
    list.0.extend(ids.iter().map(|id| key.order(id)));
    let listed = list.0.len().saturating_sub(before) as u64;
    if listed > 0 {
        list.write(data, name, key)?;
    }
    let removed = compact(data, &folder, name, key)?;
    Ok(Withdrawal { listed, removed })
}

/// Takes individuals off the list, who withdrew by mistake or consent again: the next ingest takes them in. Returns how many were on it.
///
/// # Errors
/// As [`withdraw`].
pub fn readmit(data: &DataFolder, name: &Name, ids: &[String], key: &StoreKey) -> Result<u64, IngestError> {
    let folder = folder(data, name)?;
    let _lock = ingest::locked(&folder, name)?;
    let mut list = Withdrawn::read(data, name, key)?;
    let before = list.0.len();
    for id in ids {
        list.0.remove(&key.order(id));
    }
    let found = before.saturating_sub(list.0.len()) as u64;
    if found > 0 {
        crate::home::replace(&folder, STALE, b"").map_err(|error| IngestError::io(STALE, &error))?;
        list.write(data, name, key)?;
    }
    Ok(found)
}

/// Whether somebody was readmitted whom no ingest took in since.
pub(super) fn is_stale(folder: &Dir) -> bool {
    folder.exists(STALE)
}

/// An ingest took everybody in.
pub(super) fn fresh(folder: &Dir) -> std::io::Result<()> {
    if is_stale(folder) { folder.remove_file(STALE) } else { Ok(()) }
}

fn folder(data: &DataFolder, name: &Name) -> Result<Dir, IngestError> {
    if current(data, name)?.is_none() {
        return Err(DatasetError::Unknown(name.clone()).into());
    }
    data.open_dir(name.as_str()).map_err(|error| IngestError::io(name.as_str(), &error))
}

/// Writes a version without the rows of those on the list, if there are any. Returns how many there were.
fn compact(data: &DataFolder, folder: &Dir, name: &Name, key: &StoreKey) -> Result<u64, IngestError> {
    let dataset = Dataset::open(data, name, key)?;
    let gone = dataset.store.withdrawn_rows().map_err(|error| dataset.unread(error))?;
    if gone == 0 {
        return Ok(0);
    }
    let Some((old, serving)) = current(data, name)? else { return Ok(0) };
    ingest::clean(data, folder, &[&serving])?;
    let version = ingest::fresh(folder)?;
    let dir = folder.open_dir(&version).map_err(|error| IngestError::io(&version, &error))?;
    let io = |file: &str, error: std::io::Error| IngestError::io(file, &error);
    let documents = ["info.json", "dictionary.toml", "report"].map(str::to_owned).into_iter();
    for file in documents.chain((0..dataset.info.catalogues.len()).map(catalogue_file)) {
        let bytes = old.read(&file).map_err(|error| io(&file, error))?;
        crate::home::replace(&dir, &file, &bytes).map_err(|error| io(&file, error))?;
    }
    let info = dir.read("info.json").map_err(|error| io("info.json", error))?;
    crate::home::replace(&dir, "seal", &key.seal(&version, &info)).map_err(|error| io("seal", error))?;
    // Where it does not say what it was read from, the next ingest reads everything.
    if let Ok(record) = ingest::Record::read(&old, key, &serving) {
        record.write(&dir, key, &version)?;
    }
    let out = Sink::new(data, &dir).map_err(|error| io(store::FILE, error))?;
    let out = dataset.store.copy_without_withdrawn(out, &key.version(&version)).map_err(|error| match error {
        CopyError::Read(error) => dataset.unread(error).into(),
        CopyError::Write(error) => io(store::FILE, error),
    })?;
    out.commit(&dir).and_then(|()| ingest::sync(&dir)).map_err(|error| io(store::FILE, error))?;
    ingest::sync(folder).and_then(|()| data.serve(name, &version)).map_err(|error| io(&version, error))?;
    ingest::clean(data, folder, &[&version])?;
    Ok(gone)
}
