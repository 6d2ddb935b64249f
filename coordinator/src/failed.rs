//! Why a job does not go on: for good, or for now.

use crate::store::StoreError;

/// Why a job does not go on.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It ends without a report: a code and a sentence for its owner.
    Job(String, String),
    /// The store cannot be read or written now, as on a full disk: the job goes on from what is
    /// stored, once it can.
    Store(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(crate) fn failed(code: &str, why: impl Into<String>) -> Failed {
    Failed::Job(code.to_owned(), why.into())
}
