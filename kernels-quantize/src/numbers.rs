//! Loading numbers of any type as float32, and rounding them as PyTorch's CPU kernels do.

pub use core::arch::wasm32::*;
use core::mem::transmute;

pub const FLOAT32: u32 = 0;
pub const BFLOAT16: u32 = 1;
pub const FLOAT16: u32 = 2;

/// Added to a number of type float32 or bfloat16: round it to float16 first.
pub const ROUNDED_TO_FLOAT16: u32 = 4;

/// The bits of infinity; those of NaN are larger.
pub const INFINITY_BITS: u32 = 0x7f80_0000;

#[inline(always)]
pub unsafe fn load(from: *const f32) -> v128 {
    v128_load(from as *const v128)
}

#[inline(always)]
pub unsafe fn store(to: *mut f32, value: v128) {
    v128_store(to as *mut v128, value)
}

/// Writes `count` numbers from element `at` of `input` as float32, and up to 7 zeros behind them. Gives the
/// bits of the largest magnitude.
pub unsafe fn widen(dtype: u32, input: *const u8, at: usize, count: usize, out: *mut f32) -> u32 {
    let largest = match dtype & 3 {
        BFLOAT16 => widen_halves(input.add(2 * at), count, out, widen_bfloat16) << 16,
        FLOAT16 => float16_magnitude(widen_halves(input.add(2 * at), count, out, widen_float16)),
        _ => copy_floats(input.add(4 * at), count, out),
    };
    if dtype & ROUNDED_TO_FLOAT16 == 0 {
        return largest;
    }
    for i in (0..count).step_by(4) {
        store(out.add(i), round_float16(load(out.add(i))));
    }
    round_float16_bits(largest)
}

/// Widens numbers of 16 bits; gives the largest of their bits, signs aside.
#[inline(always)]
unsafe fn widen_halves(
    input: *const u8,
    count: usize,
    out: *mut f32,
    widen: impl Fn(v128) -> (v128, v128),
) -> u32 {
    let eight = |at: usize| widen_eight(v128_load(input.add(2 * at) as *const v128), out.add(at), &widen);
    let mut largest = i16x8_splat(0);
    let (whole, most) = (count & !7, count & !31);
    // Going round a loop costs V8 as much as two vectors.
    for i in (0..most).step_by(32) {
        let low = i16x8_max(eight(i), eight(i + 8));
        largest = i16x8_max(largest, i16x8_max(low, i16x8_max(eight(i + 16), eight(i + 24))));
    }
    for i in (most..whole).step_by(8) {
        largest = i16x8_max(largest, eight(i));
    }
    if whole < count {
        let mut rest = [0u16; 8];
        for i in whole..count {
            rest[i - whole] = (input.add(2 * i) as *const u16).read_unaligned();
        }
        let last = widen_eight(v128_load(rest.as_ptr() as *const v128), out.add(whole), &widen);
        largest = i16x8_max(largest, last);
    }
    let pairs = i32x4_max(u32x4_extend_low_u16x8(largest), u32x4_extend_high_u16x8(largest));
    largest_lane(pairs)
}

/// Widens eight; gives their bits without signs.
#[inline(always)]
unsafe fn widen_eight(halves: v128, out: *mut f32, widen: impl Fn(v128) -> (v128, v128)) -> v128 {
    let (low, high) = widen(halves);
    store(out, low);
    store(out.add(4), high);
    v128_and(halves, i16x8_splat(0x7fff))
}

/// The largest of four integers that are not negative.
#[inline(always)]
pub fn largest_lane(values: v128) -> u32 {
    let pairs = i32x4_max(values, i32x4_shuffle::<2, 3, 0, 1>(values, values));
    i32x4_extract_lane::<0>(i32x4_max(pairs, i32x4_shuffle::<1, 0, 3, 2>(pairs, pairs))) as u32
}

/// Eight bfloat16 numbers as float32.
#[inline(always)]
pub fn widen_bfloat16(halves: v128) -> (v128, v128) {
    let zero = i16x8_splat(0);
    (
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(zero, halves),
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(zero, halves),
    )
}

#[inline(always)]
fn widen_float16(halves: v128) -> (v128, v128) {
    (
        from_float16(u32x4_extend_low_u16x8(halves)),
        from_float16(u32x4_extend_high_u16x8(halves)),
    )
}

/// The bits of a float16 magnitude as those of float32.
fn float16_magnitude(bits: u32) -> u32 {
    i32x4_extract_lane::<0>(from_float16(u32x4_splat(bits))) as u32
}

