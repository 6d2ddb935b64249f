//! What an analysis asks for: a builder over the contract's [`Plan`].
//!
//! *In*: column names, catalogue slices. *Out*: the plan that `plan` returns. *Refuses*: nothing here; the host checks names
//! against the dataset's public description before any data is read.

use serde::{Deserialize, Serialize};

use crate::contract::{Partitioning, Plan, VariantSlice};

impl Plan {
    /// No columns, no variants, one individual per partition, one round.
    #[must_use]
    pub fn new() -> Self {
        Self { columns: Vec::new(), variants: Vec::new(), partitioning: Partitioning::Each, max_rounds: 1 }
    }

    /// Also shows this dictionary column. A name that is already asked for is not repeated.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if !self.columns.contains(&name) {
            self.columns.push(name);
        }
        self
    }

    /// Also shows these dictionary columns.
    #[must_use]
    pub fn columns<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        names.into_iter().fold(self, Self::column)
    }

    /// Also shows the dosages of this slice of a catalogue.
    #[must_use]
    pub fn variants(mut self, slice: VariantSlice) -> Self {
        self.variants.push(slice);
        self
    }

    /// Also shows the dosages of these slices of a catalogue, in this order.
    #[must_use]
    pub fn slices(self, catalogue: &str, slices: &[Slice]) -> Self {
        let named = |slice: &Slice| VariantSlice::new(catalogue, &slice.contig, slice.start, slice.end);
        slices.iter().map(named).fold(self, Self::variants)
    }

    /// At most this many passes over the data.
    #[must_use]
    pub fn rounds(mut self, at_most: u32) -> Self {
        self.max_rounds = at_most;
        self
    }

    /// Disjoint blocks of individuals instead of single ones. An individual then moves one block's whole contribution, so the
    /// noise is twice that of `each` for the same symmetric bound.
    #[must_use]
    pub fn blocks(mut self, count: u32) -> Self {
        self.partitioning = Partitioning::Blocks(count);
        self
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// A slice of a catalogue as parameters name it: `{"contig": "22", "start": 1, "end": 60000000}`, or `["22", 1, 60000000]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// In the catalogue's own spelling.
    pub contig: String,
    /// First position, 1-based.
    pub start: u64,
    /// First position after the slice.
    pub end: u64,
}

impl VariantSlice {
    /// The variants of `contig` at `start..end` (1-based, half open) in `catalogue`.
    pub fn new(catalogue: impl Into<String>, contig: impl Into<String>, start: u64, end: u64) -> Self {
        Self { catalogue: catalogue.into(), contig: contig.into(), start, end }
    }
}
