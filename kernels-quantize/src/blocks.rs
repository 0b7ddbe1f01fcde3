//! What all blocks of GGUF share: walking over a run of them, and numbers of four blocks at once.

use crate::numbers::*;
use crate::ranges::{first_zero, CHUNK};

/// No type reaches further with float16 scales; and the squares of larger values could overflow.
pub const LARGEST_VALUE: f32 = 1073741824.0;

/// Blocks of 32 in a chunk.
pub const BLOCKS: usize = CHUNK / 32;

/// Calls `write` with the values of each chunk of whole blocks, how many there are, and where they go; a
/// block of `size` values becomes `bytes`. Whether all values are finite and not too large.
#[inline(always)]
pub unsafe fn each_chunk(
    dtype: u32,
    input: *const u8,
    count: usize,
    out: *mut u8,
    (size, bytes): (usize, usize),
    mut write: impl FnMut(*const f32, usize, *mut u8),
) -> bool {
    let mut values = [0f32; CHUNK + 8];
    let mut largest = 0;
    for start in (0..count).step_by(CHUNK) {
        let length = CHUNK.min(count - start);
        largest = largest.max(widen(dtype, input, start, length, values.as_mut_ptr()));
        write(values.as_ptr(), length / size, out.add(start / size * bytes));
    }
    largest <= LARGEST_VALUE.to_bits()
}

/// What becomes of each of four vectors' lanes: `pick` of a vector's lanes goes to the lane of its number.
#[inline(always)]
fn across([a, b, c, d]: [v128; 4], pick: impl Fn(v128, v128) -> v128) -> v128 {
    let ab = pick(i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    let cd = pick(i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    pick(i32x4_shuffle::<0, 1, 4, 5>(ab, cd), i32x4_shuffle::<2, 3, 6, 7>(ab, cd))
}

/// Eight vectors, two by two.
#[inline(always)]
unsafe fn of_block(x: *const f32, pick: impl Fn(v128, v128) -> v128) -> v128 {
    let pair = |i: usize| pick(load(x.add(i)), load(x.add(i + 4)));
    pick(pick(pair(0), pair(8)), pick(pair(16), pair(24)))
}

/// The largest magnitudes of four blocks of 32.
#[inline(always)]
pub unsafe fn magnitudes_of_four(x: *const f32) -> v128 {
    let block = |i: usize| of_block(x.add(32 * i), |a, b| f32x4_pmax(f32x4_abs(a), f32x4_abs(b)));
    across([block(0), block(1), block(2), block(3)], |a, b| f32x4_pmax(a, b))
}

/// The least and largest values of four blocks of 32; of equal zeros the first.
#[inline(always)]
pub unsafe fn ranges_of_four(x: *const f32) -> (v128, v128) {
    let low = |i: usize| of_block(x.add(32 * i), |a, b| f32x4_pmin(a, b));
    let high = |i: usize| of_block(x.add(32 * i), |a, b| f32x4_pmax(a, b));
    let least = across([low(0), low(1), low(2), low(3)], |a, b| f32x4_pmin(a, b));
    let largest = across([high(0), high(1), high(2), high(3)], |a, b| f32x4_pmax(a, b));
    let zero = f32x4_splat(0.0);
    if v128_any_true(v128_or(f32x4_eq(least, zero), f32x4_eq(largest, zero))) {
        return (with_first_zeros(x, least), with_first_zeros(x, largest));
    }
    (least, largest)
}

#[cold]
#[inline(never)]
unsafe fn with_first_zeros(x: *const f32, ends: v128) -> v128 {
    let mut lanes = [0f32; 4];
    store(lanes.as_mut_ptr(), ends);
    for i in 0..4 {
        if lanes[i] == 0.0 {
            lanes[i] = first_zero(x.add(32 * i), 32);
        }
    }
    load(lanes.as_ptr())
}

/// The values of largest magnitude of four blocks of 32 with their signs, the first of equals; 0 for zeros.
#[inline(always)]
pub unsafe fn largest_of_four(x: *const f32) -> v128 {
    let (least, largest) = ranges_of_four(x);
    let size = f32x4_neg(least);
    let sign = v128_and(f32x4_gt(size, largest), i32x4_splat(i32::MIN));
    let found = v128_or(f32x4_pmax(size, largest), sign);
    let equal = f32x4_eq(size, largest);
    if v128_any_true(equal) {
        return with_first_signs(x, found);
    }
    found
}

#[cold]
#[inline(never)]
unsafe fn with_first_signs(x: *const f32, found: v128) -> v128 {
    let mut lanes = [0f32; 4];
    store(lanes.as_mut_ptr(), found);
    for i in 0..4 {
        let block = core::slice::from_raw_parts(x.add(32 * i), 32);
        let size = size_of(lanes[i]);
        lanes[i] = *block.iter().find(|value| size_of(**value) == size).unwrap_unchecked();
        if size == 0.0 {
            lanes[i] = 0.0;
        }
    }
    load(lanes.as_ptr())
}

/// 1 / scale, and 0 for a scale of 0.
#[inline(always)]
pub fn inverses_of(scales: v128) -> v128 {
    let none = f32x4_eq(scales, f32x4_splat(0.0));
    v128_andnot(f32x4_div(f32x4_splat(1.0), scales), none)
}

/// Whether the float16 scales and minima of blocks are finite: values may be too large for them.
pub unsafe fn have_finite_scales(kind: u32, count: usize, blocks: *const u8) -> bool {
    let (size, bytes, first, second) = match kind {
        0 => (32, 18, 0, 0),
        1 => (32, 20, 0, 2),
        2 => (32, 22, 0, 0),
        3 => (32, 24, 0, 2),
        4 => (32, 34, 0, 0),
        5 => (256, 84, 80, 82),
        6 => (256, 110, 108, 108),
        7 => (256, 144, 0, 2),
        8 => (256, 176, 0, 2),
        9 => (256, 210, 208, 208),
        10 => (32, 18, 0, 0),
        11 => (256, 136, 0, 0),
        _ => return true, // these have none
    };
    let is_finite = |at: *const u8| *at.add(1) & 0x7c != 0x7c;
    (0..count / size).fold(true, |finite, index| {
        let block = blocks.add(index * bytes);
        finite & is_finite(block.add(first)) & is_finite(block.add(second))
    })
}
