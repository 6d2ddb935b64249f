//! What one person may ask of the API at once, and how often.
//!
//! *In*: who calls, and when. *Out*: [`Pass`]es, each given back when it is dropped. *Refuses*: calls beyond a share, with how long to
//! wait: nobody else waits for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vestibule_protocol::name::Name;

use super::Refusal;

/// What a person may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A call of any kind, until its answer is sent.
    Call,
    /// A stream of events: a connection that stays.
    Stream,
    /// A component that is coming: room on the disk.
    Upload,
}

impl What {
    /// How many at the same time.
    const fn most(self) -> usize {
        match self {
            Self::Call => 24,
            Self::Stream => 8,
            Self::Upload => 2,
        }
    }
}

/// Calls in a second, over time: the dearest takes a few milliseconds.
const RATE: u64 = 100;
/// Calls that may come at once after a pause.
const BURST: u64 = 400;

/// Everybody's shares.
#[derive(Debug, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<Name, Share>>>);

#[derive(Debug)]
struct Share {
    /// Thousandths of calls that may be made now.
    left: u64,
    since: Instant,
    under_way: HashMap<What, usize>,
}

/// One thing under way.
#[derive(Debug)]
pub(crate) struct Pass {
    shares: Arc<Mutex<HashMap<Name, Share>>>,
    who: Name,
    what: What,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(share) = lock(&self.shares).get_mut(&self.who) {
            let count = share.under_way.entry(self.what).or_default();
            *count = count.saturating_sub(1);
        }
    }
}

fn lock(shares: &Mutex<HashMap<Name, Share>>) -> MutexGuard<'_, HashMap<Name, Share>> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shares {
    /// Counts a call at its moment.
    pub(crate) fn count(&self, who: &Name, now: Instant) -> Result<(), Refusal> {
        let mut shares = lock(&self.0);
        let share = share(&mut shares, who, now);
        let passed = u64::try_from(now.saturating_duration_since(share.since).as_millis()).unwrap_or(u64::MAX);
        share.left = share.left.saturating_add(passed.saturating_mul(RATE)).min(BURST.saturating_mul(1_000));
        share.since = now;
        match share.left.checked_sub(1_000) {
            Some(left) => {
                share.left = left;
                Ok(())
            }
            None => Err(Refusal::busy("you call more often than one person may", Duration::from_secs(1))),
        }
    }

    /// Begins something, if no more of it is under way than may be.
    pub(crate) fn begin(&self, who: &Name, what: What, now: Instant) -> Result<Pass, Refusal> {
        let mut shares = lock(&self.0);
        let count = share(&mut shares, who, now).under_way.entry(what).or_default();
        if *count >= what.most() {
            return Err(Refusal::busy("you have as many of these under way as one person may", Duration::from_secs(2)));
        }
        *count = count.saturating_add(1);
        Ok(Pass { shares: Arc::clone(&self.0), who: who.clone(), what })
    }
}

/// As many as there are members, at most.
fn share<'a>(shares: &'a mut HashMap<Name, Share>, who: &Name, now: Instant) -> &'a mut Share {
    let new = || Share { left: BURST.saturating_mul(1_000), since: now, under_way: HashMap::new() };
    shares.entry(who.clone()).or_insert_with(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn calls_beyond_a_share_are_refused_until_time_has_passed_and_others_are_not_meant() {
        let (shares, start) = (Shares::default(), Instant::now());
        for _ in 0..BURST {
            shares.count(&name("bob"), start).unwrap();
        }
        assert_eq!(shares.count(&name("bob"), start).unwrap_err().code(), "too-many-calls");
        shares.count(&name("ada"), start).unwrap();
        let later = start + Duration::from_millis(20);
        for _ in 0..RATE / 50 {
            shares.count(&name("bob"), later).unwrap();
        }
        assert_eq!(shares.count(&name("bob"), later).unwrap_err().code(), "too-many-calls");
        // A long pause gives a burst, and no more.
        let later = start + Duration::from_secs(3_600);
        let passed = (0..=BURST).filter(|_| shares.count(&name("bob"), later).is_ok()).count();
        assert_eq!(passed as u64, BURST);
    }

    #[test]
    fn what_is_under_way_is_limited_for_each_person_and_kind_and_given_back() {
        let (shares, now) = (Shares::default(), Instant::now());
        for what in [What::Call, What::Stream, What::Upload] {
            let mut passes: Vec<_> = (0..what.most()).map(|_| shares.begin(&name("bob"), what, now).unwrap()).collect();
            assert_eq!(shares.begin(&name("bob"), what, now).unwrap_err().code(), "too-many-calls");
            shares.begin(&name("ada"), what, now).unwrap();
            passes.pop();
            shares.begin(&name("bob"), what, now).unwrap();
        }
    }
}
