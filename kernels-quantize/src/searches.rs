//! The searches of ggml's reference quantizers for the scales of groups, four groups at a time, in the
//! float32 arithmetic and order of the C code (make_qkx2_quants, make_qx_quants, make_q3_quants and the
//! search of quantize_row_iq4_nl_impl of ggml-quants.c). src/quantization/gguf_searches.ts says the same
//! for one group.

use crate::lanes::*;
use crate::numbers::*;

/// How scale and minimum are searched.
pub struct Steps {
    pub most: f32,
    pub first: f32,
    pub count: usize,
}

/// What was found: a minimum is at most 0 and has its sign changed.
pub struct ScaleAndMinimum {
    pub scale: v128,
    pub minimum: v128,
}

/// Scale and minimum such that `code * scale + minimum` comes nearest to the values.
#[inline(always)]
pub fn scale_and_minimum<const N: usize, const ABSOLUTE: bool>(
    x: &Lanes<N>,
    weights: &Lanes<N>,
    steps: &Steps,
    codes: &mut Lanes<N>,
) -> ScaleAndMinimum {
    let zero = f32x4_splat(0.0);
    let most = f32x4_splat(steps.most);
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (zero, zero);
    for i in 0..N {
        min = f32x4_pmin(min, x[i]);
        max = f32x4_pmax(max, x[i]);
        sum_w = f32x4_add(sum_w, weights[i]);
        sum_x = f32x4_add(sum_x, f32x4_mul(weights[i], x[i]));
    }
    min = v128_bitselect(zero, min, f32x4_gt(min, zero));
    let flat = f32x4_eq(max, min);
    let flat_minimum = f32x4_neg(min);
    let inverse = f32x4_div(most, f32x4_sub(max, min));
    let mut scale = f32x4_div(f32x4_splat(1.0), inverse);
    let mut inverse_used = usable(inverse);
    let mut min_used = min;
    let mut best = zero;
    for i in 0..N {
        let l = level(x[i], min, inverse_used, most);
        best = f32x4_add(best, part_of_error::<ABSOLUTE>(x[i], weights[i], l, scale, min));
    }
    for step in 0..=steps.count {
        let factor = steps.first + 0.1f32 * step as f32 + steps.most;
        let tried = usable(f32x4_div(f32x4_splat(factor), f32x4_sub(max, min)));
        let (mut sum_l, mut sum_l2, mut sum_xl) = (zero, zero, zero);
        let mut trial = [zero; N];
        for i in 0..N {
            let l = level(x[i], min, tried, most);
            trial[i] = l;
            let wl = f32x4_mul(weights[i], l);
            sum_l = f32x4_add(sum_l, wl);
            sum_l2 = f32x4_add(sum_l2, f32x4_mul(wl, l));
            sum_xl = f32x4_add(sum_xl, f32x4_mul(wl, x[i]));
        }
        let determinant =
            f32x4_sub(f32x4_mul(sum_w, sum_l2), f32x4_mul(sum_l, sum_l));
        let mut this_scale = f32x4_div(
            f32x4_sub(f32x4_mul(sum_w, sum_xl), f32x4_mul(sum_x, sum_l)),
            determinant,
        );
        let mut this_min = f32x4_div(
            f32x4_sub(f32x4_mul(sum_l2, sum_x), f32x4_mul(sum_l, sum_xl)),
            determinant,
        );
        let positive = f32x4_gt(this_min, zero);
        this_min = v128_andnot(this_min, positive);
        this_scale = v128_bitselect(f32x4_div(sum_xl, sum_l2), this_scale, positive);
        let mut error = zero;
        for i in 0..N {
            let part = part_of_error::<ABSOLUTE>(x[i], weights[i], trial[i], this_scale, this_min);
            error = f32x4_add(error, part);
        }
        let better = v128_and(f32x4_gt(determinant, zero), f32x4_lt(error, best));
        best = v128_bitselect(error, best, better);
        scale = v128_bitselect(this_scale, scale, better);
        inverse_used = v128_bitselect(tried, inverse_used, better);
        min_used = v128_bitselect(min, min_used, better);
        min = v128_bitselect(this_min, min, better);
    }
    for i in 0..N {
        let l = nearest_integers(level(x[i], min_used, inverse_used, most));
        codes[i] = v128_andnot(l, flat);
    }
    ScaleAndMinimum {
        scale: v128_andnot(scale, flat),
        minimum: v128_bitselect(flat_minimum, f32x4_neg(min), flat),
    }
}

/// In C an infinite product rounds to a negative integer and is clamped to code 0.
#[inline(always)]
fn usable(inverse: v128) -> v128 {
    v128_andnot(inverse, f32x4_eq(inverse, f32x4_splat(f32::INFINITY)))
}

