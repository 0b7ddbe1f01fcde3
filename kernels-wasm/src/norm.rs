//! Normalisations with affine weights, modulation and activation in one pass:
//! output = act((norm(x) * weight + bias) * (1 + scale) + shift).

use crate::control::Context;
use crate::gemm;
use crate::linear::Rows;
use crate::math::{activation, sqrt};
use crate::opcodes::*;
use crate::simd::*;

#[repr(C)]
pub struct Norm {
    kind: u32,
    rows: u32,
    columns: u32,
    groups: u32,
    epsilon: f32,
    activation: u32,
    x: Rows,
    output: Rows,
    weight: *const f32,
    bias: *const f32,
    scale: Rows,
    shift: Rows,
    /// Group norm only: [chunks][groups][2] sums and sums of squares.
    partial: *mut f64,
    chunk_rows: u32,
    chunks: u32,
}

const TILE_ROWS: usize = 8;

/// Layer and RMS norm: each row by itself.
pub unsafe fn rows(p: &Norm, context: &Context) {
    let (count, columns) = (p.rows as usize, p.columns as usize);
    while let Some(tile) = context.next_tile(count.div_ceil(TILE_ROWS)) {
        for row in tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(count) {
            let x = p.x.at(row);
            let size = columns as f32;
            let mean = if p.kind == NORM_LAYER { sum(x, columns) / size } else { 0.0 };
            let variance = centred_squares(x, columns, mean) / size;
            let factor = 1.0 / sqrt(variance + p.epsilon);
            let (mean, factor) = (f32x4_splat(mean), f32x4_splat(factor));
            if p.weight.is_null() {
                p.apply(row, |_| (mean, factor));
            } else {
                let weight = |i: usize| load_some(p.weight.add(i), columns - i);
                p.apply(row, |i| (mean, f32x4_mul(factor, weight(i))));
            }
        }
    }
}

/// Group norm, first step: every chunk of rows sums each of its groups in f64.
pub unsafe fn group_sums(p: &Norm, context: &Context) {
    let (columns, groups) = (p.columns as usize, p.groups as usize);
    let width = columns / groups;
    let sums = gemm::regions(context).sums as *mut f64; // [columns][sum, squares] as two runs
    let squares = sums.add(gemm::round_up(columns, 4));
    while let Some(chunk) = context.next_tile(p.chunks as usize) {
        core::ptr::write_bytes(sums, 0, 2 * gemm::round_up(columns, 4));
        let first = chunk * p.chunk_rows as usize;
        for row in first..(first + p.chunk_rows as usize).min(p.rows as usize) {
            add_row(p.x.at(row), columns, sums, squares);
        }
        for group in 0..groups {
            let (mut total, mut total_squares) = (0f64, 0f64);
            for column in group * width..(group + 1) * width {
                total += *sums.add(column);
                total_squares += *squares.add(column);
            }
            let to = p.partial.add((chunk * groups + group) * 2);
            *to = total;
            *to.add(1) = total_squares;
        }
    }
}

#[inline(always)]
unsafe fn add_row(x: *const f32, columns: usize, sums: *mut f64, squares: *mut f64) {
    for column in (0..columns).step_by(4) {
        let value = load_some(x.add(column), columns - column);
        let low = f64x2_promote_low_f32x4(value);
        let high = f64x2_promote_low_f32x4(i64x2_shuffle::<1, 0>(value, value));
        for (i, half) in [low, high].into_iter().enumerate() {
            let to = sums.add(column + 2 * i) as *mut v128;
            v128_store(to, f64x2_add(v128_load(to), half));
            let to = squares.add(column + 2 * i) as *mut v128;
            v128_store(to, f64x2_add(v128_load(to), f64x2_mul(half, half)));
        }
    }
}

/// Group norm, second step: normalises chunk by chunk, with each channel's mean and factor at hand.
pub unsafe fn group_apply(p: &Norm, context: &Context) {
    let columns = gemm::round_up(p.columns as usize, 4);
    let means = gemm::regions(context).sums;
    let factors = means.add(columns);
    let mut ready = false;
    while let Some(chunk) = context.next_tile(p.chunks as usize) {
        if !ready {
            p.channel_statistics(means, factors);
            ready = true;
        }
        let first = chunk * p.chunk_rows as usize;
        for row in first..(first + p.chunk_rows as usize).min(p.rows as usize) {
            let column = |i: usize| (load(means.add(i)), load(factors.add(i)));
            p.apply(row, column);
        }
    }
}

