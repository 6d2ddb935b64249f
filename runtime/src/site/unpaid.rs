//! What a researcher's offers take of this site's time without paying for it: places, and a limit for
//! each day.
//!
//! *In*: admitted terms, seconds that public calls took. *Out*: places to wait for, or a refusal.

use std::time::{Duration, Instant};

use vestibule_protocol::message::Answer;
use vestibule_protocol::name::Name;
use vestibule_worker::{Place, Places, Running};

use super::{Site, own, refusal};
use crate::policy::Admitted;

/// A round's place. While it is held, what sees nobody's data rests: how long that takes would tell
/// when the round ended.
#[derive(Debug)]
pub(crate) struct RoundPlace {
    _rest: Running,
    _place: Place<Name>,
}

impl Site {
    /// Places among the offers whose public calls run.
    pub(crate) const fn public(&self) -> &Places<Name> {
        &self.public
    }

    /// Places among the rounds that are prepared: each has a worker, and its state in memory.
    pub(crate) const fn ahead(&self) -> &Places<Name> {
        &self.ahead
    }

    /// Waits for a place among the rounds that run. To be held until the round's moment has come.
    pub(crate) async fn round_place(&self, who: &Name) -> RoundPlace {
        let place = self.running.take(who).await;
        self.rest.turn().await;
        RoundPlace { _rest: self.rest.round(), _place: place }
    }

    /// Waits until the moments of all rounds that run now have come.
    pub(crate) async fn moments(&self) {
        self.running.given_back().await;
    }

    /// A clock that stands still while public calls rest: since [`Self::watch`].
    pub(crate) fn worked(&self, (begun, rested): (Instant, Duration)) -> Duration {
        begun.elapsed().saturating_sub(self.rest.rested().saturating_sub(rested))
    }

    /// Now, by that clock.
    pub(crate) fn watch(&self) -> (Instant, Duration) {
        (Instant::now(), self.rest.rested())
    }

    /// Whether a researcher's offers have cost so much here, within a day, that nothing was charged for, that no more of them is looked at now.
    pub(crate) fn worn(&self, admitted: &Admitted, clock: Duration) -> Option<Answer> {
        let verified = admitted.verified();
        let most = Duration::from_secs(self.home.settings().refused_seconds_per_day.into());
        let found =
            self.ledger.time(clock).and_then(|since| Ok((since, self.ledger.worn(verified.researcher(), most, since)?)));
        match found {
            Ok((_, None)) => None,
            Ok((since, Some(again))) => {
                let why = format!(
                    "jobs of this researcher took {} s of this site's time within a day without being charged, as many as they may: it can \
                     be asked again in {} minutes",
                    most.as_secs(),
                    again.saturating_sub(since).as_secs().div_ceil(60)
                );
                Some(self.refuse(verified, ("refused-work-exhausted", why).into(), since))
            }
            Err(error) => Some(refusal(own("ledger", &error))),
        }
    }

    /// Books what a researcher's offer took that nothing was charged for.
    pub(crate) fn unpaid(&self, researcher: &Name, spent: Duration, clock: Duration) {
        let booked = self.ledger.time(clock).and_then(|since| self.ledger.unpaid(researcher, spent, since));
        if let Err(error) = booked {
            tracing::error!(%error, "what a refused job took could not be booked");
        }
    }
}
