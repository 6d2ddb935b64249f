//! What one store may use, and, in a dry run, how a guest's panic message is heard.
//!
//! *In*: the memory limit of a call. *Out*: yes or no to every growth that a guest asks for. The limit is a constant of the
//! job, never a property of the machine, so whether a growth succeeds is a function of the partition alone.
//!
//! A guest has no function to print with. The SDK's panic hook asks for absurd memory growths instead, one for each byte of
//! its message (`0x8000 + byte` pages, between two marks); all are refused, here and at every site. Only a dry run notes what
//! was asked. See `sdk/src/panic.rs`.

use wasmtime::{ResourceLimiter, Result};

use crate::engine::TABLE_ENTRIES;

const PAGE_BYTES: usize = 65_536;
/// What [`Guard::leave_room`] adds: memory is read twice.
pub(crate) const ROOM_BYTES: usize = 2 * PAGE_BYTES;
/// A growth by this many pages plus a byte's value spells that byte.
const BYTE: usize = 0x8000;
/// Begins a message.
const BEGIN: usize = BYTE + 0x101;
/// Longest message that is kept.
const MAX_MESSAGE_BYTES: usize = 4_096;

/// The limits of one store.
#[derive(Debug)]
pub(crate) struct Guard {
    memory_bytes: usize,
    /// `Some` in a dry run only.
    message: Option<Vec<u8>>,
    /// Growth was refused that was no byte of a message.
    refused: bool,
}

impl Guard {
    pub(crate) fn new(memory_mib: u32, listen: bool) -> Self {
        Self { memory_bytes: (memory_mib as usize).saturating_mul(1 << 20), message: listen.then(Vec::new), refused: false }
    }

    /// For reading an instance's memory after its last call: that puts a page for its own use behind it, each time.
    pub(crate) fn leave_room(&mut self) {
        self.memory_bytes = self.memory_bytes.saturating_add(ROOM_BYTES);
    }

    /// Whether it asked for memory beyond its limit.
    pub(crate) const fn was_refused(&self) -> bool {
        self.refused
    }

    /// What the guest's panic hook spelled, in a dry run.
    pub(crate) fn panic_message(&self) -> Option<String> {
        let bytes = self.message.as_deref().filter(|bytes| !bytes.is_empty())?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl ResourceLimiter for Guard {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let granted = desired <= self.memory_bytes;
        self.refused |= !granted && desired.saturating_sub(current) / PAGE_BYTES < BYTE;
        if let Some(message) = &mut self.message {
            let pages = desired.saturating_sub(current) / PAGE_BYTES;
            match pages.checked_sub(BYTE).map(u8::try_from) {
                Some(Ok(byte)) if message.len() < MAX_MESSAGE_BYTES => message.push(byte),
                _ if pages == BEGIN => message.clear(),
                _ => {}
            }
        }
        Ok(granted)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        Ok(desired <= TABLE_ENTRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_allowed_up_to_the_limit_and_no_byte_more() {
        let mut guard = Guard::new(1, false);
        assert!(guard.memory_growing(0, 1 << 20, None).unwrap());
        assert!(!guard.was_refused());
        assert!(!guard.memory_growing(0, (1 << 20) + 1, None).unwrap());
        assert!(guard.was_refused());
        assert!(guard.table_growing(0, TABLE_ENTRIES, None).unwrap());
        assert!(!guard.table_growing(0, TABLE_ENTRIES + 1, None).unwrap());
    }

    #[test]
    fn only_a_dry_run_hears_a_panic() {
        for (listen, want) in [(true, Some("no")), (false, None)] {
            let mut guard = Guard::new(1, listen);
            for pages in [BEGIN, BYTE + usize::from(b'n'), BYTE + usize::from(b'o'), BYTE + 0x102] {
                let current = 3 * PAGE_BYTES;
                assert!(!guard.memory_growing(current, current + pages * PAGE_BYTES, None).unwrap());
                assert!(!guard.was_refused(), "it only spells");
            }
            assert_eq!(guard.panic_message().as_deref(), want);
        }
    }
}
