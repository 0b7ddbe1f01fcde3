//! Packing for integer products: codes of x as strips of 4 rows, the weight as panels of 8 columns, and what
//! goes with the runs of both.

use crate::activations::code_stride;
use crate::gemm::Regions;
use crate::integer_gemm::{Block, Product, Side, BLOCK_BYTES};
use crate::integer_kernel::{COLUMNS, PANEL_STEP, ROWS, STRIP_STEP};
use crate::simd::*;

impl Product<'_> {
    /// The codes of a tile's rows as strips, with the sums of each run.
    pub unsafe fn pack_rows(&self, row: usize, rows: usize, block: Block, into: *mut u8, side: &Side) {
        let bytes = if self.is_narrow() { 1 } else { 2 };
        for strip in 0..rows.div_ceil(ROWS) {
            let to = into.add(strip * block.padded() * bytes * ROWS);
            let left = rows - strip * ROWS;
            let vectors = block.padded() * bytes / 16;
            for i in 0..vectors {
                let at = |r: usize| {
                    if r >= left {
                        i32x4_splat(0)
                    } else {
                        self.row_vector(row + strip * ROWS + r, block, i)
                    }
                };
                let (a, b, c, d) = transpose(at(0), at(1), at(2), at(3));
                let to = to.add(i * 4 * STRIP_STEP) as *mut f32;
                store(to, a);
                store(to.add(4), b);
                store(to.add(8), c);
                store(to.add(12), d);
            }
            self.sum_rows(to, strip, block, side);
        }
    }

    /// Vector `i` of a row's codes: 16 bytes, or 8 int16 less the row's zero.
    #[inline(always)]
    unsafe fn row_vector(&self, row: usize, block: Block, i: usize) -> v128 {
        let first = block.first + i * if self.is_narrow() { 16 } else { 8 };
        let stride = code_stride(self.k);
        if first >= stride {
            return i32x4_splat(0);
        }
        let codes = self.codes.add(row * stride + first);
        if self.is_narrow() {
            return v128_load(codes as *const v128);
        }
        let wide = i16x8_load_extend_i8x8(codes);
        if !self.has_zeros() {
            return wide;
        }
        let value = i16x8_sub(wide, i16x8_splat(*self.zeros.add(row) as i16));
        let left = i16x8_splat(self.k.saturating_sub(first).min(8) as i16);
        v128_and(value, i16x8_lt(i16x8(0, 1, 2, 3, 4, 5, 6, 7), left))
    }

    /// What the narrow sums of a strip begin at, and the sums of x - zero, run by run.
    unsafe fn sum_rows(&self, strip: *const u8, index: usize, block: Block, side: &Side) {
        let narrow = self.is_narrow();
        if !narrow && self.form.has_offset == 0 {
            return;
        }
        let steps = block.run * if narrow { 1 } else { 2 } / 4;
        for run in 0..block.runs {
            let mut sums = i32x4_splat(0);
            for step in 0..steps {
                let x = v128_load(strip.add((run * steps + step) * STRIP_STEP) as *const v128);
                sums = if narrow {
                    i16x8_add(sums, i16x8_extadd_pairwise_i8x16(x))
                } else {
                    i32x4_add(sums, i32x4_dot_i16x8(x, i16x8_splat(1)))
                };
            }
            let at = (index * block.runs + run) * ROWS;
            if narrow {
                let start = i16x8_mul(sums, i16x8_splat(-self.form.center as i16));
                store(side.starts.add(at), start);
                sums = i32x4_extadd_pairwise_i16x8(sums);
            }
            let mut whole = f32x4_convert_i32x4(sums);
            if narrow && self.has_zeros() {
                let k = block.run.min(block.count.saturating_sub(run * block.run));
                let zeros = load(side.zeros.add(index * ROWS));
                whole = f32x4_sub(whole, f32x4_mul(zeros, f32x4_splat(k as f32)));
            }
            store(side.row_sums.add(at), whole);
        }
    }

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
            if !self.form.is_exact() {
                self.describe_runs(from, c, to, block, side);
            }
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
        let center = self.form.center as u8;
        core::ptr::write_bytes(to.add(block.count), center, block.padded() - block.count);
    }

    /// The table of a narrow product: integers, as high as the center makes them.
    #[inline(always)]
    unsafe fn byte_table(&self) -> v128 {
        let table = self.form.table.as_ptr() as *const v128;
        let center = i16x8_splat(self.form.center as i16);
        let (low, high) = (v128_load(table), v128_load(table.add(1)));
        u8x16_narrow_i16x8(i16x8_add(low, center), i16x8_add(high, center))
    }

    /// Codes as int16 around 0.
    #[inline(always)]
    unsafe fn wide_values(&self, raw: *const u8, block: Block, to: *mut i16) {
        let center = i16x8_splat(self.form.center as i16);
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

    /// Scales, offsets and column sums of one column.
    #[inline(always)]
    unsafe fn describe_runs(
        &self,
        column: usize,
        c: usize,
        values: *const u8,
        block: Block,
        side: &Side,
    ) {
        let (factor, shift) = (self.form.factor, self.form.shift * self.form.factor);
        let has_column_sums = self.has_zeros() && self.is_narrow();
        self.weight.for_each_run(column, block.first, block.run, block.runs, |run, scale, offset| {
            let at = run * COLUMNS + c;
            *side.scales.add(at) = scale * factor;
            *side.offsets.add(at) = offset + shift * scale;
            if has_column_sums {
                let sum = sum_bytes(values.add(run * block.run), block.run);
                let center = self.form.center * block.run as i32;
                *side.column_sums.add(at) = (center - sum as i32) as f32;
            }
        });
    }
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
