//! What people take for something else: names that look alike, letters that pass for others (<https://www.unicode.org/reports/tr39/>).
//!
//! *In*: two names; a text. *Out*: whether a person could take one for the other; which characters pass for Latin letters. *Trusts*: Unicode's
//! table of confusable characters.

use std::collections::{BTreeMap, BTreeSet};

use unicode_security::confusable_detection::skeleton;
use unicode_security::mixed_script::AugmentedScriptSet;
use unicode_security::mixed_script::is_potential_mixed_script_confusable_char as confusable;

use crate::name::Name;

/// Whether one name could be taken for the other: they differ in capitals, in separators, or in characters that look alike, as `1eiden` and `leiden`.
#[must_use]
pub fn alike(one: &Name, other: &Name) -> bool {
    looks(one).iter().zip(looks(other)).any(|(one, other)| *one == other)
}

/// Names of which none can be taken for another.
#[derive(Debug, Clone, Default)]
pub struct Distinct([BTreeMap<String, Name>; 3]);

impl Distinct {
    /// Adds a name.
    ///
    /// # Errors
    /// The one that it could be taken for, or is.
    pub fn add(&mut self, name: &Name) -> Result<(), Name> {
        let looks = looks(name);
        if let Some(like) = self.0.iter().zip(&looks).find_map(|(known, look)| known.get(look)) {
            return Err(like.clone());
        }
        for (known, look) in self.0.iter_mut().zip(looks) {
            known.insert(look, name.clone());
        }
        Ok(())
    }
}

/// What a name looks like: as it is drawn, as its small letters are, and these themselves.
fn looks(name: &Name) -> [String; 3] {
    let text: String = name.as_str().chars().map(|c| if matches!(c, '_' | '.') { '-' } else { c }).collect();
    let lower = text.to_ascii_lowercase();
    let drawn = |text: &str| skeleton(text).collect::<String>().to_ascii_lowercase();
    [drawn(&text), drawn(&lower), lower]
}

/// Whether a word mixes Latin letters with letters of another script that look like them.
#[must_use]
pub fn is_mixed(text: &str) -> bool {
    !disguised(text).is_empty()
}

/// Where characters stand that pass for Latin letters in a word of Latin letters.
pub(super) fn disguised(text: &str) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    if text.is_ascii() {
        return found;
    }
    let mut start = 0;
    for word in text.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let letters = word.char_indices().filter(|(_, c)| c.is_alphabetic());
        if !word.is_ascii() && AugmentedScriptSet::for_str(word).is_empty() {
            let passing = letters.filter(|(_, c)| !c.is_ascii() && !is_biology(*c) && confusable(*c));
            found.extend(passing.map(|(at, _)| start + at));
        }
        start += word.len();
    }
    found
}

/// Letters that gene names end in, and that nobody takes for Latin ones: as in TNFα, IFNγ.
const fn is_biology(c: char) -> bool {
    matches!(c, 'α' | 'β' | 'γ' | 'δ' | 'ε' | 'κ' | 'λ' | 'μ' | 'ω')
}