#[inline(always)]
fn level(x: v128, min: v128, inverse: v128, most: v128) -> v128 {
    let l = f32x4_nearest(f32x4_mul(inverse, f32x4_sub(x, min)));
    f32x4_pmin(most, f32x4_pmax(f32x4_splat(0.0), l))
}

#[inline(always)]
fn part_of_error<const ABSOLUTE: bool>(
    x: v128,
    weight: v128,
    level: v128,
    scale: v128,
    min: v128,
) -> v128 {
    let difference = f32x4_sub(f32x4_add(f32x4_mul(scale, level), min), x);
    if ABSOLUTE {
        f32x4_mul(weight, f32x4_abs(difference))
    } else {
        f32x4_mul(weight, f32x4_mul(difference, difference))
    }
}

/// Sums of weight * value * level and of weight * level * level.
struct Sums {
    lx: v128,
    l2: v128,
}

impl Sums {
    /// Lanes where these give a smaller error than `best`.
    #[inline(always)]
    fn better(&self, best: v128) -> v128 {
        let gain = f32x4_gt(f32x4_mul(self.lx, self.lx), f32x4_mul(best, self.l2));
        v128_and(f32x4_gt(self.l2, f32x4_splat(0.0)), gain)
    }
}

/// Scale of groups of 16 with codes -32 to 31 (stored plus 32), weighted by the squares: Q6_K.
#[inline(always)]
pub fn symmetric_scale(x: &Lanes<16>, codes: &mut Lanes<16>) -> v128 {
    let max = largest(x);
    let nothing = is_nothing(max);
    let mut weights = [max; 16];
    let mut weighted = [max; 16];
    for i in 0..16 {
        weights[i] = f32x4_mul(x[i], x[i]);
        weighted[i] = f32x4_mul(weights[i], x[i]);
    }
    let sums_of = |inverse: v128| {
        let mut sums = Sums { lx: f32x4_splat(0.0), l2: f32x4_splat(0.0) };
        for i in 0..16 {
            let l = six_bit_level(x[i], inverse);
            sums.lx = f32x4_add(sums.lx, f32x4_mul(weighted[i], l));
            sums.l2 = f32x4_add(sums.l2, f32x4_mul(f32x4_mul(weights[i], l), l));
        }
        sums
    };
    let mut chosen = f32x4_div(f32x4_splat(-32.0), max);
    let first = sums_of(chosen);
    let none = f32x4_eq(first.l2, f32x4_splat(0.0));
    let mut scale = v128_andnot(f32x4_div(first.lx, first.l2), none);
    let mut best = f32x4_mul(scale, first.lx);
    for step in -9..=9 {
        if step == 0 {
            continue;
        }
        let inverse = f32x4_div(f32x4_splat(-(32.0 + 0.1f32 * step as f32)), max);
        let sums = sums_of(inverse);
        let better = sums.better(best);
        let this_scale = f32x4_div(sums.lx, sums.l2);
        scale = v128_bitselect(this_scale, scale, better);
        best = v128_bitselect(f32x4_mul(this_scale, sums.lx), best, better);
        chosen = v128_bitselect(inverse, chosen, better);
    }
    for i in 0..16 {
        let l = i32x4_add(nearest_integers(six_bit_level(x[i], chosen)), i32x4_splat(32));
        codes[i] = v128_andnot(l, nothing);
    }
    v128_andnot(scale, nothing)
}

#[inline(always)]
fn six_bit_level(x: v128, inverse: v128) -> v128 {
    let l = f32x4_nearest(f32x4_mul(inverse, x));
    f32x4_pmin(f32x4_splat(31.0), f32x4_pmax(f32x4_splat(-32.0), l))
}

/// Sets of four groups that the three-bit search works on at once: each step waits for the one before.
pub const SETS: usize = 4;

/// Scale of groups of 16 with codes -4 to 3 (stored plus 4) by coordinate descent: Q3_K.
pub fn three_bit_scales(x: &[Lanes<16>; SETS], codes: &mut [Lanes<16>; SETS]) -> [v128; SETS] {
    let zero = f32x4_splat(0.0);
    let (mut lx, mut l2, mut nothing) = ([zero; SETS], [zero; SETS], [zero; SETS]);
    for set in 0..SETS {
        let max = largest(&x[set]);
        nothing[set] = is_nothing(max);
        let inverse = f32x4_div(f32x4_splat(-4.0), max);
        for i in 0..16 {
            let value = x[set][i];
            let l = three_bits(f32x4_mul(inverse, value));
            codes[set][i] = l;
            let level = f32x4_convert_i32x4(l);
            let w = f32x4_mul(value, value);
            lx[set] = f32x4_add(lx[set], f32x4_mul(f32x4_mul(w, value), level));
            l2[set] = f32x4_add(l2[set], f32x4_mul(f32x4_mul(w, level), level));
        }
    }
    for _ in 0..5 {
        let mut changed = zero;
        for i in 0..16 {
            for set in 0..SETS {
                let step = descend(x[set][i], codes[set][i], &mut lx[set], &mut l2[set]);
                changed = v128_or(changed, v128_andnot(v128_xor(step, codes[set][i]), nothing[set]));
                codes[set][i] = step;
            }
        }
        if !v128_any_true(changed) {
            break;
        }
    }
    let mut scales = [zero; SETS];
    for set in 0..SETS {
        for i in 0..16 {
            codes[set][i] = v128_andnot(i32x4_add(codes[set][i], i32x4_splat(4)), nothing[set]);
        }
        let some = v128_andnot(f32x4_gt(l2[set], zero), nothing[set]);
        scales[set] = v128_and(f32x4_div(lx[set], l2[set]), some);
    }
    scales
}

