//! What is done to the bytes of a stored tensor on their way.

use crate::numbers::*;

/// Swaps the nibbles of bytes, in place.
pub unsafe fn swap_nibbles(bytes: *mut u8, count: usize) {
    let (whole, low) = (count & !15, u8x16_splat(15));
    for i in (0..whole).step_by(16) {
        let at = bytes.add(i) as *mut v128;
        let both = v128_load(at);
        let first = u16x8_shl(v128_and(both, low), 4);
        v128_store(at, v128_or(first, v128_and(u16x8_shr(both, 4), low)));
    }
    for i in whole..count {
        let at = bytes.add(i);
        *at = (*at).rotate_left(4);
    }
}

/// Turns the bits of `mask` over in all bytes, in place.
pub unsafe fn flip_bits(bytes: *mut u8, count: usize, mask: u8) {
    let whole = count & !15;
    for i in (0..whole).step_by(16) {
        let at = bytes.add(i) as *mut v128;
        v128_store(at, v128_xor(v128_load(at), u8x16_splat(mask)));
    }
    for i in whole..count {
        *bytes.add(i) ^= mask;
    }
}

/// Whether no number among elements of 1, 2 or 4 bytes is NaN or infinite. The words are `ElementBits` of
/// src/tensor/finite.ts: adding the lowest special bit carries into the sign's place just where all are set.
pub unsafe fn is_finite(bytes: *const u8, count: usize, special: i32, lowest: i32, sign: i32) -> bool {
    let (specials, ones) = (i32x4_splat(special), i32x4_splat(lowest));
    let carries = |v: v128| i32x4_add(v128_and(v, specials), ones);
    let at = |i: usize| carries(v128_load(bytes.add(i) as *const v128));
    let mut found = i32x4_splat(0);
    let (most, whole) = (count & !63, count & !15);
    for i in (0..most).step_by(64) {
        let four = v128_or(v128_or(at(i), at(i + 16)), v128_or(at(i + 32), at(i + 48)));
        found = v128_or(found, four);
    }
    for i in (most..whole).step_by(16) {
        found = v128_or(found, at(i));
    }
    let mut rest = [0u8; 16];
    core::ptr::copy_nonoverlapping(bytes.add(whole), rest.as_mut_ptr(), count - whole);
    found = v128_or(found, carries(v128_load(rest.as_ptr() as *const v128)));
    !v128_any_true(v128_and(found, i32x4_splat(sign)))
}
