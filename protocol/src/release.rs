//! A release: the noised sums of one round at one site, the only thing made from data that crosses the border; and how the
//! releases of several sites add up.
//!
//! *In*: integers on the public grid, with the noise they carry. *Out*: the JSON bytes that the site stores and sends (the same
//! bytes on every retry), and [`Released`], what `next` reads. *Refuses*: a release whose shape is
//! not the round's. A release brings its own salt: its digest, which stands in the site's log, is a
//! commitment, and tells nothing to anyone who was not given the release.

use serde::{Deserialize, Serialize};

use crate::calibration::{Calibrated, NoiseScale, to_real};
use crate::job::JobId;
use crate::name::Name;
use crate::round::{Bound, Round, RoundRequest};
use crate::salt::Salt;

/// One statistic of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoisedStatistic {
    /// Its name in the round.
    pub name: String,
    /// A real is its steps times 2^-s.
    pub log2_scale: i32,
    /// The noise that every value carries.
    pub noise: NoiseScale,
    /// Noised sums, in steps.
    pub steps: Vec<i64>,
}

/// The noised sums of one round at one site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The job.
    pub job: JobId,
    /// The round, counted from 0.
    pub round: u32,
    /// The site, by the name it has in the manifest.
    pub site: Name,
    /// What the round was charged at this site, in 10^-12 rho.
    pub charged_rho_pico: u64,
    /// What the site made of noised counts before it let them go, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    /// One per statistic of the round, in its order.
    pub statistics: Vec<NoisedStatistic>,
    /// Drawn for this document alone. Its digest stands in the site's log also where a person said
    /// that the release does not leave.
    pub salt: Salt,
}

/// What a site makes of noised counts before it lets them go. It follows from the noised numbers alone, so it costs no privacy; it makes what is left
/// easier to defend before those who know rules of thumb for tables (a threshold of 10, a base of 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rounding {
    /// Counts below this are released as 0.
    pub suppress_below: u32,
    /// The others as the nearest multiple of this, if it is above 1.
    pub round_to: u32,
}

impl Rounding {
    /// Whether it makes a difference at all.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.suppress_below > 0 || self.round_to > 1
    }

    /// Whether a statistic is of counts: an individual is in a cell or is not, or adds a whole number from 0 on to each entry.
    #[must_use]
    pub fn is_for(bound: &Bound) -> bool {
        match *bound {
            Bound::OneCell => true,
            Bound::Range { lower, upper } => lower == 0.0 && upper.fract() == 0.0,
            Bound::L1 { .. } | Bound::L2 { .. } | Bound::Top { .. } => false,
        }
    }

    /// Applied to a noised count, in steps of a grid that has 2^s of them in 1. A grid without whole numbers is left as it is.
    #[must_use]
    pub fn apply(&self, steps: i64, log2_scale: i32) -> i64 {
        let Some(one) = u32::try_from(log2_scale).ok().and_then(|scale| 1_i64.checked_shl(scale)).filter(|one| *one > 0) else {
            return steps;
        };
        if steps < one.saturating_mul(self.suppress_below.into()) {
            return 0;
        }
        let base = one.saturating_mul(self.round_to.max(1).into());
        if self.round_to <= 1 {
            return steps;
        }
        steps.saturating_add(base / 2).div_euclid(base).saturating_mul(base)
    }

    /// What rounding adds to a count's variance: that of a number spread evenly over the base.
    fn variance(&self) -> f64 {
        if self.round_to > 1 { f64::from(self.round_to).powi(2) / 12.0 } else { 0.0 }
    }
}

/// One statistic of a finished round, all sites added up. This is what `next` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Released {
    /// Its name in the round.
    pub name: String,
    /// Noised sums over all sites.
    pub values: Vec<f64>,
    /// Standard deviation of the noise on each value, all sites together, with what rounding adds to it.
    pub noise_sd: f64,
    /// How many sites' sums are in it.
    pub sites: u32,
}

/// A release that is not one of this round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the release does not have the shape of its round: {0}")]
pub struct ReleaseError(&'static str);

impl ReleaseError {
    /// A stable code for logs and scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "release-malformed"
    }
}

