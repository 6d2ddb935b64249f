//! This process, closed to others of its user: any of its commands may hold keys, rows or a
//! passphrase.
//!
//! *In*: nothing. *Out*: the same process, which leaves no core behind, whatever the machine does
//! with cores, and which no other process of the same user can trace or read the memory of. Root
//! can. *Trusts*: the kernel. *Refuses*: to go on where the kernel does not.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// No core file, not even one that is handed to a program, of this process and of all that it starts.
///
/// # Errors
/// The kernel's.
pub(crate) fn without_core() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
}

/// No core file of this process; those that it starts may have one, if they ask for it.
///
/// # Errors
/// The kernel's.
pub(crate) fn without_own_core() -> rustix::io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })
}

/// Not dumpable: no core at all, no tracer, and `/proc/PID` is root's.
///
/// # Errors
/// The kernel's.
pub(crate) fn close() -> rustix::io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
