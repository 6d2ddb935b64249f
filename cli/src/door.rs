//! The one door to the terminal: whatever a command prints or logs comes out here.
//!
//! *In*: text of our own with others' words in it; JSON. *Out*: the same on stdout or stderr, where no character moves the cursor, sets a title,
//! writes the clipboard, turns the direction of writing or hides what stands beside it: each is an escape. *Trusts*: nothing. *Refuses*: nothing.
//!
//! `println!` and `eprintln!` in this crate are this door's (`main.rs`), so that nobody has to think of it. A field of others' that stands on a line of
//! ours goes through [`vestibule_protocol::words::line`] as well, since here its ends of lines are ours.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints")]

use std::borrow::Cow;
use std::io;

use serde::de::IgnoredAny;
use tracing_subscriber::fmt::MakeWriter;
use vestibule_protocol::words::{json, lines};

/// Prints on stdout.
pub(crate) fn say(text: &str) {
    std::println!("{}", shown(text));
}

/// Prints on stderr.
pub(crate) fn note(text: &str) {
    std::eprintln!("{}", shown(text));
}

/// The text, as it comes out: JSON stays JSON.
fn shown(text: &str) -> Cow<'_, str> {
    match lines(text) {
        Cow::Owned(_) if serde_json::from_str::<IgnoredAny>(text).is_ok() => json(text),
        shown => shown,
    }
}

/// Where the log goes: the same door, on stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(lines(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_comes_out_and_json_says_the_same() {
        let evil = "\u{1b}[2J\u{1b}]52;c;eA==\u{7}\u{9b}8m\u{202e}\r";
        let out = shown(evil).into_owned();
        assert!(vestibule_protocol::words::is_plain(&out), "{out}");
        let document = serde_json::json!({ "title": evil }).to_string();
        assert!(vestibule_protocol::words::is_plain(&shown(&document)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown(&document)).unwrap()["title"], evil);
        assert_eq!(shown("a\n\tb"), "a\n\tb");
    }
}
