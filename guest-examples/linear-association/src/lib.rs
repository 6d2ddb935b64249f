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

/// Fitted without any variant: coefficients, and the sd of the residuals. All rounds but the first know it.
type Null = Option<(Vec<f64>, f64)>;

pub struct LinearAssociation;

impl Analysis for LinearAssociation {
    type Params = Params;
    type State = (Design, Null);

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
            let round = if public { round } else { round.genotypes("dosages", 1, Scores::dosages(&vec![1.0; d]), ENTRY) };
            return Ok(round.without_dosages().into());
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
            // A variant's score and its opposite: either may be among the largest. Few people's dosages are further than 1 from the mean.
            (Some(choose), None) => {
                let near = |sign: f64| {
                    let score = |at: usize, g| sign * (f64::from(g) - means[at]).clamp(-1.0, 1.0);
                    Scores::of(d, |at, g: Option<u8>| g.map_or(0.0, |g| score(at, g)))
                };
                let round = Round::with((design, Some((beta, sd)))).share(0.4).without_dosages();
                return Ok(round.genotypes("choice", 1, near(1.0).and(near(-1.0)), Bound::Top((choose, -1.0, 1.0))).into());
            }
            (Some(choose), Some(votes)) => Some(most_voted(&votes.get("choice")?.values, d, choose as usize)),
            (None, _) => None,
        };
        let asked: Vec<usize> = chosen.unwrap_or_else(|| (0..d).collect());
        let centred = Scores::dosages(&means);
        let variances: Vec<f64> = asked.iter().map(|at| variances[*at]).collect();
        let Some(last) = history.rounds().get(if choose.is_some() { 2 } else { 1 }) else {
            let spread: f64 = variances.iter().map(|v| v * (1.0 - v)).sum();
            let norm = (variances.iter().sum::<f64>() + 2.0 * spread.sqrt()).sqrt();
            let share = if choose.is_some() { 0.4 } else { 0.8 };
            // Those that are not asked about count nothing.
            let mut counts = vec![0.0; d];
            asked.iter().for_each(|at| counts[*at] = 1.0);
            let scores = Scores::of(d, |at, g| counts[at] * centred.get(0, at, g));
            let round = Round::with((design, Some((beta, sd)))).share(share).without_dosages();
            return Ok(round.genotypes("scores", 1, scores, Bound::L2(norm)).into());
        };
        let shown: Vec<Variant> = asked.iter().map(|at| variants[*at].clone()).collect();
        let scale = sd * shape.column(&params.outcome)?.half_width();
        let (slope, rest) = pvalue::clipped_normal(1.0);
        let beta = |(score, v): (Estimate, &f64)| score.with_error((people * v * rest).sqrt()) * (scale / (people * v * slope));
        let scores = last.values("scores")?;
        let betas: Vec<Estimate> = asked.iter().map(|at| scores[*at]).zip(&variances).map(beta).collect();
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
        let Some((beta, sd)) = null else {
            row.push(y);
            if out.has("dosages") {
                out.add("dosages", 1.0);
            }
            return add_outer(out.values("moments"), &row, 1.0);
        };
        let fitted: f64 = row.iter().zip(beta).map(|(x, b)| x * b).sum();
        // The host multiplies it with the genotypes.
        out.add(if out.has("choice") { "choice" } else { "scores" }, ((y - fitted) / sd).clamp(-1.0, 1.0));
    }
}

/// Of each entry of a vector of products.
const ENTRY: Bound = Bound::Range((-1.0, 1.0));

/// The variants with the most votes, for going up or for going down, in catalogue order.
fn most_voted(votes: &[f64], variants: usize, choose: usize) -> Vec<usize> {
    let (up, down) = votes.split_at(variants);
    let mut order: Vec<usize> = (0..variants).collect();
    order.sort_by(|a, b| (up[*b] + down[*b]).total_cmp(&(up[*a] + down[*a])));
    order.truncate(choose);
    order.sort_unstable();
    order
}

vestibule_sdk::analysis!(LinearAssociation);
