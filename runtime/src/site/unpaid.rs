//! What a researcher's offers take of this site's time without paying for it: places, and a limit for
//! each day.
//!
//! *In*: admitted terms, seconds that public calls took. *Out*: places to wait for, or a refusal.

use std::time::Duration;

use vestibule_protocol::message::Answer;
use vestibule_protocol::name::Name;
use vestibule_worker::Places;

use super::{Site, own, refusal};
use crate::policy::Admitted;

impl Site {
    /// Places among the offers whose public calls run.
    pub(crate) const fn public(&self) -> &Places<Name> {
        &self.public
    }

    /// Places among the rounds that are prepared: each has a worker, and its state in memory.
    pub(crate) const fn ahead(&self) -> &Places<Name> {
        &self.ahead
    }

    /// Places among the rounds that run.
    pub(crate) const fn running(&self) -> &Places<Name> {
        &self.running
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
