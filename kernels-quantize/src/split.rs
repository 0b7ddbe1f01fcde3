//! GGUF's blocks taken apart: the codes of all as one bit stream, and their scales and minima (codes and what
//! multiplies them) as streams of their own. `src/quantization/gguf_planes.ts` says where a block has its bits.

use crate::numbers::*;
use crate::pack::join;

/// Where the next bytes of each stream go. Up to 7 bytes behind a stream change.
pub struct Streams {
    pub codes: *mut u8,
    pub scale: *mut u8,
    pub scale_supers: *mut u8,
    pub offset: *mut u8,
    pub offset_supers: *mut u8,
}

/// The sign of a float16: minima are subtracted, and offsets added.
const SIGN: u16 = 0x8000;

/// Takes `count` blocks apart; kinds are those of `blocks`.
pub unsafe fn run(kind: u32, input: *const u8, count: usize, to: &mut Streams) {
    match kind {
        0 | 10 => each(input, count, 18, |block| {
            number(block, 0, &mut to.scale);
            put_nibbles(block.add(2), &mut to.codes);
        }),
        1 => each(input, count, 20, |block| {
            number(block, 0, &mut to.scale);
            number(block.add(2), 0, &mut to.offset);
            put_nibbles(block.add(4), &mut to.codes);
        }),
        2 => each(input, count, 22, |block| {
            number(block, 0, &mut to.scale);
            five_bits(block.add(2), &mut to.codes);
        }),
        3 => each(input, count, 24, |block| {
            number(block, 0, &mut to.scale);
            number(block.add(2), 0, &mut to.offset);
            five_bits(block.add(4), &mut to.codes);
        }),
        4 => each(input, count, 34, |block| {
            number(block, 0, &mut to.scale);
            signed_bytes(block.add(2), &mut to.codes);
            signed_bytes(block.add(18), &mut to.codes);
        }),
        5 => each(input, count, 84, |block| q2_k(block, to)),
        6 => each(input, count, 110, |block| q3_k(block, to)),
        7 => each(input, count, 144, |block| {
            scales_and_minima(block, to);
            for run in 0..4 {
                let (a, b) = (load16(block.add(16 + 32 * run)), load16(block.add(32 + 32 * run)));
                store16(pairs(low(a), low(b)), &mut to.codes);
                store16(pairs(high(a), high(b)), &mut to.codes);
            }
        }),
        8 => each(input, count, 176, |block| q5_k(block, to)),
        9 => each(input, count, 210, |block| q6_k(block, to)),
        11 => each(input, count, 136, |block| {
            number(block, 0, &mut to.scale_supers);
            six_bit_scales(|i| split_scale(block, i), &mut to.scale);
            for run in 0..8 {
                put_nibbles(block.add(8 + 16 * run), &mut to.codes);
            }
        }),
        12 => each(input, count, 17, |block| {
            *advance(&mut to.scale, 1) = *block;
            put_nibbles(block.add(1), &mut to.codes);
        }),
        _ => each(input, count, 36, |block| {
            let scales = (block as *const u32).read_unaligned();
            (advance(&mut to.scale, 4) as *mut u32).write_unaligned(scales);
            put_short_runs(block.add(4), &mut to.codes);
            put_short_runs(block.add(20), &mut to.codes);
        }),
    }
}

/// A function for each type: engines compile one when it is used.
#[inline(never)]
unsafe fn each(input: *const u8, count: usize, bytes: usize, mut split: impl FnMut(*const u8)) {
    for index in 0..count {
        split(input.add(index * bytes));
    }
}

#[inline(always)]
unsafe fn q2_k(block: *const u8, to: &mut Streams) {
    let scales = load16(block);
    put(low(scales), 4, &mut to.scale);
    put(high(scales), 4, &mut to.offset);
    number(block.add(80), 0, &mut to.scale_supers);
    number(block.add(82), SIGN, &mut to.offset_supers);
    for i in (0..256).step_by(16) {
        put(two_bits(block.add(16), i), 2, &mut to.codes);
    }
}

#[inline(always)]
unsafe fn q3_k(block: *const u8, to: &mut Streams) {
    number(block.add(108), 0, &mut to.scale_supers);
    let mut scales = [0u8; 16];
    for i in 0..16 {
        let four = *block.add(96 + (i & 7)) >> (i / 8 * 4) & 15;
        scales[i] = four | (*block.add(104 + (i & 3)) >> (2 * (i / 4)) & 3) << 4;
    }
    put(load16(scales.as_ptr()), 6, &mut to.scale);
    for i in (0..256).step_by(16) {
        let third = i16x8_shl(one_bit(block, i), 2);
        put(v128_or(two_bits(block.add(32), i), third), 3, &mut to.codes);
    }
}

#[inline(always)]
unsafe fn q5_k(block: *const u8, to: &mut Streams) {
    scales_and_minima(block, to);
    for i in (0..256).step_by(16) {
        let both = load16(block.add(48 + i / 64 * 32 + i % 32));
        let four = if i % 64 < 32 { low(both) } else { high(both) };
        let fifth = i16x8_shl(one_bit(block.add(16), i), 4);
        put(v128_or(four, fifth), 5, &mut to.codes);
    }
}

#[inline(always)]
unsafe fn q6_k(block: *const u8, to: &mut Streams) {
    number(block.add(208), 0, &mut to.scale_supers);
    signed_bytes(block.add(192), &mut to.scale);
    for i in (0..256).step_by(16) {
        let both = load16(block.add(i / 128 * 64 + i % 64));
        let four = if i % 128 < 64 { low(both) } else { high(both) };
        let upper = i16x8_shl(two_bits(block.add(128), i), 4);
        put(v128_or(four, upper), 6, &mut to.codes);
    }
}

