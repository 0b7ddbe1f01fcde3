//! GGUF's K types: blocks of 256 values in groups whose scales are codes themselves.
//! Q2_K (5), Q3_K (6), Q4_K (7), Q5_K (8), Q6_K (9). After ggml-quants.c.

use crate::blocks::each_chunk;
use crate::blocks_iq4::largest_of;
use crate::lanes::*;
use crate::numbers::*;
use crate::searches::*;

/// A block on its way.
struct Block {
    x: *const f32,
    codes: [u8; 256],
    scales: [f32; 16],
    minima: [f32; 16],
}

pub unsafe fn run(kind: u32, input: *const u8, dtype: u32, count: usize, out: *mut u8) -> bool {
    let null = core::ptr::null();
    let mut block = Block { x: null, codes: [0; 256], scales: [0.0; 16], minima: [0.0; 16] };
    let bytes = [84, 110, 144, 176, 210][kind as usize - 5];
    each_chunk(dtype, input, count, out, (256, bytes), |x, blocks, to| {
        for index in 0..blocks {
            block.x = x.add(256 * index);
            write(kind, &mut block, to.add(bytes * index));
        }
    })
}

unsafe fn write(kind: u32, block: &mut Block, to: *mut u8) {
    match kind {
        5 => two_bits(block, to),
        6 => three_bits(block, to),
        7 => with_minima(block, &Steps { most: 15.0, first: -1.0, count: 20 }, to),
        8 => with_minima(block, &Steps { most: 31.0, first: -0.5, count: 15 }, to),
        _ => six_bits(block, to),
    }
}

/// A type's float16 scale and minimum of a block, and the codes of its groups' own.
struct BlockScales {
    scale: f32,
    minimum: f32,
    scale_codes: [i32; 16],
    minimum_codes: [i32; 16],
}

impl Block {
    /// The largest scale and minimum; both at least 0.
    fn largest(&self, groups: usize) -> (f32, f32) {
        let above = |values: &[f32]| values.iter().fold(0.0, |a, &b| if b > a { b } else { a });
        (above(&self.scales[..groups]), above(&self.minima[..groups]))
    }

    /// Codes a block again, with the scales and minima that are stored.
    unsafe fn recode(&mut self, stored: &BlockScales, size: usize, most: i32) {
        for j in 0..256 / size {
            let scale = stored.scale * stored.scale_codes[j] as f32;
            let minimum = f32x4_splat(stored.minimum * stored.minimum_codes[j] as f32);
            if scale == 0.0 {
                continue;
            }
            self.each_code(size * j, size, |value| {
                let code = nearest_integers(f32x4_div(f32x4_add(value, minimum), f32x4_splat(scale)));
                i32x4_min(i32x4_splat(most), i32x4_max(i32x4_splat(0), code))
            });
        }
    }

    /// Codes a block again around a zero point, in groups of 16.
    unsafe fn recode_symmetric(&mut self, scale: f32, scale_codes: &[i32; 16], zero_point: i32) {
        for j in 0..16 {
            let group_scale = scale * scale_codes[j] as f32;
            if group_scale == 0.0 {
                continue;
            }
            self.each_code(16 * j, 16, |value| {
                let level = nearest_integers(f32x4_div(value, f32x4_splat(group_scale)));
                let code = i32x4_add(level, i32x4_splat(zero_point));
                i32x4_min(i32x4_splat(2 * zero_point - 1), i32x4_max(i32x4_splat(0), code))
            });
        }
    }

    #[inline(always)]
    unsafe fn each_code(&mut self, from: usize, count: usize, code: impl Fn(v128) -> v128) {
        for i in (from..from + count).step_by(16) {
            let part = |at: usize| code(load(self.x.add(i + at)));
            let codes = bytes(part(0), part(4), part(8), part(12));
            v128_store(self.codes.as_mut_ptr().add(i) as *mut v128, codes);
        }
    }

    unsafe fn byte(&self, at: usize) -> v128 {
        v128_load(self.codes.as_ptr().add(at) as *const v128)
    }

    /// Runs of `2 * half` codes: low nibbles of the first half, then of the second, in one byte.
    unsafe fn write_nibbles(&self, half: usize, mut to: *mut u8) {
        for run in (0..256).step_by(2 * half) {
            for i in (run..run + half).step_by(16) {
                let low = v128_and(self.byte(i), u8x16_splat(15));
                v128_store(to as *mut v128, v128_or(low, u8x16_shl(self.byte(i + half), 4)));
                to = to.add(16);
            }
        }
    }