impl Norm {
    /// Every channel's mean, and 1 / deviation times its weight.
    unsafe fn channel_statistics(&self, means: *mut f32, factors: *mut f32) {
        let groups = self.groups as usize;
        let width = self.columns as usize / groups;
        let size = self.rows as f64 * width as f64;
        for group in 0..groups {
            let (mut total, mut squares) = (0f64, 0f64);
            for chunk in 0..self.chunks as usize {
                let from = self.partial.add((chunk * groups + group) * 2);
                total += *from;
                squares += *from.add(1);
            }
            let mean = total / size;
            let variance = squares / size - mean * mean;
            let variance = if variance < 0.0 { 0.0 } else { variance }; // NaN stays NaN
            let factor = 1.0 / sqrt(variance as f32 + self.epsilon);
            for column in group * width..(group + 1) * width {
                let weight = if self.weight.is_null() { 1.0 } else { *self.weight.add(column) };
                *means.add(column) = mean as f32;
                *factors.add(column) = factor * weight;
            }
        }
    }

    /// Normalises a row; `column(i)` gives mean and factor (weight included) of columns from i on.
    #[inline(always)]
    unsafe fn apply(&self, row: usize, column: impl Fn(usize) -> (v128, v128)) {
        let (x, output) = (self.x.at(row), self.output.at(row));
        let count = self.columns as usize;
        for i in (0..count).step_by(4) {
            let left = count - i;
            let (mean, factor) = column(i);
            let mut value = f32x4_mul(f32x4_sub(load_some(x.add(i), left), mean), factor);
            if !self.bias.is_null() {
                value = f32x4_add(value, load_some(self.bias.add(i), left));
            }
            if !self.scale.is_absent() {
                let scale = load_some(self.scale.at(row).add(i), left);
                value = f32x4_mul(value, f32x4_add(scale, f32x4_splat(1.0)));
            }
            if !self.shift.is_absent() {
                value = f32x4_add(value, load_some(self.shift.at(row).add(i), left));
            }
            if self.activation != UNARY_IDENTITY {
                value = activation(self.activation, value);
            }
            store_some(output.add(i), value, left);
        }
    }
}

/// The sum of a run, in four vectors of partial sums.
#[inline(always)]
pub unsafe fn sum(x: *const f32, count: usize) -> f32 {
    reduce(x, count, |acc, v| f32x4_add(acc, v), f32x4_splat(0.0))
}

/// The sum of (x - mean)^2.
#[inline(always)]
pub unsafe fn centred_squares(x: *const f32, count: usize, mean: f32) -> f32 {
    let mean = f32x4_splat(mean);
    let square = |acc, v| {
        let d = f32x4_sub(v, mean);
        madd(d, d, acc)
    };
    reduce(x, count, square, mean)
}

/// Folds a run into lanes and sums them; lanes beyond the end see `neutral`.
#[inline(always)]
unsafe fn reduce(x: *const f32, count: usize, f: impl Fn(v128, v128) -> v128, neutral: v128) -> f32 {
    let mut acc = [f32x4_splat(0.0); 4];
    let mut i = 0;
    while i + 16 <= count {
        for (lane, sum) in acc.iter_mut().enumerate() {
            *sum = f(*sum, load(x.add(i + 4 * lane)));
        }
        i += 16;
    }
    while i + 4 <= count {
        acc[0] = f(acc[0], load(x.add(i)));
        i += 4;
    }
    if i < count {
        let mut tail = [0f32; 4];
        store(tail.as_mut_ptr(), neutral);
        for (lane, value) in tail.iter_mut().enumerate().take(count - i) {
            *value = *x.add(i + lane);
        }
        acc[1] = f(acc[1], load(tail.as_ptr()));
    }
    sum_lanes(f32x4_add(f32x4_add(acc[0], acc[1]), f32x4_add(acc[2], acc[3])))
}
