//! The same questions to the tools of the field, on the same genotypes: plink2 and bcftools, where they are installed.

use std::path::Path;
use std::process::{Command, Stdio};

use super::measured::{RUNS, Took, beside, middle, peer, shown};
use super::row;
use super::scale::{Run, ingest, threads};

/// The same questions to the tools of the field.
pub(super) fn peers(site: &Path, temp: &Path, [people, variants]: [u32; 2], [frequency, association]: [&Run; 2]) {
    let genotypes = f64::from(people) * f64::from(variants);
    let (bed, pgen, few) = (site.join("cohort"), temp.join("all"), site.join("few"));
    let (bed, pgen, few) = (bed.to_str().unwrap(), pgen.to_str().unwrap(), few.to_str().unwrap());
    let threads = threads().to_string();
    let covariates = format!("{few}.covariates");
    let outcome = format!("{few}.outcome");
    let table = std::fs::read_to_string(site.join("people.csv")).unwrap();
    let (mut of_covariates, mut of_outcome) = ("#IID age sex smoker\n".to_owned(), "#IID ldl\n".to_owned());
    for line in table.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        of_covariates += &format!("{} {} {} {}\n", cells[0], cells[2], if cells[1] == "M" { 1 } else { 2 }, cells[3]);
        of_outcome += &format!("{} {}\n", cells[0], cells[4]);
    }
    std::fs::write(&covariates, of_covariates).unwrap();
    std::fs::write(&outcome, of_outcome).unwrap();
    if peer("plink2 --make-pgen", "plink2", &["--bfile", bed, "--make-pgen", "--threads", &threads, "--out", pgen], genotypes)
        .is_none()
    {
        return;
    }
    let freq = peer("plink2 --freq", "plink2", &["--pfile", pgen, "--freq", "--threads", &threads, "--out", few], genotypes);
    if let Some(freq) = freq {
        beside("allele-frequency", &frequency.took, "plink2 --freq", &freq);
    }
    let glm = [
        "--pheno",
        &outcome,
        "--covar",
        &covariates,
        "--covar-variance-standardize",
        "--glm",
        "hide-covar",
        "--threads",
        &threads,
    ];
    let arguments = [&["--pfile", pgen], &glm[..], &["--out", few]].concat();
    if let Some(glm) = peer("plink2 --glm, three covariates", "plink2", &arguments, genotypes) {
        beside("linear-association", &association.took, "plink2 --glm", &glm);
    }
    // A hundredth of the variants as BCF: what takes bcftools a second takes the others ten milliseconds.
    let part = (f64::from(variants) / 100.0).ceil().min(f64::from(variants));
    let end = std::fs::read_to_string(site.join("cohort.bim")).unwrap();
    let line: Vec<&str> = end.lines().nth(part as usize - 1).unwrap().split('\t').collect();
    let export =
        ["--pfile", pgen, "--chr", line[0], "--to-bp", line[3], "--export", "bcf", "--threads", &threads, "--out", few];
    let exported = Command::new("plink2").args(export).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !exported.is_ok_and(|status| status.success()) {
        return;
    }
    let (bcf, some) = (format!("{few}.bcf"), f64::from(people) * part);
    for (what, tags, more) in [
        ("bcftools +fill-tags AC,AN,AF, a hundredth of the variants", "+fill-tags", &["--", "-t", "AC,AN,AF"][..]),
        ("bcftools +fill-AN-AC, a hundredth of the variants", "+fill-AN-AC", &[]),
    ] {
        if let Some(took) = peer(what, "bcftools", &[&[tags, "-Ob", "-o", "/dev/null", &bcf], more].concat(), some) {
            let a_genotype = |took: &Took, genotypes: f64| genotypes / took.processor_seconds;
            let times = a_genotype(&frequency.took, genotypes) / a_genotype(&took, some);
            row(&format!("allele-frequency: genotypes a processor second, over `bcftools {tags}`"), format!("{times:.0}"));
        }
    }
    // The same part again, as BCF, into a dataset of its own.
    let lines = |name: &str, most: usize| {
        let text = std::fs::read_to_string(site.join(name)).unwrap();
        text.lines().take(most).map(|line| format!("{line}\n")).collect::<String>()
    };
    let comments = lines("catalogue.tsv", usize::MAX).lines().take_while(|line| !line.as_bytes()[0].is_ascii_digit()).count();
    std::fs::write(site.join("few.tsv"), lines("catalogue.tsv", comments + part as usize)).unwrap();
    let recipe = lines("DATASET.toml", usize::MAX).replace("catalogue.tsv", "few.tsv");
    let from = recipe.lines().find(|line| line.trim_start().starts_with("files ")).unwrap();
    let recipe = recipe.replace(from, "files = [\"few.bcf\"]");
    let at = site.join("FEW.toml");
    std::fs::write(&at, recipe).unwrap();
    let home = |run: usize| temp.join(format!("few{run}"));
    let took = middle((0..RUNS).map(|run| ingest(home(run).to_str().unwrap(), &at)).collect());
    shown("ingest of a hundredth of the variants as BCF", &took, some);
    let arguments = ["--bcf", &bcf, "--make-pgen", "--threads", &threads, "--out", few];
    if let Some(pgen) = peer("plink2 --make-pgen, of that BCF", "plink2", &arguments, some) {
        beside("ingest of that BCF", &took, "plink2 --make-pgen", &pgen);
    }
}
