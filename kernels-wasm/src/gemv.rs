//! Products with very few rows of x: every weight is decoded once and used at once.

use crate::control::Context;
use crate::gemm::{self, Finish, K_BLOCK};
use crate::linear::Rows;
use crate::simd::*;
use crate::weight::Weight;

/// The most rows of x this path takes.
pub const MAX_ROWS: usize = 4;
/// Weight rows of a tile.
const TILE_ROWS: usize = 16;

pub unsafe fn run(
    context: &Context,
    x: &Rows,
    weight: &Weight,
    finish: &dyn Finish,
    m: usize,
    n: usize,
    k: usize,
) {
    while let Some(tile) = context.next_tile(n.div_ceil(TILE_ROWS)) {
        let first = tile * TILE_ROWS;
        let count = TILE_ROWS.min(n - first);
        let regions = gemm::regions(context);
        for j in 0..count {
            weight_row(x, weight, first + j, m, k, regions.rows, regions.sums.add(j));
        }
        for i in 0..m {
            finish.row(i, first, count, regions.sums.add(i * TILE_ROWS));
        }
    }
}

/// The products of one weight row with every row of x, written TILE_ROWS apart.
unsafe fn weight_row(
    x: &Rows,
    weight: &Weight,
    row: usize,
    m: usize,
    k: usize,
    scratch: *mut f32,
    sums: *mut f32,
) {
    let mut first = 0;
    while first < k {
        let count = K_BLOCK.min(k - first);
        let values = if weight.is_plain() {
            weight.plain_row(row).add(first)
        } else {
            weight.decode(row, first, count, scratch);
            scratch as *const f32
        };
        for i in 0..m {
            let sum = dot(x.at(i).add(first), values, count);
            let to = sums.add(i * TILE_ROWS);
            *to = if first > 0 { *to + sum } else { sum };
        }
        first += count;
    }
}

/// The dot product of two runs.
#[inline(always)]
pub unsafe fn dot(a: *const f32, b: *const f32, count: usize) -> f32 {
    let mut acc = [f32x4_splat(0.0); 4];
    let mut k = 0;
    while k + 16 <= count {
        acc[0] = madd(load(a.add(k)), load(b.add(k)), acc[0]);
        acc[1] = madd(load(a.add(k + 4)), load(b.add(k + 4)), acc[1]);
        acc[2] = madd(load(a.add(k + 8)), load(b.add(k + 8)), acc[2]);
        acc[3] = madd(load(a.add(k + 12)), load(b.add(k + 12)), acc[3]);
        k += 16;
    }
    while k < count {
        let n = (count - k).min(4);
        acc[0] = madd(load_some(a.add(k), n), load_some(b.add(k), n), acc[0]);
        k += n;
    }
    sum_lanes(f32x4_add(f32x4_add(acc[0], acc[1]), f32x4_add(acc[2], acc[3])))
}
