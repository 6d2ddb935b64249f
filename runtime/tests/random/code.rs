//! Hostile code: what is run, and how it gets from one place to another.

use std::fmt::Write as _;

use vestibule_protocol::job::Limits;

use crate::dice::Dice;
use crate::guest::Guest;
use crate::shapes::{KEPT, LOCALS, forever, slow, statements};

/// Statements of a guest at most: what they are compiled in is no part of the test.
const STATEMENTS: u64 = 12_000;

/// So many statements that no check of a function's own comes, or any number.
fn behind_a_call(dice: &mut Dice, most: u64) -> String {
    match dice.within(0, 3) {
        0 => {
            let count = dice.size(10, most);
            statements(dice, count)
        }
        1 => {
            let count = dice.within(100, 350);
            statements(dice, count)
        }
        _ => {
            let count = dice.within(150, 250);
            slow(dice, count)
        }
    }
}

/// As deep as the fuel pays for entries, or the stack goes; what follows each call is long.
pub(crate) fn recursion(dice: &mut Dice, limits: Limits) -> Guest {
    let most = (limits.fuel_per_partition / 40).min(6_000);
    let depth = *[most, dice.size(10, most), 1_000_000_000].get(dice.within(0, 9) as usize).unwrap_or(&most);
    let tail = behind_a_call(dice, STATEMENTS);
    let fields = format!(
        "(func $f (param $n i32) {LOCALS}
           (if (local.get $n) (then (call $f (i32.sub (local.get $n) (i32.const 1)))))
           {tail} {KEPT})"
    );
    Guest { fields, work: forever(&format!("(call $f (i32.const {depth}))")), ..Guest::default() }
}

/// Functions that call each other by way of a table, with something behind each call.
pub(crate) fn mutual(dice: &mut Dice, limits: Limits) -> Guest {
    let functions = dice.within(2, 12);
    let depth = (limits.fuel_per_partition / dice.within(60, 100)).min(5_000);
    let mut fields = String::from("(type $t (func (param i32)))");
    for at in 0..functions {
        let tail = behind_a_call(dice, STATEMENTS / functions);
        let index = format!("(i32.rem_u (i32.mul (local.get $n) (i32.const 7)) (i32.const {functions}))");
        let call = format!("(call_indirect (type $t) (i32.sub (local.get $n) (i32.const 1)) {index})");
        let again = if dice.chance(3) { call.as_str() } else { "" };
        let _ = write!(fields, "(func $f{at} (param $n i32) {LOCALS} (if (local.get $n) (then {call} {tail} {again})) {KEPT})");
    }
    let names: String = (0..functions).map(|at| format!("$f{at} ")).collect();
    let _ = write!(fields, "(table funcref (elem {names}))");
    Guest { fields, work: forever(&format!("(call $f0 (i32.const {depth}))")), ..Guest::default() }
}

/// Functions of many statements without a branch.
pub(crate) fn straight(dice: &mut Dice, _: Limits) -> Guest {
    let count = dice.size(100, 2 * STATEMENTS);
    let body = statements(dice, count);
    let fields = format!("(func $f {LOCALS} {body} {KEPT})");
    Guest { fields, work: forever("(call $f)"), ..Guest::default() }
}

/// Nested loops with a table of ways, each of which leaves through further blocks.
pub(crate) fn table_of_ways(dice: &mut Dice, _: Limits) -> Guest {
    let ways = dice.size(2, 4_000);
    let each = dice.size(1, 30).min(STATEMENTS / ways);
    let repeated = dice.within(1, (60_000 / ways).max(1));
    let names: String = (0..ways).flat_map(|way| (0..repeated).map(move |_| format!("$w{way} "))).collect();
    let blocks: String = (0..ways).rev().map(|way| format!("(block $w{way} ")).collect();
    let leave = ["(br $turn)", "(br $outer)", ""];
    let ends: String = (0..ways).map(|_| format!(") {} {}", statements(dice, each), dice.one(&leave[..2]))).collect();
    let index = format!("(i32.rem_u (i32.wrap_i64 (i64.shr_u (local.get $x) (i64.const 24))) (i32.const {}))", ways * repeated);
    let next =
        "(local.set $x (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))";
    let work = format!("{LOCALS} (loop $outer (loop $turn {next} {blocks} (br_table {names} {index}) {ends})) {KEPT}");
    Guest { work, ..Guest::default() }
}

