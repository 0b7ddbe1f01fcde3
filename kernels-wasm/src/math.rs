//! Elementary functions of four lanes: own polynomials, so that every engine gives the same bits.

use crate::opcodes::*;
use crate::simd::*;

/// e^x, within about 1e-7 relative; 0 below -104, infinity above 88.8.
#[inline(always)]
pub fn exp(x: v128) -> v128 {
    let x = f32x4_max(f32x4_min(x, f32x4_splat(89.0)), f32x4_splat(-105.0));
    let n = f32x4_nearest(f32x4_mul(x, f32x4_splat(core::f32::consts::LOG2_E)));
    let r = madd(n, f32x4_splat(-0.693_359_375), x);
    let r = madd(n, f32x4_splat(2.121_944_4e-4), r);
    let mut p = f32x4_splat(1.987_569_1e-4); // Cephes expf
    p = madd(p, r, f32x4_splat(1.398_199_9e-3));
    p = madd(p, r, f32x4_splat(8.333_452e-3));
    p = madd(p, r, f32x4_splat(4.166_579_6e-2));
    p = madd(p, r, f32x4_splat(1.666_666_5e-1));
    p = madd(p, r, f32x4_splat(0.5));
    let y = f32x4_add(madd(p, f32x4_mul(r, r), r), f32x4_splat(1.0));
    // 2^n in two factors: n reaches 128 and -151, beyond one exponent.
    let whole = i32x4_trunc_sat_f32x4(n);
    let half = i32x4_shr(whole, 1);
    let first = i32x4_shl(i32x4_add(half, i32x4_splat(127)), 23);
    let second = i32x4_shl(i32x4_add(i32x4_sub(whole, half), i32x4_splat(127)), 23);
    f32x4_mul(f32x4_mul(y, first), second)
}

/// x / (1 + e^-y)
#[inline(always)]
fn times_sigmoid(x: v128, y: v128) -> v128 {
    f32x4_div(x, f32x4_add(f32x4_splat(1.0), exp(f32x4_neg(y))))
}

/// The error function (two ranges after N. Juffa), within about 1e-7.
#[inline(always)]
pub fn erf(a: v128) -> v128 {
    let t = f32x4_abs(a);
    let s = f32x4_mul(a, a);
    let mut small = f32x4_splat(-5.967_617e-4);
    small = madd(small, s, f32x4_splat(4.991_194_2e-3));
    small = madd(small, s, f32x4_splat(-2.676_813_5e-2));
    small = madd(small, s, f32x4_splat(1.128_199_25e-1));
    small = madd(small, s, f32x4_splat(-3.761_253_4e-1));
    small = madd(small, s, f32x4_splat(1.283_791_7e-1));
    small = madd(small, a, a);
    let mut r = madd(f32x4_splat(-1.728_534_7e-5), t, f32x4_splat(3.831_971_3e-4));
    let u = madd(f32x4_splat(-3.883_964_4e-3), t, f32x4_splat(2.425_462_2e-2));
    r = madd(r, s, u);
    r = madd(r, t, f32x4_splat(-1.067_778_8e-1));
    r = madd(r, t, f32x4_splat(-6.348_467e-1));
    r = madd(r, t, f32x4_splat(-1.287_175_1e-1));
    r = madd(r, t, f32x4_neg(t));
    let tail = f32x4_sub(f32x4_splat(1.0), exp(r));
    // Beyond 10 the polynomial itself would overflow towards +infinity.
    let tail = v128_bitselect(f32x4_splat(1.0), tail, f32x4_gt(t, f32x4_splat(10.0)));
    let sign = v128_and(a, i32x4_splat(i32::MIN));
    v128_bitselect(v128_or(tail, sign), small, f32x4_gt(t, f32x4_splat(0.927_734_4)))
}

/// A unary function by its number; the affine pair is used by `UNARY_AFFINE` alone.
#[inline(always)]
pub fn unary(kind: u32, x: v128, multiplier: v128, addend: v128) -> v128 {
    match kind {
        UNARY_AFFINE => f32x4_add(f32x4_mul(x, multiplier), addend),
        UNARY_EXP => exp(x),
        UNARY_RSQRT => f32x4_div(f32x4_splat(1.0), f32x4_sqrt(x)),
        _ => activation(kind, x),
    }
}

/// One of the functions a fused op may end with.
#[inline(always)]
pub fn activation(kind: u32, x: v128) -> v128 {
    match kind {
        UNARY_SILU => times_sigmoid(x, x),
        UNARY_GELU_TANH => {
            let cube = f32x4_mul(f32x4_mul(x, x), x);
            let u = f32x4_add(x, f32x4_mul(f32x4_splat(0.044_715), cube));
            times_sigmoid(x, f32x4_mul(u, f32x4_splat(1.595_769_1))) // 2 sqrt(2 / pi)
        }
        UNARY_GELU_ERF => {
            let e = erf(f32x4_mul(x, f32x4_splat(core::f32::consts::FRAC_1_SQRT_2)));
            f32x4_mul(f32x4_mul(x, f32x4_splat(0.5)), f32x4_add(e, f32x4_splat(1.0)))
        }
        UNARY_QUICK_GELU => times_sigmoid(x, f32x4_mul(x, f32x4_splat(1.702))),
        UNARY_RELU => f32x4_max(x, f32x4_splat(0.0)),
        _ => x,
    }
}

/// e^x of one value.
pub fn exp_scalar(x: f32) -> f32 {
    f32x4_extract_lane::<0>(exp(f32x4_splat(x)))
}

/// The square root.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
}
