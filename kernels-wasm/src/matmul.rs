//! matmul: a batch of products over views of any strides.

use crate::control::Context;
use crate::gemm::{self, Finish, PackPanel, PackRows, Tiling, MR, NR};
use crate::simd::*;

/// A batch of matrices: strides in elements of the batch, row and column axes.
#[repr(C)]
pub struct View {
    data: *mut f32,
    strides: [u32; 3],
}

#[repr(C)]
pub struct Matmul {
    batch: u32,
    m: u32,
    n: u32,
    k: u32,
    a: View,
    b: View,
    output: View,
    scale: f32,
}

/// One matrix of a view.
struct Matrix {
    data: *mut f32,
    row: usize,
    column: usize,
}

impl View {
    unsafe fn matrix(&self, batch: usize) -> Matrix {
        Matrix {
            data: self.data.add(batch * self.strides[0] as usize),
            row: self.strides[1] as usize,
            column: self.strides[2] as usize,
        }
    }
}

impl PackRows for Matrix {
    unsafe fn pack(
        &self,
        row: usize,
        rows: usize,
        k: usize,
        count: usize,
        into: *mut f32,
    ) -> *const f32 {
        let first = self.data.add(row * self.row + k * self.column);
        if self.column == 1 {
            return gemm::pack_rows(|r| first.add(r * self.row) as *const f32, rows, count, into);
        }
        core::ptr::write_bytes(into, 0, MR * count);
        for r in 0..rows {
            for i in 0..count {
                *into.add(i * MR + r) = *first.add(r * self.row + i * self.column);
            }
        }
        into
    }
}

impl PackPanel for Matrix {
    unsafe fn pack(
        &self,
        column: usize,
        columns: usize,
        k: usize,
        count: usize,
        _rows: *mut f32,
        into: *mut f32,
    ) {
        let first = self.data.add(column * self.row + k * self.column);
        if self.column == 1 {
            return gemm::pack_panel(|r| first.add(r * self.row) as *const f32, columns, count, into);
        }
        core::ptr::write_bytes(into, 0, NR * count);
        for i in 0..count {
            for r in 0..columns {
                *into.add(i * NR + r) = *first.add(r * self.row + i * self.column);
            }
        }
    }
}

struct ScaledOutput {
    to: Matrix,
    scale: f32,
}

impl Finish for ScaledOutput {
    unsafe fn row(&self, row: usize, column: usize, columns: usize, sums: *const f32) {
        let to = self.to.data.add(row * self.to.row + column * self.to.column);
        if self.to.column != 1 {
            for j in 0..columns {
                *to.add(j * self.to.column) = *sums.add(j) * self.scale;
            }
            return;
        }
        for j in (0..columns).step_by(4) {
            let value = f32x4_mul(load(sums.add(j)), f32x4_splat(self.scale));
            store_some(to.add(j), value, columns - j);
        }
    }
}

pub unsafe fn run(p: &Matmul, context: &Context) {
    let (m, n, k) = (p.m as usize, p.n as usize, p.k as usize);
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(index) = context.next_tile(p.batch as usize * tiling.total) {
        let (batch, tile) = (index / tiling.total, index % tiling.total);
        let (a, b) = (p.a.matrix(batch), p.b.matrix(batch));
        let finish = ScaledOutput { to: p.output.matrix(batch), scale: p.scale };
        gemm::tile(context, &a, &b, &finish, tiling.tile(tile, m, n), k);
    }
}
