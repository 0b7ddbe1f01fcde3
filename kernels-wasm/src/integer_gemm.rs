//! Products of int8 codes of x with integer weights, tile by tile. The rows of a tile are packed once per block
//! of k; each 8 columns of the weight are unpacked once per block of k and meet all rows while they lie
//! in the nearest cache.
//!
//! The sums of an element run over k in order, so the result does not depend on how tiles are cut.

use crate::gemm::{round_up, Regions, MAX_ROWS as FLOAT_ROWS};
use crate::integer_kernel::*;
use crate::simd::*;
use crate::weight::Weight;

/// Limits of a tile.
pub const MAX_ROWS: usize = 384;
pub const MAX_COLUMNS: usize = 192;
/// k of a block of bytes; int16 take half as many.
pub const BLOCK_BYTES: usize = 512;
/// The fewest k of a run: `STEP_UNIT` words of a byte per k.
const LEAST_RUN: usize = 4 * STEP_UNIT;
const MOST_RUNS: usize = BLOCK_BYTES / LEAST_RUN;
const STRIPS: usize = MAX_ROWS / ROWS;
/// Floats of one micro tile of C.
pub const TILE_FLOATS: usize = ROWS * COLUMNS;

const _: () = assert!(MAX_ROWS <= FLOAT_ROWS && MAX_ROWS * BLOCK_BYTES <= crate::gemm::PANELS_BYTES);
const _: () = assert!(COLUMNS * BLOCK_BYTES <= crate::gemm::STRIP_BYTES);
const _: () = assert!((COLUMNS + 1) * BLOCK_BYTES <= crate::gemm::ROWS_BYTES);
const _: () = assert!(SIDE_FLOATS * 4 <= crate::gemm::SUMS_BYTES);

/// How a weight is seen as integers; the words come from src/backends/wasm/integer_weight.ts.
#[repr(C)]
pub struct IntegerForm {
    /// 1: bytes of 0 to 127 with sums of 16 bits.
    pub narrow: u32,
    /// Consecutive k of a row with one scale whose sums fit; all of them when at least a block.
    pub run: u32,
    /// Subtracted from a code, or from a table's integer.
    pub center: i32,
    /// 1: every weight has something added.
    pub has_offset: u32,
    /// What is added, in scales, beside the weight's own offset.
    pub shift: f32,
    /// What an integer is worth beside the scale.
    pub factor: f32,
    /// 1: a code is an index into `table`.
    pub has_table: u32,
    pub table: [i16; 16],
    /// 1: a row of the weight has one scale and nothing added, so its sums stay in int32 to the end.
    pub exact: u32,
}

impl IntegerForm {
    #[inline(always)]
    pub fn is_exact(&self) -> bool {
        self.exact != 0
    }
}

/// A product of codes [m, k] with a weight [n, k].
pub struct Product<'a> {
    pub k: usize,
    /// As activations.rs writes them, zero beyond k.
    pub codes: *const i8,
    /// [m]: the codes that mean 0; null when all are 0.
    pub zeros: *const f32,
    pub weight: &'a Weight,
    pub form: &'a IntegerForm,
}

/// A part of a worker's scratch, and what lies in it for the block of k at hand.
pub struct Side {
    pub scales: *mut f32,
    pub offsets: *mut f32,
    pub column_sums: *mut f32,
    pub zeros: *mut f32,
    pub row_sums: *mut f32,
    pub starts: *mut f32,
}

const PER_COLUMN: usize = MOST_RUNS * COLUMNS;
const PER_ROW: usize = STRIPS * MOST_RUNS * ROWS;
const SIDE_FLOATS: usize = 3 * PER_COLUMN + MAX_ROWS + 2 * PER_ROW;

impl Side {
    unsafe fn new(at: *mut f32) -> Self {
        let zeros = at.add(3 * PER_COLUMN);
        Side {
            scales: at,
            offsets: at.add(PER_COLUMN),
            column_sums: at.add(2 * PER_COLUMN),
            zeros,
            row_sums: zeros.add(MAX_ROWS),
            starts: zeros.add(MAX_ROWS + PER_ROW),
        }
    }
}

/// A block of k.
#[derive(Clone, Copy)]
pub struct Block {
    pub first: usize,
    pub count: usize,
    pub run: usize,
    pub runs: usize,
}

impl Block {
    /// k with the padding of its last run.
    pub fn padded(&self) -> usize {
        self.run * self.runs
    }
}

/// The address of row `row`'s part of 8 columns from `column` on, within sums of `rows` rows.
#[inline(always)]
pub fn sums_at(row: usize, column: usize, rows: usize) -> usize {
    let tile = column / COLUMNS * rows.div_ceil(ROWS) + row / ROWS;
    tile * TILE_FLOATS + row % ROWS * COLUMNS + column % COLUMNS
}

