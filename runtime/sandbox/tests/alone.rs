//! Whatever an instance touches, those after it find the pages of the rehearsal and no others. In a
//! process of its own, whose only thread this is.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, reason = "a test without a harness, which loads compiled code")]

use std::process::{Command, Stdio};

use vestibule_protocol::job::Limits;
use vestibule_protocol::round::{Bound, Round, RoundRequest, Statistic};
use vestibule_protocol::scores::Source;
use vestibule_sandbox::{Alone, Ground, Individual, Pages, Room, Sandbox, Settings, Swap};

const LIMITS: Limits = Limits { fuel_per_partition: 100_000_000, memory_mib: 8 };
/// What the first dosage says.
const USUAL: u8 = 0;
const TOUCH_ALL: u8 = 1;
const READ_ALL: u8 = 2;
const GROW: u8 = 3;
const TRAP: u8 = 4;

/// `usual` writes two pages; the others as they are named. Its memory begins with 4 MiB that are not
/// zero.
const GUEST: &str = r#"(module
  (memory (export "memory") 80)
  (global $next (mut i32) (i32.const 65536))
  (func $write (param $from i32) (param $to i32)
    (loop $page
      (i32.store8 (local.get $from) (i32.const 7))
      (br_if $page (i32.lt_u (local.tee $from (i32.add (local.get $from) (i32.const 4096))) (local.get $to)))))
  (func $read (param $from i32) (param $to i32) (result i32) (local $sum i32)
    (loop $page
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $from))))
      (br_if $page (i32.lt_u (local.tee $from (i32.add (local.get $from) (i32.const 4096))) (local.get $to))))
    (local.get $sum))
  (func (export "contribute") (param $list i32) (param $count i32) (result i32) (local $how i32)
    ;; An individual: values (pointer, count), dosages (pointer, count).
    (local.set $how (i32.load8_u (i32.load (i32.add (local.get $list) (i32.const 8)))))
    (call $write (i32.const 4096) (i32.const 12288))
    (if (i32.eq (local.get $how) (i32.const 1)) (then (call $write (i32.const 0) (i32.const 5242880))))
    (if (i32.eq (local.get $how) (i32.const 2)) (then (drop (call $read (i32.const 0) (i32.const 5242880)))))
    (if (i32.eq (local.get $how) (i32.const 3)) (then
      (drop (memory.grow (i32.const 40)))
      (call $write (i32.const 5242880) (i32.const 7864320))))
    (if (i32.eq (local.get $how) (i32.const 4)) (then (call $write (i32.const 0) (i32.const 2097152)) unreachable))
    ;; A list of one: a cell.
    (i32.store (i32.const 4096) (i32.const 4104))
    (i32.store (i32.const 4100) (i32.const 1))
    (i32.store8 (i32.const 4104) (i32.const 1))
    (i32.store (i32.const 4108) (i32.const 0))
    (i32.const 4096))
  (func (export "cabi_post_contribute") (param i32))
  (func (export "prepare") (param i32 i32) (result i32)
    (memory.fill (i32.const 1048576) (i32.const 5) (i32.const 4194304))
    (i32.store8 (i32.const 0) (i32.const 0)) (i32.const 0))
  (func (export "cabi_post_prepare") (param i32))
  (func (export "plan") (param i32 i32) (result i32) unreachable)
  (func (export "cabi_post_plan") (param i32))
  (func (export "next") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
  (func (export "cabi_post_next") (param i32))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (global.set $next (i32.add (local.get $at) (local.get 3)))
    (local.get $at)))"#;

fn encoded() -> Vec<u8> {
    let mut module = wat::parse_str(GUEST).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let wit = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some("analysis")).unwrap();
    let coding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut module, &resolve, world, coding, false).unwrap();
    wit_component::ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

const fn settings(swap: Swap) -> Settings {
    Settings { threads: 1, max_memory_mib: 64, cache: None, symbols: false, parallel_compilation: false, alone: true, swap }
}

