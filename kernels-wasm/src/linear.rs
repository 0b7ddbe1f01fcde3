//! linear: x times a weight in any layout, with bias, activation, gate and residual at its end.

use crate::control::Context;
use crate::gemm::{self, Finish, PackPanel, PackRows, Tiling, K_BLOCK};
use crate::gemv;
use crate::math::activation;
use crate::opcodes::UNARY_IDENTITY;
use crate::simd::*;
use crate::weight::Weight;

/// Rows of f32 with a row stride in elements; 0 repeats one row.
#[repr(C)]
pub struct Rows {
    pub data: *mut f32,
    pub stride: u32,
}

impl Rows {
    #[inline(always)]
    pub unsafe fn at(&self, row: usize) -> *mut f32 {
        self.data.add(row * self.stride as usize)
    }

    #[inline(always)]
    pub fn is_absent(&self) -> bool {
        self.data.is_null()
    }
}

/// What happens to the sums: output = residual + gate * act(sums + bias).
#[repr(C)]
pub struct Epilogue {
    pub output: Rows,
    pub bias: *const f32,
    pub gate: Rows,
    pub residual: Rows,
    pub activation: u32,
}

#[repr(C)]
pub struct Linear {
    m: u32,
    n: u32,
    k: u32,
    x: Rows,
    weight: *const Weight,
    epilogue: Epilogue,
}

impl PackRows for Rows {
    unsafe fn pack(&self, row: usize, rows: usize, k: usize, count: usize, into: *mut f32) {
        gemm::pack_rows(|r| self.at(row + r).add(k) as *const f32, rows, count, into);
    }
}

impl PackPanel for Weight {
    unsafe fn pack(
        &self,
        column: usize,
        columns: usize,
        k: usize,
        count: usize,
        rows: *mut f32,
        into: *mut f32,
    ) {
        if self.is_plain() {
            return gemm::pack_panel(|r| self.plain_row(column + r).add(k), columns, count, into);
        }
        for r in 0..columns {
            self.decode(column + r, k, count, rows.add(r * K_BLOCK));
        }
        gemm::pack_panel(|r| rows.add(r * K_BLOCK) as *const f32, columns, count, into);
    }
}

impl Epilogue {
    /// Four (or the last `count`) values of a row.
    #[inline(always)]
    unsafe fn vector(&self, row: usize, column: usize, count: usize, sums: v128) {
        let mut value = sums;
        if !self.bias.is_null() {
            value = f32x4_add(value, load_some(self.bias.add(column), count));
        }
        if self.activation != UNARY_IDENTITY {
            value = activation(self.activation, value);
        }
        if !self.gate.is_absent() {
            value = f32x4_mul(value, load_some(self.gate.at(row).add(column), count));
        }
        if !self.residual.is_absent() {
            value = f32x4_add(value, load_some(self.residual.at(row).add(column), count));
        }
        store_some(self.output.at(row).add(column), value, count);
    }
}

impl Finish for Epilogue {
    unsafe fn row(&self, row: usize, column: usize, columns: usize, sums: *const f32) {
        let whole = columns & !3;
        for j in (0..whole).step_by(4) {
            self.vector(row, column + j, 4, load(sums.add(j)));
        }
        if whole < columns {
            self.vector(row, column + whole, columns - whole, load(sums.add(whole)));
        }
    }
}

pub unsafe fn run(p: &Linear, context: &Context) {
    let (m, n, k) = (p.m as usize, p.n as usize, p.k as usize);
    let weight = &*p.weight;
    if m <= gemv::MAX_ROWS {
        return gemv::run(context, &p.x, weight, &p.epilogue, m, n, k);
    }
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(tiling.total) {
        gemm::tile(context, &p.x, weight, &p.epilogue, tiling.tile(tile, m, n), k);
    }
}
