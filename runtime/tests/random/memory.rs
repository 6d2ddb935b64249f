//! Hostile memory: where it is touched, in what order, and what it begins with.

use std::fmt::Write as _;

use vestibule_protocol::job::Limits;

use crate::dice::Dice;
use crate::guest::Guest;
use crate::shapes::forever;

const PAGE: u64 = 4_096;

fn bytes(limits: Limits) -> u64 {
    u64::from(limits.memory_mib) << 20
}

/// Runs `body` for each `$at` from `from`, below `to`.
fn each(from: u64, to: u64, step: u64, body: &str) -> String {
    format!(
        "(local.set $at (i32.const {from}))
         (loop $each {body} (br_if $each (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const {step}))) (i32.const {to}))))"
    )
}

/// Loads whose address is the result of the one before, over all of the memory or a part, also of
/// numbers that lie across two lines or two pages.
pub(crate) fn chase(dice: &mut Dice, limits: Limits) -> Guest {
    let most = (limits.fuel_per_partition / 60).max(64).next_power_of_two();
    let span = bytes(limits) / dice.size(1, 16).next_power_of_two();
    let places = most.min(span / 64).min(dice.size(64, 1 << 20).next_power_of_two());
    let stride = span / places;
    let across = [0, 0, 61, 62, 4_093, 4_094];
    let across = (dice.one(&across)).min(stride.saturating_sub(4));
    // A walk that comes to all places: x -> 5 x + an odd number, modulo a power of two.
    let odd = dice.within(1, places) | 1;
    let mask = places - 1;
    let lay = format!(
        "(i32.store offset={across} (i32.mul (local.get $at) (i32.const {stride}))
           (i32.mul (i32.const {stride}) (i32.and (i32.const {mask}) (i32.add (i32.mul (local.get $at) (i32.const 5)) (i32.const {odd})))))"
    );
    let lay = each(0, places, 1, &lay);
    let loads = dice.size(4, 300) as usize;
    let load = format!("(i32.load offset={across} align=1 ");
    let mut turn = format!("(local.set $p {}(local.get $p){})", load.repeat(loads), ")".repeat(loads));
    if dice.chance(3) {
        let _ = write!(turn, "(i64.store offset={} align=1 (local.get $p) (i64.const 1))", across + 4);
    }
    let work = format!("(local $at i32) (local $p i32) {lay} {} (i32.store (i32.const 256) (local.get $p))", forever(&turn));
    Guest { work, ..Guest::default() }
}

/// Each page once, read before it is written or not, forwards or across.
pub(crate) fn strides(dice: &mut Dice, limits: Limits) -> Guest {
    let step = dice.one(&[PAGE, PAGE, 64, 4_032, 65_536, 12_288]);
    let reads = "(drop (i64.load (local.get $at)))";
    let writes =
        ["(i32.store8 (local.get $at) (i32.const 1))", "(i64.store offset=4092 align=1 (local.get $at) (i64.const 1))"];
    let write = dice.one(&writes);
    let to = bytes(limits) - 2 * PAGE;
    let mut work = String::from("(local $at i32)");
    match dice.within(0, 3) {
        0 => work.push_str(&each(0, to, step, write)),
        1 => work.push_str(&each(0, to, step, &format!("{reads} {write}"))),
        2 => {
            work.push_str(&each(0, to, step, reads));
            work.push_str(&each(0, to, step, write));
        }
        _ => {
            work.push_str(&each(0, to, 2 * step, write));
            work.push_str(&each(step, to, 2 * step, &format!("{write} {reads}")));
        }
    }
    if dice.chance(2) {
        work.push_str(&forever(&each(0, to, step, &format!("{reads} {write}"))));
    }
    Guest { work, ..Guest::default() }
}

