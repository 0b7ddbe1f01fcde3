//! The only place where the two builds differ, and where instructions are chosen.

pub use core::arch::wasm32::*;

/// a * b + c; fused in the relaxed build where the machine can, two roundings in the plain one.
#[inline(always)]
pub fn madd(a: v128, b: v128, c: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    {
        f32x4_relaxed_madd(a, b, c)
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    {
        f32x4_add(f32x4_mul(a, b), c)
    }
}

/// Bytes of `table` picked by `indices`, all below 16 (so the relaxed form is deterministic).
#[inline(always)]
pub fn pick_bytes(table: v128, indices: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    {
        i8x16_relaxed_swizzle(table, indices)
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    {
        i8x16_swizzle(table, indices)
    }
}

/// Whether `dot_bytes` is one instruction; where not, wide products are faster.
pub const HAS_BYTE_DOT: bool = cfg!(target_feature = "relaxed-simd");

/// Sums of neighbouring products of signed bytes with bytes of 0 to 127, in eight 16-bit lanes: with such a
/// second operand every engine gives the same.
#[inline(always)]
pub fn dot_bytes(signed: v128, small: v128) -> v128 {
    #[cfg(target_feature = "relaxed-simd")]
    {
        i16x8_relaxed_dot_i8x16_i7x16(signed, small)
    }
    #[cfg(not(target_feature = "relaxed-simd"))]
    {
        let even = i16x8_mul(i16x8_shr(i16x8_shl(signed, 8), 8), v128_and(small, i16x8_splat(255)));
        i16x8_add(even, i16x8_mul(i16x8_shr(signed, 8), u16x8_shr(small, 8)))
    }
}

#[inline(always)]
pub unsafe fn load(from: *const f32) -> v128 {
    v128_load(from as *const v128)
}

#[inline(always)]
pub unsafe fn store(to: *mut f32, value: v128) {
    v128_store(to as *mut v128, value)
}

/// The first `count` (1 to 4) values, the rest zero.
#[inline(always)]
pub unsafe fn load_some(from: *const f32, count: usize) -> v128 {
    if count >= 4 {
        return load(from);
    }
    let mut value = f32x4_splat(0.0);
    if count > 0 {
        value = v128_load32_lane::<0>(value, from as *const u32);
    }
    if count > 1 {
        value = v128_load32_lane::<1>(value, from.add(1) as *const u32);
    }
    if count > 2 {
        value = v128_load32_lane::<2>(value, from.add(2) as *const u32);
    }
    value
}

/// Stores the first `count` (1 to 4) values.
#[inline(always)]
pub unsafe fn store_some(to: *mut f32, value: v128, count: usize) {
    if count >= 4 {
        return store(to, value);
    }
    if count > 0 {
        v128_store32_lane::<0>(value, to as *mut u32);
    }
    if count > 1 {
        v128_store32_lane::<1>(value, to.add(1) as *mut u32);
    }
    if count > 2 {
        v128_store32_lane::<2>(value, to.add(2) as *mut u32);
    }
}

/// Whole numbers of less than 2^22 as int32: 1.5 * 2^23 plus one has it in its last bits.
#[inline(always)]
pub fn small_integers(x: v128) -> v128 {
    let shift = f32x4_splat(12_582_912.0);
    i32x4_sub(f32x4_add(x, shift), shift)
}

/// The sum of the lanes, in a fixed order.
#[inline(always)]
pub fn sum_lanes(v: v128) -> f32 {
    (f32x4_extract_lane::<0>(v) + f32x4_extract_lane::<1>(v))
        + (f32x4_extract_lane::<2>(v) + f32x4_extract_lane::<3>(v))
}

/// The largest lane.
#[inline(always)]
pub fn max_lanes(v: v128) -> f32 {
    let v = f32x4_max(v, i32x4_shuffle::<2, 3, 0, 1>(v, v));
    f32x4_extract_lane::<0>(f32x4_max(v, i32x4_shuffle::<1, 0, 3, 2>(v, v)))
}

/// Transposes a 4x4 block held in four vectors.
#[inline(always)]
pub fn transpose(a: v128, b: v128, c: v128, d: v128) -> (v128, v128, v128, v128) {
    let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
    let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
    let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c, d);
    let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c, d);
    (
        i64x2_shuffle::<0, 2>(ab_low, cd_low),
        i64x2_shuffle::<1, 3>(ab_low, cd_low),
        i64x2_shuffle::<0, 2>(ab_high, cd_high),
        i64x2_shuffle::<1, 3>(ab_high, cd_high),
    )
}

/// Checks on values kept from the optimiser that madd, pick_bytes and dot_bytes compute what they must.
pub unsafe fn self_test() -> u32 {
    let three = core::hint::black_box(3.0f32);
    let sum = madd(f32x4_splat(three), f32x4(1.0, 2.0, -4.0, 0.5), f32x4_splat(0.25));
    let wanted = f32x4(3.25, 6.25, -11.75, 1.75);
    let base = core::hint::black_box(15u8);
    let indices = u8x16_sub(
        u8x16_splat(base),
        u8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    );
    let picked = pick_bytes(indices, indices); // table[i] = 15 - i, so the pick gives 0..15
    let order = u8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let good = i32x4_all_true(f32x4_eq(sum, wanted)) && u8x16_all_true(u8x16_eq(picked, order));
    let signed = u8x16_sub(u8x16_splat(base.wrapping_add(113)), u8x16_splat(0)); // -128
    let sums = dot_bytes(signed, u8x16_splat(127));
    u32::from(!(good && i16x8_all_true(i16x8_eq(sums, i16x8_splat(-32512)))))
}