fn of(how: &'static [u8]) -> Vec<Individual<'static>> {
    vec![Individual { values: &[], dosages: how }]
}

fn baked() -> Vec<u8> {
    let bound = Bound::OneCell;
    let statistic = Statistic { name: "n".into(), length: 1, bound, weight: 1.0, source: Source::Given };
    let request = RoundRequest { statistics: vec![statistic], budget_share: 1.0, state: vec![], dosages: true };
    let round = Round::check(request).unwrap();
    let sandbox = Sandbox::new(settings(Swap::Never)).unwrap();
    sandbox.load(&encoded()).unwrap().bake(&round, LIMITS).unwrap()
}

fn alone(swap: Swap, code: Vec<u8>, room: Room<'_>) -> Alone {
    // SAFETY: what an engine of the same settings has made, in this process or in the one that started it.
    unsafe { Alone::new(Ground::new().unwrap(), settings(swap), code, 1, LIMITS, room) }.unwrap()
}

/// A worker that takes over: it rehearses nothing, and lays down what another found.
fn follow(code: &str) {
    let pages: Pages = serde_json::from_reader(std::io::stdin()).unwrap();
    let mut alone = alone(Swap::Never, std::fs::read(code).unwrap(), Room::Laid(pages));
    for _ in 0..1_000 {
        assert!(alone.contribute(&of(&[USUAL])).is_ok());
        alone.settle().unwrap();
    }
    println!("{}", alone.given_back());
}

/// It is as the first one was after one build more: `TAKEOVER_BUILDS` in `runtime/src/delay.rs`.
fn a_worker_that_takes_over_is_soon_as_the_first_was(code: &[u8], pages: &Pages) {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("follow-{}", std::process::id()));
    std::fs::write(&file, code).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap());
    let mut child = program.arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), pages).unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let builds: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(builds <= 1, "{builds}");
    println!("a follower built its engine {builds} times more; {} bytes are laid down", pages.bytes());
}

/// How often this process had to be given a page: the tenth field of its `stat` (proc(5)).
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(7).unwrap().parse().unwrap()
}

/// Every instance leaves nothing, so that each has as many faults as if it were the first; and the
/// engine stays.
fn where_there_is_swap_nobody_finds_a_page_of_another(code: Vec<u8>) {
    let mut alone = alone(Swap::Possible, code, Room::Rehearsed(&[of(&[USUAL])]));
    let mut faults = |how: &'static [u8]| {
        let before = page_faults();
        drop(alone.contribute(&of(how)));
        alone.settle().unwrap();
        (page_faults() - before, alone.given_back())
    };
    faults(&[USUAL]);
    let (usual, _) = faults(&[USUAL]);
    assert!(usual > 0, "each has its own");
    for how in [&[TOUCH_ALL], &[GROW], &[TRAP], &[READ_ALL]] {
        let (more, _) = faults(how);
        assert!(more > 100 * usual.min(5), "{how:?}: {more} {usual}");
        for _ in 0..20 {
            assert_eq!(faults(&[USUAL]), (usual, 0), "as if {how:?} had not been");
        }
    }
}

fn main() {
    if let Some(code) = std::env::args().nth(1).filter(|argument| argument.contains("follow-")) {
        return follow(&code);
    }
    let code = baked();
    where_there_is_swap_nobody_finds_a_page_of_another(code.clone());
    let mut alone = alone(Swap::Never, code.clone(), Room::Rehearsed(&[of(&[USUAL])]));
    a_worker_that_takes_over_is_soon_as_the_first_was(&code, alone.pages());
    let mut contribute = |how: &'static [u8]| {
        let found = alone.contribute(&of(how)).is_ok();
        alone.settle().unwrap();
        (found, alone.given_back())
    };
    // What the allocator takes at first is nobody's.
    contribute(&[USUAL]);
    let (_, before) = contribute(&[USUAL]);
    for _ in 0..1_000 {
        assert_eq!(contribute(&[USUAL]), (true, before), "nothing is touched first");
    }
    let mut given_back = before;
    for (how, returns) in [(&[TOUCH_ALL], true), (&[GROW], true), (&[TRAP], false), (&[TOUCH_ALL], true)] {
        given_back += 1;
        assert_eq!(contribute(how), (returns, given_back), "{how:?} leaves pages");
        for _ in 0..100 {
            assert_eq!(contribute(&[USUAL]), (true, given_back), "as if {how:?} had not been");
        }
    }
    // What is baked in is there to be read: somebody who reads all of it leaves next to nothing.
    contribute(&[READ_ALL]);
    let (_, read) = contribute(&[USUAL]);
    assert!(read <= given_back + 1, "{read} {given_back}");
    println!("1 passed, 0 failed");
}
