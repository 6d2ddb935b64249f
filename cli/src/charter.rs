//! A charter's file, as a project's lead writes it, and the charter that it becomes.
//!
//! *In*: TOML. *Out*: a [`Charter`] to sign: amounts in whole numbers, times in full. *Refuses*: unknown keys, by line.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Deserialize;
use vestibule_protocol::charter::{Charter, Purpose, Range};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::name::Name;
use vestibule_protocol::words::{Paragraphs, Title};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CharterFile {
    project: Name,
    title: Title,
    summary: Paragraphs,
    lead: PublicKey,
    members: BTreeSet<PublicKey>,
    sites: BTreeSet<Name>,
    datasets: BTreeSet<Name>,
    columns: BTreeSet<String>,
    catalogues: BTreeSet<String>,
    components: BTreeSet<String>,
    epsilon: f64,
    #[serde(default)]
    delta: f64,
    from: String,
    until: String,
    outputs: Paragraphs,
    funding: Paragraphs,
    ethics: Option<Title>,
    purpose: Purpose,
}

/// A new file.
pub(crate) fn template(project: &str, lead: PublicKey) -> String {
    format!(
        "# A project's charter. Its lead signs it with `vestibule charter sign`; each site decides for itself whether it takes part.\n\
         project    = \"{project}\"\n\
         title      = \"\"\n\
         summary    = \"\"\"\n\"\"\"                             # for the people in the data: what for, in plain words\n\
         lead       = \"{lead}\"\n\
         members    = [\"{lead}\"]   # who may sign jobs\n\
         sites      = []                # by name\n\
         datasets   = []                # by name\n\
         columns    = [\"*\"]             # or the columns that are needed\n\
         catalogues = [\"*\"]             # or the catalogues that are needed\n\
         components = [\"*\"]             # or the digests of the components that may run\n\
         epsilon    = 1.0               # for all jobs together, per individual, at each site\n\
         delta      = 1e-6\n\
         from       = \"2026-01-01\"\n\
         until      = \"2027-01-01\"\n\
         outputs    = \"\"                # what is to come out of it\n\
         funding    = \"\"\n\
         # ethics   = \"\"                # the committee's reference\n\
         [purpose]\n\
         research   = \"DUO:0000037\"     # biomedical research; see the Data Use Ontology, DUO:0000031 to DUO:0000040\n\
         # disease  = \"MONDO:0005148\"\n\
         commercial = false\n\
         methods_only = false\n\
         clinical_care = false\n"
    )
}

impl CharterFile {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        Ok(toml::from_str(text)?)
    }

    pub(crate) fn charter(self) -> Result<Charter> {
        fn range<T: Ord + std::str::FromStr>(words: BTreeSet<String>) -> Result<Range<T>>
        where
            T::Err: std::error::Error + Send + Sync + 'static,
        {
            if words.contains("*") && words.len() == 1 {
                return Ok(Range::Any);
            }
            Ok(Range::Only(words.iter().map(|word| word.parse()).collect::<Result<_, T::Err>>()?))
        }
        let whole = |amount: f64, name: &str| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
            match amount.is_finite() && (0.0..1e18).contains(&amount) {
                true => Ok(amount.round() as u64),
                false => bail!("`{name}` is not an amount"),
            }
        };
        let day = |text: &str| if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
        let columns = range::<Name>(self.columns)?;
        Ok(Charter {
            project: self.project,
            title: self.title,
            summary: self.summary,
            purpose: self.purpose,
            lead: self.lead,
            members: self.members,
            sites: self.sites,
            datasets: self.datasets,
            columns,
            catalogues: range::<Name>(self.catalogues)?,
            components: range::<Digest>(self.components)?,
            epsilon_micro: whole(self.epsilon * 1e6, "epsilon")?,
            delta_femto: whole(self.delta * 1e15, "delta")?,
            not_before: day(&self.from),
            not_after: day(&self.until),
            outputs: self.outputs,
            funding: self.funding,
            ethics: self.ethics,
        })
    }
}
