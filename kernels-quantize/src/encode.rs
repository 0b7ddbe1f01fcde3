//! Codes of dense values, one rule for all methods:
//!
//!     y = R(R(value + shift[group]) op factor[group]),  op * or /, R rounds to the weight's type
//!     code = an integer, a small float, or the rank among levels
//!
//! The host makes the rule from the method's scales; quantize_rule.ts is the other half.

use crate::numbers::*;
use crate::pack::pack;
use crate::ranges::{all_finite, CHUNK};

/// Words as the host writes them.
#[repr(C)]
pub struct Rule {
    dtype: u32,
    rounding: u32,
    divides: u32,
    coder: u32,
    bits: u32,
    count: usize,
    /// Values of the first group, and of each other one.
    head: usize,
    group: usize,
    factor: *const f32,
    /// Null where nothing is added.
    shift: *const f32,
    /// Added before rounding to integers, and after; null for nothing.
    bias: *const f32,
    zero: *const f32,
    /// Ends of the integers, or of what a small float may be.
    low: f32,
    high: f32,
    /// The integer whose code is 0.
    origin: i32,
    /// What becomes of NaN: 1 makes it zero, 0 the lowest integer.
    nan_is_zero: u32,
    mantissa_bits: u32,
    least_exponent: i32,
    largest_code: i32,
    sign_bit: u32,
    /// Whether the sign of zero counts.
    signed_zero: u32,
    bounds: [f32; 16],
    order: [u8; 16],
}

const INTEGER: u32 = 0;
const SMALL_FLOAT: u32 = 1;

/// A group's numbers in all lanes.
struct Group {
    factor: v128,
    shift: v128,
    bias: v128,
    low: v128,
    high: v128,
    /// Added to a rounded integer to make its code.
    base: v128,
}

impl Group {
    unsafe fn of(rule: &Rule, index: usize) -> Group {
        let of = |values: *const f32, absent| if values.is_null() { absent } else { *values.add(index) };
        let zero = of(rule.zero, 0.0);
        let is_integer = rule.coder == INTEGER;
        Group {
            factor: f32x4_splat(*rule.factor.add(index)),
            shift: f32x4_splat(of(rule.shift, -0.0)), // adding -0 changes nothing, signs of zero included
            bias: f32x4_splat(of(rule.bias, -0.0)),
            low: f32x4_splat(if is_integer { rule.low - zero } else { rule.low }),
            high: f32x4_splat(if is_integer { rule.high - zero } else { rule.high }),
            base: i32x4_splat(zero as i32 - rule.origin),
        }
    }
}

pub unsafe fn run(rule: &Rule, input: *const u8, out: *mut u8) -> bool {
    match (rule.rounding, rule.divides) {
        (BFLOAT16, 0) => run_with::<BFLOAT16, false>(rule, input, out),
        (BFLOAT16, _) => run_with::<BFLOAT16, true>(rule, input, out),
        (FLOAT16, 0) => run_with::<FLOAT16, false>(rule, input, out),
        (FLOAT16, _) => run_with::<FLOAT16, true>(rule, input, out),
        (_, 0) => run_with::<FLOAT32, false>(rule, input, out),
        (_, _) => run_with::<FLOAT32, true>(rule, input, out),
    }
}

unsafe fn run_with<const R: u32, const DIVIDES: bool>(
    rule: &Rule,
    input: *const u8,
    out: *mut u8,
) -> bool {
    match rule.coder {
        INTEGER => run_coder(rule, input, out, |value, group| {
            integers(rule, scaled::<R, DIVIDES>(value, group), group)
        }),
        SMALL_FLOAT => run_coder(rule, input, out, |value, group| {
            let y = scaled::<R, DIVIDES>(value, group);
            // Zero stays zero whatever it is divided by.
            let y = v128_bitselect(value, y, f32x4_eq(value, f32x4_splat(0.0)));
            small_floats(rule, f32x4_pmin(group.high, f32x4_pmax(group.low, y)))
        }),
        _ => run_coder(rule, input, out, |value, group| {
            levels(rule, scaled::<R, DIVIDES>(value, group))
        }),
    }
}

