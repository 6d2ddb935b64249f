//! The whole loop on simulated people, and on the UCI heart data where `VESTIBULE_DATA` names the folder that has them.

use logistic_regression::LogisticRegression;
use serde_json::json;
use vestibule_sdk::testing::{Cohort, Gauss, Noise, Outcome, rho};

const TABLE: &str = "Coefficients";

/// 4,000 people, log odds -2 + 0.03 age + 1 male - 1 treated (arm b against a).
fn simulated() -> Cohort {
    let mut draw = Gauss::new(9);
    let mut uniform = || (0..4_000).map(|_| draw.uniform()).collect::<Vec<f64>>();
    let (ages, male, arm, u) = (uniform(), uniform(), uniform(), uniform());
    let (age, male, arm) = (|at: usize| 20.0 + 60.0 * ages[at], |at: usize| male[at] < 0.4, |at: usize| arm[at] < 0.5);
    let sick = |at: usize| {
        let odds = -2.0 + 0.03 * age(at) + f64::from(u8::from(male(at))) - f64::from(u8::from(arm(at)));
        u[at] < 1.0 / (1.0 + (-odds).exp())
    };
    let people = || 0..4_000;
    Cohort::new()
        .number("age", 18.0, 90.0, people().map(|at| Some(age(at))))
        .flag("male", people().map(|at| (at % 50 != 7).then(|| male(at))))
        .levels("arm", &["a", "b"], people().map(|at| Some(u32::from(arm(at)))))
        .flag("sick", people().map(|at| Some(sick(at))))
}

fn run(cohort: &Cohort, covariates: &[&str], outcome: &str, steps: u32, noise: Noise) -> Outcome {
    cohort.run::<LogisticRegression>(&json!({"outcome": outcome, "covariates": covariates, "steps": steps}), noise).unwrap()
}

#[test]
fn without_noise_it_converges_and_nobody_is_clipped() {
    let (cohort, covariates) = (simulated(), ["age", "male", "arm"]);
    let long = run(&cohort, &covariates, "sick", 12, Noise::Exact);
    for (term, truth) in [("(intercept)", -2.0), ("age", 0.03), ("male", 1.0), ("arm=b", -1.0)] {
        let (value, sd) = (long.number(TABLE, term, "log odds"), long.number(TABLE, term, "log odds sd"));
        assert!((value - truth).abs() < 4.0 * sd, "{term}: {value} ± {sd}");
        let usual = run(&cohort, &covariates, "sick", 4, Noise::Exact).number(TABLE, term, "log odds");
        assert!((usual - value).abs() < 0.01 * sd, "{term}: four steps {usual}, twelve {value}");
    }
    for round in &long.rounds {
        assert_eq!((round.clipped.as_slice(), round.ignored), ([0, 0].as_slice(), 0));
    }
}

/// 100 runs of 4 coefficients: 95 % intervals around the noiseless answer that take in the noise and the sampling are missed
/// less than 1 in 20; those of the noise alone about 20 times of 400, sd 4.4.
#[test]
fn the_error_bars_take_in_the_noise() {
    let (cohort, covariates) = (simulated(), ["age", "male", "arm"]);
    let exact = run(&cohort, &covariates, "sick", 4, Noise::Exact);
    let (mut misses, mut of) = (0, 0);
    for seed in 0..100 {
        let noised = run(&cohort, &covariates, "sick", 4, Noise::Gaussian { rho: rho(4.0, 1e-6), sites: 3, seed });
        let columns = |outcome: &Outcome, name: &str| outcome.numbers(TABLE, name).to_vec();
        let (values, sds) = (columns(&noised, "log odds"), columns(&noised, "log odds sd"));
        for ((value, sd), (truth, sampling)) in
            values.iter().zip(sds).zip(columns(&exact, "log odds").iter().zip(columns(&exact, "log odds sd")))
        {
            let noise = (sd * sd - sampling * sampling).max(0.0).sqrt();
            misses += i32::from((value - truth).abs() > 1.96 * noise);
            of += 1;
        }
    }
    assert!((4..50).contains(&misses), "{misses} of {of}");
}

#[test]
fn bad_parameters_are_named() {
    let run = |params| simulated().run::<LogisticRegression>(&params, Noise::Exact).unwrap_err().to_string();
    assert!(run(json!({"outcome": "sick", "covariates": [], "steps": 0})).contains("`steps` must be 1 to 20"));
    assert!(run(json!({"outcome": "sick", "covariates": [], "clip": -1.0})).contains("`clip` above 0"));
    assert!(run(json!({"outcome": "sick", "covariates": [], "clip": "x"})).contains("params: `clip`"));
    assert!(run(json!({"covariates": ["age"]})).contains("missing field `outcome`"));
    assert!(run(json!({"outcome": "sick", "covariates": ["height"]})).contains("`height`"));
}

