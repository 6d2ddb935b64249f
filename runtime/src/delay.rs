//! Step 13, when: the moment at which a release leaves is noised too.
//!
//! *In*: what the round may spend on its moment, and the longest that one individual can have kept the site busy. *Out*: how long after
//! the end of the round its answer leaves. *Trusts*: [`Costs`], measured on this machine where guests do what is slowest on purpose.
//! *Refuses*: terms under which answers would leave after the round's deadline.
//!
//! How long a round takes is something an analysis can make depend on one individual, up to [`Load::limit`], after which its worker is
//! ended. Rows are taken by threads as they come free, in groups that another individual's presence does not change; so one individual
//! moves the end of a round by no more than [`Load::longest_us`] (docs/PRIVACY.md, "Time"). The delay is a shift plus discrete noise of that sensitivity, cut off at zero, which
//! happens with a probability below [`DELTA_FEMTO`] (Haeberlen, Pierce, Narayan 2011; Ratliff and Vadhan 2024).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vestibule_protocol::job::{Budget, Limits, Noise, Spend};
use vestibule_protocol::round::{Partitioning, Round, WHOLE_SHARE_PPB};
use vestibule_worker::{overlooked, sent_again};

use crate::costs::Costs;
use crate::noise::{self, NoiseError};
use crate::partitions::Partitions;

/// What one release's moment adds to delta, in 10^-15: more than the chance that the delay is cut off at zero, in both of two
/// neighbouring datasets (2 x 1.3e-12 for a Gaussian at 7 standard deviations, 2 x 0.94e-12 for a Laplace at 27 scales).
pub const DELTA_FEMTO: u64 = 3_000;
pub use vestibule_importer::SUMS_DELTA;
/// How often a worker that takes over builds its engine until it is as the first one was: when it
/// starts, and behind the first person, at whom it touches pages of its own for the first time
/// (`runtime/sandbox/tests/alone.rs`).
const TAKEOVER_BUILDS: f64 = 2.0;
/// Of a component of a few hundred kB, with its state.
const USUAL_CODE_BYTES: usize = 1 << 20;
const GAUSSIAN_SHIFT: f64 = 7.0;
const LAPLACE_SHIFT: f64 = 27.0;
/// 8 standard deviations, 31 scales.
const TASK_SHIFT: f64 = 31.0 / 27.0;

/// What an individual of a round can take, besides what the round itself says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The job's limits.
    limits: Limits,
    /// Values and dosages of a partition.
    inputs: usize,
    /// How often a row is read.
    reads: u32,
    /// Of the baked code, with the state that is in it.
    code_bytes: usize,
    /// Of the pages that are laid down wherever the engine is built anew.
    laid_bytes: usize,
}

/// The noise of a moment: its scale and its shift, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Delay {
    spend: Spend,
    scale_us: f64,
    shift_us: f64,
}

impl Load {
    /// `inputs`: values and dosages of a row. `code_bytes`: of what the round's state was baked into.
    /// Nothing is laid down.
    #[must_use]
    pub const fn new(limits: Limits, inputs: usize, partitions: Partitions, code_bytes: usize) -> Self {
        // That an individual is there is handed over too.
        let inputs = inputs.saturating_add(1).saturating_mul(partitions.most());
        Self { limits, inputs, reads: partitions.reads(), code_bytes, laid_bytes: 0 }
    }

    /// The same, where so many bytes of pages are laid down for each instance.
    #[must_use]
    pub const fn laying(self, laid_bytes: usize) -> Self {
        Self { laid_bytes, ..self }
    }

    /// The job's limits.
    pub(crate) const fn limits(&self) -> Limits {
        self.limits
    }