#[inline(always)]
unsafe fn run_coder<C: Fn(v128, &Group) -> v128>(
    rule: &Rule,
    input: *const u8,
    out: *mut u8,
    coder: C,
) -> bool {
    let mut values = [0f32; CHUNK + 16];
    let mut codes = [0u8; CHUNK + 16];
    let (mut index, mut left) = (0, rule.head);
    let mut group = Group::of(rule, 0);
    let mut finite = true;
    for start in (0..rule.count).step_by(CHUNK) {
        let length = CHUNK.min(rule.count - start);
        widen(rule.dtype, input, start, length, values.as_mut_ptr());
        finite &= all_finite(values.as_ptr(), length);
        let mut at = 0;
        while at < length {
            let part = left.min(length - at);
            let from = values.as_ptr().add(at);
            let to = codes.as_mut_ptr().add(at);
            encode_part(from, part, to, |value| coder(value, &group));
            at += part;
            left -= part;
            if left == 0 && start + at < rule.count {
                index += 1;
                left = rule.group;
                group = Group::of(rule, index);
            }
        }
        pack(codes.as_ptr(), length, rule.bits, out.add(start / 8 * rule.bits as usize));
    }
    finite
}

/// Codes of some values; bytes behind the last one change too, before they get their own codes.
#[inline(always)]
unsafe fn encode_part(from: *const f32, count: usize, to: *mut u8, code: impl Fn(v128) -> v128) {
    let mut i = 0;
    while i + 16 <= count {
        let low = i16x8_narrow_i32x4(code(load(from.add(i))), code(load(from.add(i + 4))));
        let high = i16x8_narrow_i32x4(code(load(from.add(i + 8))), code(load(from.add(i + 12))));
        v128_store(to.add(i) as *mut v128, u8x16_narrow_i16x8(low, high));
        i += 16;
    }
    while i < count {
        let pairs = i16x8_narrow_i32x4(code(load(from.add(i))), i32x4_splat(0));
        v128_store32_lane::<0>(u8x16_narrow_i16x8(pairs, pairs), to.add(i) as *mut u32);
        i += 4;
    }
}

#[inline(always)]
fn scaled<const R: u32, const DIVIDES: bool>(value: v128, group: &Group) -> v128 {
    let shifted = rounded::<R>(f32x4_add(value, group.shift));
    rounded::<R>(if DIVIDES {
        f32x4_div(shifted, group.factor)
    } else {
        f32x4_mul(shifted, group.factor)
    })
}

#[inline(always)]
fn rounded<const R: u32>(value: v128) -> v128 {
    match R {
        BFLOAT16 => round_bfloat16(value),
        FLOAT16 => round_float16(value),
        _ => value,
    }
}

/// The nearest integer, half to even, between the ends; clamping first gives the same.
#[inline(always)]
fn integers(rule: &Rule, y: v128, group: &Group) -> v128 {
    let biased = f32x4_add(y, group.bias);
    let number = if rule.nan_is_zero != 0 { v128_and(biased, f32x4_eq(y, y)) } else { biased };
    let clamped = f32x4_pmin(group.high, f32x4_pmax(group.low, number));
    i32x4_add(nearest_integers(clamped), group.base)
}

/// The nearest small float, half to even; too large ones become the largest code.
#[inline(always)]
fn small_floats(rule: &Rule, y: v128) -> v128 {
    let size = v128_and(y, i32x4_splat(0x7fff_ffff));
    let dropped = 23 - rule.mantissa_bits;
    let odd = v128_and(u32x4_shr(size, dropped), i32x4_splat(1));
    let half = i32x4_splat((1 << (dropped - 1)) - 1);
    let bias = (126 + rule.least_exponent) << rule.mantissa_bits;
    let normal = i32x4_sub(
        u32x4_shr(i32x4_add(i32x4_add(size, half), odd), dropped),
        i32x4_splat(bias),
    );
    // Below the least normal number the steps are those of float32 around this one.
    let unit = (127 + rule.least_exponent + dropped as i32) << 23;
    let sum = f32x4_add(size, f32x4_splat(f32::from_bits(unit as u32)));
    let small = i32x4_sub(sum, i32x4_splat(unit));
    let least = f32::from_bits(((127 + rule.least_exponent) as u32) << 23);
    let code = v128_bitselect(small, normal, f32x4_lt(size, f32x4_splat(least)));
    let magnitude = i32x4_min(code, i32x4_splat(rule.largest_code));
    let negative = if rule.signed_zero != 0 {
        i32x4_shr(y, 31)
    } else {
        f32x4_lt(y, f32x4_splat(0.0))
    };
    v128_or(magnitude, v128_and(negative, i32x4_splat(rule.sign_bit as i32)))
}

/// How many bounds lie below, as a code.
#[inline(always)]
fn levels(rule: &Rule, y: v128) -> v128 {
    let mut rank = i32x4_splat(0);
    for bound in 0..15 {
        rank = i32x4_sub(rank, f32x4_gt(y, f32x4_splat(rule.bounds[bound])));
    }
    let order = unsafe { v128_load(rule.order.as_ptr() as *const v128) };
    v128_and(i8x16_swizzle(order, rank), i32x4_splat(255))
}
