//! Charters that this site has countersigned: each with the site's own constraints, which can only be narrower.
//!
//! *In*: a charter that its lead signed, and [`Terms`] that this site alone decides. *Out*: [`Accepted`]; whether a job is one of its project's.
//! *Trusts*: the site's own folder. *Refuses*: jobs of others, at other times, on other data, by other components, for more than is left. That a
//! site accepts a charter is a leaf of its log, which is how it countersigns.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vestibule_protocol::charter::{CharterError, Purpose, SignedCharter};
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::Noise;
use vestibule_protocol::key::PublicKey;
use vestibule_protocol::manifest::Signed;
use vestibule_protocol::name::Name;
use vestibule_protocol::privacy::Rho;
use vestibule_protocol::release::Rounding;

/// What a site allows less than a charter asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Terms {
    /// 10^-6 epsilon that the project may spend here.
    pub epsilon_micro: Option<u64>,
    /// The only columns that it may read here.
    pub columns: Option<BTreeSet<Name>>,
    /// Whether a person looks at every release before it leaves.
    pub review: bool,
    /// Noised counts below this are released as 0.
    pub suppress_below: u32,
    /// Noised counts are released as multiples of this.
    pub round_to: u32,
}

impl Terms {
    /// What is made of noised counts before they leave, if anything is.
    #[must_use]
    pub fn rounding(&self) -> Option<Rounding> {
        let Self { suppress_below, round_to, .. } = *self;
        Some(Rounding { suppress_below, round_to }).filter(Rounding::is_any)
    }
}

/// A charter that this site takes part in.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    signed: SignedCharter,
    terms: Terms,
    cap: Rho,
}

/// Why a job is not one of its charter's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CharterRefusal {
    /// Nobody here has accepted it.
    #[error("this site has not accepted the charter {0} that the manifest names")]
    Unknown(Digest),
    /// Another site's.
    #[error("the charter does not name this site")]
    Site,
    /// Another researcher.
    #[error("the researcher is not a member of the charter's project")]
    Member,
    /// Too early, or too late.
    #[error("the charter is valid from {0} to {1}, which does not hold now")]
    Time(String, String),
    /// Another dataset.
    #[error("the charter does not name the dataset `{0}`")]
    Dataset(Name),
    /// Another catalogue.
    #[error("the charter does not name the catalogue `{0}`")]
    Catalogue(Name),
    /// A component that nobody looked at.
    #[error("the charter does not name the component {0}")]
    Component(Digest),
    /// A column that is not part of it.
    #[error("column `{0}` is not one that the charter, and this site, let its project read")]
    Column(String),
}

impl CharterRefusal {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "charter-unknown",
            Self::Site => "charter-other-sites",
            Self::Member => "charter-not-member",
            Self::Time(..) => "charter-expired",
            Self::Dataset(_) => "charter-dataset",
            Self::Catalogue(_) => "charter-catalogue",
            Self::Component(_) => "charter-component",
            Self::Column(_) => "charter-column",
        }
    }
}

impl Accepted {
    /// A charter under this site's terms.
    ///
    /// # Errors
    /// It is not a charter that its lead signed; the site's epsilon is no budget.
    pub fn new(envelope: &[u8], terms: Terms) -> Result<Self, CharterError> {
        let signed = SignedCharter::verify(envelope)?;
        let delta_femto = signed.charter().delta_femto;
        let own = terms.epsilon_micro.map(|epsilon_micro| {
            let noise = if delta_femto == 0 { Noise::Laplace } else { Noise::Gaussian };
            #[expect(clippy::cast_precision_loss, reason = "amounts that matter are far below 2^53")]
            let (epsilon, delta) = (epsilon_micro as f64 / 1e6, delta_femto as f64 / 1e15);
            vestibule_protocol::job::Budget::new(noise, epsilon, delta).map(|budget| budget.rho())
        });
        let cap = own.transpose()?.map_or(signed.rho(), |own| own.min(signed.rho()));
        Ok(Self { signed, terms, cap })
    }

    /// The charter.
    #[must_use]
    pub const fn signed(&self) -> &SignedCharter {
        &self.signed
    }

    /// This site's own terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// What its jobs together may spend here.
    #[must_use]
    pub const fn cap(&self) -> Rho {
        self.cap
    }

    /// Why its jobs are run.
    #[must_use]
    pub const fn purpose(&self) -> &Purpose {
        &self.signed.charter().purpose
    }

    /// Whether a job is one of this charter's, at `site` and `now` (seconds since 1970). `keys`: all that are its signer's, since a charter may name
    /// them by a former one.
    ///
    /// # Errors
    /// See [`CharterRefusal`].
    pub fn admits(&self, job: &Signed, keys: &[PublicKey], site: &Name, now: i64) -> Result<(), CharterRefusal> {
        let (charter, manifest) = (self.signed.charter(), job.manifest());
        if !charter.sites.contains(site) {
            return Err(CharterRefusal::Site);
        }
        if !keys.iter().any(|key| charter.members.contains(key)) {
            return Err(CharterRefusal::Member);
        }
        if !self.signed.is_valid_at(now) {
            return Err(CharterRefusal::Time(charter.not_before.clone(), charter.not_after.clone()));
        }
        if !charter.datasets.contains(&manifest.dataset) {
            return Err(CharterRefusal::Dataset(manifest.dataset.clone()));
        }
        if let Some(other) = manifest.catalogues.iter().find(|catalogue| !charter.catalogues.has(&catalogue.name)) {
            return Err(CharterRefusal::Catalogue(other.name.clone()));
        }
        if !charter.components.has(&manifest.component.sha256) {
            return Err(CharterRefusal::Component(manifest.component.sha256));
        }
        Ok(())
    }

