//! Making components of a researcher's crate.

pub(crate) mod build;
pub(crate) mod scaffold;
