//! Researchers who play by the rules and ask for what singles people out: attacks that were published, re-created as guests.
//!
//! A guess at a fair coin is right with a probability of at most e^epsilon / (1 + e^epsilon), however clever: 0.73 at epsilon 1. An
//! attack that does better than that, beyond luck, has broken the promise.

use std::path::Path;

use anyhow::{Context as _, Result};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Limits, Noise};
use vestibule_protocol::round::Plan;
use vestibule_runtime::costs::Costs;
use vestibule_runtime::dataset::{DataFolder, Dataset, Importers, Same, StoreKey, ingest};
use vestibule_runtime::partitions::Partitions;
use vestibule_runtime::trial;
use vestibule_sandbox::{Shape, Step};

use super::Row;
use super::lab::{Ask, Cohort, Lab, Person};
use super::naked::Manner;
use super::statistics::lower;
use crate::analysis::build;
use crate::compiled;

const CHANNEL: &str = "release";
/// Releases of each attack on one person.
const TIMES: u32 = 4_000;

pub(crate) fn rows(lab: &Lab, root: &Path) -> Result<Vec<Row>> {
    let people = lab.cohort(Lab::people(24), 1)?;
    Ok(vec![extraction(lab, &people)?, differencing(lab, &people)?, reconstruction(lab)?, membership(lab, root)?])
}

/// Whether guesses did better than epsilon 1 allows.
fn within(right: u64, all: u64) -> (bool, String) {
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let share = right as f64 / all as f64;
    let best = 1.0_f64.exp() / (1.0 + 1.0_f64.exp());
    (
        lower(right, all) <= best,
        format!("{:.0} % of guesses are right, where epsilon 1 allows {:.0} %", share * 100.0, best * 100.0),
    )
}

fn first(values: &[f64]) -> f64 {
    values.first().copied().unwrap_or(f64::NAN)
}

/// DataSHIELD issue 250: a vector of zeros and a single one gives out a row.
fn extraction(lab: &Lab, people: &Cohort) -> Result<Row> {
    let (mut right, mut all) = (0, 0);
    for target in people.people.iter().step_by(3).take(2).chain(people.people.iter().skip(1).step_by(3).take(2)) {
        let ask = Ask::of(serde_json::json!({ "how": "single out", "target": target.age }));
        let value = first(&lab.run(&ask, people)?.exact);
        let guesses = lab.draws(TIMES, 1.0)?.into_iter().map(|noise| (value + noise > 0.5) == target.man);
        right += guesses.filter(|right| *right).count() as u64;
        all += u64::from(TIMES);
    }
    Ok(Row::new("ask for one person's row (DataSHIELD issue 250)", CHANNEL, "the row", within(right, all)))
}

/// DataSHIELD issue 251: two sums that differ by one person, each allowed.
fn differencing(lab: &Lab, people: &Cohort) -> Result<Row> {
    let (mut right, mut all) = (0, 0);
    for target in people.people.iter().take(2) {
        let ask = |how: &str, target: f64| Ask::of(serde_json::json!({ "how": how, "target": target })).epsilon(0.5);
        let everybody = first(&lab.run(&ask("all but", -1.0), people)?.exact);
        let others = first(&lab.run(&ask("all but", target.age), people)?.exact);
        let (one, other) = (lab.draws(TIMES, 0.5)?, lab.draws(TIMES, 0.5)?);
        let guesses = one.iter().zip(&other).map(|(one, other)| ((everybody + one) - (others + other) > 0.5) == target.man);
        right += guesses.filter(|right| *right).count() as u64;
        all += u64::from(TIMES);
    }
    Ok(Row::new(
        "subtract two sums that differ by one person, at epsilon 1/2 each (DataSHIELD issue 251)",
        CHANNEL,
        "the person's value",
        within(right, all),
    ))
}

/// Sums over random subsets, solved for everybody's secret (Dinur and Nissim 2003; Huth 2023 by covariances with chosen vectors).
fn reconstruction(lab: &Lab) -> Result<Row> {
    const SUMS: u32 = 512;
    // A guess without knowledge is right for half.
    let person = |(n, person): (usize, Person)| Person { man: n % 2 == 0, ..person };
    let people = lab.cohort(Lab::people(96).into_iter().enumerate().map(person).collect(), 1)?;
    let ask = Ask::of(serde_json::json!({ "how": "subsets", "cells": SUMS })).fuel(3_000_000);
    let ask = Ask { noise: Noise::Gaussian, ..ask };
    let seen = lab.run(&ask, &people)?;
    // Whom each sum is over is the attacker's own choice: what a man of each age would count for.
    let round = lab.round(&ask, &people.dataset)?;
    let men: Vec<Person> = people.people.iter().map(|person| Person { man: true, ..person.clone() }).collect();
    let manner = Manner { reuse: false, fuel: ask.limits.fuel_per_partition, together: false };
    let mut columns: Vec<Vec<f64>> = lab.naked.run(round.state(), &men, manner)?.into_iter().flatten().collect();
    // And an offset, should all sums have one.
    columns.push(vec![1.0; SUMS as usize]);
    let right = |sums: &[f64]| {
        let secrets = least_squares(&columns, sums);
        let guesses = secrets.iter().zip(&people.people).filter(|(secret, person)| (**secret > 0.5) == person.man);
        guesses.count() as u64
    };
    let all = people.people.len() as u64;
    let unprotected = format!("{} of {all} people's secrets", right(&seen.exact));
    Ok(Row::new(
        "solve 512 sums over chosen subsets for 96 people's secrets (Dinur and Nissim 2003, Huth 2023)",
        CHANNEL,
        unprotected,
        within(right(&seen.released), all),
    ))
}

