//! The products q k^T of attention in integers: q, and k less its mean over the keys, rounded to int8 with a
//! scale per row of a head (Zhang et al., SageAttention). Sums are exact, so only the codes decide; which ones
//! come out is said in src/ops/op_table.ts.

use crate::gemm::NR;
use crate::integer_kernel::{integer_wide, ROWS, STEP_UNIT};
use crate::simd::*;

/// Codes of a row, as int16 whole runs of the kernel; zero beyond the features.
pub const fn code_size(size: usize) -> usize {
    size.div_ceil(2 * STEP_UNIT) * 2 * STEP_UNIT
}

/// Features whose means are found at once: those of a cache line.
const LINE: usize = 16;

const fn mean_size(size: usize) -> usize {
    code_size(size).div_ceil(LINE) * LINE
}

/// Floats of scratch that `Rounding` takes for blocks of `keys`.
pub const fn rounding_floats(size: usize, keys: usize) -> usize {
    mean_size(size) + ROWS * code_size(size) / 2 + keys
}

/// What rounding keeps beside the packed codes.
pub struct Rounding {
    size: usize,
    /// [features], zero beyond.
    mean: *mut f32,
    /// [ROWS, features] int16, those of a strip at hand.
    codes: *mut i16,
    /// [keys]: what a code of a key is worth.
    scales: *mut f32,
}

impl Rounding {
    pub unsafe fn new(at: *mut f32, size: usize) -> Rounding {
        let padded = code_size(size);
        let codes = at.add(mean_size(size));
        let scales = codes.add(ROWS * padded / 2);
        Rounding { size, mean: at, codes: codes as *mut i16, scales }
    }

    /// Finds the mean of all keys; sums in float64, key after key.
    pub unsafe fn find_mean(&self, key: impl Fn(usize) -> *const f32, keys: usize) {
        for first in (0..code_size(self.size)).step_by(LINE) {
            let mut sums = [f64x2_splat(0.0); LINE / 2];
            for j in 0..keys {
                let row = key(j);
                for (at, pair) in sums.chunks_exact_mut(2).enumerate() {
                    let i = first + 4 * at;
                    let x = load_some(row.wrapping_add(i), self.size.saturating_sub(i));
                    pair[0] = f64x2_add(pair[0], f64x2_promote_low_f32x4(x));
                    let high = i64x2_shuffle::<1, 0>(x, x);
                    pair[1] = f64x2_add(pair[1], f64x2_promote_low_f32x4(high));
                }
            }
            let count = f64x2_splat(keys as f64);
            for (at, sum) in sums.into_iter().enumerate() {
                let mean = f32x4_demote_f64x2_zero(f64x2_div(sum, count));
                v128_store64_lane::<0>(mean, self.mean.add(first + 2 * at) as *mut u64);
            }
        }
    }

    /// Packs the codes of `count` keys as strips [words][ROWS], two codes a word.
    pub unsafe fn pack_keys(&self, key: impl Fn(usize) -> *const f32, count: usize, into: *mut f32) {
        for i in (0..count).step_by(ROWS) {
            let strip = into.add(i * code_size(self.size) / 2);
            let rows = ROWS.min(count - i);
            self.pack_strip(|r| key(i + r), rows, self.mean, self.scales.add(i), strip, ROWS);
        }
    }

    /// Packs the codes of up to 8 queries as a panel [words][8]; gives what a code is worth to `scales` [8].
    pub unsafe fn pack_queries(
        &self,
        query: impl Fn(usize) -> *const f32,
        count: usize,
        into: *mut f32,
        scales: *mut f32,
    ) {
        for half in (0..NR).step_by(ROWS) {
            let rows = ROWS.min(count.saturating_sub(half));
            let none = core::ptr::null();
            self.pack_strip(|r| query(half + r), rows, none, scales.add(half), into.add(half), NR);
        }
    }

    /// Rounds and packs ROWS rows, those from `count` on zero; words of a step lie `stride` words from the next.
    #[inline(always)]
    unsafe fn pack_strip(
        &self,
        row: impl Fn(usize) -> *const f32,
        count: usize,
        mean: *const f32,
        scales: *mut f32,
        into: *mut f32,
        stride: usize,
    ) {
        let padded = code_size(self.size);
        for r in 0..ROWS {
            let codes = self.codes.add(r * padded);
            if r < count {
                *scales.add(r) = self.round(row(r), mean, codes);
            } else {
                core::ptr::write_bytes(codes, 0, padded);
                *scales.add(r) = 0.0;
            }
        }
        for word in (0..padded / 2).step_by(4) {
            let at = |r: usize| load((self.codes.add(r * padded) as *const f32).add(word));
            let (a, b, c, d) = transpose(at(0), at(1), at(2), at(3));
            for (step, words) in [a, b, c, d].into_iter().enumerate() {
                store(into.add((word + step) * stride), words);
            }
        }
    }

    /// Codes of x - mean: rounded times 127 / the largest magnitude. Gives what a code is worth.
    unsafe fn round(&self, x: *const f32, mean: *const f32, codes: *mut i16) -> f32 {
        let mut largest = f32x4_splat(0.0);
        for i in (0..self.size).step_by(4) {
            // Magnitudes are ordered as their bits are, NaN above all.
            largest = i32x4_max(largest, f32x4_abs(self.centred(x, mean, i)));
        }
        let largest = max_lanes(largest);
        let inverse = f32x4_splat(if largest == 0.0 { 0.0 } else { 127.0 / largest });
        let (most, least) = (f32x4_splat(127.0), f32x4_splat(-127.0));
        for i in (0..code_size(self.size)).step_by(8) {
            let [low, high] = [i, i + 4].map(|i| {
                let code = f32x4_nearest(f32x4_mul(self.centred(x, mean, i), inverse));
                let clamped = f32x4_pmax(f32x4_pmin(code, most), least);
                v128_and(small_integers(clamped), f32x4_eq(code, code))
            });
            v128_store(codes.add(i) as *mut v128, i16x8_narrow_i32x4(low, high));
        }
        largest / 127.0
    }

    /// Four values from `i` on less their means, 0 beyond the features.
    #[inline(always)]
    unsafe fn centred(&self, x: *const f32, mean: *const f32, i: usize) -> v128 {
        if i >= self.size {
            return f32x4_splat(0.0);
        }
        let x = load_some(x.add(i), self.size - i);
        if mean.is_null() { x } else { f32x4_sub(x, load(mean.add(i))) }
    }

    /// scores [seen, 8] = k q^T from packed codes; `query_scales` [8] holds the attention's scale too.
    pub unsafe fn score(
        &self,
        keys: *const f32,
        queries: *const f32,
        query_scales: *const f32,
        scores: *mut f32,
        seen: usize,
    ) {
        let padded = code_size(self.size);
        core::ptr::write_bytes(scores, 0, seen.div_ceil(ROWS) * ROWS * NR);
        let (none, no_starts) = (core::ptr::null(), core::ptr::null());
        for i in (0..seen).step_by(ROWS) {
            let strip = keys.add(i * padded / 2) as *const u8;
            let (c, panel) = (scores.add(i * NR), queries as *const u8);
            integer_wide(
                strip, panel, 1, padded / 2, c, query_scales, no_starts, none, none, none, none,
            );
        }
        for j in 0..seen {
            let scale = v128_load32_splat(self.scales.add(j) as *const u32);
            for half in [0, 4] {
                let at = scores.add(j * NR + half);
                store(at, f32x4_mul(load(at), scale));
            }
        }
    }
}
