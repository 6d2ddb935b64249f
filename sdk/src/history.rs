//! What came back from the rounds so far: released numbers by the names of their statistics, as estimates with their noise.
//!
//! *In*: the contract's released numbers, noised and therefore public. *Out*: [`Estimate`]s. *Refuses*: a name that the round
//! did not have.

use crate::contract::Released;
use crate::error::{Error, Result};
use crate::estimate::Estimate;

/// The finished rounds, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct History(Vec<Finished>);

/// One finished round.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished(Vec<Released>);

impl History {
    pub(crate) fn new(rounds: Vec<Vec<Released>>) -> Self {
        Self(rounds.into_iter().map(Finished).collect())
    }

    /// How many rounds are finished.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether this is the start of the job.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latest round; `None` at the start of the job.
    #[must_use]
    pub fn last(&self) -> Option<&Finished> {
        self.0.last()
    }

    /// All rounds, oldest first.
    #[must_use]
    pub fn rounds(&self) -> &[Finished] {
        &self.0
    }
}

impl Finished {
    /// Everything that was released of one statistic.
    ///
    /// # Errors
    /// The round has no such statistic.
    pub fn get(&self, name: &str) -> Result<&Released> {
        self.0.iter().find(|released| released.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|released| released.name.as_str()).collect();
            Error::new(format!("no statistic `{name}` in this round; there are: {}", known.join(", ")))
        })
    }

    /// The value of a statistic of length 1, with the noise as its error.
    ///
    /// # Errors
    /// The round has no such statistic, or it has more than one entry.
    pub fn value(&self, name: &str) -> Result<Estimate> {
        match self.values(name)?.as_slice() {
            [only] => Ok(*only),
            many => Err(Error::new(format!("statistic `{name}` has {} entries, one was asked for", many.len()))),
        }
    }

    /// All entries of a statistic, each with the noise as its error.
    ///
    /// # Errors
    /// The round has no such statistic.
    pub fn values(&self, name: &str) -> Result<Vec<Estimate>> {
        let released = self.get(name)?;
        Ok(released.values.iter().map(|&value| Estimate::new(value, released.noise_sd)).collect())
    }
}
