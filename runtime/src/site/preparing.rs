//! Step 7, what of it is public: a component becomes a plan, and its round's state is baked in. It sees nobody's data and is charged nothing, so it
//! runs before a round has its place, and beside the rounds of others.
//!
//! *In*: admitted terms, whose component is here. *Out*: [`Planned`], then [`Prepared`]: a round that could be charged and run. *Trusts*: nothing
//! of the guest; a call of it that takes too long is ended. *Refuses*: plans that the charter, the manifest or the dataset does not allow; releases that
//! would leave too late; what the rules refuse. What may change while a prepared round waits is asked again before it is charged ([`Site::charge`]).

use std::time::Duration;

use vestibule_protocol::calibration::{Calibrated, calibrate};
use vestibule_protocol::job::Spend;
use vestibule_protocol::round::Plan;

use super::late::{late, slow};
use super::{Answer, Held, Refused, Site, own, refusal};
use crate::cohort::Floor;
use crate::component::ComponentError;
use crate::dataset::{Dataset, Selection};
use crate::delay::{Delay, Load};
use crate::executor::{Ask, ExecutorError};
use crate::guests::{self, GuestsError, Loaded};
use crate::partitions::Partitions;
use crate::policy::Admitted;

/// What becomes of an offer in a step that is public.
pub(crate) enum Public<T> {
    /// It goes on.
    Goes(Box<T>),
    /// A person looks at it first.
    Held(Held),
    /// It was refused.
    Refused(Answer),
}

/// An offer whose plan is known, with the worker that said it.
pub(crate) struct Planned {
    admitted: Admitted,
    loaded: Loaded,
    asked: Asked,
}

/// An offer whose round could be run at once.
pub(crate) struct Prepared {
    pub(super) guests: guests::Prepared,
    pub(super) asked: Asked,
    pub(super) load: Load,
    pub(super) delay: Delay,
}

/// What a round reads, and what follows from that: public all.
pub(super) struct Asked {
    pub(super) plan: Plan,
    pub(super) dataset: Dataset,
    pub(super) selection: Selection,
    /// Variants that the plan names, of which the round may show none.
    pub(super) variants: usize,
    pub(super) partitions: Partitions,
    pub(super) calibrated: Vec<Calibrated>,
    pub(super) floor: Option<Floor>,
    /// What is left for the moment of the release.
    moment: Spend,
}

fn guest(error: GuestsError) -> Refused {
    (error.code(), error).into()
}

impl Site {
    /// The plan of admitted terms, and what the rules say to it. Blocks.
    pub(crate) fn plan(&self, admitted: Admitted, clock: Duration) -> Public<Planned> {
        self.step(admitted, clock, Self::planned)
    }

    /// Bakes the round's state into the component. Blocks.
    pub(crate) fn prepare(&self, planned: Planned, clock: Duration) -> Public<Prepared> {
        let Planned { admitted, loaded, asked } = planned;
        self.step(admitted, clock, |site, admitted, _| {
            let (verified, limits) = (admitted.verified(), admitted.limits());
            let (round, manifest) = (verified.round(), verified.signed().manifest());
            let Asked { dataset, selection, partitions, calibrated, moment, .. } = &asked;
            let (partitions, costs) = (*partitions, site.costs);
            let patience = site.home.settings().slowest.patience(costs);
            let guests = loaded.prepare(round, limits, selection, partitions, patience).map_err(guest)?;
            let load = guests.load();
            let delay = Delay::of(round, *moment, load, costs);
            let latest = site.latest(&delay);
            if let Some(why) = slow(latest, site.home.settings().max_release_delay_seconds) {
                return Err(("release-too-slow", why).into());
            }
            if let Some(why) = late(latest, Duration::ZERO, manifest) {
                return Err(("release-too-late", why).into());
            }
            let ask = Ask { rows: dataset, selection, partitions, calibrated, load, costs, delay };
            site.executor.check(&ask).map_err(|error| match error {
                ExecutorError::TooLong { .. } | ExecutorError::TooLarge { .. } => (error.code(), error).into(),
                error => own("executor", &error),
            })?;
            Ok(Public::Goes(Box::new(Prepared { guests, asked, load, delay })))
        })
    }

    fn step<T>(
        &self,
        admitted: Admitted,
        clock: Duration,
        step: impl FnOnce(&Self, Admitted, Duration) -> Result<Public<T>, Refused>,
    ) -> Public<T> {
        let verified = admitted.verified().clone();
        let since = match self.ledger.time(clock) {
            Ok(since) => since,
            Err(error) => return Public::Refused(refusal(own("ledger", &error))),
        };
        step(self, admitted, since).unwrap_or_else(|refused| Public::Refused(self.refuse(&verified, refused, since)))
    }

    fn planned(&self, admitted: Admitted, since: Duration) -> Result<Public<Planned>, Refused> {
        let wanted = admitted.verified().signed().manifest().component;
        let component = self.components.get(wanted).and_then(|found| found.ok_or(ComponentError::Digest));
        let component = component.map_err(|error| Refused::from((error.code(), error)))?;
        let mut loaded = self.guests.load(&component).map_err(guest)?;
        let params = &admitted.verified().signed().manifest().params;
        let plan = loaded.plan(params, admitted.limits()).map_err(guest)?;
        let asked = self.asked(&admitted, plan)?;
        match self.judge(admitted.verified(), (&asked.plan, asked.variants), asked.dataset.info(), since)? {
            (_, Some(held)) => Ok(Public::Held(held)),
            (_, None) => Ok(Public::Goes(Box::new(Planned { admitted, loaded, asked }))),
        }
    }

    /// What a plan's round reads of the dataset that serves now.
    fn asked(&self, admitted: &Admitted, plan: Plan) -> Result<Asked, Refused> {
        let verified = admitted.verified();
        let (manifest, round, signed) = (verified.signed().manifest(), verified.round(), verified.signed());
        if verified.index() >= plan.max_rounds {
            return Err(("round-beyond-plan", "the analysis' own plan has fewer rounds").into());
        }
        verified.charter().reads(&plan.columns).map_err(|error| Refused::from((error.code(), error)))?;
        let named = |name: &str| manifest.catalogues.iter().any(|catalogue| catalogue.name.as_str() == name);
        if let Some(slice) = plan.variants.iter().find(|slice| !named(&slice.catalogue)) {
            let why = format!("the plan reads catalogue `{}`, which the manifest does not name", slice.catalogue);
            return Err(("catalogue-not-named", why).into());
        }
        let data = self.home.data().map_err(|error| own("data", &error))?;
        let dataset = Dataset::open(&data, &manifest.dataset, &self.home.store_key());
        let dataset = dataset.map_err(|error| own("dataset", &error))?;
        let selection = dataset.select(&plan.columns, &plan.variants).map_err(|error| Refused::from((error.code(), error)))?;
        let variants = selection.variants();
        round.fits(variants, plan.partitioning).map_err(|error| Refused::from((error.code(), error)))?;
        let selection = selection.of(round);
        let partitions = Partitions::of(plan.partitioning, dataset.info().approximate_size);
        let budget = signed.budget().round(round.share_ppb());
        let calibrated = calibrate(round, plan.partitioning, budget).map_err(|error| Refused::from((error.code(), error)))?;
        let budget = signed.budget().round(round.share_ppb());
        let floor = Floor::of(dataset.info().conditions.min_cohort, plan.partitioning, budget.time());
        let (floor, moment) = floor.map_err(|error| Refused::from((error.code(), error)))?;
        Ok(Asked { plan, dataset, selection, variants, partitions, calibrated, floor, moment })
    }
}
