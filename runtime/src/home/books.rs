//! A site's ledger says which version of a dataset serves.
//!
//! *In*: what serves from now on. *Out*: what serves. *Trusts*: the ledger, and this machine's clock for a leaf's moment, which is never before the
//! last one's.

use std::io::{Error, Result};

use vestibule_protocol::name::Name;

use super::since_1970;
use crate::dataset::Books;
use crate::ledger::{Ledger, LedgerError};

impl Books for Ledger {
    fn serving(&self, dataset: &Name) -> Result<Option<String>> {
        Self::serving(self, dataset).map_err(io)
    }

    fn serve(&self, dataset: &Name, version: &str) -> Result<()> {
        Self::serve(self, dataset, version, since_1970()).map_err(io)
    }

    fn withdrawn(&self, dataset: &Name) -> Result<Option<Vec<u8>>> {
        Self::withdrawn(self, dataset).map_err(io)
    }

    fn leave_out(&self, dataset: &Name, sealed: &[u8]) -> Result<()> {
        Self::leave_out(self, dataset, sealed, since_1970()).map_err(io)
    }
}

fn io(error: LedgerError) -> Error {
    Error::other(error)
}