/// The level of one value that is best while all others stay; changes the sums where it differs.
#[inline(always)]
fn descend(x: v128, old: v128, lx: &mut v128, l2: &mut v128) -> v128 {
    let zero = f32x4_splat(0.0);
    let w = f32x4_mul(x, x);
    let wx = f32x4_mul(w, x);
    let level = f32x4_convert_i32x4(old);
    let rest_lx = f32x4_sub(*lx, f32x4_mul(wx, level));
    let rest_l2 = f32x4_sub(*l2, f32x4_mul(f32x4_mul(w, level), level));
    let new = three_bits(f32x4_div(f32x4_mul(x, rest_l2), rest_lx));
    let new_level = f32x4_convert_i32x4(new);
    let new_lx = f32x4_add(rest_lx, f32x4_mul(wx, new_level));
    let new_l2 = f32x4_add(rest_l2, f32x4_mul(f32x4_mul(w, new_level), new_level));
    let gain = f32x4_mul(f32x4_mul(new_lx, new_lx), *l2);
    let better = f32x4_gt(gain, f32x4_mul(f32x4_mul(*lx, *lx), new_l2));
    let moves = v128_and(f32x4_gt(rest_lx, zero), i32x4_ne(new, old));
    let taken = v128_and(v128_and(moves, f32x4_gt(new_l2, zero)), better);
    *lx = v128_bitselect(new_lx, *lx, taken);
    *l2 = v128_bitselect(new_l2, *l2, taken);
    v128_bitselect(new, old, taken)
}

#[inline(always)]
fn three_bits(value: v128) -> v128 {
    i32x4_min(i32x4_splat(3), i32x4_max(i32x4_splat(-4), nearest_integers(value)))
}

/// Values of IQ4_NL and IQ4_XS.
const IQ4: v128 = i8x16(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);

/// Half way between neighbours; a value on one belongs to the upper neighbour.
const IQ4_MIDDLES: [f32; 15] = [
    -115.5, -93.5, -74.0, -57.0, -42.0, -28.5, -16.0, -4.5, 7.0, 19.0, 31.5, 45.5, 61.0, 79.0, 101.0,
];

/// The index of the nearest of the uneven values.
#[inline(always)]
pub fn iq4_code(value: v128) -> v128 {
    let mut rank = i32x4_splat(0);
    for middle in IQ4_MIDDLES {
        rank = i32x4_sub(rank, f32x4_ge(value, f32x4_splat(middle)));
    }
    rank
}

/// Scale of groups of 32 for the uneven values, weighted by the squares: IQ4_NL, IQ4_XS.
#[inline(always)]
pub fn iq4_scale(x: &Lanes<32>) -> v128 {
    let max = largest(x);
    let sums_of = |inverse: v128| {
        let mut sums = Sums { lx: f32x4_splat(0.0), l2: f32x4_splat(0.0) };
        for i in 0..32 {
            let picked = i8x16_swizzle(IQ4, iq4_code(f32x4_mul(inverse, x[i])));
            let q = f32x4_convert_i32x4(i32x4_shr(i32x4_shl(picked, 24), 24));
            let wq = f32x4_mul(f32x4_mul(x[i], x[i]), q);
            sums.lx = f32x4_add(sums.lx, f32x4_mul(wq, x[i]));
            sums.l2 = f32x4_add(sums.l2, f32x4_mul(wq, q));
        }
        sums
    };
    let one = f32x4_splat(1.0);
    let first = sums_of(f32x4_div(one, f32x4_div(f32x4_neg(max), f32x4_splat(-127.0))));
    let some = f32x4_gt(first.l2, f32x4_splat(0.0));
    let mut scale = v128_and(f32x4_div(first.lx, first.l2), some);
    let mut best = f32x4_mul(scale, first.lx);
    for step in -7..=7 {
        let sums = sums_of(f32x4_div(f32x4_splat((step - 127) as f32), max));
        let better = sums.better(best);
        let this_scale = f32x4_div(sums.lx, sums.l2);
        scale = v128_bitselect(this_scale, scale, better);
        best = v128_bitselect(f32x4_mul(this_scale, sums.lx), best, better);
    }
    v128_andnot(scale, is_nothing(max))
}
