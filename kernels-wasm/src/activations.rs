//! Rounding of activations to codes: the meaning is in src/ops/activation_mode.ts. A step finds each row's
//! scale and writes codes, or what they stand for as floats, or both. Where all rows share a scale, a step
//! before it finds the range of each row.

use crate::control::Context;
use crate::integer_kernel::{ROWS, STRIP_STEP};
use crate::linear::Rows;
use crate::opcodes::*;
use crate::simd::*;
use crate::strips::{Block, StripForm, Strips};

#[repr(C)]
pub struct RoundRows {
    m: u32,
    k: u32,
    x: Rows,
    dtype: u32,
    /// 1: a scale is found from x; the static scale and inverse below are then unused.
    dynamic: u32,
    asymmetric: u32,
    rounding: u32,
    levels: f32,
    least: f32,
    scale: f32,
    inverse: f32,
    zero: f32,
    lowest: f32,
    highest: f32,
    /// 1: x is rounded to float16 first. Then |x| from `threshold` (if not 0) on does not count for the
    /// scale, and columns marked 1 in `marks` have code 0: LLM.int8().
    half: u32,
    threshold: f32,
    marks: *const u32,
    /// [m, 2]: the least and the largest value of each row, zero included, where rows share a scale; else null.
    ranges: *mut f32,
    /// [m to a multiple of `ROWS`]: what a code is worth.
    scales: *mut f32,
    /// [m to a multiple of `ROWS`]: the code that means 0.
    zeros: *mut f32,
    /// [m, k] as floats; null when nobody reads it.
    values: *mut f32,
    /// 1: somebody reads the strips.
    has_strips: u32,
    strips: Strips,
    form: StripForm,
}

/// Rows of a tile, whole strips.
const TILE_ROWS: usize = 2 * ROWS;

/// What turns the values of a row into codes and back.
#[derive(Clone, Copy)]
struct Scaling {
    scale: f32,
    zero: f32,
    inverse: f32,
    divide: bool,
}

/// x rounded to float16, ties to even; infinite beyond its range.
#[inline(always)]
pub fn round_to_half(x: v128) -> v128 {
    let sign = v128_and(x, i32x4_splat(i32::MIN));
    let value = round_small_float(f32x4_abs(x), 13, 6.103_515_6e-5, 0.5);
    let too_big = f32x4_ge(f32x4_abs(x), f32x4_splat(65520.0));
    let value = v128_bitselect(f32x4_splat(f32::INFINITY), value, too_big);
    v128_or(v128_bitselect(x, value, f32x4_ne(x, x)), sign)
}

/// A magnitude rounded to a small float, ties to even: `dropped` bits of the mantissa go; below
/// `least_normal` values are multiples of the spacing of floats just above `unit`.
#[inline(always)]
fn round_small_float(magnitude: v128, dropped: u32, least_normal: f32, unit: f32) -> v128 {
    let odd = v128_and(u32x4_shr(magnitude, dropped), u32x4_splat(1));
    let half = u32x4_splat((1 << (dropped - 1)) - 1);
    let rounded = i32x4_add(i32x4_add(magnitude, half), odd);
    let normal = v128_and(rounded, u32x4_splat(!((1 << dropped) - 1)));
    let small = f32x4_sub(f32x4_add(magnitude, f32x4_splat(unit)), f32x4_splat(unit));
    v128_bitselect(small, normal, f32x4_lt(magnitude, f32x4_splat(least_normal)))
}

/// The value of the nearest float8 of a type, for |x| within its range; NaN stays.
#[inline(always)]
fn round_to_float8(dtype: u32, x: v128) -> v128 {
    let sign = v128_and(x, i32x4_splat(i32::MIN));
    let magnitude = f32x4_abs(x);
    let value = if dtype == CODE_DTYPE_FLOAT8_E4M3FN {
        round_small_float(magnitude, 20, 0.015625, 16384.0)
    } else {
        round_small_float(magnitude, 21, 6.103_515_6e-5, 128.0)
    };
    v128_or(v128_bitselect(x, value, f32x4_ne(x, x)), sign)
}

