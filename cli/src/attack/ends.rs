//! How much later a round ends for one person, before any noise: what delays must cover.
//!
//! *In*: what a hostile guest does at one man, on what terms. *Out*: for each, rounds with him and
//! without, in pairs, whose median difference must be within L, the sensitivity of the noise of a
//! release's moment: that it is not is believed by a sign test, at a false alarm of one in a thousand
//! for each direction, and only of two such samples in a row. *Trusts*: the clock. What else the
//! machine does makes single rounds longer, of either kind.

use anyhow::Result;
use vestibule_runtime::costs::Costs;

use super::lab::{Ask, Lab, Person};
use super::statistics::tail;
use super::{Defect, Row};

const TIME: &str = "time";
/// Rounds with him, and as many without: in every run, and where everything is tried.
const PAIRS: usize = 10;
const MANY_PAIRS: usize = 30;
const FALSE_ALARM: f64 = 1e-3;

/// Terms of rounds.
#[derive(Debug, Clone, Copy)]
struct Terms {
    fuel: u64,
    memory_mib: u32,
    people: u32,
    threads: usize,
    pairs: usize,
}

const USUAL: Terms = Terms { fuel: 300_000, memory_mib: 8, people: 700, threads: 1, pairs: PAIRS };

/// What a guest does, what it is, and what comes of it without protection.
type Behaviour = (&'static str, &'static str, &'static str);

const BEHAVIOURS: [Behaviour; 8] = [
    ("loop", "spend all fuel at a person", "the round hangs, if that person is there"),
    ("tail", "work behind calls at a person, where an engine looks at no fuel", "minutes for a little fuel"),
    ("chase", "wait for memory at a person, with all fuel", "up to 250 ns a unit of fuel"),
    ("touch", "touch all memory at a person", "the machine's memory, at once"),
    ("touch some that was laid", "write over all that was baked in, at a person", "everybody behind is slower"),
    ("recurse", "exhaust the stack at a person, to be late", "the job fails, if that person is there"),
    ("allocate", "exhaust memory at a person, to be late", "the job fails, if that person is there"),
    ("much too long", "hand over a million numbers at a person", "the host takes them all"),
];

/// Of each behaviour, on usual terms.
pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let costs = lab.guests()?.measure(64, 2)?;
    let chosen = |behaviour: &&Behaviour| match lab.defect {
        Some(Defect::Unmetered) => behaviour.0 == "tail",
        Some(_) => behaviour.0 == "touch some that was laid",
        None => true,
    };
    let row = |behaviour: &Behaviour| row(lab, costs, behaviour, USUAL, behaviour.1.to_owned());
    BEHAVIOURS.iter().filter(chosen).map(row).collect()
}

/// Of each behaviour, at several limits, numbers of threads and of people. Takes an hour.
pub(crate) fn thorough(lab: &Lab, say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let costs = lab.guests()?.measure(64, 2)?;
    let mut rows = vec![];
    let many = Terms { pairs: MANY_PAIRS, ..USUAL };
    for terms in [
        many,
        Terms { fuel: 20_000, ..many },
        Terms { fuel: 5_000_000, memory_mib: 64, ..many },
        Terms { threads: 2, ..many },
        Terms { threads: 2, people: 20_000, ..many },
        Terms { fuel: 5_000_000, memory_mib: 64, people: 20_000, threads: 2, ..many },
    ] {
        for behaviour in &BEHAVIOURS {
            let Terms { fuel, memory_mib, people, threads, pairs: _ } = terms;
            let name = format!("{} ({fuel} fuel, {memory_mib} MiB, {people} people, {threads} threads)", behaviour.1);
            let row = row(lab, costs, behaviour, terms, name)?;
            say(&format!("{}: {}", row.name, row.observed));
            rows.push(row);
        }
    }
    Ok(rows)
}

fn row(lab: &Lab, costs: Costs, behaviour: &Behaviour, terms: Terms, name: String) -> Result<Row> {
    let &(how, _, unprotected) = behaviour;
    // A planted one tells what it does to those behind him by itself.
    let people = if lab.defect == Some(Defect::KeptPages) { 2_000 } else { terms.people };
    let women = (0..people).map(|n| Person { id: format!("w{n}"), man: false, age: 40.0, measured: 0.0 });
    let man = Person { id: "man".to_owned(), man: true, age: 40.0, measured: 0.0 };
    let without = lab.cohort(women.clone().collect(), 1)?;
    let with = lab.cohort(std::iter::once(man).chain(women).collect(), 1)?;
    let ask = Ask::how(how).fuel(terms.fuel).memory(terms.memory_mib);
    let once = || -> Result<(Vec<f64>, f64)> {
        let (mut moved, mut longest_us) = (vec![], 0.0);
        for _ in 0..terms.pairs {
            let (late_us, longest) = lab.end(&ask, &with, terms.threads, costs)?;
            moved.push(late_us - lab.end(&ask, &without, terms.threads, costs)?.0);
            longest_us = longest;
        }
        Ok((moved, longest_us))
    };
    let (mut moved, mut longest_us) = once()?;
    if is_beyond(&moved, longest_us) {
        // Something else may have kept the machine busy.
        (moved, longest_us) = once()?;
    }
    let beyond = is_beyond(&moved, longest_us);
    let observed = format!(
        "of {} pairs of rounds, the median differs by {:.1} ms; delays reckon with {:.1}",
        terms.pairs,
        median(moved) / 1e3,
        longest_us / 1e3
    );
    Ok(Row::new(name, TIME, unprotected, (!beyond, observed)))
}

/// Whether so many pairs differ by more than `most_us`, in one direction, as of a median within it
/// would in one of a thousand samples at most.
fn is_beyond(moved_us: &[f64], most_us: f64) -> bool {
    let beyond = |farther: &dyn Fn(f64) -> bool| {
        let (all, count) = (moved_us.len(), moved_us.iter().filter(|moved| farther(**moved)).count());
        tail(count as u64, all as u64, 0.5) <= FALSE_ALARM
    };
    beyond(&|moved| moved > most_us) || beyond(&|moved| moved < -most_us)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ten_pairs_and_24_of_30_are_beyond_and_one_fewer_is_not() {
        for (all, beyond) in [(10, 10), (30, 24)] {
            let pairs = |beyond: usize| -> Vec<f64> { (0..all).map(|n| if n < beyond { 2.0 } else { 0.0 }).collect() };
            assert!(is_beyond(&pairs(beyond), 1.0) && !is_beyond(&pairs(beyond - 1), 1.0));
            let early: Vec<f64> = pairs(beyond).iter().map(|moved| -moved).collect();
            assert!(is_beyond(&early, 1.0));
        }
    }
}
