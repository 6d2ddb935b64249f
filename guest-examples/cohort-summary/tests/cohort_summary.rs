//! The whole loop on made-up people: exact without noise, within its own error bars with it.

use cohort_summary::CohortSummary;
use serde_json::json;
use vestibule_sdk::testing::{Cohort, Gauss, Noise, rho};

const PEOPLE: usize = 2_000;

fn ages() -> Vec<Option<f64>> {
    let mut gauss = Gauss::new(1);
    (0..PEOPLE).map(|at| (at % 10 != 0).then(|| (55.0 + 12.0 * gauss.draw()).clamp(0.0, 120.0))).collect()
}

fn cohort() -> Cohort {
    Cohort::new()
        .number("age", 0.0, 120.0, ages())
        .levels("sex", &["female", "male"], (0..PEOPLE).map(|at| Some(u32::from(at % 4 == 0))))
        .flag("smokes", (0..PEOPLE).map(|at| (at % 5 != 0).then_some(at % 3 == 0)))
}

fn truth() -> (f64, f64, f64) {
    let ages: Vec<f64> = ages().into_iter().flatten().collect();
    let n = ages.len() as f64;
    let mean = ages.iter().sum::<f64>() / n;
    (n, mean, ages.iter().map(|age| (age - mean).powi(2)).sum::<f64>() / n)
}

#[test]
fn without_noise_the_numbers_are_exact() {
    let run = cohort().run::<CohortSummary>(&json!({"columns": ["age", "sex", "smokes"], "bins": 12}), Noise::Exact).unwrap();
    let (n, mean, variance) = truth();
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-6 * want.abs(), "{got} beside {want}");
    near(run.number("Numbers", "age", "people"), n);
    near(run.number("Numbers", "age", "mean"), mean);
    near(run.number("Numbers", "age", "mean se"), (variance / n).sqrt());
    near(run.number("Numbers", "age", "variance"), variance);
    assert_eq!(run.numbers("sex", "people"), [1500.0, 500.0]);
    assert_eq!(run.texts("smokes", "value"), ["no", "yes"]);
    assert_eq!(run.numbers("smokes", "people").iter().sum::<f64>(), 1600.0);
    assert_eq!(run.numbers("age", "people").iter().sum::<f64>(), n);
    assert_eq!((run.rounds.len(), run.rounds[0].clipped.iter().sum::<u64>(), run.rounds[0].ignored), (1, 0, 0));
    assert!(run.report.summary.starts_with("About 2000 people"));
}

/// 200 runs, three 95 % intervals each: the number of misses is binomial, so 30 +- 5.3; 60 would be 5 sd away.
#[test]
fn the_error_bars_hold_what_they_say() {
    let (n, mean, variance) = truth();
    let mut misses = 0;
    for seed in 0..200 {
        let noise = Noise::Gaussian { rho: rho(1.0, 1e-6), sites: 3, seed };
        let run = cohort().run::<CohortSummary>(&json!({"columns": ["age", "sex"]}), noise).unwrap();
        for (name, truth) in [("people", n), ("mean", mean), ("variance", variance)] {
            let [low, high] = ["low", "high"].map(|end| run.number("Numbers", "age", &format!("{name} {end}")));
            misses += i32::from(!(low..=high).contains(&truth));
        }
    }
    assert!((5..60).contains(&misses), "{misses} of 600 intervals miss the truth");
}

#[test]
fn bad_parameters_are_named() {
    let run = |params| cohort().run::<CohortSummary>(&params, Noise::Exact).unwrap_err().to_string();
    assert!(run(json!({})).contains("missing field `columns`"));
    assert!(run(json!({"columns": ["age"], "bin": 3})).contains("unknown field `bin`"));
    assert!(run(json!({"columns": ["age"], "bins": "many"})).contains("params: `bins`: invalid type"));
    assert!(run(json!({"columns": []})).contains("`columns` is empty"));
    assert!(run(json!({"columns": ["height"]})).contains("`height`"));
}
