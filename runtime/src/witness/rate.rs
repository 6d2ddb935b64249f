//! How often one log may have something new written down.
//!
//! *In*: a log that signed, and the time. *Out*: whether there is room. *Trusts*: nothing. *Refuses*: more than a burst at once, and more than so many a second
//! in the long run. One log never takes another's room.

use std::collections::HashMap;

/// What a log may ask at once: the answers of a few hundred jobs.
pub(super) const BURST: u64 = 600;
/// What it gets back each second.
const A_SECOND: u64 = 20;

/// What is left to each log, and at which second that was.
#[derive(Debug, Default)]
pub(super) struct Rate(HashMap<String, (u64, u64)>);

impl Rate {
    /// Whether a log whose bundle names it may have one more at `now` (seconds since 1970).
    pub(super) fn take(&mut self, origin: &str, now: u64) -> bool {
        let (left, at) = self.0.entry(origin.to_owned()).or_insert((BURST, now));
        let back = now.saturating_sub(*at).saturating_mul(A_SECOND);
        *left = left.saturating_add(back).min(BURST);
        *at = now;
        match left.checked_sub(1) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}
