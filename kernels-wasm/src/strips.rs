//! Rounded rows of x as the integer microkernels read them: strips of 4 rows, each step a 32-bit word of every row
//! (four bytes, or two int16 less the row's zero), block of k after block. The step that rounds a row writes
//! its strips, once; the tiles of the product then only read.

use crate::gemm::round_up;
use crate::integer_kernel::{ROWS, STEP_UNIT, STRIP_STEP};
use crate::simd::*;

/// Bytes of a block's row.
pub const BLOCK_BYTES: usize = 512;
/// The fewest k of a run: `STEP_UNIT` words of a byte per k.
const LEAST_RUN: usize = 4 * STEP_UNIT;
pub const MOST_RUNS: usize = BLOCK_BYTES / LEAST_RUN;

/// What decides how codes lie in strips; the words come from src/backends/wasm/integer_weight.ts.
#[repr(C)]
pub struct StripForm {
    /// 1: bytes, for sums of 16 bits.
    narrow: u32,
    /// Consecutive k of a row with one scale whose sums fit; all of them when at least a block.
    run: u32,
    /// Subtracted from a code of the weight, or from a table's integer.
    pub center: i32,
}

/// Addresses of the strips of all rows.
#[repr(C)]
pub struct Strips {
    codes: *mut u8,
    /// [block][strip][run][ROWS]: what narrow sums begin at; null for wide products.
    starts: *mut u32,
    /// [block][strip][run][ROWS]: the sum of x - zero; null when no weight has an offset.
    row_sums: *mut f32,
}

/// A block of k.
#[derive(Clone, Copy)]
pub struct Block {
    pub first: usize,
    pub count: usize,
    pub run: usize,
    pub runs: usize,
    /// Runs of a row in the blocks before.
    runs_before: usize,
}

/// A strip within a block.
pub struct Strip {
    pub codes: *mut u8,
    pub starts: *mut u32,
    pub row_sums: *mut f32,
}

impl Block {
    /// k with the padding of its last run.
    pub fn padded(&self) -> usize {
        self.run * self.runs
    }
}

impl StripForm {
    pub fn is_narrow(&self) -> bool {
        HAS_BYTE_DOT && self.narrow != 0
    }

    /// Bytes of a code.
    pub fn bytes(&self) -> usize {
        if self.is_narrow() { 1 } else { 2 }
    }

    /// The blocks of k, in order.
    pub fn blocks(&self, k: usize) -> impl Iterator<Item = Block> + '_ {
        let most = BLOCK_BYTES / self.bytes();
        let whole = (self.run as usize).min(most);
        (0..k).step_by(most).map(move |first| {
            let count = most.min(k - first);
            let run = if self.run as usize >= most { round_up(count, LEAST_RUN) } else { whole };
            Block { first, count, run, runs: count.div_ceil(run), runs_before: first / whole }
        })
    }
}

impl Strips {
    /// Strip `index` of the rows, of which there are `rows` in all.
    #[inline(always)]
    pub unsafe fn at(&self, form: &StripForm, block: Block, rows: usize, index: usize) -> Strip {
        let rows = round_up(rows, ROWS);
        let codes = (block.first * rows + index * block.padded() * ROWS) * form.bytes();
        let runs = block.runs_before * rows + index * block.runs * ROWS;
        Strip {
            codes: self.codes.add(codes),
            starts: self.starts.wrapping_add(runs),
            row_sums: self.row_sums.wrapping_add(runs),
        }
    }

    /// What the sums of a strip's runs begin at, and the sums of x - zero, once its codes are written.
    pub unsafe fn sum_runs(
        &self,
        form: &StripForm,
        block: Block,
        strip: &Strip,
        zeros: Option<*const f32>,
    ) {
        if self.starts.is_null() && self.row_sums.is_null() {
            return;
        }
        let steps = block.run * form.bytes() / 4;
        for run in 0..block.runs {
            let codes = strip.codes.add(run * steps * STRIP_STEP);
            let whole = if form.is_narrow() {
                let sums = narrow_sums(codes, steps);
                let start = i16x8_mul(sums, i16x8_splat(-form.center as i16));
                store(strip.starts.add(run * ROWS) as *mut f32, start);
                let sums = f32x4_convert_i32x4(i32x4_extadd_pairwise_i16x8(sums));
                let k = block.run.min(block.count.saturating_sub(run * block.run));
                match zeros {
                    None => sums,
                    Some(zeros) => f32x4_sub(sums, f32x4_mul(load(zeros), f32x4_splat(k as f32))),
                }
            } else {
                f32x4_convert_i32x4(wide_sums(codes, steps))
            };
            if !self.row_sums.is_null() {
                store(strip.row_sums.add(run * ROWS), whole);
            }
        }
    }
}

#[inline(always)]
unsafe fn narrow_sums(codes: *const u8, steps: usize) -> v128 {
    let mut sums = i32x4_splat(0);
    for step in 0..steps {
        let x = v128_load(codes.add(step * STRIP_STEP) as *const v128);
        sums = i16x8_add(sums, i16x8_extadd_pairwise_i8x16(x));
    }
    sums
}

#[inline(always)]
unsafe fn wide_sums(codes: *const u8, steps: usize) -> v128 {
    let mut sums = i32x4_splat(0);
    for step in 0..steps {
        let x = v128_load(codes.add(step * STRIP_STEP) as *const v128);
        sums = i32x4_add(sums, i32x4_dot_i16x8(x, i16x8_splat(1)));
    }
    sums
}
