//! What a plan's names mean, by one dictionary and its catalogues: the same at the coordinator, at every site and in a dry run.
//!
//! *In*: the names of a plan. *Out*: places in the dictionary and in the catalogues. *Refuses*: names that are not there, and says
//! what is: all of it is public.

use std::ops::Range;
use std::sync::Arc;

use crate::catalogue::{Catalogue, Variant, VariantSlice};
use crate::dictionary::{Column, Dictionary};

/// A plan that names what is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// No such column.
    #[error("there is no column `{column}`; the dictionary has: {known}")]
    Column {
        /// What was asked for.
        column: String,
        /// What there is.
        known: String,
    },
    /// No such catalogue.
    #[error("there is no catalogue `{catalogue}`; the dataset has: {known}")]
    Catalogue {
        /// What was asked for.
        catalogue: String,
        /// What there is.
        known: String,
    },
    /// No such contig.
    #[error("catalogue `{catalogue}` has no contig `{contig}`; it has: {known}")]
    Contig {
        /// The catalogue.
        catalogue: String,
        /// What was asked for.
        contig: String,
        /// What there is.
        known: String,
    },
    /// No variant there.
    #[error("catalogue `{catalogue}` has no variant on {contig} from {start} to {end}")]
    Empty {
        /// The catalogue.
        catalogue: String,
        /// The contig.
        contig: String,
        /// First position.
        start: u64,
        /// First position after.
        end: u64,
    },
}

impl ShapeError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Column { .. } => "column-unknown",
            Self::Catalogue { .. } => "catalogue-unknown",
            Self::Contig { .. } => "contig-unknown",
            Self::Empty { .. } => "slice-empty",
        }
    }
}

/// Where the named columns stand in the dictionary.
///
/// # Errors
/// [`ShapeError::Column`].
pub fn columns(dictionary: &Dictionary, names: &[String]) -> Result<Vec<usize>, ShapeError> {
    let place = |name: &String| {
        let known = || dictionary.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = dictionary.column(name).map(|(index, _)| index);
        found.ok_or_else(|| ShapeError::Column { column: name.clone(), known: known() })
    };
    names.iter().map(place).collect()
}

/// Which catalogue, and which of its variants, each slice means.
///
/// # Errors
/// [`ShapeError`] for a catalogue or contig that is not there, and for a slice without variants.
pub fn slices(catalogues: &[Arc<Catalogue>], slices: &[VariantSlice]) -> Result<Vec<(usize, Range<usize>)>, ShapeError> {
    slices.iter().map(|slice| one(catalogues, slice)).collect()
}

fn one(catalogues: &[Arc<Catalogue>], slice: &VariantSlice) -> Result<(usize, Range<usize>), ShapeError> {
    let VariantSlice { catalogue: name, contig, start, end } = slice.clone();
    let found = catalogues.iter().enumerate().find(|(_, catalogue)| catalogue.name.as_str() == name);
    let Some((index, catalogue)) = found else {
        let known: Vec<&str> = catalogues.iter().map(|catalogue| catalogue.name.as_str()).collect();
        return Err(ShapeError::Catalogue { catalogue: name, known: known.join(", ") });
    };
    match catalogue.slice(&contig, start, end) {
        Some(range) if range.is_empty() => Err(ShapeError::Empty { catalogue: name, contig, start, end }),
        Some(range) => Ok((index, range)),
        None => {
            let known: Vec<&str> = catalogue.contigs().collect();
            Err(ShapeError::Contig { catalogue: name, contig, known: known.join(", ") })
        }
    }
}

/// The variants and columns of a plan, in its order.
///
/// # Errors
/// [`ShapeError`].
pub fn resolve(
    dictionary: &Dictionary,
    catalogues: &[Arc<Catalogue>],
    names: &[String],
    wanted: &[VariantSlice],
) -> Result<(Vec<Variant>, Vec<Column>), ShapeError> {
    let columns = columns(dictionary, names)?;
    let columns = columns.into_iter().filter_map(|index| dictionary.columns.get(index)).cloned().collect();
    let slices = slices(catalogues, wanted)?;
    let variants = slices.into_iter().filter_map(|(index, range)| catalogues.get(index)?.variants.get(range));
    Ok((variants.flatten().cloned().collect(), columns))
}
