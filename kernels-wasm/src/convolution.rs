//! conv2d as an implicit product: row r of A is the patch under output pixel r, gathered while packing,
//! so no patch matrix ever exists. Pictures are [height, width, channels].

use crate::control::Context;
use crate::enlarged_convolution;
use crate::gemm::{self, PackRows, Tiling, MR, ZEROS};
use crate::linear::Epilogue;
use crate::weight::Weight;

#[repr(C)]
pub struct Convolution {
    out_height: u32,
    out_width: u32,
    pub out_channels: u32,
    pub height: u32,
    pub width: u32,
    pub channels: u32,
    x: *const f32,
    /// Elements from row to row and from pixel to pixel of x.
    row_stride: u32,
    pixel_stride: u32,
    kernel: u32,
    stride: u32,
    top: u32,
    left: u32,
    /// 0 or 1: x is enlarged 2^shift times before the convolution.
    upsample_shift: u32,
    pub weight: *const Weight,
    pub epilogue: Epilogue,
}

impl Convolution {
    /// The pixel under kernel position (ky, kx) of an output pixel, or null in the padding.
    #[inline(always)]
    unsafe fn pixel(&self, out_y: usize, out_x: usize, ky: usize, kx: usize) -> *const f32 {
        let y = (out_y * self.stride as usize + ky).wrapping_sub(self.top as usize);
        let x = (out_x * self.stride as usize + kx).wrapping_sub(self.left as usize);
        self.pixel_at(y as isize >> self.upsample_shift, x as isize >> self.upsample_shift)
    }

    /// A pixel of x, or null outside.
    #[inline(always)]
    pub unsafe fn pixel_at(&self, y: isize, x: isize) -> *const f32 {
        if y < 0 || x < 0 || y >= self.height as isize || x >= self.width as isize {
            return core::ptr::null();
        }
        self.x
            .add(y as usize * self.row_stride as usize + x as usize * self.pixel_stride as usize)
    }
}

impl Convolution {
    /// Whether it is 3 x 3 over a picture enlarged twice, with a pixel of zeros around.
    fn is_enlarged(&self) -> bool {
        let is_same = self.out_height == 2 * self.height && self.out_width == 2 * self.width;
        let is_centred = self.kernel == 3 && self.stride == 1 && self.top == 1 && self.left == 1;
        self.upsample_shift == 1 && is_same && is_centred
    }
}

impl PackRows for Convolution {
    unsafe fn pack(
        &self,
        row: usize,
        rows: usize,
        k: usize,
        count: usize,
        into: *mut f32,
    ) -> *const f32 {
        let (width, kernel) = (self.out_width as usize, self.kernel as usize);
        pack_pixels(self.channels as usize, rows, k, count, into, &|r, position| {
            let (y, x) = ((row + r) / width, (row + r) % width);
            self.pixel(y, x, position / kernel, position % kernel)
        });
        into
    }
}

/// Packs rows whose k is [position][channel]; `pixel(row, position)` is null where there are zeros.
#[inline(never)]
pub unsafe fn pack_pixels(
    channels: usize,
    rows: usize,
    k: usize,
    count: usize,
    into: *mut f32,
    pixel: &dyn Fn(usize, usize) -> *const f32,
) {
    for_each_run(channels, k, count, |position, channel, run, done| {
        let source = |r: usize| match pixel(r, position) {
            pixel if pixel.is_null() => ZEROS.as_ptr(),
            pixel => pixel.add(channel),
        };
        gemm::pack_rows(source, rows, run, into.add(done * MR));
    });
}

/// Calls `each(position, channel, run, done)` for the runs of channels in k of [position][channel].
#[inline(always)]
pub unsafe fn for_each_run(
    channels: usize,
    k: usize,
    count: usize,
    mut each: impl FnMut(usize, usize, usize, usize),
) {
    let mut done = 0;
    while done < count {
        let (position, channel) = ((k + done) / channels, (k + done) % channels);
        let run = (channels - channel).min(count - done);
        each(position, channel, run, done);
        done += run;
    }
}

pub unsafe fn run(p: &Convolution, context: &Context) {
    if p.is_enlarged() {
        return enlarged_convolution::run(p, context);
    }
    let m = p.out_height as usize * p.out_width as usize;
    let n = p.out_channels as usize;
    let k = p.kernel as usize * p.kernel as usize * p.channels as usize;
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(tiling.total) {
        gemm::tile(context, p, &*p.weight, &p.epilogue, tiling.tile(tile, m, n), k);
    }
}
