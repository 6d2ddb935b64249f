//! What releases show of who is in them: guesses by somebody who knows everything else.
//!
//! Each attack is told two datasets that differ by one person, and has to tell their releases apart; what it manages is turned into the
//! smallest epsilon under which that is no wonder. A site must never show more than it charged.

use anyhow::Result;
use vestibule_protocol::digest::Digest;
use vestibule_protocol::job::{Budget, JobId, Limits, Noise};
use vestibule_protocol::log::leaf::{Event, Leaf};
use vestibule_protocol::message::{Answer, Receipt};
use vestibule_protocol::release::{NoisedStatistic, Release};
use vestibule_protocol::round::Partitioning;
use vestibule_protocol::salt::Salt;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::delay::{Delay, Load};
use vestibule_runtime::partitions::Partitions;
use vestibule_sandbox::Individual;

use super::lab::{Ask, Lab, Person};
use super::statistics::{epsilon_of_guesses, game};
use super::{Defect, Row};

const CHANNEL: &str = "release";
const TIME: &str = "time";
/// Releases on each side of a game.
const DRAWS: u32 = 60_000;
/// Moments on each side of a game.
const MOMENTS: usize = 10_000;
/// People of the one-run audit.
const CELLS: u32 = 4_000;

pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    Ok(vec![
        one_number(lab)?,
        two_numbers(lab)?,
        two_releases(lab)?,
        who_is_in(lab)?,
        low_bits(lab)?,
        moment(lab)?,
        slowest(lab)?,
        length(lab)?,
        turned_block(lab)?,
    ])
}

/// Whether a game showed no more than was charged.
fn within(shown: f64, claim: f64) -> (bool, String) {
    (shown <= claim, format!("the best guesses show epsilon {:.2} of {claim:.2}", shown.max(0.0)))
}

fn one_number(lab: &Lab) -> Result<Row> {
    let claim = sums_epsilon(1.0)?;
    let (with, without) = (lab.draws(DRAWS, 1.0)?, lab.draws(DRAWS, 1.0)?);
    let with: Vec<f64> = with.iter().map(|noise| 1.0 + noise).collect();
    let found = within(game(&with, &without), claim);
    Ok(Row::new(
        "tell from one released number whether a person is there",
        CHANNEL,
        "the number says so: epsilon is infinite",
        found,
    ))
}

/// One person turns a block's one cell into another: two steps away, not one.
fn turned_block(lab: &Lab) -> Result<Row> {
    let ask = Ask::of(serde_json::json!({ "how": "fingerprint", "blocks": 8, "cells": DRAWS }));
    let people = Lab::people(200);
    let all = lab.run(&ask, &lab.cohort(people.clone(), 1)?)?;
    let noise = |seen: &super::lab::Seen| -> Vec<f64> {
        let noise: Vec<f64> = seen.released.iter().zip(&seen.exact).map(|(released, exact)| released - exact).collect();
        noise.chunks_exact(2).filter_map(|pair| Some(pair.first()? - pair.last()?)).collect()
    };
    let (mut moved, mut other) = (0.0_f64, vec![]);
    for gone in [3, 50, 199] {
        let mut fewer = people.clone();
        fewer.remove(gone);
        let seen = lab.run(&ask, &lab.cohort(fewer, 1)?)?;
        moved = moved.max(all.exact.iter().zip(&seen.exact).map(|(a, b)| (a - b).abs()).sum());
        other = noise(&seen);
    }
    let with: Vec<f64> = noise(&all).iter().map(|noise| 1.0 + noise).collect();
    let without: Vec<f64> = other.iter().map(|noise| noise - 1.0).collect();
    let claim = sums_epsilon(1.0)?;
    let shown = game(&with, &without);
    let text = format!(
        "one person moves {} of 8 blocks; the best guesses show epsilon {:.2} of {claim:.2}",
        moved / 2.0,
        shown.max(0.0)
    );
    Ok(Row::new(
        "fingerprint whole blocks of people: who is in one, and who moved to another",
        CHANNEL,
        "a person who comes shifts all borders, and turns a block's whole answer around",
        (moved <= 2.0 && moved > 0.0 && shown <= claim, text),
    ))
}

/// What of a job's epsilon its sums have; the rest is for the moment.
fn sums_epsilon(epsilon: f64) -> Result<f64> {
    match Budget::new(Noise::Laplace, epsilon, 0.0)?.round(vestibule_protocol::round::WHOLE_SHARE_PPB).sums() {
        vestibule_protocol::job::Spend::Laplace(epsilon) => Ok(epsilon),
        vestibule_protocol::job::Spend::Gaussian(_) => anyhow::bail!("a Laplace job with Gaussian noise"),
    }
}

