//! The trait that an analysis implements, and the macro that makes a component of it.
//!
//! *In*: a researcher's type. *Out*: the contract's four exports. `plan` and `next` are public and see no data; `contribute` sees
//! one person and public input, each time in a fresh instance: whatever it stores anywhere is gone at the next person.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::{Plan, Shape};
use crate::contributions::Contributions;
use crate::error::Result;
use crate::history::History;
use crate::individual::Individual;
use crate::round::Step;

/// An analysis. See the [crate's first page](crate) for a whole one.
pub trait Analysis: 'static {
    /// The job's parameters, decoded from its JSON. With `#[serde(deny_unknown_fields)]` a misspelt one is an error, not a
    /// silent default. An error names the parameter.
    type Params: DeserializeOwned + 'static;

    /// What a round tells `contribute` besides the parameters, say the current coefficients; `()` for nothing. Public. It travels
    /// as postcard, so no `#[serde(untagged)]`, `flatten` or `skip_serializing_if` in it.
    type State: Serialize + DeserializeOwned + 'static;

    /// What data the job reads, and for at most how many rounds.
    ///
    /// # Errors
    /// Parameters that make no sense, in words for anyone who wrote them.
    fn plan(params: &Self::Params) -> Result<Plan>;

    /// The next pass over the data, or the report. `history` holds the finished rounds: none at first.
    ///
    /// # Errors
    /// What stops the job, in words for the researcher.
    fn next(params: &Self::Params, shape: &Shape, history: &History) -> Result<Step<Self::State>>;

    /// What one person contributes to the round's statistics. A panic counts as no contribution.
    fn contribute(params: &Self::Params, state: &Self::State, individual: &Individual, out: &mut Contributions);

    /// What one block of people contributes, where the plan asks for blocks. By default each person's contributions, added up.
    fn contribute_block(params: &Self::Params, state: &Self::State, block: &[Individual], out: &mut Contributions) {
        for individual in block {
            Self::contribute(params, state, individual, out);
        }
    }
}

/// Makes a type that implements [`Analysis`] the component's one analysis. Once per crate; on other targets than wasm32 it only
/// checks that the type implements it.
#[macro_export]
macro_rules! analysis {
    ($analysis:ty) => {
        const _: () = {
            const fn is_an_analysis<A: $crate::Analysis>() {}
            is_an_analysis::<$analysis>();
        };
        #[cfg(target_arch = "wasm32")]
        type VestibuleComponent = $crate::guest::Component<$analysis>;
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::export_component!(VestibuleComponent with_types_in $crate::bindings);
    };
}
