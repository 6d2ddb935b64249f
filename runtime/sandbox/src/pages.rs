//! Which pages of the engine's pool are there, by what the kernel says of this process.
//!
//! *In*: `/proc/self/maps` and `/proc/self/pagemap`, opened before. *Out*: where the pool lies, what
//! of it was written, and the same pages laid down again, also in another process. Only hints go to
//! the kernel: no byte of a guest's memory is read or changed here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use serde::{Deserialize, Serialize};

use crate::alone::Addresses;

const PAGE_BYTES: usize = 4_096;
/// Of an entry of `pagemap`: the page is there; it is a file's (Documentation/admin-guide/mm/pagemap).
const PRESENT: u64 = 1 << 63;
const FILE: u64 = 1 << 61;
/// The smallest mapping that can be a pool's.
const POOL_BYTES: usize = 1 << 20;

/// One mapping of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    addresses: Addresses,
    writable: bool,
    file: bool,
}

/// The pages that every instance of a round finds laid down, as a rehearsal found them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pages(Vec<Laid>);

/// Pages that are to be there, from the start of one of the pool's parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Laid {
    part: usize,
    bytes: Addresses,
    /// Written, and not only read.
    written: bool,
}

impl Pages {
    /// Bytes of them, however often one is named: what laying them down takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().fold(0, |sum: usize, laid| sum.saturating_add(laid.bytes.len()).saturating_add(PAGE_BYTES))
    }
}

/// Where the engine keeps memories and tables.
#[derive(Debug)]
pub(crate) struct Pool(Vec<Addresses>);

/// What is mapped.
pub(crate) fn mappings(maps: &File) -> io::Result<Vec<Mapping>> {
    let (mut text, mut piece) = (vec![], [0; 4_096]);
    loop {
        let read = maps.read_at(&mut piece, text.len() as u64)?;
        text.extend_from_slice(piece.get(..read).unwrap_or_default());
        if read == 0 {
            return Ok(String::from_utf8_lossy(&text).lines().filter_map(mapping).collect());
        }
    }
}

/// A line of `maps`: `start-end perms offset device inode path`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let access = words.next()?;
    let inode = words.nth(2)?;
    let named = words.next().is_some_and(|name| name.starts_with('['));
    let private = access.as_bytes().get(3) == Some(&b'p');
    (private && !named).then_some(())?;
    Some(Mapping { addresses: number(start)?..number(end)?, writable: access.starts_with("rw"), file: inode != "0" })
}

impl Pool {
    /// What was mapped between two looks: the engine reserves its pool without access to it.
    pub(crate) fn found(before: &[Mapping], after: &[Mapping]) -> Self {
        let inside = |of: &Addresses, mapping: &Mapping| mapping.addresses.start <= of.start && of.end <= mapping.addresses.end;
        let new = |mapping: &&Mapping| !before.iter().any(|known| inside(&mapping.addresses, known));
        let mut parts: Vec<Addresses> = after
            .iter()
            .filter(|mapping| !mapping.file && !mapping.writable && mapping.addresses.len() >= POOL_BYTES)
            .filter(new)
            .map(|mapping| mapping.addresses.clone())
            .collect();
        // Always in the same order, wherever they lie.
        parts.sort_by_key(|part| (part.len(), part.start));
        Self(parts)
    }

    /// The pages that are there now: what was written, and all of an image that may be read.
    pub(crate) fn laid(&self, maps: &File, pagemap: &File) -> io::Result<Pages> {
        let mut laid = vec![];
        for mapping in mappings(maps)?.into_iter().filter(|mapping| mapping.writable) {
            let Some((part, start)) = self.part(&mapping.addresses) else { continue };
            let place = |at: usize| at.saturating_sub(start);
            if mapping.file {
                let bytes = place(mapping.addresses.start)..place(mapping.addresses.end);
                laid.push(Laid { part, bytes, written: false });
            }
            for run in written(pagemap, &mapping.addresses)? {
                laid.push(Laid { part, bytes: place(run.start)..place(run.end), written: true });
            }
        }
        Ok(Pages(laid))
    }

    /// Lays pages down, with the contents that they have anyway. What cannot be laid is left out:
    /// the next instance that touches it has a fault.
    pub(crate) fn lay(&self, pages: &Pages) {
        for Laid { part, bytes, written } in &pages.0 {
            let Some(pool) = self.0.get(*part).filter(|pool| bytes.end <= pool.len()) else { continue };
            let advice = if *written { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
            let start = std::ptr::without_provenance_mut(pool.start.saturating_add(bytes.start));
            // SAFETY: populating changes no byte of any mapping; an address that is not mapped, or
            // not writable, is an error and nothing else.
            #[expect(unsafe_code, reason = "argued above")]
            let _ = unsafe { libc::madvise(start, bytes.len(), advice) };
        }
    }

    fn part(&self, of: &Addresses) -> Option<(usize, usize)> {
        let inside = |part: &&Addresses| part.start <= of.start && of.end <= part.end;
        self.0.iter().enumerate().find(|(_, part)| inside(part)).map(|(place, part)| (place, part.start))
    }
}

/// Runs of pages that are this process' own.
fn written(pagemap: &File, of: &Addresses) -> io::Result<Vec<Addresses>> {
    let mut entries = vec![0; of.len() / PAGE_BYTES * size_of::<u64>()];
    pagemap.read_exact_at(&mut entries, (of.start / PAGE_BYTES * size_of::<u64>()) as u64)?;
    let mut runs: Vec<Addresses> = vec![];
    for (page, entry) in entries.as_chunks::<8>().0.iter().enumerate() {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | FILE) != PRESENT {
            continue;
        }
        let start = of.start.saturating_add(page.saturating_mul(PAGE_BYTES));
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end = start.saturating_add(PAGE_BYTES),
            None => runs.push(start..start.saturating_add(PAGE_BYTES)),
        }
    }
    Ok(runs)
}

/// No threshold of this process moves by what it was asked to hold: what the allocator has it
/// keeps, and the kernel gives pages one by one.
pub(crate) fn steady() {
    // SAFETY: sets numbers of the allocator, and a flag of this process; no memory is handed over.
    #[expect(unsafe_code, reason = "argued above")]
    unsafe {
        // Either one ends the thresholds' moving by themselves (mallopt(3)).
        #[cfg(target_env = "gnu")]
        {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
            libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        }
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_read_as_the_kernel_writes_them() {
        let line = "7f00-7f80 rw-p 00001000 00:01 1030 /memfd:wasm-memory-image (deleted)";
        assert_eq!(mapping(line), Some(Mapping { addresses: 0x7f00..0x7f80, writable: true, file: true }));
        let line = "7f00-7f80 ---p 00000000 00:00 0 ";
        assert_eq!(mapping(line), Some(Mapping { addresses: 0x7f00..0x7f80, writable: false, file: false }));
        for line in ["7f00-7f80 rw-p 0 00:00 0 [heap]", "7f00-7f80 rw-s 0 00:01 7 /memfd:rows", "x", ""] {
            assert_eq!(mapping(line), None, "{line}");
        }
    }

    #[test]
    fn a_pool_is_what_was_reserved_meanwhile() {
        let mapping = |addresses, writable| Mapping { addresses, writable, file: false };
        let known = mapping(0..POOL_BYTES, false);
        let after = [known.clone(), mapping(POOL_BYTES * 4..POOL_BYTES * 8, false), mapping(0x10..0x20, true)];
        let found = Pool::found(&[known], &after).0;
        assert_eq!((found.len(), found.first()), (1, Some(&(POOL_BYTES * 4..POOL_BYTES * 8))));
    }
}
