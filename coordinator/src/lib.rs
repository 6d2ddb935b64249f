//! The coordinator: sees manifests and releases, never rows.
//!
//! In the order of a job's path: [`api`] takes a signed manifest; [`intake`] checks whatever can be checked before a site is
//! asked, with what [`analyses`] hears of its component in a worker process; [`store`] keeps it; [`drive`] takes it from round to round, by the rules of [`round`]; [`link`] is the sites' end of
//! it. [`home`] is the coordinator's folder; [`people`] says who a key is; [`tidy`] removes what nothing names. Nothing here is trusted by a site: it can delay, and read releases.

pub mod analyses;
pub mod api;
pub mod documents;
pub mod drive;
pub mod home;
pub mod intake;
pub mod link;
mod people;
pub mod round;
pub mod run;
pub mod store;
mod tidy;

pub use home::{Home, HomeError};
pub use run::{RunError, run};
