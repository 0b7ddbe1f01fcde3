//! copy, unary, binary, reduce, gather and unpack.

use crate::control::{Context, ERROR_GATHER_RANGE};
use crate::linear::Rows;
use crate::math;
use crate::norm::sum;
use crate::opcodes::*;
use crate::simd::*;
use crate::weight::Weight;

const TILE_ELEMENTS: usize = 16384;

/// How many whole lines of `columns` make a tile.
fn lines_per_tile(columns: usize) -> usize {
    (TILE_ELEMENTS / columns.max(1)).max(1)
}

/// A view of rank 6; missing axes have size 1, the last is the innermost.
#[repr(C)]
pub struct Copy {
    shape: [u32; 6],
    input: *const u32,
    input_strides: [u32; 6],
    output: *mut u32,
    output_strides: [u32; 6],
}

/// The offsets of line `line` (all axes but the last) under two sets of strides.
#[inline(always)]
fn line_offsets<const N: usize, const R: usize>(
    line: usize,
    shape: &[u32; N],
    strides: [&[u32; N]; R],
) -> [usize; R] {
    let mut offsets = [0; R];
    let mut rest = line;
    for axis in (0..N - 1).rev() {
        let index = rest % shape[axis] as usize;
        rest /= shape[axis] as usize;
        for (offset, stride) in offsets.iter_mut().zip(strides) {
            *offset += index * stride[axis] as usize;
        }
    }
    offsets
}

fn line_count<const N: usize>(shape: &[u32; N]) -> usize {
    shape[..N - 1].iter().map(|&size| size as usize).product()
}

