//! `vestibule charter`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_protocol::charter::{Charter as Terms, Range, SignedCharter};
use vestibule_protocol::words::line;

use crate::charter::{self, CharterFile};
use crate::failure::{Failure, coded};
use crate::files::{public_key, read, read_bytes, secret_key, write};

#[derive(Debug, Subcommand)]
pub(crate) enum Charter {
    /// Write a charter's file to fill in: who, why, on what, for how much, until when.
    New {
        /// A new file.
        file: PathBuf,
        /// The project's short name.
        #[arg(long)]
        project: String,
        /// The lead's public key.
        #[arg(long)]
        lead: PathBuf,
    },
    /// Sign a charter's file as its lead: beside it, as .json. Sites accept that, each under terms of its own.
    Sign {
        /// The file.
        file: PathBuf,
        /// The lead's secret key.
        #[arg(long)]
        key: PathBuf,
    },
    /// What a signed charter says, for a committee to read.
    Show {
        /// The signed charter.
        file: PathBuf,
    },
}

impl Charter {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::New { file, project, lead } => {
                if file.exists() {
                    return Err(Failure::input("charter-exists", format!("{} is there already", file.display())));
                }
                write(&file, charter::template(&project, public_key(&lead)?))?;
                print(json, &json!({ "file": file }), &format!("fill in {}, then sign it", file.display()));
                Ok(())
            }
            Self::Sign { file, key } => {
                let terms = CharterFile::parse(&read(&file)?)
                    .and_then(CharterFile::charter)
                    .map_err(|error| Failure::input("charter-file", format!("{}: {error:#}", file.display())))?;
                let envelope = terms.sign(&secret_key(&key)?);
                let envelope = envelope.map_err(|error| coded(error.code(), format!("{}: {error}", file.display())))?;
                let out = file.with_extension("json");
                write(&out, &envelope)?;
                let digest = signed(&out)?.digest();
                print(json, &json!({ "file": out, "charter": digest }), &format!("{digest}\nsigned: {}", out.display()));
                Ok(())
            }
            Self::Show { file } => {
                let signed = signed(&file)?;
                let document = json!({ "charter": signed.charter(), "digest": signed.digest() });
                print(json, &document, &page(&signed));
                Ok(())
            }
        }
    }
}

fn print(json: bool, document: &serde_json::Value, text: &str) {
    println!("{}", if json { document.to_string() } else { text.to_owned() });
}

fn signed(file: &Path) -> Result<SignedCharter> {
    SignedCharter::verify(&read_bytes(file)?).map_err(|error| coded(error.code(), format!("{}: {error}", file.display())))
}

/// What a committee reads.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn page(signed: &SignedCharter) -> String {
    let Terms { project, title, summary, purpose, lead, members, sites, datasets, .. } = signed.charter();
    let charter = signed.charter();
    let list = |words: Vec<String>| words.join(", ");
    // No line of the lead's passes for one of the page's.
    let lines = |text: &str| text.trim().lines().map(line).collect::<Vec<_>>().join("\n              │ ");
    let words = |all: &str, range: Option<Vec<String>>| range.map_or_else(|| all.to_owned(), list);
    let columns = match &charter.columns {
        Range::Any => None,
        Range::Only(these) => Some(these.iter().map(ToString::to_string).collect()),
    };
    let catalogues = match &charter.catalogues {
        Range::Any => None,
        Range::Only(these) => Some(these.iter().map(ToString::to_string).collect()),
    };
    let components = match &charter.components {
        Range::Any => None,
        Range::Only(these) => Some(these.iter().map(ToString::to_string).collect()),
    };
    let kind = [
        ("commercial", purpose.commercial),
        ("methods development only", purpose.methods_only),
        ("for the care of patients", purpose.clinical_care),
    ];
    let kind = kind.iter().filter(|(_, holds)| *holds).map(|(word, _)| (*word).to_owned());
    let (epsilon, delta) = (charter.epsilon_micro as f64 / 1e6, charter.delta_femto as f64 / 1e15);
    let fields = [
        ("Project", format!("{project}: {}", line(title))),
        ("Summary", lines(summary)),
        ("Purpose", list([purpose.research.clone()].into_iter().chain(purpose.disease.clone()).chain(kind).collect())),
        ("Lead", lead.to_string()),
        ("Members", list(members.iter().map(ToString::to_string).collect())),
        ("Sites", list(sites.iter().map(ToString::to_string).collect())),
        ("Datasets", list(datasets.iter().map(ToString::to_string).collect())),
        ("Columns", words("all of the datasets'", columns)),
        ("Catalogues", words("all of the datasets'", catalogues)),
        ("Components", words("any: the gate holds whatever they do", components)),
        ("Privacy", format!("epsilon {epsilon} and delta {delta:e} for all its jobs together, per individual, at each site")),
        ("From, until", format!("{} to {}", charter.not_before, charter.not_after)),
        ("Outputs", lines(&charter.outputs)),
        ("Funding", lines(&charter.funding)),
        (
            "Ethics",
            charter.ethics.as_ref().map_or_else(|| "no reference is given".to_owned(), |ethics| line(ethics).into_owned()),
        ),
        ("Digest", signed.digest().to_string()),
    ];
    fields.map(|(name, text)| format!("{name:<13} {text}")).join("\n")
}
