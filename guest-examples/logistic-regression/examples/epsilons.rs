//! How far noise moves the coefficients: the table in docs/ANALYSES.md. Needs `VESTIBULE_DATA`.
//!
//! Four hospitals add noise of their own. For each epsilon, the median over 21 seeds of the largest distance of a coefficient from R's
//! `glm`, in standard errors of that `glm`; and of the distances of two coefficients.

use logistic_regression::LogisticRegression;
use serde_json::json;
use vestibule_sdk::testing::{Cohort, Noise, rho};

fn main() {
    let Some(data) = std::env::var_os("VESTIBULE_DATA") else {
        println!("VESTIBULE_DATA is not set");
        return;
    };
    let sites = ["cleveland", "hungarian", "switzerland", "va"];
    let (mut age, mut sex, mut thalach, mut sick) = (vec![], vec![], vec![], vec![]);
    let mut site = Vec::new();
    for (index, name) in (0_u32..).zip(sites) {
        let path = std::path::Path::new(&data).join(format!("uci-heart/processed.{name}.data"));
        for line in std::fs::read_to_string(path).unwrap().lines().filter(|line| !line.is_empty()) {
            let fields: Vec<Option<f64>> = line.split(',').map(|field| field.trim().parse().ok()).collect();
            age.push(fields[0]);
            sex.push(fields[1].map(|male| male > 0.5));
            thalach.push(fields[7]);
            site.push(Some(index));
            sick.push(fields[13].map(|num| num > 0.0));
        }
    }
    let cohort = Cohort::new().number("age", 20.0, 90.0, age).flag("sex", sex).number("thalach", 50.0, 220.0, thalach);
    let cohort = cohort.levels("site", &sites, site).flag("sick", sick);
    let params = json!({"outcome": "sick", "covariates": ["age", "sex", "thalach", "site"]});
    let glm = [1.593_747, 0.027_714, 1.312_464, -0.028_026, -0.679_689, 2.114_207, 0.352_086];
    let se = [0.994_127, 0.010_657, 0.209_506, 0.004_055, 0.209_935, 0.406_551, 0.262_729];
    println!("| epsilon | largest distance, in standard errors | sex (glm 1.31) | thalach (glm -0.0280) |\n|---|---|---|---|");
    for epsilon in [Some(1.0), Some(3.0), Some(10.0), Some(30.0), Some(100.0), None] {
        let runs: Vec<Vec<f64>> = (1..=21)
            .map(|seed| {
                let noise = epsilon.map_or(Noise::Exact, |epsilon| Noise::Gaussian { rho: rho(epsilon, 1e-6), sites: 4, seed });
                cohort.run::<LogisticRegression>(&params, noise).unwrap().numbers("Coefficients", "log odds").to_vec()
            })
            .collect();
        let median = |of: &dyn Fn(&[f64]) -> f64| {
            let mut all: Vec<f64> = runs.iter().map(|run| of(run)).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let largest =
            median(&|run| run.iter().zip(glm).zip(se).map(|((b, glm), se)| ((b - glm) / se).abs()).fold(0.0, f64::max));
        let (sex, thalach) = (median(&|run| (run[2] - glm[2]).abs()), median(&|run| (run[3] - glm[3]).abs()));
        let epsilon = epsilon.map_or("no noise".to_owned(), |epsilon| epsilon.to_string());
        println!("| {epsilon} | {largest:.2} | ± {sex:.2} | ± {thalach:.5} |");
    }
}
