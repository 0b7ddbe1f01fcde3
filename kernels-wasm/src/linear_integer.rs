//! linear over activations rounded to int8 and a weight seen as integers: integer products, floats per run of
//! k that shares a scale. The rows were rounded before, by the step of activations.rs.

use crate::control::Context;
use crate::gemm::{self, Finish, Tiling};
use crate::integer_gemm::{sums_at, IntegerForm, Product, MAX_COLUMNS, MAX_ROWS};
use crate::integer_kernel::{COLUMNS, ROWS};
use crate::linear::{Epilogue, Rows};
use crate::simd::*;
use crate::strips::Strips;
use crate::weight::Weight;

#[repr(C)]
pub struct LinearInteger {
    m: u32,
    n: u32,
    k: u32,
    x: Rows,
    weight: *const Weight,
    epilogue: Epilogue,
    /// [m]: what a code of each row of x is worth.
    scales: *const f32,
    /// [m]: the codes that mean 0; null when all are 0.
    zeros: *const f32,
    /// x as activations.rs writes it.
    strips: Strips,
    form: IntegerForm,
}

pub unsafe fn run(p: &LinearInteger, context: &Context) {
    let (m, n) = (p.m as usize, p.n as usize);
    let tiling = Tiling::within(m, n, context.threads, (MAX_ROWS, MAX_COLUMNS), (ROWS, COLUMNS));
    while let Some(tile) = context.next_tile(tiling.total) {
        run_tile(p, context, tiling.tile(tile, m, n));
    }
}

unsafe fn run_tile(
    p: &LinearInteger,
    context: &Context,
    (row, rows, column, columns): (usize, usize, usize, usize),
) {
    let regions = gemm::regions(context);
    let product = Product {
        m: p.m as usize,
        k: p.k as usize,
        strips: &p.strips,
        zeros: p.zeros,
        weight: &*p.weight,
        form: &p.form,
    };
    product.accumulate(&regions, (row, rows, column, columns));
    let line = regions.rows;
    let (is_exact, weights) = (p.form.is_exact(), line.add(MAX_COLUMNS));
    if is_exact {
        product.column_scales(column, columns, weights);
    }
    for i in 0..rows {
        let scale = f32x4_splat(*p.scales.add(row + i));
        for j in (0..columns).step_by(COLUMNS) {
            let sums = regions.sums.add(sums_at(i, j, rows));
            for half in [0, 4] {
                let sums = load(sums.add(half));
                let value = if is_exact {
                    let whole = f32x4_mul(f32x4_convert_i32x4(sums), scale);
                    f32x4_mul(whole, load(weights.add(j + half)))
                } else {
                    f32x4_mul(sums, scale)
                };
                store(line.add(j + half), value);
            }
        }
        p.epilogue.row(row + i, column, columns, line);
    }
}
