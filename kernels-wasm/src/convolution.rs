//! conv2d as an implicit product: row r of A is the patch under output pixel r, gathered while packing,
//! so no patch matrix ever exists. Pictures are [height, width, channels].

use crate::control::Context;
use crate::gemm::{self, PackRows, Tiling, MR, ZEROS};
use crate::linear::Epilogue;
use crate::weight::Weight;

#[repr(C)]
pub struct Convolution {
    pub out_height: u32,
    pub out_width: u32,
    pub out_channels: u32,
    height: u32,
    width: u32,
    pub channels: u32,
    x: *const f32,
    /// Elements from row to row and from pixel to pixel of x.
    row_stride: u32,
    pixel_stride: u32,
    kernel: u32,
    stride: u32,
    pub top: u32,
    pub left: u32,
    /// 0 or 1: x is enlarged 2^shift times before the convolution.
    pub upsample_shift: u32,
    pub weight: *const Weight,
    pub epilogue: Epilogue,
}

impl Convolution {
    /// The pixel under kernel position (ky, kx) of an output pixel, or null in the padding.
    #[inline(always)]
    pub unsafe fn pixel(&self, out_y: usize, out_x: usize, ky: usize, kx: usize) -> *const f32 {
        let y = (out_y * self.stride as usize + ky).wrapping_sub(self.top as usize) as isize;
        let x = (out_x * self.stride as usize + kx).wrapping_sub(self.left as usize) as isize;
        let (y, x) = (y >> self.upsample_shift, x >> self.upsample_shift);
        if y < 0 || x < 0 || y >= self.height as isize || x >= self.width as isize {
            return core::ptr::null();
        }
        self.x
            .add(y as usize * self.row_stride as usize + x as usize * self.pixel_stride as usize)
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
        let channels = self.channels as usize;
        let mut done = 0;
        while done < count {
            let (position, channel) = ((k + done) / channels, (k + done) % channels);
            let run = (channels - channel).min(count - done);
            let source = |r: usize| {
                let (y, x) = ((row + r) / width, (row + r) % width);
                match self.pixel(y, x, position / kernel, position % kernel) {
                    pixel if pixel.is_null() => ZEROS.as_ptr(),
                    pixel => pixel.add(channel),
                }
            };
            gemm::pack_rows(source, rows, run, into.add(done * MR));
            done += run;
        }
        into
    }
}

pub unsafe fn run(p: &Convolution, context: &Context) {
    let m = p.out_height as usize * p.out_width as usize;
    let n = p.out_channels as usize;
    let k = p.kernel as usize * p.kernel as usize * p.channels as usize;
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(tiling.total) {
        gemm::tile(context, p, &*p.weight, &p.epilogue, tiling.tile(tile, m, n), k);
    }
}