    /// The most that one partition may take of its worker's own time: an instance spends all its fuel and touches all its memory, its
    /// inputs and the sums' `entries` go through the host, and the engine is built anew behind it. A worker that takes longer is ended.
    #[must_use]
    pub fn limit(&self, entries: usize, costs: Costs) -> Duration {
        Duration::from_secs_f64((self.limit_us(entries, costs) / 1e6).clamp(0.0, 3.2e8))
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate with margins")]
    fn limit_us(&self, entries: usize, costs: Costs) -> f64 {
        let fuel = self.limits.fuel_per_partition as f64 * costs.fuel_ns;
        let through = costs.entry_ns * self.inputs.saturating_add(entries) as f64;
        (fuel + through) / 1e3 + f64::from(self.limits.memory_mib) * costs.mib_us + costs.row_us + self.build_us(costs)
    }

    /// The engine is built, and the pages laid down that its instances find.
    fn build_us(&self, costs: Costs) -> f64 {
        costs.settle_us + mib(self.code_bytes) * costs.code_mib_us + mib(self.laid_bytes) * costs.mib_us
    }

    /// Another worker takes over: it waited, one more is started in its place, which is sent the code,
    /// and what is left of the batch is sent again, and read.
    fn takeover_us(&self, costs: Costs) -> f64 {
        let sent = mib(self.code_bytes) + 2.0 * mib(sent_again(self.inputs));
        costs.takeover_us + sent * costs.send_mib_us + TAKEOVER_BUILDS * self.build_us(costs)
    }

    /// The longest that one individual can keep a thread busy, in microseconds: its partition takes up to [`Load::limit`], which is
    /// looked at now and then, another worker takes over, and its row is read as often as it is in a piece. In a block an individual can decide about
    /// the whole block's instance.
    #[must_use]
    pub fn longest_us(&self, entries: usize, costs: Costs) -> f64 {
        let limit_us = self.limit_us(entries, costs);
        // Without costs there is nothing to wait for: `--defect` and tests.
        let overlooked = if limit_us > 0.0 { overlooked(self.limit(entries, costs)).as_secs_f64() * 1e6 } else { 0.0 };
        limit_us + overlooked + self.takeover_us(costs) + f64::from(self.reads) * costs.row_us
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate with margins")]
fn mib(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Delay {
    /// Of a round that may spend `spend` on its moment.
    ///
    /// `costs`: those of the site's own machine; where they are not known, the usual ones.
    #[must_use]
    pub fn of(round: &Round, spend: Spend, load: Load, costs: Costs) -> Self {
        let entries = round.statistics().iter().map(|statistic| statistic.length as usize).fold(0, usize::saturating_add);
        Self::new(spend, load.longest_us(entries, costs))
    }

    /// What to expect at a site with these costs, of a job of one round at epsilon 1 and delta 10^-6, with
    /// the limits that jobs have by default and a usual component.
    #[must_use]
    pub fn usual(costs: Costs) -> Duration {
        let load = Load::new(Limits::default(), 8, Partitions::of(Partitioning::Each, 1), USUAL_CODE_BYTES);
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).expect("a budget of usual terms");
        Self::new(budget.round(WHOLE_SHARE_PPB).time(), load.longest_us(100, costs)).expected()
    }

    /// For a sensitivity of `longest_us`, rounded up to the whole microseconds that the noise is drawn in, and one more: the end of a
    /// round is a whole number of them too, by which two of them can be further apart.
    fn new(spend: Spend, longest_us: f64) -> Self {
        let longest_us = longest_us.ceil() + 1.0;
        let (scale_us, shifts) = match spend {
            Spend::Gaussian(rho) => (longest_us / (2.0 * rho.value()).sqrt(), GAUSSIAN_SHIFT),
            Spend::Laplace(epsilon) => (longest_us / epsilon, LAPLACE_SHIFT),
        };
        // On the grid that the noise is drawn on.
        let scale_us = scale_us.ceil().max(1.0);
        Self { spend, scale_us, shift_us: (scale_us * shifts).ceil() }
    }

    /// The same for a task of a round, of which one individual can move up to three (docs/PRIVACY.md, "On a cluster"): shifted further, so
    /// that all three together are cut off less often than [`DELTA_FEMTO`] allows (6 x 3.2e-14 for a Gaussian, 6 x 1.8e-14 for a Laplace).
    #[must_use]
    pub fn of_task(mut self) -> Self {
        self.shift_us = (self.shift_us * TASK_SHIFT).ceil();
        self
    }

    /// The delay without its noise: what to expect. At most ten years.
    #[must_use]
    pub fn expected(&self) -> Duration {
        Duration::from_secs_f64((self.shift_us / 1e6).clamp(0.0, 3.2e8))
    }

    /// All but one delay in 4,000 are shorter (3.5 standard deviations of a Gaussian; 13.5 scales of a Laplace are less likely still).
    #[must_use]
    pub fn latest(&self) -> Duration {
        Self::latest_of(self.expected())
    }

    /// [`Self::latest`] of a delay that is expected to be so long.
    #[must_use]
    pub fn latest_of(expected: Duration) -> Duration {
        expected.mul_f64(1.5)
    }

    /// Draws the delay.
    ///
    /// # Errors
    /// OpenDP's refusal.
    pub fn draw(&self) -> Result<Duration, NoiseError> {
        let noise = noise::moment(self.spend, self.scale_us)?;
        #[expect(clippy::cast_precision_loss, reason = "the noise of a time below 2^53 us")]
        let delay_us = (self.shift_us + noise as f64).max(0.0);
        Ok(Duration::from_secs_f64(delay_us / 1e6))
    }
}

/// How long after `since` (1970) the next tick is. On a tick it is a whole one: an answer never leaves at once by chance.
pub(crate) fn until_tick(since: Duration, tick_seconds: u32) -> Duration {
    let tick = Duration::from_secs(tick_seconds.into());
    let Some(into) = since.as_nanos().checked_rem(tick.as_nanos()) else { return Duration::ZERO };
    tick.saturating_sub(Duration::from_nanos_u128(into))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_protocol::privacy::Rho;

    #[test]
    fn answers_leave_on_the_tick() {
        let millis = Duration::from_millis;
        for (since, tick, want) in [
            (millis(1_000_000_500), 0, millis(0)),
            (millis(1_000_000_500), 1, millis(500)),
            (millis(60_000), 60, millis(60_000)),
            (millis(60_001), 60, millis(59_999)),
            (millis(1_763_929_199_250), 60, millis(750)),
        ] {
            assert_eq!(until_tick(since, tick), want, "{since:?} {tick}");
        }
    }

    #[test]
    fn all_that_one_individual_can_do_counts() {
        let costs = Costs {
            fuel_ns: 10.0,
            mib_us: 500.0,
            row_us: 2_000.0,
            entry_ns: 100.0,
            settle_us: 300.0,
            code_mib_us: 1_000.0,
            takeover_us: 5_000.0,
            send_mib_us: 700.0,
        };
        // What a limit is beyond an instance's least; what L is beyond a limit, its looks and a take-over.
        let us = |fuel_per_partition, memory_mib, inputs, [code_mib, laid_mib]: [usize; 2]| {
            let limits = Limits { fuel_per_partition, memory_mib };
            let load = Load::new(limits, inputs, Partitions::of(Partitioning::Each, 1), code_mib << 20).laying(laid_mib << 20);
            let limit_us = load.limit(5_000, costs).as_secs_f64() * 1e6;
            let looks = overlooked(load.limit(5_000, costs)).as_secs_f64() * 1e6;
            let rest = load.longest_us(5_000, costs) - limit_us - looks - 5_000.0 - 2_000.0 - 2.0 * 300.0;
            [limit_us - 500.0 - 2_000.0 - 300.0, rest].map(f64::round)
        };
        // Rows of nothing are sent again too: 5 kB.
        assert_eq!(us(1_000_000, 0, 0, [0, 0]), [10_000.0, 7.0]);
        assert_eq!(us(0, 64, 0, [0, 0]), [32_000.0, 7.0]);
        assert_eq!(us(0, 0, 10_000, [0, 0]), [1_000.0, 1_400.0]);
        assert_eq!(us(0, 0, 0, [3, 0]), [3_000.0, 6_000.0 + 2_100.0 + 7.0]);
        assert_eq!(us(0, 0, 0, [0, 3]), [1_500.0, 3_000.0 + 7.0]);
    }

    /// Variance within 6 standard errors of what was asked for (sd of a variance estimate: sqrt(2/n), sqrt(5/n)): a false alarm about
    /// once in 10^8 runs. No delay of 2,000 is cut off: that has a chance below 10^-8.
    #[test]
    fn delays_have_the_noise_that_hides_one_individual() {
        let longest = 5_000.0;
        for (spend, scale, variance, kurtosis) in [
            (Spend::Gaussian(Rho::from_pico(500_000_000)), longest / 0.001_f64.sqrt(), 1.0, 2.0_f64),
            (Spend::Laplace(0.05), longest / 0.05, 2.0, 5.0),
        ] {
            let delay = Delay::new(spend, longest);
            assert!((delay.scale_us / scale - 1.0).abs() < 1e-3, "{delay:?}");
            let n = 2_000;
            let draws: Vec<f64> = (0..n).map(|_| delay.draw().unwrap().as_secs_f64() * 1e6).collect();
            assert!(draws.iter().all(|draw| *draw > 0.0));
            let found = draws.iter().map(|draw| ((draw - delay.shift_us) / scale).powi(2)).sum::<f64>() / f64::from(n);
            assert!((found / variance - 1.0).abs() < 6.0 * (kurtosis / f64::from(n)).sqrt(), "{spend:?}: {found}");
        }
    }

    #[test]
    fn terms_that_pay_nothing_wait_for_ever() {
        assert!(Delay::new(Spend::Gaussian(Rho::ZERO), 1.0).expected() > Duration::from_secs(300_000_000));
        assert!(Delay::new(Spend::Gaussian(Rho::ZERO), 1.0).draw().is_err());
    }
}
