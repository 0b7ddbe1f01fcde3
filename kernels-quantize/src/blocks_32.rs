//! GGUF's blocks of 32 values with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0. First come the scales of a
//! chunk, four at a time, then its codes: nothing waits for a quotient.

use crate::blocks::*;
use crate::numbers::*;

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    match kind {
        0 => write(dtype, input, count, out, 18, |scales, x, n, to| symmetric(scales, x, n, 8, to)),
        1 => write(dtype, input, count, out, 20, |scales, x, n, to| from_minimum(scales, x, n, 15, to)),
        2 => write(dtype, input, count, out, 22, |scales, x, n, to| symmetric(scales, x, n, 16, to)),
        3 => write(dtype, input, count, out, 24, |scales, x, n, to| from_minimum(scales, x, n, 31, to)),
        _ => write(dtype, input, count, out, 34, |scales, x, n, to| eight_bits(scales, x, n, to)),
    }
}

/// A function for each type: engines compile one when it is used.
#[inline(never)]
unsafe fn write(
    dtype: u32,
    input: *const u8,
    count: usize,
    out: *mut u8,
    bytes: usize,
    chunk: impl Fn(&mut Scales, *const f32, usize, *mut u8),
) -> bool {
    let mut scales = Scales::new();
    each_chunk(dtype, input, count, out, (32, bytes), |x, blocks, to| chunk(&mut scales, x, blocks, to))
}

/// The scales and minima of a chunk.
struct Scales {
    /// As float16 bits.
    scale: [u32; BLOCKS],
    minimum: [u32; BLOCKS],
    inverse: [f32; BLOCKS],
    least: [f32; BLOCKS],
}

impl Scales {
    fn new() -> Scales {
        let (words, floats) = ([0; BLOCKS], [0.0; BLOCKS]);
        Scales { scale: words, minimum: words, inverse: floats, least: floats }
    }

    /// Sets the scales of four blocks.
    #[inline(always)]
    unsafe fn set(&mut self, block: usize, scale: v128) {
        v128_store(self.scale.as_mut_ptr().add(block) as *mut v128, float16_of(scale));
        store(self.inverse.as_mut_ptr().add(block), inverses_of(scale));
    }

    #[inline(always)]
    unsafe fn set_minimum(&mut self, block: usize, least: v128) {
        v128_store(self.minimum.as_mut_ptr().add(block) as *mut v128, float16_of(least));
        store(self.least.as_mut_ptr().add(block), least);
    }

    /// Writes a block's scale and gives its inverse.
    #[inline(always)]
    unsafe fn write(&self, block: usize, to: *mut u8) -> f32 {
        (to as *mut u16).write_unaligned(*self.scale.as_ptr().add(block) as u16);
        *self.inverse.as_ptr().add(block)
    }

    /// Writes a block's minimum and gives it.
    #[inline(always)]
    unsafe fn write_minimum(&self, block: usize, to: *mut u8) -> f32 {
        (to as *mut u16).write_unaligned(*self.minimum.as_ptr().add(block) as u16);
        *self.least.as_ptr().add(block)
    }
}

/// Q4_0, Q5_0: the value of largest magnitude becomes code 0.
#[inline(always)]
unsafe fn symmetric(scales: &mut Scales, x: *const f32, blocks: usize, zero_point: u8, to: *mut u8) {
    let divisor = f32x4_splat(-1.0 / zero_point as f32); // a power of two
    for block in (0..blocks).step_by(4) {
        scales.set(block, f32x4_mul(largest_of_four(x.add(32 * block)), divisor));
    }
    let half = f32x4_splat(zero_point as f32 + 0.5);
    let bytes = if zero_point > 8 { 22 } else { 18 };
    for block in 0..blocks {
        let to = to.add(bytes * block);
        let inverse = scales.write(block, to);
        write_codes(2 * zero_point - 1, inverse, to.add(2), |i| {
            f32x4_add(f32x4_mul(load(x.add(32 * block + i)), f32x4_splat(inverse)), half)
        });
    }
}

/// Q4_1, Q5_1: codes from the minimum to the maximum.
#[inline(always)]
unsafe fn from_minimum(scales: &mut Scales, x: *const f32, blocks: usize, most: u8, to: *mut u8) {
    for block in (0..blocks).step_by(4) {
        let (least, largest) = ranges_of_four(x.add(32 * block));
        scales.set(block, f32x4_div(f32x4_sub(largest, least), f32x4_splat(most as f32)));
        scales.set_minimum(block, least);
    }
    let bytes = if most > 15 { 24 } else { 20 };
    for block in 0..blocks {
        let to = to.add(bytes * block);
        let inverse = scales.write(block, to);
        let least = scales.write_minimum(block, to.add(2));
        write_codes(most, inverse, to.add(4), |i| {
            let above = f32x4_sub(load(x.add(32 * block + i)), f32x4_splat(least));
            f32x4_add(f32x4_mul(above, f32x4_splat(inverse)), f32x4_splat(0.5))
        });
    }
}

/// Cuts positions off to codes; of 5 bits the fifth come first.
#[inline(always)]
unsafe fn write_codes(most: u8, inverse: f32, to: *mut u8, position: impl Fn(usize) -> v128) {
    let code = |i: usize| whole_number(f32x4_trunc(position(i)));
    let sixteen = |i: usize| u8x16_min(bytes(code(i), code(i + 4), code(i + 8), code(i + 12)), u8x16_splat(most));
    let (mut low, high) = (sixteen(0), sixteen(16));
    let mut nibbles = to;
    if most > 15 {
        let fifth = |codes: v128| i8x16_bitmask(i8x16_gt(codes, u8x16_splat(15))) as u32;
        (to as *mut u32).write_unaligned(fifth(low) | fifth(high) << 16);
        nibbles = to.add(4);
        low = v128_and(low, u8x16_splat(15));
    }
    v128_store(nibbles as *mut v128, v128_or(low, u8x16_shl(high, 4)));
    if size_of(inverse) == f32::INFINITY {
        zeros(to, if most > 15 { 20 } else { 16 });
    }
}

/// Q8_0: rounds halves away from zero.
#[inline(always)]
unsafe fn eight_bits(scales: &mut Scales, x: *const f32, blocks: usize, to: *mut u8) {
    for block in (0..blocks).step_by(4) {
        scales.set(block, f32x4_div(magnitudes_of_four(x.add(32 * block)), f32x4_splat(127.0)));
    }
    for block in 0..blocks {
        let to = to.add(34 * block);
        let inverse = scales.write(block, to);
        let code = |i: usize| {
            let value = f32x4_mul(load(x.add(32 * block + i)), f32x4_splat(inverse));
            let sign = v128_and(value, i32x4_splat(i32::MIN));
            // The number below a half: the sum with it reaches the next integer from a half on.
            let half = v128_or(sign, f32x4_splat(f32::from_bits(0x3eff_ffff)));
            whole_number(f32x4_trunc(f32x4_add(value, half)))
        };
        for i in [0, 16] {
            let codes = signed_bytes(code(i), code(i + 4), code(i + 8), code(i + 12));
            v128_store(to.add(2 + i) as *mut v128, codes);
        }
        if inverse == f32::INFINITY {
            zeros(to.add(2), 32);
        }
    }
}

/// What C's integers are where a scale is so small that its inverse is infinite.
#[cold]
#[inline(never)]
unsafe fn zeros(to: *mut u8, count: usize) {
    core::ptr::write_bytes(to, 0, count);
}
