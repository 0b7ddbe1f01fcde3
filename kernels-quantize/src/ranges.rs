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
    let mut values = [0f32; CHUNK + 8];
    let mut range = Range { least: f32::INFINITY, largest: f32::NEG_INFINITY };
    let (mut index, mut left) = (0, head);
    let mut finite = true;
    for start in (0..count).step_by(CHUNK) {
        let length = CHUNK.min(count - start);
        finite &= widen(dtype, input, start, length, values.as_mut_ptr()) < INFINITY_BITS;
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
unsafe fn range_of(values: *const f32, count: usize) -> (f32, f32) {
    let (mut least, mut largest) = (*values, *values);
    let whole = count & !3;
    if whole > 0 {
        let (mut low, mut high) = (load(values), load(values));
        for i in (4..whole).step_by(4) {
            let value = load(values.add(i));
            low = f32x4_pmin(low, value);
            high = f32x4_pmax(high, value);
        }
        (least, largest) = ends(low, high);
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
    with_first_zero(values, count, least, largest)
}

/// The least lane of one vector and the largest of another.
#[inline(always)]
fn ends(low: v128, high: v128) -> (f32, f32) {
    let negated = f32x4_neg(high);
    let pairs = f32x4_pmin(
        i32x4_shuffle::<0, 1, 4, 5>(low, negated),
        i32x4_shuffle::<2, 3, 6, 7>(low, negated),
    );
    let least = f32x4_pmin(pairs, i32x4_shuffle::<1, 0, 3, 2>(pairs, pairs));
    (f32x4_extract_lane::<0>(least), -f32x4_extract_lane::<2>(least))
}

#[inline(always)]
unsafe fn with_first_zero(values: *const f32, count: usize, least: f32, largest: f32) -> (f32, f32) {
    if least != 0.0 && largest != 0.0 {
        return (least, largest);
    }
    let zero = first_zero(values, count);
    (if least == 0.0 { zero } else { least }, if largest == 0.0 { zero } else { largest })
}

/// The sign of a zero that is a range's end is that of the first zero.
#[cold]
#[inline(never)]
pub unsafe fn first_zero(values: *const f32, count: usize) -> f32 {
    for i in 0..count {
        if *values.add(i) == 0.0 {
            return *values.add(i);
        }
    }
    0.0
}
