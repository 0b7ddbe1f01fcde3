//! The online softmax of attention, for panels of 8 queries side by side in the lanes.

use crate::gemm::NR;
use crate::simd::*;

/// What is known of a panel's queries after some keys.
pub struct Softmax {
    /// [8], of the weights e^(score - base): the largest score of some block of keys, not exceeded since by more
    /// than `SLACK`, so that sums are seldom rescaled. -infinity before a query has seen a key.
    pub base: *mut f32,
    /// [8]: sums of the weights.
    pub total: *mut f32,
    /// [features, 8]: sums of weighted values.
    pub sums: *mut f32,
    pub features: usize,
}

/// What a score may exceed its base by.
const SLACK: f32 = 6.0;

/// Turns scores [seen, 8] of a block of keys into weights e^(score - base).
pub unsafe fn soften(scores: *mut f32, seen: usize, state: &Softmax) {
    let powers = Powers::new();
    for half in [0, 4] {
        let scores = scores.add(half);
        let (base, total) = (state.base.add(half), state.total.add(half));
        let before = load(base);
        let largest = largest_of(scores, seen);
        if v128_any_true(f32x4_gt(largest, f32x4_add(before, f32x4_splat(SLACK)))) {
            store(base, f32x4_pmax(before, largest));
            // A query that saw no key before has sums of 0, and a factor of 0.
            let factor = powers.exp(f32x4_sub(before, load(base)));
            scale_rows(state.sums.add(half), state.features, factor);
            store(total, f32x4_mul(load(total), factor));
        }
        // A query that sees no key yet keeps weights of 0 instead of e^(inf - inf).
        let none = f32x4_eq(load(base), f32x4_splat(f32::NEG_INFINITY));
        let more = exponentials(&powers, scores, seen, v128_andnot(load(base), none));
        store(total, f32x4_add(load(total), more));
    }
}

/// The largest of four columns of scores [seen, 8].
#[inline(always)]
unsafe fn largest_of(scores: *const f32, seen: usize) -> v128 {
    let mut largest = [f32x4_splat(f32::NEG_INFINITY); 4];
    let whole = seen & !3;
    for j in (0..whole).step_by(4) {
        for (i, most) in largest.iter_mut().enumerate() {
            *most = f32x4_pmax(*most, load(scores.add((j + i) * NR)));
        }
    }
    for j in whole..seen {
        largest[0] = f32x4_pmax(largest[0], load(scores.add(j * NR)));
    }
    f32x4_pmax(f32x4_pmax(largest[0], largest[1]), f32x4_pmax(largest[2], largest[3]))
}

/// Replaces four columns of scores [seen, 8] by e^(score - base) and gives their sums.
#[inline(always)]
unsafe fn exponentials(powers: &Powers, scores: *mut f32, seen: usize, base: v128) -> v128 {
    let mut total = f32x4_splat(0.0);
    for j in 0..seen {
        let weight = powers.exp(f32x4_sub(load(scores.add(j * NR)), base));
        total = f32x4_add(total, weight);
        store(scores.add(j * NR), weight);
    }
    total
}

/// Multiplies four columns of values [rows, 8].
#[inline(always)]
unsafe fn scale_rows(values: *mut f32, rows: usize, factor: v128) {
    for i in 0..rows {
        store(values.add(i * NR), f32x4_mul(load(values.add(i * NR)), factor));
    }
}

/// The constants of e^x, read from memory once: engines would make constants of the code anew for each use.
struct Powers {
    log2_e: v128,
    magic: v128,
    least: v128,
    polynomial: [v128; 6],
}

// log2 e, 1.5 * 2^23, -127, and a minimax polynomial of 2^f that is 1 at 0.
static CONSTANTS: [f32; 9] = [
    core::f32::consts::LOG2_E,
    12_582_912.0,
    -127.0,
    1.326_472e-3,
    9.671_513e-3,
    5.550_734e-2,
    2.402_224_2e-1,
    6.931_47e-1,
    1.0,
];

impl Powers {
    #[inline(always)]
    unsafe fn new() -> Self {
        let read = |i: usize| f32x4_splat(core::ptr::read_volatile(&CONSTANTS[i]));
        let polynomial = core::array::from_fn(|i| read(3 + i));
        Powers { log2_e: read(0), magic: read(1), least: read(2), polynomial }
    }

    /// e^x for x up to 88; tiny below -87.4, 0 below -88.1. As math.rs has it, with a shorter polynomial (2e-7).
    #[inline(always)]
    fn exp(&self, x: v128) -> v128 {
        let t = f32x4_pmax(f32x4_mul(x, self.log2_e), self.least);
        let shifted = f32x4_add(t, self.magic);
        let f = f32x4_sub(t, f32x4_sub(shifted, self.magic));
        let mut p = self.polynomial[0];
        for c in &self.polynomial[1..] {
            p = madd(p, f, *c);
        }
        i32x4_add(p, i32x4_shl(shifted, 23))
    }
}
