//! Packing for integer products: the weight as panels of 8 columns, and what goes with their runs.

use crate::gemm::Regions;
use crate::integer_gemm::{Product, Side, PER_COLUMN};
use crate::integer_kernel::{COLUMNS, PANEL_STEP};
use crate::simd::*;
use crate::strips::{Block, BLOCK_BYTES, MOST_RUNS};

impl Product<'_> {
    /// Up to 8 columns of the weight as a panel, with scales, offsets and column sums run by run.
    pub unsafe fn pack_columns(
        &self,
        column: usize,
        columns: usize,
        block: Block,
        regions: &Regions,
        side: &Side,
    ) {
        let narrow = self.is_narrow();
        let bytes = block.padded() * if narrow { 1 } else { 2 };
        let rows = regions.rows as *mut u8;
        let raw = rows.add(COLUMNS * BLOCK_BYTES);
        for c in 0..COLUMNS {
            let to = rows.add(c * bytes);
            // Columns beyond the last repeat it; nobody reads their sums.
            let from = column + c.min(columns - 1);
            self.weight.codes(from, block.first, block.count, raw);
            if narrow {
                self.narrow_values(raw, block, to);
            } else {
                self.wide_values(raw, block, to as *mut i16);
            }
            if self.has_column_sums() {
                self.sum_column(c, to, block, side);
            }
        }
        if !self.form.is_exact() {
            self.describe_runs(column, columns, block, side);
        }
        interleave(rows, bytes, regions.strip as *mut u8);
    }

    /// Codes as the bytes of a narrow product; beyond the block they count as 0.
    #[inline(always)]
    unsafe fn narrow_values(&self, raw: *const u8, block: Block, to: *mut u8) {
        let table = self.byte_table();
        for i in (0..block.count).step_by(16) {
            let codes = v128_load(raw.add(i) as *const v128);
            let value = if self.form.has_table != 0 { pick_bytes(table, codes) } else { codes };
            v128_store(to.add(i) as *mut v128, value);
        }
        let center = self.form.strip.center as u8;
        core::ptr::write_bytes(to.add(block.count), center, block.padded() - block.count);
    }

    /// The table of a narrow product: integers, as high as the center makes them.
    #[inline(always)]
    unsafe fn byte_table(&self) -> v128 {
        let table = self.form.table.as_ptr() as *const v128;
        let center = i16x8_splat(self.form.strip.center as i16);
        let (low, high) = (v128_load(table), v128_load(table.add(1)));
        u8x16_narrow_i16x8(i16x8_add(low, center), i16x8_add(high, center))
    }

    /// Codes as int16 around 0.
    #[inline(always)]
    unsafe fn wide_values(&self, raw: *const u8, block: Block, to: *mut i16) {
        let center = i16x8_splat(self.form.strip.center as i16);
        let table = self.form.table.as_ptr() as *const v128;
        let (low, high) = (v128_load(table), v128_load(table.add(1)));
        let low_bytes =
            i8x16_shuffle::<0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30>(low, high);
        let high_bytes =
            i8x16_shuffle::<1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31>(low, high);
        for i in (0..block.count).step_by(16) {
            let codes = v128_load(raw.add(i) as *const v128);
            let (first, second) = if self.form.has_table != 0 {
                let (a, b) = (pick_bytes(low_bytes, codes), pick_bytes(high_bytes, codes));
                (
                    i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b),
                    i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b),
                )
            } else {
                let (a, b) = (u16x8_extend_low_u8x16(codes), u16x8_extend_high_u8x16(codes));
                (i16x8_sub(a, center), i16x8_sub(b, center))
            };
            v128_store(to.add(i) as *mut v128, first);
            v128_store(to.add(i + 8) as *mut v128, second);
        }
        core::ptr::write_bytes(to.add(block.count), 0, block.padded() - block.count);
    }

    fn has_column_sums(&self) -> bool {
        self.has_zeros() && self.is_narrow()
    }

    /// Minus the sums of a column's integers, run by run.
    unsafe fn sum_column(&self, c: usize, values: *const u8, block: Block, side: &Side) {
        for run in 0..block.runs {
            let sum = sum_bytes(values.add(run * block.run), block.run);
            let center = self.form.strip.center * block.run as i32;
            *side.column_sums.add(run * COLUMNS + c) = (center - sum as i32) as f32;
        }
    }

    /// Scales and offsets of up to 8 columns.
    unsafe fn describe_runs(&self, column: usize, columns: usize, block: Block, side: &Side) {
        let (mut scales, mut offsets) = ([0f32; PER_COLUMN], [0f32; PER_COLUMN]);
        for c in 0..columns {
            let at = c * MOST_RUNS;
            let (first, run, runs) = (block.first, block.run, block.runs);
            self.weight.run_scales(column + c, first, run, runs, scales.as_mut_ptr().add(at));
            if self.form.has_offset != 0 {
                self.weight.run_offsets(column + c, first, run, runs, offsets.as_mut_ptr().add(at));
            }
        }
        let factor = f32x4_splat(self.form.factor);
        let shift = f32x4_splat(self.form.shift * self.form.factor);
        for_each_vector_by_run(block.runs, |at, to| {
            let scale = columns_of_run(&scales, at);
            for (i, scale) in scale.into_iter().enumerate() {
                store(side.scales.add(to + i * COLUMNS), f32x4_mul(scale, factor));
            }
            if self.form.has_offset != 0 {
                let offset = columns_of_run(&offsets, at);
                for (i, (scale, offset)) in scale.into_iter().zip(offset).enumerate() {
                    let sum = f32x4_add(offset, f32x4_mul(shift, scale));
                    store(side.offsets.add(to + i * COLUMNS), sum);
                }
            }
        });
    }
}

