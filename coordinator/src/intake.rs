//! Intake: whatever can be checked of a job before any site is asked, so that mistakes cost nothing.
//!
//! *In*: a signed manifest, the registered researchers, what the sites say they have; then the plan of its component, which nobody is asked for
//! before all else was checked. *Out*: the terms and the public [`Shape`] of what the job reads. *Trusts*: the database. *Refuses*: with a code, a sentence, and what to do. No site relies on any
//! of this: each checks again, against keys that it has accepted itself.

use std::sync::Arc;

use vestibule_protocol::catalogue::Catalogue;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::{Manifest, ManifestError, Signed};
use vestibule_protocol::message::{DatasetCard, SiteCard};
use vestibule_protocol::name::Name;
use vestibule_protocol::round::Plan;
use vestibule_protocol::shape::{self, ShapeError};
use vestibule_sandbox::Shape;

use crate::analyses::CallError;
use crate::documents::Documents;
use crate::store::NewJob;

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Somebody else's manifest.
    #[error("the manifest was signed by another key than the call: only the one who signed a job may submit it")]
    Signer,
    /// The component is not here.
    #[error("the component {0} is not here: upload it first")]
    ComponentMissing(String),
    /// The component's size.
    #[error("the component has another size than the manifest says")]
    ComponentSize,
    /// The component cannot be run, or `plan` refused, trapped or took too long.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The plan names what is not there.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A site that nobody knows.
    #[error("there is no site `{site}`; there are: {known}")]
    Site {
        /// What was named.
        site: Name,
        /// What there is.
        known: String,
    },
    /// A site without the dataset.
    #[error("site `{site}` has no dataset `{dataset}`")]
    Dataset {
        /// The site.
        site: Name,
        /// The dataset.
        dataset: Name,
    },
    /// A site with another dictionary or catalogue.
    #[error("site `{site}`: its {what} is another version than the manifest names")]
    Version {
        /// The site.
        site: Name,
        /// What differs.
        what: String,
    },
    /// A project that none of the named sites takes part in.
    #[error("none of the named sites has accepted the charter that the manifest names")]
    Charter,
    /// No site has shown its documents yet.
    #[error("none of the named sites has connected yet, so the job's columns cannot be checked: try again when one has")]
    Unknown,
    /// The plan reads a catalogue that was not signed for.
    #[error("the plan reads catalogue `{0}`, which the manifest does not name")]
    CatalogueNotNamed(String),
}

impl IntakeError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Manifest(error) => error.code(),
            Self::Signer => "submit-not-signer",
            Self::ComponentMissing(_) => "component-missing",
            Self::ComponentSize => "component-size",
            Self::Call(error) => error.code(),
            Self::Shape(error) => error.code(),
            Self::Site { .. } => "site-unknown",
            Self::Dataset { .. } => "dataset-unknown",
            Self::Version { .. } => "version-differs",
            Self::Charter => "charter-not-accepted",
            Self::Unknown => "sites-not-connected",
            Self::CatalogueNotNamed(_) => "catalogue-not-named",
        }
    }
}

/// A job that can be driven.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its signed terms.
    pub signed: Signed,
    /// What it reads.
    pub plan: Plan,
    /// How many variants that is.
    pub variants: usize,
}

impl Ready {
    /// The job to be kept, of an envelope that came at `now`.
    #[must_use]
    pub fn kept(self, envelope: Vec<u8>, now: i64) -> NewJob {
        let (manifest, budget) = (self.signed.manifest(), self.signed.budget());
        let catalogues = manifest.catalogues.iter().map(|catalogue| catalogue.sha256);
        NewJob {
            id: manifest.job,
            envelope,
            manifest: self.signed.digest(),
            owner: self.signed.signer(),
            submitted: now,
            title: manifest.title.to_string(),
            epsilon: budget.epsilon(),
            delta: budget.delta(),
            sites: manifest.sites.clone(),
            documents: [manifest.component.sha256, manifest.dictionary].into_iter().chain(catalogues).collect(),
            plan: self.plan,
        }
    }
}

/// What intake looks at.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Components, dictionaries, catalogues.
    pub documents: &'a Documents,
    /// Registered researchers' keys.
    pub researchers: &'a [PublicKey],
    /// Sites, with what each last said it has.
    pub sites: &'a [(Name, Option<SiteCard>)],
}