/// The x for which the sum of x_i times column i is nearest to `sums`: conjugate gradients on the normal equations (Hestenes and
/// Stiefel 1952).
fn least_squares(columns: &[Vec<f64>], sums: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let forward = |x: &[f64]| {
        let mut out = vec![0.0; sums.len()];
        for (column, x) in columns.iter().zip(x) {
            out.iter_mut().zip(column).for_each(|(out, value)| *out += value * x);
        }
        out
    };
    let back = |y: &[f64]| columns.iter().map(|column| dot(column, y)).collect::<Vec<f64>>();
    let mut x = vec![0.0; columns.len()];
    let mut residual = back(sums);
    let mut direction = residual.clone();
    let mut norm = dot(&residual, &residual);
    for _ in 0..columns.len() {
        let ahead = forward(&direction);
        let step = norm / dot(&ahead, &ahead).max(f64::MIN_POSITIVE);
        x.iter_mut().zip(&direction).for_each(|(x, direction)| *x += step * direction);
        let image = back(&ahead);
        residual.iter_mut().zip(&image).for_each(|(residual, image)| *residual -= step * image);
        let next = dot(&residual, &residual);
        if next < 1e-12 {
            break;
        }
        let ratio = next / norm;
        direction.iter_mut().zip(&residual).for_each(|(direction, residual)| *direction = residual + ratio * *direction);
        norm = next;
    }
    x
}

/// Homer and others 2008, on real genotypes: whose genotype is nearer to a study's frequencies than to a reference's took part.
fn membership(lab: &Lab, root: &Path) -> Result<Row> {
    let study = Study::new(lab, &root.join("cli/demo-data"))?;
    let wasm = lab.path().join("allele-frequency.wasm");
    build::build(&root.join("guest-examples/allele-frequency"), Some(&wasm), &mut |_| {})?;
    let component = std::fs::read(&wasm)?;
    let slices: Vec<_> = (1..=22)
        .filter(|contig| study.inside.info().catalogues.iter().any(|c| c.contigs().any(|known| known == contig.to_string())))
        .map(|contig| serde_json::json!({ "contig": contig.to_string(), "start": 1, "end": 400_000_000 }))
        .collect();
    let params = serde_json::json!({ "catalogue": "panel", "slices": slices }).to_string();
    let limits = Limits::default();
    let analysis = compiled::sandbox(false)?.load(&component)?;
    let plan = analysis.plan(&params, limits)?;
    let (variants, columns) = study.inside.info().shape(&plan.columns, &plan.variants)?;
    let Step::Round(round) = analysis.next(&params, &Shape { variants, columns }, &[], limits)? else {
        anyhow::bail!("an analysis of frequencies that asks for nothing")
    };
    let partitions = Partitions::of(plan.partitioning, study.inside.info().approximate_size);
    let calibrated = calibrate(&round, plan.partitioning, Budget::new(Noise::Gaussian, 1.0, 1e-6)?.round(round.share_ppb()))?;
    let selection = study.inside.select(&plan.columns, &plan.variants)?.of(&round);
    let mut loaded = lab.guests()?.load(&component)?;
    loaded.plan(&params, limits)?;
    let crews = loaded.prepare(&round, limits, &selection, partitions, Costs::USUAL)?.crews(1)?;
    let (exact, released) = trial::release(&study.inside, &selection, partitions, crews, &calibrated)?;
    let (inside, outside) = (genotypes(&study.inside, &plan)?, genotypes(&study.outside, &plan)?);
    let everybody: Vec<&Vec<u8>> = inside.iter().chain(&outside).collect();
    let reference: Vec<f64> = (0..plan_length(&inside)).map(|at| frequency(&everybody, at)).collect();
    let right = |sums: &[Vec<f64>]| -> (u64, u64) {
        let people = sums.first().map_or(1.0, |people| first(people)).max(1.0);
        let found: Vec<f64> = sums.get(1).into_iter().flatten().map(|sum| sum / people * 0.5 + 0.5).collect();
        let score = |genotype: &Vec<u8>| -> f64 {
            let each = genotype.iter().zip(&reference).zip(&found).filter(|((dosage, _), _)| **dosage <= 2);
            each.map(|((dosage, reference), found)| {
                let own = f64::from(*dosage) / 2.0;
                (own - reference).abs() - (own - found).abs()
            })
            .sum()
        };
        let scores = |people: &[Vec<u8>]| people.iter().map(score).collect::<Vec<f64>>();
        let (inside, outside) = (scores(&inside), scores(&outside));
        let mut sorted: Vec<f64> = inside.iter().chain(&outside).copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        let above = |scores: &[f64]| scores.iter().filter(|score| **score >= median).count() as u64;
        let all = (inside.len() + outside.len()) as u64;
        (above(&inside) + (outside.len() as u64).saturating_sub(above(&outside)), all)
    };
    let (unprotected, all) = right(&exact);
    let unprotected = format!("{} of {all} people are told apart", unprotected);
    let (right, all) = right(&released);
    let name = format!("tell from {} allele frequencies who took part (Homer 2008)", reference.len());
    Ok(Row::new(name, CHANNEL, unprotected, within(right, all)))
}

