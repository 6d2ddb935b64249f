//! Which variants move a number? A score test for each, with covariates, in two rounds.

use vestibule_sdk::matrix::{Symmetric, add_outer};
use vestibule_sdk::prelude::*;
use vestibule_sdk::{Variant, VariantSlice, pvalue};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub outcome: String,
    #[serde(default)]
    pub covariates: Vec<String>,
    pub catalogue: String,
    pub slices: Vec<(String, u64, u64)>,
}

/// The null model, and where residuals are clipped; nothing in round 1.
type Null = Option<(Vec<f64>, f64)>;

pub struct LinearAssociation;

fn row(params: &Params, design: &Design, individual: &Individual) -> Option<Vec<f64>> {
    let mut row = design.row(individual)?;
    row.push(individual.scaled(&params.outcome)?);
    Some(row)
}

impl Analysis for LinearAssociation {
    type Params = Params;
    type State = (Design, Null);

    fn plan(params: &Params) -> Result<Plan> {
        let plan = Plan::new().columns(&params.covariates).column(&params.outcome).rounds(2);
        Ok(params
            .slices
            .iter()
            .fold(plan, |plan, (contig, start, end)| plan.variants(VariantSlice::new(&params.catalogue, contig, *start, *end))))
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let (design, variants) = (Design::new(shape, &params.covariates)?, &shape.variants);
        let (width, d) = (design.width() + 1, variants.len());
        let Some(first) = history.rounds().first() else {
            // The triangle of x x' has at most the norm |x|^2; dosages are centred on 1.
            let round = Round::with((design.clone(), None::<(Vec<f64>, f64)>)).share(0.25);
            let round = round.l2("moments", width * (width + 1) / 2, design.norm_squared() + 1.0);
            return Ok(round.sums("dosages", d, -1.0..=1.0).into());
        };
        let moments = Symmetric::from_packed(width, first.values("moments")?.iter().map(|entry| entry.value).collect());
        // Directions that the noise hides are damped: fewer covariates, or a larger epsilon, shows more.
        let noise = first.get("moments")?.noise_sd * (width as f64).sqrt();
        let (xx, _) = moments.leading(width - 1).damped(noise.max(1e-3));
        let xy: Vec<f64> = (0..width - 1).map(|k| moments.at(k, width - 1)).collect();
        let beta = xx.solve(&xy).ok_or("the covariates cannot be told apart")?;
        let people = moments.at(0, 0).max(2.0);
        let explained: f64 = beta.iter().zip(&xy).map(|(b, xy)| b * xy).sum();
        let variance = ((moments.at(width - 1, width - 1) - explained) / people).clamp(1e-6, 1.0);
        let Some(second) = history.rounds().get(1) else {
            // Residuals count up to 2.5 sd; most people have about half of the variants' largest squared norm.
            let round = Round::with((design, Some((beta, 2.5 * variance.sqrt())))).share(0.75);
            return Ok(round.l2("scores", d, 2.0 * variance.sqrt() * (0.6 * d as f64).sqrt()).into());
        };
        let scale = shape.column(&params.outcome)?.half_width();
        let (mut betas, mut z) = (Vec::new(), Vec::new());
        for (score, sum) in second.values("scores")?.iter().zip(first.values("dosages")?) {
            let p = ((1.0 + sum.value / people) / 2.0).clamp(0.01, 0.99);
            let information = people * 2.0 * p * (1.0 - p);
            let sd = (variance * information + score.sd.powi(2)).sqrt();
            betas.push(Estimate::new(score.value, sd) * (scale / information));
            z.push(score.value / sd);
        }
        let text = |of: fn(&Variant) -> &String| variants.iter().map(of).cloned().collect::<Vec<String>>();
        let table = Table::new("Associations")
            .texts("contig", text(|variant| &variant.contig))
            .numbers("position", variants.iter().map(|variant| variant.position as f64))
            .texts("alt", text(|variant| &variant.alternate))
            .estimates("beta", &betas)
            .numbers("z", z.clone())
            .numbers("-log10 p", z.iter().map(|z| pvalue::normal_minus_log10(*z)));
        let chart = Chart::manhattan("Manhattan plot", "Associations", "contig", "position", "-log10 p");
        let summary = format!("{d} variants, about {people:.0} people, residual sd {:.3}.", variance.sqrt() * scale);
        Ok(Report::new(summary).table(table).chart(chart.level(-(0.05 / d as f64).log10())).into())
    }

    fn contribute(params: &Params, (design, null): &(Design, Null), individual: &Individual, out: &mut Contributions) {
        let Some(row) = row(params, design, individual) else { return };
        let centred = |dosage: &u8| if *dosage <= 2 { f64::from(*dosage) - 1.0 } else { 0.0 };
        let Some((beta, clip)) = null else {
            add_outer(out.values("moments"), &row, 1.0);
            return out.reals("dosages", individual.dosages().iter().map(centred).collect());
        };
        let fitted: f64 = row.iter().zip(beta).map(|(x, b)| x * b).sum();
        let residual = (row[row.len() - 1] - fitted).clamp(-clip, *clip);
        out.reals("scores", individual.dosages().iter().map(|dosage| centred(dosage) * residual).collect());
    }
}

vestibule_sdk::analysis!(LinearAssociation);