fn two_numbers(lab: &Lab) -> Result<Row> {
    let noise = lab.draws(DRAWS, 1.0)?;
    let pairs = || noise.chunks_exact(2).filter_map(|pair| Some(pair.first()? - pair.last()?));
    let (with, without): (Vec<f64>, Vec<f64>) = (pairs().map(|difference| 1.0 + difference).collect(), pairs().collect());
    let found = within(game(&with, &without), sums_epsilon(1.0)?);
    Ok(Row::new(
        "take the difference of two numbers of one release",
        CHANNEL,
        "noise that is drawn once for all goes away",
        found,
    ))
}

fn two_releases(lab: &Lab) -> Result<Row> {
    let (before, after) = (lab.draws(DRAWS, 1.0)?, lab.draws(DRAWS, 1.0)?);
    let differences = || before.iter().zip(&after).map(|(before, after)| after - before);
    let (with, without): (Vec<f64>, Vec<f64>) = (differences().map(|noise| 1.0 + noise).collect(), differences().collect());
    // Both releases were paid for.
    let found = within(game(&with, &without), 2.0 * sums_epsilon(1.0)?);
    Ok(Row::new(
        "take the difference of two releases, one made before a person came",
        CHANNEL,
        "noise that comes from a seed, a fork or a copied machine goes away",
        found,
    ))
}

/// Steinke, Nasr and Jagielski 2023, through the whole path.
fn who_is_in(lab: &Lab) -> Result<Row> {
    let mut coins = vec![0_u8; CELLS as usize];
    getrandom::fill(&mut coins).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
    let inside: Vec<bool> = coins.iter().map(|coin| coin % 2 == 0).collect();
    let person = |(cell, _): (u32, &bool)| Person { id: format!("p{cell}"), man: false, age: f64::from(cell), measured: 0.0 };
    let people: Vec<Person> = (0..).zip(&inside).filter(|(_, inside)| **inside).map(person).collect();
    let ask = Ask::of(serde_json::json!({ "how": "own cell", "cells": CELLS }));
    let seen = lab.run(&ask, &lab.cohort(people, 1)?)?;
    let guesses = seen.released.iter().zip(&inside).filter(|(value, _)| **value != 0.5);
    let (right, all) =
        guesses.fold((0_u64, 0_u64), |(right, all), (value, inside)| (right + u64::from((*value > 0.5) == *inside), all + 1));
    let found = within(epsilon_of_guesses(right, all), sums_epsilon(1.0)?);
    Ok(Row::new("guess of 4,000 people who is in one release, each alone in a cell", CHANNEL, "all guesses are right", found))
}

/// Mironov 2012: low bits of noised floating-point numbers tell what was noised.
fn low_bits(lab: &Lab) -> Result<Row> {
    let ask = Ask::of(serde_json::json!({ "how": "own cell", "cells": 4_000 }));
    let seen = lab.run(&ask, &lab.cohort(Lab::people(50), 1)?)?;
    let scale = f64::from(seen.calibrated.log2_scale).exp2();
    let off = seen.released.iter().filter(|value| (**value * scale).fract() != 0.0).count();
    let found = (off == 0, format!("{off} of {} numbers are off the public grid of whole steps", seen.released.len()));
    Ok(Row::new("read the low bits of noised numbers", CHANNEL, "floating-point noise leaves gaps that name the sum", found))
}

/// The end of a round moves by all that one person can take; the moments at which two such releases leave.
fn moment(lab: &Lab) -> Result<Row> {
    let people = lab.cohort(Lab::people(2), 1)?;
    let round = lab.round(&Ask::how("loop"), &people.dataset)?;
    let (costs, load) = (Costs::USUAL, Load::new(Limits::default(), 3, Partitions::of(Partitioning::Each, 1), 1 << 20));
    // As much as a job may have: half of the noise shows in fewer draws.
    const EPSILON: f64 = 20.0;
    let spend = Budget::new(Noise::Laplace, EPSILON, 0.0)?.round(round.share_ppb()).time();
    let longest_us = load.longest_us(1, costs);
    let delay = Delay::of(&round, spend, load, costs);
    let sample = |late_us: f64| -> Result<Vec<f64>> {
        let draw = |_| {
            let drawn = match lab.defect {
                Some(Defect::NoDelay) => 0.0,
                Some(Defect::HalfLongest) => delay.draw()?.as_secs_f64() * 1e6 / 2.0,
                _ => delay.draw()?.as_secs_f64() * 1e6,
            };
            Ok(late_us + drawn)
        };
        (0..MOMENTS).map(draw).collect()
    };
    let claim = EPSILON - sums_epsilon(EPSILON)?;
    let found = within(game(&sample(longest_us)?, &sample(0.0)?), claim);
    let unprotected = format!("the release comes {:.0} ms later, if that person is there", longest_us / 1e3);
    Ok(Row::new("spend all fuel and memory on a person, so that the release comes later", TIME, unprotected, found))
}

