//! What can be seen beside the numbers of a release, where it followed from people: how many groups
//! of rows there are, how much memory a round takes, how long a choice takes, what a digest is of.
//!
//! *In*: datasets that differ in one person. *Out*: whether any of these differs.

use std::time::Instant;

use anyhow::{Context as _, Result};
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{Budget, JobId, Noise};
use vestibule_protocol::release::{NoisedStatistic, Release};
use vestibule_protocol::round::{Bound, Partitioning, Round, RoundRequest, Statistic};
use vestibule_protocol::salt::{SALT_BYTES, Salt};
use vestibule_protocol::scores::Source;
use vestibule_runtime::trial;

use super::lab::{Ask, Lab, Person};
use super::naked::Manner;
use super::{Defect, Row};

/// Rows of one group of the dataset, as it was when groups were cut by who is there.
const GROUP_ROWS: u32 = 1_024;
/// Entries of a choice.
const CHOICES: u32 = 200_000;
const TIMES: usize = 7;

pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    Ok(vec![groups(lab)?, memory(lab)?, choice(lab)?, digest(lab)?])
}

/// Numbers that everybody gives, and what the peak of a round's memory may move by: what an allocator
/// does, not one vector in ten.
const NUMBERS: u32 = 20_000;
const PEAK_KIB: u64 = 8 << 10;

/// Few people and many, each of whom gives many numbers.
fn memory(lab: &Lab) -> Result<Row> {
    let ask = Ask::of(serde_json::json!({ "how": "subsets", "cells": NUMBERS })).fuel(20_000_000);
    let peak = |count: u32| -> Result<u64> {
        let cohort = lab.cohort(Lab::people(count), 1)?;
        let round = lab.round(&ask, &cohort.dataset)?;
        let manner = Manner { reuse: false, fuel: ask.limits.fuel_per_partition, together: false };
        // The peak begins anew (proc(5), clear_refs).
        std::fs::write("/proc/self/clear_refs", "5")?;
        let before = kib("VmRSS")?;
        if lab.defect == Some(Defect::HeldRows) {
            lab.naked.run(round.state(), &cohort.people, manner)?;
        } else {
            lab.run(&ask, &cohort)?;
        }
        Ok(kib("VmHWM")?.saturating_sub(before))
    };
    // The first round has what later ones find.
    peak(30)?;
    let (few, many) = (peak(30)?, peak(300)?);
    let observed = format!("a round takes {} MiB with 30 people, {} with 300", few >> 10, many >> 10);
    Ok(Row::new(
        "see from the memory that a round takes how many people are in it",
        "length",
        "all that they gave, until it is added up",
        (many.abs_diff(few) <= PEAK_KIB, observed),
    ))
}

/// Of this process (proc(5), status).
fn kib(name: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of the kernel's")?;
    Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").trim().parse()?)
}

/// One person more than fits as many groups.
fn groups(lab: &Lab) -> Result<Row> {
    let groups = |count: u32| -> Result<usize> {
        if lab.defect == Some(Defect::GroupsOfPeople) {
            return Ok(count.div_ceil(GROUP_ROWS) as usize);
        }
        let person = |n| Person { id: format!("p{n}"), man: false, age: 0.0, measured: 0.0 };
        Ok(lab.cohort((0..count).map(person).collect(), 1)?.dataset.row_groups())
    };
    let (fewer, more) = (groups(GROUP_ROWS)?, groups(GROUP_ROWS + 1)?);
    let observed = format!("{fewer} groups of rows without one person, {more} with");
    Ok(Row::new(
        "count the parts of a round, or its tasks on a cluster",
        "length",
        "one more, where one person more is there",
        (fewer == more, observed),
    ))
}

