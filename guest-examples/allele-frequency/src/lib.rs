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
    /// What a missing genotype is taken for: the public frequency, or 1/2 where there is none.
    type State = Vec<f64>;

    fn plan(params: &Params) -> Result<Plan> {
        if params.slices.is_empty() {
            return Err("params: `slices` is empty, name at least one".into());
        }
        Ok(Plan::new().slices(&params.catalogue, &params.slices))
    }

    fn next(_: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let (variants, d) = (&shape.variants, shape.variants.len() as f64);
        let Some(done) = history.last() else {
            // A genotype 0, 1, 2 is (g - 1, het) = (-1, 0), (0, 1) or (1, 0): norm 1, so the heterozygotes cost no extra noise.
            // A millionth more, so that the grid's rounding of the bound clips nobody.
            let round = Round::with(variants.iter().map(|variant| variant.frequency.unwrap_or(0.5)).collect());
            let round =
                round.count("people").l2("genotypes", 2 * variants.len(), d.sqrt() * 1.000_001).weight(d.sqrt().max(4.0));
            return Ok(round.into());
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

    fn contribute(_: &Params, expected: &Vec<f64>, individual: &Individual, out: &mut Contributions) {
        out.add("people", 1.0);
        let (alleles, hets) = out.values("genotypes").split_at_mut(expected.len());
        for (((dosage, p), allele), het) in individual.dosages().iter().zip(expected).zip(alleles).zip(hets) {
            (*allele, *het) = match dosage {
                0..=2 => (f64::from(*dosage) - 1.0, f64::from(u8::from(*dosage == 1))),
                _ => (2.0 * p - 1.0, 2.0 * p * (1.0 - p)),
            };
        }
    }
}

vestibule_sdk::analysis!(AlleleFrequency);
