//! One statistic's contribution, looked at where it lies: in what the guest returned, or in what a worker wrote.
//!
//! *In*: lists of the contract's kinds, or bytes that stand for them. *Out*: for the reducer alone.

use crate::bindings::vestibule::analysis::types::Contribution;

/// One statistic's contribution. It does not show what it is.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// Nothing.
    None,
    /// One in a single cell.
    Cell(u32),
    /// Small numbers, one byte each.
    Bytes(&'a [u8]),
    /// Numbers, of whichever kind, that all happened to be whole and to fit a byte in two's complement.
    Small(&'a [u8]),
    /// Whole numbers.
    Integers(&'a [i64]),
    /// Whole numbers, as little-endian bytes.
    IntegerWords(&'a [[u8; 8]]),
    /// Numbers.
    Reals(&'a [f64]),
    /// Numbers, as little-endian bytes.
    RealWords(&'a [[u8; 8]]),
}

impl<'a> From<&'a Contribution> for Given<'a> {
    fn from(contribution: &'a Contribution) -> Self {
        match contribution {
            Contribution::None => Self::None,
            Contribution::Cell(cell) => Self::Cell(*cell),
            Contribution::Bytes(values) => Self::Bytes(values),
            Contribution::Integers(values) => Self::Integers(values),
            Contribution::Reals(values) => Self::Reals(values),
        }
    }
}

impl Given<'_> {
    /// Entries of a list.
    #[must_use]
    pub const fn entries(&self) -> Option<usize> {
        match self {
            Self::None | Self::Cell(_) => None,
            Self::Bytes(values) | Self::Small(values) => Some(values.len()),
            Self::Integers(values) => Some(values.len()),
            Self::Reals(values) => Some(values.len()),
            Self::IntegerWords(words) | Self::RealWords(words) => Some(words.len()),
        }
    }
}

impl std::fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given(withheld)")
    }
}
