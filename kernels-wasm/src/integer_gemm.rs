//! Products of int8 codes of x with integer weights, tile by tile. The rows come packed (strips.rs); each 8 columns
//! of the weight are unpacked once per block of k and meet all rows of the tile while they lie in the nearest
//! cache.
//!
//! The sums of an element run over k in order, so the result does not depend on how tiles are cut.

use crate::gemm::Regions;
use crate::integer_kernel::*;
use crate::simd::*;
use crate::strips::{Block, StripForm, Strips, BLOCK_BYTES, MOST_RUNS};
use crate::weight::Weight;

/// Limits of a tile.
pub const MAX_ROWS: usize = 384;
pub const MAX_COLUMNS: usize = 192;
/// Floats of one micro tile of C.
pub const TILE_FLOATS: usize = ROWS * COLUMNS;

const _: () = assert!(MAX_ROWS * MAX_COLUMNS * 4 <= crate::gemm::SUMS_BYTES);
const _: () = assert!(COLUMNS * BLOCK_BYTES <= crate::gemm::STRIP_BYTES);
const _: () = assert!((COLUMNS + 1) * BLOCK_BYTES <= crate::gemm::ROWS_BYTES);
const _: () = assert!(SIDE_FLOATS * 4 <= crate::gemm::SUMS_BYTES);

/// How a weight is seen as integers; the words come from src/backends/wasm/integer_weight.ts.
#[repr(C)]
pub struct IntegerForm {
    pub strip: StripForm,
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
    pub m: usize,
    pub k: usize,
    /// The codes of x.
    pub strips: &'a Strips,
    /// [m to a multiple of `ROWS`]: the codes that mean 0; null when all are 0.
    pub zeros: *const f32,
    pub weight: &'a Weight,
    pub form: &'a IntegerForm,
}

/// A part of a worker's scratch: what goes with the runs of 8 columns in the block of k at hand.
pub struct Side {
    pub scales: *mut f32,
    pub offsets: *mut f32,
    pub column_sums: *mut f32,
}

pub const PER_COLUMN: usize = MOST_RUNS * COLUMNS;
const SIDE_FLOATS: usize = 3 * PER_COLUMN;

impl Side {
    unsafe fn new(at: *mut f32) -> Self {
        Side { scales: at, offsets: at.add(PER_COLUMN), column_sums: at.add(2 * PER_COLUMN) }
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
        self.form.strip.is_narrow()
    }

    pub fn has_zeros(&self) -> bool {
        !self.zeros.is_null()
    }

    /// What exact sums of columns are worth.
    pub unsafe fn column_scales(&self, column: usize, columns: usize, to: *mut f32) {
        for c in 0..columns {
            *to.add(c) = self.weight.row_scale(column + c) * self.form.factor;
        }
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
        for block in self.form.strip.blocks(self.k) {
            for j in (0..columns).step_by(COLUMNS) {
                let count = COLUMNS.min(columns - j);
                self.pack_columns(column + j, count, block, regions, &side);
                let sums = regions.sums.add(j / COLUMNS * strips * TILE_FLOATS);
                self.multiply(row / ROWS, strips, block, regions, &side, sums);
            }
        }
    }

    /// `strips` strips of rows from `first` on times the packed columns.
    unsafe fn multiply(
        &self,
        first: usize,
        strips: usize,
        block: Block,
        regions: &Regions,
        side: &Side,
        sums: *mut f32,
    ) {
        let steps = block.run * self.form.strip.bytes() / 4;
        let kernel = self.kernel();
        for index in 0..strips {
            let strip = self.strips.at(&self.form.strip, block, self.m, first + index);
            kernel(
                strip.codes,
                regions.strip as *const u8,
                block.runs,
                steps,
                sums.add(index * TILE_FLOATS),
                side.scales,
                strip.starts,
                side.offsets,
                strip.row_sums,
                side.column_sums,
                self.zeros.wrapping_add((first + index) * ROWS),
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
