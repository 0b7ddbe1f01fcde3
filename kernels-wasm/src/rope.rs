//! headNormRope: RMS norm over each head, then rotation of adjacent pairs.

use crate::control::Context;
use crate::linear::Rows;
use crate::math::sqrt;
use crate::norm::centred_squares;
use crate::simd::*;

#[repr(C)]
pub struct HeadNormRope {
    rows: u32,
    heads: u32,
    /// Features of a head.
    size: u32,
    epsilon: f32,
    x: Rows,
    output: Rows,
    weight: *const f32,
    cos: Rows,
    sin: Rows,
}

const TILE_ROWS: usize = 4;

pub unsafe fn run(p: &HeadNormRope, context: &Context) {
    let rows = p.rows as usize;
    while let Some(tile) = context.next_tile(rows.div_ceil(TILE_ROWS)) {
        for row in tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(rows) {
            for head in 0..p.heads as usize {
                p.head(row, head * p.size as usize);
            }
        }
    }
}

impl HeadNormRope {
    #[inline(always)]
    unsafe fn head(&self, row: usize, first: usize) {
        let size = self.size as usize;
        let (x, output) = (self.x.at(row).add(first), self.output.at(row).add(first));
        let mean = centred_squares(x, size, 0.0) / size as f32;
        let factor = f32x4_splat(1.0 / sqrt(mean + self.epsilon));
        for i in (0..size).step_by(4) {
            let left = size - i;
            let normed = f32x4_mul(load_some(x.add(i), left), factor);
            let mut value = f32x4_mul(normed, load_some(self.weight.add(i), left));
            if !self.cos.is_absent() {
                let cos = load_some(self.cos.at(row).add(i), left);
                let sin = load_some(self.sin.at(row).add(i), left);
                let swapped = i32x4_shuffle::<1, 0, 3, 2>(value, value);
                let signed = v128_xor(swapped, i32x4(i32::MIN, 0, i32::MIN, 0)); // -b, a
                value = f32x4_add(f32x4_mul(value, cos), f32x4_mul(signed, sin));
            }
            store_some(output.add(i), value, left);
        }
    }
}
