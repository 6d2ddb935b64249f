//! The sandbox: runs an analysis component so that it can do nothing but compute.
//!
//! *In*: the bytes of a component, and what its functions are called with. *Out*: an [`Analysis`]; its plan, rounds and report
//! (public); one partition's contributions (private, to be handed to the reducer and to nothing else). *Refuses*: a component
//! that imports any function, before anything of it is compiled.
//!
//! A component sees no file, clock, random number, network, environment or log: there is no function to ask for one. Every
//! call has fuel and memory limits. `contribute` runs in a fresh instance for every partition ([`Runner`]).

mod alone;
mod analysis;
mod bake;
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::use_self,
    clippy::clone_on_ref_ptr,
    reason = "generated from wit/analysis.wit"
)]
mod bindings;
mod bounds;
mod cache;
mod contract;
mod convert;
mod engine;
mod fuel;
mod given;
mod guard;
mod inspect;
mod meter;
mod module;
mod pages;
mod prune;
mod runner;
mod slowest;
mod swap;
mod usage;

pub use alone::{Alone, Ground, Room};
pub use analysis::{Analysis, GuestError, LoadError, Shape, Step};
pub use bindings::vestibule::analysis::types::{Contribution, Individual, Value};
pub use cache::{CodeCache, CodeStore, code_name};
pub use engine::{Sandbox, SandboxError, Settings};
pub use given::Given;
pub use inspect::{Inspection, inspect};
pub use pages::Pages;
pub use runner::{Contributions, Detail, Failure, Runner};
pub use slowest::{Slowest, measure};
pub use swap::Swap;
