//! The integer microkernel: 4 rows of codes of x times 8 columns of integer weights. Both operands come
//! as 32-bit words, four bytes or two int16 of consecutive k each, so one loop and one packing serve
//! both kinds of product:
//!
//! - narrow: int8 x times weights of 0 to 127, sixteen products and eight sums of 16 bits at once. The sums
//!   begin at -center times the sum of x, so that they count the weight as if it lay around 0; what they
//!   pass on the way may wrap, the encoder sees to it that their end fits (src/backends/wasm/integer_weight.ts).
//! - wide: int16 times int16, eight products and four sums of 32 bits at once. The plain build has only
//!   these; the integers are the same.
//!
//! A run is the k that share a scale per column; at its end the integers become floats.

use crate::simd::*;

/// Rows and columns of a micro tile.
pub const ROWS: usize = 4;
pub const COLUMNS: usize = 8;
/// Bytes of a step: a word of each row, a word of each column.
pub const STRIP_STEP: usize = ROWS * 4;
pub const PANEL_STEP: usize = COLUMNS * 4;

/// What a micro tile reads. Vectors per run lie run after run.
#[derive(Clone, Copy)]
pub struct Operands {
    /// [step][ROWS] words.
    pub strip: *const u8,
    /// [step][COLUMNS] words.
    pub panel: *const u8,
    pub runs: usize,
    pub steps_per_run: usize,
    /// [run][COLUMNS]: what an integer is worth.
    pub scales: *const f32,
    /// [run][COLUMNS]: added to every weight.
    pub offsets: *const f32,
    /// [run][ROWS]: the sum of x - zero.
    pub row_sums: *const f32,
    /// [run][COLUMNS]: minus the sum of the weight's integers.
    pub column_sums: *const f32,
    /// [ROWS]: the codes of x that mean 0.
    pub zeros: *const f32,
    /// [run][ROWS] words: what the narrow sums begin at.
    pub starts: *const u32,
}

/// C [ROWS][COLUMNS] of f32 += runs of (sums - zero * column sum) * scale + row sum * offset.
///
/// Eight sums, two vectors of columns, one of rows and its broadcast: 12 of the 15 registers that engines
/// leave free on x86. Larger tiles spill in both engines.
#[inline(always)]
pub unsafe fn scaled<const NARROW: bool, const OFFSET: bool, const ZERO: bool>(o: &Operands, c: *mut f32) {
    let mut o = *o;
    for _ in 0..o.runs {
        let sums = run::<NARROW>(&mut o);
        for half in 0..2 {
            let scale = load(o.scales.add(4 * half));
            let offset = if OFFSET { load(o.offsets.add(4 * half)) } else { scale };
            let column_sums = if ZERO { load(o.column_sums.add(4 * half)) } else { scale };
            for r in 0..ROWS {
                let to = c.add(r * COLUMNS + 4 * half);
                let mut whole = f32x4_convert_i32x4(total::<NARROW>(sums[r][half]));
                if ZERO {
                    // Below 2^24, so exact: fused or not, the result is the same.
                    whole = madd(splat(o.zeros.add(r)), column_sums, whole);
                }
                let mut value = madd(whole, scale, load(to));
                if OFFSET {
                    value = madd(splat(o.row_sums.add(r)), offset, value);
                }
                store(to, value);
            }
        }
        o.scales = o.scales.add(COLUMNS);
        if OFFSET {
            o.offsets = o.offsets.add(COLUMNS);
            o.row_sums = o.row_sums.add(ROWS);
        }
        if ZERO {
            o.column_sums = o.column_sums.add(COLUMNS);
        }
    }
}

/// C [ROWS][COLUMNS] of int32 += the wide sums of all runs.
#[inline(never)]
pub unsafe fn exact(o: &Operands, c: *mut i32) {
    let mut o = *o;
    o.steps_per_run *= o.runs;
    let sums = run::<false>(&mut o);
    for r in 0..ROWS {
        for half in 0..2 {
            let to = c.add(r * COLUMNS + 4 * half) as *mut v128;
            v128_store(to, i32x4_add(v128_load(to), sums[r][half]));
        }
    }
}

#[inline(always)]
unsafe fn splat(from: *const f32) -> v128 {
    v128_load32_splat(from as *const u32)
}

/// The sums of one run; moves the operands on.
#[inline(always)]
unsafe fn run<const NARROW: bool>(o: &mut Operands) -> [[v128; 2]; ROWS] {
    let mut sums = [[i32x4_splat(0); 2]; ROWS];
    if NARROW {
        for r in 0..ROWS {
            let start = v128_load32_splat(o.starts.add(r));
            sums[r] = [start, start];
        }
        o.starts = o.starts.add(ROWS);
    }
    let (mut strip, mut panel) = (o.strip, o.panel);
    for _ in 0..o.steps_per_run {
        let rows = v128_load(strip as *const v128);
        let low = v128_load(panel as *const v128);
        let high = v128_load(panel.add(PANEL_STEP / 2) as *const v128);
        let words = [
            i32x4_shuffle::<0, 0, 0, 0>(rows, rows),
            i32x4_shuffle::<1, 1, 1, 1>(rows, rows),
            i32x4_shuffle::<2, 2, 2, 2>(rows, rows),
            i32x4_shuffle::<3, 3, 3, 3>(rows, rows),
        ];
        for r in 0..ROWS {
            sums[r][0] = step::<NARROW>(sums[r][0], words[r], low);
            sums[r][1] = step::<NARROW>(sums[r][1], words[r], high);
        }
        strip = strip.add(STRIP_STEP);
        panel = panel.add(PANEL_STEP);
    }
    o.strip = strip;
    o.panel = panel;
    sums
}

#[inline(always)]
fn step<const NARROW: bool>(sums: v128, x: v128, weights: v128) -> v128 {
    if NARROW {
        i16x8_add(sums, dot_bytes(x, weights))
    } else {
        i32x4_add(sums, i32x4_dot_i16x8(x, weights))
    }
}

#[inline(always)]
fn total<const NARROW: bool>(sums: v128) -> v128 {
    if NARROW {
        i32x4_extadd_pairwise_i16x8(sums)
    } else {
        sums
    }
}
