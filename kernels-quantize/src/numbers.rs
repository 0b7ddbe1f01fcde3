//! Loading numbers of any type as float32, and rounding them as PyTorch's CPU kernels do.

pub use core::arch::wasm32::*;

pub const FLOAT32: u32 = 0;
pub const BFLOAT16: u32 = 1;
pub const FLOAT16: u32 = 2;

/// Added to a number of type float32 or bfloat16: round it to float16 first.
pub const ROUNDED_TO_FLOAT16: u32 = 4;

/// The bits of infinity; those of NaN are larger.
pub const INFINITY_BITS: i32 = 0x7f80_0000;

#[inline(always)]
pub unsafe fn load(from: *const f32) -> v128 {
    v128_load(from as *const v128)
}

#[inline(always)]
pub unsafe fn store(to: *mut f32, value: v128) {
    v128_store(to as *mut v128, value)
}

/// Writes `count` numbers from element `at` of `input` as float32, and up to 3 zeros behind them.
pub unsafe fn widen(dtype: u32, input: *const u8, at: usize, count: usize, out: *mut f32) {
    match dtype & 3 {
        BFLOAT16 => widen_with::<2>(input.add(2 * at), count, out, |half| u32x4_shl(half, 16)),
        FLOAT16 => widen_with::<2>(input.add(2 * at), count, out, from_float16),
        _ => widen_with::<4>(input.add(4 * at), count, out, |word| word),
    }
    if dtype & ROUNDED_TO_FLOAT16 != 0 {
        for i in (0..count).step_by(4) {
            store(out.add(i), round_float16(load(out.add(i))));
        }
    }
}

#[inline(always)]
unsafe fn widen_with<const SIZE: usize>(
    input: *const u8,
    count: usize,
    out: *mut f32,
    value: impl Fn(v128) -> v128,
) {
    let whole = count & !3;
    for i in (0..whole).step_by(4) {
        let from = input.add(SIZE * i);
        let words = if SIZE == 2 {
            u32x4_load_extend_u16x4(from as *const u16)
        } else {
            v128_load(from as *const v128)
        };
        store(out.add(i), value(words));
    }
    if whole < count {
        let mut rest = [0u32; 4];
        for i in whole..count {
            let from = input.add(SIZE * i);
            rest[i - whole] = if SIZE == 2 {
                (from as *const u16).read_unaligned() as u32
            } else {
                (from as *const u32).read_unaligned()
            };
        }
        store(out.add(whole), value(v128_load(rest.as_ptr() as *const v128)));
    }
}

/// float16 bits (in 32-bit lanes) as float32: rescaled by 2^112, which is exact for subnormals too.
#[inline(always)]
fn from_float16(half: v128) -> v128 {
    let magnitude = u32x4_shl(v128_and(half, u32x4_splat(0x7fff)), 13);
    let scaled = f32x4_mul(magnitude, f32x4_splat(f32::from_bits(0x7780_0000))); // 2^112
    // Exponent 31: infinity or NaN, which keep their mantissa.
    let special = v128_or(magnitude, u32x4_splat(0x7f80_0000));
    let is_special = u32x4_gt(magnitude, u32x4_splat(0x0f7f_ffff));
    let sign = u32x4_shl(v128_and(half, u32x4_splat(0x8000)), 16);
    v128_or(v128_bitselect(special, scaled, is_special), sign)
}

/// Rounds to bfloat16, half to even.
#[inline(always)]
pub fn round_bfloat16(value: v128) -> v128 {
    let odd = v128_and(u32x4_shr(value, 16), u32x4_splat(1));
    let sum = u32x4_add(u32x4_add(value, u32x4_splat(0x7fff)), odd);
    v128_and(sum, u32x4_splat(0xffff_0000))
}

/// Rounds to float16, half to even; from 65520 on to infinity.
#[inline(always)]
pub fn round_float16(value: v128) -> v128 {
    let sign = v128_and(value, u32x4_splat(0x8000_0000));
    let size = v128_xor(value, sign);
    let odd = v128_and(u32x4_shr(size, 13), u32x4_splat(1));
    let normal = v128_andnot(
        u32x4_add(u32x4_add(size, u32x4_splat(0xfff)), odd),
        u32x4_splat(0x1fff),
    );
    // Below 2^-14 float16 counts in steps of 2^-24, as float32 does between 0.5 and 1.
    let half = f32x4_splat(0.5);
    let small = f32x4_sub(f32x4_add(size, half), half);
    let is_small = f32x4_lt(size, f32x4_splat(f32::from_bits(0x3880_0000)));
    let rounded = v128_bitselect(small, normal, is_small);
    let is_large = f32x4_ge(rounded, f32x4_splat(65536.0));
    // NaN is not large, and stays.
    v128_or(v128_bitselect(u32x4_splat(0x7f80_0000), rounded, is_large), sign)
}

/// The float16 nearest to a finite float32, as bits.
pub fn float16_bits(value: f32) -> u16 {
    let word = value.to_bits();
    let sign = (word >> 16 & 0x8000) as u16;
    let size = word & 0x7fff_ffff;
    if size >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if size < 0x3880_0000 {
        let steps = (f32::from_bits(size) + 0.5).to_bits() - 0.5f32.to_bits();
        return sign | steps as u16;
    }
    sign | ((size - (112 << 23) + 0xfff + (size >> 13 & 1)) >> 13) as u16
}

/// The value of finite float16 bits.
pub fn float16_value(bits: u16) -> f32 {
    let size = f32::from_bits(((bits & 0x7fff) as u32) << 13) * f32::from_bits(0x7780_0000);
    if bits & 0x8000 == 0 {
        size
    } else {
        -size
    }
}

/// Writes a number as float16 and gives what was written.
pub unsafe fn write_float16(to: *mut u8, value: f32) -> f32 {
    let bits = float16_bits(value);
    (to as *mut u16).write_unaligned(bits);
    float16_value(bits)
}

/// Adding it to a float32 rounds to an integer, ties to even: 1.5 * 2^23.
const ROUNDER: f32 = 12582912.0;

/// ggml's nearest_int: to nearest even, and what its bits happen to be beyond 2^22.
#[inline(always)]
pub fn nearest_integer(value: f32) -> i32 {
    ((value + ROUNDER).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The same of four.
#[inline(always)]
pub fn nearest_integers(values: v128) -> v128 {
    let sum = f32x4_add(values, f32x4_splat(ROUNDER));
    i32x4_sub(v128_and(sum, i32x4_splat(0x007f_ffff)), i32x4_splat(0x0040_0000))
}

/// The magnitude of a number.
#[inline(always)]
pub fn size_of(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0x7fff_ffff)
}
