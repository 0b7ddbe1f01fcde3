//! Codes of dense values, one rule for all methods:
//!
//!     y = R(value op factor[group]),  op * or /, R rounds to the weight's type
//!     code = an integer, a small float, or the rank among levels
//!
//! The host makes the rule from the method's scales; src/quantization/encode_rule.ts is the other half.

use crate::cast::Cast;
use crate::cells::Cells;
use crate::numbers::*;
use crate::pack::pack;
use crate::ranges::{self, CHUNK};

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
    /// Added to values of integers first, before rounding, and after; null for nothing.
    shift: *const f32,
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

impl Rule {
    /// Whether all groups begin and end where sixteen codes do.
    fn is_even(&self) -> bool {
        self.count % 16 == 0 && (self.head >= self.count || (self.head | self.group) % 16 == 0)
    }

    /// Whether bfloat16 becomes an 8-bit float as it is.
    unsafe fn is_cast(&self) -> bool {
        let is_whole = self.head >= self.count && *self.factor == 1.0;
        is_whole && self.dtype == BFLOAT16 && self.coder == SMALL_FLOAT && self.sign_bit == 128
    }
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
    if rule.is_cast() {
        return match rule.mantissa_bits {
            2 => Cast::<2>::new(rule.high, rule.least_exponent).run(input, rule.count, out),
            _ => Cast::<3>::new(rule.high, rule.least_exponent).run(input, rule.count, out),
        };
    }
    match (rule.rounding, rule.divides) {
        (BFLOAT16, 0) => run_with::<BFLOAT16, false>(rule, input, out),
        (BFLOAT16, _) => run_with::<BFLOAT16, true>(rule, input, out),
        (FLOAT16, 0) => run_with::<FLOAT16, false>(rule, input, out),
        (FLOAT16, _) => run_with::<FLOAT16, true>(rule, input, out),
        (_, 0) => run_with::<FLOAT32, false>(rule, input, out),
        (_, _) => run_with::<FLOAT32, true>(rule, input, out),
    }
}

/// The same with factors that are found first, and written where the rule says.
pub unsafe fn normalize(rule: &Rule, input: *const u8, ends: *mut f32, least: f32, out: *mut u8) -> bool {
    let groups = 1 + rule.count.saturating_sub(rule.head).div_ceil(rule.group);
    let (low, high) = (ends, ends.add(groups));
    if !ranges::run(input, rule.dtype, rule.count, rule.head, rule.group, low, high) {
        return false;
    }
    for group in 0..groups {
        let magnitude = (*high.add(group)).abs().max((*low.add(group)).abs());
        *high.add(group) = magnitude;
        *low.add(group) = 1.0 / magnitude.max(least);
    }
    run(rule, input, out)
}

unsafe fn run_with<const R: u32, const DIVIDES: bool>(
    rule: &Rule,
    input: *const u8,
    out: *mut u8,
) -> bool {
    let y = |value, group: &Group| scaled::<R, DIVIDES>(value, group);
    match (rule.coder, rule.mantissa_bits) {
        (INTEGER, _) if rule.shift.is_null() => run_coder(rule, input, out, |four, group| {
            bytes_of(four, |x| integers(rule, y(x, group), group))
        }),
        (INTEGER, _) => run_coder(rule, input, out, |four, group| {
            bytes_of(four, |x| {
                let shifted = rounded::<R>(f32x4_add(x, group.shift));
                integers(rule, y(shifted, group), group)
            })
        }),
        (SMALL_FLOAT, 1) if rule.signed_zero == 0 => {
            let float = SmallFloat::<1, true>::of(rule);
            run_coder(rule, input, out, |four, group| bytes_of(four, |x| float.code(x, y(x, group))))
        }
        (SMALL_FLOAT, 1) => {
            let float = SmallFloat::<1, false>::of(rule);
            run_coder(rule, input, out, |four, group| bytes_of(four, |x| float.code(x, y(x, group))))
        }
        (SMALL_FLOAT, 2) => {
            let float = SmallFloat::<2, false>::of(rule);
            run_coder(rule, input, out, |four, group| bytes_of(four, |x| float.code(x, y(x, group))))
        }
        (SMALL_FLOAT, _) => {
            let float = SmallFloat::<3, false>::of(rule);
            run_coder(rule, input, out, |four, group| bytes_of(four, |x| float.code(x, y(x, group))))
        }
        _ => match Cells::of(&rule.bounds, &rule.order) {
            Some(cells) => run_coder(rule, input, out, |four, group| cells.codes(four.map(|x| y(x, group)))),
            None => run_coder(rule, input, out, |four, group| bytes_of(four, |x| levels(rule, y(x, group)))),
        },
    }
}

