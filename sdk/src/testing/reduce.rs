//! The reducer of the test kit: bounds enforced, then sums.
//!
//! *In*: contributions. *Out*: sums, and how many contributions were clipped or ignored, which a site never tells anyone.

use crate::contract::{Bound, Contribution, GenotypeSums, Partitioning, Source, Statistic};

pub(super) struct Reducer<'a> {
    statistics: &'a [Statistic],
    sums: Vec<Vec<f64>>,
    clipped: Vec<u64>,
    ignored: u64,
}

impl<'a> Reducer<'a> {
    pub(super) fn new(statistics: &'a [Statistic]) -> Self {
        let sums = statistics.iter().map(|statistic| vec![0.0; statistic.length as usize]).collect();
        Self { statistics, sums, clipped: vec![0; statistics.len()], ignored: 0 }
    }

    /// Adds what a partition contributed, whose only individual, where the host multiplies, has these dosages.
    pub(super) fn add(&mut self, contributions: Vec<Contribution>, dosages: &[u8]) {
        if contributions.len() != self.statistics.len() {
            self.ignored += 1;
            return;
        }
        for (at, contribution) in contributions.into_iter().enumerate() {
            let Some(mut values) = dense(&self.statistics[at], contribution) else {
                self.ignored += 1;
                continue;
            };
            let mut outside = false;
            if let Source::Genotypes(sums) = &self.statistics[at].source {
                outside = clip(&Bound::Range((-1.0, 1.0)), &mut values);
                values = products(sums, &values, dosages);
            }
            self.clipped[at] += u64::from(clip(&self.statistics[at].bound, &mut values) || outside);
            self.sums[at].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }

    pub(super) fn finish(self) -> (Vec<Vec<f64>>, Vec<u64>, u64) {
        (self.sums, self.clipped, self.ignored)
    }
}

/// The contribution as one number per entry; `None` if it is malformed. `none` is zeros.
fn dense(statistic: &Statistic, contribution: Contribution) -> Option<Vec<f64>> {
    let length = statistic.given() as usize;
    let values = match (contribution, statistic.bound) {
        (Contribution::None, _) => vec![0.0; length],
        (Contribution::Cell(cell), Bound::OneCell) => {
            let mut values = vec![0.0; length];
            *values.get_mut(cell as usize)? = 1.0;
            values
        }
        (Contribution::Cell(_), _) | (_, Bound::OneCell) => return None,
        (Contribution::Bytes(values), _) => values.into_iter().map(f64::from).collect(),
        (Contribution::Integers(values), _) => values.into_iter().map(|x| x as f64).collect(),
        (Contribution::Reals(values), _) => values.into_iter().map(|x| if x.is_nan() { 0.0 } else { x }).collect(),
    };
    (values.len() == length).then_some(values)
}

/// Factors times scores of genotypes. (A site makes factors smaller where it is to keep entries within a range, so that a few more are
/// clipped there than here.)
fn products(sums: &GenotypeSums, factors: &[f64], dosages: &[u8]) -> Vec<f64> {
    let classes = sums.scores.as_chunks::<4>().0;
    let scores = || classes.chunks(dosages.len().max(1)).flat_map(|set| set.iter().zip(dosages));
    let score = |(scores, dosage): (&[i16; 4], &u8)| f64::from(scores[usize::from(*dosage).min(3)]) / 1_024.0;
    factors.iter().flat_map(|factor| scores().map(move |of| factor * score(of))).collect()
}

/// Brings a contribution within its bound. Whether that changed it by more than rounding.
fn clip(bound: &Bound, values: &mut [f64]) -> bool {
    const ROUNDING: f64 = 1.0 + 1e-9;
    let shrink = |values: &mut [f64], norm: f64, radius: f64| {
        if norm > radius {
            values.iter_mut().for_each(|x| *x *= radius / norm);
        }
        norm > radius * ROUNDING
    };
    match *bound {
        Bound::OneCell => false,
        Bound::Range((low, high)) | Bound::Top((_, low, high)) => {
            let outside = values.iter().any(|x| *x < low * ROUNDING || *x > high * ROUNDING);
            values.iter_mut().for_each(|x| *x = x.clamp(low, high));
            outside
        }
        Bound::L2(radius) => {
            let norm = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            shrink(values, norm, radius)
        }
        Bound::L1(radius) => {
            let norm = values.iter().map(|x| x.abs()).sum();
            shrink(values, norm, radius)
        }
    }
}

/// The largest Euclidean norm of one contribution: what adding or removing one person can change.
pub(super) fn sensitivity(statistic: &Statistic, partitioning: Partitioning) -> f64 {
    let blocks = partitioning != Partitioning::Each;
    let twice: f64 = if blocks { 2.0 } else { 1.0 };
    match statistic.bound {
        Bound::OneCell => twice.sqrt(),
        Bound::L1(radius) | Bound::L2(radius) => twice * radius,
        // From one end to the other.
        Bound::Range((low, high)) if blocks => f64::from(statistic.length).sqrt() * (high - low),
        Bound::Range((low, high)) => f64::from(statistic.length).sqrt() * high.max(-low),
        // Of what is chosen between: how far one entry can gain on another.
        Bound::Top((_, low, high)) => twice * (high - low),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_enforced_and_malformed_contributions_ignored() {
        let statistic =
            |name: &str, length, bound| Statistic { name: name.into(), length, bound, weight: 1.0, source: Source::Given };
        let all = [
            statistic("range", 2, Bound::Range((-1.0, 1.0))),
            statistic("cells", 3, Bound::OneCell),
            statistic("ball", 2, Bound::L2(1.0)),
            statistic("cross", 2, Bound::L1(1.0)),
        ];
        let mut reducer = Reducer::new(&all);
        let far = || Contribution::Reals(vec![3.0, 4.0]);
        reducer.add(vec![far(), Contribution::Cell(2), far(), Contribution::Integers(vec![-3, 1])], &[]);
        reducer.add(
            vec![Contribution::Reals(vec![f64::NAN, -0.5]), Contribution::Cell(3), far(), Contribution::Bytes(vec![1])],
            &[],
        );
        reducer.add(vec![Contribution::None], &[]);
        let (sums, clipped, ignored) = reducer.finish();
        assert_eq!(sums[0], [1.0, 0.5]);
        assert_eq!(sums[1], [0.0, 0.0, 1.0]);
        assert!((sums[2][0] - 1.2).abs() < 1e-12 && (sums[2][1] - 1.6).abs() < 1e-12);
        assert_eq!(sums[3], [-0.75, 0.25]);
        assert_eq!((clipped, ignored), (vec![1, 0, 2, 1], 3));
        assert_eq!(all.each_ref().map(|one| sensitivity(one, Partitioning::Each)), [2.0_f64.sqrt(), 1.0, 1.0, 1.0]);
    }
}