/// Whole stretches at once, of sizes that the guest reckons or that stand in the code.
pub(crate) fn bulk(dice: &mut Dice, limits: Limits) -> Guest {
    let all = bytes(limits);
    let constant = dice.chance(2);
    let mut body = String::new();
    let mut fields = String::from("(data $d \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\")");
    for _ in 0..dice.size(1, 200) {
        let length = dice.size(1, (limits.fuel_per_partition / 2).min(all / 2));
        let length = if constant {
            format!("(i32.const {})", length.min(200))
        } else {
            format!("(i32.or (local.get $none) (i32.const {length}))")
        };
        let from = dice.within(0, all / 2 - 1);
        let to = from.saturating_add(dice.size(1, 4_100)).min(all / 2);
        let (from, to) = if dice.chance(2) { (from, to) } else { (to, from) };
        let _ = match dice.within(0, 5) {
            0..3 => write!(body, "(memory.copy (i32.const {to}) (i32.const {from}) {length})"),
            3 | 4 => write!(body, "(memory.fill (i32.const {to}) (i32.const 3) {length})"),
            _ => write!(body, "(memory.init $d (i32.const {from}) (i32.const 0) (i32.const {}))", dice.within(0, 64)),
        };
    }
    if !body.contains("$d") {
        fields.clear();
    }
    let end = if dice.chance(4) { "(memory.fill (i32.const 0) (i32.const 1) (i32.const -1))" } else { "" };
    Guest { fields, work: format!("(local $none i32) {} {end}", forever(&body)), ..Guest::default() }
}

/// Asks for memory: page by page, all at once, more than there is, or none.
pub(crate) fn growth(dice: &mut Dice, limits: Limits) -> Guest {
    let by = dice.one(&[0, 1, 1, 2, 16, 1_023, 65_000, 65_536]);
    let touch = ["", "(i32.store8 (i32.mul (i32.sub (memory.size) (i32.const 1)) (i32.const 65536)) (i32.const 1))"];
    let touch = dice.one(&touch);
    let body = format!("(drop (memory.grow (i32.const {by}))) {touch}");
    let pages = dice.size(1, u64::from(limits.memory_mib) * 16);
    Guest { work: forever(&body), pages: Some(pages), ..Guest::default() }
}

/// A state of many bytes, all of which is read, or written, or both.
pub(crate) fn state(dice: &mut Dice, limits: Limits) -> Guest {
    let length = dice.size(65_536, (bytes(limits) - 65_536).min(16 << 20));
    let prepare = format!("(memory.fill (i32.const 65536) (i32.const 5) (i32.const {length}))");
    let end = 65_536 + length - 8;
    let read = "(drop (i64.load (local.get $at)))";
    let write = "(i64.store (local.get $at) (i64.const 7))";
    let first = dice.one(&[read, write, ""]);
    let then = dice.one(&[read, write]);
    let once = if first.is_empty() { String::new() } else { each(65_536, end, PAGE, first) };
    let all = if dice.chance(2) { bytes(limits) - 8 } else { end };
    let work = format!("(local $at i32) {once} {}", each(65_536, all, PAGE, then));
    Guest { work, prepare, rehearsed: dice.chance(2), ..Guest::default() }
}

/// A state that lies far apart: a byte here and there, in all of the memory.
pub(crate) fn sparse_state(dice: &mut Dice, limits: Limits) -> Guest {
    let step = dice.size(64, 262_144);
    let prepare =
        format!("(local $at i32) {}", each(65_536, bytes(limits), step, "(i32.store8 (local.get $at) (i32.const 5))"));
    let write = "(i64.store align=1 (local.get $at) (i64.const 7))";
    let work = format!("(local $at i32) {}", each(65_536, bytes(limits) - 8, dice.one(&[PAGE, step]), write));
    Guest { work, prepare, rehearsed: dice.chance(2), ..Guest::default() }
}

/// All of the memory, in rehearsals too: what they touch is laid down for everybody.
pub(crate) fn rehearsed(dice: &mut Dice, limits: Limits) -> Guest {
    let step = dice.one(&[PAGE, 2 * PAGE, 16 * PAGE]);
    let write = "(i32.store8 (local.get $at) (i32.const 7))";
    let work = format!("(local $at i32) {}", each(0, bytes(limits), step, write));
    Guest { work, rehearsed: true, ..Guest::default() }
}

/// A module whose memory begins with many small segments.
pub(crate) fn segments(dice: &mut Dice, limits: Limits) -> Guest {
    let count = dice.size(10, 9_000);
    let step = (bytes(limits) - 131_072) / count;
    let mut fields = String::new();
    for at in 0..count {
        let _ = write!(fields, "(data (i32.const {}) \"x\")", 65_536 + at * step);
    }
    let write = "(i32.store8 (local.get $at) (i32.const 7))";
    let work = format!("(local $at i32) {}", each(0, bytes(limits), PAGE, write));
    Guest { fields, work, rehearsed: dice.chance(2), ..Guest::default() }
}