    /// Whether these columns may be read under it.
    ///
    /// # Errors
    /// The first that may not.
    pub fn reads(&self, columns: &[String]) -> Result<(), CharterRefusal> {
        let (charter, own) = (&self.signed.charter().columns, self.terms.columns.as_ref());
        let may = |column: &Name| charter.has(column) && own.is_none_or(|columns| columns.contains(column));
        let other = columns.iter().find(|column| !column.parse::<Name>().is_ok_and(|column| may(&column)));
        other.map_or(Ok(()), |column| Err(CharterRefusal::Column(column.clone())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::admission::tests::{NOW, manifest, researcher};
    use vestibule_protocol::charter::{Charter, Range};
    use vestibule_protocol::key::SecretKey;
    use vestibule_protocol::manifest::{CatalogueRef, Manifest};

    pub(crate) fn charter() -> Charter {
        let lead = researcher().public();
        Charter {
            project: "lipids".parse().unwrap(),
            title: "lipids".parse().unwrap(),
            summary: "why".parse().unwrap(),
            purpose: Purpose {
                research: "DUO:0000037".into(),
                disease: None,
                commercial: false,
                methods_only: false,
                clinical_care: false,
            },
            lead,
            members: BTreeSet::from([lead]),
            sites: BTreeSet::from(["here".parse().unwrap()]),
            datasets: BTreeSet::from(["cohort".parse().unwrap(), "later".parse().unwrap()]),
            columns: Range::Any,
            catalogues: Range::Any,
            components: Range::Any,
            epsilon_micro: 50_000_000,
            delta_femto: 1_000_000_000,
            not_before: "2026-11-01T00:00:00Z".into(),
            not_after: "2027-11-01T00:00:00Z".into(),
            outputs: "o".parse().unwrap(),
            funding: "f".parse().unwrap(),
            ethics: None,
        }
    }

    pub(crate) fn accepted(charter: &Charter, terms: Terms) -> Accepted {
        Accepted::new(&charter.sign(&researcher()).unwrap(), terms).unwrap()
    }

    #[test]
    fn a_job_must_be_one_of_its_project() {
        let good = charter();
        let signed =
            |manifest: &Manifest, key: &SecretKey| Signed::verify(&manifest.sign(key).unwrap(), &[key.public()]).unwrap();
        let job = signed(&manifest(1), &researcher());
        let code = |charter: &Charter, job: &Signed, now: i64| {
            accepted(charter, Terms::default())
                .admits(job, &[job.signer()], &"here".parse().unwrap(), now)
                .map_err(|error| error.code())
        };
        assert_eq!(code(&good, &job, NOW), Ok(()));
        assert_eq!(code(&good, &job, NOW + 100_000_000), Err("charter-expired"));
        let stranger = signed(&manifest(1), &SecretKey::from_seed([7; 32]).unwrap());
        assert_eq!(code(&good, &stranger, NOW), Err("charter-not-member"));
        let other = |change: &dyn Fn(&mut Charter)| {
            let mut charter = good.clone();
            change(&mut charter);
            code(&charter, &job, NOW)
        };
        assert_eq!(other(&|c| c.sites = BTreeSet::from(["there".parse().unwrap()])), Err("charter-other-sites"));
        assert_eq!(other(&|c| c.datasets = BTreeSet::from(["others".parse().unwrap()])), Err("charter-dataset"));
        assert_eq!(other(&|c| c.components = Range::Only(BTreeSet::from([Digest::of(b"x")]))), Err("charter-component"));
        let catalogue = CatalogueRef { name: "panel".parse().unwrap(), sha256: Digest::of(b"") };
        let reading = signed(&Manifest { catalogues: vec![catalogue], ..manifest(1) }, &researcher());
        let narrow = Charter { catalogues: Range::Only(BTreeSet::new()), ..good.clone() };
        assert_eq!((code(&good, &reading, NOW), code(&narrow, &reading, NOW)), (Ok(()), Err("charter-catalogue")));
    }

    #[test]
    fn a_site_can_allow_less_and_never_more() {
        let columns = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let narrow =
            Charter { columns: Range::Only(BTreeSet::from(["age".parse().unwrap(), "sex".parse().unwrap()])), ..charter() };
        let whole = accepted(&narrow, Terms::default());
        assert_eq!(whole.reads(&columns(&["age", "sex"])), Ok(()));
        assert_eq!(whole.reads(&columns(&["age", "trait"])), Err(CharterRefusal::Column("trait".into())));
        let columns_here = Some(BTreeSet::from(["sex".parse().unwrap(), "trait".parse().unwrap()]));
        let here = accepted(&narrow, Terms { columns: columns_here, epsilon_micro: Some(2_000_000), ..Terms::default() });
        assert_eq!(here.reads(&columns(&["sex"])), Ok(()));
        assert_eq!(here.reads(&columns(&["age"])).unwrap_err().code(), "charter-column");
        assert_eq!(here.reads(&columns(&["trait"])).unwrap_err().code(), "charter-column");
        assert_eq!(here.cap(), Rho::budget(2.0, 1e-6));
        let small = Charter { epsilon_micro: 1_000_000, ..charter() };
        assert_eq!(
            accepted(&small, Terms { epsilon_micro: Some(2_000_000), ..Terms::default() }).cap(),
            Rho::budget(1.0, 1e-6)
        );
    }
}