impl Release {
    /// Reads a release and checks that it answers this round of this job with exactly the noise that was agreed.
    ///
    /// # Errors
    /// Another job, round or site; other statistics; other noise; unreadable bytes.
    pub fn parse(
        bytes: &[u8],
        job: JobId,
        round: u32,
        site: &Name,
        asked: &Round,
        calibrated: &[Calibrated],
    ) -> Result<Self, ReleaseError> {
        let release: Self = serde_json::from_slice(bytes).map_err(|_| ReleaseError("it is not a release document"))?;
        if release.job != job || release.round != round || release.site != *site {
            return Err(ReleaseError("it names another job, round or site"));
        }
        if release.statistics.len() != asked.statistics().len() || asked.statistics().len() != calibrated.len() {
            return Err(ReleaseError("it has another number of statistics"));
        }
        for ((noised, statistic), calibrated) in release.statistics.iter().zip(asked.statistics()).zip(calibrated) {
            if noised.name != statistic.name || noised.steps.len() != statistic.length as usize {
                return Err(ReleaseError("a statistic has another name or length"));
            }
            if let NoiseScale::Choice { k, .. } = calibrated.noise
                && !is_choice(&noised.steps, k)
            {
                return Err(ReleaseError("a choice is of another number of entries"));
            }
            if noised.log2_scale != calibrated.released_log2_scale() || noised.noise != calibrated.noise {
                return Err(ReleaseError("a statistic is on another grid or carries other noise"));
            }
        }
        Ok(release)
    }
}

/// Whether that many entries are 1 and the others 0.
#[must_use]
pub fn is_choice(steps: &[i64], k: u32) -> bool {
    let chosen = steps.iter().filter(|step| **step == 1).count();
    chosen as u64 == u64::from(k) && steps.iter().all(|step| matches!(step, 0 | 1))
}

/// No release of this round is longer than this, in bytes of JSON: names as long as they can be, 20 characters and a comma a number.
#[must_use]
pub fn most_bytes(round: &RoundRequest) -> usize {
    const HEAD: usize = 512;
    const STATISTIC: usize = 160;
    let statistic = |statistic: &crate::round::Statistic| {
        // A control character is six characters in JSON.
        let name = statistic.name.len().saturating_mul(6);
        (statistic.length as usize).saturating_mul(21).saturating_add(name).saturating_add(STATISTIC)
    };
    round.statistics.iter().map(statistic).fold(HEAD, usize::saturating_add)
}

