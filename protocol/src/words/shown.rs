//! The door: any text, made so that it can stand before people's eyes.
//!
//! *In*: a text of anybody's. *Out*: one that looks like what it is: what would move, hide or turn is an escape, such as `\u{1b}`. *Trusts*: nothing.
//! *Refuses*: nothing; text that may not have such characters at all has a type of [`super`].

use std::borrow::Cow;

use super::alike::disguised;

/// As many accents as writing needs on one letter; more are drawn over the lines above and below.
const MOST_MARKS: usize = 4;

/// Whether a text is one line that moves and hides nothing.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let mut marks = 0;
    text.chars().all(|c| is_shown(c, &mut marks))
}

/// One line: also its ends of lines and what passes for other letters are escapes.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    let disguised = disguised(text);
    if disguised.is_empty() && is_plain(text) {
        return Cow::Borrowed(text);
    }
    let mut marks = 0;
    let shown = text.char_indices().map(|(at, c)| escaped(c, is_shown(c, &mut marks) && !disguised.contains(&at)));
    Cow::Owned(shown.collect())
}

/// Lines of our own making with others' words in them: their ends and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    let kept = |c: char| matches!(c, '\n' | '\t');
    let mut marks = 0;
    if text.chars().all(|c| kept(c) || is_shown(c, &mut marks)) {
        return Cow::Borrowed(text);
    }
    let mut marks = 0;
    Cow::Owned(text.chars().map(|c| escaped(c, kept(c) || is_shown(c, &mut marks))).collect())
}

/// A JSON text that says the same in characters that move and hide nothing.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    // Outside of its strings JSON has visible ASCII and white space alone.
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        if c == '\n' || is_shown(c, &mut marks) {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Cow::Owned(out)
}

fn escaped(c: char, shown: bool) -> String {
    if shown {
        return c.to_string();
    }
    match c {
        '\n' | '\r' | '\t' => c.escape_default().to_string(),
        _ => c.escape_unicode().to_string(),
    }
}

/// Whether a character is to be seen where it stands; `marks` counts the accents before it.
fn is_shown(c: char, marks: &mut usize) -> bool {
    if unicode_normalization::char::is_combining_mark(c) && !is_blank(c) {
        *marks += 1;
        return *marks <= MOST_MARKS;
    }
    *marks = 0;
    // The standard library escapes controls, directions, joiners, separators, private and unknown characters; and spaces
    // that are wider or narrower than the usual one.
    let spaces = matches!(c, '\u{a0}' | '\u{202f}' | '\u{3000}');
    let visible = matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    spaces || (visible && !is_blank(c))
}

/// Letters and marks that nothing is drawn for: fillers, joiners of accents, selectors of variants.
const fn is_blank(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}
