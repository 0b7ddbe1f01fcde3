//! bfloat16 straight to 8-bit floats, eight numbers at once: what `encode.rs` gives for a factor of 1.

use crate::numbers::*;

/// A float type of `MANTISSA` bits; its numbers in all lanes.
pub struct Cast<const MANTISSA: u32> {
    /// Bits of the largest magnitude that has a code, and of the least normal number.
    most: v128,
    least: v128,
    /// What makes the exponent of the least normal number that of code 1.
    bias: v128,
    /// The power of two whose steps in float32 are those below the least normal number.
    rounder: v128,
}

impl<const MANTISSA: u32> Cast<MANTISSA> {
    pub fn new(most: f32, least_exponent: i32) -> Self {
        let exponent = 127 + least_exponent;
        Cast {
            most: i16x8_splat((most.to_bits() >> 16) as i16),
            least: i16x8_splat((exponent << 7) as i16),
            bias: i16x8_splat(((exponent - 1) << MANTISSA) as i16),
            rounder: i32x4_splat((exponent + 23 - MANTISSA as i32) << 23),
        }
    }

    /// Casts numbers; whether all are finite.
    #[inline(never)]
    pub unsafe fn run(&self, input: *const u8, count: usize, out: *mut u8) -> bool {
        let mut largest = i16x8_splat(0);
        let mut sixteen = |from: *const u8, to: *mut u8| {
            let (low, high) = (v128_load(from as *const v128), v128_load(from.add(16) as *const v128));
            largest = i16x8_max(largest, i16x8_max(size_of_eight(low), size_of_eight(high)));
            v128_store(to as *mut v128, unsigned_bytes(self.eight(low), self.eight(high)));
        };
        for i in (0..count & !15).step_by(16) {
            sixteen(input.add(2 * i), out.add(i));
        }
        if count % 16 > 0 {
            let mut rest = [0u16; 16];
            let from = input.add(2 * (count & !15));
            core::ptr::copy_nonoverlapping(from, rest.as_mut_ptr() as *mut u8, 2 * (count % 16));
            sixteen(rest.as_ptr() as *const u8, out.add(count & !15));
        }
        !v128_any_true(i16x8_gt(largest, i16x8_splat(0x7f7f)))
    }

    /// Codes of eight numbers, in 16-bit lanes.
    #[inline(always)]
    fn eight(&self, halves: v128) -> v128 {
        let size = i16x8_min(size_of_eight(halves), self.most);
        let dropped = 7 - MANTISSA;
        let odd = v128_and(u16x8_shr(size, dropped), i16x8_splat(1));
        let up = i16x8_add(i16x8_add(size, i16x8_splat((1 << (dropped - 1)) - 1)), odd);
        let normal = i16x8_sub(u16x8_shr(up, dropped), self.bias);
        // Below the least normal number this is the larger code, above it the smaller.
        let (low, high) = widen_bfloat16(i16x8_min(size, self.least));
        let steps = |value| i32x4_sub(f32x4_add(value, self.rounder), self.rounder);
        let magnitude = i16x8_max(normal, narrow(steps(low), steps(high)));
        v128_or(magnitude, v128_and(u16x8_shr(halves, 8), i16x8_splat(128)))
    }
}

#[inline(always)]
fn size_of_eight(halves: v128) -> v128 {
    v128_and(halves, i16x8_splat(0x7fff))
}
