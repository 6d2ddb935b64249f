//! One bad behaviour for each name in `how`, towards men only. An honest person's contribution to `x` is 1/2.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub how: String,
}

/// Would grow from person to person, were an instance used twice.
static CALLS: AtomicU32 = AtomicU32::new(0);

pub struct Hostile;

impl Analysis for Hostile {
    type Params = Params;
    type State = ();

    fn plan(params: &Params) -> Result<Plan> {
        assert!(params.how != "panic in plan", "a planted panic in plan");
        Ok(Plan::new().column("sex"))
    }

    fn next(_: &Params, _: &Shape, history: &History) -> Result<Step> {
        if history.is_empty() { Ok(Round::new().sum("x", 0.0..=1.0).into()) } else { Ok(Report::new("done").into()) }
    }

    fn contribute(params: &Params, _: &(), individual: &Individual, out: &mut Contributions) {
        let man = individual.level("sex") == Some(1);
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let x = match params.how.as_str() {
            "remember" => 0.5 * f64::from(calls),
            _ if !man => 0.5,
            "panic" => panic!("a planted panic"),
            "loop" => loop {
                black_box(calls);
            },
            "recurse" => f64::from(recurse(calls)),
            "allocate" => vec![1_u8; black_box(2 << 30)].len() as f64,
            "nan" => f64::NAN,
            "infinite" => f64::INFINITY,
            "huge" => 1e300,
            "negative" => -1e300,
            other => panic!("no such behaviour: {other}"),
        };
        out.add("x", x);
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(n: u32) -> u32 {
    black_box([n; 64])[3] + recurse(black_box(n + 1))
}

vestibule_sdk::analysis!(Hostile);