/// The range of each row, for rows that share a scale.
pub unsafe fn find_ranges(p: &RoundRows, context: &Context) {
    let m = p.m as usize;
    while let Some(tile) = context.next_tile(m.div_ceil(TILE_ROWS)) {
        let first = tile * TILE_ROWS;
        for row in first..(first + TILE_ROWS).min(m) {
            let (least, largest) = p.range(row);
            *p.ranges.add(2 * row) = least;
            *p.ranges.add(2 * row + 1) = largest;
        }
    }
}

pub unsafe fn round_rows(p: &RoundRows, context: &Context) {
    let m = p.m as usize;
    while let Some(tile) = context.next_tile(m.div_ceil(TILE_ROWS)) {
        let shared = p.shared_range();
        let first = tile * TILE_ROWS;
        for strip in first / ROWS..(first + TILE_ROWS).min(m).div_ceil(ROWS) {
            p.round_strip(strip, shared);
        }
    }
}

impl RoundRows {
    /// Up to four values of a row, as they are seen.
    #[inline(always)]
    unsafe fn seen(&self, row: usize, column: usize, count: usize) -> v128 {
        let x = load_some(self.x.at(row).add(column), count);
        if self.half != 0 { round_to_half(x) } else { x }
    }

    /// The same, 0 where they do not count for the scale.
    #[inline(never)]
    unsafe fn counted(&self, row: usize, column: usize, count: usize) -> v128 {
        let x = self.seen(row, column, count);
        if self.threshold > 0.0 {
            v128_and(x, f32x4_lt(f32x4_abs(x), f32x4_splat(self.threshold)))
        } else {
            x
        }
    }

    /// (least, largest) value of a row that counts for its scale, zero included; one is NaN where a value is.
    ///
    /// Floats of one sign are ordered as their bits are, NaN above all: as unsigned integers negative ones lie above
    /// all positive ones, as signed integers below.
    unsafe fn range(&self, row: usize) -> (f32, f32) {
        let k = self.k as usize;
        let plain = if self.half == 0 && self.threshold <= 0.0 { k & !3 } else { 0 };
        let from = self.x.at(row) as *const f32;
        let (mut least, mut largest) = (i32x4_splat(i32::MIN), i32x4_splat(0));
        for column in (0..k).step_by(4) {
            let x = if column < plain {
                load(from.add(column))
            } else {
                self.counted(row, column, k - column)
            };
            least = u32x4_max(least, x);
            largest = i32x4_max(largest, x);
        }
        (-max_lanes(f32x4_neg(least)), max_lanes(largest))
    }

    /// The range of all rows, where they share a scale.
    unsafe fn shared_range(&self) -> Option<(f32, f32)> {
        if self.ranges.is_null() {
            return None;
        }
        let mut range = f32x4_splat(0.0);
        for row in 0..self.m as usize {
            let pair = v128_load64_zero(self.ranges.add(2 * row) as *const u64);
            range = f32x4_max(range, v128_xor(pair, i32x4(i32::MIN, 0, 0, 0)));
        }
        Some((-f32x4_extract_lane::<0>(range), f32x4_extract_lane::<1>(range)))
    }

    unsafe fn scaling(&self, row: usize, shared: Option<(f32, f32)>) -> Scaling {
        if self.dynamic == 0 {
            let (scale, zero, inverse) = (self.scale, self.zero, self.inverse);
            return Scaling { scale, zero, inverse, divide: false };
        }
        let (least, largest) = match shared {
            Some(range) => range,
            None => self.range(row),
        };
        let span = if self.asymmetric != 0 { largest - least } else { larger(-least, largest) };
        // span - span: NaN where a value is infinite, whatever the codes are.
        let scale = larger(span / self.levels, self.least) + (span - span);
        let zero = if self.asymmetric == 0 { 0.0 } else { self.zero_of(least, scale) };
        let inverse = if scale == 0.0 {
            0.0
        } else if self.rounding == CODE_ROUNDING_RATIO {
            self.levels / span
        } else {
            1.0 / scale
        };
        let divide = self.rounding == CODE_ROUNDING_QUOTIENT && scale != 0.0;
        Scaling { scale, zero, inverse, divide }
    }

