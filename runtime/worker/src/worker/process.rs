//! A worker's process, and what ties it to the daemon: a socket, a sealed memory file, and eyes on its
//! time.
//!
//! *In*: how it is started; a command. *Out*: its reply. *Refuses*: to wait for a batch longer than its
//! watch lets it, and to read more of a reply than one has.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{Launch, WorkerError};
use crate::message::{Command, Reply, receive, send};
use crate::shared::{self, FILE_BYTES};
use crate::start::start;
use crate::watch::{Eyes, Watch};

/// More bytes than the reply to a batch takes.
const MOST_SAID: usize = 64;
/// A worker that has not put its walls up by then does not.
const STARTING: Duration = Duration::from_secs(60);
/// The process, and what ties it to the daemon.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) link: UnixStream,
    pub(super) memory: File,
    pub(super) eyes: Eyes,
}

impl Process {
    pub(super) fn hear(&mut self) -> Result<Reply<'static>, WorkerError> {
        receive(&mut self.link).map_err(|_| WorkerError::Lost)
    }

    pub(super) fn tell(&mut self, command: &Command<'_>) -> Result<(), WorkerError> {
        send(&mut self.link, command).map_err(|_| WorkerError::Lost)
    }

    /// Waits for the reply to a batch of so many partitions: how many bytes they contributed. `None`: one of them took too long, or
    /// it said what is no such reply. What it says a little at a time it does not say for longer.
    pub(super) fn watch(&mut self, mut watch: Watch, limit: Duration, partitions: usize) -> Result<Option<u64>, WorkerError> {
        let pause = Watch::pause(limit);
        let (mut said, mut looked) = (vec![], Instant::now());
        loop {
            let left = pause.saturating_sub(looked.elapsed());
            let timeout = Timespec::try_from(left).map_err(|_| WorkerError::Lost)?;
            let mut ready = [PollFd::new(&self.link, PollFlags::IN)];
            match rustix::event::poll(&mut ready, Some(&timeout)) {
                Ok(0) => {}
                Ok(_) => {
                    let mut bytes = [0; MOST_SAID];
                    let read = self.link.read(&mut bytes).map_err(|_| WorkerError::Lost)?;
                    said.extend_from_slice(bytes.get(..read).unwrap_or_default());
                    match receive(&mut said.as_slice()) {
                        Ok(Reply::Batch(bytes)) => return Ok(Some(bytes)),
                        // More is to come.
                        Err(error) if error.kind() == ErrorKind::UnexpectedEof && read > 0 && said.len() < MOST_SAID => {}
                        Ok(_) | Err(_) => return Ok(None),
                    }
                }
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return Err(WorkerError::Lost),
            }
            if looked.elapsed() < pause {
                continue;
            }
            looked = Instant::now();
            let (at, _) = shared::progress(&self.memory).map_err(|_| WorkerError::Lost)?;
            if at.done() > partitions as u64 || !watch.look(at, self.eyes.look(), pause) {
                return Ok(None);
            }
        }
    }

    pub(super) fn end(&mut self) {
        // Gone already, or going now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn spawn(launch: &Launch) -> std::io::Result<Process> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(STARTING))?;
    let memory = File::from(memfd_create("vestibule-rows", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    memory.set_len(FILE_BYTES)?;
    // Neither end may make it shorter, which would end the other, or longer, which would fill the machine.
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mut program = Program::new(&launch.program);
    program
        .args(&launch.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::from(memory.try_clone()?))
        .stderr(Stdio::null())
        // A Ctrl-C at the daemon's terminal is for the daemon.
        .process_group(0);
    let child = start(program)?;
    let eyes = Eyes::on(child.id());
    Ok(Process { child, link: ours, memory, eyes })
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
