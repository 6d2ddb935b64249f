//! The rows of one version of a dataset, without its description: what a round reads.
//!
//! *In*: the file of the version that serves and its key; or, on a cluster's node, another name of that file and the [`RowsKey`] that the
//! daemon sealed for the round. *Out*: [`RowGroup`]s of what was selected. *Trusts*: the one who gave the key. *Refuses*: what the store refuses.
//!
//! A [`RowsKey`] opens this one version and nothing else: no other version, no report, no list of who withdrew (it has the heads of their
//! places in the keyed order, which say nothing without the site's key).

use std::fs::File;

use cap_std::fs::Dir;
use serde::{Deserialize, Serialize};
use vestibule_protocol::name::Name;
use zeroize::{Zeroize as _, Zeroizing};

use super::DatasetError;
use super::store::{self, ReadError, RowGroup, Selection, Source, Store};
use super::withdrawal::Withdrawn;
use crate::reserve::NoRoom;

/// An opened version's rows.
#[derive(Debug)]
pub struct Rows {
    pub(super) name: Name,
    pub(super) store: Store,
    key: Zeroizing<Vec<u8>>,
}

/// What opens one version's rows somewhere else. Secret.
#[derive(Serialize, Deserialize)]
pub(crate) struct RowsKey {
    name: Name,
    key: Vec<u8>,
    withdrawn: Vec<u64>,
}

impl Drop for RowsKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Rows {
    pub(super) fn open(
        name: &Name,
        source: Source,
        key: Zeroizing<Vec<u8>>,
        withdrawn: Withdrawn,
    ) -> Result<Self, DatasetError> {
        match Store::open(source, &key, withdrawn) {
            Ok(store) => Ok(Self { name: name.clone(), store, key }),
            Err(error) => Err(unread(name, error)),
        }
    }

    /// Opens what was [shared](Self::share).
    pub(crate) fn shared(file: File, key: &RowsKey) -> Result<Self, DatasetError> {
        let source = Source::of_file(file).map_err(|error| unread(&key.name, error))?;
        Self::open(&key.name, source, Zeroizing::new(key.key.clone()), Withdrawn::of_heads(&key.withdrawn))
    }

    /// Gives the file another name in a folder, so that it is there also when this version no longer serves; of rows in a bucket, what was
    /// [fetched](Self::fetch). It stays sealed; the key is for anyone who is to read it.
    pub(crate) fn share(&self, folder: &Dir, name: &str) -> std::io::Result<RowsKey> {
        self.store.source().share(folder, name)?;
        Ok(RowsKey { name: self.name.clone(), key: self.key.to_vec(), withdrawn: self.store.withdrawn().heads() })
    }

    /// How many row groups there are, empty ones among them: the units of parallel work, and equal parts of the keyed order. Follows from the
    /// dataset's public size.
    #[must_use]
    pub fn row_groups(&self) -> usize {
        self.store.row_groups()
    }

    /// Bytes that were read of them so far, the footer's among them. For benches and tests: what a round reads follows from its public terms.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.store.bytes_read()
    }

    /// How many rows lie before a row group.
    #[must_use]
    pub fn rows_before(&self, group: usize) -> usize {
        self.store.rows_before(group)
    }

    /// Has all that is selected where reading it asks no bucket: anyone who sees a bucket's requests would see how long guests took in between.
    ///
    /// # Errors
    /// The bucket.
    pub fn fetch(&self, selection: &Selection) -> Result<(), DatasetError> {
        self.store.fetch(selection).map_err(|error| self.unread(error))
    }

    /// Memory for what is selected of any row group.
    ///
    /// # Errors
    /// The file has not what is selected. The inner error: the machine has not so much memory.
    pub fn room(&self, selection: &Selection) -> Result<Result<RowGroup, NoRoom>, DatasetError> {
        self.store.room(selection).map_err(|error| self.unread(error))
    }

    /// Reads what is selected of one row group, into memory that was [made for it](Self::room).
    ///
    /// # Errors
    /// The file is damaged.
    pub fn read_over(&self, group: usize, into: &mut RowGroup) -> Result<(), DatasetError> {
        self.store.read(group, into).map_err(|error| self.unread(error))
    }

    /// One row group, in memory of its own: for anyone who reads few of them.
    ///
    /// # Errors
    /// The file is damaged, or the machine has not the memory.
    pub fn read(&self, selection: &Selection, group: usize) -> Result<RowGroup, DatasetError> {
        let mut rows = self.room(selection)?.map_err(|error| self.unread(error.to_string().into()))?;
        self.read_over(group, &mut rows)?;
        Ok(rows)
    }

    pub(super) fn unread(&self, error: ReadError) -> DatasetError {
        unread(&self.name, error)
    }
}

pub(super) fn unread(name: &Name, error: ReadError) -> DatasetError {
    let name = name.clone();
    match error {
        ReadError::Damaged(why) => DatasetError::Damaged { name, file: store::FILE.to_owned(), why },
        ReadError::Storage(source) => DatasetError::Storage { name, source },
    }
}
