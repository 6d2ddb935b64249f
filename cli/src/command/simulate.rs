//! `vestibule simulate`: cohorts that nobody is in.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::Failure;
use crate::simulate::{Study, sites};

/// Write made-up cohorts: genotypes with real frequencies and linkage, a trait with planted effects, each site in its own coding.
///
/// Each `siteN` folder can be ingested as it is; `truth.tsv` says which variants have an effect. The same numbers write the same bytes.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A folder to make.
    folder: PathBuf,
    /// People at each site.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    people: u32,
    /// Variants, over 22 chromosomes.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(22..=10_000_000))]
    variants: u32,
    /// Sites.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    sites: u32,
    /// Variants with an effect on `ldl`.
    #[arg(long, default_value_t = 10)]
    causal: u32,
    /// The part of its variance that they explain together, 0 to 1.
    #[arg(long, default_value_t = 0.2)]
    heritability: f64,
    /// Another seed, other people.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How genotypes are written.
    #[arg(long, value_enum, default_value_t = Format::Bed)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// PLINK 1 files.
    Bed,
    /// VCF, bgzipped.
    Vcf,
}

impl Simulate {
    pub(crate) fn run(self, json: bool) -> Result<()> {
        let Self { folder, people, variants, sites, causal, heritability, seed, format } = self;
        if !(0.0..=1.0).contains(&heritability) {
            return Err(Failure::input("usage", format!("--heritability {heritability}: a part of the variance is 0 to 1")));
        }
        if causal > variants {
            return Err(Failure::input("usage", format!("--causal {causal}: there are {variants} variants")));
        }
        let study = Study { people, variants, sites, causal, heritability, seed, vcf: format == Format::Vcf };
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(variants.into()) };
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} variants, {eta} left")?);
        sites::write(&study, &folder, &mut |done| bar.set_position(done))
            .map_err(|error| Failure::input("simulate", format!("{}: {error}", folder.display())))?;
        bar.finish_and_clear();
        if json {
            let document = serde_json::json!({ "folder": folder, "people": people, "variants": variants, "sites": sites });
            println!("{document}");
        } else {
            println!("{0}/site1 .. site{sites}: {people} people x {variants} variants each; {0}/truth.tsv", folder.display());
            println!("next: vestibule site ingest SITE {}/site1/DATASET.toml", folder.display());
        }
        Ok(())
    }
}
