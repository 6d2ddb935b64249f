//! Step 6: does this site take part? Here the floors of the decision, which hold whatever a site's own [`rules`] say of the [`facts`].
//!
//! *In*: [`Verified`] terms, the site's own settings, and the public description of the dataset they name. *Out*: [`Admitted`]:
//! the same, with the limits that will be used. *Trusts*: the step before. *Refuses*: a dataset, dictionary or catalogue that
//! is not ours, and amounts over the site's caps. The answer depends on public terms alone, never on data or on what was spent.

pub mod facts;
pub mod rules;
pub mod signed;

use std::time::Duration;

use vestibule_protocol::job::Limits;
use vestibule_protocol::name::Name;

use crate::admission::Verified;
use crate::dataset::DatasetInfo;
use crate::home::{Home, HomeError, Settings};
use crate::ledger::Ledger;

/// Terms that this site takes part in.
#[derive(Debug, Clone)]
pub struct Admitted {
    verified: Verified,
    limits: Limits,
    columns: Vec<String>,
    hold: Option<(String, serde_json::Value)>,
    late: Option<String>,
}

/// Why not.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No such dataset.
    #[error("this site has no dataset `{0}`")]
    Dataset(Name),
    /// Another dictionary.
    #[error("dataset `{0}` follows another version of the dictionary than the manifest names")]
    Dictionary(Name),
    /// Another catalogue.
    #[error("dataset `{dataset}` has no catalogue `{catalogue}` with the digest that the manifest names")]
    Catalogue {
        /// The dataset.
        dataset: Name,
        /// The catalogue.
        catalogue: Name,
    },
    /// Too much epsilon for one job.
    #[error("the job asks for epsilon {asked}: this site allows at most {cap} per job")]
    Epsilon {
        /// What is asked.
        asked: f64,
        /// What is allowed.
        cap: f64,
    },
    /// Too much delta for one job.
    #[error("the job asks for delta {asked}: this site allows at most {cap} per job")]
    Delta {
        /// What is asked.
        asked: f64,
        /// What is allowed.
        cap: f64,
    },
    /// Too much fuel.
    #[error("the job asks for {asked} fuel per partition: this site allows at most {cap}")]
    Fuel {
        /// What is asked.
        asked: u64,
        /// What is allowed.
        cap: u64,
    },
    /// Too much memory.
    #[error("the job asks for {asked} MiB per instance: this site allows at most {cap}")]
    Memory {
        /// What is asked.
        asked: u32,
        /// What is allowed.
        cap: u32,
    },
}

impl Refusal {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset-unknown",
            Self::Dictionary(_) => "dictionary-differs",
            Self::Catalogue { .. } => "catalogue-differs",
            Self::Epsilon { .. } => "epsilon-over-site-cap",
            Self::Delta { .. } => "delta-over-site-cap",
            Self::Fuel { .. } => "fuel-over-site-cap",
            Self::Memory { .. } => "memory-over-site-cap",
        }
    }
}

/// Decides. `dataset` is the public description of the dataset that the manifest names, if this site has it.
///
/// # Errors
/// See [`Refusal`].
pub fn decide(verified: Verified, settings: &Settings, dataset: Option<&DatasetInfo>) -> Result<Admitted, Refusal> {
    let manifest = verified.signed().manifest();
    let budget = verified.signed().budget();
    let name = &manifest.dataset;
    let info = dataset.ok_or_else(|| Refusal::Dataset(name.clone()))?;
    if info.dictionary.digest != manifest.dictionary {
        return Err(Refusal::Dictionary(name.clone()));
    }
    for wanted in &manifest.catalogues {
        if !info.catalogues.iter().any(|ours| ours.name == wanted.name && ours.digest == wanted.sha256) {
            return Err(Refusal::Catalogue { dataset: name.clone(), catalogue: wanted.name.clone() });
        }
    }
    if budget.epsilon() > settings.max_epsilon_per_job {
        return Err(Refusal::Epsilon { asked: budget.epsilon(), cap: settings.max_epsilon_per_job });
    }
    if budget.delta() > settings.max_delta_per_job {
        return Err(Refusal::Delta { asked: budget.delta(), cap: settings.max_delta_per_job });
    }
    let Limits { fuel_per_partition, memory_mib } = manifest.limits;
    if fuel_per_partition > settings.max_fuel_per_partition {
        return Err(Refusal::Fuel { asked: fuel_per_partition, cap: settings.max_fuel_per_partition });
    }
    if memory_mib > settings.max_memory_mib {
        return Err(Refusal::Memory { asked: memory_mib, cap: settings.max_memory_mib });
    }
    Ok(Admitted { limits: manifest.limits, verified, columns: vec![], hold: None, late: None })
}

/// The rules that hold at a site: those that the log says were set last, or the ones that ship.
///
/// # Errors
/// They are not in the site's folder, or are others.
pub fn holding(home: &Home, ledger: &Ledger, site: &Name) -> Result<rules::Rules, HomeError> {
    let Some((_, set)) = ledger.policy()? else { return Ok(rules::Rules::shipped(site.clone())) };
    let rules = signed::stored(&home.policy(set)?)?;
    if rules.digest() == set { Ok(rules) } else { Err(HomeError::PolicyDiffers(set)) }
}

/// Sets another policy, if it may take the place of the one that holds. Returns what holds from now on.
///
/// # Errors
/// [`signed::PolicyError`]; the folder cannot be written.
pub fn set(home: &Home, envelope: &[u8], site: &Name, since: Duration) -> Result<rules::Rules, HomeError> {
    let ledger = home.ledger()?;
    let now = holding(home, &ledger, site)?;
    let rules = signed::next(&now, envelope)?;
    // First the file, then the leaf: what the log says holds is there.
    home.keep_policy(rules.digest(), envelope)?;
    ledger.set_policy(rules.document().version, rules.digest(), since)?;
    Ok(rules)
}

impl Admitted {
    /// The verified terms.
    #[must_use]
    pub const fn verified(&self) -> &Verified {
        &self.verified
    }

    /// The columns that its plan reads, once that is known.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The same terms, with the columns that their plan reads.
    #[must_use]
    pub fn reading(self, columns: &[String]) -> Self {
        Self { columns: columns.to_vec(), ..self }
    }

    /// The same terms, where a person must look at a release before it leaves, also at one that was drawn for others: why, and what to tell them.
    #[must_use]
    pub fn holding(self, hold: Option<(String, serde_json::Value)>) -> Self {
        Self { hold, ..self }
    }

    /// The same terms, where a release could not leave in time any more: why. What was charged before runs all the same.
    #[must_use]
    pub fn late(self, late: Option<String>) -> Self {
        Self { late, ..self }
    }

    /// Why nothing may be charged for them, if that is so.
    #[must_use]
    pub fn too_late(&self) -> Option<&str> {
        self.late.as_deref()
    }

    /// Why a person must look at an answer that is there already, if one must.
    #[must_use]
    pub const fn hold(&self) -> Option<&(String, serde_json::Value)> {
        self.hold.as_ref()
    }

    /// The limits that will be used.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }
}

#[cfg(test)]
mod tests;
