//! People made up for a test, column by column, and the loop that runs an analysis over them.
//!
//! *In*: columns, variants, one entry per person in each. *Out*: an [`Outcome`]. *Refuses*: columns of different lengths; a plan
//! that asks for a column or slice that the cohort does not have; a budget or a number of rounds that is overdrawn.

use serde_json::Value as Json;

use super::outcome::{Outcome, RoundRun};
use super::reduce::{Reducer, sensitivity};
use super::{Gauss, Noise};
use crate::analysis::Analysis;
use crate::contract::{
    Bound, ColumnInfo, Individual, Kind, Partitioning, Plan, Released, Round, Shape, Source, Step, Value, Variant, VariantSlice,
};
use crate::driver::{self, Prepared};
use crate::error::{Error, Result};

/// A number of people with the same columns and variants. The catalogue has any name.
#[derive(Debug, Clone, Default)]
pub struct Cohort {
    columns: Vec<(ColumnInfo, Vec<Value>)>,
    variants: Vec<(Variant, Vec<u8>)>,
}

impl Cohort {
    /// No columns, no people.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number column with its public bounds; `None` is missing.
    #[must_use]
    pub fn number(self, name: &str, lower: f64, upper: f64, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        self.column(ColumnInfo::number(name, lower, upper), values.into_iter().map(|x| x.map_or(Value::Missing, Value::Number)))
    }

    /// Adds a flag column.
    #[must_use]
    pub fn flag(self, name: &str, values: impl IntoIterator<Item = Option<bool>>) -> Self {
        self.column(ColumnInfo::flag(name), values.into_iter().map(|x| x.map_or(Value::Missing, Value::Flag)))
    }

    /// Adds a column of levels; the values are indices into them.
    #[must_use]
    pub fn levels(self, name: &str, levels: &[&str], values: impl IntoIterator<Item = Option<u32>>) -> Self {
        let info = ColumnInfo::levels(name, levels.iter().copied());
        self.column(info, values.into_iter().map(|x| x.map_or(Value::Missing, Value::Level)))
    }

    /// Adds a column of any kind.
    #[must_use]
    pub fn column(mut self, info: ColumnInfo, values: impl IntoIterator<Item = Value>) -> Self {
        self.columns.push((info, values.into_iter().collect()));
        self
    }

    /// Adds a variant with everybody's dosages (0, 1, 2, or 255 where missing).
    #[must_use]
    pub fn variant(mut self, variant: Variant, dosages: impl IntoIterator<Item = u8>) -> Self {
        self.variants.push((variant, dosages.into_iter().collect()));
        self
    }

    /// Runs the whole analysis.
    ///
    /// # Errors
    /// What the analysis says, or what the host would refuse, in words.
    pub fn run<A: Analysis>(&self, params: &Json, noise: Noise) -> Result<Outcome> {
        let json = params.to_string();
        let plan = driver::plan::<A>(&json)?;
        let (shape, people) = self.shown(&plan)?;
        let partitions = in_partitions(people, plan.partitioning);
        let mut gauss = Gauss::new(if let Noise::Gaussian { seed, .. } = noise { seed } else { 0 });
        let (mut history, mut rounds, mut spent) = (Vec::new(), Vec::new(), 0.0);
        loop {
            let round = match driver::next::<A>(&json, &shape, history.clone())? {
                Step::Report(report) => return Ok(Outcome { report, rounds }),
                Step::Round(round) => round,
            };
            spent += round.budget_share;
            if history.len() >= plan.max_rounds as usize {
                return Err(Error::new(format!("the plan allows {} rounds, `next` asks for another", plan.max_rounds)));
            }
            if spent > 1.0 + 1e-9 {
                return Err(Error::new(format!("the rounds' shares of the budget add up to {spent}, at most 1 is allowed")));
            }
            let run = one_round::<A>(round, &partitions, plan.partitioning, noise, &mut gauss)?;
            history.push(run.released.clone());
            rounds.push(run);
        }
    }

    /// What the plan asks for: the public shape and each person's row.
    fn shown(&self, plan: &Plan) -> Result<(Shape, Vec<Individual>)> {
        let find = |name: &String| {
            let found = self.columns.iter().find(|(info, _)| info.name == *name);
            found.ok_or_else(|| Error::new(format!("the plan asks for column `{name}`, which the cohort does not have")))
        };
        let columns = plan.columns.iter().map(find).collect::<Result<Vec<_>>>()?;
        let mut variants = Vec::new();
        for slice in &plan.variants {
            let before = variants.len();
            variants.extend(self.variants.iter().filter(|(variant, _)| within(variant, slice)));
            if variants.len() == before {
                return Err(Error::new(format!("the cohort has no variant in {}:{}-{}", slice.contig, slice.start, slice.end)));
            }
        }
        let lengths = columns.iter().map(|(_, values)| values.len()).chain(variants.iter().map(|(_, dosages)| dosages.len()));
        let people = lengths.clone().next().unwrap_or(0);
        if let Some(other) = lengths.clone().find(|length| *length != people) {
            return Err(Error::new(format!("the cohort's columns have {people} and {other} people")));
        }
        let person = |at: usize| Individual {
            values: columns.iter().map(|(info, values)| shown_value(info, &values[at])).collect(),
            dosages: variants.iter().map(|(_, dosages)| dosages[at]).collect(),
        };
        let shape = Shape {
            variants: variants.iter().map(|(variant, _)| variant.clone()).collect(),
            columns: columns.iter().map(|(info, _)| info.clone()).collect(),
        };
        Ok((shape, (0..people).map(person).collect()))
    }
}

