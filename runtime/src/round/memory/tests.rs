//! What was reckoned is enough, and how many rows there are changes nothing of it.

use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::process::{Resource, Rlimit, setrlimit};
use vestibule_protocol::calibration::calibrate;
use vestibule_protocol::job::{Budget, Noise};
use vestibule_protocol::round::{Bound, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::GenotypeSums;
use vestibule_sandbox::Given;
use vestibule_worker::Each;

use super::*;
use crate::dataset::{Rows, of_people};
use crate::round::{self, Crew, RoundFailure};

const FACTORS: usize = 700;
const GIVEN: usize = 300_000;

/// Factors times all variants of one block, and numbers.
fn terms() -> Vec<Calibrated> {
    let scores: Vec<i16> = [0, 1_024, 2_048, 0].repeat(4_096);
    let length = u32::try_from(FACTORS * 4_096).unwrap();
    let source = Source::Genotypes(GenotypeSums { factors: u32::try_from(FACTORS).unwrap(), scores: scores.into() });
    // A radius that some rows' own genotypes decide about.
    let statistic = |name: &str, length, bound, source| Statistic { name: name.into(), length, bound, weight: 1.0, source };
    let statistics = vec![
        statistic("products", length, Bound::L2 { radius: 10.0 }, source),
        statistic("given", u32::try_from(GIVEN).unwrap(), Bound::L1 { radius: 1.0 }, Source::Given),
    ];
    let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: false }).unwrap();
    let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
    calibrate(&round, Partitioning::Each, budget).unwrap()
}

/// Guests that all give the same, without a process. Says how many pages this thread touched for the first time behind its first row group.
struct Still<'a> {
    given: [Vec<f64>; 2],
    rows: usize,
    finished: usize,
    before: u64,
    found: &'a Mutex<Vec<u64>>,
}

impl<'a> Still<'a> {
    fn crew(found: &'a Mutex<Vec<u64>>) -> Box<dyn Crew + 'a> {
        let given = [(0..FACTORS).map(|at| [0.25, 1.0, 0.0][at % 3]).collect(), vec![1.0; GIVEN]];
        Box::new(Self { given, rows: 0, finished: 0, before: 0, found })
    }
}

/// Pages that this thread has had the kernel give it.
fn faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind = stat.rsplit_once(')').unwrap().1;
    behind.split_whitespace().nth(7).unwrap().parse().unwrap()
}

impl Crew for Still<'_> {
    fn row(&mut self, _: &RowGroup, _: usize) -> Result<(), RoundFailure> {
        Ok(())
    }

    fn close(&mut self, _: usize, _: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        if self.rows == 0 && self.finished == 1 {
            self.before = faults();
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(&mut self, each: &mut Each<'_, RoundFailure>) -> Result<(), RoundFailure> {
        for _ in 0..std::mem::take(&mut self.rows) {
            let [factors, given] = &self.given;
            each(Some(&[Given::Reals(factors), Given::Reals(given)]))?;
        }
        self.finished += 1;
        Ok(())
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if self.finished > 1 {
            self.found.lock().unwrap().push(faults() - self.before);
        }
    }
}

fn run(rows: &Rows, selection: &Selection, calibrated: &[Calibrated], threads: usize) -> (Result<Sums, RoundFailure>, u64) {
    let found = Mutex::new(vec![]);
    let crews = (0..threads).map(|_| Still::crew(&found)).collect();
    let partitions = Partitions::of(Partitioning::Each, 1);
    let sums = round::run(rows, selection, partitions, crews, calibrated);
    (sums, found.into_inner().unwrap().into_iter().sum())
}

/// All of a thread's memory is there before its first row: a thousand rows touch no page for the first time that one row does not. (A page or two
/// of a stack, or of what reading the counter takes, is no row's. The factors of 1,024 rows alone are 700 pages, a row group's genotypes 256.)
#[test]
fn no_page_is_touched_for_the_first_time_because_of_the_nth_row() {
    let calibrated = terms();
    for people in [1, 512, 513, 1_024] {
        let (rows, selection) = of_people(&[1, people], 1);
        let (sums, pages) = run(&rows, &selection, &calibrated, 1);
        assert_eq!(sums.unwrap().moving(), i64::try_from(people).unwrap() + 1);
        assert!(pages <= 16, "{people} rows: {pages} pages");
    }
}

fn limits() -> Limits {
    Limits { fuel_per_partition: 1, memory_mib: 1 }
}

/// Not a test: a round, its noise and what comes of both, in a process that may have as much memory as was reckoned; and then a round
/// in as much as one thread's sums and a half.
#[test]
#[ignore = "the test below starts it, in a process of its own"]
fn a_round_in_as_much_memory_as_was_reckoned() {
    let calibrated = terms();
    let (rows, selection) = of_people(&[1_024, 1_024, 0, 3], 1);
    let memory = Memory::of(&calibrated, &selection, Partitions::of(Partitioning::Each, 1), limits());
    let limit = |bytes: Option<usize>| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmData")).unwrap();
        let now: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let current = bytes.map(|bytes| (now << 10) + bytes as u64);
        setrlimit(Resource::Data, Rlimit { current, maximum: None }).unwrap();
    };
    limit(Some(memory.of_threads(2)));
    let drawn = crate::noise::draw(&calibrated, 2).unwrap();
    let sums = run(&rows, &selection, &calibrated, 2).0.unwrap();
    assert_eq!(sums.moving(), 2_051);
    assert!(drawn.hide(sums).is_ok());
    limit(None);
    // Far too little is found before the first row, and is no crash.
    limit(Some(memory.sums * 3 / 2));
    assert_eq!(run(&rows, &selection, &calibrated, 2).0.unwrap_err(), RoundFailure::Host);
}