pub unsafe fn copy(p: &Copy, context: &Context) {
    let columns = p.shape[5] as usize;
    let lines = line_count(&p.shape);
    let per_tile = lines_per_tile(columns);
    let (from_step, to_step) = (p.input_strides[5] as usize, p.output_strides[5] as usize);
    while let Some(tile) = context.next_tile(lines.div_ceil(per_tile)) {
        for line in tile * per_tile..((tile + 1) * per_tile).min(lines) {
            let [from, to] = line_offsets(line, &p.shape, [&p.input_strides, &p.output_strides]);
            let (from, to) = (p.input.add(from), p.output.add(to));
            if from_step == 1 && to_step == 1 {
                copy_line(from as *const f32, to as *mut f32, columns);
            } else {
                for i in 0..columns {
                    *to.add(i * to_step) = *from.add(i * from_step);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn copy_line(from: *const f32, to: *mut f32, count: usize) {
    for i in (0..count).step_by(4) {
        store_some(to.add(i), load_some(from.add(i), count - i), count - i);
    }
}

#[repr(C)]
pub struct Unary {
    kind: u32,
    rows: u32,
    columns: u32,
    input: Rows,
    output: Rows,
    multiplier: f32,
    addend: f32,
}

pub unsafe fn unary(p: &Unary, context: &Context) {
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let (multiplier, addend) = (f32x4_splat(p.multiplier), f32x4_splat(p.addend));
    let per_tile = (lines_per_tile(columns) / 4).max(1);
    while let Some(tile) = context.next_tile(rows.div_ceil(per_tile)) {
        for row in tile * per_tile..((tile + 1) * per_tile).min(rows) {
            let (from, to) = (p.input.at(row), p.output.at(row));
            for i in (0..columns).step_by(4) {
                let x = load_some(from.add(i), columns - i);
                store_some(to.add(i), math::unary(p.kind, x, multiplier, addend), columns - i);
            }
        }
    }
}

#[repr(C)]
pub struct Binary {
    kind: u32,
    shape: [u32; 4],
    a: *const f32,
    a_strides: [u32; 4],
    b: *const f32,
    b_strides: [u32; 4],
    output: *mut f32,
    output_strides: [u32; 4],
}

#[inline(always)]
fn combine(kind: u32, a: v128, b: v128) -> v128 {
    match kind {
        BINARY_ADD => f32x4_add(a, b),
        BINARY_SUBTRACT => f32x4_sub(a, b),
        BINARY_MULTIPLY => f32x4_mul(a, b),
        _ => f32x4_div(a, b),
    }
}

/// Up to four values, `step` elements apart.
#[inline(always)]
unsafe fn load_strided(from: *const f32, index: usize, step: usize, count: usize) -> v128 {
    match step {
        0 => v128_load32_splat(from as *const u32),
        1 => load_some(from.add(index), count),
        _ => {
            let mut values = [0f32; 4];
            for (i, value) in values.iter_mut().enumerate().take(count) {
                *value = *from.add((index + i) * step);
            }
            load(values.as_ptr())
        }
    }
}

#[inline(always)]
unsafe fn store_strided(to: *mut f32, index: usize, step: usize, value: v128, count: usize) {
    if step == 1 {
        return store_some(to.add(index), value, count);
    }
    let mut values = [0f32; 4];
    store(values.as_mut_ptr(), value);
    for (i, value) in values.iter().enumerate().take(count) {
        *to.add((index + i) * step) = *value;
    }
}

pub unsafe fn binary(p: &Binary, context: &Context) {
    let columns = p.shape[3] as usize;
    let lines = line_count(&p.shape);
    let per_tile = lines_per_tile(columns);
    let (a_step, b_step) = (p.a_strides[3] as usize, p.b_strides[3] as usize);
    while let Some(tile) = context.next_tile(lines.div_ceil(per_tile)) {
        for line in tile * per_tile..((tile + 1) * per_tile).min(lines) {
            let strides = [&p.a_strides, &p.b_strides, &p.output_strides];
            let [a, b, to] = line_offsets(line, &p.shape, strides);
            for i in (0..columns).step_by(4) {
                let left = columns - i;
                let left_side = load_strided(p.a.add(a), i, a_step, left);
                let right_side = load_strided(p.b.add(b), i, b_step, left);
                let value = combine(p.kind, left_side, right_side);
                store_strided(p.output.add(to), i, p.output_strides[3] as usize, value, left);
            }
        }
    }
}

#[repr(C)]
pub struct Reduce {
    kind: u32,
    rows: u32,
    columns: u32,
    input: Rows,
    output: Rows,
}

pub unsafe fn reduce(p: &Reduce, context: &Context) {
    let (rows, columns) = (p.rows as usize, p.columns as usize);
    let per_tile = lines_per_tile(columns);
    while let Some(tile) = context.next_tile(rows.div_ceil(per_tile)) {
        for row in tile * per_tile..((tile + 1) * per_tile).min(rows) {
            let x = p.input.at(row);
            *p.output.at(row) = match p.kind {
                REDUCE_SUM => sum(x, columns),
                REDUCE_MEAN => sum(x, columns) / columns as f32,
                _ => largest(x, columns),
            };
        }
    }
}

#[inline(always)]
unsafe fn largest(x: *const f32, count: usize) -> f32 {
    let mut best = v128_load32_splat(x as *const u32);
    let whole = count & !3;
    for i in (0..whole).step_by(4) {
        best = f32x4_max(best, load(x.add(i)));
    }
    for i in whole..count {
        best = f32x4_max(best, v128_load32_splat(x.add(i) as *const u32));
    }
    max_lanes(best)
}

#[repr(C)]
pub struct Gather {
    count: u32,
    ids: *const i32,
    /// Elements from id to id.
    id_stride: u32,
    table: *const Weight,
    output: Rows,
}

pub unsafe fn gather(p: &Gather, context: &Context, step: u32) {
    let table = &*p.table;
    while let Some(tile) = context.next_tile(p.count as usize) {
        let id = *p.ids.add(tile * p.id_stride as usize);
        if id < 0 || id as u32 >= table.rows {
            context.fail(ERROR_GATHER_RANGE, step, id as u32);
            return;
        }
        table.decode(id as usize, 0, table.columns as usize, p.output.at(tile));
    }
}

#[repr(C)]
pub struct Unpack {
    weight: *const Weight,
    output: Rows,
}

pub unsafe fn unpack(p: &Unpack, context: &Context) {
    let weight = &*p.weight;
    let rows = weight.rows as usize;
    let per_tile = lines_per_tile(weight.columns as usize);
    while let Some(tile) = context.next_tile(rows.div_ceil(per_tile)) {
        for row in tile * per_tile..((tile + 1) * per_tile).min(rows) {
            weight.decode(row, 0, weight.columns as usize, p.output.at(row));
        }
    }
}