const SITES: [&str; 4] = ["cleveland", "hungarian", "switzerland", "va"];

/// Complete cases of age, sex and thalach at the four hospitals: 865 people.
fn heart(folder: &std::path::Path) -> Cohort {
    let mut rows: Vec<(u32, [Option<f64>; 14])> = Vec::new();
    for (site, name) in (0..).zip(SITES) {
        let text = std::fs::read_to_string(folder.join(format!("uci-heart/processed.{name}.data"))).unwrap();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut row = [None; 14];
            line.split(',').zip(&mut row).for_each(|(field, value)| *value = field.trim().parse().ok());
            rows.push((site, row));
        }
    }
    let column = |at: usize| rows.iter().map(move |(_, row)| row[at]).collect::<Vec<_>>();
    Cohort::new()
        .number("age", 18.0, 100.0, column(0))
        .flag("male", column(1).into_iter().map(|x| x.map(|x| x > 0.5)))
        .number("thalach", 60.0, 210.0, column(7))
        .levels("site", &SITES, rows.iter().map(|(site, _)| Some(*site)))
        .flag("disease", column(13).into_iter().map(|x| x.map(|x| x > 0.0)))
}

/// The coefficients and standard errors of R's `glm` in reference.txt, with this design's names.
fn reference(folder: &std::path::Path) -> Vec<(&'static str, f64, f64)> {
    let text = std::fs::read_to_string(folder.join("uci-heart/reference.txt")).unwrap();
    let names = [
        ("(Intercept)", "(intercept)"),
        ("age", "age"),
        ("sex", "male"),
        ("thalach", "thalach"),
        ("sitehungarian", "site=hungarian"),
        ("siteswitzerland", "site=switzerland"),
        ("siteva", "site=va"),
    ];
    let find = |(theirs, ours): (&str, &'static str)| {
        let fit = text.split("glm(y ~ age+sex+thalach+site)").nth(1).unwrap();
        let line = fit.lines().find(|line| line.split_whitespace().next() == Some(theirs)).unwrap();
        let numbers: Vec<f64> = line.split_whitespace().skip(1).map(|x| x.parse().unwrap()).collect();
        (ours, numbers[0], numbers[1])
    };
    names.map(find).to_vec()
}

#[test]
fn on_the_heart_data_it_agrees_with_r() {
    let Some(folder) = std::env::var_os("VESTIBULE_DATA").map(std::path::PathBuf::from) else {
        println!("skipped: VESTIBULE_DATA is not set");
        return;
    };
    let (cohort, reference) = (heart(&folder), reference(&folder));
    let covariates = ["age", "male", "thalach", "site"];
    let exact = run(&cohort, &covariates, "disease", 8, Noise::Exact);
    for (term, beta, se) in &reference {
        assert!((exact.number(TABLE, term, "log odds") - beta).abs() < 1e-4 * se, "{term}");
        assert!((exact.number(TABLE, term, "log odds sd") / se - 1.0).abs() < 1e-3, "{term}");
        let four = run(&cohort, &covariates, "disease", 4, Noise::Exact).number(TABLE, term, "log odds");
        assert!((four - beta).abs() < 0.02 * se, "{term}: four steps {four}, glm {beta}");
    }
    // Root mean square distance to glm in its standard errors, over the coefficients and 20 seeds; four sites, noise at each.
    let mut before = f64::INFINITY;
    for epsilon in [1.0, 3.0, 10.0, 30.0, 100.0] {
        let mut sum = 0.0;
        for seed in 0..20 {
            let noised = run(&cohort, &covariates, "disease", 4, Noise::Gaussian { rho: rho(epsilon, 1e-6), sites: 4, seed });
            sum += reference
                .iter()
                .map(|(term, beta, se)| ((noised.number(TABLE, term, "log odds") - beta) / se).powi(2))
                .sum::<f64>();
        }
        let distance = (sum / (20.0 * reference.len() as f64)).sqrt();
        println!("epsilon {epsilon}: {distance:.2} standard errors from glm");
        assert!(distance < before, "more budget, less error: {distance} after {before}");
        before = distance;
    }
    assert!(before < 1.0, "{before}");
}
