//! Rows of tables, and names of samples, on their way into the keyed order, in bounded memory.
//!
//! *In*: entries in any order. *Out*: the same in equal parts of the keyed order, one part at a time. What does not fit the memory given lies in a
//! scratch file, encrypted (AES-256-GCM) and bound to its place. *Refuses*: a scratch file that another key sealed or whose bytes were changed.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::FileExt as _;

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// AES-GCM's tag.
const TAG_LEN: usize = 16;
/// Most parts: each has a buffer.
const MOST_PARTS: u64 = 4_096;

/// Entries by parts of the keyed order.
pub(super) struct Spill {
    file: File,
    key: RandomizedNonceKey,
    parts: Vec<Part>,
    /// Bytes of all parts that are in memory, and that may be.
    buffered: usize,
    memory: usize,
    end: u64,
}

#[derive(Default)]
struct Part {
    buffer: Vec<u8>,
    /// Where sealed buffers lie, and how long they are with nonce and tag.
    sealed: Vec<(u64, usize)>,
}

impl Spill {
    /// `bytes`: how much there will be, about.
    pub(super) fn new(file: File, key: RandomizedNonceKey, bytes: u64, memory: usize) -> Self {
        // A part is held whole, a dozen times over as values.
        let part = (memory as u64 / 64).max(1);
        let count = bytes.div_ceil(part).clamp(1, MOST_PARTS);
        let parts = (0..count).map(|_| Part::default()).collect();
        Self { file, key, parts, buffered: 0, memory, end: 0 }
    }

    /// How many parts there are.
    pub(super) const fn parts(&self) -> usize {
        self.parts.len()
    }

    fn part(&self, order: &[u8; 16]) -> usize {
        let head = u64::from_be_bytes(*order.first_chunk().expect("8 of 16 bytes"));
        (u128::from(head).wrapping_mul(self.parts.len() as u128) >> 64) as usize
    }

    /// Adds an entry at a place of the keyed order.
    pub(super) fn put(&mut self, order: &[u8; 16], entry: &impl Serialize) -> Result<()> {
        self.put_in(self.part(order), entry)
    }

    /// Adds an entry to a part.
    pub(super) fn put_in(&mut self, part: usize, entry: &impl Serialize) -> Result<()> {
        let bytes = postcard::to_stdvec(entry).map_err(Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(Error::other)?;
        let buffer = &mut self.parts.get_mut(part).ok_or_else(|| Error::other("a part that there is not"))?.buffer;
        buffer.extend_from_slice(&length.to_le_bytes());
        buffer.extend_from_slice(&bytes);
        self.buffered = self.buffered.saturating_add(bytes.len()).saturating_add(4);
        if self.buffered > self.memory { self.seal() } else { Ok(()) }
    }

    /// Puts all that is in memory into the scratch file.
    fn seal(&mut self) -> Result<()> {
        let Self { file, key, parts, end, .. } = self;
        for (number, part) in parts.iter_mut().enumerate().filter(|(_, part)| !part.buffer.is_empty()) {
            let mut sealed = std::mem::take(&mut part.buffer);
            let nonce = key.seal_in_place_append_tag(aad(number, *end), &mut sealed).map_err(Error::other)?;
            file.write_all_at(nonce.as_ref(), *end)?;
            file.write_all_at(&sealed, end.saturating_add(NONCE_LEN as u64))?;
            let length = sealed.len().saturating_add(NONCE_LEN);
            part.sealed.push((*end, length));
            *end = end.saturating_add(length as u64);
        }
        self.buffered = 0;
        Ok(())
    }

    /// Takes a part's entries out, in the order in which they were added.
    pub(super) fn take<T: DeserializeOwned>(&mut self, number: usize) -> Result<Vec<T>> {
        let part = self.parts.get_mut(number).map(std::mem::take).unwrap_or_default();
        self.buffered = self.buffered.saturating_sub(part.buffer.len());
        let mut entries = Vec::new();
        for (offset, length) in part.sealed {
            let mut nonce = [0; NONCE_LEN];
            self.file.read_exact_at(&mut nonce, offset)?;
            let mut bytes = vec![0; length.saturating_sub(NONCE_LEN)];
            self.file.read_exact_at(&mut bytes, offset.saturating_add(NONCE_LEN as u64))?;
            let opened = self.key.open_in_place(Nonce::from(&nonce), aad(number, offset), &mut bytes);
            let length = opened.map_err(|_| changed())?.len();
            if length.checked_add(TAG_LEN) != Some(bytes.len()) {
                return Err(changed());
            }
            bytes.truncate(length);
            read(&bytes, &mut entries)?;
        }
        read(&part.buffer, &mut entries)?;
        Ok(entries)
    }
}

fn changed() -> Error {
    Error::new(ErrorKind::InvalidData, "the scratch file was changed")
}

fn read<T: DeserializeOwned>(mut bytes: &[u8], entries: &mut Vec<T>) -> Result<()> {
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(changed)?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(changed)?;
        entries.push(postcard::from_bytes(entry).map_err(|_| changed())?);
        bytes = rest;
    }
    Ok(())
}

fn aad(part: usize, offset: u64) -> Aad<[u8; 16]> {
    let mut bytes = [0; 16];
    let parts = [part as u64, offset].map(u64::to_be_bytes);
    bytes.iter_mut().zip(parts.as_flattened()).for_each(|(to, from)| *to = *from);
    Aad::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::StoreKey;

    #[test]
    fn what_goes_in_in_any_order_comes_out_by_part_whatever_the_memory() {
        let key = StoreKey::from_bytes([7; 32]);
        for memory in [1, 1_000, 1 << 20] {
            let file = tempfile::tempfile().unwrap();
            let mut spill = Spill::new(file.try_clone().unwrap(), key.scratch("v1").unwrap(), 20_000, memory);
            for n in 0..2_000_u32 {
                spill.put(&key.order(&format!("p{}", n % 500)), &(n % 500, n)).unwrap();
            }
            assert_eq!(file.metadata().unwrap().len() > 0, memory < 1 << 20);
            assert!(spill.buffered <= memory);
            let mut all = vec![];
            for part in 0..spill.parts() {
                let mut entries: Vec<(u32, u32)> = spill.take(part).unwrap();
                assert!(entries.iter().all(|(person, _)| spill.part(&key.order(&format!("p{person}"))) == part));
                // One person's entries are in the order in which they were added.
                entries.sort_by_key(|(person, _)| *person);
                assert!(entries.is_sorted());
                all.extend(entries);
                assert!(spill.take::<(u32, u32)>(part).unwrap().is_empty());
            }
            assert_eq!(all.len(), 2_000);
        }
    }

    #[test]
    fn a_changed_scratch_file_is_noticed() {
        let key = StoreKey::from_bytes([7; 32]);
        let file = tempfile::tempfile().unwrap();
        let mut spill = Spill::new(file.try_clone().unwrap(), key.scratch("v1").unwrap(), 1, 1);
        spill.put(&[0; 16], &7_u32).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 14).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 14).unwrap();
        assert_eq!(spill.take::<u32>(0).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
