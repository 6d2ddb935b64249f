//! How long a site waits before it dials again.
//!
//! *In*: whether the coordinator greeted it before the connection ended. *Out*: a pause that doubles until then. A finished handshake is not
//! a greeting: in TLS 1.3 the one who dials is done before the other end has looked at its key, so a site whose key is refused believes
//! each time to be connected.

use std::time::Duration;

/// First and longest pause.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);

/// The pause that comes next.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    /// Before anything was tried.
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// The pause after an attempt: the shortest, if the coordinator greeted this site, and twice the one before, if not.
    pub(super) fn after(&mut self, greeted: bool) -> Duration {
        let pause = if greeted { FIRST } else { self.0 };
        self.0 = pause.saturating_mul(2).min(LONGEST);
        pause
    }
}

/// A part of `pause` between its half and all of it, by a random `byte`, so that sites that lost the same coordinator do not come back at
/// the same moment.
pub(super) fn jittered(pause: Duration, byte: u8) -> Duration {
    pause.mul_f64(f64::midpoint(1.0, f64::from(byte) / 255.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_coordinator_has_greeted() {
        let mut pause = Pause::new();
        let seconds = |pause: &mut Pause, greeted| pause.after(greeted).as_secs_f64();
        for want in [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            assert!((seconds(&mut pause, false) - want).abs() < 1e-9, "{want}");
        }
        for (greeted, want) in [(true, 0.25), (true, 0.25), (false, 0.5), (false, 1.0), (true, 0.25)] {
            assert!((seconds(&mut pause, greeted) - want).abs() < 1e-9, "{want}");
        }
    }

    #[test]
    fn jitter_takes_a_half_at_most() {
        let second = Duration::from_secs(1);
        assert_eq!((jittered(second, 0), jittered(second, 255)), (second / 2, second));
        assert!(jittered(second, 128) > second / 2 && jittered(second, 128) < second);
    }
}