    /// Two bits from `shift` of each code: of l, l + 32, l + 64 and l + 96 in byte l of a run of 128.
    unsafe fn write_pairs(&self, shift: u32, mut to: *mut u8) {
        let two = |at: usize| v128_and(u8x16_shr(self.byte(at), shift), u8x16_splat(3));
        for run in [0, 128] {
            for i in [run, run + 16] {
                let low = v128_or(two(i), u8x16_shl(two(i + 32), 2));
                let high = v128_or(u8x16_shl(two(i + 64), 4), u8x16_shl(two(i + 96), 6));
                v128_store(to as *mut v128, v128_or(low, high));
                to = to.add(16);
            }
        }
    }

    /// One bit of each code: bit i / 32 of byte i % 32.
    unsafe fn write_bits(&self, shift: u32, to: *mut u8) {
        for byte in [0, 16] {
            let mut bits = u8x16_splat(0);
            for bit in 0..8 {
                let one = v128_and(u8x16_shr(self.byte(32 * bit + byte), shift), u8x16_splat(1));
                bits = v128_or(bits, u8x16_shl(one, bit as u32));
            }
            v128_store(to.add(byte) as *mut v128, bits);
        }
    }
}

/// Q4_K, Q5_K: eight groups of 32 with scales and minima of 6 bits.
#[inline(never)]
unsafe fn with_minima(block: &mut Block, steps: &Steps, to: *mut u8) {
    for half in 0..2 {
        let x = transposed::<32>(block.x.add(128 * half));
        let weights = root_weights(&x);
        let mut codes = x;
        let found = scale_and_minimum::<32, false>(&x, &weights, steps, &mut codes);
        store_codes(&codes, block.codes.as_mut_ptr().add(128 * half));
        store(block.scales.as_mut_ptr().add(4 * half), found.scale);
        store(block.minima.as_mut_ptr().add(4 * half), found.minimum);
    }
    let (max_scale, max_minimum) = block.largest(8);
    let mut stored = BlockScales {
        scale: write_float16(to, max_scale / 63.0),
        minimum: write_float16(to.add(2), max_minimum / 63.0),
        scale_codes: [0; 16],
        minimum_codes: [0; 16],
    };
    let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let code = |inverse: f32, value: f32| (nearest_integer(inverse * value) & 255).min(63);
    for j in 0..8 {
        stored.scale_codes[j] = code(inverse(max_scale), block.scales[j]);
        stored.minimum_codes[j] = code(inverse(max_minimum), block.minima[j]);
    }
    block.recode(&stored, 32, steps.most as i32);
    write_eight_scales(&stored, to.add(4));
    if steps.most > 15.0 {
        block.write_bits(4, to.add(16));
        block.write_nibbles(32, to.add(48));
    } else {
        block.write_nibbles(32, to.add(16));
    }
}

/// Each value's weight: the root of the group's mean square, and its magnitude.
#[inline(always)]
fn root_weights(x: &Lanes<32>) -> Lanes<32> {
    let mut sum = f32x4_splat(0.0);
    for i in 0..32 {
        sum = f32x4_add(sum, f32x4_mul(x[i], x[i]));
    }
    let mean = f32x4_sqrt(f32x4_div(sum, f32x4_splat(32.0)));
    let mut weights = *x;
    for i in 0..32 {
        weights[i] = f32x4_add(mean, f32x4_abs(x[i]));
    }
    weights
}

/// Eight scales and eight minima of six bits; the last four keep their upper bits above the first four.
unsafe fn write_eight_scales(stored: &BlockScales, to: *mut u8) {
    let (scales, minima) = (&stored.scale_codes, &stored.minimum_codes);
    for i in 0..4 {
        *to.add(i) = (scales[i] | (scales[i + 4] >> 4) << 6) as u8;
        *to.add(4 + i) = (minima[i] | (minima[i + 4] >> 4) << 6) as u8;
        *to.add(8 + i) = (scales[i + 4] & 15 | (minima[i + 4] & 15) << 4) as u8;
    }
}

