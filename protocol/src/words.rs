//! The words that people, sites and programs of others write, each kind with a type of its own.
//!
//! *In*: text from a document, a wire or a person. *Out*: [`Code`], [`Line`], [`Text`], [`Country`], [`Origin`]: checked once, where they are read; and
//! `shown`, the door through which any other text comes before people's eyes. *Refuses*: controls, marks that turn the direction of writing,
//! what is invisible, accents piled up, and what is longer than it may be. So no text of these types moves, hides or overprints what stands beside it.

mod alike;
mod shown;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::alike::{Distinct, alike, is_mixed};
pub use self::shown::{is_plain, json, line, lines};

/// One line about something: a reason, a description.
pub type Sentence = Line<0, 1_000>;
/// A person's reason for a decision: never nothing.
pub type Reason = Line<1, 1_000>;
/// The head of something.
pub type Title = Line<1, 200>;
/// The head of something that may go without one.
pub type Topic = Line<0, 200>;
/// Whom somebody works for.
pub type Organisation = Line<1, 200>;
/// A word or two of a card: a version, a build, a code of an ontology.
pub type Label = Line<0, 100>;
/// Where something is reached: `host:port`, a URL.
pub type Address = Line<1, 300>;
/// What a charter says at length.
pub type Paragraphs = Text<1, 5_000>;

/// The text is none of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` cannot stand here: expected {wanted}")]
pub struct WordsError {
    /// The text, shortened and made printable.
    pub found: String,
    /// What would have done.
    pub wanted: String,
}

fn wrong(text: &str, wanted: String) -> WordsError {
    WordsError { found: line(text).chars().take(80).collect(), wanted }
}

/// What all these types can do.
macro_rules! words {
    ($(<$(const $size:ident),+>)? $name:ident) => {
        impl $(<$(const $size: usize),+>)? $name $(<$($size),+>)? {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $(<$(const $size: usize),+>)? std::ops::Deref for $name $(<$($size),+>)? {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl $(<$(const $size: usize),+>)? fmt::Display for $name $(<$($size),+>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl $(<$(const $size: usize),+>)? fmt::Debug for $name $(<$($size),+>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl $(<$(const $size: usize),+>)? PartialEq<&str> for $name $(<$($size),+>)? {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl<'de $($(, const $size: usize)+)?> Deserialize<'de> for $name $(<$($size),+>)? {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// A stable code for scripts: 1 to 64 of `a` to `z`, digits and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Code(String);
words!(Code);

impl FromStr for Code {
    type Err = WordsError;
    fn from_str(text: &str) -> Result<Self, WordsError> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=64).contains(&text.len()) && text.bytes().all(known);
        if good { Ok(Self(text.to_owned())) } else { Err(wrong(text, "1 to 64 of `a` to `z`, digits and `-`".to_owned())) }
    }
}

impl Code {
    /// A code that stands in our own source.
    #[must_use]
    pub fn own(code: &'static str) -> Self {
        code.parse().expect("codes in our own source are lower-case words with `-` between them")
    }
}

/// `LEAST` to `MOST` characters on one line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Line<const LEAST: usize, const MOST: usize>(String);
words!(<const LEAST, const MOST> Line);

impl<const LEAST: usize, const MOST: usize> FromStr for Line<LEAST, MOST> {
    type Err = WordsError;
    fn from_str(text: &str) -> Result<Self, WordsError> {
        if fits(text, LEAST, MOST) && is_plain(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(wrong(text, format!("{LEAST} to {MOST} characters on one line, none of them invisible")))
    }
}

impl<const MOST: usize> Default for Line<0, MOST> {
    fn default() -> Self {
        Self(String::new())
    }
}

impl<const MOST: usize> Line<0, MOST> {
    /// As much of a text as fits, by the door.
    #[must_use]
    pub fn cut(text: &str) -> Self {
        Self(line(text).chars().take(MOST).collect())
    }
}

/// `LEAST` to `MOST` characters, in lines.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text<const LEAST: usize, const MOST: usize>(String);
words!(<const LEAST, const MOST> Text);

impl<const LEAST: usize, const MOST: usize> FromStr for Text<LEAST, MOST> {
    type Err = WordsError;
    fn from_str(text: &str) -> Result<Self, WordsError> {
        if fits(text, LEAST, MOST) && text.split('\n').all(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(wrong(text, format!("{LEAST} to {MOST} characters, none of them invisible")))
    }
}

/// A time as documents write it, in seconds since 1970: RFC 3339, at most 35 characters.
#[must_use]
pub fn instant(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok().filter(|_| text.len() <= 35)?;
    Some(time.unix_timestamp())
}

fn fits(text: &str, least: usize, most: usize) -> bool {
    // Bytes first: of megabytes no character is looked at.
    text.len() <= most.saturating_mul(4) && text.chars().count() <= most && text.trim().chars().count() >= least
}

/// A country: its ISO 3166 code of two capital letters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Country(String);
words!(Country);

impl FromStr for Country {
    type Err = WordsError;
    fn from_str(text: &str) -> Result<Self, WordsError> {
        let good = text.len() == 2 && text.bytes().all(|letter| letter.is_ascii_uppercase());
        if good { Ok(Self(text.to_owned())) } else { Err(wrong(text, "an ISO 3166 code of two capital letters".to_owned())) }
    }
}

/// What a log calls itself (<https://c2sp.org/tlog-checkpoint>): 1 to 200 visible ASCII characters without `+`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Origin(String);
words!(Origin);

impl FromStr for Origin {
    type Err = WordsError;
    fn from_str(text: &str) -> Result<Self, WordsError> {
        let good = (1..=200).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'+');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong(text, "1 to 200 visible ASCII characters without `+`".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
