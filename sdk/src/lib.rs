//! Write analyses for Vestibule: the guest side.
//!
//! An analysis is a function of *one individual*. The site calls it for each, in a fresh instance; clamps what comes back to the
//! bounds that the round declared; sums; adds noise. Only the noised sums leave, so an analysis needs no trust and no review,
//! and cannot leak. What it needs is good statistics: this crate is for writing those down.
//!
//! Count, histogram and mean of a column, all of it:
//!
//! ```
//! use vestibule_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Params {
//!     column: String,
//!     bins: u32,
//! }
//!
//! struct Summary;
//!
//! impl Analysis for Summary {
//!     type Params = Params;
//!     type State = ();
//!
//!     fn plan(params: &Params) -> Result<Plan> {
//!         Ok(Plan::new().column(&params.column))
//!     }
//!
//!     fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step> {
//!         let Some(round) = history.last() else {
//!             return Ok(Round::new().count("n").sum("sum", -1.0..=1.0).histogram("bins", params.bins).into());
//!         };
//!         let column = shape.column(&params.column)?;
//!         let mean = column.unscaled(round.value("sum")? / round.value("n")?);
//!         let bins = Bins::of(column, params.bins)?.labels();
//!         let table = Table::new("Histogram").texts("bin", bins).estimates("people", &round.values("bins")?);
//!         let chart = Chart::bars("Histogram", "Histogram", "bin", "people").error_bars();
//!         Ok(Report::new(format!("{} people, mean {mean}", round.value("n")?)).table(table).chart(chart).into())
//!     }
//!
//!     fn contribute(params: &Params, _: &(), individual: &Individual, out: &mut Contributions) {
//!         let (Some(x), Some(bin)) = (individual.scaled(&params.column), individual.bin(&params.column, params.bins)) else { return };
//!         out.add("n", 1.0);
//!         out.add("sum", x);
//!         out.cell("bins", bin);
//!     }
//! }
//!
//! vestibule_sdk::analysis!(Summary);
//!
//! // A test runs the whole loop natively, with or without noise.
//! use vestibule_sdk::testing::{Cohort, Noise};
//! let cohort = Cohort::new().number("age", 0.0, 100.0, [30.0, 40.0, 80.0].map(Some));
//! let run = cohort.run::<Summary>(&json!({"column": "age", "bins": 4}), Noise::Exact)?;
//! assert!(run.report.summary.starts_with("3 people, mean 50"));
//! assert_eq!(run.numbers("Histogram", "people"), [0.0, 2.0, 0.0, 1.0]);
//! # Ok::<(), vestibule_sdk::Error>(())
//! ```
//!
//! `vestibule analysis new DIR` writes such a crate, `vestibule analysis build` makes the component, `vestibule analysis try`
//! runs it with the real sandbox and noise on data of your own.
//!
//! # Contents
//! * the analysis: [`Analysis`], [`analysis!`]
//! * what it asks for: [`Plan`], [`Round`], [`Bins`], [`Scores`] of genotypes
//! * what it sees: [`Shape`], [`Individual`], [`kernels`] for dosages
//! * what it gives: [`Contributions`]
//! * what comes back: [`History`], [`Estimate`], [`pvalue`], [`matrix`], [`Design`]
//! * what it reports: [`Report`], [`Table`], [`Chart`]
//! * how it is tested: [`testing`]
//! * beneath: [`contract`] (the WIT's types), [`driver`], [`guest`], [`mod@panic`], the allocator of components

mod analysis;
#[doc(hidden)]
pub mod bindings;
mod bins;
mod contributions;
mod design;
pub mod driver;
mod error;
mod estimate;
pub mod guest;
mod history;
mod individual;
pub mod kernels;
pub mod matrix;
#[cfg(target_arch = "wasm32")]
mod memory;
pub mod panic;
mod plan;
pub mod pvalue;
mod report;
mod round;
mod scores;
mod shape;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use analysis::Analysis;
pub use bins::Bins;
pub use contract::{Bound, ColumnInfo, Kind, Plan, Report, Shape, Table, Variant, VariantSlice};
pub use contributions::Contributions;
pub use design::Design;
pub use error::{Error, Result};
pub use estimate::{Estimate, Z95};
pub use history::{Finished, History};
pub use individual::Individual;
pub use plan::Slice;
pub use report::Chart;
pub use round::{Round, Step};
pub use scores::Scores;

/// The contract's own types, as generated from the WIT.
pub mod contract {
    pub use crate::bindings::types::*;
}

/// What most analyses use.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;

    pub use crate::{
        Analysis, Bins, Bound, Chart, ColumnInfo, Contributions, Design, Error, Estimate, History, Individual, Kind, Plan,
        Report, Result, Round, Scores, Shape, Slice, Step, Table, Variant, VariantSlice, kernels, matrix, pvalue,
    };
}
