//! Four groups side by side, one in each lane: sums over a group then run in the order of the C code.

use crate::numbers::*;

/// Element i of four groups.
pub type Lanes<const N: usize> = [v128; N];

/// The first `N` values of four groups that lie `N` apart.
#[inline(always)]
pub unsafe fn transposed<const N: usize>(x: *const f32) -> Lanes<N> {
    let mut out = [f32x4_splat(0.0); N];
    for i in (0..N).step_by(4) {
        let (a, b) = (load(x.add(i)), load(x.add(N + i)));
        let (c, d) = (load(x.add(2 * N + i)), load(x.add(3 * N + i)));
        let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
        let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
        let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c, d);
        let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c, d);
        out[i] = i64x2_shuffle::<0, 2>(ab_low, cd_low);
        out[i + 1] = i64x2_shuffle::<1, 3>(ab_low, cd_low);
        out[i + 2] = i64x2_shuffle::<0, 2>(ab_high, cd_high);
        out[i + 3] = i64x2_shuffle::<1, 3>(ab_high, cd_high);
    }
    out
}

/// Codes (integers) of four groups to one byte each, group after group.
pub unsafe fn store_codes<const N: usize>(lanes: &Lanes<N>, codes: *mut u8) {
    for i in 0..N {
        *codes.add(i) = i32x4_extract_lane::<0>(lanes[i]) as u8;
        *codes.add(N + i) = i32x4_extract_lane::<1>(lanes[i]) as u8;
        *codes.add(2 * N + i) = i32x4_extract_lane::<2>(lanes[i]) as u8;
        *codes.add(3 * N + i) = i32x4_extract_lane::<3>(lanes[i]) as u8;
    }
}

/// The value of largest magnitude with its sign, the first of equals; 0 for zeros.
#[inline(always)]
pub fn largest<const N: usize>(x: &Lanes<N>) -> v128 {
    let mut magnitude = f32x4_splat(0.0);
    let mut found = f32x4_splat(0.0);
    for i in 0..N {
        let size = f32x4_abs(x[i]);
        let larger = f32x4_gt(size, magnitude);
        magnitude = v128_bitselect(size, magnitude, larger);
        found = v128_bitselect(x[i], found, larger);
    }
    found
}

/// Lanes where a group's largest value counts as zero.
#[inline(always)]
pub fn is_nothing(largest: v128) -> v128 {
    f32x4_lt(f32x4_abs(largest), f32x4_splat(1e-15))
}
