//! Elementary functions of four lanes: own polynomials, so that every engine gives the same bits.

use crate::opcodes::*;
use crate::simd::*;
use core::f32::consts::LOG2_E;

/// e^(x - n ln 2), by a polynomial.
#[inline(always)]
fn exp_fraction(x: v128, n: v128) -> v128 {
    let r = madd(n, f32x4_splat(-0.693_359_375), x);
    let r = madd(n, f32x4_splat(2.121_944_4e-4), r);
    let mut p = f32x4_splat(1.987_569_1e-4); // Cephes expf
    p = madd(p, r, f32x4_splat(1.398_199_9e-3));
    p = madd(p, r, f32x4_splat(8.333_452e-3));
    p = madd(p, r, f32x4_splat(4.166_579_6e-2));
    p = madd(p, r, f32x4_splat(1.666_666_5e-1));
    p = madd(p, r, f32x4_splat(0.5));
    f32x4_add(madd(p, f32x4_mul(r, r), r), f32x4_splat(1.0))
}

// pmin and pmax are one instruction, and with x first they let NaN pass.

/// e^x, within about 1e-7 relative; 0 below -104, infinity above 88.8.
#[inline(always)]
pub fn exp(x: v128) -> v128 {
    let x = f32x4_pmax(f32x4_pmin(x, f32x4_splat(89.0)), f32x4_splat(-105.0));
    let n = f32x4_nearest(f32x4_mul(x, f32x4_splat(LOG2_E)));
    let y = exp_fraction(x, n);
    // 2^n in two factors: n reaches 128 and -151, beyond one exponent.
    let whole = i32x4_trunc_sat_f32x4(n);
    let half = i32x4_shr(whole, 1);
    let first = i32x4_shl(i32x4_add(half, i32x4_splat(127)), 23);
    let second = i32x4_shl(i32x4_add(i32x4_sub(whole, half), i32x4_splat(127)), 23);
    f32x4_mul(f32x4_mul(y, first), second)
}

/// 2^t for t from -126 to 127.99, within 7e-8. Adding 1.5 * 2^23 rounds t to the integer that the sum's low bits
/// then hold; the rest, at most a half, goes through a polynomial (fitted at Chebyshev nodes).
#[inline(always)]
fn exp2(t: v128) -> v128 {
    let magic = f32x4_splat(12_582_912.0);
    let shifted = f32x4_add(t, magic);
    let f = f32x4_sub(t, f32x4_sub(shifted, magic));
    let mut p = f32x4_splat(1.546_145_2e-4);
    for c in [1.339_087_7e-3, 9.618_057e-3, 5.550_357e-2, 2.402_265_1e-1, 6.931_472e-1, 1.0] {
        p = madd(p, f, f32x4_splat(c));
    }
    i32x4_add(p, i32x4_shl(shifted, 23))
}

/// x / (1 + 2^t). Below t = -126 the sum is 1 in any case; from 128 on it is infinite.
#[inline(always)]
fn over_one_plus_exp2(x: v128, t: v128) -> v128 {
    let most = f32x4_splat(127.99);
    let power = exp2(f32x4_pmin(f32x4_pmax(t, f32x4_splat(-126.0)), most));
    let infinity = v128_and(f32x4_gt(t, most), f32x4_splat(f32::INFINITY));
    over_one_plus(x, f32x4_add(power, infinity))
}

/// Four numbers to more than single precision: high + low.
struct Precise {
    high: v128,
    low: v128,
}

/// A polynomial of x in double precision; where e^x is large or small its argument must be better
/// than a float.
#[inline(always)]
fn precisely(x: v128, f: impl Fn(v128) -> v128) -> Precise {
    let first = f(f64x2_promote_low_f32x4(x));
    let second = f(f64x2_promote_low_f32x4(i64x2_shuffle::<1, 0>(x, x)));
    let join = |a, b| i64x2_shuffle::<0, 2>(f32x4_demote_f64x2_zero(a), f32x4_demote_f64x2_zero(b));
    let high = join(first, second);
    let rest = |whole, part| f64x2_sub(whole, f64x2_promote_low_f32x4(part));
    let low = join(rest(first, high), rest(second, i64x2_shuffle::<1, 0>(high, high)));
    Precise { high, low }
}

/// e^(high + low), given e^high.
#[inline(always)]
fn with_low_part(e: v128, low: v128) -> v128 {
    // Infinite arguments have no low part.
    let low = v128_and(low, f32x4_lt(f32x4_abs(low), f32x4_splat(1.0)));
    f32x4_mul(e, f32x4_add(low, f32x4_splat(1.0)))
}

/// x / (1 + power)
#[inline(always)]
fn over_one_plus(x: v128, power: v128) -> v128 {
    f32x4_div(x, f32x4_add(f32x4_splat(1.0), power))
}

/// x (1 + erf(x / sqrt 2)) / 2 through erfc (Numerical Recipes, 6.2), accurate far into the tail.
#[inline(always)]
fn gelu_erf(x: v128) -> v128 {
    let z = f32x4_mul(f32x4_abs(x), f32x4_splat(core::f32::consts::FRAC_1_SQRT_2));
    let t = f32x4_div(f32x4_splat(1.0), madd(f32x4_splat(0.5), z, f32x4_splat(1.0)));
    let mut p = f32x4_splat(0.170_872_77);
    for c in [
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ] {
        p = madd(p, t, f32x4_splat(c));
    }
    let exponent = precisely(x, |x| f64x2_mul(f64x2_mul(x, x), f64x2_splat(-0.5)));
    let bell = with_low_part(exp(exponent.high), exponent.low);
    let tail = f32x4_mul(f32x4_mul(t, bell), exp(p)); // erfc(z)
    let half = f32x4_mul(f32x4_mul(x, f32x4_splat(0.5)), tail);
    v128_bitselect(half, f32x4_sub(x, half), f32x4_lt(x, f32x4_splat(0.0)))
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
        UNARY_SILU => over_one_plus_exp2(x, f32x4_mul(x, f32x4_splat(-LOG2_E))),
        UNARY_GELU_TANH => {
            // -2 sqrt(2 / pi) log2(e) (x + 0.044715 x^3)
            let factor = madd(
                f32x4_mul(x, x),
                f32x4_splat(-0.102_943_24),
                f32x4_splat(-2.302_208_2),
            );
            over_one_plus_exp2(x, f32x4_mul(x, factor))
        }
        UNARY_GELU_ERF => gelu_erf(x),
        UNARY_QUICK_GELU => over_one_plus_exp2(x, f32x4_mul(x, f32x4_splat(-1.702 * LOG2_E))),
        UNARY_RELU => f32x4_pmax(x, f32x4_splat(0.0)),
        _ => x,
    }
}

/// The square root.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    f32x4_extract_lane::<0>(f32x4_sqrt(f32x4_splat(x)))
}
