//! GGUF's blocks of 4-bit floats (e2m1): MXFP4 (12) and NVFP4 (13).

use crate::blocks_32::{in_range, largest};
use crate::numbers::*;

/// Magnitudes of the codes 1 to 7, doubled; code 8 is their sign.
const MAGNITUDES: [f32; 7] = [1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    let size = if kind == 12 { 32 } else { 64 };
    let mut x = [0f32; 64];
    let mut good = true;
    for block in 0..count / size {
        widen(dtype, input, size * block, size, x.as_mut_ptr());
        good &= in_range(&x[..size]);
        if kind == 12 {
            mxfp4(&x[..32], out.add(17 * block));
        } else {
            nvfp4(&x, out.add(36 * block));
        }
    }
    good
}

/// The scale is the power of two that brings the largest of 32 values between 4 and 8.
unsafe fn mxfp4(x: &[f32], to: *mut u8) {
    let most = size_of(largest(x));
    // A value below 2^-125 has an exponent below 0, of which C keeps the low bits; its codes are 0 then.
    let exponent = if most > 0.0 { (floor_log2(most) + 125) & 255 } else { 0 };
    *to = exponent as u8;
    let scale = power_of_two(exponent - 128);
    v128_store(to.add(1) as *mut v128, v128_or(sixteen(x, scale), u8x16_shl(sixteen(&x[16..], scale), 4)));
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
unsafe fn nvfp4(x: &[f32; 64], to: *mut u8) {
    for group in 0..4 {
        let part = &x[16 * group..16 * group + 16];
        let code = unsigned_e4m3(size_of(largest(part)) / 6.0);
        *to.add(group) = code;
        let codes = sixteen(part, half_of_e4m3(code));
        let high = i64x2_shuffle::<1, 0>(codes, codes);
        v128_store64_lane::<0>(v128_or(codes, u8x16_shl(high, 4)), to.add(4 + 8 * group) as *mut u64);
    }
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

/// Codes of 16 values; of two magnitudes as near the smaller.
unsafe fn sixteen(x: &[f32], scale: f32) -> v128 {
    let code = |i: usize| {
        let value = load(x.as_ptr().add(i));
        let size = f32x4_abs(value);
        let (mut nearest, mut least) = (i32x4_splat(0), size);
        for magnitude in 0..7 {
            let error = f32x4_abs(f32x4_sub(f32x4_splat(MAGNITUDES[magnitude] * scale), size));
            let nearer = f32x4_lt(error, least);
            least = v128_bitselect(error, least, nearer);
            nearest = v128_bitselect(i32x4_splat(magnitude as i32 + 1), nearest, nearer);
        }
        let negative = v128_and(i32x4_shr(value, 31), i32x4_gt(nearest, i32x4_splat(0)));
        v128_or(nearest, v128_and(negative, i32x4_splat(8)))
    };
    u8x16_narrow_i16x8(
        i16x8_narrow_i32x4(code(0), code(4)),
        i16x8_narrow_i32x4(code(8), code(12)),
    )
}
