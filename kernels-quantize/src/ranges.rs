//! The range of each group.

use crate::numbers::*;

/// Values widened at a time.
pub const CHUNK: usize = 2048;

/// A group's least and largest value so far.
struct Range {
    least: f32,
    largest: f32,
}

pub unsafe fn run(
    input: *const u8,
    dtype: u32,
    count: usize,
    head: usize,
    group: usize,
    least: *mut f32,
    largest: *mut f32,
) -> bool {
    let mut values = [0f32; CHUNK + 4];
    let mut range = Range { least: f32::INFINITY, largest: f32::NEG_INFINITY };
    let (mut index, mut left) = (0, head);
    let mut finite = true;
    for start in (0..count).step_by(CHUNK) {
        let length = CHUNK.min(count - start);
        widen(dtype, input, start, length, values.as_mut_ptr());
        finite &= all_finite(values.as_ptr(), length);
        let mut at = 0;
        while at < length {
            let part = left.min(length - at);
            extend(&mut range, values.as_ptr().add(at), part);
            at += part;
            left -= part;
            *least.add(index) = range.least;
            *largest.add(index) = range.largest;
            if left == 0 {
                index += 1;
                left = group;
                range = Range { least: f32::INFINITY, largest: f32::NEG_INFINITY };
            }
        }
    }
    finite
}

pub unsafe fn all_finite(values: *const f32, count: usize) -> bool {
    let mut largest = i32x4_splat(0);
    for i in (0..count).step_by(4) {
        let size = v128_and(load(values.add(i)), i32x4_splat(0x7fff_ffff));
        largest = i32x4_max(largest, size); // what lies behind the values is finite or old
    }
    !v128_any_true(i32x4_ge(largest, i32x4_splat(INFINITY_BITS)))
}

unsafe fn extend(range: &mut Range, values: *const f32, count: usize) {
    let (least, largest) = range_of(values, count);
    if least < range.least {
        range.least = least;
    }
    if largest > range.largest {
        range.largest = largest;
    }
}

/// The least and the largest of some values; of equal zeros the first.
#[inline(always)]
pub unsafe fn range_of(values: *const f32, count: usize) -> (f32, f32) {
    let (mut least, mut largest) = (*values, *values);
    let whole = count & !3;
    if whole > 0 {
        let (mut low, mut high) = (load(values), load(values));
        for i in (4..whole).step_by(4) {
            let value = load(values.add(i));
            low = f32x4_pmin(low, value);
            high = f32x4_pmax(high, value);
        }
        low = f32x4_pmin(low, i32x4_shuffle::<2, 3, 0, 1>(low, low));
        high = f32x4_pmax(high, i32x4_shuffle::<2, 3, 0, 1>(high, high));
        least = f32x4_extract_lane::<0>(f32x4_pmin(low, i32x4_shuffle::<1, 0, 3, 2>(low, low)));
        largest = f32x4_extract_lane::<0>(f32x4_pmax(high, i32x4_shuffle::<1, 0, 3, 2>(high, high)));
    }
    for i in whole..count {
        let value = *values.add(i);
        if value < least {
            least = value;
        }
        if value > largest {
            largest = value;
        }
    }
    if least == 0.0 || largest == 0.0 {
        let zero = first_zero(values, count);
        if least == 0.0 {
            least = zero;
        }
        if largest == 0.0 {
            largest = zero;
        }
    }
    (least, largest)
}

/// The sign of a zero that is a range's end is that of the first zero.
unsafe fn first_zero(values: *const f32, count: usize) -> f32 {
    for i in 0..count {
        if *values.add(i) == 0.0 {
            return *values.add(i);
        }
    }
    0.0
}
