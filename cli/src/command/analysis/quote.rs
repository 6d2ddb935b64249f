//! `vestibule analysis quote`: the noise of a job's first round, before anything is spent; also of several jobs that differ in one parameter.
//!
//! *In*: a component, its parameters, the public shape of a dataset, a budget, how many people. *Out*: for each statistic how far noise moves its sum and
//! its mean. Made by the calibration that sites draw by. *Refuses*: what a site would.

use anyhow::Result;
use serde_json::{Value, json};
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::round::{Bound, Partitioning, Plan, Statistic};
use vestibule_runtime::costs::Costs;
use vestibule_runtime::delay::{Delay, Load};
use vestibule_runtime::partitions::Partitions;
use vestibule_sandbox::{Shape, Step};

use super::{Amount, guest, share};
use crate::failure::{Failure, coded};
use crate::show;

/// What is asked.
pub(super) struct Question<'a, S> {
    pub(super) analysis: &'a vestibule_sandbox::Analysis,
    pub(super) shape_of: S,
    pub(super) individuals: u64,
    pub(super) sites: u32,
    pub(super) amount: &'a Amount,
}

/// A job's first round.
struct Quoted {
    rounds: u32,
    /// In per cent.
    share: f64,
    statistics: Vec<Line>,
    delay: std::time::Duration,
    /// How many contributions a mean divides by: individuals, or blocks.
    counted: f64,
    blocks: Option<u32>,
}

/// One statistic of it.
struct Line {
    statistic: Statistic,
    /// Of a sum over all sites.
    sd: f64,
    /// Of a choice.
    choice_scale: Option<f64>,
}

