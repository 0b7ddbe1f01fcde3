//! A 3 x 3 convolution of a picture enlarged twice, as four 2 x 2 convolutions of the picture itself: one for
//! the output pixels of each parity of row and column. Neighbours under the kernel that are copies of
//! one pixel share a weight, the sum of theirs: 4 products instead of 9, and nothing is enlarged.

use crate::control::Context;
use crate::convolution::{for_each_run, pack_pixels, Convolution};
use crate::gemm::{self, Finish, PackPanel, PackRows, Tiling, K_BLOCK};
use crate::simd::*;

/// Products of each channel.
const TAPS: usize = 4;

/// The output pixels (2 y + down, 2 x + right).
struct Phase<'a> {
    convolution: &'a Convolution,
    down: usize,
    right: usize,
}

pub unsafe fn run(p: &Convolution, context: &Context) {
    let m = p.height as usize * p.width as usize;
    let n = p.out_channels as usize;
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(4 * tiling.total) {
        let parity = tile / tiling.total;
        let phase = Phase { convolution: p, down: parity / 2, right: parity % 2 };
        let part = tiling.tile(tile % tiling.total, m, n);
        gemm::tile(context, &phase, &phase, &phase, part, TAPS * p.channels as usize);
    }
}

/// The first kernel position, and how many, that a tap stands for in a phase, along one axis.
fn kernel_positions(phase: usize, tap: usize) -> (usize, usize) {
    match (phase, tap) {
        (0, 0) => (0, 1),
        (0, _) => (1, 2),
        (_, 0) => (0, 2),
        _ => (2, 1),
    }
}

impl PackRows for Phase<'_> {
    unsafe fn pack(
        &self,
        row: usize,
        rows: usize,
        k: usize,
        count: usize,
        into: *mut f32,
    ) -> *const f32 {
        let p = self.convolution;
        let width = p.width as usize;
        pack_pixels(p.channels as usize, rows, k, count, into, &|r, tap| {
            let y = (row + r) / width + self.down + tap / 2;
            let x = (row + r) % width + self.right + tap % 2;
            p.pixel_at(y as isize - 1, x as isize - 1)
        });
        into
    }
}

impl PackPanel for Phase<'_> {
    unsafe fn pack(
        &self,
        column: usize,
        columns: usize,
        k: usize,
        count: usize,
        rows: *mut f32,
        into: *mut f32,
    ) {
        let channels = self.convolution.channels as usize;
        for r in 0..columns {
            let to = rows.add(r * K_BLOCK);
            for_each_run(channels, k, count, |tap, channel, run, done| {
                self.sum_weights(column + r, tap, channel, run, to.add(done));
            });
        }
        gemm::pack_decoded(rows, columns, count, into);
    }
}

impl Phase<'_> {
    /// The weights of `run` channels of a tap: the sums of those at its kernel positions.
    unsafe fn sum_weights(&self, row: usize, tap: usize, channel: usize, run: usize, to: *mut f32) {
        let weight = &*self.convolution.weight;
        let channels = self.convolution.channels as usize;
        let (first_y, down) = kernel_positions(self.down, tap / 2);
        let (first_x, right) = kernel_positions(self.right, tap % 2);
        let mut other = [0f32; K_BLOCK];
        for y in first_y..first_y + down {
            for x in first_x..first_x + right {
                let at = (3 * y + x) * channels + channel;
                if (y, x) == (first_y, first_x) {
                    weight.decode(row, at, run, to);
                } else {
                    weight.decode(row, at, run, other.as_mut_ptr());
                    add_run(to, other.as_ptr(), run);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add_run(to: *mut f32, from: *const f32, count: usize) {
    for i in (0..count).step_by(4) {
        let left = count - i;
        let sum = f32x4_add(load_some(to.add(i), left), load_some(from.add(i), left));
        store_some(to.add(i), sum, left);
    }
}

impl Finish for Phase<'_> {
    unsafe fn row(&self, row: usize, column: usize, columns: usize, sums: *const f32) {
        let width = self.convolution.width as usize;
        let (y, x) = (2 * (row / width) + self.down, 2 * (row % width) + self.right);
        self.convolution.epilogue.row(y * 2 * width + x, column, columns, sums);
    }
}
