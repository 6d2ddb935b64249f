//! What the people in a dataset agreed to, as codes: what the site's policy decides by.
//!
//! *In*: `duo` and `[conditions]` of a `DATASET.toml`. *Out*: [`Conditions`]. *Refuses*: what is no code, two permissions, a modifier without what
//! it speaks of. A code that no rule knows is kept: the policy holds what it cannot decide.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// GA4GH Data Use Ontology: a dataset has at most one of these (no restriction, general research use, health or medical or biomedical,
/// disease specific, population origins or ancestry only).
const PERMISSIONS: [&str; 5] = ["DUO:0000004", "DUO:0000042", "DUO:0000006", "DUO:0000007", "DUO:0000011"];

/// `[conditions]`: what the codes in `duo` speak of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Diseases that research must be about (with DUO:0000007): Mondo codes.
    pub diseases: BTreeSet<String>,
    /// Countries, or regions that the policy knows, in which researchers must work (with DUO:0000022): ISO 3166 codes.
    pub countries: BTreeSet<String>,
    /// Projects that may use it (with DUO:0000027): their short names.
    pub projects: BTreeSet<String>,
    /// The last day of its use (with DUO:0000025): `2030-12-31`.
    pub use_until: Option<String>,
    /// How many individuals must take part in a round, by a noised count, for anything of it to leave. 0: any number.
    pub min_cohort: u32,
}

/// Whether it is a code of that ontology: the prefix and seven digits.
fn is_code(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| digits.len() == 7 && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

/// The permission among the codes of a dataset, if there is one.
#[must_use]
pub fn permission(duo: &[String]) -> Option<&str> {
    duo.iter().map(String::as_str).find(|code| PERMISSIONS.contains(code))
}

/// The modifiers among them: all that are no permission.
pub fn modifiers(duo: &[String]) -> impl Iterator<Item = &str> {
    duo.iter().map(String::as_str).filter(|code| !PERMISSIONS.contains(code))
}

impl Conditions {
    /// The end of the last day of its use.
    #[must_use]
    pub fn until(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&format!("{}T23:59:59Z", self.use_until.as_deref()?), &Rfc3339).ok()
    }

    /// Whether they go with the codes.
    pub(crate) fn check(&self, duo: &[String]) -> Result<(), String> {
        if let Some(other) = duo.iter().find(|code| !is_code(code, "DUO:")) {
            return Err(format!("`duo`: `{other}` is no code of the Data Use Ontology, such as DUO:0000042"));
        }
        if duo.iter().filter(|code| PERMISSIONS.contains(&code.as_str())).count() > 1 {
            return Err(format!("`duo`: a dataset has one permission at most, of {}", PERMISSIONS.join(", ")));
        }
        if let Some(other) = self.diseases.iter().find(|code| !is_code(code, "MONDO:")) {
            return Err(format!("`conditions.diseases`: `{other}` is no code of the Mondo ontology, such as MONDO:0005148"));
        }
        let place = |code: &&String| !(2..=32).contains(&code.len()) || !code.bytes().all(|letter| letter.is_ascii_uppercase());
        if let Some(other) = self.countries.iter().find(place) {
            return Err(format!("`conditions.countries`: `{other}` is no code of a country or region, such as NL or EU"));
        }
        if self.use_until.is_some() && self.until().is_none() {
            return Err("`conditions.use_until`: must be a day such as 2030-12-31".to_owned());
        }
        let has = |code: &str| duo.iter().any(|known| known == code);
        let pairs = [
            ("DUO:0000007", "diseases", !self.diseases.is_empty()),
            ("DUO:0000022", "countries", !self.countries.is_empty()),
            ("DUO:0000027", "projects", !self.projects.is_empty()),
            ("DUO:0000025", "use_until", self.use_until.is_some()),
        ];
        for (code, field, given) in pairs {
            if has(code) != given {
                return Err(format!("`conditions.{field}` goes with {code} in `duo`: both are needed, or neither"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_go_with_their_codes() {
        let check = |duo: &[&str], toml: &str| {
            let duo: Vec<String> = duo.iter().map(|code| (*code).to_owned()).collect();
            toml::from_str::<Conditions>(toml).unwrap().check(&duo)
        };
        assert_eq!(check(&[], ""), Ok(()));
        let all = "diseases = [\"MONDO:0005148\"]\ncountries = [\"EU\"]\nprojects = [\"lipids\"]\nuse_until = \"2030-12-31\"\nmin_cohort = 50";
        assert_eq!(check(&["DUO:0000007", "DUO:0000022", "DUO:0000027", "DUO:0000025", "DUO:0000046"], all), Ok(()));
        for (duo, toml, want) in [
            (vec!["DUO:42"], "", "DUO:42"),
            (vec!["DUO:0000042", "DUO:0000006"], "", "one permission"),
            (vec!["DUO:0000007"], "", "diseases"),
            (vec!["DUO:0000042"], "diseases = [\"MONDO:0005148\"]", "DUO:0000007"),
            (vec!["DUO:0000007"], "diseases = [\"diabetes\"]", "diabetes"),
            (vec!["DUO:0000022"], "countries = [\"nl\"]", "nl"),
            (vec!["DUO:0000025"], "use_until = \"2030\"", "use_until"),
        ] {
            let error = check(&duo, toml).unwrap_err();
            assert!(error.contains(want), "{error} does not name {want}");
        }
        let duo = ["DUO:0000046".to_owned(), "DUO:0000006".to_owned()];
        assert_eq!((permission(&duo), modifiers(&duo).collect::<Vec<_>>()), (Some("DUO:0000006"), vec!["DUO:0000046"]));
    }
}