/// What is made of sixteen values.
#[inline(always)]
fn bytes_of([a, b, c, d]: [v128; 4], code: impl Fn(v128) -> v128) -> v128 {
    bytes(code(a), code(b), code(c), code(d))
}

/// A function for each coder: engines compile one when it is used.
#[inline(never)]
unsafe fn run_coder<C: Fn([v128; 4], &Group) -> v128>(
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
    let is_direct = rule.bits == 8 && rule.is_even();
    for start in (0..rule.count).step_by(CHUNK) {
        let length = CHUNK.min(rule.count - start);
        finite &= widen(rule.dtype, input, start, length, values.as_mut_ptr()) < INFINITY_BITS;
        let packed = out.add(start / 8 * rule.bits as usize);
        let bytes = if is_direct { packed } else { codes.as_mut_ptr() };
        let mut at = 0;
        while at < length {
            let part = left.min(length - at);
            encode_part(values.as_ptr().add(at), part, bytes.add(at), |four| coder(four, &group));
            at += part;
            left -= part;
            if left == 0 && start + at < rule.count {
                index += 1;
                left = rule.group;
                group = Group::of(rule, index);
            }
        }
        if !is_direct {
            pack(codes.as_ptr(), length, rule.bits, packed);
        }
    }
    finite
}

/// Codes of some values; up to 15 bytes behind the last one change too, before they get their own codes.
#[inline(always)]
unsafe fn encode_part(from: *const f32, count: usize, to: *mut u8, code: impl Fn([v128; 4]) -> v128) {
    for i in (0..count).step_by(16) {
        let value = |at: usize| load(from.add(i + at));
        v128_store(to.add(i) as *mut v128, code([value(0), value(4), value(8), value(12)]));
    }
}

#[inline(always)]
fn scaled<const R: u32, const DIVIDES: bool>(value: v128, group: &Group) -> v128 {
    rounded::<R>(if DIVIDES {
        f32x4_div(value, group.factor)
    } else {
        f32x4_mul(value, group.factor)
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

/// A small float's numbers in all lanes; `ONE_ZERO`: -0 is 0.
struct SmallFloat<const MANTISSA: u32, const ONE_ZERO: bool> {
    /// The largest magnitude that has a code.
    most: v128,
    /// The exponent of the least normal number, in its place.
    least: v128,
    /// What that exponent is as part of a code.
    bias: v128,
    sign_bit: v128,
}

impl<const MANTISSA: u32, const ONE_ZERO: bool> SmallFloat<MANTISSA, ONE_ZERO> {
    fn of(rule: &Rule) -> Self {
        let least = (127 + rule.least_exponent) << 23;
        SmallFloat {
            most: f32x4_splat(rule.high),
            least: i32x4_splat(least),
            bias: i32x4_splat(least >> (23 - MANTISSA)),
            sign_bit: u32x4_splat(rule.sign_bit),
        }
    }

    /// The code nearest to what became of a value, half to even; NaN (0 / 0, 0 times infinity) is zero.
    #[inline(always)]
    fn code(&self, value: v128, y: v128) -> v128 {
        let size = f32x4_pmin(self.most, f32x4_pmax(f32x4_splat(0.0), f32x4_abs(y)));
        // Adding this power of two rounds to the steps of the number's exponent, and counts them.
        let exponent = i32x4_max(v128_and(size, u32x4_splat(INFINITY_BITS)), self.least);
        let rounder = i32x4_add(exponent, i32x4_splat((23 - MANTISSA as i32) << 23));
        let steps = i32x4_sub(f32x4_add(size, rounder), rounder);
        let code = i32x4_add(steps, i32x4_sub(u32x4_shr(exponent, 23 - MANTISSA), self.bias));
        let negative = if ONE_ZERO { f32x4_lt(y, f32x4_splat(0.0)) } else { i32x4_shr(value, 31) };
        v128_or(code, v128_and(negative, self.sign_bit))
    }
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