/// The slowest that a guest can make this machine, against what delays reckon with.
fn slowest(lab: &Lab) -> Result<Row> {
    // The longest chain of memory that is walked is written first.
    const FUEL: u64 = 150_000_000;
    let people = lab.cohort(Lab::people(1), 1)?;
    let man =
        [vestibule_sandbox::Value::Level(1), vestibule_sandbox::Value::Number(20.0), vestibule_sandbox::Value::Number(0.0)];
    let mut slowest: (f64, &str) = (0.0, "");
    for how in ["loop", "chase", "divide", "denormals", "copy"] {
        let ask = Ask::how(how).fuel(FUEL);
        let runner = lab.analysis.runner(&lab.round(&ask, &people.dataset)?, ask.limits)?;
        // The quicker of two: what else this machine did is not the guest's.
        let once = || {
            let start = std::time::Instant::now();
            let _ = runner.contribute(&[Individual { values: &man, dosages: &[] }]);
            start.elapsed().as_secs_f64()
        };
        let seconds = (0..2).map(|_| once()).fold(f64::INFINITY, f64::min);
        #[expect(clippy::cast_precision_loss, reason = "a count below 2^53")]
        let ns = seconds * 1e9 / FUEL as f64;
        slowest = if ns > slowest.0 { (ns, how) } else { slowest };
    }
    let limit = Costs::USUAL.fuel_ns;
    let found = (
        slowest.0 <= limit,
        format!("`{}` takes {:.1} ns a unit of fuel; delays reckon with {limit:.0}", slowest.1, slowest.0),
    );
    Ok(Row::new("be slower for a unit of fuel than delays reckon with", TIME, "fuel is not time", found))
}

/// Answers that say most and least.
fn length(lab: &Lab) -> Result<Row> {
    let people = lab.cohort(Lab::people(2), 1)?;
    let ask = Ask::of(serde_json::json!({ "how": "own cell", "cells": 1_000 }));
    let round = lab.round(&ask, &people.dataset)?;
    let seen = lab.run(&ask, &people)?;
    let release = |steps: i64| -> Result<Vec<u8>> {
        let statistic = NoisedStatistic {
            name: "x".to_owned(),
            log2_scale: seen.calibrated.log2_scale,
            noise: seen.calibrated.noise,
            steps: vec![steps; 1_000],
        };
        let job = JobId::from_bytes([0; 16]);
        let (rounding, salt, statistics) = (None, Salt::from_bytes([1; 32]), vec![statistic]);
        let release = Release { job, round: 0, site: "s".parse()?, charged_rho_pico: 1, rounding, statistics, salt };
        Ok(serde_json::to_vec(&release)?)
    };
    let bytes = |release: Option<&[u8]>| {
        let event =
            Event::Settled { job: JobId::from_bytes([0; 16]), round: 0, release: Digest::of(release.unwrap_or_default()) };
        let leaf = String::from_utf8_lossy(&Leaf { at_ms: 1, event, details: None }.to_bytes()).into_owned();
        match Answer::settled(release, round.request(), Receipt { leaf, proof: String::new() }) {
            Answer::Settled { padded, receipt } => padded.len().saturating_add(receipt.leaf.len()),
            _ => 0,
        }
    };
    let (short, long) = (release(0)?, release(i64::MIN)?);
    let lengths = [bytes(None), bytes(Some(&short)), bytes(Some(&long))];
    let same = lengths.iter().all(|length| *length == lengths[0]);
    let found = (same, format!("no release, the shortest and the longest: {lengths:?} bytes"));
    let unprotected = format!("{} bytes or {}, or none", short.len(), long.len());
    Ok(Row::new("read from the length of an answer what is in it", "length", unprotected, found))
}