/// Calls `f(first of 4 x 4 in [column][run], the same in [run][column])` for all runs of 8 columns.
#[inline(always)]
unsafe fn for_each_vector_by_run(runs: usize, f: impl Fn(usize, usize)) {
    for run in (0..runs).step_by(4) {
        for half in [0, 4] {
            f(half * MOST_RUNS + run, run * COLUMNS + half);
        }
    }
}

/// Four runs of four columns, run by run.
#[inline(always)]
unsafe fn columns_of_run(values: &[f32; PER_COLUMN], at: usize) -> [v128; 4] {
    let row = |r: usize| load(values.as_ptr().add(at + r * MOST_RUNS));
    let (a, b, c, d) = transpose(row(0), row(1), row(2), row(3));
    [a, b, c, d]
}

/// The sum of `count` (a multiple of 16) bytes.
#[inline(always)]
unsafe fn sum_bytes(from: *const u8, count: usize) -> u32 {
    let mut sums = i32x4_splat(0);
    for i in (0..count).step_by(16) {
        let bytes = v128_load(from.add(i) as *const v128);
        let pairs = u16x8_extadd_pairwise_u8x16(bytes);
        sums = i32x4_add(sums, u32x4_extadd_pairwise_u16x8(pairs));
    }
    let lane = |v: i32| v as u32;
    lane(i32x4_extract_lane::<0>(sums))
        + lane(i32x4_extract_lane::<1>(sums))
        + lane(i32x4_extract_lane::<2>(sums))
        + lane(i32x4_extract_lane::<3>(sums))
}

/// 8 rows of `bytes` (a multiple of 16) as steps of a word each.
unsafe fn interleave(rows: *const u8, bytes: usize, into: *mut u8) {
    for half in 0..2 {
        let from = rows.add(half * 4 * bytes);
        for i in (0..bytes).step_by(16) {
            let at = |r: usize| v128_load(from.add(r * bytes + i) as *const v128);
            let (a, b, c, d) = transpose(at(0), at(1), at(2), at(3));
            let to = into.add(i / 4 * PANEL_STEP + half * PANEL_STEP / 2);
            store(to as *mut f32, a);
            store(to.add(PANEL_STEP) as *mut f32, b);
            store(to.add(2 * PANEL_STEP) as *mut f32, c);
            store(to.add(3 * PANEL_STEP) as *mut f32, d);
        }
    }
}
