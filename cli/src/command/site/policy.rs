//! `vestibule site policy`: the rules by which a site admits, holds and refuses.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;
use vestibule_protocol::dsse;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::words::line;
use vestibule_runtime::policy;
use vestibule_runtime::policy::rules::{Document, Officers, Outcome, Rules, SCHEMA};
use vestibule_runtime::policy::signed::{self, POLICY_TYPE};

use super::{home, open, print, recorded, since_1970};
use crate::failure::{Failure, coded};
use crate::files::{public_key, read, read_bytes, secret_key, write};

const FILE: &str = "policy.toml";
const RULES: &str = "rules.cedar";
const FACTS: &str = "facts.cedarschema";
const SIGNED: &str = "policy.json";

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Begin a change: FOLDER with the rules that hold now (rules.cedar), what they can speak of (facts.cedarschema), and who signs (policy.toml).
    New {
        /// The site's folder.
        dir: PathBuf,
        /// A new folder.
        folder: PathBuf,
        /// The officers' public keys: two at least. Without any, those of the policy that holds.
        #[arg(long = "officer")]
        officers: Vec<PathBuf>,
    },
    /// Check a change, and sign it as one of its officers: FOLDER/policy.json. A file that is signed already gets one more signature.
    Sign {
        /// The folder.
        folder: PathBuf,
        /// Your secret key.
        #[arg(long)]
        key: PathBuf,
    },
    /// Let a policy hold that enough officers signed: its own, and those of the policy before. It is logged, and holds at once.
    Set {
        /// The site's folder.
        dir: PathBuf,
        /// The signed policy.
        policy: PathBuf,
    },
    /// The policy that holds.
    Show {
        /// The site's folder.
        dir: PathBuf,
    },
    /// What the rules decide about a job, by which rules and from which facts. Without a manifest: whether the rules that hold can be used.
    Check {
        /// The site's folder.
        dir: PathBuf,
        /// A signed manifest, such as `vestibule job manifest` fetches.
        #[arg(long)]
        manifest: Option<PathBuf>,
        /// Its component, where the site does not have it yet.
        #[arg(long)]
        component: Option<PathBuf>,
        /// Rules that were not signed yet, in place of those that hold: the folder of `vestibule site policy new`. Only checked.
        #[arg(long, conflicts_with = "manifest")]
        folder: Option<PathBuf>,
    },
}

/// What `policy.toml` holds: all of a document but its rules.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    site: vestibule_protocol::name::Name,
    version: u64,
    threshold: u32,
    officers: Vec<PublicKey>,
    #[serde(default)]
    reviewers: std::collections::BTreeSet<vestibule_protocol::name::Name>,
    #[serde(default)]
    diseases: std::collections::BTreeMap<String, std::collections::BTreeSet<String>>,
    #[serde(default)]
    regions: std::collections::BTreeMap<String, std::collections::BTreeSet<String>>,
}

fn document(folder: &Path) -> Result<Document> {
    let path = folder.join(FILE);
    let File { site, version, threshold, officers: keys, reviewers, diseases, regions } = toml::from_str(&read(&path)?)
        .map_err(|error| Failure::input("policy-malformed", format!("{}: {error}", path.display())))?;
    let rules = read(&folder.join(RULES))?;
    Ok(Document { site, version, officers: Officers { threshold, keys }, reviewers, diseases, regions, rules })
}

/// The rules that hold at a site.
fn holding(dir: &Path) -> Result<Rules> {
    let site = open(dir)?;
    let ledger = site.ledger().map_err(home)?;
    policy::holding(&site, &ledger, &site.coordinator().map_err(home)?.site).map_err(home)
}

