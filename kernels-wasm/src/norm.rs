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
            p.apply(row, 0, columns, mean, factor);
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

/// Group norm, second step: normalises chunk by chunk.
pub unsafe fn group_apply(p: &Norm, context: &Context) {
    let groups = p.groups as usize;
    let width = p.columns as usize / groups;
    let statistics = gemm::regions(context).sums; // [groups][mean, factor]
    let mut ready = false;
    while let Some(chunk) = context.next_tile(p.chunks as usize) {
        if !ready {
            p.group_statistics(statistics);
            ready = true;
        }
        let first = chunk * p.chunk_rows as usize;
        for row in first..(first + p.chunk_rows as usize).min(p.rows as usize) {
            for group in 0..groups {
                let (mean, factor) = (*statistics.add(2 * group), *statistics.add(2 * group + 1));
                p.apply(row, group * width, width, mean, factor);
            }
        }
    }
}

impl Norm {
    unsafe fn group_statistics(&self, into: *mut f32) {
        let groups = self.groups as usize;
        let size = self.rows as f64 * (self.columns as usize / groups) as f64;
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
            *into.add(2 * group) = mean as f32;
            *into.add(2 * group + 1) = 1.0 / sqrt(variance as f32 + self.epsilon);
        }
    }

    /// Normalises columns [first, first + count) of a row.
    #[inline(always)]
    unsafe fn apply(&self, row: usize, first: usize, count: usize, mean: f32, factor: f32) {
        let (x, output) = (self.x.at(row).add(first), self.output.at(row).add(first));
        for i in (0..count).step_by(4) {
            let left = count - i;
            let column = first + i;
            let centred = f32x4_sub(load_some(x.add(i), left), f32x4_splat(mean));
            let mut value = f32x4_mul(centred, f32x4_splat(factor));
            if !self.weight.is_null() {
                value = f32x4_mul(value, load_some(self.weight.add(column), left));
            }
            if !self.bias.is_null() {
                value = f32x4_add(value, load_some(self.bias.add(column), left));
            }
            if !self.scale.is_absent() {
                let scale = load_some(self.scale.at(row).add(column), left);
                value = f32x4_mul(value, f32x4_add(scale, f32x4_splat(1.0)));
            }
            if !self.shift.is_absent() {
                value = f32x4_add(value, load_some(self.shift.at(row).add(column), left));
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
