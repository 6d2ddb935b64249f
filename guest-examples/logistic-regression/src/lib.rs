//! Logistic regression by gradients that are bounded for each person, preconditioned by a public bound on the curvature.

use vestibule_sdk::matrix::{Symmetric, add_outer};
use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A flag.
    pub outcome: String,
    pub covariates: Vec<String>,
    /// Gradient steps.
    #[serde(default = "eight")]
    pub steps: u32,
}

fn eight() -> u32 {
    8
}

pub struct LogisticRegression;

/// The coefficients so far, on the design's scales; none in the first round.
type Beta = Option<Vec<f64>>;

/// All steps so far: the curvature bound H = X'X / 4 of the first round, then beta += H^-1 gradient (Böhning 1992).
fn beta(design: &Design, history: &History) -> Result<(Vec<f64>, Symmetric)> {
    let first = &history.rounds()[0];
    let packed: Vec<f64> = first.values("curvature")?.iter().map(|entry| entry.value / 4.0).collect();
    // Eigenvalues below what the noise could make are lifted: then no step can be amplified by it.
    let noise = first.get("curvature")?.noise_sd / 4.0 * (design.width() as f64).sqrt();
    let (curvature, _) = Symmetric::from_packed(design.width(), packed).damped(noise.max(1e-3));
    let inverse = curvature.inverse().ok_or("the curvature cannot be inverted")?;
    let mut beta = vec![0.0; design.width()];
    for round in &history.rounds()[1..] {
        let gradient: Vec<f64> = round.values("gradient")?.iter().map(|entry| entry.value).collect();
        beta.iter_mut().zip(inverse.times(&gradient)).for_each(|(b, step)| *b += step);
    }
    Ok((beta, inverse))
}

impl Analysis for LogisticRegression {
    type Params = Params;
    type State = (Design, Beta);

    fn plan(params: &Params) -> Result<Plan> {
        if !(1..=100).contains(&params.steps) {
            return Err("params: `steps` must be 1 to 100".into());
        }
        Ok(Plan::new().columns(&params.covariates).column(&params.outcome).rounds(params.steps + 1))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let design = Design::new(shape, &params.covariates)?;
        let (width, norm) = (design.width(), design.norm_squared());
        if history.is_empty() {
            let round = Round::with((design, None::<Vec<f64>>)).share(0.2).count("people").weight(0.1);
            return Ok(round.l2("curvature", width * (width + 1) / 2, norm).into());
        }
        let (beta, inverse) = beta(&design, history)?;
        if history.len() <= params.steps as usize {
            // A person's gradient x (y - p) has a norm below that of x: nobody is clipped.
            let round = Round::with((design, Some(beta))).share(0.8 / f64::from(params.steps));
            return Ok(round.l2("gradient", width, norm.sqrt()).into());
        }
        // Sampling (by the curvature bound, which is at most four times too small an error near p = 0 or 1) and the last step's noise.
        let noise = history.rounds()[history.len() - 1].get("gradient")?.noise_sd;
        let covariance = Symmetric::build(width, |r, c| {
            let squared: f64 = (0..width).map(|k| inverse.at(r, k) * inverse.at(k, c)).sum();
            inverse.at(r, c) + squared * noise * noise
        });
        let estimates = design.in_own_units(&beta, &covariance);
        let table = Table::new("Coefficients").texts("term", design.terms()).estimates("log odds", &estimates);
        let table = table.numbers("odds ratio", estimates.iter().map(|estimate| estimate.value.exp()));
        let people = history.rounds()[0].value("people")?;
        let summary = format!("About {people} people, {} steps.", params.steps);
        let chart = Chart::dots("Log odds with 95 % error bars", "Coefficients", "term", "log odds").error_bars();
        Ok(Report::new(summary).table(table).chart(chart).into())
    }

    fn contribute(params: &Params, (design, beta): &(Design, Beta), individual: &Individual, out: &mut Contributions) {
        let (Some(row), Some(outcome)) = (design.row(individual), individual.flag(&params.outcome)) else { return };
        let Some(beta) = beta else {
            out.add("people", 1.0);
            return add_outer(out.values("curvature"), &row, 1.0);
        };
        let odds: f64 = row.iter().zip(beta).map(|(x, b)| x * b).sum();
        let residual = f64::from(u8::from(outcome)) - 1.0 / (1.0 + (-odds).exp());
        out.reals("gradient", row.iter().map(|x| x * residual).collect());
    }
}

vestibule_sdk::analysis!(LogisticRegression);
