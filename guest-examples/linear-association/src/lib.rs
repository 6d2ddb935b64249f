//! Which variants move a number? A score test for each, with covariates, in two rounds; or in three, where the sites first choose the
//! strongest few and are asked about those alone.

use vestibule_sdk::matrix::{Symmetric, add_outer, outer_norm, packed_len};
use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub outcome: String,
    #[serde(default)]
    pub covariates: Vec<String>,
    pub catalogue: String,
    pub slices: Vec<Slice>,
    /// Only so many variants, those that look strongest, are asked about.
    pub choose: Option<u32>,
}

/// Fitted without any variant. All rounds but the first know it.
#[derive(Serialize, Deserialize)]
pub struct Null {
    beta: Vec<f64>,
    /// Of the residuals.
    sd: f64,
    /// Each variant's mean dosage.
    means: Vec<f64>,
    /// The variants that are asked about, once they are chosen.
    chosen: Option<Vec<u32>>,
}

pub struct LinearAssociation;

impl Analysis for LinearAssociation {
    type Params = Params;
    type State = (Design, Option<Null>);

    fn plan(params: &Params) -> Result<Plan> {
        if params.choose == Some(0) {
            return Err("params: `choose` must be 1 or more".into());
        }
        let plan = Plan::new().columns(&params.covariates).column(&params.outcome);
        Ok(plan.slices(&params.catalogue, &params.slices).rounds(if params.choose.is_some() { 3 } else { 2 }))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let (design, variants) = (Design::new(shape, &params.covariates)?, &shape.variants);
        let (k, d) = (design.width(), variants.len());
        let Some(first) = history.rounds().first() else {
            let norm = outer_norm(design.norm_squared() + 1.0);
            let round = Round::with((design, None)).share(0.2).l2("moments", packed_len(k + 1), norm);
            let public = variants.iter().all(|variant| variant.frequency.is_some());
            return Ok(if public { round } else { round.sums("dosages", d, -1.0..=1.0) }.into());
        };
        let moments = Symmetric::from_packed(k + 1, first.get("moments")?.values.clone());
        let (people, noise) = (moments.at(0, 0).max(2.0), first.get("moments")?.noise_sd);
        let (beta, squares) = moments.least_squares(noise * (k as f64).sqrt()).ok_or("the covariates cannot be told apart")?;
        let sd = (squares / people).clamp((noise / people).clamp(1e-6, 1.0), 1.0).sqrt();
        let means: Vec<f64> = match first.values("dosages") {
            Ok(sums) => sums.iter().map(|sum| (1.0 + sum.value / people).clamp(0.02, 1.98)).collect(),
            Err(_) => variants.iter().filter_map(|variant| variant.frequency.map(|p| 2.0 * p)).collect(),
        };
        // 2pq is the variance of a dosage, 2pq (1 - 2pq) that of its square around the mean.
        let variances: Vec<f64> = means.iter().map(|mean| (mean * (1.0 - mean / 2.0)).max(1e-3)).collect();
        let choose = params.choose.map(|choose| choose.min(d as u32));
        let chosen = match (choose, history.rounds().get(1)) {
            // A variant's score and its opposite: either may be among the largest. Few people's are beyond 1.
            (Some(choose), None) => {
                let state = (design, Some(Null { beta, sd, means, chosen: None }));
                return Ok(Round::with(state).share(0.4).top("choice", 2 * d, choose, -1.0..=1.0).into());
            }
            (Some(choose), Some(votes)) => Some(most_voted(&votes.get("choice")?.values, d, choose as usize)),
            (None, _) => None,
        };
        let asked: Vec<usize> =
            chosen.as_ref().map_or_else(|| (0..d).collect(), |chosen| chosen.iter().map(|at| *at as usize).collect());
        let variances: Vec<f64> = asked.iter().map(|at| variances[*at]).collect();
        let Some(last) = history.rounds().get(if choose.is_some() { 2 } else { 1 }) else {
            let spread: f64 = variances.iter().map(|v| v * (1.0 - v)).sum();
            let norm = (variances.iter().sum::<f64>() + 2.0 * spread.sqrt()).sqrt();
            let share = if choose.is_some() { 0.4 } else { 0.8 };
            let state = (design, Some(Null { beta, sd, means, chosen }));
            return Ok(Round::with(state).share(share).l2("scores", asked.len(), norm).into());
        };
        let shown: Vec<Variant> = asked.iter().map(|at| variants[*at].clone()).collect();
        let scale = sd * shape.column(&params.outcome)?.half_width();
        let (slope, rest) = pvalue::clipped_normal(1.0);
        let beta = |(score, v): (Estimate, &f64)| score.with_error((people * v * rest).sqrt()) * (scale / (people * v * slope));
        let betas: Vec<Estimate> = last.values("scores")?.into_iter().zip(&variances).map(beta).collect();
        let z = betas.iter().map(|beta| beta.value / beta.sd);
        let table = Table::of_variants("Associations", &shown).estimates("beta", &betas).numbers("z", z.clone());
        let table = table.numbers("-log10 p", z.map(pvalue::normal_minus_log10));
        let chart = Chart::manhattan("Manhattan", "Associations", "contig", "position", "-log10 p");
        // Whether chosen or not, all d were looked at.
        let chart = chart.level(-(0.05 / d as f64).log10());
        let of = if choose.is_some() {
            format!("{} of {d} variants, those that the sites chose", shown.len())
        } else {
            format!("{d} variants")
        };
        let summary = format!("{of}, about {people:.0} people.");
        Ok(Report::new(summary).table(table).chart(chart).into())
    }

    fn contribute(params: &Params, (design, null): &Self::State, individual: &Individual, out: &mut Contributions) {
        let (Some(mut row), Some(y)) = (design.row(individual), individual.scaled(&params.outcome)) else { return };
        let Some(Null { beta, sd, means, chosen }) = null else {
            row.push(y);
            if out.has("dosages") {
                kernels::centre(individual.dosages(), &vec![1.0; individual.dosages().len()], 1.0, out.values("dosages"));
            }
            return add_outer(out.values("moments"), &row, 1.0);
        };
        let fitted: f64 = row.iter().zip(beta).map(|(x, b)| x * b).sum();
        let residual = ((y - fitted) / sd).clamp(-1.0, 1.0);
        match chosen {
            _ if out.has("choice") => {
                let (up, down) = out.values("choice").split_at_mut(means.len());
                kernels::centre(individual.dosages(), means, residual, up);
                down.iter_mut().zip(up).for_each(|(down, up)| *down = -*up);
            }
            None => kernels::centre(individual.dosages(), means, residual, out.values("scores")),
            Some(chosen) => {
                let pick = |at: &u32| Some((*individual.dosages().get(*at as usize)?, *means.get(*at as usize)?));
                let (dosages, means): (Vec<u8>, Vec<f64>) = chosen.iter().filter_map(pick).unzip();
                kernels::centre(&dosages, &means, residual, out.values("scores"));
            }
        }
    }
}

/// The variants with the most votes, for going up or for going down, in catalogue order.
fn most_voted(votes: &[f64], variants: usize, choose: usize) -> Vec<u32> {
    let (up, down) = votes.split_at(variants);
    let mut order: Vec<usize> = (0..variants).collect();
    order.sort_by(|a, b| (up[*b] + down[*b]).total_cmp(&(up[*a] + down[*a])));
    let mut chosen: Vec<u32> = order.into_iter().take(choose).map(|at| at as u32).collect();
    chosen.sort_unstable();
    chosen
}

vestibule_sdk::analysis!(LinearAssociation);
