//! The rules of a round: what a site's state may become, and when a round is over. Pure.
//!
//! *In*: events at sites. *Out*: their states, and whether the round goes on, is complete, or cannot succeed. *Refuses*: nothing;
//! an event that does not fit its state leaves it as it is, so events may come twice or late.

use serde::{Deserialize, Serialize};

/// Where a site is in a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteState {
    /// Not asked yet in this round.
    Waiting,
    /// Asked.
    Offered,
    /// A person at the site looks at the job, or at what it would release.
    Held,
    /// It takes part, and has charged its budget.
    Accepted,
    /// Its release of this round is here.
    Released,
    /// It refused before any data was touched. Out of the job.
    Refused,
    /// It released nothing. Out of the job.
    NoRelease,
    /// It did not answer in time. Out of the job.
    Late,
}

/// What happens at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The offer was sent.
    Offer,
    /// It answered that a person looks first.
    Hold,
    /// It answered that it takes part.
    Accept,
    /// Its release came, and was checked and stored.
    Release,
    /// It refused.
    Refuse,
    /// It released nothing.
    Nothing,
    /// The deadline passed.
    Deadline,
    /// The link broke: it will be asked again.
    Disconnect,
}

impl SiteState {
    /// Out of the job for good.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Refused | Self::NoRelease | Self::Late)
    }

    /// Done with this round.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Released) || self.is_out()
    }

    /// The state after an event.
    #[must_use]
    pub const fn after(self, event: Event) -> Self {
        if self.is_done() {
            return self;
        }
        match event {
            Event::Offer => Self::Offered,
            Event::Hold => Self::Held,
            Event::Accept => Self::Accepted,
            Event::Release => Self::Released,
            Event::Refuse => Self::Refused,
            Event::Nothing => Self::NoRelease,
            Event::Deadline => Self::Late,
            Event::Disconnect => Self::Waiting,
        }
    }
}

/// How a round stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some sites are still to answer.
    Wait,
    /// All that will come is here, and it is enough.
    Complete,
    /// Too few sites can still release.
    TooFew,
}

/// Judges a round by its sites' states.
#[must_use]
pub fn verdict(states: &[SiteState], min_sites: u32) -> Verdict {
    let possible = states.iter().filter(|state| !state.is_out()).count();
    if possible < min_sites as usize {
        Verdict::TooFew
    } else if states.iter().all(|state| state.is_done()) {
        Verdict::Complete
    } else {
        Verdict::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SiteState::{Accepted, Late, NoRelease, Offered, Refused, Released, Waiting};

    const EVENTS: [Event; 8] = [
        Event::Offer,
        Event::Hold,
        Event::Accept,
        Event::Release,
        Event::Refuse,
        Event::Nothing,
        Event::Deadline,
        Event::Disconnect,
    ];

    #[test]
    fn a_site_that_is_done_stays_done() {
        for state in [Released, Refused, NoRelease, Late] {
            for event in EVENTS {
                assert_eq!(state.after(event), state);
            }
        }
        assert_eq!(Waiting.after(Event::Offer).after(Event::Accept).after(Event::Release), Released);
        assert_eq!(Accepted.after(Event::Disconnect), Waiting);
        assert_eq!(Offered.after(Event::Deadline), Late);
        assert_eq!(Offered.after(Event::Hold).after(Event::Accept).after(Event::Hold).after(Event::Nothing), NoRelease);
    }

    #[test]
    fn verdicts() {
        for (states, min, want) in [
            (vec![Waiting, Released], 1, Verdict::Wait),
            (vec![Released, Released], 2, Verdict::Complete),
            (vec![Released, Refused], 1, Verdict::Complete),
            (vec![Released, Refused], 2, Verdict::TooFew),
            (vec![Waiting, Waiting, Late], 3, Verdict::TooFew),
            (vec![Waiting, NoRelease, Late], 1, Verdict::Wait),
        ] {
            assert_eq!(verdict(&states, min), want, "{states:?} {min}");
        }
    }

    /// Whatever happens in whatever order, once every site has had its deadline the round is over, and it is complete exactly if
    /// enough sites released before.
    #[test]
    fn every_order_of_events_ends() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % bound as u64).unwrap()
        };
        for _ in 0..5_000 {
            let mut states = vec![Waiting; 1 + next(5)];
            let min = 1 + next(states.len());
            for _ in 0..next(30) {
                let site = next(states.len());
                states[site] = states[site].after(EVENTS[next(EVENTS.len())]);
            }
            states.iter_mut().for_each(|state| *state = state.after(Event::Deadline));
            let released = states.iter().filter(|state| **state == Released).count();
            let want = if released >= min { Verdict::Complete } else { Verdict::TooFew };
            assert_eq!(verdict(&states, u32::try_from(min).unwrap()), want);
        }
    }
}