    fn zero_of(&self, least: f32, scale: f32) -> f32 {
        let shift = if scale == 0.0 { 0.0 } else { nearest(least / scale) };
        let zero = f32x4_max(f32x4_splat(self.lowest - shift), f32x4_splat(self.lowest));
        f32x4_extract_lane::<0>(f32x4_min(zero, f32x4_splat(self.highest)))
    }

    unsafe fn round_strip(&self, strip: usize, shared: Option<(f32, f32)>) {
        let first = strip * ROWS;
        let rows = ROWS.min(self.m as usize - first);
        let mut scalings = [Scaling { scale: 0.0, zero: 0.0, inverse: 0.0, divide: false }; ROWS];
        for (r, scaling) in scalings.iter_mut().enumerate() {
            if r < rows {
                *scaling = self.scaling(first + r, shared);
            }
            *self.scales.add(first + r) = scaling.scale;
            *self.zeros.add(first + r) = scaling.zero;
        }
        if !self.values.is_null() {
            for (r, scaling) in scalings.iter().enumerate().take(rows) {
                self.write_values(first + r, scaling);
            }
        }
        if self.has_strips != 0 {
            self.write_strip(strip, &scalings);
        }
    }

    /// What the codes of a row stand for.
    unsafe fn write_values(&self, row: usize, scaling: &Scaling) {
        let k = self.k as usize;
        let (zero, scale) = (f32x4_splat(scaling.zero), f32x4_splat(scaling.scale));
        for column in (0..k).step_by(4) {
            let code = self.codes(row, column, scaling);
            let value = f32x4_mul(f32x4_sub(code, zero), scale);
            store_some(self.values.add(row * k + column), value, k - column);
        }
    }

    /// The codes of a strip's rows, and the sums of its runs; rows beyond m are 0.
    unsafe fn write_strip(&self, index: usize, scalings: &[Scaling; ROWS]) {
        let (m, k) = (self.m as usize, self.k as usize);
        let zeros = self.zeros.add(index * ROWS) as *const f32;
        let has_zeros = scalings.iter().any(|scaling| scaling.zero != 0.0);
        for block in self.form.blocks(k) {
            let strip = self.strips.at(&self.form, block, m, index);
            for (r, scaling) in scalings.iter().enumerate() {
                let to = strip.codes.add(4 * r);
                if index * ROWS + r >= m {
                    write_zeros(to, block.padded() * self.form.bytes() / 4);
                } else if self.form.is_narrow() {
                    self.write_bytes(index * ROWS + r, block, scaling, to);
                } else {
                    self.write_words(index * ROWS + r, block, scaling, to);
                }
            }
            self.strips.sum_runs(&self.form, block, &strip, if has_zeros { Some(zeros) } else { None });
        }
    }

    /// A row's part of a block as bytes, four to a step.
    unsafe fn write_bytes(&self, row: usize, block: Block, scaling: &Scaling, to: *mut u8) {
        let coder = self.coder(row, scaling);
        let none = f32x4_splat(0.0);
        for i in (0..block.padded()).step_by(8) {
            let [low, high] = [i, i + 4].map(|i| coder.integers(block.first + i, none));
            let pair = i16x8_narrow_i32x4(low, high);
            let packed = i8x16_narrow_i16x8(pair, pair);
            let to = to.add(i / 4 * STRIP_STEP);
            v128_store32_lane::<0>(packed, to as *mut u32);
            v128_store32_lane::<1>(packed, to.add(STRIP_STEP) as *mut u32);
        }
    }

    /// The same as int16 around the row's zero, two to a step.
    unsafe fn write_words(&self, row: usize, block: Block, scaling: &Scaling, to: *mut u8) {
        let coder = self.coder(row, scaling);
        for i in (0..block.padded()).step_by(8) {
            let [low, high] = [i, i + 4].map(|i| coder.integers(block.first + i, coder.zero));
            let pair = i16x8_narrow_i32x4(low, high);
            let to = to.add(i / 2 * STRIP_STEP);
            v128_store32_lane::<0>(pair, to as *mut u32);
            v128_store32_lane::<1>(pair, to.add(STRIP_STEP) as *mut u32);
            v128_store32_lane::<2>(pair, to.add(2 * STRIP_STEP) as *mut u32);
            v128_store32_lane::<3>(pair, to.add(3 * STRIP_STEP) as *mut u32);
        }
    }

