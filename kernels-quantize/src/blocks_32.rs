//! GGUF's blocks of 32 values with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use crate::numbers::*;
use crate::ranges::{all_finite, range_of};

/// No type reaches further with float16 scales; and the squares of larger values could overflow.
const LARGEST_VALUE: f32 = 1073741824.0;

/// Bytes of a block, by kind.
const SIZES: [usize; 5] = [18, 20, 22, 24, 34];

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    let mut x = [0f32; 32];
    let mut good = true;
    for block in 0..count / 32 {
        widen(dtype, input, 32 * block, 32, x.as_mut_ptr());
        good &= in_range(&x);
        let to = out.add(block * SIZES[kind as usize]);
        match kind {
            0 => symmetric(&x, 8.0, to),
            1 => from_minimum(&x, 15.0, to),
            2 => symmetric(&x, 16.0, to),
            3 => from_minimum(&x, 31.0, to),
            _ => eight_bits(&x, to),
        }
    }
    good
}

/// Whether all values are finite and not too large.
pub unsafe fn in_range(x: &[f32]) -> bool {
    let mut large = i32x4_splat(0);
    for i in (0..x.len()).step_by(4) {
        let size = f32x4_abs(load(x.as_ptr().add(i)));
        large = v128_or(large, f32x4_gt(size, f32x4_splat(LARGEST_VALUE)));
    }
    !v128_any_true(large) && all_finite(x.as_ptr(), x.len())
}

/// The value of largest magnitude with its sign, the first of equals; 0 for zeros.
pub unsafe fn largest(x: &[f32]) -> f32 {
    let (least, most) = range_of(x.as_ptr(), x.len());
    if least == 0.0 && most == 0.0 {
        return 0.0;
    }
    if -least == most {
        return *x.iter().find(|value| size_of(**value) == most).unwrap_unchecked();
    }
    if -least > most {
        least
    } else {
        most
    }
}

/// 1 / scale, and 0 for a scale of 0.
fn inverse_of(scale: f32) -> f32 {
    if scale == 0.0 {
        0.0
    } else {
        1.0 / scale
    }
}

/// Q4_0, Q5_0: the value of largest magnitude becomes code 0.
unsafe fn symmetric(x: &[f32; 32], zero_point: f32, to: *mut u8) {
    let scale = largest(x) / -zero_point;
    let inverse = inverse_of(scale);
    write_float16(to, scale);
    let half = f32x4_splat(zero_point + 0.5);
    write_codes(2.0 * zero_point - 1.0, to, inverse, 2, |i, inverse| {
        f32x4_add(f32x4_mul(load(x.as_ptr().add(i)), inverse), half)
    });
}

/// Q4_1, Q5_1: codes from the minimum to the maximum.
unsafe fn from_minimum(x: &[f32; 32], most: f32, to: *mut u8) {
    let (min, max) = range_of(x.as_ptr(), 32);
    let scale = (max - min) / most;
    write_float16(to, scale);
    write_float16(to.add(2), min);
    write_codes(most, to, inverse_of(scale), 4, |i, inverse| {
        let above = f32x4_sub(load(x.as_ptr().add(i)), f32x4_splat(min));
        f32x4_add(f32x4_mul(above, inverse), f32x4_splat(0.5))
    });
}

/// Cuts positions off to codes; above 15 also writes the fifth bits, which come first.
#[inline(always)]
unsafe fn write_codes(
    most: f32,
    to: *mut u8,
    inverse: f32,
    at: usize,
    position: impl Fn(usize, v128) -> v128,
) {
    let finite = size_of(inverse) < f32::INFINITY; // else C's integers are all 0
    let code = |i: usize| {
        let cut = i32x4_trunc_sat_f32x4(position(i, f32x4_splat(inverse)));
        let code = i32x4_min(cut, i32x4_splat(most as i32));
        if finite {
            code
        } else {
            i32x4_splat(0)
        }
    };
    let sixteen = |i: usize| {
        u8x16_narrow_i16x8(
            i16x8_narrow_i32x4(code(i), code(i + 4)),
            i16x8_narrow_i32x4(code(i + 8), code(i + 12)),
        )
    };
    let (low, high) = (sixteen(0), sixteen(16));
    let mut nibbles = to.add(at);
    if most > 15.0 {
        let bits = (i8x16_bitmask(u8x16_shl(low, 3)) as u32)
            | (i8x16_bitmask(u8x16_shl(high, 3)) as u32) << 16;
        (nibbles as *mut u32).write_unaligned(bits);
        nibbles = nibbles.add(4);
    }
    let pairs = v128_or(v128_and(low, u8x16_splat(15)), u8x16_shl(high, 4));
    v128_store(nibbles as *mut v128, pairs);
}

/// Q8_0: rounds halves away from zero.
unsafe fn eight_bits(x: &[f32; 32], to: *mut u8) {
    let scale = size_of(largest(x)) / 127.0;
    let inverse = inverse_of(scale);
    write_float16(to, scale);
    let finite = inverse < f32::INFINITY;
    let code = |i: usize| {
        let value = f32x4_mul(load(x.as_ptr().add(i)), f32x4_splat(inverse));
        let size = f32x4_abs(value);
        let whole = f32x4_trunc(size);
        let up = f32x4_ge(f32x4_sub(size, whole), f32x4_splat(0.5));
        let rounded = i32x4_sub(i32x4_trunc_sat_f32x4(whole), up);
        let negative = i32x4_shr(value, 31);
        let signed = i32x4_sub(v128_xor(rounded, negative), negative);
        if finite {
            signed
        } else {
            i32x4_splat(0)
        }
    };
    for i in [0, 16] {
        let low = i16x8_narrow_i32x4(code(i), code(i + 4));
        let high = i16x8_narrow_i32x4(code(i + 8), code(i + 12));
        v128_store(to.add(2 + i) as *mut v128, i8x16_narrow_i16x8(low, high));
    }
}
