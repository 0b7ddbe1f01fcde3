//! The rank of a value among 15 bounds by one comparison instead of 15: equal cells, no two bounds in the same one.

use crate::numbers::*;

const BOUNDS: usize = 15;
const CELLS: usize = 32;
/// Added to a small number that is not negative, brings the nearest integer into the lowest bits.
const TO_INTEGER: f32 = 8388608.0;

/// Cells over the bounds. Which cell a value falls into grows with the value, whatever is rounded on the way, so
/// bounds of earlier cells lie below it and those of later ones do not.
pub struct Cells {
    /// The least and the largest value that is told from others.
    low: f32,
    high: f32,
    scale: f32,
    shift: f32,
    /// Bounds of earlier cells.
    below: [u8; CELLS],
    /// Each byte of the bound of a cell, infinity where it has none.
    bounds: [[u8; CELLS]; 4],
    order: [u8; 16],
}

impl Cells {
    /// None where two bounds lie so close that they would share a cell.
    pub fn of(bounds: &[f32; 16], order: &[u8; 16]) -> Option<Cells> {
        let (first, last) = (bounds[0], bounds[BOUNDS - 1]);
        let scale = (CELLS - 3) as f32 / (last - first);
        let (low, high) = (first - 1.0 / scale, last + 1.0 / scale);
        let mut cells = Cells {
            low,
            high,
            scale,
            shift: 1.0 - first * scale,
            below: [0; CELLS],
            bounds: [[0; CELLS]; 4],
            order: *order,
        };
        let mut of_cell = [f32::INFINITY; CELLS];
        for bound in &bounds[..BOUNDS] {
            let cell = cells.cell(*bound);
            if cell >= CELLS || of_cell[cell] != f32::INFINITY {
                return None;
            }
            of_cell[cell] = *bound;
            for later in &mut cells.below[cell + 1..] {
                *later += 1;
            }
        }
        for (cell, bound) in of_cell.iter().enumerate() {
            for (plane, byte) in bound.to_le_bytes().into_iter().enumerate() {
                cells.bounds[plane][cell] = byte;
            }
        }
        Some(cells)
    }

    /// The cell of a value; as `cells` finds four.
    fn cell(&self, value: f32) -> usize {
        i32x4_extract_lane::<0>(self.cells(f32x4_splat(value))) as usize
    }

    /// NaN falls into the first, below which no bound lies.
    #[inline(always)]
    fn cells(&self, values: v128) -> v128 {
        let kept = f32x4_pmin(f32x4_pmax(f32x4_splat(self.low), values), f32x4_splat(self.high));
        let place = f32x4_add(f32x4_mul(kept, f32x4_splat(self.scale)), f32x4_splat(self.shift));
        v128_and(f32x4_add(place, f32x4_splat(TO_INTEGER)), i32x4_splat(255))
    }

    /// Codes of sixteen values.
    #[inline(always)]
    pub unsafe fn codes(&self, values: [v128; 4]) -> v128 {
        let [a, b, c, d] = values.map(|four| self.cells(four));
        let cell = bytes(a, b, c, d);
        let beyond = i8x16_sub(cell, i8x16_splat(16));
        let [zero, one, two, three] =
            [0, 1, 2, 3].map(|plane| unsafe { found(&self.bounds[plane], cell, beyond) });
        let above = above_bounds(values, zero, one, two, three);
        let rank = i8x16_sub(found(&self.below, cell, beyond), above);
        i8x16_swizzle(v128_load(self.order.as_ptr() as *const v128), rank)
    }
}

/// Entries of a table; an index outside of a half finds nothing there.
#[inline(always)]
unsafe fn found(table: &[u8; CELLS], index: v128, beyond: v128) -> v128 {
    let half = |at: usize| v128_load(table.as_ptr().add(at) as *const v128);
    v128_or(i8x16_swizzle(half(0), index), i8x16_swizzle(half(16), beyond))
}

/// -1 for each value over its bound, whose bytes come apart.
#[inline(always)]
fn above_bounds(values: [v128; 4], zero: v128, one: v128, two: v128, three: v128) -> v128 {
    let low = [interleave_low(zero, one), interleave_low(two, three)];
    let high = [interleave_high(zero, one), interleave_high(two, three)];
    let [a, b, c, d] = values;
    let first = i16x8_narrow_i32x4(
        f32x4_gt(a, i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(low[0], low[1])),
        f32x4_gt(b, i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(low[0], low[1])),
    );
    let second = i16x8_narrow_i32x4(
        f32x4_gt(c, i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(high[0], high[1])),
        f32x4_gt(d, i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(high[0], high[1])),
    );
    i8x16_narrow_i16x8(first, second)
}

#[inline(always)]
fn interleave_low(a: v128, b: v128) -> v128 {
    i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b)
}

#[inline(always)]
fn interleave_high(a: v128, b: v128) -> v128 {
    i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
}