    #[inline(always)]
    unsafe fn coder<'a>(&'a self, row: usize, scaling: &'a Scaling) -> Coder<'a> {
        let is_plain = self.dtype == CODE_DTYPE_INT8
            && self.half == 0
            && self.marks.is_null()
            && !scaling.divide;
        Coder {
            step: self,
            scaling,
            row,
            x: self.x.at(row),
            plain: if is_plain { self.k as usize & !3 } else { 0 },
            inverse: f32x4_splat(scaling.inverse),
            zero: f32x4_splat(scaling.zero),
            lowest: f32x4_splat(self.lowest),
            highest: f32x4_splat(self.highest),
        }
    }

    /// The codes of four values as floats (for float8: the values of the codes); 0 beyond k.
    #[inline(never)]
    unsafe fn codes(&self, row: usize, column: usize, scaling: &Scaling) -> v128 {
        let k = self.k as usize;
        if column >= k {
            return f32x4_splat(0.0);
        }
        let left = k - column;
        let x = self.seen(row, column, left);
        let quotient = if scaling.divide {
            f32x4_div(x, f32x4_splat(scaling.scale))
        } else {
            f32x4_mul(x, f32x4_splat(scaling.inverse))
        };
        let (lowest, highest) = (f32x4_splat(self.lowest), f32x4_splat(self.highest));
        if self.dtype != CODE_DTYPE_INT8 {
            let clamped = f32x4_min(f32x4_max(quotient, lowest), highest);
            return round_to_float8(self.dtype, clamped);
        }
        let code = f32x4_add(f32x4_nearest(quotient), f32x4_splat(scaling.zero));
        let mut code = f32x4_min(f32x4_max(code, lowest), highest);
        if !self.marks.is_null() {
            let marks = load_some(self.marks.add(column) as *const f32, left);
            code = v128_and(code, u32x4_eq(marks, u32x4_splat(0)));
        }
        first_lanes(code, left)
    }
}

/// How a row becomes codes, its numbers apart from the step: any store may change that, as far as the compiler knows.
struct Coder<'a> {
    step: &'a RoundRows,
    scaling: &'a Scaling,
    row: usize,
    x: *const f32,
    /// Values that are only scaled, rounded and clamped, whole vectors of them.
    plain: usize,
    inverse: v128,
    zero: v128,
    lowest: v128,
    highest: v128,
}

impl Coder<'_> {
    /// The codes of four values less `center` as int32; 0 for NaN and beyond k.
    #[inline(always)]
    unsafe fn integers(&self, column: usize, center: v128) -> v128 {
        if column >= self.plain {
            return self.other_integers(column, center);
        }
        let quotient = f32x4_mul(load(self.x.add(column)), self.inverse);
        let code = f32x4_add(f32x4_nearest(quotient), self.zero);
        // These two may make a bound of NaN.
        let code = f32x4_pmin(f32x4_pmax(code, self.lowest), self.highest);
        v128_and(small_integers(f32x4_sub(code, center)), f32x4_eq(quotient, quotient))
    }

    #[inline(never)]
    unsafe fn other_integers(&self, column: usize, center: v128) -> v128 {
        let codes = self.step.codes(self.row, column, self.scaling);
        let left = (self.step.k as usize).saturating_sub(column);
        i32x4_trunc_sat_f32x4(first_lanes(f32x4_sub(codes, center), left))
    }
}

/// The larger of two numbers; NaN where one is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_max(f32x4_splat(a), f32x4_splat(b)))
}

#[inline(always)]
fn nearest(x: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_nearest(f32x4_splat(x)))
}

/// The first `count` lanes, the rest 0.
#[inline(always)]
fn first_lanes(v: v128, count: usize) -> v128 {
    v128_and(v, u32x4_lt(u32x4(0, 1, 2, 3), u32x4_splat(count as u32)))
}

/// `steps` words of a row in a strip.
unsafe fn write_zeros(to: *mut u8, steps: usize) {
    for step in 0..steps {
        core::ptr::write_unaligned(to.add(step * STRIP_STEP) as *mut u32, 0);
    }
}