/// A level outside the column's levels would never pass ingest: it is shown as missing.
fn shown_value(info: &ColumnInfo, value: &Value) -> Value {
    match (&info.kind, value) {
        (Kind::Levels(levels), Value::Level(index)) if *index as usize >= levels.len() => Value::Missing,
        _ => *value,
    }
}

fn within(variant: &Variant, slice: &VariantSlice) -> bool {
    variant.contig == slice.contig && (slice.start..slice.end).contains(&variant.position)
}

/// 1 for the k largest entries with Gumbel noise, 0 for the others: the exponential mechanism (Durfee and Rogers 2019).
fn top(sums: &[f64], k: u32, scale: f64, gauss: &mut Gauss) -> Vec<f64> {
    let mut scores: Vec<(f64, usize)> = sums
        .iter()
        .enumerate()
        .map(|(at, sum)| (sum - scale * (-gauss.uniform().clamp(1e-300, 1.0 - 1e-16).ln()).ln(), at))
        .collect();
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut votes = vec![0.0; sums.len()];
    scores.iter().take(k as usize).for_each(|(_, at)| votes[*at] = 1.0);
    votes
}

/// Everybody alone, or in blocks that are about as a site's keyed hash would make them.
fn in_partitions(people: Vec<Individual>, partitioning: Partitioning) -> Vec<Vec<Individual>> {
    let Partitioning::Blocks(count) = partitioning else { return people.into_iter().map(|person| vec![person]).collect() };
    let mut blocks = vec![vec![]; count as usize];
    for (at, person) in (1_u64..).zip(people) {
        let mixed = (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (at << 7)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        blocks[((u128::from(mixed) * u128::from(count)) >> 64) as usize].push(person);
    }
    blocks
}

/// What a site would refuse of sums of genotypes.
fn fits(round: &Round, variants: usize, partitioning: Partitioning) -> Result<()> {
    for statistic in &round.statistics {
        let Source::Genotypes(sums) = &statistic.source else { continue };
        let fail = |why| Err(Error::new(format!("statistic `{}`: {why}", statistic.name)));
        if partitioning != Partitioning::Each {
            return fail("the host multiplies the genotypes of single individuals, not of blocks");
        }
        if variants == 0 || !(sums.scores.len() / 4).is_multiple_of(variants) {
            return fail("there must be scores for each variant of the plan");
        }
    }
    Ok(())
}

fn one_round<A: Analysis>(
    round: Round,
    partitions: &[Vec<Individual>],
    partitioning: Partitioning,
    noise: Noise,
    gauss: &mut Gauss,
) -> Result<RoundRun> {
    let prepared = Prepared::<A>::decode(&round.state)?;
    let people = partitions.iter().flatten().next();
    fits(&round, people.map_or(0, |person| person.dosages.len()), partitioning)?;
    let mut reducer = Reducer::new(&round.statistics);
    for partition in partitions {
        let dosages = partition.first().map(|person| person.dosages.clone()).unwrap_or_default();
        let mut shown = partition.clone();
        if !round.dosages {
            shown.iter_mut().for_each(|person| person.dosages.clear());
        }
        reducer.add(prepared.contribute(shown), &dosages);
    }
    let weights: f64 = round.statistics.iter().map(|statistic| statistic.weight).sum();
    let (sums, clipped, ignored) = reducer.finish();
    let released = round.statistics.iter().zip(sums).map(|(statistic, sum)| {
        if let Bound::Top((k, ..)) = statistic.bound {
            let scale = match noise {
                Noise::Exact => 0.0,
                Noise::Gaussian { rho, .. } => {
                    let rho = rho * round.budget_share * statistic.weight / weights;
                    sensitivity(statistic, partitioning) * (f64::from(k) / (8.0 * rho)).sqrt()
                }
            };
            // One choice over everybody, as if they were at one site.
            return Released { name: statistic.name.clone(), values: top(&sum, k, scale, gauss), noise_sd: 0.0, sites: 1 };
        }
        let (noise_sd, sites) = match noise {
            Noise::Exact => (0.0, 1),
            Noise::Gaussian { rho, sites, .. } => {
                let rho = rho * round.budget_share * statistic.weight / weights;
                (sensitivity(statistic, partitioning) / (2.0 * rho).sqrt() * f64::from(sites).sqrt(), sites)
            }
        };
        let values = sum.into_iter().map(|x| if noise_sd > 0.0 { x + noise_sd * gauss.draw() } else { x }).collect();
        Released { name: statistic.name.clone(), values, noise_sd, sites }
    });
    Ok(RoundRun { released: released.collect(), statistics: round.statistics, clipped, ignored })
}
