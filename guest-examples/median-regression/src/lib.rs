//! Median regression: each block of people fits its own by least absolute deviations, and the blocks' coefficients are averaged.

use vestibule_sdk::matrix::{Symmetric, add_outer, packed_len};
use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A number.
    pub outcome: String,
    pub covariates: Vec<String>,
    /// Blocks of people at each site. More blocks, less noise; smaller blocks, worse fits.
    pub blocks: u32,
    /// Coefficients, on the design's scales and with the outcome on -1 to 1, are cut to this magnitude; 1 unless said.
    pub clip: Option<f64>,
}

pub struct MedianRegression;

/// Steps of the fit. Each halves what is left, or better.
const STEPS: usize = 25;

/// The coefficients with the least sum of |y - x b|, by weighted least squares whose weights are 1 / |y - x b| (Schlossmacher 1973).
/// `None` where there are too few people, or they are too alike.
pub fn fit(width: usize, rows: &[(Vec<f64>, f64)]) -> Option<Vec<f64>> {
    if rows.len() < 2 * width {
        return None;
    }
    let mut beta = vec![0.0; width];
    let residual = |beta: &[f64], (x, y): &(Vec<f64>, f64)| y - x.iter().zip(beta).map(|(x, b)| x * b).sum::<f64>();
    for step in 0..STEPS {
        let (mut curvature, mut moment) = (vec![0.0; packed_len(width)], vec![0.0; width]);
        for row in rows {
            // The first step is ordinary least squares.
            let weight = if step == 0 { 1.0 } else { 1.0 / residual(&beta, row).abs().max(1e-4) };
            add_outer(&mut curvature, &row.0, weight);
            moment.iter_mut().zip(&row.0).for_each(|(sum, x)| *sum += weight * x * row.1);
        }
        beta = Symmetric::from_packed(width, curvature).solve(&moment)?;
    }
    beta.iter().all(|b| b.is_finite()).then_some(beta)
}

impl Analysis for MedianRegression {
    type Params = Params;
    type State = Design;

    fn plan(params: &Params) -> Result<Plan> {
        if params.blocks < 2 || params.clip.is_some_and(|clip| !(clip > 0.0 && clip.is_finite())) {
            return Err("params: `blocks` must be 2 or more, and `clip` above 0".into());
        }
        Ok(Plan::new().columns(&params.covariates).column(&params.outcome).blocks(params.blocks))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let (design, outcome) = (Design::new(shape, &params.covariates)?, shape.column(&params.outcome)?);
        let (k, clip) = (design.width(), params.clip.unwrap_or(1.0));
        let Some(done) = history.last() else {
            let round = Round::with(design).sum("fitted", 0.0..=1.0).weight(0.5);
            let round = round.sums("coefficients", k, -clip..=clip).weight(4.0);
            return Ok(round.sums("squares", k, 0.0..=clip * clip).into());
        };
        let fitted = done.value("fitted")?;
        let (sums, squares) = (done.values("coefficients")?, done.values("squares")?);
        // Blocks are samples of people: how far their fits lie apart says how good the mean of them is.
        let apart = |sum: &Estimate, square: &Estimate| {
            let mean = sum.value / fitted.value;
            ((square.value / fitted.value - mean * mean).max(0.0) / fitted.value).sqrt()
        };
        let means: Vec<Estimate> =
            sums.iter().zip(&squares).map(|(sum, square)| sum.over(fitted).with_error(apart(sum, square))).collect();
        let values: Vec<f64> = means.iter().map(|mean| mean.value).collect();
        let covariance = Symmetric::build(k, |r, c| if r == c { means[r].sd.powi(2) } else { 0.0 });
        let mut estimates: Vec<Estimate> =
            design.in_own_units(&values, &covariance).into_iter().map(|own| own * outcome.half_width()).collect();
        if let Some(intercept) = estimates.first_mut() {
            *intercept = outcome.unscaled(*intercept * (1.0 / outcome.half_width()));
        }
        let table = Table::new("Coefficients").texts("term", design.terms()).estimates("median", &estimates);
        let chart = Chart::dots("Median regression with 95 % error bars", "Coefficients", "term", "median").error_bars();
        Ok(Report::new(format!("The mean of fits in about {fitted} blocks.")).table(table).chart(chart).into())
    }

    /// A plan for blocks never comes here.
    fn contribute(_: &Params, _: &Design, _: &Individual, _: &mut Contributions) {}

    fn contribute_block(params: &Params, design: &Design, block: &[Individual], out: &mut Contributions) {
        let row = |individual: &Individual| Some((design.row(individual)?, individual.scaled(&params.outcome)?));
        let rows: Vec<(Vec<f64>, f64)> = block.iter().filter_map(row).collect();
        let Some(beta) = fit(design.width(), &rows) else { return };
        let clip = params.clip.unwrap_or(1.0);
        out.add("fitted", 1.0);
        out.reals("coefficients", beta.iter().map(|b| b.clamp(-clip, clip)).collect());
        out.reals("squares", beta.iter().map(|b| b.clamp(-clip, clip).powi(2)).collect());
    }
}

vestibule_sdk::analysis!(MedianRegression);
