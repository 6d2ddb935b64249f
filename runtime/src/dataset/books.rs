//! Which version of a dataset serves, and who is left out of it.
//!
//! *In*: a dataset's name; from ingest and withdrawal, what is to serve from now on. *Out*: what serves. At a site the ledger says it, so that anyone who can
//! write the data folder alone can put no older version in the newer one's place, nor let anybody back in who withdrew. In a folder that belongs to no
//! site (a trial's), two files beside the versions say it. *Trusts*: the one who says it. *Refuses*: nothing.

use std::io::{ErrorKind, Result};

use vestibule_protocol::name::Name;

use super::DataFolder;
use super::ingest::sync;
use crate::home::replace;

/// Who says what serves.
pub trait Books: std::fmt::Debug + Send + Sync {
    /// The version of a dataset that serves, if one does.
    ///
    /// # Errors
    /// It cannot be known.
    fn serving(&self, dataset: &Name) -> Result<Option<String>>;

    /// That this version serves from now on.
    ///
    /// # Errors
    /// It cannot be written: then the one before still does.
    fn serve(&self, dataset: &Name, version: &str) -> Result<()>;

    /// The sealed list of who is left out, if there is one.
    ///
    /// # Errors
    /// It cannot be known.
    fn withdrawn(&self, dataset: &Name) -> Result<Option<Vec<u8>>>;

    /// That the list is this one from now on.
    ///
    /// # Errors
    /// It cannot be written: then the one before still holds.
    fn leave_out(&self, dataset: &Name, sealed: &[u8]) -> Result<()>;
}

const CURRENT: &str = "current";
const WITHDRAWN: &str = "withdrawn";

impl DataFolder {
    pub(super) fn serving(&self, name: &Name) -> Result<Option<String>> {
        match &self.books {
            Some(books) => books.serving(name),
            None => {
                there(self.read_to_string(format!("{name}/{CURRENT}"))).map(|found| found.map(|text| text.trim().to_owned()))
            }
        }
    }

    pub(super) fn serve(&self, name: &Name, version: &str) -> Result<()> {
        match &self.books {
            Some(books) => books.serve(name, version),
            None => self.write(name, CURRENT, version.as_bytes()),
        }
    }

    pub(super) fn withdrawn(&self, name: &Name) -> Result<Option<Vec<u8>>> {
        match &self.books {
            Some(books) => books.withdrawn(name),
            None => there(self.read(format!("{name}/{WITHDRAWN}"))),
        }
    }

    pub(super) fn leave_out(&self, name: &Name, sealed: &[u8]) -> Result<()> {
        match &self.books {
            Some(books) => books.leave_out(name, sealed),
            None => self.write(name, WITHDRAWN, sealed),
        }
    }

    fn write(&self, name: &Name, file: &str, bytes: &[u8]) -> Result<()> {
        let folder = self.open_dir(name.as_str())?;
        replace(&folder, file, bytes).and_then(|()| sync(&folder))
    }
}

fn there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
