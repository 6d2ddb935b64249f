//! One bad behaviour for each name in `how`, towards men only. An honest person's contribution to `x` is 1/2.

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use serde::Deserializer;
use serde::de::Error as _;
use vestibule_sdk::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub how: String,
    /// For `own cell`: cells of the histogram; for `subsets`: how many sums; for `weights`: how many numbers the state has.
    #[serde(default)]
    pub cells: u32,
    /// For `fingerprint`: how many blocks.
    #[serde(default)]
    pub blocks: u32,
    /// For `single out` and `all but`: whom, by age.
    #[serde(default)]
    pub target: f64,
    /// For `by hand` and `factors`: variants.
    #[serde(default)]
    pub catalogue: String,
    #[serde(default)]
    pub slices: Vec<Slice>,
}

/// The round's state. What it says, its decoding does, which is in `prepare`.
#[derive(Serialize)]
pub struct Laid {
    how: String,
    weights: Vec<f64>,
    /// For `touch what was laid`: made in `prepare`.
    #[serde(skip_serializing)]
    pages: Vec<AtomicU8>,
}

impl<'de> Deserialize<'de> for Laid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> core::result::Result<Self, D::Error> {
        let (how, weights) = <(String, Vec<f64>)>::deserialize(deserializer)?;
        match how.as_str() {
            "loop in prepare" => loop {
                black_box(&how);
            },
            "chase in prepare" => drop(chase()),
            "panic in prepare" => panic!("a planted panic in prepare"),
            "refuse in prepare" => return Err(D::Error::custom("a planted refusal")),
            "fill memory in prepare" => {
                let mut last = Vec::new();
                while let Ok(mut block) = room(1 << 16) {
                    block.resize(1 << 16, 0xA5);
                    std::mem::forget(std::mem::replace(&mut last, block));
                }
                // The last one is given back, for what is still to be done.
            }
            "find what was laid" => LAID.iter().for_each(|laid| laid.store(0x5A, Ordering::Relaxed)),
            _ => {}
        }
        let pages = match how.as_str() {
            "touch what was laid" => PAGES_BYTES,
            "touch some that was laid" => SOME_PAGES_BYTES,
            _ => 0,
        };
        Ok(Self { how, weights, pages: (0..pages).map(|_| AtomicU8::new(1)).collect() })
    }
}

/// Most of 64 MiB.
const PAGES_BYTES: usize = 56 << 20;
/// Half of 8 MiB.
const SOME_PAGES_BYTES: usize = 4 << 20;

fn room(bytes: usize) -> core::result::Result<Vec<u8>, std::collections::TryReserveError> {
    let mut block = Vec::new();
    block.try_reserve_exact(bytes).map(|()| block)
}

/// Would grow from person to person, were an instance used twice.
static CALLS: AtomicU32 = AtomicU32::new(0);
/// Would show the last person's marks, were memory not fresh.
static MARKS: [AtomicU8; 1 << 16] = [const { AtomicU8::new(0) }; 1 << 16];

/// Filled in `prepare`, to be the same for everybody.
static LAID: [AtomicU8; 1 << 16] = [const { AtomicU8::new(0) }; 1 << 16];

pub struct Hostile;

impl Analysis for Hostile {
    type Params = Params;
    type State = Laid;

    fn plan(params: &Params) -> Result<Plan> {
        assert!(params.how != "panic in plan", "a planted panic in plan");
        if params.how == "loop in plan" {
            loop {
                black_box(params);
            }
        }
        if params.how == "chase in plan" {
            chase();
        }
        if params.how == "by hand" {
            return Ok(Plan::new().slices(&params.catalogue, &params.slices));
        }
        let plan = Plan::new().columns(["sex", "age", "trait"]).slices(&params.catalogue, &params.slices);
        Ok(if params.how == "fingerprint" { plan.blocks(params.blocks) } else { plan })
    }