/// Q2_K: sixteen groups with scales and minima of 4 bits.
#[inline(never)]
unsafe fn two_bits(block: &mut Block, to: *mut u8) {
    let steps = Steps { most: 3.0, first: -0.5, count: 15 };
    for set in 0..4 {
        let x = transposed::<16>(block.x.add(64 * set));
        let mut weights = x;
        for weight in &mut weights {
            *weight = f32x4_abs(*weight);
        }
        let mut codes = x;
        let found = scale_and_minimum::<16, true>(&x, &weights, &steps, &mut codes);
        store_codes(&codes, block.codes.as_mut_ptr().add(64 * set));
        store(block.scales.as_mut_ptr().add(4 * set), found.scale);
        store(block.minima.as_mut_ptr().add(4 * set), found.minimum);
    }
    let (max_scale, max_minimum) = block.largest(16);
    let inverse = |max: f32| if max > 0.0 { 15.0 / max } else { 0.0 };
    let mut stored = BlockScales {
        scale: write_float16(to.add(80), max_scale / 15.0),
        minimum: write_float16(to.add(82), max_minimum / 15.0),
        scale_codes: [0; 16],
        minimum_codes: [0; 16],
    };
    for j in 0..16 {
        let scale = nearest_integer(inverse(max_scale) * block.scales[j]);
        let minimum = nearest_integer(inverse(max_minimum) * block.minima[j]);
        // As in C, where both share a byte and a scale below 0 spills over.
        let byte = (scale | minimum << 4) as u8;
        *to.add(j) = byte;
        stored.scale_codes[j] = (byte & 15) as i32;
        stored.minimum_codes[j] = (byte >> 4) as i32;
    }
    block.recode(&stored, 16, 3);
    block.write_pairs(0, to.add(16));
}

/// Q3_K: sixteen groups with scales of 6 bits.
#[inline(never)]
unsafe fn three_bits(block: &mut Block, to: *mut u8) {
    let x = [
        transposed::<16>(block.x),
        transposed::<16>(block.x.add(64)),
        transposed::<16>(block.x.add(128)),
        transposed::<16>(block.x.add(192)),
    ];
    let mut codes = x;
    let found = three_bit_scales(&x, &mut codes);
    for set in 0..SETS {
        store_codes(&codes[set], block.codes.as_mut_ptr().add(64 * set));
        store(block.scales.as_mut_ptr().add(4 * set), found[set]);
    }
    let max_scale = largest_of(&block.scales);
    let mut scale_codes = [-32; 16];
    let mut scale = 0.0;
    if max_scale != 0.0 {
        let inverse = -32.0 / max_scale;
        for j in 0..16 {
            let code = nearest_integer(inverse * block.scales[j]) as i8;
            scale_codes[j] = code.clamp(-32, 31) as i32;
        }
        scale = 1.0 / inverse;
    }
    let stored = write_float16(to.add(108), scale);
    block.recode_symmetric(stored, &scale_codes, 4);
    write_sixteen_scales(&scale_codes, to.add(96));
    block.write_bits(2, to);
    block.write_pairs(0, to.add(32));
}

/// Sixteen scales of six bits (plus 32) in 12 bytes.
unsafe fn write_sixteen_scales(scale_codes: &[i32; 16], to: *mut u8) {
    let code = |i: usize| scale_codes[i] + 32;
    for i in 0..8 {
        *to.add(i) = (code(i) & 15 | (code(i + 8) & 15) << 4) as u8;
    }
    for i in 0..4 {
        let upper = |j: usize| code(i + 4 * j) >> 4 << (2 * j);
        *to.add(8 + i) = (upper(0) | upper(1) | upper(2) | upper(3)) as u8;
    }
}

/// Q6_K: sixteen groups with scales of 8 bits.
#[inline(never)]
unsafe fn six_bits(block: &mut Block, to: *mut u8) {
    for set in 0..4 {
        let x = transposed::<16>(block.x.add(64 * set));
        let mut codes = x;
        let found = symmetric_scale(&x, &mut codes);
        store_codes(&codes, block.codes.as_mut_ptr().add(64 * set));
        store(block.scales.as_mut_ptr().add(4 * set), found);
    }
    let max_scale = largest_of(&block.scales);
    if size_of(max_scale) < 1e-15 {
        return core::ptr::write_bytes(to, 0, 210);
    }
    let inverse = -128.0 / max_scale;
    let mut scale_codes = [0; 16];
    for j in 0..16 {
        scale_codes[j] = nearest_integer(inverse * block.scales[j]).min(127);
        *to.add(192 + j) = scale_codes[j] as u8;
    }
    let stored = write_float16(to.add(208), 1.0 / inverse);
    block.recode_symmetric(stored, &scale_codes, 32);
    block.write_nibbles(64, to);
    block.write_pairs(4, to.add(128));
}
