//! What a worker may still do: compute, and talk over what it was started with.
//!
//! *In*: a process that has set up its engine, or was handed the files that it is to import, and has read nothing from outside. *Out*: the same process without any way to a file, a
//! socket, another process or more memory than it was given, but for what it can write into as many memory files as it has descriptors; and [`Walls`], what of that was tried and found to hold. Landlock takes the
//! file system, new TCP connections and abstract sockets; seccomp leaves the system calls that computing needs, and answers all
//! others with EPERM; limits take core dumps and endless time. A kernel that lacks one of them leaves the others: the site is
//! told, and decides (`require_walls` in `site.toml`). An importer may start threads, which inflate; it can map no page that is executable.

use std::collections::BTreeMap;

use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

/// What a confined process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs guests.
    Guests,
    /// Reads files of others.
    Importer,
}

/// Which walls stand around a worker, as it found by trying.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// Whether Landlock took everything that this program asks of it.
    pub landlock: bool,
    /// Whether the system-call filter is in force.
    pub seccomp: bool,
    /// What was tried, and whether it was impossible.
    pub tried: Vec<(String, bool)>,
}

impl Walls {
    /// What does not hold, in words; empty where everything does.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps: Vec<String> =
            self.tried.iter().filter(|(_, held)| !held).map(|(what, _)| format!("a worker can {what}")).collect();
        if !self.landlock {
            gaps.push("the kernel does not offer all of Landlock".to_owned());
        }
        if !self.seccomp {
            gaps.push("the kernel does not filter system calls".to_owned());
        }
        gaps
    }
}

/// Processor seconds of one worker, all its calls together.
const CPU_SECONDS: u64 = 7 * 24 * 3_600;
/// Descriptors: the three it was given, the engine's, and one for each image of a memory.
const DESCRIPTORS: u64 = 32;
/// Bytes of the largest file that it may write: the memory file, and images of memories.
const FILE_BYTES: u64 = 2 << 30;

/// Descriptors beyond the three that were given on purpose are closed; resources are limited. The
/// process ends with the one that started it ([`crate::start`]), and with nothing that is said to
/// all of a service's processes: that is for the daemon.
pub(crate) fn limit(memory_bytes: u64) {
    // Without it, it would end when it next reads or writes its socket.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler is set: the signal is ignored.
        #[expect(unsafe_code, reason = "ignoring a signal has no safe wrapper; argued above")]
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    // SAFETY: closes descriptors of this process that nothing in it has yet: it runs first of all, in a process just started.
    #[expect(unsafe_code, reason = "closing what was inherited has no safe wrapper; argued above")]
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Data, memory_bytes),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Fsize, FILE_BYTES),
        (Resource::Cpu, CPU_SECONDS),
    ] {
        // A lower limit that is in force already holds.
        let _ = setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    }
}

/// Puts the walls up, and tries them.
pub(crate) fn enter(role: Role) -> Walls {
    // Best effort each: what is missing is seen by the trials and said.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::thread::set_no_new_privs(true);
    let landlock = landlock().is_ok_and(|full| full);
    let threads = || old_clone().is_some_and(|filter| seccompiler::apply_filter(&filter).is_ok());
    let seccomp =
        (role != Role::Importer || threads()) && filter(role).is_some_and(|filter| seccompiler::apply_filter(&filter).is_ok());
    Walls { landlock, seccomp, tried: trials(role) }
}

fn landlock() -> Result<bool, landlock::RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}

/// Wasmtime's question which pages a guest wrote, to the kernel (Linux 6.7, `_IOWR('f', 16, struct pm_scan_arg)`).
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// What `clone3` may do lies in memory, where no filter looks: without it, threads are started by `clone`.
fn old_clone() -> Option<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let absent = SeccompAction::Errno(u32::try_from(libc::ENOSYS).ok()?);
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    SeccompFilter::new(rules, SeccompAction::Allow, absent, arch).ok()?.try_into().ok()
}

/// That these bits of an argument are so.
fn condition(argument: u8, bits: u64, value: u64) -> Option<SeccompCondition> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), value).ok()
}

/// What may be asked of a descriptor: nothing that has the kernel send a signal to another process.
fn descriptors() -> Option<Vec<SeccompRule>> {
    let asked = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC, libc::F_ADD_SEALS, libc::F_GET_SEALS];
    let is = |command: libc::c_int| condition(1, u64::from(u32::MAX), u64::from(command.cast_unsigned()));
    let mut rules = asked.into_iter().map(|command| SeccompRule::new(vec![is(command)?]).ok()).collect::<Option<Vec<_>>>()?;
    let quiet = condition(2, u64::from(libc::O_ASYNC.cast_unsigned()), 0)?;
    rules.push(SeccompRule::new(vec![is(libc::F_SETFL)?, quiet]).ok()?);
    Some(rules)
}