    fn next(params: &Params, shape: &Shape, history: &History) -> Result<Step<Laid>> {
        if let Some(done) = history.last() {
            let values = done.get("x")?.values.iter().copied();
            return Ok(Report::new("done").table(Table::new("released").numbers("x", values)).into());
        }
        let weights = if params.how == "weights" { (0..params.cells).map(f64::from).collect() } else { vec![] };
        let (round, d) = (Round::with(Laid { how: params.how.clone(), weights, pages: vec![] }), shape.variants.len());
        Ok(match params.how.as_str() {
            "own cell" | "fingerprint" => round.histogram("x", params.cells),
            "vote" => round.top("x", 6, 2, 0.0..=1.0),
            "by hand" => round.l2("x", 2 * d, 1.001 * (d as f64).sqrt()),
            // Everybody's products would have a norm of more than 1.
            "factors" => round.genotypes("x", 2, Scores::dosages(&vec![1.0; d]), Bound::L2(1.0)).without_dosages(),
            "subsets" => round.sums("x", params.cells as usize, 0.0..=1.0),
            _ => round.sum("x", 0.0..=1.0),
        }
        .into())
    }

    fn contribute(params: &Params, laid: &Laid, individual: &Individual, out: &mut Contributions) {
        if params.how == "by hand" {
            // Nothing bad: what the host would do for those who ask it.
            let (alleles, hets) = out.values("x").split_at_mut(individual.dosages().len());
            for ((dosage, allele), het) in individual.dosages().iter().zip(alleles).zip(hets) {
                (*allele, *het) = (f64::from(*dosage) - 1.0, f64::from(u8::from(*dosage == 1)));
            }
            return;
        }
        let man = individual.level("sex") == Some(1);
        let (age, trait_) = (individual.number("age").unwrap_or(0.0), individual.number("trait").unwrap_or(0.0));
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let x = match params.how.as_str() {
            "own cell" => return out.cell("x", age as u32),
            // The secret of these three is who is a man.
            "single out" => f64::from(u8::from(man && age == params.target)),
            "all but" => f64::from(u8::from(man && age != params.target)),
            "subsets" => {
                let inside = |subset| f64::from(u8::from(man && in_subset(age as u64, subset)));
                return out.reals("x", (0..u64::from(params.cells)).map(inside).collect());
            }
            // Everybody for the fifth, men for the second as well, and far more than they may.
            "vote" => return out.reals("x", vec![0.0, if man { 1e300 } else { 0.0 }, 0.0, 0.0, 1.0, f64::NAN]),
            "factors" => return out.reals("x", if man { vec![1e300, f64::NAN] } else { vec![0.5, -0.5] }),
            "remember" => 0.5 * f64::from(calls),
            "weights" => laid.weights.get(age as usize).copied().unwrap_or(0.0).min(0.5),
            "find marks" => marks(&MARKS, 0),
            "find what was laid" => marks(&LAID, 0x5A),
            "find grown memory" => grown(),
            _ if !man => 0.5,
            "panic" => panic!("a planted panic"),
            "tell" => panic!("this one is {age} with {trait_}"),
            "shout" => age * 1e12 + trait_,
            "loop" => loop {
                black_box(calls);
            },
            "chase" => chase(),
            "tail" => tail(TAILS, 4e-310),
            "touch" => touch(),
            "touch what was laid" | "touch some that was laid" => {
                laid.pages.iter().step_by(4_096).for_each(|page| page.store(2, Ordering::Relaxed));
                loop {
                    black_box(calls);
                }
            }
            "divide" => divide(),
            "denormals" => denormals(),
            "copy" => copy(),
            "recurse" => f64::from(recurse(calls)),
            "allocate" => vec![1_u8; black_box(2 << 30)].len() as f64,
            "nan" => f64::NAN,
            "infinite" => f64::INFINITY,
            "huge" => 1e300,
            "tiny" => 5e-324,
            "negative" => -1e300,
            "too long" => return out.reals("x", vec![1.0; 3]),
            "much too long" => return out.reals("x", vec![1.0; 1 << 20]),
            "another kind" => return out.bytes("x", vec![255]),
            "another shape" => return out.cell("x", u32::MAX),
            other => panic!("no such behaviour: {other}"),
        };
        out.add("x", x);
    }

    /// One cell for anyone who is in the block.
    fn contribute_block(params: &Params, _: &Laid, block: &[Individual], out: &mut Contributions) {
        let age = |individual: &Individual| individual.number("age").unwrap_or(0.0) as u64;
        let print = block.iter().fold(0_u64, |print, individual| print.wrapping_add(mixed(age(individual))));
        out.cell("x", (mixed(print) % u64::from(params.cells.max(1))) as u32);
    }
}

