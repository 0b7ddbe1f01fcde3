//! 3 x 3 convolutions of stride 1 by Winograd's F(2 x 2, 3 x 3) (Lavin & Gray, 2015): 2 x 2 output pixels from a
//! patch of 4 x 4 take 16 products of each channel instead of 36. Patches, weights and sums are transformed by
//! additions and halves; between them lie 16 matrix products, one for each place in a patch.
//!
//! In a picture enlarged twice, 7 of the 16 places hold differences of copies of one pixel: 9 products are left.

use crate::control::Context;
use crate::convolution::Convolution;
use crate::gemm::{self, Finish, Tiling, K_BLOCK, MR, NR, SCRATCH_BYTES, ZEROS};
use crate::simd::*;
use core::array::from_fn;

/// Places in a patch.
const PLACES: usize = 16;
/// Weights of a channel.
const TAPS: usize = 9;
/// Channels that are transformed at once; those of x are a multiple of it.
const LANES: usize = 4;
/// Floats between the numbers of two places, so that they lie in different sets of the cache.
const SKEW: usize = 16;
/// The most patches of a tile, and floats of a tile: half of the scratch, as that is what the second-level cache holds.
const MAX_PATCHES: usize = 192;
const MAX_FLOATS: usize = SCRATCH_BYTES / 8;

#[repr(C)]
pub struct Winograd {
    convolution: Convolution,
    /// The transformed weights of the output channels of this step: [block of k][place][panel][k][NR].
    weights: *mut f32,
    first: u32,
    columns: u32,
}

/// Where the numbers of a tile lie, and how far apart those of two places are.
struct Block {
    /// Whether second and third row, and column, of every patch are copies of each other.
    is_paired: bool,
    /// [place][strip][k][MR]
    patches: *mut f32,
    patches_stride: usize,
    /// [place][patch][column]
    sums: *mut f32,
    sums_stride: usize,
}

impl Block {
    /// Whether there are only zeros at a place.
    fn is_zero(&self, place: usize) -> bool {
        self.is_paired && (place / 4 == 2 || place % 4 == 2)
    }
}

type Patch = [*const f32; PLACES];

/// `transform` down the columns of a square of I x I, then along the rows of what that gives.
#[inline(always)]
unsafe fn transform_square<const I: usize, const O: usize>(
    get: impl Fn(usize) -> v128,
    transform: impl Fn([v128; I]) -> [v128; O],
    put: impl Fn(usize, v128),
) {
    let mut columns = [[f32x4_splat(0.0); I]; O];
    for x in 0..I {
        let column = transform(from_fn(|y| get(y * I + x)));
        for y in 0..O {
            columns[y][x] = column[y];
        }
    }
    for y in 0..O {
        let row = transform(columns[y]);
        for x in 0..O {
            put(y * O + x, row[x]);
        }
    }
}

/// `LANES` channels of a strip's patches, transformed, to `into` and the same for each place.
#[inline(never)]
unsafe fn transform_patches(strip: &[Patch; MR], channel: usize, block: &Block, into: *mut f32) {
    let mut places = [0f32; PLACES * MR * LANES];
    let places = places.as_mut_ptr();
    for (r, patch) in strip.iter().enumerate() {
        transform_square(
            |place| load(patch[place].add(channel)),
            |[a, b, c, d]: [v128; 4]| {
                [f32x4_sub(a, c), f32x4_add(b, c), f32x4_sub(c, b), f32x4_sub(b, d)]
            },
            |place, value| store(places.add((place * MR + r) * LANES), value),
        );
    }
    for place in 0..PLACES {
        if !block.is_zero(place) {
            let rows = places.add(place * MR * LANES);
            let into = into.add(place * block.patches_stride);
            gemm::pack_words(|r, _| load(rows.add(r * LANES)), LANES, into);
        }
    }
}

impl Winograd {
    fn patches_across(&self) -> usize {
        self.convolution.out_width.div_ceil(2) as usize
    }

    /// The transformed weights of a panel at a place.
    unsafe fn panel(&self, k: usize, count: usize, place: usize, column: usize) -> *mut f32 {
        let columns = gemm::round_up(self.columns as usize, NR);
        self.weights.add((k * PLACES + place * count) * columns + column * count)
    }

    /// The pixels of the patch under 2 x 2 output pixels, from channel `k` on; zeros in the padding.
    unsafe fn patch(&self, index: usize, k: usize) -> Patch {
        let (y, x) = (2 * (index / self.patches_across()), 2 * (index % self.patches_across()));
        from_fn(|place| match self.convolution.pixel(y, x, place / 4, place % 4) {
            pixel if pixel.is_null() => ZEROS.as_ptr(),
            pixel => pixel.add(k),
        })
    }

    /// Transforms channels [k, k + count) of the patches of a tile.
    unsafe fn pack(&self, row: usize, rows: usize, k: usize, count: usize, block: &Block) {
        for first in (0..rows).step_by(MR) {
            // What lies beyond the last patch repeats it; nobody reads its sums.
            let strip = from_fn(|r| self.patch(row + (first + r).min(rows - 1), k));
            let into = block.patches.add(first * count);
            for channel in (0..count).step_by(LANES) {
                transform_patches(&strip, channel, block, into.add(channel * MR));
            }
        }
    }

    /// Adds the products of a tile over channels [k, k + count) at each place.
    unsafe fn multiply(
        &self,
        (rows, column, columns): (usize, usize, usize),
        k: usize,
        count: usize,
        block: &Block,
    ) {
        let stride = gemm::round_up(columns, NR);
        for place in 0..PLACES {
            let patches = block.patches.add(place * block.patches_stride);
            let sums = block.sums.add(place * block.sums_stride);
            let products = if block.is_zero(place) { 0 } else { count };
            for j in (0..columns).step_by(NR) {
                let panel = self.panel(k, count, place, column + j);
                for i in (0..rows).step_by(MR) {
                    let c = sums.add(i * stride + j);
                    gemm::kernel(patches.add(i * count), panel, products, c, stride, k > 0);
                }
            }
        }
    }

