//! GGUF's blocks of 4-bit floats (e2m1): MXFP4 (12) and NVFP4 (13).

use crate::blocks::{each_chunk, magnitudes_of_four, BLOCKS};
use crate::numbers::*;

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    match kind {
        12 => each_chunk(dtype, input, count, out, (32, 17), |x, blocks, to| mxfp4(x, blocks, to)),
        _ => each_chunk(dtype, input, count, out, (64, 36), |x, blocks, to| nvfp4(x, blocks, to)),
    }
}

/// The scale is the power of two that brings the largest of 32 values between 4 and 8.
#[inline(never)]
unsafe fn mxfp4(x: *const f32, blocks: usize, to: *mut u8) {
    let mut largest = [0f32; BLOCKS];
    for block in (0..blocks).step_by(4) {
        store(largest.as_mut_ptr().add(block), magnitudes_of_four(x.add(32 * block)));
    }
    for block in 0..blocks {
        let (x, to) = (x.add(32 * block), to.add(17 * block));
        let most = *largest.as_ptr().add(block);
        // A value below 2^-125 has an exponent below 0, of which C keeps the low bits; its codes are 0 then.
        let exponent = if most > 0.0 { (floor_log2(most) + 125) & 255 } else { 0 };
        *to = exponent as u8;
        let bounds = bounds_of(power_of_two(exponent - 128));
        let high = u8x16_shl(sixteen(x.add(16), &bounds), 4);
        v128_store(to.add(1) as *mut v128, v128_or(sixteen(x, &bounds), high));
    }
}

/// 2^exponent, from -128 to 127.
fn power_of_two(exponent: i32) -> f32 {
    if exponent < -126 {
        f32::from_bits(1 << (149 + exponent))
    } else {
        f32::from_bits(((127 + exponent) as u32) << 23)
    }
}

/// The floor of a float32 logarithm: just below a power of two that is rounded up to it.
fn floor_log2(value: f32) -> i32 {
    let word = value.to_bits();
    if word & 0x7f_f000 != 0x7f_f000 && word >= 1 << 23 {
        return (word >> 23) as i32 - 127;
    }
    let wide = (value as f64).to_bits();
    let exponent = (wide >> 52) as i32 - 1023;
    let next = (exponent + 1) as f32;
    // The logarithm is next minus this, and a float32 counts in `step` there.
    let below = (2.0 - f64::from_bits(wide & 0xf_ffff_ffff_ffff | 1023 << 52)) / 2.0 / core::f64::consts::LN_2;
    let neighbour = if next > 0.0 { next.to_bits() - 1 } else { next.to_bits() + 1 };
    let step = f32::from_bits(neighbour) - next;
    let half = (if step < 0.0 { -step } else { step }) as f64 / 2.0;
    exponent + i32::from(next != 0.0 && below < half)
}

/// An unsigned e4m3 scale per 16 values brings the largest to 6, if it reaches so far.
#[inline(never)]
unsafe fn nvfp4(x: *const f32, blocks: usize, to: *mut u8) {
    for group in 0..4 * blocks {
        let (x, to) = (x.add(16 * group), to.add(group / 4 * 36));
        let code = unsigned_e4m3(magnitude_of_16(x) / 6.0);
        *to.add(group % 4) = code;
        let scale = half_of_e4m3(code);
        // A scale of 0 brings nothing anywhere.
        let bounds = bounds_of(if scale == 0.0 { f32::INFINITY } else { scale });
        let codes = sixteen(x, &bounds);
        let pairs = v128_or(codes, u8x16_shl(i64x2_shuffle::<1, 0>(codes, codes), 4));
        v128_store64_lane::<0>(pairs, to.add(4 + group % 4 * 8) as *mut u64);
    }
}

#[inline(always)]
unsafe fn magnitude_of_16(x: *const f32) -> f32 {
    let pair = |i: usize| f32x4_pmax(f32x4_abs(load(x.add(i))), f32x4_abs(load(x.add(i + 4))));
    f32::from_bits(largest_lane(f32x4_pmax(pair(0), pair(8))))
}

/// The e4m3 code of a number that is not negative, halves rounded up; in ggml 448 from 248 on.
fn unsigned_e4m3(value: f32) -> u8 {
    let word = (if value > 448.0 { 448.0 } else { value }).to_bits();
    let exponent = (word >> 23) as i32 - 120;
    if exponent <= 0 {
        return ((value * 512.0 + 0.5) as i32).min(7) as u8;
    }
    let code = (exponent << 3) + (((word >> 19 & 15) + 1) >> 1) as i32;
    if code < 0x78 {
        code as u8
    } else {
        0x7e
    }
}

/// Half of what an e4m3 code means.
fn half_of_e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = ((code >> 3) as i32, (code & 7) as f32);
    if exponent == 0 {
        mantissa * power_of_two(-10)
    } else {
        (1.0 + mantissa / 8.0) * power_of_two(exponent - 8)
    }
}

/// Half way between the magnitudes of neighbouring codes (0, 1, 2, 3, 4, 6, 8, 12, which are doubled).
#[inline(always)]
fn bounds_of(scale: f32) -> [v128; 7] {
    let bound = |middle: f32| f32x4_splat(middle * scale);
    [bound(0.5), bound(1.5), bound(2.5), bound(3.5), bound(5.0), bound(7.0), bound(10.0)]
}

/// Codes of 16 values; of two magnitudes as near the smaller. Code 8 is the sign.
#[inline(always)]
unsafe fn sixteen(x: *const f32, bounds: &[v128; 7]) -> v128 {
    let value = |i: usize| load(x.add(i));
    let code = |i: usize| rank(f32x4_abs(value(i)), bounds);
    let codes = bytes(code(0), code(4), code(8), code(12));
    let signs = signed_bytes(value(0), value(4), value(8), value(12));
    let zero = i8x16_splat(0);
    let negative = v128_and(i8x16_lt(signs, zero), i8x16_gt(codes, zero));
    v128_or(codes, v128_and(negative, u8x16_splat(8)))
}

/// How many bounds lie below.
#[inline(always)]
fn rank(size: v128, bounds: &[v128; 7]) -> v128 {
    let above = |i: usize| f32x4_gt(size, bounds[i]); // -1 where it is
    let low = i32x4_add(i32x4_add(above(0), above(1)), i32x4_add(above(2), above(3)));
    i32x4_neg(i32x4_add(low, i32x4_add(i32x4_add(above(4), above(5)), above(6))))
}
