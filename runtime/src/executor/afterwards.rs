//! What a task does when it has its sums, so that neither its end nor the work that it is seen to have done tells how long
//! one individual took.
//!
//! *In*: the round's delay, and how many processors the task has. *Out*: processor time that is burnt, then time that
//! passes. *Trusts*: [`Delay`]'s draws, one for each. It is drawn before any row is read.
//!
//! A cluster shows when a task ends, and its accounting (`sacct`, cgroups, a kubelet's metrics) how long its processors
//! were busy. One individual moves either by up to L. So the task's processors are busy for a noised time longer, and
//! then the task waits for another:
//!
//! * processor time: the work, and B. One individual moves it by L.
//! * the end: when the work ended, and B / threads, and W. Anyone who knows the sum of work and B has a B that one
//!   individual moved by L, so the end is moved by L (1 + 1 / threads), and W hides that.
//!
//! Each has half of what the task's one delay had: the noise is doubled, which is half the epsilon of a Laplace moment,
//! and less than half the rho of a Gaussian one; W's (1 + 1 / threads) times that. Shifts grow with it, so that either
//! is cut off at zero no more often than the one was (docs/PRIVACY.md, "On a cluster", has the sum of both).

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::delay::Delay;
use crate::noise::NoiseError;

/// Two moments share what one had.
const SHARED: f64 = 2.0;

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Afterwards {
    /// Processor time.
    burns: Duration,
    /// Time.
    waits: Duration,
    threads: usize,
}

/// How much farther one individual can move a task's end than its processor time.
#[expect(clippy::cast_precision_loss, reason = "a few processors")]
fn farther(threads: usize) -> f64 {
    1.0 + 1.0 / threads.max(1) as f64
}

impl Afterwards {
    /// For a task of so many processors, of a round with this delay (of a [task](Delay::of_task)).
    ///
    /// # Errors
    /// OpenDP's refusal.
    pub(super) fn draw(delay: &Delay, threads: usize) -> Result<Self, NoiseError> {
        let burns = delay.draw()?.mul_f64(SHARED);
        let waits = delay.draw()?.mul_f64(SHARED * farther(threads));
        Ok(Self { burns, waits, threads: threads.max(1) })
    }

    /// How long both take together, where a draw of the round's delay for a task takes so long.
    pub(super) fn longest(delay: &Delay, each: impl Fn(&Delay) -> Duration, threads: usize) -> Duration {
        let each = each(&delay.of_task());
        let burns = each.mul_f64(SHARED * (farther(threads) - 1.0));
        burns.saturating_add(each.mul_f64(SHARED * farther(threads)))
    }

    /// Processor time.
    pub(super) const fn burns(&self) -> Duration {
        self.burns
    }

    /// Burns and waits.
    pub(super) fn pass(self) {
        let until = busy().saturating_add(self.burns);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while busy() < until {
                        let _ = std::hint::black_box((0..20_000_u64).fold(0_u64, |sum, step| std::hint::black_box(sum) ^ step));
                    }
                });
            }
        });
        std::thread::sleep(self.waits);
    }
}

/// Processor time of this process so far, that of all its threads. Its workers have ended.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::costs::Costs;
    use crate::delay::Load;
    use crate::partitions::Partitions;
    use vestibule_protocol::job::{Limits, Spend};
    use vestibule_protocol::privacy::Rho;
    use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
    use vestibule_protocol::scores::Source;

    fn delay() -> Delay {
        let source = Source::Given;
        let statistics = vec![Statistic { name: "s".into(), length: 1, bound: Bound::OneCell, weight: 1.0, source }];
        let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: false }).unwrap();
        let load = Load::new(Limits { fuel_per_partition: 1_000, memory_mib: 1 }, 1, Partitions::of(Partitioning::Each, 1), 0);
        Delay::of(&round, Spend::Gaussian(Rho::from_pico(500_000_000)), load, Costs::USUAL).of_task()
    }

    /// Processor time is that of this whole process: other tests of it may be busy too, and then less is burnt for this one.
    #[test]
    fn processors_are_busy_and_then_time_passes() {
        for threads in [1, 2] {
            let (burns, waits) = (Duration::from_millis(300), Duration::from_millis(200));
            let (before, began) = (busy(), std::time::Instant::now());
            Afterwards { burns, waits, threads }.pass();
            assert!(busy().saturating_sub(before) >= burns && began.elapsed() >= waits);
        }
    }

    /// The two draws are not one: over 400 pairs their correlation is within 6 standard errors of 0 (a false alarm about once in 10^8 runs),
    /// and their spreads are twice that of the one delay and, with one processor, four times, within 6 of theirs (1 / sqrt(2n) each).
    #[test]
    fn work_and_end_have_noise_of_their_own_and_enough_of_it() {
        let (delay, n) = (delay(), 400.0_f64);
        let seconds = |of: Duration| of.as_secs_f64();
        let pairs: Vec<(f64, f64)> = (0..400)
            .map(|_| Afterwards::draw(&delay, 1).map(|drawn| (seconds(drawn.burns), seconds(drawn.waits))).unwrap())
            .collect();
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (b, w) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
        let (sd_b, sd_w) = (mean(&|pair| (pair.0 - b).powi(2)).sqrt(), mean(&|pair| (pair.1 - w).powi(2)).sqrt());
        let together = mean(&|pair| (pair.0 - b) * (pair.1 - w)) / (sd_b * sd_w);
        assert!(together.abs() < 6.0 / n.sqrt(), "{together}");
        // 8 standard deviations are the shift.
        let sd = delay.expected().as_secs_f64() / (7.0 * 31.0 / 27.0);
        for (found, want) in [(sd_b, 2.0 * sd), (sd_w, 4.0 * sd)] {
            assert!((found / want - 1.0).abs() < 6.0 / (2.0 * n).sqrt(), "{found} and {want}");
        }
    }

    #[test]
    fn both_are_waited_for() {
        let delay = delay();
        let longest = |threads| Afterwards::longest(&delay, Delay::expected, threads).as_secs_f64();
        let each = delay.of_task().expected().as_secs_f64();
        assert!((longest(1) / each - 6.0).abs() < 1e-3 && (longest(4) / each - 3.0).abs() < 1e-3, "{}", longest(1));
    }
}
