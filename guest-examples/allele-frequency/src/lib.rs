//! Allele frequencies of catalogue slices, with a test of Hardy-Weinberg proportions.

use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub catalogue: String,
    pub slices: Vec<Slice>,
}

pub struct AlleleFrequency;

impl Analysis for AlleleFrequency {
    type Params = Params;
    type State = ();

    fn plan(params: &Params) -> Result<Plan> {
        if params.slices.is_empty() {
            return Err("params: `slices` is empty, name at least one".into());
        }
        Ok(Plan::new().slices(&params.catalogue, &params.slices))
    }

    fn next(_: &Params, shape: &Shape, history: &History) -> Result<Step> {
        let (variants, d) = (&shape.variants, shape.variants.len() as f64);
        let Some(done) = history.last() else {
            // A genotype 0, 1, 2 is (g - 1, het) = (-1, 0), (0, 1) or (1, 0): norm 1, so the heterozygotes cost no extra noise. A missing
            // one is taken for what the public frequency expects, or 1/2 where there is none.
            let expected = |at: usize| variants[at].frequency.unwrap_or(0.5);
            let alleles = Scores::of(variants.len(), |at, g| g.map_or(2.0 * expected(at), f64::from) - 1.0);
            let het = |at| 2.0 * expected(at) * (1.0 - expected(at));
            let hets = Scores::of(variants.len(), |at, g| g.map_or(het(at), |g| f64::from(u8::from(g == 1))));
            // A thousandth more, so that no rounding clips anybody.
            let bound = Bound::L2(d.sqrt() * 1.001);
            let round = Round::new().count("people").genotypes("genotypes", 1, alleles.and(hets), bound);
            return Ok(round.weight(d.sqrt().max(4.0)).without_dosages().into());
        };
        let (people, sums) = (done.value("people")?, done.values("genotypes")?);
        let (alleles, hets) = sums.split_at(variants.len());
        let frequency: Vec<Estimate> = alleles.iter().map(|sum| sum.over(people) * 0.5 + 0.5).collect();
        let het: Vec<Estimate> = hets.iter().map(|sum| sum.over(people)).collect();
        let n = people.value.max(1.0);
        // The inbreeding test: het - 2pq has the variance (2pq)^2 / n by sampling, and that of its noise.
        let (mut p_values, mut reliable) = (Vec::new(), Vec::new());
        for (p, h) in frequency.iter().zip(&het) {
            let expected = 2.0 * p.value * (1.0 - p.value);
            let sampling = (expected * expected / n).max(0.25 / (n * n));
            let noise = h.sd.powi(2) + (2.0 * (1.0 - 2.0 * p.value) * p.sd).powi(2);
            p_values.push(pvalue::chi_square((h.value - expected).powi(2) / (sampling + noise), 1.0));
            reliable.push(if noise < sampling && n * p.value.min(1.0 - p.value) >= 5.0 { "yes" } else { "no" });
        }
        let table = Table::of_variants("Allele frequencies", variants)
            .estimates("frequency", &frequency)
            .numbers("public", variants.iter().map(|variant| variant.frequency.unwrap_or(f64::NAN)))
            .numbers("heterozygotes", het.iter().map(|het| het.value))
            .numbers("HWE p", p_values)
            .texts("HWE reliable", reliable);
        let (title, name) = ("Allele frequencies with 95 % error bars", "Allele frequencies");
        let chart = if variants.iter().all(|variant| variant.frequency.is_some()) {
            Chart::points(title, name, "public", "frequency").error_bars().diagonal(0.0, 1.0)
        } else {
            Chart::points(title, name, "position", "frequency").error_bars()
        };
        Ok(Report::new(format!("{d} variants, about {people} people.")).table(table).chart(chart).into())
    }

    fn contribute(_: &Params, (): &(), _: &Individual, out: &mut Contributions) {
        out.add("people", 1.0);
        // The host multiplies: each person's genotypes count once.
        out.add("genotypes", 1.0);
    }
}

vestibule_sdk::analysis!(AlleleFrequency);