fn round_float16_bits(bits: u32) -> u32 {
    i32x4_extract_lane::<0>(round_float16(u32x4_splat(bits))) as u32
}

unsafe fn copy_floats(input: *const u8, count: usize, out: *mut f32) -> u32 {
    let mut largest = i32x4_splat(0);
    let mut four = |at: usize, words: v128| {
        largest = i32x4_max(largest, v128_and(words, i32x4_splat(0x7fff_ffff)));
        store(out.add(at), words);
    };
    let whole = count & !3;
    for i in (0..whole).step_by(4) {
        four(i, v128_load(input.add(4 * i) as *const v128));
    }
    if whole < count {
        let mut rest = [0u32; 4];
        for i in whole..count {
            rest[i - whole] = (input.add(4 * i) as *const u32).read_unaligned();
        }
        four(whole, v128_load(rest.as_ptr() as *const v128));
    }
    largest_lane(largest)
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

/// The same of four finite numbers, in 32-bit lanes.
#[inline(always)]
pub fn float16_of(values: v128) -> v128 {
    let sign = v128_and(u32x4_shr(values, 16), i32x4_splat(0x8000));
    let size = v128_and(values, i32x4_splat(0x7fff_ffff));
    let half = f32x4_splat(0.5);
    let small = i32x4_sub(f32x4_add(size, half), half);
    let odd = v128_and(u32x4_shr(size, 13), i32x4_splat(1));
    let normal = u32x4_shr(i32x4_add(i32x4_add(size, i32x4_splat(0xfff - (112 << 23))), odd), 13);
    let least = f32x4_splat(f32::from_bits(0x3880_0000)); // 2^-14
    let bits = v128_bitselect(small, normal, f32x4_lt(size, least));
    // Too large ones become infinity.
    v128_or(v128_bitselect(i32x4_splat(0x7c00), bits, f32x4_ge(size, f32x4_splat(65536.0))), sign)
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
#[inline(always)]
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

#[repr(simd)]
#[derive(Clone, Copy)]
struct Words([i16; 8]);
#[repr(simd)]
#[derive(Clone, Copy)]
struct Longs([i32; 4]);
#[repr(simd)]
#[derive(Clone, Copy)]
struct Bytes([i8; 16]);

// The instructions by name: of those in core::arch the compiler makes several where it knows the operands.
#[allow(improper_ctypes)]
extern "unadjusted" {
    #[link_name = "llvm.wasm.narrow.signed.v8i16.v4i32"]
    fn narrow_longs(low: Longs, high: Longs) -> Words;
    #[link_name = "llvm.wasm.narrow.signed.v16i8.v8i16"]
    fn narrow_words(low: Words, high: Words) -> Bytes;
    #[link_name = "llvm.wasm.narrow.unsigned.v16i8.v8i16"]
    fn narrow_words_unsigned(low: Words, high: Words) -> Bytes;
}

/// Eight integers of 32 bits as such of 16.
#[inline(always)]
pub fn narrow(low: v128, high: v128) -> v128 {
    unsafe { transmute(narrow_longs(transmute(low), transmute(high))) }
}

/// Sixteen integers of 16 bits as bytes, from 0 to 255.
#[inline(always)]
pub fn unsigned_bytes(low: v128, high: v128) -> v128 {
    unsafe { transmute(narrow_words_unsigned(transmute(low), transmute(high))) }
}

/// Sixteen integers of 16 bits as bytes, from -128 to 127.
#[inline(always)]
pub fn signed_words(low: v128, high: v128) -> v128 {
    unsafe { transmute(narrow_words(transmute(low), transmute(high))) }
}

/// Sixteen integers as bytes, from 0 to 255.
#[inline(always)]
pub fn bytes(a: v128, b: v128, c: v128, d: v128) -> v128 {
    unsigned_bytes(narrow(a, b), narrow(c, d))
}

/// Sixteen integers as bytes, from -128 to 127.
#[inline(always)]
pub fn signed_bytes(a: v128, b: v128, c: v128, d: v128) -> v128 {
    signed_words(narrow(a, b), narrow(c, d))
}

/// Floats that are whole and small, as integers.
#[inline(always)]
pub fn whole_number(values: v128) -> v128 {
    i32x4_sub(f32x4_add(values, f32x4_splat(ROUNDER)), i32x4_splat(ROUNDER.to_bits() as i32))
}

/// The magnitude of a number.
#[inline(always)]
pub fn size_of(value: f32) -> f32 {
    f32::from_bits(value.to_bits() & 0x7fff_ffff)
}
