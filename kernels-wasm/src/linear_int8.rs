//! LLM.int8(): rows of x rounded to int8, exact int32 sums, and the columns that hold an outlier apart in
//! float. Three tape steps: mark the outlier columns, round the rows (activations.rs), multiply.

use crate::activations::round_to_half;
use crate::control::Context;
use crate::gemm::{self, Finish, Tiling, K_BLOCK, MR, NR};
use crate::integer_gemm::{sums_at, IntegerForm, Product, MAX_COLUMNS, MAX_ROWS};
use crate::linear::{Epilogue, Rows};
use crate::simd::*;
use crate::strips::Strips;
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
    strips: Strips,
    form: IntegerForm,
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
    // Tiles that both the integer and the float microkernel like.
    let tiling = Tiling::within(m, n, context.threads, (MAX_ROWS, MAX_COLUMNS), (2 * MR, NR));
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
    let product = Product {
        m: p.m as usize,
        k: p.k as usize,
        strips: &p.strips,
        zeros: core::ptr::null(),
        weight: &*p.weight,
        form: &p.form,
    };
    product.accumulate(&regions, (row, rows, column, columns));
    let has_outliers = outlier_sums(p, &regions, (row, rows, column, columns));
    let line = regions.rows;
    let weights = line.add(MAX_COLUMNS);
    product.column_scales(column, columns, weights);
    for i in 0..rows {
        let row_scale = f32x4_splat(*p.scales.add(row + i));
        for j in (0..columns).step_by(4) {
            let whole = f32x4_convert_i32x4(load(regions.sums.add(sums_at(i, j, rows))));
            let mut value = f32x4_mul(f32x4_mul(whole, row_scale), load(weights.add(j)));
            if has_outliers {
                value = f32x4_add(value, load(regions.more_sums.add(i * stride + j)));
            }
            store(line.add(j), value);
        }
        p.epilogue.row(row + i, column, columns, line);
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