/// Whether a person is in a subset: one half of all are, as good as by chance (Steele, Lea and Flood 2014, `mix64`).
pub fn in_subset(person: u64, subset: u64) -> bool {
    mixed(person << 32 ^ subset) & 1 == 1
}

fn mixed(of: u64) -> u64 {
    let mut mixed = of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// 1/2 for an instance that finds nothing but what belongs there; leaves marks.
fn marks(places: &[AtomicU8], belongs: u8) -> f64 {
    let found = places.iter().any(|mark| mark.swap(0xA5, Ordering::Relaxed) != belongs);
    if found { 1.0 } else { 0.5 }
}

/// The same with memory that it grows by, as the allocator got it.
fn grown() -> f64 {
    let mut fresh = Vec::<u8>::with_capacity(8 << 20);
    let found = fresh.spare_capacity_mut().iter_mut().fold(0_u8, |found, byte| {
        // SAFETY: memory of an instance is always something; what it is, is the question.
        #[expect(unsafe_code, reason = "an honest guest would not look")]
        let was = unsafe { byte.as_ptr().read_volatile() };
        byte.write(0xA5);
        found | was
    });
    if found == 0 { 0.5 } else { 1.0 }
}

/// Waits for memory at every step: each word says where the next one is, in an order that no cache foresees.
fn chase() -> f64 {
    const WORDS: usize = 1 << 23;
    let mut next: Vec<u32> = vec![0; WORDS];
    // A full cycle through all words (Hull and Dobell): a random-looking order that costs little to write.
    for (at, next) in next.iter_mut().enumerate() {
        *next = (at * 5_767_169 + 3_571) as u32 % WORDS as u32;
    }
    let mut at = 0_u32;
    loop {
        // SAFETY: every word is below the length, which is a power of two, and so is the first.
        #[expect(unsafe_code, reason = "a check of the bounds would be work that does not wait")]
        let step = |at: u32| unsafe { *next.get_unchecked(at as usize) };
        for _ in 0..1_024 {
            at = step(step(step(step(step(step(step(step(at))))))));
        }
        black_box(at);
    }
}

/// As deep as the stack lets it.
const TAILS: u32 = 8_000;

macro_rules! eight_times {
    ($step:expr) => {{
        $step;
        $step;
        $step;
        $step;
        $step;
        $step;
        $step;
        $step;
    }};
}

/// Leaves work behind each call, in a straight line: an engine that looks at the fuel where functions
/// and turns of loops begin has seen all of it before any of that work.
fn tail(depth: u32, x: f64) -> f64 {
    let mut x = if depth == 0 { x } else { tail(black_box(depth - 1), x) };
    eight_times!(eight_times!(eight_times!(eight_times!(x = x * 0.999_999 + 1e-315))));
    x
}

/// Has the kernel find a page at every step, of as much memory as there is.
fn touch() -> f64 {
    let mut bytes = 56 << 20;
    let mut pages = loop {
        match room(bytes) {
            Ok(pages) => break pages,
            Err(_) => bytes /= 2,
        }
    };
    for page in pages.spare_capacity_mut().iter_mut().step_by(4_096) {
        page.write(1);
    }
    loop {
        black_box(&pages);
    }
}

fn divide() -> f64 {
    let (mut a, mut b) = (black_box(u64::MAX), black_box(3.0_f64));
    loop {
        for n in 1..1_024_u64 {
            a = (a | 1 << 63) / (n | 1);
            b = (b + 1e300).sqrt();
        }
        black_box((a, b));
    }
}

/// Some processors take a detour for numbers this small.
fn denormals() -> f64 {
    let mut x = black_box(4e-310_f64);
    loop {
        for _ in 0..1_024 {
            x = x * 0.999_999 + 1e-315;
        }
        black_box(x);
    }
}

fn copy() -> f64 {
    let mut bytes = vec![1_u8; 48 << 20];
    loop {
        let (left, right) = bytes.split_at_mut(24 << 20);
        left.copy_from_slice(right);
        black_box(left);
    }
}

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(n: u32) -> u32 {
    black_box([n; 64])[3] + recurse(black_box(n + 1))
}

vestibule_sdk::analysis!(Hostile);
