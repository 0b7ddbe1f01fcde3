//! GGUF's blocks of sixteen uneven levels: IQ4_NL (10) and IQ4_XS (11).

use crate::blocks::LARGEST_VALUE;
use crate::lanes::*;
use crate::numbers::*;
use crate::searches::*;

/// Values taken at a time: one block of IQ4_XS, eight of IQ4_NL.
const RUN: usize = 256;

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    let mut x = [0f32; RUN + 8];
    let mut good = true;
    for start in (0..count).step_by(RUN) {
        let length = RUN.min(count - start);
        good &= widen(dtype, input, start, length, x.as_mut_ptr()) <= LARGEST_VALUE.to_bits();
        x[length..].fill(0.0);
        let mut scales = [0f32; 8];
        for half in 0..2 {
            let found = iq4_scale(&transposed::<32>(x.as_ptr().add(128 * half)));
            store(scales.as_mut_ptr().add(4 * half), found);
        }
        if kind == 10 {
            for j in 0..length / 32 {
                small_block(&x[32 * j..], scales[j], out.add((start / 32 + j) * 18));
            }
        } else {
            large_block(&x, &scales, out.add(start / 256 * 136));
        }
    }
    good
}

/// IQ4_NL: a scale and 32 codes.
unsafe fn small_block(x: &[f32], scale: f32, to: *mut u8) {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    write_float16(to, scale);
    write_levels(x, inverse, to.add(2));
}

/// IQ4_XS: eight groups with scales of six bits.
unsafe fn large_block(x: &[f32], scales: &[f32; 8], to: *mut u8) {
    let scale = -largest_of(scales) / 32.0;
    write_float16(to, scale);
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (mut high, mut low) = (0u16, 0u32);
    for j in 0..8 {
        let level = nearest_integer(inverse * scales[j]).clamp(-32, 31);
        let group_scale = scale * level as f32;
        let group_inverse = if group_scale == 0.0 { 0.0 } else { 1.0 / group_scale };
        write_levels(&x[32 * j..], group_inverse, to.add(8 + 16 * j));
        let code = (level + 32) as u32;
        low |= (code & 15) << (4 * j);
        high |= ((code >> 4) as u16) << (2 * j);
    }
    (to.add(2) as *mut u16).write_unaligned(high);
    (to.add(4) as *mut u32).write_unaligned(low);
}

/// 32 codes: the first half in low nibbles.
unsafe fn write_levels(x: &[f32], inverse: f32, to: *mut u8) {
    let code = |i: usize| iq4_code(f32x4_mul(load(x.as_ptr().add(i)), f32x4_splat(inverse)));
    let sixteen = |i: usize| bytes(code(i), code(i + 4), code(i + 8), code(i + 12));
    v128_store(to as *mut v128, v128_or(sixteen(0), u8x16_shl(sixteen(16), 4)));
}

/// The scale of largest magnitude with its sign, the first of equals.
pub fn largest_of(scales: &[f32]) -> f32 {
    let (mut found, mut magnitude) = (0.0, 0.0);
    for &scale in scales {
        if size_of(scale) > magnitude {
            magnitude = size_of(scale);
            found = scale;
        }
    }
    found
}
