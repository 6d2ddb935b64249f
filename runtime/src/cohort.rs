//! A dataset's floor: nothing leaves of a round in which too few individuals took part, and how many did is known through noise alone.
//!
//! *In*: the floor that the dataset's description says in public, and what the round may spend on its moment. *Out*: a [`Floor`], and what is left for the
//! moment: half. *Refuses*: analyses that are shown blocks of individuals, of which nobody knows how many took part.
//!
//! An individual takes part if its contribution moves any sum. One more or less changes the count by one at most, whatever the analysis does, so the count
//! is a sum like the others: noised by the same sampler, paid from the same charge. Whether anything leaves follows from the noised count, so it costs
//! nothing more. From outside, a round below the floor is a round of which nothing came. It keeps honest questions from being asked of too few; an analysis
//! that means to can let everybody take part, and is held by the noise on its sums as ever.

use serde_json::{Value, json};
use vestibule_protocol::calibration::NoiseScale;
use vestibule_protocol::job::Spend;
use vestibule_protocol::round::Partitioning;

/// A floor, and the noise of the count that is held against it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    least: u32,
    spend: Spend,
    scale: u64,
}

/// A count with its noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted(pub(crate) i64);

/// A round that no floor can be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FloorError(&'static str);

impl FloorError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "cohort-uncountable"
    }
}

impl Floor {
    /// The floor of a dataset that has one, and what is left of `time` for the moment.
    ///
    /// # Errors
    /// Partitions are blocks; the round has too little to spend for a count that says anything.
    pub fn of(least: u32, partitioning: Partitioning, time: Spend) -> Result<(Option<Self>, Spend), FloorError> {
        if least == 0 {
            return Ok((None, time));
        }
        if partitioning != Partitioning::Each {
            let why = "the dataset has a smallest cohort, and of blocks of individuals it is not known how many took part: use an analysis that is \
                       shown one individual at a time";
            return Err(FloorError(why));
        }
        let spend = time.half();
        // The next whole number, and one more: upward rounding in OpenDP's map cannot pass the target.
        let exact = match spend {
            Spend::Gaussian(rho) => 1.0 / (2.0 * rho.value()).sqrt(),
            Spend::Laplace(epsilon) => 1.0 / epsilon,
        };
        if !exact.is_finite() || exact > 1e9 {
            return Err(FloorError(
                "the round's share of the budget is too small to count who took part: ask for more epsilon",
            ));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10^9")]
        let scale = exact.ceil() as u64 + 1;
        Ok((Some(Self { least, spend, scale }), spend))
    }

    /// What the count may spend.
    #[must_use]
    pub const fn spend(&self) -> Spend {
        self.spend
    }

    /// Its noise, on a grid of whole individuals.
    #[must_use]
    pub const fn noise(&self) -> NoiseScale {
        match self.spend {
            Spend::Gaussian(_) => NoiseScale::Gaussian { sigma: self.scale },
            Spend::Laplace(_) => NoiseScale::Laplace { scale: self.scale },
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a scale is below 2^48: exact")]
    pub(crate) const fn scale(&self) -> f64 {
        self.scale as f64
    }

    /// What the noise costs, reckoned from its scale; and whether that is within what it may cost.
    #[must_use]
    pub(crate) fn within(&self) -> bool {
        let scale = self.scale();
        match self.spend {
            Spend::Gaussian(rho) => (1.0 / scale).powi(2) / 2.0 <= rho.value(),
            Spend::Laplace(epsilon) => 1.0 / scale <= epsilon,
        }
    }

    /// Whether a noised count reaches the floor.
    #[must_use]
    pub(crate) fn holds(&self, counted: Counted) -> bool {
        counted.0 >= i64::from(self.least)
    }

    /// For a person, and for the site's log.
    pub(crate) fn evidence(&self, counted: Counted) -> Value {
        json!({ "noised": counted.0, "standard_deviation": self.noise().sd_steps(), "least": self.least })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vestibule_protocol::job::{Budget, Noise};

    #[test]
    fn a_floor_is_paid_from_the_moments_part_and_says_how_sure_it_is() {
        for (noise, delta, sd) in [(Noise::Gaussian, 1e-6, 29.7), (Noise::Laplace, 0.0, 58.0)] {
            let time = Budget::new(noise, 1.0, delta).unwrap().round(1_000_000_000).time();
            assert_eq!(Floor::of(0, Partitioning::Blocks(3), time).unwrap(), (None, time));
            assert_eq!(Floor::of(50, Partitioning::Blocks(3), time).unwrap_err().code(), "cohort-uncountable");
            let (floor, rest) = Floor::of(50, Partitioning::Each, time).unwrap();
            let floor = floor.unwrap();
            assert!(floor.within());
            let parts = match (time, floor.spend(), rest) {
                (Spend::Gaussian(all), Spend::Gaussian(one), Spend::Gaussian(other)) => {
                    (one.checked_add(other).unwrap() <= all, all.value() - one.value() - other.value() < 2e-12)
                }
                (Spend::Laplace(all), Spend::Laplace(one), Spend::Laplace(other)) => (one + other <= all, one + other >= all),
                other => panic!("{other:?}"),
            };
            assert_eq!(parts, (true, true));
            let found = floor.noise().sd_steps();
            assert!((found - sd).abs() < 2.5, "{found}");
            // Half the noise would cost too much.
            assert!(!Floor { scale: floor.scale / 2, ..floor }.within());
            assert!(floor.holds(Counted(50)) && !floor.holds(Counted(49)) && !floor.holds(Counted(-7)));
        }
        let little = Budget::new(Noise::Gaussian, 0.0001, 1e-6).unwrap().round(1).time();
        assert_eq!(Floor::of(50, Partitioning::Each, little).unwrap_err().code(), "cohort-uncountable");
    }
}
