//! Fits of known answers, and the whole loop on simulated people with outliers.

use median_regression::{MedianRegression, fit};
use serde_json::json;
use vestibule_sdk::testing::{Cohort, Gauss, Noise, rho};

#[test]
fn a_fit_of_the_intercept_alone_is_the_median() {
    let rows = |values: &[f64]| values.iter().map(|y| (vec![1.0], *y)).collect::<Vec<_>>();
    let found = fit(1, &rows(&[0.1, 0.2, 0.25, 0.9, 0.7])).unwrap();
    assert!((found[0] - 0.25).abs() < 1e-3, "{found:?}");
    assert!(fit(2, &rows(&[0.1, 0.2, 0.3])).is_none(), "too few");
    assert!(
        fit(2, &[(vec![1.0, 1.0], 0.0), (vec![1.0, 1.0], 1.0), (vec![1.0, 1.0], 0.5), (vec![1.0, 1.0], 0.2)]).is_none(),
        "all alike"
    );
}

/// 6,000 people, 90 + 0.5 age + 4 male, and noise; a tenth of them have a measurement that is 100 too high.
fn simulated() -> Cohort {
    let mut draw = Gauss::new(5);
    let mut uniform = || (0..6_000).map(|_| draw.uniform()).collect::<Vec<f64>>();
    let (ages, male, outlier) = (uniform(), uniform(), uniform());
    let noise: Vec<f64> = (0..6_000).map(|_| 5.0 * draw.draw()).collect();
    let (age, male) = (|at: usize| 20.0 + 60.0 * ages[at], |at: usize| male[at] < 0.5);
    let pressure = |at: usize| {
        let high = if outlier[at] < 0.1 { 100.0 } else { 0.0 };
        90.0 + 0.5 * age(at) + 4.0 * f64::from(u8::from(male(at))) + noise[at] + high
    };
    Cohort::new()
        .number("age", 20.0, 80.0, (0..6_000).map(|at| Some(age(at))))
        .flag("male", (0..6_000).map(|at| Some(male(at))))
        .number("pressure", 40.0, 260.0, (0..6_000).map(|at| (at % 40 != 3).then(|| pressure(at))))
}

#[test]
fn outliers_do_not_pull_it_and_noise_is_in_the_error_bars() {
    let params = json!({"outcome": "pressure", "covariates": ["age", "male"], "blocks": 60});
    let run = |noise| simulated().run::<MedianRegression>(&params, noise).unwrap();
    let exact = run(Noise::Exact);
    assert_eq!((exact.rounds[0].clipped.as_slice(), exact.rounds[0].ignored), ([0, 0, 0].as_slice(), 0));
    // A tenth of outliers on one side moves the median of the rest by 0.14 of its standard deviation, which is in the intercept.
    for (term, truth) in [("(intercept)", 90.7), ("age", 0.5), ("male", 4.0)] {
        let (value, sd) = (exact.number("Coefficients", term, "median"), exact.number("Coefficients", term, "median sd"));
        assert!((value - truth).abs() < 4.0 * sd && sd < 1.5, "{term}: {value} ± {sd}");
    }
    // 40 runs of 3 coefficients: further than 4 sd from the noiseless answer once in 130 such tests.
    for seed in 0..40 {
        let noised = run(Noise::Gaussian { rho: rho(4.0, 1e-6), sites: 1, seed });
        for term in ["(intercept)", "age", "male"] {
            let (value, sd) = (noised.number("Coefficients", term, "median"), noised.number("Coefficients", term, "median sd"));
            let truth = exact.number("Coefficients", term, "median");
            assert!((value - truth).abs() < 4.5 * sd, "{seed} {term}: {value} ± {sd}, without noise {truth}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |params| simulated().run::<MedianRegression>(&params, Noise::Exact).unwrap_err().to_string();
    assert!(refused(json!({"outcome": "pressure", "covariates": [], "blocks": 1})).contains("blocks"));
    assert!(refused(json!({"outcome": "pressure", "covariates": [], "blocks": 9, "clip": 0.0})).contains("clip"));
}
