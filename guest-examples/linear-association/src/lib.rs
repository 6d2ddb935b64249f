//! Which variants move a number? A score test for each, with covariates, in two rounds.

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
}

/// Fitted without any variant: coefficients, residual sd, and each variant's mean dosage. Round 2 knows it.
type Null = Option<(Vec<f64>, f64, Vec<f64>)>;

pub struct LinearAssociation;

impl Analysis for LinearAssociation {
    type Params = Params;
    type State = (Design, Null);

    fn plan(params: &Params) -> Result<Plan> {
        Ok(Plan::new().columns(&params.covariates).column(&params.outcome).slices(&params.catalogue, &params.slices).rounds(2))
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
        let Some(second) = history.rounds().get(1) else {
            let spread: f64 = variances.iter().map(|v| v * (1.0 - v)).sum();
            let norm = (variances.iter().sum::<f64>() + 2.0 * spread.sqrt()).sqrt();
            return Ok(Round::with((design, Some((beta, sd, means)))).share(0.8).l2("scores", d, norm).into());
        };
        let scale = sd * shape.column(&params.outcome)?.half_width();
        let (slope, rest) = pvalue::clipped_normal(1.0);
        let beta = |(score, v): (Estimate, &f64)| score.with_error((people * v * rest).sqrt()) * (scale / (people * v * slope));
        let betas: Vec<Estimate> = second.values("scores")?.into_iter().zip(&variances).map(beta).collect();
        let z = betas.iter().map(|beta| beta.value / beta.sd);
        let table = Table::of_variants("Associations", variants).estimates("beta", &betas).numbers("z", z.clone());
        let table = table.numbers("-log10 p", z.map(pvalue::normal_minus_log10));
        let chart = Chart::manhattan("Manhattan", "Associations", "contig", "position", "-log10 p");
        let (chart, summary) = (chart.level(-(0.05 / d as f64).log10()), format!("{d} variants, about {people:.0} people."));
        Ok(Report::new(summary).table(table).chart(chart).into())
    }

    fn contribute(params: &Params, (design, null): &Self::State, individual: &Individual, out: &mut Contributions) {
        let (Some(mut row), Some(y)) = (design.row(individual), individual.scaled(&params.outcome)) else { return };
        let Some((beta, sd, means)) = null else {
            row.push(y);
            if out.has("dosages") {
                kernels::centre(individual.dosages(), &vec![1.0; individual.dosages().len()], 1.0, out.values("dosages"));
            }
            return add_outer(out.values("moments"), &row, 1.0);
        };
        let fitted: f64 = row.iter().zip(beta).map(|(x, b)| x * b).sum();
        kernels::centre(individual.dosages(), means, ((y - fitted) / sd).clamp(-1.0, 1.0), out.values("scores"));
    }
}

vestibule_sdk::analysis!(LinearAssociation);
