//! What one partition contributes, by the names of the round's statistics.
//!
//! *In*: values from `contribute`. *Out*: one contribution per statistic, in order, `none` where nothing was given.
//! The host clamps all of it to the declared bounds, so nothing here guards privacy. A wrong name, index or length is a mistake
//! in the analysis and panics: a dry run shows the message, a site counts the contribution as nothing.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::contract::Contribution;
use crate::individual::unknown;

/// A statistic as far as `contribute` needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) length: u32,
}

/// The contributions of one partition. Starts as `none` for every statistic.
#[derive(Debug)]
pub struct Contributions {
    declared: Rc<[Declared]>,
    slots: Vec<Contribution>,
}

impl Contributions {
    pub(crate) fn new(declared: Rc<[Declared]>) -> Self {
        let slots = vec![Contribution::None; declared.len()];
        Self { declared, slots }
    }

    pub(crate) fn into_contract(self) -> Vec<Contribution> {
        self.slots
    }

    /// Whether this round has the statistic.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.declared.iter().any(|statistic| statistic.name == name)
    }

    /// Adds `x` to a statistic of length 1.
    #[track_caller]
    pub fn add(&mut self, name: &str, x: f64) {
        match self.values(name) {
            [only] => *only += x,
            many => panic!("statistic `{name}` has {} entries: use `add_at`, `values` or `reals`", many.len()),
        }
    }

    /// Adds `x` to entry `index`.
    #[track_caller]
    pub fn add_at(&mut self, name: &str, index: usize, x: f64) {
        let entries = self.values(name);
        let length = entries.len();
        match entries.get_mut(index) {
            Some(entry) => *entry += x,
            None => panic!("statistic `{name}` has {length} entries, entry {index} was asked for"),
        }
    }

    /// Adds `values` entry by entry.
    #[track_caller]
    pub fn vector(&mut self, name: &str, values: &[f64]) {
        let entries = self.values(name);
        assert!(entries.len() == values.len(), "statistic `{name}` has {} entries, {} were given", entries.len(), values.len());
        entries.iter_mut().zip(values).for_each(|(entry, value)| *entry += value);
    }

    /// The statistic's entries, zeros at first, to be written in place.
    #[track_caller]
    pub fn values(&mut self, name: &str) -> &mut [f64] {
        let at = self.find(name);
        let length = self.declared[at].length as usize;
        let slot = &mut self.slots[at];
        if !matches!(slot, Contribution::Reals(_)) {
            *slot = Contribution::Reals(vec![0.0; length]);
        }
        match slot {
            Contribution::Reals(values) => values,
            _ => unreachable!("set just above"),
        }
    }

    /// One, in this cell of a histogram. A partition has one cell per histogram: the last call counts.
    #[track_caller]
    pub fn cell(&mut self, name: &str, cell: u32) {
        let at = self.find(name);
        let length = self.declared[at].length;
        assert!(cell < length, "histogram `{name}` has {length} cells, cell {cell} was asked for");
        self.slots[at] = Contribution::Cell(cell);
    }

    /// The whole statistic as reals, without a copy. Replaces what was there.
    #[track_caller]
    pub fn reals(&mut self, name: &str, values: Vec<f64>) {
        let at = self.checked(name, values.len());
        self.slots[at] = Contribution::Reals(values);
    }

    /// The whole statistic as integers, without a copy. Replaces what was there.
    #[track_caller]
    pub fn integers(&mut self, name: &str, values: Vec<i64>) {
        let at = self.checked(name, values.len());
        self.slots[at] = Contribution::Integers(values);
    }

    /// The whole statistic as bytes 0..=255, without a copy: an eighth of the memory of reals. Replaces what was there.
    #[track_caller]
    pub fn bytes(&mut self, name: &str, values: Vec<u8>) {
        let at = self.checked(name, values.len());
        self.slots[at] = Contribution::Bytes(values);
    }

    #[track_caller]
    fn checked(&self, name: &str, given: usize) -> usize {
        let at = self.find(name);
        let length = self.declared[at].length;
        assert!(given == length as usize, "statistic `{name}` has {length} entries, {given} were given");
        at
    }

    #[track_caller]
    fn find(&self, name: &str) -> usize {
        match self.declared.iter().position(|statistic| statistic.name == name) {
            Some(at) => at,
            None => unknown("statistic", name, self.declared.iter().map(|statistic| statistic.name.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Contributions {
        let declared = [("n", 1), ("v", 3)].map(|(name, length)| Declared { name: name.into(), length });
        Contributions::new(Rc::new(declared))
    }

    #[test]
    fn what_is_not_given_is_none_and_what_is_given_adds_up() {
        let mut out = two();
        out.vector("v", &[1.0, 2.0, 3.0]);
        out.add_at("v", 2, 0.5);
        assert_eq!(out.into_contract(), [Contribution::None, Contribution::Reals(vec![1.0, 2.0, 3.5])]);
        let mut out = two();
        out.add("n", 1.0);
        out.add("n", 1.0);
        out.cell("v", 2);
        assert_eq!(out.into_contract(), [Contribution::Reals(vec![2.0]), Contribution::Cell(2)]);
    }

    #[test]
    #[should_panic(expected = "no statistic `m`; there are: n, v")]
    fn a_wrong_name_is_named() {
        two().add("m", 1.0);
    }

    #[test]
    #[should_panic(expected = "statistic `v` has 3 entries, 2 were given")]
    fn a_wrong_length_is_named() {
        two().integers("v", vec![1, 2]);
    }

    #[test]
    #[should_panic(expected = "histogram `v` has 3 cells, cell 3 was asked for")]
    fn a_cell_that_is_not_there_is_named() {
        two().cell("v", 3);
    }
}
