//! An offer's public calls: before its round has a place, beside the rounds of others, each researcher with a fair share of the places.
//!
//! *In*: admitted terms. *Out*: a round that could be charged. *Trusts*: the steps. *Refuses*: what they refuse; a researcher whose jobs have taken a
//! day's share of the site's time without being charged. *Stops*: at any wait, when the coordinator no longer waits; a call that runs is run to
//! its end, counted, and its place is free then.
//!
//! What runs beside a round is slowed down by it, and so would tell when the round ended, before its
//! release's moment. So all of this rests from a round's start to its moment
//! ([`vestibule_worker::Rest`]): neither how long a call took, nor whether that was too long, follows
//! from a round. No answer leaves before the moments of the rounds that run now have passed; nor does a
//! round begin earlier, as it waits for the same places.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use vestibule_link::LinkError;
use vestibule_protocol::message::Answer;
use vestibule_protocol::name::Name;
use vestibule_worker::Place;

use super::serve::{blocking, since_1970};
use crate::policy::Admitted;
use crate::site::{Prepared, Public, Site};

/// Faults of this site, for which no researcher pays, and what was refused unseen.
const FREE: [&str; 3] = ["site-fault", "worker-start", "refused-work-exhausted"];

/// What an offer's calls took. It is booked, unless its round was charged or the site was at fault.
pub(super) struct Spent {
    site: Arc<Site>,
    who: Name,
    spent: Duration,
}

impl Spent {
    /// A round was charged for it.
    pub(super) fn paid(mut self) {
        self.spent = Duration::ZERO;
    }

    /// Refused, for what a researcher pays or not.
    pub(super) fn refused(self, answer: &Answer) {
        if matches!(answer, Answer::Refused { code, .. } if FREE.contains(&code.as_str())) {
            self.paid();
        }
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if self.spent.is_zero() {
            return;
        }
        let (site, who, spent) = (Arc::clone(&self.site), self.who.clone(), self.spent);
        // A daemon that has stopped considers nothing more.
        if let Ok(handle) = Handle::try_current() {
            drop(handle.spawn_blocking(move || site.unpaid(&who, spent, since_1970())));
        }
    }
}

/// A round that could be charged: what its calls took, and its place among those that are prepared.
pub(super) struct Standing {
    pub(super) prepared: Prepared,
    pub(super) spent: Spent,
    pub(super) ahead: Place<Name>,
}

/// Has an offer's public calls run, as far as they go. To be dropped when nobody waits for it any more.
pub(super) async fn prepare(site: &Arc<Site>, admitted: Admitted) -> Result<Public<Standing>, LinkError> {
    let made = made(site, admitted).await?;
    if !matches!(made, Public::Goes(_)) {
        site.moments().await;
    }
    Ok(made)
}

async fn made(site: &Arc<Site>, admitted: Admitted) -> Result<Public<Standing>, LinkError> {
    macro_rules! goes {
        ($called:expr) => {{
            let (said, spent, place) = $called.await?;
            match said {
                Public::Goes(goes) => (goes, spent, place),
                Public::Held(held) => return Ok(Public::Held(held)),
                Public::Refused(answer) => {
                    spent.refused(&answer);
                    return Ok(Public::Refused(answer));
                }
            }
        }};
    }
    let who = admitted.verified().researcher().clone();
    let planning = |place, spent| {
        let (at, admitted) = (Arc::clone(site), admitted.clone());
        called(place, spent, move || match at.worn(&admitted, since_1970()) {
            Some(refused) => Public::Refused(refused),
            None => at.plan(admitted, since_1970()),
        })
    };
    let spent = Spent { site: Arc::clone(site), who: who.clone(), spent: Duration::ZERO };
    let (mut planned, mut spent, mut place) = goes!(planning(site.public().take(&who).await, spent));
    let ahead = match site.ahead().try_take(&who) {
        Some(ahead) => ahead,
        None => {
            // One that waits has nothing but its terms: no worker, no data that may be others by then.
            drop((planned, place));
            let ahead = site.ahead().take(&who).await;
            (planned, spent, place) = goes!(planning(site.public().take(&who).await, spent));
            ahead
        }
    };
    let at = Arc::clone(site);
    let (prepared, spent, _) = goes!(called(place, spent, move || at.prepare(*planned, since_1970())));
    Ok(Public::Goes(Box::new(Standing { prepared: *prepared, spent, ahead })))
}

/// One call, to its end, no matter who still waits for what it says.
async fn called<T: Send + 'static>(
    place: Place<Name>,
    mut spent: Spent,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<(T, Spent, Place<Name>), LinkError> {
    let run = tokio::spawn(async move {
        let begun = spent.site.watch();
        let said = blocking(call).await;
        spent.spent = spent.spent.saturating_add(spent.site.worked(begun));
        Ok((said?, spent, place))
    });
    run.await.map_err(|_| LinkError::Closed("a task failed".to_owned()))?
}