impl Product<'_> {
    pub fn is_narrow(&self) -> bool {
        HAS_BYTE_DOT && self.form.narrow != 0
    }

    pub fn has_zeros(&self) -> bool {
        !self.zeros.is_null()
    }

    /// What exact sums of up to 4 columns are worth.
    #[inline(always)]
    pub unsafe fn column_scales(&self, column: usize, count: usize) -> v128 {
        let mut scales = [0f32; 4];
        for (c, scale) in scales.iter_mut().enumerate().take(count) {
            *scale = self.weight.row_scale(column + c) * self.form.factor;
        }
        load(scales.as_ptr())
    }

    /// Fills `regions.sums` (f32, or int32 when exact; see `sums_at`) with a tile's products.
    pub unsafe fn accumulate(
        &self,
        regions: &Regions,
        (row, rows, column, columns): (usize, usize, usize, usize),
    ) {
        let side = Side::new(regions.more_sums);
        let strips = rows.div_ceil(ROWS);
        core::ptr::write_bytes(regions.sums, 0, columns.div_ceil(COLUMNS) * strips * TILE_FLOATS);
        self.copy_zeros(row, rows, &side);
        let most = if self.is_narrow() { BLOCK_BYTES } else { BLOCK_BYTES / 2 };
        for first in (0..self.k).step_by(most) {
            let block = self.block(first, most);
            self.pack_rows(row, rows, block, regions.panels as *mut u8, &side);
            for j in (0..columns).step_by(COLUMNS) {
                let count = COLUMNS.min(columns - j);
                self.pack_columns(column + j, count, block, regions, &side);
                let sums = regions.sums.add(j / COLUMNS * strips * TILE_FLOATS);
                self.multiply(strips, block, regions, &side, sums);
            }
        }
    }

    fn block(&self, first: usize, most: usize) -> Block {
        let count = most.min(self.k - first);
        let run = self.form.run as usize;
        let run = if run >= most { round_up(count, LEAST_RUN) } else { run };
        Block { first, count, run, runs: count.div_ceil(run) }
    }

    /// All strips of rows times the packed columns.
    unsafe fn multiply(
        &self,
        strips: usize,
        block: Block,
        regions: &Regions,
        side: &Side,
        sums: *mut f32,
    ) {
        let bytes = if self.is_narrow() { 1 } else { 2 };
        let steps = block.run * bytes / 4;
        let kernel = self.kernel();
        for strip in 0..strips {
            let at = strip * block.runs * ROWS;
            kernel(
                (regions.panels as *const u8).add(strip * block.padded() * bytes * ROWS),
                regions.strip as *const u8,
                block.runs,
                steps,
                sums.add(strip * TILE_FLOATS),
                side.scales,
                (side.starts as *const u32).add(at),
                side.offsets,
                side.row_sums.add(at),
                side.column_sums,
                side.zeros.add(strip * ROWS),
            );
        }
    }

    fn kernel(&self) -> Kernel {
        if self.form.is_exact() {
            return integer_exact;
        }
        let has_offset = self.form.has_offset != 0;
        #[cfg(target_feature = "relaxed-simd")]
        if self.is_narrow() {
            return match (has_offset, self.has_zeros()) {
                (false, false) => integer_narrow,
                (true, false) => integer_narrow_offset,
                (false, true) => integer_narrow_zero,
                (true, true) => integer_narrow_offset_zero,
            };
        }
        if has_offset {
            integer_wide_offset
        } else {
            integer_wide
        }
    }

    unsafe fn copy_zeros(&self, row: usize, rows: usize, side: &Side) {
        if self.has_zeros() {
            core::ptr::write_bytes(side.zeros, 0, round_up(rows, ROWS));
            core::ptr::copy_nonoverlapping(self.zeros.add(row), side.zeros, rows);
        }
    }
}

/// A microkernel alone, in groups of 32: narrow, or wide and exact.
pub unsafe fn run_kernel(is_narrow: bool, times: usize, scratch: *mut u8) -> usize {
    if is_narrow && !HAS_BYTE_DOT {
        return 0;
    }
    let bytes = if is_narrow { 1 } else { 2 };
    let k = BLOCK_BYTES / bytes;
    let (panel, vectors) = (scratch.add(16384), scratch.add(32768) as *mut f32);
    let starts = vectors as *const u32;
    #[cfg(target_feature = "relaxed-simd")]
    let kernel: Kernel = if is_narrow { integer_narrow } else { integer_exact };
    #[cfg(not(target_feature = "relaxed-simd"))]
    let kernel: Kernel = integer_exact;
    for _ in 0..times {
        let (v, c) = (vectors, vectors.add(1024));
        kernel(scratch, panel, k / 32, 8 * bytes, c, v, starts, v, v, v, v);
    }
    2 * TILE_FLOATS * k
}
