//! Hostile parts: what an instance is made of, what it hands over, and how it ends.

use std::fmt::Write as _;

use vestibule_protocol::job::Limits;

use crate::dice::Dice;
use crate::guest::Guest;
use crate::shapes::forever;

fn small_functions(count: u64) -> String {
    let mut fields = String::from("(type $t (func))");
    for at in 0..count {
        let _ = write!(fields, "(func $f{at} (type $t))");
    }
    fields
}

fn names(functions: u64, entries: u64, step: u64) -> String {
    (0..entries).map(|at| format!("$f{} ", at.wrapping_mul(step) % functions)).collect()
}

/// References to functions, each of another one: the engine makes them when they are asked for.
pub(crate) fn references(dice: &mut Dice, _: Limits) -> Guest {
    let functions = dice.size(2, 20_000);
    let step = dice.size(1, functions) | 1;
    let count = dice.size(10, 5_000);
    let mut fields = small_functions(functions);
    let _ = write!(fields, "(elem declare func {})", names(functions, functions, 1));
    let body: String = (0..count).map(|at| format!("(drop (ref.func $f{}))", at.wrapping_mul(step) % functions)).collect();
    Guest { fields, work: forever(&body), ..Guest::default() }
}

/// Entries of a table: calls by way of it, or reads; and, where the sandbox lets it, writes.
pub(crate) fn tables(dice: &mut Dice, _: Limits) -> Guest {
    let (functions, entries) = (dice.size(2, 20_000), dice.size(2, 65_536));
    let step = dice.size(1, entries) | 1;
    let mut fields = small_functions(functions);
    let _ = write!(fields, "(table $e funcref (elem {}))", names(functions, entries, dice.within(1, 99)));
    let next = format!("(local.set $at (i32.rem_u (i32.add (local.get $at) (i32.const {step})) (i32.const {entries})))");
    // What changes a table cannot be baked: of that a few, which are refused.
    let refused = dice.chance(8);
    let changes = [
        "(table.set $e (local.get $at) (ref.func $f0))",
        "(table.fill $e (i32.const 0) (ref.null func) (local.get $at))",
        "(table.copy $e $e (i32.const 1) (i32.const 0) (local.get $at))",
        "(drop (table.grow $e (ref.null func) (i32.const 1)))",
        "(drop (table.grow $e (ref.null func) (i32.const 100000)))",
    ];
    let uses = ["(call_indirect $e (type $t) (local.get $at))", "(drop (table.get $e (local.get $at)))"];
    let work = if refused { dice.one(&changes) } else { dice.one(&uses) };
    if work.contains("$f0") {
        let _ = write!(fields, "(elem declare func $f0)");
    }
    let body = format!("{next} {work}").repeat(dice.size(1, 50) as usize);
    Guest { fields, work: format!("(local $at i32) {}", forever(&body)), ..Guest::default() }
}

/// Very many of everything that an instance, or the engine that is built anew, has to set up.
pub(crate) fn many_parts(dice: &mut Dice, _: Limits) -> Guest {
    let functions = dice.size(2, 20_000);
    let mut fields = small_functions(functions);
    if dice.chance(2) {
        let entries = dice.size(2, 65_536);
        let _ = write!(fields, "(table funcref (elem {}))", names(functions, entries, dice.within(1, 99)));
    }
    if dice.chance(2) {
        let _ = write!(fields, "(table funcref (elem {}))", names(functions, functions, 1));
    }
    for at in 0..dice.size(1, 900) {
        let _ = write!(fields, "(global $g{at} (mut i64) (i64.const {at}))");
    }
    for at in 0..dice.size(1, 9_000) {
        let _ = write!(fields, "(type (func (param i64 i32) (result i64))) (export \"e{at}\" (func $f{}))", at % functions);
    }
    // Something is touched first, so that all is built anew.
    Guest { fields, work: "(i32.store8 (i32.const 32768) (i32.const 1))".into(), ..Guest::default() }
}

/// As many lists as can be handed over, or more; each as long as the dice say.
pub(crate) fn lists(dice: &mut Dice, _: Limits) -> Guest {
    let entries = dice.one(&[1, 1, 10, 1_000, 20_000]);
    let lists = match dice.within(0, 3) {
        0 => dice.size(1, 4_000),
        1 => (entries * 16 + 16_384) / 32,
        2 => 1_000_000,
        _ => 1,
    };
    let kind = dice.within(0, 4);
    let width = [0, 0, 1, 8, 8][kind as usize];
    let room = (entries * 16 + 16_384_u64).saturating_sub(lists * 32);
    let each = if dice.chance(2) { room.checked_div(lists * width.max(1)).unwrap_or(0) } else { dice.size(1, entries) };
    let work = format!(
        "(local $at i32)
         (loop $each
           (i32.store8 offset=65544 (local.get $at) (i32.const {kind}))
           (i32.store offset=65548 (local.get $at) (i32.const 131072))
           (i32.store offset=65552 (local.get $at) (i32.const {each}))
           (br_if $each (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 12))) (i32.const {}))))",
        lists.min(60_000) * 12
    );
    let answer = format!(
        "(i32.store (i32.const 65536) (i32.const 65544)) (i32.store (i32.const 65540) (i32.const {lists})) (i32.const 65536)"
    );
    Guest { work, answer, entries, ..Guest::default() }
}

/// An end by a trap of any kind, at once or behind some work.
pub(crate) fn traps(dice: &mut Dice, limits: Limits) -> Guest {
    let turns = dice.size(1, limits.fuel_per_partition / 8);
    let ends = [
        "(unreachable)",
        "(drop (i32.load (i32.const -8)))",
        "(drop (i32.load offset=4294967295 (local.get $at)))",
        "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
        "(drop (i32.trunc_f64_s (f64.const nan)))",
        "(memory.fill (i32.const 65530) (i32.const 1) (i32.const -1))",
        "(call $deep)",
        "(call_indirect (type $t) (i32.const 5))",
    ];
    let fields = "(type $t (func)) (table 9 funcref) (func $deep (call $deep))".to_owned();
    let work = format!(
        "(local $at i32)
         (loop $each (br_if $each (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const {turns}))))
         {}",
        dice.one(&ends)
    );
    Guest { fields, work, ..Guest::default() }
}
