//! Logistic regression: each round releases clipped gradients and the curvature, and `next` takes a Newton step.

use vestibule_sdk::matrix::{Symmetric, add_outer, outer_norm, packed_len};
use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// A flag.
    pub outcome: String,
    pub covariates: Vec<String>,
    /// Newton steps, one a round; 4 unless said.
    pub steps: Option<u32>,
    /// Norm that a person's gradient is clipped to, on the design's scales. By default the largest there is: no bias.
    pub clip: Option<f64>,
}

pub struct LogisticRegression;

/// The coefficients after all steps so far, the last inverse curvature, and how much ridge the noise called for in it.
fn newton(design: &Design, history: &History) -> Result<(Vec<f64>, Symmetric, f64)> {
    let k = design.width();
    let (mut beta, mut inverse, mut ridge) = (vec![0.0; k], Symmetric::build(k, |_, _| 0.0), 0.0);
    for round in history.rounds() {
        let curvature = round.get("curvature")?;
        let floor = (curvature.noise_sd * (k as f64).sqrt()).max(1e-3);
        let damped = Symmetric::from_packed(k, curvature.values.clone()).damped(floor);
        (inverse, ridge) = (damped.0.inverse().ok_or("the curvature cannot be inverted")?, damped.1);
        let step = inverse.times(&round.get("gradient")?.values);
        // On these scales an effect of 4 spans the odds of e^8 from bound to bound: no step goes further.
        let longest = step.iter().fold(4.0_f64, |longest, x| longest.max(x.abs()));
        beta.iter_mut().zip(&step).for_each(|(b, step)| *b = (*b + step * 4.0 / longest).clamp(-50.0, 50.0));
    }
    Ok((beta, inverse, ridge))
}

impl Analysis for LogisticRegression {
    type Params = Params;
    type State = (Design, Vec<f64>);

    fn plan(params: &Params) -> Result<Plan> {
        let steps = params.steps.unwrap_or(4);
        if !(1..=20).contains(&steps) || params.clip.is_some_and(|clip| !(clip > 0.0 && clip.is_finite())) {
            return Err("params: `steps` must be 1 to 20, and `clip` above 0".into());
        }
        Ok(Plan::new().columns(&params.covariates).column(&params.outcome).rounds(steps))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let design = Design::new(shape, &params.covariates)?;
        let (beta, inverse, ridge) = newton(&design, history)?;
        let (k, norm, done, steps) = (design.width(), design.norm_squared(), history.len() as i32, params.steps.unwrap_or(4));
        if done < steps as i32 {
            // Only the last step's noise stays in the answer, so each round gets twice the budget of the one before.
            let round = Round::with((design, beta)).share(2.0_f64.powi(done) / (2.0_f64.powi(steps as i32) - 1.0));
            // |y - p| is below 1 and p (1 - p) at most 1/4.
            let round = round.l2("gradient", k, params.clip.map_or(norm.sqrt(), |clip| clip.min(norm.sqrt()))).weight(3.0);
            return Ok(round.l2("curvature", packed_len(k), outer_norm(norm) / 4.0).into());
        }
        // Sampling has the covariance H^-1; the last gradient's noise adds H^-1 H^-1 times its variance.
        let noise = history.last().map_or(Ok(0.0), |last| last.get("gradient").map(|gradient| gradient.noise_sd))?;
        let covariance = Symmetric::build(k, |r, c| inverse.at(r, c) + inverse.squared().at(r, c) * noise * noise);
        let estimates = design.in_own_units(&beta, &covariance);
        let table = Table::new("Coefficients").texts("term", design.terms()).estimates("log odds", &estimates);
        let table = table.numbers("odds ratio", estimates.iter().map(|estimate| estimate.value.exp()));
        let hidden = if ridge > 0.0 { " The noise hides some directions: the error bars are too short." } else { "" };
        let chart = Chart::dots("Log odds with 95 % error bars", "Coefficients", "term", "log odds").error_bars();
        Ok(Report::new(format!("{steps} Newton steps.{hidden}")).table(table).chart(chart).into())
    }

    fn contribute(params: &Params, (design, beta): &Self::State, individual: &Individual, out: &mut Contributions) {
        let (Some(row), Some(outcome)) = (design.row(individual), individual.flag(&params.outcome)) else { return };
        let p = 1.0 / (1.0 + (-row.iter().zip(beta).map(|(x, b)| x * b).sum::<f64>()).exp());
        out.reals("gradient", row.iter().map(|x| x * (f64::from(u8::from(outcome)) - p)).collect());
        add_outer(out.values("curvature"), &row, p * (1.0 - p));
    }
}

vestibule_sdk::analysis!(LogisticRegression);
