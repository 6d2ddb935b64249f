//! Whether a release could leave in time, and if not, why its round is not charged: in words for its
//! researcher, made of public terms.

use std::time::Duration;

use vestibule_protocol::manifest::Manifest;

use super::Site;
use crate::delay::Delay;

impl Site {
    /// The longest after its round's end that a release leaves: its delay, up to the next tick.
    pub(super) fn latest(&self, delay: &Delay) -> Duration {
        let tick = Duration::from_secs(self.home.settings().release_tick_seconds.into());
        self.executor.latest(delay).saturating_add(tick)
    }
}

/// Why not, for a round that has waited so long for its place, and whose release leaves so long after
/// it at the latest. `None`: before its deadline.
pub(super) fn late(latest: Duration, waited: Duration, manifest: &Manifest) -> Option<String> {
    let limits = manifest.limits;
    let deadline = Duration::from_secs(manifest.round_deadline_seconds.into());
    if waited.saturating_add(latest) <= deadline {
        return None;
    }
    let for_a_place = match waited.as_secs() {
        0 => String::new(),
        seconds => format!(", and it has waited {seconds} s for the rounds before it"),
    };
    Some(format!(
        "to hide how long one individual's {} fuel and {} MiB can take, the release may leave up to {:.0} s after the \
         round, whose deadline is {} s{for_a_place}: ask for less fuel and memory (`vestibule analysis try` prints \
         what is used), fewer rounds, more epsilon, or a later deadline (`round_deadline_seconds`). It is not charged now",
        limits.fuel_per_partition,
        limits.memory_mib,
        latest.as_secs_f64(),
        deadline.as_secs()
    ))
}

/// Why not, where a site lets a release wait for its moment so many seconds at most. `None`: within them.
pub(super) fn slow(latest: Duration, most_seconds: u32) -> Option<String> {
    (latest > Duration::from_secs(most_seconds.into())).then(|| {
        format!(
            "the release may have to wait {:.0} s for its moment, which hides how long one individual can take, and \
             keep others waiting; here it may be {most_seconds} s: ask for less fuel and memory, or more epsilon a \
             round. It is not charged now",
            latest.as_secs_f64()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::tests::manifest;

    #[test]
    fn what_a_round_waited_is_taken_from_its_deadline() {
        let seconds = Duration::from_secs;
        let manifest = Manifest { round_deadline_seconds: 60, ..manifest(1) };
        let late = |latest, waited| late(seconds(latest), seconds(waited), &manifest);
        assert_eq!((late(60, 0), late(40, 20)), (None, None));
        assert!(late(61, 0).is_some_and(|why| !why.contains("waited")));
        assert!(late(40, 21).is_some_and(|why| why.contains("waited 21 s") && why.contains("deadline is 60 s")));
        assert!(slow(seconds(60), 60).is_none() && slow(seconds(61), 60).is_some_and(|why| why.contains("60 s")));
    }
}