/// Adds up the releases of one round, all of which [`Release::parse`] has checked against the same round.
#[must_use]
pub fn combine(round: &Round, releases: &[Release]) -> Vec<Released> {
    let sites = u32::try_from(releases.len()).unwrap_or(u32::MAX);
    let combined = round.statistics().iter().enumerate().map(|(index, statistic)| {
        let parts = || releases.iter().filter_map(|release| Some((release.statistics.get(index)?, release.rounding)));
        let mut values = vec![0.0; statistic.length as usize];
        let mut variance = 0.0;
        for (part, rounding) in parts() {
            let step = f64::from(-part.log2_scale).exp2();
            variance += (part.noise.sd_steps() * step).powi(2);
            variance += rounding.filter(|_| Rounding::is_for(&statistic.bound)).map_or(0.0, |rounding| rounding.variance());
            for (sum, &steps) in values.iter_mut().zip(&part.steps) {
                *sum += to_real(steps, part.log2_scale);
            }
        }
        Released { name: statistic.name.clone(), values, noise_sd: variance.sqrt(), sites }
    });
    combined.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::calibrate;
    use crate::job::{Budget, Noise};
    use crate::round::{Bound, Partitioning, Statistic};
    use crate::scores::Source;

    #[test]
    fn small_counts_are_suppressed_and_others_rounded() {
        let one = 1_i64 << 20;
        let rounding = Rounding { suppress_below: 10, round_to: 5 };
        for (count, want) in [(-3.0, 0), (0.0, 0), (9.99, 0), (10.0, 10), (12.4, 10), (12.6, 15), (1_003.0, 1_005)] {
            #[expect(clippy::cast_possible_truncation, reason = "small")]
            let steps = (count * 1_048_576.0_f64) as i64;
            assert_eq!(rounding.apply(steps, 20), want * one, "{count}");
        }
        assert_eq!(Rounding { suppress_below: 10, round_to: 1 }.apply(11 * one + 7, 20), 11 * one + 7);
        assert_eq!(rounding.apply(-5, -3), -5, "a grid without whole numbers");
        assert_eq!(rounding.apply(i64::MAX, 20), Rounding { suppress_below: 0, round_to: 5 }.apply(i64::MAX, 20));
        assert!(Rounding::is_for(&Bound::Range { lower: 0.0, upper: 2.0 }) && Rounding::is_for(&Bound::OneCell));
        assert!(!Rounding::is_for(&Bound::Range { lower: 0.0, upper: 2.5 }) && !Rounding::is_for(&Bound::L2 { radius: 1.0 }));
        let (round, _, release) = setting();
        let plain = combine(&round, std::slice::from_ref(&release))[0].noise_sd;
        let rounded = combine(&round, &[Release { rounding: Some(rounding), ..release }])[0].noise_sd;
        assert!((rounded.powi(2) - plain.powi(2) - 25.0 / 12.0).abs() < 1e-9);
    }

    fn setting() -> (Round, Vec<Calibrated>, Release) {
        let statistic = Statistic { name: "n".into(), length: 2, bound: Bound::OneCell, weight: 1.0, source: Source::Given };
        let round = Round::check(RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: true })
            .unwrap();
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
        let calibrated = calibrate(&round, Partitioning::Each, budget).unwrap();
        let statistics = vec![NoisedStatistic {
            name: "n".into(),
            log2_scale: 20,
            noise: calibrated[0].noise,
            steps: vec![3 << 20, -1 << 19],
        }];
        let release = Release {
            job: JobId::from_bytes([1; 16]),
            round: 0,
            site: "a".parse().unwrap(),
            charged_rho_pico: 1,
            rounding: None,
            statistics,
            salt: Salt::from_bytes([2; 32]),
        };
        (round, calibrated, release)
    }

    #[test]
    fn releases_of_sites_add_up() {
        let (round, calibrated, release) = setting();
        let all = combine(&round, &[release.clone(), release.clone(), release.clone(), release]);
        assert_eq!(all[0].values, [12.0, -2.0]);
        assert_eq!(all[0].sites, 4);
        assert!((all[0].noise_sd - 2.0 * calibrated[0].noise_sd()).abs() < 1e-9);
    }

    /// What a site stores and sends: other bytes would be another format.
    #[test]
    fn the_document_has_golden_bytes() {
        let (.., release) = setting();
        let golden = concat!(
            r#"{"job":"01010101010101010101010101010101","round":0,"site":"a","charged_rho_pico":1,"statistics":[{"name":"n","#,
            r#""log2_scale":20,"noise":{"gaussian":{"sigma":4874393}},"steps":[3145728,-524288]}],"salt":""#,
            r#"0202020202020202020202020202020202020202020202020202020202020202"}"#
        );
        assert_eq!(serde_json::to_string(&release).unwrap(), golden);
        assert_eq!(serde_json::from_str::<Release>(golden).unwrap(), release);
        for (from, to) in [
            ("\"round\":0", "\"round\":0,\"more\":1"),
            ("\"round\":0,", ""),
            ("-524288", "-0.5"),
            (r#","salt":""#, r#","pepper":""#),
            ("0202\"", "02\""),
            ("3145728", "9223372036854775808"),
        ] {
            assert!(serde_json::from_str::<Release>(&golden.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn a_release_of_another_shape_is_refused() {
        let (round, calibrated, release) = setting();
        let parse = |release: &Release| {
            Release::parse(
                &serde_json::to_vec(release).unwrap(),
                JobId::from_bytes([1; 16]),
                0,
                &"a".parse().unwrap(),
                &round,
                &calibrated,
            )
        };
        assert_eq!(parse(&release).unwrap(), release);
        let bad = |change: &dyn Fn(&mut Release)| {
            let mut changed = release.clone();
            change(&mut changed);
            assert_eq!(parse(&changed).unwrap_err().code(), "release-malformed");
        };
        bad(&|r| r.round = 1);
        bad(&|r| r.site = "b".parse().unwrap());
        bad(&|r| r.statistics.clear());
        bad(&|r| r.statistics[0].steps.push(0));
        bad(&|r| r.statistics[0].log2_scale = 19);
        bad(&|r| r.statistics[0].noise = NoiseScale::Gaussian { sigma: 1 });
        bad(&|r| r.statistics[0].name = "m".into());
    }

    #[test]
    fn a_choice_is_of_as_many_entries_as_were_asked_for_and_votes_add_up() {
        let statistic = Statistic {
            name: "n".into(),
            length: 4,
            bound: Bound::Top { k: 2, lower: -1.0, upper: 1.0 },
            weight: 1.0,
            source: Source::Given,
        };
        let round = Round::check(RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: true })
            .unwrap();
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(round.share_ppb());
        let calibrated = calibrate(&round, Partitioning::Each, budget).unwrap();
        let (job, site) = (JobId::from_bytes([1; 16]), "a".parse::<Name>().unwrap());
        let parsed = |steps: &[i64]| {
            let noised = NoisedStatistic { name: "n".into(), log2_scale: 0, noise: calibrated[0].noise, steps: steps.to_vec() };
            let (rounding, salt) = (None, Salt::from_bytes([2; 32]));
            let statistics = vec![noised];
            let release = Release { job, round: 0, site: site.clone(), charged_rho_pico: 1, rounding, statistics, salt };
            Release::parse(&serde_json::to_vec(&release).unwrap(), job, 0, &site, &round, &calibrated)
        };
        for wrong in [[1, 0, 0, 0], [1, 1, 1, 0], [2, 0, 0, 0], [1, 1, 1, -1]] {
            assert_eq!(parsed(&wrong).unwrap_err().code(), "release-malformed", "{wrong:?}");
        }
        let both = combine(&round, &[parsed(&[1, 1, 0, 0]).unwrap(), parsed(&[0, 1, 0, 1]).unwrap()]);
        assert_eq!((both[0].values.as_slice(), both[0].noise_sd), ([1.0, 2.0, 0.0, 1.0].as_slice(), 0.0));
    }
}