    /// Makes the output pixels of a patch of its sums, in their place, and ends them.
    #[inline(never)]
    unsafe fn finish(&self, index: usize, column: usize, columns: usize, sums: *mut f32, stride: usize) {
        for j in (0..columns).step_by(LANES) {
            transform_square(
                |place| load(sums.add(place * stride + j)),
                |[a, b, c, d]: [v128; 4]| {
                    [f32x4_add(f32x4_add(a, b), c), f32x4_sub(f32x4_sub(b, c), d)]
                },
                |pixel, value| store(sums.add(pixel * stride + j), value),
            );
        }
        let p = &self.convolution;
        let (height, width) = (p.out_height as usize, p.out_width as usize);
        let (y, x) = (2 * (index / self.patches_across()), 2 * (index % self.patches_across()));
        for pixel in 0..4 {
            let (y, x) = (y + pixel / 2, x + pixel % 2);
            if y < height && x < width {
                let first = self.first as usize + column;
                p.epilogue.row(y * width + x, first, columns, sums.add(pixel * stride));
            }
        }
    }

    unsafe fn tile(
        &self,
        context: &Context,
        (row, rows, column, columns): (usize, usize, usize, usize),
    ) {
        let p = &self.convolution;
        let (channels, stride) = (p.channels as usize, gemm::round_up(columns, NR));
        let padded = gemm::round_up(rows, MR);
        let patches = context.scratch as *mut f32;
        let patches_stride = padded * channels.min(K_BLOCK) + SKEW;
        let sums = patches.add(PLACES * patches_stride);
        let is_paired = p.upsample_shift == 1 && p.top & p.left & 1 == 1;
        let sums_stride = padded * stride + SKEW;
        let block = Block { is_paired, patches, patches_stride, sums, sums_stride };
        for k in (0..channels).step_by(K_BLOCK) {
            let count = K_BLOCK.min(channels - k);
            self.pack(row, rows, k, count, &block);
            self.multiply((rows, column, columns), k, count, &block);
        }
        for i in 0..rows {
            self.finish(row + i, column, columns, sums.add(i * stride), sums_stride);
        }
    }

    /// The most patches whose numbers a tile has room for.
    fn most_patches(&self) -> usize {
        let columns = gemm::round_up(self.columns as usize, NR);
        let each = (self.convolution.channels as usize).min(K_BLOCK) + columns;
        ((MAX_FLOATS / PLACES - 2 * SKEW) / each / MR * MR).min(MAX_PATCHES)
    }

    /// Transforms the weights of a panel for channels [k, k + count): small code, as it is a small part.
    #[inline(never)]
    #[optimize(size)]
    unsafe fn transform_panel(
        &self,
        context: &Context,
        (column, columns): (usize, usize),
        k: usize,
        count: usize,
    ) {
        let taps = context.scratch as *mut f32;
        let places = taps.add(TAPS * K_BLOCK);
        let stride = NR * K_BLOCK + SKEW;
        for r in 0..columns {
            self.decode_taps(self.first as usize + column + r, k, count, taps);
            for i in (0..count).step_by(LANES) {
                transform_square(
                    |tap| load(taps.add(tap * K_BLOCK + i)),
                    |[a, b, c]: [v128; 3]| {
                        let half = f32x4_splat(0.5);
                        let (ends, middle) = (f32x4_mul(f32x4_add(a, c), half), f32x4_mul(b, half));
                        [a, f32x4_add(ends, middle), f32x4_sub(ends, middle), c]
                    },
                    |place, value| store(places.add(place * stride + r * K_BLOCK + i), value),
                );
            }
        }
        for place in 0..PLACES {
            let into = self.panel(k, count, place, column);
            gemm::pack_decoded(places.add(place * stride), columns, count, into);
        }
    }

    /// The weights of an output channel, [tap][K_BLOCK].
    unsafe fn decode_taps(&self, row: usize, k: usize, count: usize, taps: *mut f32) {
        let p = &self.convolution;
        for tap in 0..TAPS {
            let first = tap * p.channels as usize + k;
            (*p.weight).decode(row, first, count, taps.add(tap * K_BLOCK));
        }
    }
}

/// Transforms the weights of a step, for all tiles of the products that follow.
#[inline(never)]
#[optimize(size)]
pub unsafe fn transform_weights(p: &Winograd, context: &Context) {
    let (columns, channels) = (p.columns as usize, p.convolution.channels as usize);
    let blocks = channels.div_ceil(K_BLOCK);
    while let Some(tile) = context.next_tile(columns.div_ceil(NR) * blocks) {
        let (column, k) = (tile / blocks * NR, tile % blocks * K_BLOCK);
        let panel = (column, NR.min(columns - column));
        p.transform_panel(context, panel, k, K_BLOCK.min(channels - k));
    }
}

/// Finding the pixels of a patch is faster in a loop than unrolled, so this is compiled for size.
#[inline(never)]
#[optimize(size)]
pub unsafe fn run(p: &Winograd, context: &Context) {
    let rows = p.convolution.out_height.div_ceil(2) as usize * p.patches_across();
    let columns = p.columns as usize;
    let most = (p.most_patches(), columns);
    let tiling = Tiling::within(rows, columns, context.threads, most, (MR, NR));
    while let Some(tile) = context.next_tile(tiling.total) {
        p.tile(context, tiling.tile(tile, rows, columns));
    }
}