impl Desk<'_> {
    /// The terms of a job that was submitted at `now` with a key, and all of them that can be checked without its component.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn terms(&self, envelope: &[u8], by: PublicKey, now: i64) -> Result<Signed, IntakeError> {
        let signed = Signed::verify(envelope, self.researchers)?;
        if signed.signer() != by {
            return Err(IntakeError::Signer);
        }
        signed.valid_at(now)?;
        let manifest = signed.manifest();
        self.check_sites(manifest)?;
        let catalogues = manifest.catalogues.iter().map(|catalogue| catalogue.sha256);
        if !std::iter::once(manifest.dictionary).chain(catalogues).all(|digest| self.documents.has(digest)) {
            return Err(IntakeError::Unknown);
        }
        self.check_charter(manifest)?;
        Ok(signed)
    }

    /// The component that a job's terms name.
    ///
    /// # Errors
    /// It is not here, or is another.
    pub fn component(&self, manifest: &Manifest) -> Result<Arc<[u8]>, IntakeError> {
        let component = self.documents.get(manifest.component.sha256);
        let component = component.ok_or_else(|| IntakeError::ComponentMissing(manifest.component.sha256.to_string()))?;
        if component.len() as u64 != manifest.component.bytes {
            return Err(IntakeError::ComponentSize);
        }
        Ok(component.into())
    }

    /// Everything that is needed to drive a job, from its terms and its component's plan: also used after a restart.
    ///
    /// # Errors
    /// The plan, or the documents.
    pub fn ready(&self, signed: Signed, plan: Plan) -> Result<Ready, IntakeError> {
        let variants = self.shape(signed.manifest(), &plan)?.variants.len();
        Ok(Ready { signed, plan, variants })
    }

    /// The public shape of what a plan reads.
    ///
    /// # Errors
    /// The plan, or the documents.
    pub fn shape(&self, manifest: &Manifest, plan: &Plan) -> Result<Arc<Shape>, IntakeError> {
        let dictionary = self.documents.dictionary(manifest.dictionary).ok_or(IntakeError::Unknown)?;
        let named = |name: &str| manifest.catalogues.iter().any(|catalogue| catalogue.name.as_str() == name);
        let catalogues: Vec<Arc<Catalogue>> =
            manifest.catalogues.iter().filter_map(|catalogue| self.documents.catalogue(catalogue.sha256)).collect();
        if catalogues.len() != manifest.catalogues.len() {
            return Err(IntakeError::Unknown);
        }
        if let Some(slice) = plan.variants.iter().find(|slice| !named(&slice.catalogue)) {
            return Err(IntakeError::CatalogueNotNamed(slice.catalogue.clone()));
        }
        let (variants, columns) = shape::resolve(&dictionary, &catalogues, &plan.columns, &plan.variants)?;
        Ok(Arc::new(Shape { variants, columns }))
    }

    /// At least one of the named sites takes part in the project, or has not said yet in which it does.
    fn check_charter(&self, manifest: &Manifest) -> Result<(), IntakeError> {
        let named = self.sites.iter().filter(|(name, _)| manifest.sites.contains(name));
        let takes_part = |card: &Option<SiteCard>| card.as_ref().is_none_or(|card| card.charters.contains(&manifest.charter));
        if named.map(|(_, card)| card).any(takes_part) { Ok(()) } else { Err(IntakeError::Charter) }
    }

    /// The named sites exist, and those that have said what they have, have it.
    fn check_sites(&self, manifest: &Manifest) -> Result<(), IntakeError> {
        for site in &manifest.sites {
            let Some((_, card)) = self.sites.iter().find(|(name, _)| name == site) else {
                let known: Vec<&str> = self.sites.iter().map(|(name, _)| name.as_str()).collect();
                return Err(IntakeError::Site { site: site.clone(), known: known.join(", ") });
            };
            let Some(card) = card else { continue };
            let dataset = card.datasets.iter().find(|dataset| dataset.name == manifest.dataset);
            let dataset =
                dataset.ok_or_else(|| IntakeError::Dataset { site: site.clone(), dataset: manifest.dataset.clone() })?;
            check_versions(manifest, dataset).map_err(|what| IntakeError::Version { site: site.clone(), what })?;
        }
        Ok(())
    }
}

fn check_versions(manifest: &Manifest, dataset: &DatasetCard) -> Result<(), String> {
    if dataset.dictionary != manifest.dictionary {
        return Err("dictionary".to_owned());
    }
    for wanted in &manifest.catalogues {
        let same = |ours: &vestibule_protocol::message::CatalogueCard| ours.name == wanted.name && ours.digest == wanted.sha256;
        if !dataset.catalogues.iter().any(same) {
            return Err(format!("catalogue `{}`", wanted.name));
        }
    }
    Ok(())
}
