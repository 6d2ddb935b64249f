//! From the contract's bytes to an [`Analysis`] and back: what the component's exports and the native test kit both run.
//!
//! *In*: the job's JSON, shapes, history, state bytes. *Out*: plans, steps, contributions. *Refuses*: parameters that do not
//! decode (naming the parameter), rounds and reports that the host could not use.
//!
//! The state bytes of a round are postcard of `(blocks?, columns, statistics, params as JSON, the analysis's own state)`: so `contribute`
//! has typed parameters, columns and statistics by name, without asking the host for anything. They are decoded once a
//! round, in `prepare`.

use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::analysis::Analysis;
use crate::contract::{self, ColumnInfo, Contribution, Plan, Released, Shape};
use crate::contributions::{Contributions, Declared};
use crate::history::History;
use crate::individual::Individual;
use crate::round::Step;

/// Decodes parameters. The error names the one that is wrong.
fn params<P: DeserializeOwned>(json: &str) -> Result<P, String> {
    let mut source = serde_json::Deserializer::from_str(if json.trim().is_empty() { "{}" } else { json });
    let params = serde_path_to_error::deserialize(&mut source).map_err(|error| {
        let path = error.path().to_string();
        if path == "." { format!("params: {}", error.inner()) } else { format!("params: `{path}`: {}", error.inner()) }
    })?;
    source.end().map_err(|error| format!("params: {error}"))?;
    Ok(params)
}

/// The export `plan`.
///
/// # Errors
/// Parameters that do not decode, or that the analysis refuses.
pub fn plan<A: Analysis>(json: &str) -> Result<Plan, String> {
    A::plan(&params(json)?).map_err(|error| error.to_string())
}

/// The export `next`.
///
/// # Errors
/// What the analysis says, or a round or report that the host could not use.
pub fn next<A: Analysis>(json: &str, shape: &Shape, history: Vec<Vec<Released>>) -> Result<contract::Step, String> {
    let params = params(json)?;
    let step = A::next(&params, shape, &History::new(history)).map_err(|error| error.to_string())?;
    match step {
        Step::Report(report) => {
            report.check().map_err(|error| error.to_string())?;
            Ok(contract::Step::Report(report))
        }
        Step::Round(round) => {
            round.check().map_err(|error| error.to_string())?;
            let budget_share = round.budget_share();
            let (statistics, dosages, own) = round.into_parts();
            let declared = statistics.iter().map(|s| Declared { name: s.name.clone(), length: s.given() }).collect();
            let plan = A::plan(&params).map_err(|error| error.to_string())?;
            let blocks = matches!(plan.partitioning, contract::Partitioning::Blocks(_));
            let state =
                encode(blocks, &shape.columns, declared, json, &own).map_err(|error| format!("the round's state: {error}"))?;
            Ok(contract::Step::Round(contract::Round { statistics, budget_share, state, dosages }))
        }
    }
}

fn encode(
    blocks: bool,
    columns: &[ColumnInfo],
    declared: Vec<Declared>,
    json: &str,
    own: &impl Serialize,
) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(&(blocks, columns, declared, json, own))
}

/// A round's state, decoded: all that `contribute` knows besides its partition.
pub struct Prepared<A: Analysis> {
    blocks: bool,
    params: A::Params,
    state: A::State,
    columns: Rc<[ColumnInfo]>,
    declared: Rc<[Declared]>,
}

impl<A: Analysis> std::fmt::Debug for Prepared<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("columns", &self.columns).field("declared", &self.declared).finish_non_exhaustive()
    }
}

impl<A: Analysis> Prepared<A> {
    /// The export `prepare`.
    ///
    /// # Errors
    /// Bytes that no `next` of this analysis wrote.
    pub fn decode(state: &[u8]) -> Result<Self, String> {
        type Wire<'a, S> = (bool, Vec<ColumnInfo>, Vec<Declared>, &'a str, S);
        let (wire, rest): (Wire<'_, A::State>, _) =
            postcard::take_from_bytes(state).map_err(|error| format!("the round's state: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("the round's state: {} bytes too many", rest.len()));
        }
        let (blocks, columns, declared, json, state) = wire;
        let json = if json.trim().is_empty() { "{}" } else { json };
        let params = serde_json::from_str(json).map_err(|error| format!("params: {error}"))?;
        Ok(Self { blocks, params, state, columns: columns.into(), declared: declared.into() })
    }

    /// The export `contribute`.
    #[must_use]
    pub fn contribute(&self, mut partition: Vec<contract::Individual>) -> Vec<Contribution> {
        let mut out = Contributions::new(Rc::clone(&self.declared));
        let individual = |row| Individual::new(Rc::clone(&self.columns), row);
        if self.blocks {
            let block: Vec<Individual> = partition.into_iter().map(individual).collect();
            A::contribute_block(&self.params, &self.state, &block, &mut out);
        } else if let Some(row) = partition.pop() {
            A::contribute(&self.params, &self.state, &individual(row), &mut out);
        }
        out.into_contract()
    }
}
