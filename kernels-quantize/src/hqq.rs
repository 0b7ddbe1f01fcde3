//! One turn of half-quadratic quantization as torchao computes it on a CPU: new zeros of groups, and the
//! errors before it. src/quantization/torchao_hqq.ts says how turns follow each other.
//!
//!     q = round(w s + z);  r = (q - z) / s;  e = shrink(w - r);  z = mean of q - (w - e) s

use crate::numbers::*;
use crate::power::powers;
use crate::ranges::CHUNK;

/// Values of the largest group.
const LARGEST_GROUP: usize = 256;

/// What all groups share.
#[repr(C)]
pub struct Turn {
    dtype: u32,
    count: usize,
    /// Values of a group: 32, 64, 128 or 256. The run has whole groups.
    group: usize,
    /// The shrinkage's factor of the power.
    threshold: f32,
    /// Smaller errors are surely shrunk to nothing.
    least: f32,
    inverse: *const f32,
    /// Changed to the new ones.
    zero: *mut f32,
}

/// Whether all values are finite.
pub unsafe fn run(turn: &Turn, input: *const u8, errors: *mut f32) -> bool {
    let mut values = [0f32; CHUNK + 8];
    let mut finite = true;
    for start in (0..turn.count).step_by(CHUNK) {
        let length = CHUNK.min(turn.count - start);
        finite &= widen(turn.dtype, input, start, length, values.as_mut_ptr()) < INFINITY_BITS;
        for at in (0..length).step_by(turn.group) {
            let index = (start + at) / turn.group;
            let group = Group {
                inverse: f32x4_splat(*turn.inverse.add(index)),
                zero: f32x4_splat(*turn.zero.add(index)),
            };
            let zero = refined_zero(turn, &group, values.as_ptr().add(at), errors.add(start + at));
            *turn.zero.add(index) = zero;
        }
    }
    finite
}

struct Group {
    inverse: v128,
    zero: v128,
}

impl Group {
    /// Codes of values, as floats, and their errors.
    #[inline(always)]
    fn codes_and_errors(&self, values: v128) -> (v128, v128) {
        let places = f32x4_add(f32x4_mul(values, self.inverse), self.zero);
        let codes = f32x4_pmax(f32x4_nearest(places), f32x4_splat(0.0));
        let codes = f32x4_pmin(codes, f32x4_splat(15.0));
        let restored = f32x4_div(f32x4_sub(codes, self.zero), self.inverse);
        (codes, f32x4_sub(values, restored))
    }

    /// The zeros that values would have alone, where `kept` of their errors may stay.
    #[inline(always)]
    fn zeros_of(&self, codes: v128, values: v128, kept: v128) -> v128 {
        f32x4_sub(codes, f32x4_mul(f32x4_sub(values, kept), self.inverse))
    }
}

unsafe fn refined_zero(turn: &Turn, group: &Group, values: *const f32, errors: *mut f32) -> f32 {
    let mut zeros = [0f32; LARGEST_GROUP];
    let mut large = [0u8; LARGEST_GROUP + 4];
    let mut found = 0;
    for at in (0..turn.group).step_by(4) {
        let four = load(values.add(at));
        let (codes, rest) = group.codes_and_errors(four);
        let sizes = f32x4_abs(rest);
        store(errors.add(at), sizes);
        store(zeros.as_mut_ptr().add(at), group.zeros_of(codes, four, f32x4_splat(0.0)));
        let mut lanes = i32x4_bitmask(v128_not(f32x4_lt(sizes, f32x4_splat(turn.least))));
        while lanes != 0 {
            large[found] = (at as u32 + lanes.trailing_zeros()) as u8;
            found += 1;
            lanes &= lanes - 1;
        }
    }
    if found > 0 {
        let last = large[found - 1];
        large[found..found + 4].fill(last);
        for four in (0..found).step_by(4) {
            keep_large(turn, group, values, &large[four..four + 4], &mut zeros);
        }
    }
    mean(&zeros[..turn.group])
}

/// The zeros of four values whose errors are not shrunk to nothing for sure.
#[inline(always)]
unsafe fn keep_large(turn: &Turn, group: &Group, values: *const f32, at: &[u8], zeros: &mut [f32]) {
    let value = |lane: usize| *values.add(at[lane] as usize);
    let four = f32x4(value(0), value(1), value(2), value(3));
    let (codes, rest) = group.codes_and_errors(four);
    let kept = shrink(rest, f32x4_splat(turn.threshold));
    let mut made = [0f32; 4];
    store(made.as_mut_ptr(), group.zeros_of(codes, four, kept));
    for lane in 0..4 {
        *zeros.get_unchecked_mut(at[lane] as usize) = made[lane];
    }
}

/// The proximal operator of the 0.7 norm.
#[inline(always)]
fn shrink(values: v128, threshold: v128) -> v128 {
    let sizes = f32x4_abs(values);
    let shrunk = f32x4_sub(sizes, f32x4_mul(threshold, powers(sizes)));
    let signed = v128_or(shrunk, v128_and(values, i32x4_splat(i32::MIN)));
    v128_and(signed, f32x4_gt(shrunk, f32x4_splat(0.0)))
}

/// The mean of a multiple of 32 values, less than 512, in the order of torch.mean: see torch_mean.ts.
#[inline(always)]
unsafe fn mean(values: &[f32]) -> f32 {
    let mut rows = [f32x4_splat(0.0); 8];
    for start in (0..values.len()).step_by(32) {
        for i in 0..8 {
            rows[i] = f32x4_add(rows[i], load(values.as_ptr().add(start + 4 * i)));
        }
    }
    let mut lanes = [0f32; 8];
    for half in 0..2 {
        let first = f32x4_add(rows[half], rows[half + 2]);
        let sum = f32x4_add(f32x4_add(first, rows[half + 4]), rows[half + 6]);
        store(lanes.as_mut_ptr().add(4 * half), sum);
    }
    lanes.iter().fold(0.0, |sum, lane| sum + lane) / values.len() as f32
}
