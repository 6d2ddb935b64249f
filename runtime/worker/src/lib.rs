//! The second wall: guests run in processes of their own, which hold nothing and can reach nothing.
//!
//! *In*, for the daemon: a component, a round, rows. *Out*: its plan, and contributions, for the reducer alone. [`Worker`] is the
//! daemon's end; [`serve`] is the whole of the worker process (the same binary, started with its hidden command): it gets rows in and
//! gives contributions out through a sealed memory file, and is told what to do over a socket. `confine` is what it may still do. [`Importer`]s are
//! confined likewise: they read the files that a site is given.
//! *Trusts*, in the daemon: nothing that a worker says. A worker that dies, hangs or lies costs its job and nothing else.

mod confine;
mod deadline;
mod importer;
mod message;
mod places;
mod rest;
mod rows;
mod serve;
mod shared;
mod start;
mod watch;
mod worker;

pub use confine::Walls;
pub use importer::{Importer, Link, serve_importer};
pub use message::Rehearsals;
pub use places::{Place, Places};
pub use rest::{Rest, Running};
pub use serve::serve;
pub use watch::overlooked;
pub use worker::{Each, Launch, PUBLIC_PATIENCE, Refusal, Worker, WorkerError, sent_again};
