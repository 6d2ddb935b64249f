//! Scores: the public numbers that a host gives genotypes where it multiplies them itself.
//!
//! *In*: for each variant four numbers, for dosages 0, 1, 2 and for a missing one. *Out*: [`Scores`], of a shape that was checked.
//! *Refuses*: more than a round may carry. They are whole multiples of 1/1,024, so that what the analysis reckons with and what the host
//! multiplies with are the same numbers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Scores are counted in units of 2^-10.
pub const SCORE_LOG2_SCALE: i32 = 10;
/// What a genotype can be: a dosage of 0, 1 or 2, or missing.
pub const CLASSES: usize = 4;
/// Most scores of all statistics of a round: four for each of a million variants.
pub const MAX_SCORES: usize = CLASSES << 20;

/// Where a statistic's entries come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// `contribute` gives them.
    Given,
    /// `contribute` gives a few factors, and the host multiplies each with the scores of the individual's genotypes.
    Genotypes(GenotypeSums),
}

/// What a host multiplies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenotypeSums {
    /// How many factors `contribute` gives, each within -1 to 1.
    pub factors: u32,
    /// What the genotypes count.
    pub scores: Scores,
}

/// The scores of one statistic: for each set of them, and in it for each variant of the plan, four. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<i16>", into = "Vec<i16>")]
pub struct Scores(Arc<[i16]>);

impl Scores {
    /// The four scores of each variant, one set after the other.
    #[must_use]
    pub fn classes(&self) -> &[[i16; CLASSES]] {
        self.0.as_chunks::<CLASSES>().0
    }

    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[i16] {
        &self.0
    }
}

impl From<Vec<i16>> for Scores {
    fn from(scores: Vec<i16>) -> Self {
        Self(scores.into())
    }
}

impl From<Scores> for Vec<i16> {
    fn from(scores: Scores) -> Self {
        scores.0.to_vec()
    }
}

// Public, but long.
impl std::fmt::Debug for Scores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scores({})", self.0.len())
    }
}
