//! LLM.int8(): rows of x rounded to int8, exact int32 sums, and the columns that hold an outlier apart in
//! float. Three tape steps: mark the outlier columns, round the rows (activations.rs), multiply.

use crate::activations::{code_stride, round_to_half};
use crate::control::Context;
use crate::gemm::{self, Finish, Tiling, K_BLOCK, MR, NR};
use crate::linear::{Epilogue, Rows};
use crate::simd::*;
use crate::weight::Weight;

#[repr(C)]
pub struct LinearInt8 {
    m: u32,
    n: u32,
    k: u32,
    x: Rows,
    weight: *const Weight,
    epilogue: Epilogue,
    threshold: f32,
    /// [k]: 1 where the column holds an outlier.
    marks: *mut u32,
    /// [m]: what a code of each row of x is worth.
    scales: *const f32,
    /// x as int8, as activations.rs writes them: 0 at outlier columns.
    codes: *const i8,
}

/// Columns of a marking tile.
const MARK_COLUMNS: usize = 64;

/// x as bitsandbytes sees it: rounded to float16.
#[inline(always)]
unsafe fn half_values(x: *const f32, count: usize) -> v128 {
    round_to_half(load_some(x, count))
}

pub unsafe fn mark_outliers(p: &LinearInt8, context: &Context) {
    let (m, k) = (p.m as usize, p.k as usize);
    while let Some(tile) = context.next_tile(k.div_ceil(MARK_COLUMNS)) {
        let first = tile * MARK_COLUMNS;
        let end = (first + MARK_COLUMNS).min(k);
        for column in (first..end).step_by(4) {
            let count = (end - column).min(4);
            let mut largest = f32x4_splat(0.0);
            if p.threshold > 0.0 {
                for row in 0..m {
                    let x = half_values(p.x.at(row).add(column), count);
                    largest = f32x4_pmax(largest, f32x4_abs(x));
                }
            }
            let outlier = f32x4_ge(largest, f32x4_splat(p.threshold));
            let mark = if p.threshold > 0.0 { u32x4_shr(outlier, 31) } else { outlier_free() };
            store_some(p.marks.add(column) as *mut f32, mark, count);
        }
    }
}

#[inline(always)]
fn outlier_free() -> v128 {
    u32x4_splat(0)
}

/// The columns marked as outliers, walked in order.
struct Outliers<'a> {
    p: &'a LinearInt8,
}

impl Outliers<'_> {
    /// Calls `f(index among outliers, column)` for up to `K_BLOCK` outliers from column `start`; gives
    /// (outliers found, column to go on from).
    unsafe fn block(&self, start: usize, mut f: impl FnMut(usize, usize)) -> (usize, usize) {
        let k = self.p.k as usize;
        let (mut found, mut column) = (0, start);
        while column < k && found < K_BLOCK {
            if *self.p.marks.add(column) != 0 {
                f(found, column);
                found += 1;
            }
            column += 1;
        }
        (found, column)
    }
}

pub unsafe fn multiply(p: &LinearInt8, context: &Context) {
    let (m, n) = (p.m as usize, p.n as usize);
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(tiling.total) {
        multiply_tile(p, context, tiling.tile(tile, m, n));
    }
}

unsafe fn multiply_tile(
    p: &LinearInt8,
    context: &Context,
    (row, rows, column, columns): (usize, usize, usize, usize),
) {
    let regions = gemm::regions(context);
    let stride = gemm::round_up(columns, NR);
    integer_sums(p, &regions, (row, rows, column, columns));
    let has_outliers = outlier_sums(p, &regions, (row, rows, column, columns));
    let sums = regions.sums;
    for i in 0..rows {
        let row_scale = f32x4_splat(*p.scales.add(row + i));
        for j in (0..columns).step_by(4) {
            let at = i * stride + j;
            let scale = weight_scales(&*p.weight, column + j, (columns - j).min(4));
            let whole = f32x4_convert_i32x4(load(sums.add(at)));
            let mut value = f32x4_mul(f32x4_mul(whole, row_scale), scale);
            if has_outliers {
                value = f32x4_add(value, load(regions.more_sums.add(at)));
            }
            store(sums.add(at), value);
        }
        p.epilogue.row(row + i, column, columns, sums.add(i * stride));
    }
}

#[inline(always)]
unsafe fn weight_scales(weight: &Weight, row: usize, count: usize) -> v128 {
    let mut scales = [0f32; 4];
    for (r, scale) in scales.iter_mut().enumerate().take(count) {
        *scale = weight.row_scale(row + r);
    }
    load(scales.as_ptr())
}

