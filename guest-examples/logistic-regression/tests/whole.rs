//! The whole loop, natively, on four real hospitals: without noise the coefficients are R's.

use logistic_regression::LogisticRegression;
use serde_json::json;
use vestibule_sdk::testing::{Cohort, Noise};

#[test]
fn four_hospitals_give_the_coefficients_of_glm() {
    let Some(data) = std::env::var_os("VESTIBULE_DATA") else {
        eprintln!("skipped: VESTIBULE_DATA is not set");
        return;
    };
    let sites = ["cleveland", "hungarian", "switzerland", "va"];
    let (mut age, mut sex, mut thalach, mut site, mut sick) = (vec![], vec![], vec![], vec![], vec![]);
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
    let params = json!({"outcome": "sick", "covariates": ["age", "sex", "thalach", "site"], "steps": 60});
    let run = cohort.run::<LogisticRegression>(&params, Noise::Exact).unwrap();
    let found = run.numbers("Coefficients", "log odds");
    // glm(y ~ age + sex + thalach + site), R 4.2.2, complete cases.
    let glm = [1.593_747, 0.027_714, 1.312_464, -0.028_026, -0.679_689, 2.114_207, 0.352_086];
    for (found, glm) in found.iter().zip(glm) {
        assert!((found - glm).abs() < 0.01 + 0.01 * glm.abs(), "{found} is not {glm}");
    }
}