impl Policy {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        match self {
            Self::New { dir, folder, officers } => {
                if folder.join(FILE).exists() {
                    return Err(Failure::input("policy-exists", format!("{} is there already", folder.join(FILE).display())));
                }
                let Document { site, version, officers: before, reviewers, diseases, regions, rules } =
                    holding(&dir)?.document().clone();
                let keys = officers.iter().map(|path| public_key(path)).collect::<Result<Vec<_>>>()?;
                let officers = if keys.is_empty() { before.keys } else { keys };
                let version = version.saturating_add(1);
                let file = File { site, version, threshold: before.threshold, officers, reviewers, diseases, regions };
                std::fs::create_dir_all(&folder)
                    .map_err(|error| Failure::input("file-unwritable", format!("{}: {error}", folder.display())))?;
                write(&folder.join(FILE), toml::to_string(&file)?)?;
                write(&folder.join(RULES), rules)?;
                write(&folder.join(FACTS), SCHEMA)?;
                let text = format!(
                    "edit {} and {}, check them, and have them signed",
                    folder.join(RULES).display(),
                    folder.join(FILE).display()
                );
                print(json, &json!({ "folder": folder, "version": version }), &text);
                Ok(())
            }
            Self::Sign { folder, key } => {
                let (document, key, path) = (document(&folder)?, secret_key(&key)?, folder.join(SIGNED));
                let fresh = signed::sign(&document, &key).map_err(|error| coded(error.code(), error))?;
                // Another's signature counts if it is over the same bytes.
                let envelope = match path.exists().then(|| read_bytes(&path)).transpose()? {
                    Some(known) if dsse::payload(&known, POLICY_TYPE).is_ok_and(|payload| payload == document.payload()) => {
                        dsse::add_signature(&known, POLICY_TYPE, &key).map_err(|error| coded(error.code(), error))?
                    }
                    _ => fresh,
                };
                write(&path, &envelope)?;
                let by = dsse::signers(&envelope, POLICY_TYPE, &document.officers.keys)
                    .map_err(|error| coded(error.code(), error))?;
                let text = format!("signed by {} officers of its own; {} must", by.len(), document.officers.threshold);
                print(json, &json!({ "file": path, "signed_by": by, "policy": document.digest() }), &text);
                Ok(())
            }
            Self::Set { dir, policy: file } => {
                let site = recorded(&dir, "policy-set", json!({ "file": file }))?;
                let name = site.coordinator().map_err(home)?.site;
                let set = policy::set(&site, &read_bytes(&file)?, &name, since_1970()).map_err(home)?;
                let version = set.document().version;
                print(
                    json,
                    &json!({ "version": version, "policy": set.digest() }),
                    &format!("version {version} holds: {}", set.digest()),
                );
                Ok(())
            }
            Self::Show { dir } => {
                let rules = holding(&dir)?;
                let document = rules.document();
                let text = format!(
                    "version {}, {}\n{} of {} officers sign changes\n\n{}",
                    document.version,
                    rules.digest(),
                    document.officers.threshold,
                    document.officers.keys.len(),
                    document.rules
                );
                print(json, &json!({ "digest": rules.digest(), "policy": document }), &text);
                Ok(())
            }
            Self::Check { dir, manifest: None, folder, .. } => {
                let rules = match folder {
                    Some(folder) => Rules::of(document(&folder)?).map_err(|error| coded(error.code(), error))?,
                    None => holding(&dir)?,
                };
                let text =
                    format!("the rules of version {} validate, strictly and without a warning", rules.document().version);
                print(json, &json!({ "version": rules.document().version, "policy": rules.digest() }), &text);
                Ok(())
            }
            Self::Check { dir, manifest: Some(manifest), component, .. } => check(&dir, &manifest, component.as_deref(), json),
        }
    }
}

fn check(dir: &Path, manifest: &Path, component: Option<&Path>, json: bool) -> Result<()> {
    let site = open(dir)?;
    let component = component.map(read_bytes).transpose()?;
    let explained = vestibule_runtime::site::explain(&site, &read_bytes(manifest)?, component, since_1970())
        .map_err(|(code, why)| coded(code, why))?;
    let (decision, about) = (&explained.decision, &explained.about);
    let said = match (decision.outcome, explained.word) {
        (Outcome::Admit, _) => "admits it at once",
        (Outcome::Hold, None) => "holds it for a person",
        (Outcome::Hold, Some(true)) => "would hold it, and a person has approved it",
        (Outcome::Hold, Some(false)) => "would hold it, and a person has denied it",
        (Outcome::Refuse, _) => "refuses it",
    };
    let mut lines = vec![format!("the site {said}")];
    lines.extend(decision.rules.iter().map(|rule| format!("  by {}: {}", line(&rule.id), line(&rule.why))));
    if decision.rules.is_empty() {
        lines.push(format!("  {}", decision.why()));
    }
    lines.extend(decision.errors.iter().map(|error| format!("  error: {}", line(error))));
    lines.push("from these facts:".to_owned());
    for (name, value) in about.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "keys" | "rules"))
    {
        lines.push(format!("  {name:18} {value}"));
    }
    let document = json!({ "outcome": decision.outcome, "rules": decision.rules, "errors": decision.errors, "facts": about, "decided": explained.word });
    print(json, &document, &lines.join("\n"));
    Ok(())
}