/// Exact int32 sums of the int8 codes into `regions.sums`.
unsafe fn integer_sums(
    p: &LinearInt8,
    regions: &gemm::Regions,
    (row, rows, column, columns): (usize, usize, usize, usize),
) {
    let k = p.k as usize;
    let weight = &*p.weight;
    let stride = gemm::round_up(columns, NR);
    let mut first = 0;
    while first < k {
        let count = K_BLOCK.min(k - first);
        let pairs = count.div_ceil(2);
        for j in (0..columns).step_by(NR) {
            let panel = (regions.panels as *mut i16).add(j * K_BLOCK);
            pack_integer_panel(weight, column + j, NR.min(columns - j), first, count, regions.rows, panel);
        }
        for i in (0..rows).step_by(MR) {
            pack_integer_strip(p, row + i, MR.min(rows - i), first, count, regions.strip);
            for j in (0..columns).step_by(NR) {
                let panel = (regions.panels as *mut i16).add(j * K_BLOCK);
                let c = (regions.sums as *mut i32).add(i * stride + j);
                kernel(regions.strip as *const i16, panel, pairs, c, stride, first > 0);
            }
        }
        first += count;
    }
}

/// Integers of 8 weight rows as [pair][8][2].
unsafe fn pack_integer_panel(
    weight: &Weight,
    column: usize,
    columns: usize,
    k: usize,
    count: usize,
    scratch: *mut f32,
    into: *mut i16,
) {
    let rows = scratch as *mut i16;
    let padded = gemm::round_up(count, 2);
    for r in 0..columns {
        let to = rows.add(r * K_BLOCK);
        weight.decode_integers(column + r, k, count, to);
        if padded > count {
            *to.add(count) = 0;
        }
    }
    for r in columns..NR {
        core::ptr::write_bytes(rows.add(r * K_BLOCK), 0, padded);
    }
    // A pair of i16 moves as one 32-bit word, so this is the float panel's transposition.
    let words = padded / 2;
    gemm::pack_panel(|r| rows.add(r * K_BLOCK) as *const f32, NR, words, into as *mut f32);
}

/// The int8 codes of MR rows of x as [pair][MR][2], widened.
unsafe fn pack_integer_strip(
    p: &LinearInt8,
    row: usize,
    rows: usize,
    k: usize,
    count: usize,
    into: *mut f32,
) {
    let stride = code_stride(p.k as usize);
    let first = p.codes.add(row * stride + k);
    // A pair of i16 is one word, so four words are eight codes.
    let words = |r: usize, word: usize| {
        if r < rows {
            i16x8_load_extend_i8x8(first.add(r * stride + 2 * word))
        } else {
            i16x8_splat(0)
        }
    };
    gemm::pack_words(words, count.div_ceil(2), into);
}

/// C [MR, NR] of int32 (rows `stride` apart) = (C when `add`) + strip [pairs][MR][2] x panel [pairs][NR][2].
unsafe fn kernel(
    strip: *const i16,
    panel: *const i16,
    pairs: usize,
    c: *mut i32,
    stride: usize,
    add: bool,
) {
    let mut acc = [[i32x4_splat(0); 2]; MR];
    let (mut a, mut b) = (strip, panel);
    for _ in 0..pairs {
        let b0 = v128_load(b as *const v128);
        let b1 = v128_load(b.add(8) as *const v128);
        for r in 0..MR {
            let x = v128_load32_splat(a.add(2 * r) as *const u32);
            acc[r][0] = i32x4_add(acc[r][0], i32x4_dot_i16x8(x, b0));
            acc[r][1] = i32x4_add(acc[r][1], i32x4_dot_i16x8(x, b1));
        }
        a = a.add(2 * MR);
        b = b.add(2 * NR);
    }
    for r in 0..MR {
        for h in 0..2 {
            let to = c.add(r * stride + 4 * h) as *mut v128;
            v128_store(to, if add { i32x4_add(v128_load(to), acc[r][h]) } else { acc[r][h] });
        }
    }
}

/// Float products of the outlier columns into `regions.more_sums`; false when there are none.
unsafe fn outlier_sums(
    p: &LinearInt8,
    regions: &gemm::Regions,
    (row, rows, column, columns): (usize, usize, usize, usize),
) -> bool {
    let outliers = Outliers { p };
    let stride = gemm::round_up(columns, NR);
    let k = p.k as usize;
    let (mut start, mut any) = (0, false);
    while start < k {
        let (count, next) = outliers.block(start, |_, _| {});
        if count == 0 {
            break;
        }
        let padded = gemm::round_up(count, 4);
        core::ptr::write_bytes(regions.panels, 0, stride * padded);
        for j in 0..columns {
            let panel = regions.panels.add(j / NR * NR * padded + j % NR);
            outliers.block(start, |index, outlier| {
                let mut value = 0f32;
                (*p.weight).decode(column + j, outlier, 1, &mut value);
                *panel.add(index * NR) = value;
            });
        }
        for i in (0..rows).step_by(MR) {
            core::ptr::write_bytes(regions.strip, 0, MR * padded);
            for r in 0..MR.min(rows - i) {
                let x = p.x.at(row + i + r);
                outliers.block(start, |index, outlier| {
                    let value = f32x4_extract_lane::<0>(half_values(x.add(outlier), 1));
                    *regions.strip.add(index * MR + r) = value;
                });
            }
            for j in (0..columns).step_by(NR) {
                let to = regions.more_sums.add(i * stride + j);
                gemm::kernel(regions.strip, regions.panels.add(j * padded), count, to, stride, any);
            }
        }
        any = true;
        start = next;
    }
    any
}
