//! The power -0.3 of four float32 numbers as PyTorch's vectorised CPU kernels have it, bit for bit: `powf` of
//! SLEEF (within one unit in the last place), exp(y log x) over pairs of floats with fused multiply-adds.
//! src/tensor/float32_pow.ts says the same for one number and any exponent.

use crate::fused::{multiply_add_held, Fused};
use crate::numbers::*;

const EXPONENT: f32 = -0.3;

/// Powers of positive normal numbers and of infinity.
#[inline(never)]
pub fn powers(bases: v128) -> v128 {
    let mut quick = Fused::<false>::new();
    let found = quick.power(bases);
    if quick.is_doubtful() {
        return exact_powers(bases);
    }
    found
}

#[cold]
#[inline(never)]
pub fn exact_powers(bases: v128) -> v128 {
    Fused::<true>::new().power(bases)
}

/// The sum of two floats, the second much smaller.
#[derive(Clone, Copy)]
struct Pair(v128, v128);

#[inline(always)]
fn splat(value: f32) -> v128 {
    f32x4_splat(value)
}

const LOG_ROW: [f32; 3] = [0.240_320_354_7, 0.285_112_679, 0.400_007_993];
const EXP_ROW: [f32; 5] = [0.001_363_246_47, 0.008_365_969_17, 0.041_671_082_4, 0.166_665_524, 0.499_999_851];
const LN2_HIGH: f32 = 0.693_145_75;
const LN2_LOW: f32 = 1.428_606_77e-6;

impl<const EXACT: bool> Fused<EXACT> {
    #[inline(always)]
    fn power(&mut self, bases: v128) -> v128 {
        let logarithm = self.logarithm(bases);
        let found = self.times_float(logarithm, splat(EXPONENT));
        let power = self.exponential(found);
        v128_andnot(power, f32x4_eq(bases, splat(f32::INFINITY)))
    }

    /// log x by the series of 2 artanh((m - 1) / (m + 1)), where x = m 2^e.
    #[inline(always)]
    fn logarithm(&mut self, x: v128) -> Pair {
        let scaled = f32x4_mul(x, splat(1.0 / 0.75));
        let exponent = i32x4_sub(u32x4_shr(scaled, 23), i32x4_splat(127));
        let mantissa = i32x4_sub(x, i32x4_shl(exponent, 23));
        let root = self.divide(sum(splat(-1.0), mantissa), sum(splat(1.0), mantissa));
        let squared = self.square(root);
        let row = self.multiply_add(splat(LOG_ROW[0]), squared.0, splat(LOG_ROW[1]));
        let row = self.multiply_add(row, squared.0, splat(LOG_ROW[2]));
        let ln2 = Pair(splat(0.693_147_18), splat(-1.904_654_32e-9));
        let whole = times_integer(ln2, f32x4_convert_i32x4(exponent));
        let doubled = Pair(f32x4_add(root.0, root.0), f32x4_add(root.1, root.1));
        let first = add_smaller(whole, doubled);
        let two_thirds = Pair(splat(0.666_666_627), splat(3.691_838_61e-9));
        let series = add(self.times_float(squared, row), two_thirds);
        let cubed = self.times(squared, root);
        add_smaller(first, self.times(cubed, series))
    }

    /// Of an argument between -80 and 80.
    #[inline(always)]
    fn exponential(&mut self, x: Pair) -> v128 {
        let turns = f32x4_nearest(f32x4_mul(f32x4_add(x.0, x.1), splat(core::f32::consts::LOG2_E)));
        let reduced = add_float(x, f32x4_mul(turns, splat(-LN2_HIGH)));
        let reduced = normalized(add_float(reduced, f32x4_mul(turns, splat(-LN2_LOW))));
        let mut row = splat(EXP_ROW[0]);
        for coefficient in &EXP_ROW[1..] {
            row = self.multiply_add(row, reduced.0, splat(*coefficient));
        }
        let squared = self.square(reduced);
        let rest = add_smaller(reduced, self.times_float(squared, row));
        let one = splat(1.0);
        let high = f32x4_add(one, rest.0);
        let low = f32x4_add(f32x4_add(f32x4_sub(one, high), rest.0), rest.1);
        let exponent = i32x4_shl(whole_number(turns), 23);
        i32x4_add(f32x4_add(high, low), exponent)
    }

    #[inline(always)]
    fn times(&mut self, a: Pair, b: Pair) -> Pair {
        let product = f32x4_mul(a.0, b.0);
        let lost = lost_of_product(a.0, b.0, product);
        let lost = self.multiply_add(a.1, b.0, lost);
        Pair(product, self.multiply_add(a.0, b.1, lost))
    }

    #[inline(always)]
    fn times_float(&mut self, a: Pair, b: v128) -> Pair {
        let product = f32x4_mul(a.0, b);
        Pair(product, self.multiply_add(a.1, b, lost_of_product(a.0, b, product)))
    }

    #[inline(always)]
    fn square(&mut self, a: Pair) -> Pair {
        let product = f32x4_mul(a.0, a.0);
        let lost = lost_of_product(a.0, a.0, product);
        Pair(product, self.multiply_add(f32x4_add(a.0, a.0), a.1, lost))
    }

    /// By a sum of two floats near 1, whose lost part is one bit: so float64 holds the error of the inverse.
    #[inline(always)]
    fn divide(&mut self, a: Pair, b: Pair) -> Pair {
        let inverse = f32x4_div(splat(1.0), b.0);
        let quotient = f32x4_mul(a.0, inverse);
        let lost = lost_of_product(inverse, a.0, quotient);
        let error = multiply_add_held(f32x4_neg(b.0), inverse, splat(1.0));
        let error = multiply_add_held(f32x4_neg(b.1), inverse, error);
        let lost = self.multiply_add(a.1, inverse, lost);
        Pair(quotient, self.multiply_add(quotient, error, lost))
    }
}

/// What rounding lost of a product.
#[inline(always)]
fn lost_of_product(a: v128, b: v128, product: v128) -> v128 {
    multiply_add_held(a, b, f32x4_neg(product))
}

/// Of an integer of at most 8 bits: float64 holds all sums, many of them half-way between two float32.
#[inline(always)]
fn times_integer(a: Pair, b: v128) -> Pair {
    let product = f32x4_mul(a.0, b);
    Pair(product, multiply_add_held(a.1, b, lost_of_product(a.0, b, product)))
}

#[inline(always)]
fn sum(a: v128, b: v128) -> Pair {
    let total = f32x4_add(a, b);
    let part = f32x4_sub(total, a);
    Pair(total, f32x4_add(f32x4_sub(a, f32x4_sub(total, part)), f32x4_sub(b, part)))
}

#[inline(always)]
fn add(a: Pair, b: Pair) -> Pair {
    let Pair(total, lost) = sum(a.0, b.0);
    Pair(total, f32x4_add(lost, f32x4_add(a.1, b.1)))
}

#[inline(always)]
fn add_float(a: Pair, b: v128) -> Pair {
    let Pair(total, lost) = sum(a.0, b);
    Pair(total, f32x4_add(lost, a.1))
}

/// As `add` for |a| > |b|.
#[inline(always)]
fn add_smaller(a: Pair, b: Pair) -> Pair {
    let total = f32x4_add(a.0, b.0);
    let lost = f32x4_add(f32x4_sub(a.0, total), b.0);
    Pair(total, f32x4_add(f32x4_add(lost, a.1), b.1))
}

#[inline(always)]
fn normalized(a: Pair) -> Pair {
    let total = f32x4_add(a.0, a.1);
    Pair(total, f32x4_add(f32x4_sub(a.0, total), a.1))
}
