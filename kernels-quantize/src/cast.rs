//! bfloat16 straight to 8-bit floats, 32 numbers at once: what `encode.rs` gives for a factor of 1.

use crate::numbers::*;

/// A float type of `MANTISSA` bits; its numbers in all lanes.
pub struct Cast<const MANTISSA: u32> {
    /// Bits of the largest magnitude that has a code, and of the least normal number.
    most: v128,
    least: v128,
    /// How far the first lies above the second.
    span: v128,
    /// The code of the least normal number with the first bit dropped still to be rounded.
    base: v128,
    /// The power of two whose steps in float32 are those below the least normal number.
    rounder: v128,
}

/// Numbers that are cast together, in vectors of eight.
const VECTORS: usize = 4;
const NUMBERS: usize = 8 * VECTORS;

impl<const MANTISSA: u32> Cast<MANTISSA> {
    const DROPPED: u32 = 7 - MANTISSA;
    /// Whether hardly any weight lies below the least normal number: below 2^-14, not 2^-6.
    const MOSTLY_NORMAL: bool = MANTISSA == 2;

    pub fn new(most: f32, least_exponent: i32) -> Self {
        let exponent = 127 + least_exponent;
        let (most, least) = ((most.to_bits() >> 16) as i16, (exponent << 7) as i16);
        Cast {
            most: i16x8_splat(most),
            least: i16x8_splat(least),
            span: i16x8_splat(most - least),
            base: i16x8_splat((1 << 7) + (1 << (Self::DROPPED - 1)) - 1),
            rounder: i32x4_splat((exponent + 23 - MANTISSA as i32) << 23),
        }
    }

    /// Casts numbers; whether all are finite.
    #[inline(never)]
    pub unsafe fn run(&self, input: *const u8, count: usize, out: *mut u8) -> bool {
        let mut largest = i16x8_splat(0);
        let whole = count - count % NUMBERS;
        for i in (0..whole).step_by(NUMBERS) {
            self.cast(input.add(2 * i), out.add(i), &mut largest);
        }
        if whole < count {
            let (mut rest, mut codes) = ([0u16; NUMBERS], [0u8; NUMBERS]);
            let bytes = rest.as_mut_ptr() as *mut u8;
            core::ptr::copy_nonoverlapping(input.add(2 * whole), bytes, 2 * (count - whole));
            self.cast(bytes, codes.as_mut_ptr(), &mut largest);
            core::ptr::copy_nonoverlapping(codes.as_ptr(), out.add(whole), count - whole);
        }
        !v128_any_true(i16x8_gt(largest, i16x8_splat(0x7f7f)))
    }

    #[inline(always)]
    unsafe fn cast(&self, from: *const u8, to: *mut u8, largest: &mut v128) {
        let halves = |i: usize| v128_load(from.add(16 * i) as *const v128);
        let [a, b, c, d] = [halves(0), halves(1), halves(2), halves(3)];
        if Self::MOSTLY_NORMAL {
            let above = |eight| i16x8_sub(size_of_eight(eight), self.least);
            let [e, f, g, h] = [above(a), above(b), above(c), above(d)];
            let farthest = u16x8_max(u16x8_max(e, f), u16x8_max(g, h));
            if !v128_any_true(u16x8_sub_sat(farthest, self.span)) {
                v128_store(to as *mut v128, signed(self.normal(e), self.normal(f), a, b));
                v128_store(to.add(16) as *mut v128, signed(self.normal(g), self.normal(h), c, d));
                return;
            }
        }
        let larger = |x, y| i16x8_max(size_of_eight(x), size_of_eight(y));
        *largest = i16x8_max(*largest, i16x8_max(larger(a, b), larger(c, d)));
        v128_store(to as *mut v128, signed(self.any(a), self.any(b), a, b));
        v128_store(to.add(16) as *mut v128, signed(self.any(c), self.any(d), c, d));
    }

    /// Codes of magnitudes, in 16-bit lanes: half to even. `above` is how far they lie above the least normal.
    #[inline(always)]
    fn normal(&self, above: v128) -> v128 {
        let odd = v128_and(u16x8_shr(above, Self::DROPPED), i16x8_splat(1));
        i16x8_shr(i16x8_add(i16x8_add(above, self.base), odd), Self::DROPPED)
    }

    /// Codes of the magnitudes of any numbers.
    #[inline(always)]
    fn any(&self, halves: v128) -> v128 {
        let size = i16x8_min(size_of_eight(halves), self.most);
        let normal = self.normal(i16x8_sub(size, self.least));
        // Below the least normal number this is the larger code, above it the smaller.
        let (low, high) = widen_bfloat16(i16x8_min(size, self.least));
        let steps = |value| i32x4_sub(f32x4_add(value, self.rounder), self.rounder);
        i16x8_max(normal, narrow(steps(low), steps(high)))
    }
}

#[inline(always)]
fn size_of_eight(halves: v128) -> v128 {
    v128_and(halves, i16x8_splat(0x7fff))
}

/// Codes of magnitudes as bytes, with the signs of the numbers.
#[inline(always)]
fn signed(low: v128, high: v128, low_numbers: v128, high_numbers: v128) -> v128 {
    let signs = v128_and(signed_words(low_numbers, high_numbers), i8x16_splat(-128));
    v128_or(unsigned_bytes(low, high), signs)
}
