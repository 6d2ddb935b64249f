//! Where the bytes of a file of rows lie: in a file, or in an object of the site's bucket.
//!
//! *In*: ranges, which follow from public terms. *Out*: their bytes, as they are there, and a count of them. *Trusts*: nothing: anyone who reads them opens them with
//! the key. *Refuses*: ranges beyond the end.
//!
//! Anyone who owns a bucket sees when what is asked for. If that went on while guests run, it would say how long each group of people took them. So all that a
//! round reads is fetched before its first guest starts, still sealed, into a file without a name and full of holes: each range lies where it lies in the object.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use rustix::fs::{AtFlags, CWD, linkat};

use super::super::DataFolder;
use super::super::bucket::{Bucket, StorageError};
use super::sink::{OBJECT, object};
use super::{FILE, ReadError};

/// The place of rows that lie in the site's folder.
const HERE: &str = "data";
/// What is on its way at a time, when row groups are fetched one after the other.
const AHEAD: usize = 3;
/// Bytes that are copied at a time.
const COPIED: usize = 8 << 20;
/// The name that the file of what was fetched has for a moment.
const FETCHED: &str = "fetched";

/// Bytes that several threads read at once.
#[derive(Debug)]
pub(in super::super) struct Source {
    bytes: Bytes,
    length: u64,
    read: AtomicU64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Object { bucket: Arc<Bucket>, object: String, fetched: File, there: Mutex<Vec<Range<u64>>> },
}

impl Source {
    /// The rows of the version whose folder is `dir`.
    pub(in super::super) fn of(data: &DataFolder, dir: &Dir) -> Result<Self, ReadError> {
        match object(data, dir).map_err(|error| error.to_string())? {
            Some(found) => {
                let (bucket, object) = found?;
                Self::of_object(bucket, object, nameless(dir).map_err(|error| StorageError::Room(error.to_string()))?)
            }
            None => Self::of_file(dir.open(FILE).map_err(|error| error.to_string())?.into_std()),
        }
    }

    /// Where it lies.
    pub(super) fn place(&self) -> String {
        match &self.bytes {
            Bytes::File(_) => HERE.to_owned(),
            Bytes::Object { bucket, .. } => bucket.place().to_owned(),
        }
    }

    pub(in super::super) fn of_file(file: File) -> Result<Self, ReadError> {
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        Ok(Self { bytes: Bytes::File(file), length, read: AtomicU64::new(0) })
    }

    fn of_object(bucket: &Arc<Bucket>, object: String, fetched: File) -> Result<Self, ReadError> {
        let length = bucket.length(&object)?;
        let bytes = Bytes::Object { bucket: Arc::clone(bucket), object, fetched, there: Mutex::default() };
        Ok(Self { bytes, length, read: AtomicU64::new(0) })
    }

    /// Gives the bytes another name in a folder: all of a file's, by a hard link, or a copy where the folder lies on another file system; of an
    /// object's those that were [fetched](Self::fetch), each where it lies in the object.
    pub(in super::super) fn share(&self, folder: &Dir, name: &str) -> std::io::Result<()> {
        let (file, ranges) = match &self.bytes {
            Bytes::File(file) => {
                let ours = format!("/proc/self/fd/{}", file.as_raw_fd());
                if linkat(CWD, ours, folder, name, AtFlags::SYMLINK_FOLLOW).is_ok() {
                    return Ok(());
                }
                (file, std::iter::once(0..self.length).collect())
            }
            Bytes::Object { fetched, there, .. } => (fetched, there.lock().unwrap_or_else(PoisonError::into_inner).clone()),
        };
        let copy = folder.open_with(name, OpenOptions::new().write(true).create_new(true).mode(0o600))?.into_std();
        copy.set_len(self.length)?;
        let mut buffer = vec![0; COPIED];
        for range in ranges {
            for start in range.clone().step_by(COPIED) {
                let length = usize::try_from(range.end.saturating_sub(start)).unwrap_or(COPIED).min(COPIED);
                let part = buffer.get_mut(..length).unwrap_or_default();
                file.read_exact_at(part, start)?;
                copy.write_all_at(part, start)?;
            }
        }
        copy.sync_all()
    }

