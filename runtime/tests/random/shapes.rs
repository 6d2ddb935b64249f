//! All that is hostile on purpose, each of a size that the dice say.
//!
//! *In*: a seed's dice, a job's limits. *Out*: a guest. Each shape is one kind of work that could
//! take long for what it is charged with; `code`, `memory` and `instance` have them.

use vestibule_protocol::job::Limits;

use crate::dice::Dice;
use crate::guest::Guest;
use crate::{code, instance, memory};

/// A kind of hostile guest.
pub(crate) type Shape = fn(&mut Dice, Limits) -> Guest;

/// All kinds, by name.
pub(crate) const SHAPES: &[(&str, Shape)] = &[
    ("recursion", code::recursion),
    ("mutual", code::mutual),
    ("straight", code::straight),
    ("table-of-ways", code::table_of_ways),
    ("leaps", code::leaps),
    ("empty-loops", code::empty_loops),
    ("spread-calls", code::spread_calls),
    ("moves", code::moves),
    ("large-frames", code::large_frames),
    ("slow-numbers", code::slow_numbers),
    ("chase", memory::chase),
    ("strides", memory::strides),
    ("bulk", memory::bulk),
    ("growth", memory::growth),
    ("state", memory::state),
    ("sparse-state", memory::sparse_state),
    ("rehearsed", memory::rehearsed),
    ("segments", memory::segments),
    ("function-references", instance::references),
    ("tables", instance::tables),
    ("many-parts", instance::many_parts),
    ("lists", instance::lists),
    ("traps", instance::traps),
];

/// Locals that statements work on, and what is in them at first.
pub(crate) const LOCALS: &str = "(local $x i64) (local $y i64) (local $u f64) (local $v f64) (local $s f32) (local $t f32) (local $z f32) (local $p i32) (local $w v128)
  (local.set $x (i64.const 88172645463325252)) (local.set $y (i64.const 1442695040888963407))
  (local.set $u (f64.const 0x1.8p-1050)) (local.set $v (f64.const 0x1.fffp-1)) (local.set $s (f32.const 0x1p-140)) (local.set $t (f32.const 0x1.8p-1)) (local.set $z (f32.const 0x1.fffp-1))
  (local.set $w (v128.const i64x2 0x0000000000012345 0x8000000000054321))\n";

/// What takes some time, and leaves all locals in use.
const STATEMENTS: &[&str] = &[
    "(local.set $x (i64.mul (local.get $x) (local.get $y)))",
    "(local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))",
    "(local.set $y (i64.add (local.get $y) (i64.rotl (local.get $x) (local.get $y))))",
    "(local.set $x (i64.div_u (local.get $x) (i64.or (local.get $y) (i64.const 3))))",
    "(local.set $y (i64.rem_u (local.get $y) (i64.or (i64.shr_u (local.get $x) (i64.const 40)) (i64.const 3))))",
    "(local.set $x (i64.div_s (local.get $x) (i64.const 7)))",
    "(local.set $p (i32.rem_u (local.get $p) (i32.or (i32.wrap_i64 (local.get $x)) (i32.const 5))))",
    "(local.set $x (i64.popcnt (i64.clz (local.get $x))))",
    "(local.set $u (f64.mul (f64.const 0x1p-1050) (local.get $v)))",
    "(local.set $u (f64.mul (local.get $u) (local.get $v)))",
    "(local.set $u (f64.add (local.get $u) (f64.const 0x1p-1060)))",
    "(local.set $u (f64.div (f64.const 0x1p-1040) (f64.add (local.get $v) (f64.const 1))))",
    "(local.set $v (f64.sqrt (f64.add (local.get $v) (f64.const 0x1p-1030))))",
    "(local.set $u (f64.min (local.get $u) (f64.max (local.get $v) (f64.const nan))))",
    "(local.set $u (f64.nearest (f64.ceil (local.get $u))))",
    "(local.set $s (f32.mul (f32.const 0x1p-130) (local.get $t)))",
    "(local.set $s (f32.demote_f64 (f64.mul (f64.const 0x1p-135) (local.get $v))))",
    "(local.set $u (f64.promote_f32 (local.get $s)))",
    "(local.set $t (f32.sqrt (f32.add (local.get $t) (f32.const 0x1p-140))))",
    "(local.set $x (i64.trunc_sat_f64_u (f64.convert_i64_u (local.get $x))))",
    "(local.set $w (f64x2.mul (local.get $w) (v128.const f64x2 0.99999 0.5)))",
    "(local.set $w (f32x4.sqrt (f32x4.mul (local.get $w) (v128.const f32x4 0x1p-100 1 0.7 2))))",
    "(local.set $w (f64x2.div (v128.const i64x2 77 99) (f64x2.promote_low_f32x4 (local.get $w))))",
    "(local.set $w (i64x2.mul (local.get $w) (v128.const i64x2 0x123456789abcdef 77)))",
    "(local.set $w (i8x16.popcnt (i8x16.shl (local.get $w) (local.get $p))))",
    "(local.set $w (i32x4.trunc_sat_f64x2_u_zero (local.get $w)))",
    "(local.set $w (f32x4.demote_f64x2_zero (local.get $w)))",
    "(local.set $w (i64x2.shr_s (i8x16.swizzle (local.get $w) (v128.const i8x16 9 2 4 1 0 3 3 3 15 14 99 1 2 3 4 5)) (local.get $p)))",
];

/// Each waits for the one before, and for a processor that stops at small numbers.
const SLOW: &[&str] = &[
    "(local.set $u (f64.mul (local.get $u) (local.get $v)))",
    "(local.set $s (f32.mul (local.get $s) (local.get $z)))",
    "(local.set $w (f64x2.mul (local.get $w) (f64x2.splat (local.get $v))))",
];

/// So many of one that is slow.
pub(crate) fn slow(dice: &mut Dice, count: u64) -> String {
    dice.one(SLOW).repeat(count as usize)
}

/// So many of them: any, or one kind alone.
pub(crate) fn statements(dice: &mut Dice, count: u64) -> String {
    let alone = dice.chance(2).then(|| dice.one(STATEMENTS));
    (0..count).map(|_| alone.unwrap_or_else(|| dice.one(STATEMENTS))).collect()
}

/// Keeps what they worked on alive.
pub(crate) const KEPT: &str = "(i64.store (i32.const 256) (local.get $x)) (i64.store (i32.const 264) (local.get $y))
  (f64.store (i32.const 272) (f64.add (local.get $u) (local.get $v)))
  (f32.store (i32.const 280) (f32.add (local.get $s) (local.get $t))) (v128.store (i32.const 288) (local.get $w)) (i32.store (i32.const 304) (local.get $p))\n";

/// Does it until the fuel is gone.
pub(crate) fn forever(body: &str) -> String {
    format!("(loop $for_ever {body} (br $for_ever))")
}
