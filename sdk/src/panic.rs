//! How a panic message reaches a researcher's dry run, although an analysis has no function to print with.
//!
//! *In*: a panic. *Out*: for each byte of its text (at most 1 KiB, with file and line) one request to grow the memory by
//! `0x8000 + byte` pages, between the marks `0x8000 + 0x101` and `0x8000 + 0x102`: 2 GiB and more each, far beyond any limit
//! that a host sets, so all of them are refused.
//!
//! This opens no way out of a site. A refused request changes nothing: a site's host answers "no" as to any other growth past
//! the limit and keeps no note of what was asked; its answer does not depend on the number, and the partition then traps
//! and counts as no contribution whether it asked or not. Only `vestibule analysis try`, on a researcher's own machine and data,
//! writes the refused sizes down and reads the text. The requests cost the same kind of fuel as any other instruction.

/// A request of this many pages plus a byte spells that byte.
pub const BYTE: usize = 0x8000;
/// Begins a message.
pub const BEGIN: usize = BYTE + 0x101;
/// Ends a message.
pub const END: usize = BYTE + 0x102;
/// Most bytes of text that are spelled.
pub const MAX_BYTES: usize = 1_024;

/// The requests, in pages, that spell `text`; cut to [`MAX_BYTES`].
pub fn spell(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.bytes().take(MAX_BYTES).map(|byte| BYTE + usize::from(byte));
    std::iter::once(BEGIN).chain(bytes).chain(std::iter::once(END))
}

/// The latest whole message among refused requests, in pages; other requests in between are skipped.
#[must_use]
pub fn read(requests: impl IntoIterator<Item = usize>) -> Option<String> {
    let (mut open, mut done) = (None, None);
    for pages in requests {
        match (pages, &mut open) {
            (BEGIN, _) => open = Some(Vec::new()),
            (END, _) => done = open.take().or(done),
            (_, Some(text)) => text.extend(pages.checked_sub(BYTE).and_then(|byte| u8::try_from(byte).ok())),
            (_, None) => {}
        }
    }
    done.map(|bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned())
}

/// Sets the panic hook of this instance.
#[cfg(target_arch = "wasm32")]
pub(crate) fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        for pages in spell(&panic.to_string()) {
            if core::arch::wasm32::memory_grow::<0>(pages) != usize::MAX {
                break; // a host without limits: do not eat its memory
            }
        }
    }));
}

/// Natively the usual hook prints.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) const fn listen() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelled_is_read() {
        let text = "panicked at src/lib.rs:7:9:\nno column `größe`";
        assert_eq!(read(spell(text)).as_deref(), Some(text));
        // Ordinary growths in between, and an earlier message, do not disturb.
        let noisy = spell("old").chain([1, 16, 0x7fff]).chain(spell(text).flat_map(|pages| [pages, 3]));
        assert_eq!(read(noisy).as_deref(), Some(text));
    }

    #[test]
    fn a_message_is_cut_and_a_broken_one_is_none() {
        assert_eq!(read(spell(&"x".repeat(5_000))).unwrap().len(), MAX_BYTES);
        assert_eq!(read(spell("text").take(3)), None);
        assert_eq!(read([END, BYTE, 5]), None);
    }

    #[test]
    fn every_request_is_2_gib_or_more() {
        assert!(spell("\0ÿz").all(|pages| pages << 16 >= 2 << 30));
    }
}