    /// Bytes of it, in all.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that were read of the file, or asked of the bucket, so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Sees to it that these ranges, a batch after the other, can be read without asking a bucket.
    pub(super) fn fetch(&self, batches: impl Iterator<Item = Vec<Range<u64>>>) -> Result<(), ReadError> {
        let Bytes::Object { bucket, object, fetched, there } = &self.bytes else { return Ok(()) };
        let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut coming, mut arrived) = (VecDeque::new(), Vec::new());
        let arrive = |(ranges, arriving): (Vec<Range<u64>>, _)| -> Result<Vec<Range<u64>>, ReadError> {
            let bytes: Vec<Vec<u8>> = bucket.wait(&arriving, object)?;
            for (range, bytes) in ranges.iter().zip(&bytes) {
                fetched.write_all_at(bytes, range.start).map_err(|error| StorageError::Room(error.to_string()))?;
            }
            Ok(ranges)
        };
        for mut batch in batches {
            batch.retain(|range| there.binary_search_by_key(&range.start, |known| known.start).is_err());
            self.count(&batch)?;
            if !batch.is_empty() {
                coming.push_back((batch.clone(), bucket.fetch(object, batch)));
            }
            if coming.len() > AHEAD
                && let Some(first) = coming.pop_front()
            {
                arrived.extend(arrive(first)?);
            }
        }
        for rest in coming {
            arrived.extend(arrive(rest)?);
        }
        there.extend(arrived);
        there.sort_unstable_by_key(|range| range.start);
        Ok(())
    }

    /// The bytes of each range.
    pub(super) fn read(&self, ranges: &[Range<u64>]) -> Result<Vec<Vec<u8>>, ReadError> {
        self.fetch(std::iter::once(ranges.to_vec()))?;
        let one = |range: &Range<u64>| -> Result<Vec<u8>, ReadError> {
            let mut bytes = vec![];
            self.read_over(range, &mut bytes)?;
            Ok(bytes)
        };
        ranges.iter().map(one).collect()
    }

    /// The bytes of a range, over what is in `bytes`; of an object's, one that was [fetched](Self::fetch) already where no bucket is to be asked.
    pub(super) fn read_over(&self, range: &Range<u64>, bytes: &mut Vec<u8>) -> Result<(), ReadError> {
        let file = match &self.bytes {
            Bytes::File(file) => {
                self.count(std::slice::from_ref(range))?;
                file
            }
            Bytes::Object { fetched, .. } => {
                self.fetch(std::iter::once(vec![range.clone()]))?;
                fetched
            }
        };
        let length = usize::try_from(range.end.saturating_sub(range.start)).map_err(|error| error.to_string())?;
        bytes.resize(length, 0);
        Ok(file.read_exact_at(bytes, range.start).map_err(|error| error.to_string())?)
    }

    /// Counts what is asked for, which must be there.
    fn count(&self, ranges: &[Range<u64>]) -> Result<(), ReadError> {
        if ranges.iter().any(|range| range.start > range.end || range.end > self.length) {
            return Err("it is shorter than its directory says".into());
        }
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add);
        self.read.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// A new file in `dir` that is gone with its last handle.
fn nameless(dir: &Dir) -> std::io::Result<File> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
    let name = format!("{FETCHED}.{}", vestibule_protocol::digest::hex(&random));
    let file = dir.open_with(&name, OpenOptions::new().read(true).write(true).create_new(true))?.into_std();
    dir.remove_file(&name)?;
    Ok(file)
}

/// Where the rows of the version whose folder is `dir` lie.
pub(in super::super) fn place_of(dir: &Dir) -> std::io::Result<String> {
    match dir.read_to_string(OBJECT) {
        Ok(url) => Ok(url.trim().rsplit_once('/').map_or_else(String::new, |(place, _)| place.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(HERE.to_owned()),
        Err(error) => Err(error),
    }
}