/// Branches over code that is never run: each goes to code that lies in no cache.
pub(crate) fn leaps(dice: &mut Dice, _: Limits) -> Guest {
    let over = dice.size(8, 1_000);
    let count = (STATEMENTS * 2 / over).min(dice.size(20, 10_000));
    let skipped = statements(dice, over);
    let leap = match dice.within(0, 2) {
        0 => format!("(block (br_if 0 (local.get $p)) {skipped})"),
        1 => format!("(if (i32.eqz (local.get $p)) (then {skipped}))"),
        _ => format!("(if (local.get $p) (then) (else {skipped}))"),
    };
    let body = leap.repeat(count as usize);
    let work = format!("{LOCALS} (local.set $p (i32.load8_u (i32.const 511))) {} {KEPT}", forever(&body));
    Guest { work, prepare: "(i32.store8 (i32.const 511) (i32.const 1))".into(), ..Guest::default() }
}

/// What costs nothing, very often.
pub(crate) fn empty_loops(dice: &mut Dice, _: Limits) -> Guest {
    let kinds = ["(loop)", "(block)", "(loop (loop))", "(block (loop (block)))", "(nop)", "(loop (nop))"];
    let count = dice.size(100, 20_000);
    let kind = dice.one(&kinds);
    Guest { work: forever(&kind.repeat(count as usize)), ..Guest::default() }
}

/// Very many functions, each called from one place, each of which lies far from the others.
pub(crate) fn spread_calls(dice: &mut Dice, _: Limits) -> Guest {
    let functions = dice.size(10, 6_000);
    let each = (STATEMENTS / functions).min(dice.size(1, 200));
    let mut fields = String::new();
    let far = statements(dice, each);
    for at in 0..functions {
        // What is far is not run.
        let _ = write!(fields, "(func $f{at} {LOCALS} (if (i32.load8_u (i32.const 511)) (then {far} {KEPT})))");
    }
    let step = dice.size(1, functions) | 1;
    let calls: String = (0..functions).map(|at| format!("(call $f{})", at * step % functions)).collect();
    Guest { fields, work: forever(&calls), ..Guest::default() }
}

/// Locals that change places at branches that name none of them.
pub(crate) fn moves(dice: &mut Dice, _: Limits) -> Guest {
    let locals = dice.size(4, 1_000);
    let turns = dice.within(1, (4_000 / locals).clamp(1, 20));
    let declared = "(local i64)".repeat(locals as usize);
    let mut body = String::new();
    for _ in 0..turns {
        let by = dice.within(1, locals);
        let turn: String = (0..locals).map(|at| format!("(local.set {at} (local.get {}))", (at + by) % locals)).collect();
        let when = dice.one(&["(i64.eqz (i64.load (i32.const 1000)))", "(i32.wrap_i64 (i64.load (i32.const 1000)))"]);
        let _ = match dice.within(0, 2) {
            0 => write!(body, "(if {when} (then) (else {turn}))"),
            1 => write!(body, "(block (br_if 0 {when}) {turn})"),
            _ => write!(body, "(loop (if (i32.eqz {when}) (then {turn} (br 1))))"),
        };
    }
    let kept: String = (0..locals).map(|at| format!("(i64.store (i32.const {}) (local.get {at}))", 16_384 + at * 8)).collect();
    let body = format!("(block $out (loop $turn {body} (br_if $out (i32.load8_u (i32.const 1001))) (br $turn)))");
    Guest { work: format!("{declared} {body} {kept}"), ..Guest::default() }
}

/// Calls of functions that take much of the stack and return at once.
pub(crate) fn large_frames(dice: &mut Dice, _: Limits) -> Guest {
    let locals = dice.size(16, 10_000);
    let declared = "(local i64)".repeat(locals as usize);
    let filled: String =
        (0..locals).map(|at| format!("(local.set {at} (i64.load (i32.const {})))", 16_384 + at % 4_000)).collect();
    let kept: String =
        (0..locals).map(|at| format!("(i64.store (i32.const {}) (local.get {at}))", 16_384 + at % 4_000)).collect();
    let fields = format!("(func $f {declared} (if (i32.load8_u (i32.const 511)) (then {filled} (call $g) {kept}))) (func $g)");
    let calls = "(call $f)".repeat(dice.size(1, 50) as usize);
    Guest { fields, work: forever(&calls), ..Guest::default() }
}

/// Few statements over and over, in registers.
pub(crate) fn slow_numbers(dice: &mut Dice, _: Limits) -> Guest {
    let count = dice.size(1, 200);
    let body = statements(dice, count);
    Guest { work: format!("{LOCALS} {} {KEPT}", forever(&body)), ..Guest::default() }
}