/// Q4_K, Q5_K: eight scales and eight minima of 6 bits; the last four of both have two bits above the first.
#[inline(always)]
unsafe fn scales_and_minima(block: *const u8, to: &mut Streams) {
    number(block, 0, &mut to.scale_supers);
    number(block.add(2), SIGN, &mut to.offset_supers);
    let part = |which: usize, i: usize| {
        let first = *block.add(4 + 4 * which + i % 4);
        let shared = *block.add(12 + i % 4) >> (4 * which) & 15;
        if i < 4 { first & 63 } else { shared | first >> 6 << 4 }
    };
    six_bit_scales(|i| part(0, i), &mut to.scale);
    six_bit_scales(|i| part(1, i), &mut to.offset);
}

/// IQ4_XS: four bits in nibbles, two in a word before them.
#[inline(always)]
unsafe fn split_scale(block: *const u8, i: usize) -> u8 {
    let four = *block.add(4 + i / 2) >> (4 * (i & 1)) & 15;
    four | (*block.add(2 + i / 4) >> (2 * (i & 3)) & 3) << 4
}

/// Eight codes of 6 bits.
#[inline(always)]
unsafe fn six_bit_scales(scale: impl Fn(usize) -> u8, to: &mut *mut u8) {
    let codes = u64::from_le_bytes(core::array::from_fn(scale));
    (advance(to, 6) as *mut u64).write_unaligned(join(codes, 6));
}

/// Codes i to i + 16 of two bits: runs of 128, of which byte l has codes l, l + 32, l + 64 and l + 96.
#[inline(always)]
unsafe fn two_bits(planes: *const u8, i: usize) -> v128 {
    let quads = load16(planes.add(i / 128 * 32 + i % 32));
    v128_and(u16x8_shr(quads, (i % 128 / 32 * 2) as u32), u8x16_splat(3))
}

/// Bits of codes i to i + 16: bit i / 32 of byte i % 32.
#[inline(always)]
unsafe fn one_bit(plane: *const u8, i: usize) -> v128 {
    v128_and(u16x8_shr(load16(plane.add(i % 32)), (i / 32) as u32), u8x16_splat(1))
}

/// Q5_0, Q5_1: fifth bits in a word before the nibbles.
#[inline(always)]
unsafe fn five_bits(from: *const u8, to: &mut *mut u8) {
    let nibbles = load16(from.add(4));
    put(v128_or(low(nibbles), fifth_bits((from as *const u16).read_unaligned())), 5, to);
    let upper = (from.add(2) as *const u16).read_unaligned();
    put(v128_or(high(nibbles), fifth_bits(upper)), 5, to);
}

#[inline(always)]
fn fifth_bits(word: u16) -> v128 {
    let places = i8x16(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    let bytes = i8x16_swizzle(u16x8_splat(word), places);
    let bits = u64x2_splat(0x8040_2010_0804_0201);
    v128_and(i8x16_eq(v128_and(bytes, bits), bits), u8x16_splat(16))
}

/// 32 codes whose low nibbles are the first 16.
#[inline(always)]
unsafe fn put_nibbles(from: *const u8, to: &mut *mut u8) {
    let both = load16(from);
    store16(pairs(low(both), high(both)), to);
}

/// The same with runs of 16 codes in 8 bytes.
#[inline(always)]
unsafe fn put_short_runs(from: *const u8, to: &mut *mut u8) {
    let both = load16(from);
    let joined = pairs(low(both), high(both));
    store16(i32x4_shuffle::<0, 2, 1, 3>(joined, joined), to);
}

/// 32 codes of 4 bits, one per byte, joined.
#[inline(always)]
fn pairs(first: v128, second: v128) -> v128 {
    let join = |codes: v128| v128_and(v128_or(codes, u16x8_shr(codes, 4)), u16x8_splat(255));
    u8x16_narrow_i16x8(join(first), join(second))
}

#[inline(always)]
fn low(bytes: v128) -> v128 {
    v128_and(bytes, u8x16_splat(15))
}

#[inline(always)]
fn high(bytes: v128) -> v128 {
    v128_and(u16x8_shr(bytes, 4), u8x16_splat(15))
}

/// 16 codes of `bits` bits, one per byte, joined.
#[inline(always)]
unsafe fn put(codes: v128, bits: u32, to: &mut *mut u8) {
    let (first, second) = (i64x2_extract_lane::<0>(codes), i64x2_extract_lane::<1>(codes));
    for eight in [first, second] {
        let joined = join(eight as u64, bits);
        (advance(to, bits as usize) as *mut u64).write_unaligned(joined);
    }
}

/// 16 signed codes, to which 128 is added.
#[inline(always)]
unsafe fn signed_bytes(from: *const u8, to: &mut *mut u8) {
    store16(v128_xor(load16(from), u8x16_splat(128)), to);
}

/// A float16, with the bits of `flipped` turned over.
#[inline(always)]
unsafe fn number(from: *const u8, flipped: u16, to: &mut *mut u8) {
    let bits = (from as *const u16).read_unaligned();
    (advance(to, 2) as *mut u16).write_unaligned(bits ^ flipped);
}

#[inline(always)]
unsafe fn load16(from: *const u8) -> v128 {
    v128_load(from as *const v128)
}

#[inline(always)]
unsafe fn store16(bytes: v128, to: &mut *mut u8) {
    v128_store(advance(to, 16) as *mut v128, bytes);
}

#[inline(always)]
unsafe fn advance(at: &mut *mut u8, bytes: usize) -> *mut u8 {
    let here = *at;
    *at = here.add(bytes);
    here
}