impl<S: Fn(&Plan) -> Result<Shape>> Question<'_, S> {
    /// With these parameters.
    pub(super) fn answer(&self, params: &str, json: bool) -> Result<()> {
        let quoted = self.quoted(params)?;
        if json {
            println!("{}", quoted.document());
            return Ok(());
        }
        let rows = quoted.statistics.iter().map(|line| {
            let [sum, mean] = line.errors(quoted.counted);
            vec![line.statistic.name.clone(), line.statistic.length.to_string(), bound(&line.statistic), sum, mean]
        });
        let who = if quoted.blocks.is_some() { "one block gives" } else { "one individual gives" };
        println!(
            "round 1 of at most {}, {:.1} % of the budget; {} at {} sites\n{}\na site's release leaves some {} after \
             its round, to hide how long one individual can take at these limits{}",
            quoted.rounds,
            quoted.share,
            self.people(&quoted),
            self.sites,
            show::grid(&["statistic", "entries", who, "95 % of a sum", "95 % of a mean"], rows),
            show::span(quoted.delay),
            show::at_most(quoted.delay)
        );
        Ok(())
    }

    /// With each of these values of one parameter, beside each other.
    pub(super) fn compare(&self, params: &str, vary: &str, json: bool) -> Result<()> {
        let malformed = |why: &str| Failure::input("usage", format!("--vary {vary}: {why}"));
        let (name, values) = vary.split_once('=').ok_or_else(|| malformed("it is NAME=VALUE,VALUE,..."))?;
        let given: Value =
            serde_json::from_str(params).map_err(|error| Failure::input("usage", format!("--params: {error}")))?;
        let Value::Object(given) = given else { return Err(malformed("--params is no JSON object")) };
        let mut quotes = Vec::new();
        for value in values.split(',') {
            let mut params = given.clone();
            // A number where it is one, else a text.
            let typed = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            params.insert(name.to_owned(), typed.clone());
            quotes.push((value, typed, self.quoted(&Value::Object(params).to_string())?));
        }
        if json {
            let documents = quotes.iter().map(|(_, value, quoted)| {
                let mut document = quoted.document();
                document.as_object_mut().map(|document| document.insert(name.to_owned(), value.clone()));
                document
            });
            println!("{}", json!({ "vary": name, "quotes": documents.collect::<Vec<_>>() }));
            return Ok(());
        }
        let mut rows = Vec::new();
        for (value, _, quoted) in &quotes {
            for (at, line) in quoted.statistics.iter().enumerate() {
                let [_, mean] = line.errors(quoted.counted);
                let first = |text: String| if at == 0 { text } else { String::new() };
                let (entries, delay) = (line.statistic.length.to_string(), show::span(quoted.delay));
                let (value, people) = (first((*value).to_owned()), first(self.people(quoted)));
                rows.push(vec![value, people, line.statistic.name.clone(), entries, mean, first(delay)]);
            }
        }
        println!(
            "{}",
            show::grid(
                &[name, "at each site", "statistic", "entries", "95 % of a mean", "release leaves after"],
                rows.into_iter()
            )
        );
        Ok(())
    }

    fn quoted(&self, params: &str) -> Result<Quoted> {
        let (budget, limits) = (self.amount.budget()?, self.amount.limits());
        let plan = self.analysis.plan(params, limits).map_err(guest)?;
        let shape = (self.shape_of)(&plan)?;
        let step = self.analysis.next(params, &shape, &[], limits).map_err(guest)?;
        let Step::Round(round) = step else {
            return Err(Failure::input("no-round", "the analysis asks for no round at all: there is nothing to quote"));
        };
        round.fits(shape.variants.len(), plan.partitioning).map_err(|error| coded(error.code(), error))?;
        let budget = budget.round(round.share_ppb());
        let calibrated = calibrate(&round, plan.partitioning, budget).map_err(|error| coded(error.code(), error))?;
        // What `prepare` refuses, no site runs.
        let code_bytes = self.analysis.runner(&round, limits).map_err(guest)?.code_bytes();
        let dosages = if round.shows_dosages() { shape.variants.len() } else { 0 };
        let inputs = dosages.saturating_add(shape.columns.len());
        let partitions = Partitions::of(plan.partitioning, self.at_each_site());
        let load = Load::new(limits, inputs, partitions, code_bytes);
        let delay = Delay::of(&round, budget.time(), load, Costs::USUAL).expected();
        let root = f64::from(self.sites).sqrt();
        let line = |(statistic, calibrated): (&Statistic, &vestibule_protocol::calibration::Calibrated)| Line {
            statistic: statistic.clone(),
            sd: calibrated.noise_sd() * root,
            choice_scale: calibrated.choice_scale(),
        };
        let statistics = round.statistics().iter().zip(&calibrated).map(line).collect();
        let blocks = match plan.partitioning {
            Partitioning::Each => None,
            Partitioning::Blocks(blocks) => Some(blocks),
        };
        #[expect(clippy::cast_precision_loss, reason = "numbers of people are far below 2^53")]
        let counted = blocks.map_or(self.individuals.max(1) as f64, |blocks| f64::from(blocks) * f64::from(self.sites));
        Ok(Quoted { rounds: plan.max_rounds, share: share(round.share_ppb()), statistics, delay, counted, blocks })
    }

    fn at_each_site(&self) -> u64 {
        self.individuals / u64::from(self.sites.max(1))
    }

    fn people(&self, quoted: &Quoted) -> String {
        match quoted.blocks {
            None => format!("{} individuals", self.individuals),
            Some(blocks) => {
                format!("{blocks} blocks of about {} individuals", self.at_each_site() / u64::from(blocks.max(1)))
            }
        }
    }
}

impl Quoted {
    fn document(&self) -> Value {
        let statistics = self.statistics.iter().map(|line| {
            let Line { statistic: Statistic { name, length, bound, .. }, sd, .. } = line;
            json!({ "name": name, "length": length, "bound": bound, "noise_sd": sd, "noise_sd_of_mean": sd / self.counted })
        });
        json!({ "rounds": self.rounds, "budget_share": self.share / 100.0, "statistics": statistics.collect::<Vec<_>>(),
            "delay_seconds": self.delay.as_secs_f64(), "blocks": self.blocks })
    }
}

impl Line {
    /// Of a sum, and of a mean.
    fn errors(&self, counted: f64) -> [String; 2] {
        match self.choice_scale {
            // One of two sums that differ by this is preferred at e to 1 by each site.
            Some(scale) => {
                [format!("told apart from {}", show::number(scale)), format!("from {}", show::number(scale / counted))]
            }
            None => [self.sd, self.sd / counted].map(|sd| format!("± {}", show::number(1.96 * sd))),
        }
    }
}

fn bound(statistic: &Statistic) -> String {
    match statistic.bound {
        Bound::Range { lower, upper } => format!("{lower} to {upper} an entry"),
        Bound::OneCell => "1 in one cell".to_owned(),
        Bound::L2 { radius } => format!("norm up to {}", show::number(radius)),
        Bound::L1 { radius } => format!("sum up to {}", show::number(radius)),
        Bound::Top { k, lower, upper } => format!("{lower} to {upper} an entry; only which {k} sums are largest is told"),
    }
}