fn filter(role: Role) -> Option<BpfProgram> {
    let always = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        // Only on the socket it was given: no other can be made.
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_close,
        libc::SYS_lseek,
        libc::SYS_fstat,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        // Images of memories, which new instances share until they write.
        libc::SYS_memfd_create,
        libc::SYS_ftruncate,
        // Traps are signals of the process to itself.
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_futex,
        libc::SYS_membarrier,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = always.into_iter().map(|call| (call, vec![])).collect();
    rules.insert(libc::SYS_fcntl, descriptors()?);
    // What is mapped is this process's own, and counts as its memory: what others gave it, it has mapped by now.
    let own = || condition(3, u64::from(libc::MAP_TYPE.cast_unsigned()), u64::from(libc::MAP_PRIVATE.cast_unsigned()));
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![own()?]).ok()?]);
    let equal = |argument: u8, length: SeccompCmpArgLen, value: u64| {
        let condition = SeccompCondition::new(argument, length, SeccompCmpOp::Eq, value).ok()?;
        SeccompRule::new(vec![condition]).ok()
    };
    match role {
        Role::Guests => {
            rules.insert(libc::SYS_ioctl, vec![equal(1, SeccompCmpArgLen::Dword, PAGEMAP_SCAN)?]);
            // How many page faults it had: whether an instance touched what others do not.
            rules.insert(libc::SYS_getrusage, vec![]);
        }
        Role::Importer => {
            // A thread of this process, and no other process.
            let thread = SeccompCmpOp::MaskedEq(u64::from(libc::CLONE_THREAD.cast_unsigned()));
            let thread =
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, thread, u64::from(libc::CLONE_THREAD.cast_unsigned()));
            rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![thread.ok()?]).ok()?]);
            // The other filter answers it.
            rules.insert(libc::SYS_clone3, vec![]);
            rules.insert(libc::SYS_set_robust_list, vec![]);
            rules.insert(libc::SYS_rseq, vec![]);
            // Nothing that was parsed can be run.
            let data = || {
                let executable = u64::from(libc::PROT_EXEC.cast_unsigned());
                let condition = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0);
                SeccompRule::new(vec![condition.ok()?]).ok()
            };
            let both = SeccompRule::new(vec![own()?, condition(2, u64::from(libc::PROT_EXEC.cast_unsigned()), 0)?]).ok()?;
            rules.insert(libc::SYS_mmap, vec![both]);
            rules.insert(libc::SYS_mprotect, vec![data()?]);
            rules.remove(&libc::SYS_memfd_create);
            rules.remove(&libc::SYS_ftruncate);
        }
    }
    // Aborting is a signal to oneself.
    rules.insert(libc::SYS_tgkill, vec![equal(0, SeccompCmpArgLen::Dword, u64::from(std::process::id()))?]);
    let refused = SeccompAction::Errno(u32::try_from(libc::EPERM).ok()?);
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, arch).ok()?.try_into().ok()
}

/// Tries what must not be possible.
fn trials(role: Role) -> Vec<(String, bool)> {
    let here = std::net::Ipv4Addr::LOCALHOST;
    let last = match role {
        Role::Guests => ("start a thread", std::thread::Builder::new().spawn(|| ()).is_err()),
        Role::Importer => ("make code of data", !mapped(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE)),
    };
    let trials: [(&str, bool); 11] = [
        ("read a file", std::fs::File::open("/etc/passwd").is_err()),
        ("list a folder", std::fs::read_dir("/").is_err()),
        ("write a file", std::fs::File::create("/tmp/vestibule-worker-trial").is_err()),
        ("read what the kernel says of this process", std::fs::File::open("/proc/self/maps").is_err()),
        ("make a network socket", std::net::UdpSocket::bind((here, 0)).is_err()),
        ("make a local socket", std::os::unix::net::UnixDatagram::unbound().is_err()),
        ("start a program", std::process::Command::new("/proc/self/exe").arg("--version").spawn().is_err()),
        last,
        ("have the kernel signal another process", !signals()),
        ("map memory that is not counted as its own", !mapped(libc::PROT_READ, libc::MAP_SHARED)),
        ("read its environment", std::env::vars_os().next().is_none()),
    ];
    trials.into_iter().map(|(what, held)| (what.to_owned(), held)).collect()
}

/// Whether a new page can be had so.
fn mapped(access: libc::c_int, kind: libc::c_int) -> bool {
    // SAFETY: a new page, wherever there is room; it is never looked at, and there for as long as the process.
    #[expect(unsafe_code, reason = "a mapping has no safe wrapper; argued above")]
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4_096, access, kind | libc::MAP_ANONYMOUS, -1, 0) };
    page != libc::MAP_FAILED
}

/// Which signal a descriptor sends: Linux's own, which `libc` does not name.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody else can be named whom the kernel signals about a descriptor, or such signals can be had.
fn signals() -> bool {
    // SAFETY: both change at most how this process's own standard input reports, and name the process itself.
    #[expect(unsafe_code, reason = "asking so of a descriptor has no safe wrapper; argued above")]
    let asked = unsafe {
        [
            libc::fcntl(0, libc::F_SETOWN, libc::getpid()),
            libc::fcntl(0, F_SETSIG, libc::SIGURG),
            libc::fcntl(0, libc::F_SETFL, libc::O_ASYNC),
        ]
    };
    asked.iter().any(|answer| *answer != -1)
}