fn plan_length(genotypes: &[Vec<u8>]) -> usize {
    genotypes.first().map_or(0, Vec::len)
}

fn frequency(people: &[&Vec<u8>], at: usize) -> f64 {
    let known = people.iter().filter_map(|genotype| genotype.get(at)).filter(|dosage| **dosage <= 2);
    let (sum, count) = known.fold((0.0, 0.0), |(sum, count), dosage| (sum + f64::from(*dosage), count + 2.0));
    if count == 0.0 { 0.5 } else { sum / count }
}

/// Half of the demo's Europeans took part, by the toss of a coin.
struct Study {
    inside: Dataset,
    outside: Dataset,
}

impl Study {
    fn new(lab: &Lab, data: &Path) -> Result<Self> {
        let source = lab.path().join("study");
        std::fs::create_dir_all(&source)?;
        for file in ["dictionary.toml", "panel.catalogue.tsv"] {
            std::fs::copy(data.join(file), source.join(file))?;
        }
        std::fs::copy(data.join("leiden/genotypes.vcf.gz"), source.join("genotypes.vcf.gz"))?;
        let table = std::fs::read_to_string(data.join("leiden/people.csv"))?;
        let (head, rows) = table.split_once('\n').context("a table without rows")?;
        let rows: Vec<&str> = rows.lines().collect();
        let mut coins = vec![0_u8; rows.len()];
        getrandom::fill(&mut coins).map_err(|error| anyhow::anyhow!("randomness: {error}"))?;
        let recipe = std::fs::read_to_string(data.join("DATASET.toml"))?;
        let dir = DataFolder::from(Dir::open_ambient_dir(&source, ambient_authority())?);
        let half = |name: &str, wanted: u8| -> Result<Dataset> {
            let chosen: Vec<&str> =
                rows.iter().zip(&coins).filter(|(_, coin)| **coin % 2 == wanted).map(|(row, _)| *row).collect();
            std::fs::write(source.join("people.csv"), format!("{head}\n{}\n", chosen.join("\n")))?;
            let recipe = format!("{}individuals = \"table\"\n", recipe.replace("\"cohort\"", &format!("\"{name}\"")));
            let key = StoreKey::from_bytes([3; 32]);
            ingest((&dir, &recipe), (&dir, &key), &Importers::this_program(), Same::TakeOver, &mut |_| {})?;
            Ok(Dataset::open(&dir, &name.parse()?, &key)?)
        };
        Ok(Self { inside: half("inside", 0)?, outside: half("outside", 1)? })
    }
}

/// Everybody's dosages, as the attacker holds them of the people he asks about.
fn genotypes(dataset: &Dataset, plan: &Plan) -> Result<Vec<Vec<u8>>> {
    let selection = dataset.select(&plan.columns, &plan.variants)?;
    let mut all = Vec::new();
    for group in 0..dataset.row_groups() {
        let rows = dataset.read(&selection, group)?;
        for index in 0..rows.len() {
            let (mut values, mut dosages) = (vec![], vec![]);
            rows.fill(index, &mut values, &mut dosages);
            all.push(dosages);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_solves_what_can_be_solved() {
        let columns = vec![vec![1.0, 0.0, 1.0, 0.0], vec![1.0, 1.0, 0.0, 1.0], vec![0.0, 1.0, 1.0, 0.0]];
        let found = least_squares(&columns, &[1.0, 1.0, 2.0, 0.0]);
        for (found, want) in found.iter().zip([1.0, 0.0, 1.0]) {
            assert!((found - want).abs() < 1e-9, "{found}");
        }
    }
}
