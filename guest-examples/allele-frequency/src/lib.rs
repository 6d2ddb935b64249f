//! Allele frequencies of catalogue slices, with a test of Hardy-Weinberg proportions.

use vestibule_sdk::prelude::*;
use vestibule_sdk::{Variant, VariantSlice, pvalue};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub catalogue: String,
    pub slices: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    pub contig: String,
    pub start: u64,
    pub end: u64,
}

pub struct AlleleFrequency;

impl Analysis for AlleleFrequency {
    type Params = Params;
    type State = Vec<f64>;

    fn plan(params: &Params) -> Result<Plan> {
        if params.slices.is_empty() {
            return Err("params: `slices` is empty, name at least one".into());
        }
        let slice = |slice: &Slice| VariantSlice::new(&params.catalogue, &slice.contig, slice.start, slice.end);
        Ok(params.slices.iter().map(slice).fold(Plan::new(), Plan::variants))
    }

    fn next(_: &Params, shape: &Shape, history: &History) -> Result<Step<Self::State>> {
        let variants = &shape.variants;
        let Some(done) = history.last() else {
            // Of a genotype 0, 1, 2 the pair (g - 1, het - 1/2) is (-1, -1/2), (0, 1/2) or (1, -1/2): norm at most sqrt(5)/2.
            let norm = (1.25 * variants.len() as f64).sqrt();
            let expected = variants.iter().map(|variant| variant.frequency.unwrap_or(0.5)).collect::<Vec<f64>>();
            return Ok(Round::with(expected).count("people").weight(0.05).l2("genotypes", 2 * variants.len(), norm).into());
        };
        let (people, sums) = (done.value("people")?, done.values("genotypes")?);
        let (alleles, hets) = sums.split_at(variants.len());
        let frequency: Vec<Estimate> = alleles.iter().map(|sum| sum.over(people) * 0.5 + 0.5).collect();
        let het: Vec<Estimate> = hets.iter().map(|sum| sum.over(people) + 0.5).collect();
        let hwe = |(p, h): (&Estimate, &Estimate)| {
            let expected = 2.0 * p.value * (1.0 - p.value);
            // Sampling and noise; the z of the observed against the expected share of heterozygotes.
            let sampling = expected * (1.0 - expected) / people.value.max(1.0);
            (h.value - expected) / (sampling + h.sd.powi(2) + (2.0 * (1.0 - 2.0 * p.value) * p.sd).powi(2)).sqrt()
        };
        let z: Vec<f64> = frequency.iter().zip(&het).map(hwe).collect();
        let text = |of: fn(&Variant) -> &String| variants.iter().map(of).cloned().collect::<Vec<String>>();
        let table = Table::new("Allele frequencies")
            .texts("contig", text(|variant| &variant.contig))
            .numbers("position", variants.iter().map(|variant| variant.position as f64))
            .texts("ref", text(|variant| &variant.reference))
            .texts("alt", text(|variant| &variant.alternate))
            .estimates("frequency", &frequency)
            .numbers("public", variants.iter().map(|variant| variant.frequency.unwrap_or(f64::NAN)))
            .numbers("heterozygotes", het.iter().map(|het| het.value))
            .numbers("HWE p", z.iter().map(|z| pvalue::normal(*z)));
        let chart =
            Chart::dots("Allele frequencies with 95 % error bars", "Allele frequencies", "position", "frequency").error_bars();
        Ok(Report::new(format!("{} variants, about {people} people.", variants.len())).table(table).chart(chart).into())
    }

    fn contribute(_: &Params, expected: &Vec<f64>, individual: &Individual, out: &mut Contributions) {
        out.add("people", 1.0);
        let entries = out.values("genotypes");
        let (alleles, hets) = entries.split_at_mut(expected.len());
        for (((dosage, p), allele), het) in individual.dosages().iter().zip(expected).zip(alleles).zip(hets) {
            let called = (f64::from(*dosage) - 1.0, if *dosage == 1 { 0.5 } else { -0.5 });
            // A missing genotype is taken for the public expectation.
            (*allele, *het) = if *dosage <= 2 { called } else { (2.0 * p - 1.0, 2.0 * p * (1.0 - p) - 0.5) };
        }
    }
}

vestibule_sdk::analysis!(AlleleFrequency);
