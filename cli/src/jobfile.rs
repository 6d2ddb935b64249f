//! `JOB.toml`, as a researcher writes it, and the manifest that it becomes.
//!
//! *In*: the file, the component, and what the sites say they hold. *Out*: a [`Manifest`] to be signed: sites by name, documents by
//! digest, amounts in whole numbers. *Refuses*: unknown keys, by line; sites that disagree about a document; amounts that are
//! no budget.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use vestibule_coordinator::api::types::{Dataset, Site};
use vestibule_protocol::charter::SignedCharter;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{JobId, Limits, Noise};
use vestibule_protocol::manifest::{CatalogueRef, ComponentRef, Manifest};
use vestibule_protocol::name::Name;
use vestibule_protocol::round::Plan;
use vestibule_protocol::words::Topic;

use crate::compiled;
use crate::failure::{Failure, coded};
use crate::files::{random, read, read_bytes};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobFile {
    analysis: PathBuf,
    charter: PathBuf,
    #[serde(default)]
    title: Topic,
    dataset: Name,
    epsilon: f64,
    #[serde(default)]
    delta: f64,
    #[serde(default)]
    noise: Noise,
    sites: Vec<String>,
    min_sites: u32,
    #[serde(default = "ten_minutes")]
    round_deadline_seconds: u32,
    #[serde(default)]
    params: toml::Table,
    #[serde(default)]
    limits: Limits,
}

const fn ten_minutes() -> u32 {
    600
}

/// A job file with its component.
#[derive(Debug)]
pub(crate) struct Job {
    file: JobFile,
    pub(crate) component: Vec<u8>,
    charter: Digest,
    params: String,
}

impl Job {
    /// Reads a job file and the component that it names.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = read(path)?;
        let file: JobFile =
            toml::from_str(&text).map_err(|error| Failure::input("job-file", format!("{}: {error}", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let component = read_bytes(&folder.join(&file.analysis))?;
        let charter = SignedCharter::verify(&read_bytes(&folder.join(&file.charter))?)
            .map_err(|error| coded(error.code(), format!("{}: {error}", file.charter.display())))?
            .digest();
        let params = serde_json::to_string(&file.params)?;
        Ok(Self { file, component, charter, params })
    }

    /// The terms to sign, for the sites as they are now.
    pub(crate) fn manifest(&self, sites: &[Site]) -> Result<Manifest> {
        let plan = self.plan()?;
        let (names, dataset) = self.sites(sites)?;
        let catalogues = catalogues(&plan, dataset)?;
        let now = OffsetDateTime::now_utc();
        let instant = |at: OffsetDateTime| Ok::<_, anyhow::Error>(at.replace_nanosecond(0)?.format(&Rfc3339)?);
        let digest = Digest::of(&self.component);
        Ok(Manifest {
            job: JobId::from_bytes(random()?),
            charter: self.charter,
            title: self.file.title.clone(),
            component: ComponentRef { sha256: digest, bytes: self.component.len() as u64 },
            params: self.params.clone(),
            dataset: self.file.dataset.clone(),
            dictionary: dataset.dictionary.parse().map_err(|error| Failure::input("coordinator-answer", error))?,
            catalogues,
            noise: self.file.noise,
            epsilon_micro: whole("epsilon", self.file.epsilon * 1e6)?,
            delta_femto: whole("delta", self.file.delta * 1e15)?,
            sites: names,
            min_sites: self.file.min_sites,
            limits: self.file.limits,
            round_deadline_seconds: self.file.round_deadline_seconds,
            // Clocks differ a little.
            not_before: instant(now - Duration::minutes(5))?,
            not_after: instant(now + Duration::days(7))?,
        })
    }

    fn plan(&self) -> Result<Plan> {
        let analysis = compiled::sandbox(false)?.load(&self.component).map_err(|error| coded(error.code(), error))?;
        analysis.plan(&self.params, self.file.limits).map_err(|error| coded(error.code(), error))
    }

    /// The sites meant, and the dataset as all of them describe it.
    fn sites<'a>(&self, sites: &'a [Site]) -> Result<(Vec<Name>, &'a Dataset)> {
        let name = &self.file.dataset;
        let holds =
            |site: &'a Site| site.datasets.iter().find(|dataset| dataset.name == name.as_str()).map(|dataset| (site, dataset));
        let all: Vec<(&Site, &Dataset)> = sites.iter().filter_map(holds).collect();
        let chosen: Vec<(&Site, &Dataset)> = if self.file.sites == ["*"] {
            all
        } else {
            let wanted = |wanted: &String| {
                let known = || sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>().join(", ");
                let site = sites.iter().find(|site| site.name == *wanted);
                let site = site.ok_or_else(|| {
                    Failure::input("site-unknown", format!("`sites`: there is no site `{wanted}`; there are: {}", known()))
                })?;
                holds(site).ok_or_else(|| Failure::input("dataset-unknown", format!("site `{wanted}` has no dataset `{name}`")))
            };
            self.file.sites.iter().map(wanted).collect::<Result<_>>()?
        };
        let Some((first, dataset)) = chosen.first() else {
            return Err(Failure::input(
                "dataset-unknown",
                format!("no site has a dataset `{name}`, or none has connected yet"),
            ));
        };
        let differs = |dataset: &Dataset, other: &Dataset| dataset.dictionary != other.dictionary;
        if let Some((other, _)) = chosen.iter().find(|(_, other)| differs(dataset, other)) {
            let message = format!(
                "sites `{}` and `{}` hold `{name}` by different versions of its dictionary: name sites that agree",
                first.name, other.name
            );
            return Err(Failure::input("dictionary-differs", message));
        }
        let names = chosen.iter().map(|(site, _)| site.name.parse()).collect::<Result<_, _>>();
        Ok((names.map_err(|error: vestibule_protocol::name::NameError| Failure::input("coordinator-answer", error))?, dataset))
    }
}

/// The digests of the catalogues that the plan reads.
fn catalogues(plan: &Plan, dataset: &Dataset) -> Result<Vec<CatalogueRef>> {
    let mut found: Vec<CatalogueRef> = Vec::new();
    for slice in &plan.variants {
        if found.iter().any(|known| known.name.as_str() == slice.catalogue) {
            continue;
        }
        let catalogue = dataset.catalogues.iter().find(|catalogue| catalogue.name == slice.catalogue);
        let Some(catalogue) = catalogue else {
            let known: Vec<&str> = dataset.catalogues.iter().map(|catalogue| catalogue.name.as_str()).collect();
            let message = format!("there is no catalogue `{}`; the dataset has: {}", slice.catalogue, known.join(", "));
            return Err(Failure::input("catalogue-unknown", message));
        };
        let name = catalogue.name.parse().map_err(|error| Failure::input("coordinator-answer", error))?;
        let sha256 = catalogue.digest.parse().map_err(|error| Failure::input("coordinator-answer", error))?;
        found.push(CatalogueRef { name, sha256 });
    }
    Ok(found)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within 0..2^53")]
fn whole(what: &str, value: f64) -> Result<u64> {
    let rounded = value.round();
    if (0.0..9e15).contains(&rounded) {
        Ok(rounded as u64)
    } else {
        Err(Failure::input("job-file", format!("`{what}` must be a number from 0 on that is not absurdly large")))
    }
}
