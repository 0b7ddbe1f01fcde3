//! Multiplying and adding with one rounding, by what every WebAssembly engine has: the product of two
//! float32 is exact in float64, but its sum with a third is rounded twice on the way back.
//!
//! The two roundings differ from one only where the sum in float64 lies half-way between two float32.
//! So sums are taken as they are, and half-ways remembered; who finds one computes again with sums that
//! are rounded to odd in float64, which is exact always and slower.

use crate::numbers::*;

/// Fused operations on four numbers; with `EXACT` without any doubt. No result may be subnormal.
pub struct Fused<const EXACT: bool> {
    /// Lanes that met a half-way.
    doubt: v128,
}

impl<const EXACT: bool> Fused<EXACT> {
    #[inline(always)]
    pub fn new() -> Self {
        Self { doubt: i32x4_splat(0) }
    }

    /// Whether some result may be wrong in its last bit.
    #[inline(always)]
    pub fn is_doubtful(&self) -> bool {
        v128_any_true(self.doubt)
    }

    /// a * b + c
    #[inline(always)]
    pub fn multiply_add(&mut self, a: v128, b: v128, c: v128) -> v128 {
        let low = sum::<EXACT>(product_low(a, b), f64x2_promote_low_f32x4(c));
        let high = sum::<EXACT>(product_high(a, b), promote_high(c));
        if !EXACT {
            let tails = i32x4_shl(i32x4_shuffle::<0, 2, 4, 6>(low, high), 3); // what float32 drops
            self.doubt = v128_or(self.doubt, i32x4_eq(tails, i32x4_splat(i32::MIN)));
        }
        demote(low, high)
    }
}

/// a * b + c where float64 holds the sum, as it does for c = -(a * b) rounded: no doubt in either way.
#[inline(always)]
pub fn multiply_add_held(a: v128, b: v128, c: v128) -> v128 {
    let low = f64x2_add(product_low(a, b), f64x2_promote_low_f32x4(c));
    demote(low, f64x2_add(product_high(a, b), promote_high(c)))
}

#[inline(always)]
fn product_low(a: v128, b: v128) -> v128 {
    f64x2_mul(f64x2_promote_low_f32x4(a), f64x2_promote_low_f32x4(b))
}

#[inline(always)]
fn product_high(a: v128, b: v128) -> v128 {
    f64x2_mul(promote_high(a), promote_high(b))
}

#[inline(always)]
fn promote_high(value: v128) -> v128 {
    f64x2_promote_low_f32x4(i32x4_shuffle::<2, 3, 2, 3>(value, value))
}

#[inline(always)]
fn demote(low: v128, high: v128) -> v128 {
    let (low, high) = (f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high));
    i32x4_shuffle::<0, 1, 4, 5>(low, high)
}

/// The sum of two float64, with `EXACT` rounded to odd: an inexact one ends in 1 and can be no half-way.
#[inline(always)]
fn sum<const EXACT: bool>(a: v128, b: v128) -> v128 {
    let sum = f64x2_add(a, b);
    if !EXACT {
        return sum;
    }
    let part = f64x2_sub(sum, a);
    let lost = f64x2_add(f64x2_sub(a, f64x2_sub(sum, part)), f64x2_sub(b, part));
    let is_even = i64x2_eq(v128_and(sum, i64x2_splat(1)), i64x2_splat(0));
    let moves = v128_and(f64x2_ne(lost, f64x2_splat(0.0)), is_even);
    // To the neighbour on the side of what was lost: a step up of the bits where both have one sign.
    let step = v128_or(i64x2_shr(v128_xor(sum, lost), 63), i64x2_splat(1));
    i64x2_add(sum, v128_and(step, moves))
}
