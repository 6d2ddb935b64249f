//! What a guest does to men only, and what becomes of everybody's sum: exactly, before any noise.
//!
//! For each behaviour: the sums of some people and of the same people less one must differ by what that one counts for, which must
//! be within the declared 0 to 1; and nothing else may tell that there was a man.

use anyhow::Result;

use super::Row;
use super::lab::{Ask, Cohort, Lab, Person};
use super::naked::Manner;

/// The behaviour, what it is, its channel, what a man and a woman count for.
type Behaviour = (&'static str, &'static str, &'static str, f64, f64);

const VALUE: &str = "value";
const STATE: &str = "state";
const FAILURE: &str = "failure";
const TIME: &str = "time";

const BEHAVIOURS: [Behaviour; 21] = [
    ("shout", "return a person's data as a huge number", VALUE, 1.0, 0.5),
    ("huge", "return 1e300", VALUE, 1.0, 0.5),
    ("infinite", "return infinity", VALUE, 1.0, 0.5),
    ("nan", "return NaN, to poison the sum", VALUE, 0.0, 0.5),
    ("tiny", "return a subnormal number", VALUE, 0.0, 0.5),
    ("negative", "return -1e300", VALUE, 0.0, 0.5),
    ("too long", "return too many numbers", VALUE, 0.0, 0.5),
    ("much too long", "return a million numbers", VALUE, 0.0, 0.5),
    ("another shape", "return a cell of a histogram that was not asked for", VALUE, 0.0, 0.5),
    ("another kind", "return bytes where reals were declared", VALUE, 1.0, 0.5),
    ("remember", "count in a static variable who came before", STATE, 0.5, 0.5),
    ("find marks", "leave marks in memory for the next person", STATE, 0.5, 0.5),
    ("find what was laid", "change the round's state, which everybody's instance begins with", STATE, 0.5, 0.5),
    ("find grown memory", "look for the last person in memory that is grown by", STATE, 0.5, 0.5),
    ("panic", "trap at a person", FAILURE, 0.0, 0.5),
    ("tell", "trap with a person's data in the message", FAILURE, 0.0, 0.5),
    ("recurse", "exhaust the stack at a person", FAILURE, 0.0, 0.5),
    ("allocate", "exhaust memory at a person", FAILURE, 0.0, 0.5),
    ("loop", "loop for ever at a person", TIME, 0.0, 0.5),
    ("chase", "be slow at a person, so that others run out of time", TIME, 0.0, 0.5),
    ("copy", "keep the machine busy in one instruction", TIME, 0.0, 0.5),
];

/// People with their neighbours: less one man or one woman, and in another order.
struct Field {
    all: Cohort,
    neighbours: Vec<(bool, Cohort)>,
    shuffled: Cohort,
}

pub(crate) fn rows(lab: &Lab) -> Result<Vec<Row>> {
    let people = Lab::people(24);
    let without = |gone: usize| -> Vec<Person> {
        people.iter().enumerate().filter(|(at, _)| *at != gone).map(|(_, person)| person.clone()).collect()
    };
    let neighbour = |gone: usize| Ok((gone.is_multiple_of(3), lab.cohort(without(gone), 1)?));
    let field = Field {
        neighbours: [0, 1, 12, 23].into_iter().map(neighbour).collect::<Result<_>>()?,
        shuffled: lab.cohort(people.clone(), 2)?,
        all: lab.cohort(people, 1)?,
    };
    BEHAVIOURS.iter().map(|behaviour| row(lab, &field, behaviour)).collect()
}

fn ask(how: &str) -> Ask {
    // Writing grown memory all over takes more.
    Ask::how(how).fuel(if how.starts_with("find") { 300_000_000 } else { 300_000 })
}

fn row(lab: &Lab, field: &Field, &(how, name, channel, man, woman): &Behaviour) -> Result<Row> {
    let unprotected = unprotected(lab, &field.all, how)?;
    Ok(Row::new(name, channel, unprotected, observed(lab, field, how, (man, woman))?))
}

fn observed(lab: &Lab, field: &Field, how: &str, (man, woman): (f64, f64)) -> Result<(bool, String)> {
    let all = lab.run(&ask(how), &field.all)?;
    let sum = |exact: &[f64]| exact.first().copied().unwrap_or(f64::NAN);
    let (total, failures) = (sum(&all.exact), all.failures);
    let own = |man_gone: bool| if man_gone { man } else { woman };
    for (man_gone, neighbour) in &field.neighbours {
        let less = lab.run(&ask(how), neighbour)?;
        let moved = total - sum(&less.exact);
        if moved != own(*man_gone) || !(0.0..=1.0).contains(&moved) {
            return Ok((false, format!("one person moves the sum by {moved:e}, and counts for {}", own(*man_gone))));
        }
        if less.failures != failures {
            let told = |failures: Option<usize>| failures.unwrap_or_default();
            let (with, without) = (told(failures), told(less.failures));
            return Ok((false, format!("it is told that {with} individuals failed, and {without} where one is not there")));
        }
    }
    let shuffled = sum(&lab.run(&ask(how), &field.shuffled)?.exact);
    if shuffled != total {
        return Ok((false, format!("in another order the sum is {shuffled}, not {total}")));
    }
    let counts = if man == 0.0 { "nothing".to_owned() } else { format!("{man}") };
    Ok((true, format!("one person moves the sum by no more than 1; a man counts for {counts}; order and failures do not show")))
}

/// The same guest in one instance for everybody, its numbers added as they come.
fn unprotected(lab: &Lab, all: &Cohort, how: &str) -> Result<String> {
    let ask = ask(how);
    let round = lab.round(&ask, &all.dataset)?;
    let manner = Manner { reuse: true, fuel: ask.limits.fuel_per_partition, together: false };
    let sum = |people: &[Person]| -> Result<(f64, usize)> {
        let given = lab.naked.run(round.state(), people, manner)?;
        let failed = given.iter().filter(|given| given.is_none()).count();
        Ok((given.iter().flatten().filter_map(|given| given.first()).sum(), failed))
    };
    let (total, failed) = sum(&all.people)?;
    let (less, _) = sum(all.people.get(1..).unwrap_or_default())?;
    let moved = total - less;
    Ok(match how {
        "loop" | "chase" | "copy" => "the job hangs, if that person is there".to_owned(),
        _ if failed > 0 => "the job fails, if that person is there".to_owned(),
        _ if moved.is_nan() => "the sum is no number, if that person is there".to_owned(),
        _ if !(0.0..=1.0).contains(&moved) => format!("one person moves the sum by {moved:.3e}"),
        _ => format!("one person moves the sum by {moved}"),
    })
}
