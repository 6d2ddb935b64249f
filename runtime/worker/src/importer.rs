//! Importers: processes that read files which others wrote, and hold nothing else.
//!
//! *In*, at the site's end: open files, or pipes, for reading; what to do with them. *Out*: whatever the importer says, as messages that the caller
//! checks. [`serve_importer`] is the frame of the process itself (the same binary, started with its hidden command): it takes the files, puts its walls
//! up before it reads a byte of them, and then does what the caller gives it. *Trusts*, at the site's end: nothing that an importer says. One that dies
//! or hangs costs the file that it reads.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command as Program, ExitCode, Stdio};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::confine::{self, Role, Walls};
use crate::message::{receive, send};
use crate::start::start;
use crate::worker::{Launch, WorkerError};

/// Bytes that an importer may hold: one record of some millions of individuals, several times over.
const MEMORY_BYTES: u64 = 2 << 30;
/// One that says nothing for so long, while it is waited for, is gone.
const PATIENCE: Duration = Duration::from_secs(1_800);

impl Launch {
    /// This very program, as an importer.
    #[must_use]
    pub fn this_importer() -> Self {
        Self::importer_of("/proc/self/exe".into())
    }

    /// Another program that has the same command.
    #[must_use]
    pub fn importer_of(program: std::path::PathBuf) -> Self {
        Self { program, arguments: vec!["importer".to_owned()] }
    }
}

/// The site's end of an importer. Dropping it ends the process.
pub struct Importer {
    child: Child,
    link: UnixStream,
    walls: Walls,
}

impl Importer {
    /// Starts one, hands it up to two files, and waits until its walls are up.
    ///
    /// # Errors
    /// [`WorkerError::Start`], [`WorkerError::Lost`].
    pub fn start(launch: &Launch, files: [Option<OwnedFd>; 2]) -> Result<Self, WorkerError> {
        let (ours, theirs) = UnixStream::pair().map_err(WorkerError::Start)?;
        let [first, second] = files.map(|file| file.map_or_else(Stdio::null, Stdio::from));
        let mut program = Program::new(&launch.program);
        program
            .args(&launch.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // In the places of what it would print.
            .stdout(first)
            .stderr(second)
            .process_group(0);
        let child = start(program).map_err(WorkerError::Start)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(WorkerError::Start)?;
        let mut importer = Self { child, link: ours, walls: Walls { landlock: false, seccomp: false, tried: vec![] } };
        importer.walls = importer.hear()?;
        Ok(importer)
    }

    /// What it found when it tried its walls.
    #[must_use]
    pub const fn walls(&self) -> &Walls {
        &self.walls
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says something to it.
    ///
    /// # Errors
    /// [`WorkerError::Lost`].
    pub fn say(&mut self, message: &impl Serialize) -> Result<(), WorkerError> {
        send(&mut self.link, message).map_err(|_| WorkerError::Lost)
    }

    /// Waits for what it says.
    ///
    /// # Errors
    /// [`WorkerError::Lost`].
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<T, WorkerError> {
        receive(&mut self.link).map_err(|_| WorkerError::Lost)
    }

    /// Ends it, and says in words how it had ended by itself, if it had.
    pub fn end(&mut self) -> String {
        let child = &mut self.child;
        let status = match child.try_wait() {
            Ok(Some(status)) => Some(status),
            _ => child.kill().and_then(|()| child.wait()).ok(),
        };
        match status.and_then(|status| status.signal()) {
            Some(libc::SIGABRT) => "it ran out of the memory that it may have, or met what cannot be".to_owned(),
            Some(libc::SIGKILL) => "it was ended from outside, or said what no importer says".to_owned(),
            Some(signal) => format!("it was ended by signal {signal}"),
            None => "it stopped".to_owned(),
        }
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        // Gone already, or going now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::fmt::Debug for Importer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Importer")
    }
}

/// What an importer hears and says.
#[derive(Debug)]
pub struct Link(UnixStream);

impl Link {
    /// Waits for what it is told.
    ///
    /// # Errors
    /// The site hung up.
    pub fn hear<T: DeserializeOwned>(&mut self) -> std::io::Result<T> {
        receive(&mut self.0)
    }

    /// Says something.
    ///
    /// # Errors
    /// The site hung up.
    pub fn say(&mut self, message: &impl Serialize) -> std::io::Result<()> {
        send(&mut self.0, message)
    }
}

/// Runs an importer process: limits, files, walls, and then `work`.
#[must_use]
pub fn serve_importer(work: impl FnOnce(Link, [File; 2]) -> std::io::Result<()>) -> ExitCode {
    confine::limit(MEMORY_BYTES);
    // It prints nothing: its files lie where that would go.
    std::panic::set_hook(Box::new(|_| ()));
    let run = || -> std::io::Result<()> {
        let link = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let file = |file: std::os::fd::BorrowedFd<'_>| file.try_clone_to_owned().map(File::from);
        let files = [file(std::io::stdout().as_fd())?, file(std::io::stderr().as_fd())?];
        let mut link = Link(link);
        link.say(&confine::enter(Role::Importer))?;
        work(link, files)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
