//! The coordinator: sees manifests and releases, never rows.
//!
//! In the order of a job's path: [`api`] takes a signed manifest; [`intake`] checks whatever can be checked before a site is
//! asked, with what [`analyses`] hears of its component in a worker process; [`store`] keeps it; [`drive`] takes it from round to
//! round, `ask` each round to its sites, a few offers at a time (`offers`), by the rules of [`round`]; [`link`] is the sites' end of it;
//! [`shared`] is what these have in common. [`home`] is the coordinator's folder; `people` says who a key is; `tidy` removes what nothing
//! names. Nothing here is trusted by a site: it can delay, and read releases.

pub mod analyses;
pub mod api;
mod ask;
pub mod documents;
pub mod drive;
mod failed;
pub mod home;
pub mod intake;
pub mod link;
mod offers;
mod patience;
mod people;
pub mod round;
pub mod run;
pub mod shared;
pub mod store;
mod tidy;

pub use home::{Home, HomeError};
pub use run::{RunError, run};
