//! The memory file as a worker sees it: mapped, so that what it found is there at once, whatever
//! becomes of the worker.
//!
//! ```text
//! rows            REGION bytes, which the daemon writes
//! contributions   REGION bytes, which the worker writes, partition by partition
//! progress        u64: 0 while the batch is read, then 1 and how many partitions are done;
//!                 u64: bytes of their contributions
//! ```
//!
//! *In*: the sealed file that neither end can resize. *Out*: contributions, then how far they
//! reach, in this order. The daemon reads the file and maps nothing. *Refuses*: to write beyond a
//! region.

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes for rows, and as many for contributions. Pages that are not touched take no memory.
pub(crate) const REGION: u64 = 512 << 20;
/// Where contributions lie.
pub(crate) const OUT_OFFSET: u64 = REGION;
/// Where progress lies.
pub(crate) const PROGRESS_OFFSET: u64 = 2 * REGION;
/// All of it.
pub(crate) const FILE_BYTES: u64 = PROGRESS_OFFSET + 4_096;

/// What a worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Reading its batch.
    Reading,
    /// The partition behind so many.
    Partition(u64),
}

impl At {
    /// It only grows within a batch.
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::Reading => 0,
            Self::Partition(done) => done.saturating_add(1),
        }
    }

    /// Partitions that are done.
    pub(crate) const fn done(self) -> u64 {
        match self {
            Self::Reading => 0,
            Self::Partition(done) => done,
        }
    }
}

impl From<u64> for At {
    fn from(number: u64) -> Self {
        number.checked_sub(1).map_or(Self::Reading, Self::Partition)
    }
}

/// The worker's side.
pub(crate) struct Shared {
    base: NonNull<u8>,
}

impl Shared {
    /// Maps the file.
    ///
    /// # Errors
    /// It is shorter than it should be, or cannot be mapped.
    pub(crate) fn map(file: &File) -> Result<Self> {
        let length = usize::try_from(FILE_BYTES).map_err(Error::other)?;
        if file.metadata()?.len() < FILE_BYTES {
            return Err(Error::other("the memory file is short"));
        }
        // SAFETY: a new mapping, wherever there is room. The file is sealed against becoming
        // shorter, so all of it stays accessible for as long as this process lives.
        #[expect(unsafe_code, reason = "argued above")]
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        NonNull::new(base.cast()).map(|base| Self { base }).ok_or_else(|| Error::other("no mapping"))
    }

    /// Has pages for so many bytes of rows and of contributions, so that no batch is the first to
    /// touch one.
    pub(crate) fn lay(&self, bytes: usize) {
        for at in [0, OUT_OFFSET, PROGRESS_OFFSET] {
            let bytes = bytes.clamp(1, if at == PROGRESS_OFFSET { 1 } else { REGION as usize });
            // SAFETY: inside of the mapping, by the clamp; populating changes no byte.
            #[expect(unsafe_code, reason = "argued above")]
            unsafe {
                libc::madvise(self.base.as_ptr().add(at as usize).cast(), bytes, libc::MADV_POPULATE_WRITE);
            }
        }
    }

    /// Puts a partition's contributions behind those of others.
    ///
    /// # Errors
    /// There is no room.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let end = at.checked_add(bytes.len()).filter(|end| *end as u64 <= REGION);
        end.ok_or_else(|| Error::other("contributions do not fit"))?;
        // SAFETY: `at` and as many bytes lie inside of the region, which only this thread writes.
        #[expect(unsafe_code, reason = "argued above")]
        unsafe {
            let to = self.base.as_ptr().add(OUT_OFFSET as usize).add(at);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
        Ok(())
    }

    /// Says how far it is. What was put before is seen by anyone who sees this.
    pub(crate) fn progress(&mut self, at: At, bytes: u64) {
        // SAFETY: two aligned numbers inside of the mapping, which nobody else writes.
        #[expect(unsafe_code, reason = "argued above")]
        let [number, reach] = unsafe {
            let at = self.base.as_ptr().add(PROGRESS_OFFSET as usize).cast::<u64>();
            [AtomicU64::from_ptr(at), AtomicU64::from_ptr(at.add(1))]
        };
        reach.store(bytes, Ordering::Release);
        number.store(at.number(), Ordering::Release);
    }
}

/// How far a worker is, by its own word: what it is at, and bytes of contributions.
pub(crate) fn progress(file: &File) -> Result<(At, u64)> {
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, PROGRESS_OFFSET)?;
    let ([number, reach], _) = bytes.as_chunks::<8>() else { return Err(Error::other("two numbers")) };
    Ok((u64::from_ne_bytes(*number).into(), u64::from_ne_bytes(*reach)))
}

/// A worker that begins a batch is nowhere, whatever it said before.
pub(crate) fn begin(file: &File) -> Result<()> {
    file.write_all_at(&[0; 16], PROGRESS_OFFSET)
}