/// Nor is it far more: most of it is the release, which is made of numbers, text and sealed text when the threads' memory is free again.
#[test]
fn what_is_reckoned_is_what_is_laid() {
    let calibrated = terms();
    let (rows, selection) = of_people(&[1], 1);
    let memory = Memory::of(&calibrated, &selection, Partitions::of(Partitioning::Each, 1), limits());
    let (sums, work) = Sums::bytes(&calibrated, selection.variants());
    assert_eq!((sums, sums), (memory.sums, FACTORS * 4_096 * 32 + GIVEN * 8));
    // A block, the factors of a row group, and tables.
    assert!((6 << 20..12 << 20).contains(&work), "{work}");
    let group = RowGroup::bytes(&selection);
    assert!((1 << 20..5 << 18).contains(&group), "{group}");
    drop(rows);
}

#[test]
fn a_round_takes_no_more_memory_than_was_reckoned() {
    let mut program = Command::new(std::env::current_exe().unwrap());
    let name = "round::memory::tests::a_round_in_as_much_memory_as_was_reckoned";
    program.args([name, "--exact", "--ignored", "--test-threads=1"]).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// What was an attack: factors by the million, of which each individual's took 32 MiB.
#[test]
fn rounds_that_could_fill_a_machine_are_found_before_they_are_charged() {
    let scores: Vec<i16> = vec![1; 4];
    let of = |factors: u32| {
        let source = Source::Genotypes(GenotypeSums { factors, scores: scores.clone().into() });
        let statistics =
            vec![Statistic { name: "s".into(), length: factors, bound: Bound::L2 { radius: 1.0 }, weight: 1.0, source }];
        let round = Round::check(RoundRequest { statistics, budget_share: 1.0, state: vec![], dosages: false }).unwrap();
        let budget = Budget::new(Noise::Gaussian, 1.0, 1e-6).unwrap().round(1_000_000_000);
        let calibrated = calibrate(&round, Partitioning::Each, budget).unwrap();
        let selection = of_people(&[1], 1).1.first(1);
        let memory = Memory::of(&calibrated, &selection, Partitions::of(Partitioning::Each, 1), limits());
        mib(memory.of_threads(2))
    };
    // Whole groups' factors would be 16 GiB a thread.
    assert!((1_000..4_000).contains(&of(4_000_000)), "{}", of(4_000_000));
    assert!(of(1) < 100, "{}", of(1));
}