/// Sums of which all are as good, and of which one is far better.
fn choice(lab: &Lab) -> Result<Row> {
    let bound = Bound::Top { k: 1, lower: 0.0, upper: 1.0 };
    let statistic = Statistic { name: "x".into(), length: CHOICES, bound, weight: 1.0, source: Source::Given };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: false };
    let round = Round::check(request)?;
    let budget = Budget::new(Noise::Laplace, 1.0, 0.0)?.round(round.share_ppb());
    let calibrated = calibrate(&round, Partitioning::Each, budget)?;
    let steps = calibrated.first().context("a statistic")?.log2_scale;
    let one = 1_i64 << steps.clamp(0, 40);
    let even = vec![0; CHOICES as usize];
    let mut steep = even.clone();
    *steep.last_mut().context("entries")? = one.saturating_mul(1_000);
    let time = |sums: &Vec<i64>| -> Result<f64> {
        let mut times: Vec<f64> = vec![];
        for _ in 0..TIMES {
            let began = Instant::now();
            if lab.defect == Some(Defect::TryingChoice) {
                tried(sums, one)?;
            } else {
                trial::noised(&calibrated, std::slice::from_ref(sums))?;
            }
            times.push(began.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        times.get(TIMES / 2).copied().context("times")
    };
    let (even, steep) = (time(&even)?, time(&steep)?);
    let ratio = even.max(steep) / even.min(steep).max(1e-9);
    let observed = format!("{:.0} ms where all are as good, {:.0} where one is far better", even * 1e3, steep * 1e3);
    Ok(Row::new(
        "tell from the time of a choice how the sums lie",
        "time",
        "candidates are tried until one is accepted: as often as the sums say",
        (ratio < 2.0, observed),
    ))
}

/// The exponential mechanism by trying: uniform candidates, each accepted by how good it is.
fn tried(sums: &[i64], one: i64) -> Result<usize> {
    let most = sums.iter().max().copied().context("sums")?;
    let mut numbers = vec![0_u8; 16];
    loop {
        getrandom::fill(&mut numbers).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
        let [candidate, coin] = [0..8, 8..16].map(|range| {
            numbers.get(range).and_then(|bytes| bytes.first_chunk::<8>()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
        });
        let candidate = (candidate % sums.len() as u64) as usize;
        let short = most.saturating_sub(sums.get(candidate).copied().unwrap_or(most));
        #[expect(clippy::cast_precision_loss, reason = "a defect")]
        let accepted = (coin as f64 / u64::MAX as f64) < (-(short as f64) / (2.0 * one as f64)).exp();
        if accepted {
            return Ok(candidate);
        }
    }
}

/// Anyone who has the log's leaf and knows what a release looks like tries all numbers that it may have.
fn digest(lab: &Lab) -> Result<Row> {
    let ask = Ask::of(serde_json::json!({ "how": "own cell", "cells": 1 }));
    let seen = lab.run(&ask, &lab.cohort(Lab::people(2), 1)?)?;
    let release = |steps: i64, salt: [u8; SALT_BYTES]| -> Result<Digest> {
        let statistic = NoisedStatistic {
            name: "x".to_owned(),
            log2_scale: seen.calibrated.log2_scale,
            noise: seen.calibrated.noise,
            steps: vec![steps],
        };
        let (job, salt, statistics) = (JobId::from_bytes([0; 16]), Salt::from_bytes(salt), vec![statistic]);
        let release = Release { job, round: 0, site: "s".parse()?, charged_rho_pico: 1, rounding: None, statistics, salt };
        Ok(Digest::of(&serde_json::to_vec(&release)?))
    };
    let mut salt = [0; SALT_BYTES];
    if lab.defect != Some(Defect::BareDigest) {
        getrandom::fill(&mut salt).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    }
    const STEPS: i64 = 20_000;
    let held = release(7_919, salt)?;
    let mut found = 0;
    for steps in 0..STEPS {
        found += u32::from(release(steps, [0; SALT_BYTES])? == held);
    }
    let observed = format!("{found} of {STEPS} values fit the digest of a release that a person held back");
    Ok(Row::new("try all values until one fits the digest of a denied release", "log", "the value", (found == 0, observed)))
}
