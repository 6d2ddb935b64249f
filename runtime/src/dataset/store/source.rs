//! Where the bytes of a file of rows lie.
//!
//! *In*: ranges, which follow from public terms. *Out*: their bytes, as they are there, and a count of them. *Trusts*: nothing: whoever reads them opens
//! them with the key. *Refuses*: ranges beyond the end.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of rows that several threads read at once.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    length: u64,
    read: AtomicU64,
}

impl Source {
    pub(super) fn of_file(file: File) -> Result<Self, String> {
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        Ok(Self { file, length, read: AtomicU64::new(0) })
    }

    /// Bytes of it, in all.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The bytes of each range.
    pub(super) fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, String> {
        let one = |range: &Range<u64>| {
            let length = range.end.checked_sub(range.start).filter(|_| range.end <= self.length);
            let length = length.and_then(|length| usize::try_from(length).ok());
            let mut bytes = vec![0; length.ok_or("it is shorter than its directory says")?];
            self.file.read_exact_at(&mut bytes, range.start).map_err(|error| error.to_string())?;
            self.read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            Ok(bytes)
        };
        ranges.iter().map(one).collect()
    }
}
