//! linear: x times a weight in any layout, with bias, activation, gate and residual at its end.

use crate::control::Context;
use crate::gemm::{self, Finish, PackPanel, PackRows, Tiling, K_BLOCK, MR};
use crate::gemv;
use crate::math::activation;
use crate::opcodes::UNARY_IDENTITY;
use crate::simd::*;
use crate::weight::Weight;

/// Rows of f32 with a row stride in elements; 0 repeats one row.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rows {
    pub data: *mut f32,
    pub stride: u32,
}

impl Rows {
    #[inline(always)]
    pub unsafe fn at(&self, row: usize) -> *mut f32 {
        self.data.add(row * self.stride as usize)
    }

    /// The rows from `row` on.
    fn from(self, row: usize) -> Rows {
        Rows { data: self.data.wrapping_add(row * self.stride as usize), ..self }
    }

    #[inline(always)]
    pub fn is_absent(&self) -> bool {
        self.data.is_null()
    }
}

/// What happens to the sums: output = residual + gate * act(sums + bias).
#[repr(C)]
#[derive(Clone, Copy)]
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
    /// The rows of this step: all, or a part of those that were packed before.
    first: u32,
    rows: u32,
    packed: PackedRows,
}

/// Rows as strips of MR, block of k after block: [block][strip][k][MR]; k of a block to a multiple of 4.
#[repr(C)]
#[derive(Clone, Copy)]
struct PackedRows {
    data: *mut f32,
    /// Rows of all strips.
    rows: u32,
}

/// Strips that are packed as one tile.
const PACK_STRIPS: usize = 2;

impl PackedRows {
    #[inline(always)]
    unsafe fn at(&self, row: usize, k: usize, count: usize) -> *mut f32 {
        self.data.add(k * self.rows as usize + row * gemm::round_up(count, 4))
    }
}

impl PackRows for PackedRows {
    unsafe fn pack(
        &self,
        row: usize,
        _rows: usize,
        k: usize,
        count: usize,
        _into: *mut f32,
    ) -> *const f32 {
        self.at(row, k, count)
    }
}

impl PackRows for Rows {
    unsafe fn pack(
        &self,
        row: usize,
        rows: usize,
        k: usize,
        count: usize,
        into: *mut f32,
    ) -> *const f32 {
        gemm::pack_rows(|r| self.at(row + r).add(k) as *const f32, rows, count, into)
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
        gemm::pack_decoded(rows, columns, count, into);
    }
}

impl Epilogue {
    /// The same for the rows from `row` on.
    fn from(self, row: usize) -> Epilogue {
        let Epilogue { output, gate, residual, .. } = self;
        let later = |rows: Rows| if rows.is_absent() { rows } else { rows.from(row) };
        Epilogue { output: later(output), gate: later(gate), residual: later(residual), ..self }
    }

}

/// An epilogue from a place in a row on, apart from it: any store may change that, as far as the compiler knows.
struct RowEnd {
    output: *mut f32,
    /// Null where there is none, as are the next two.
    bias: *const f32,
    gate: *const f32,
    residual: *const f32,
    activation: u32,
}

impl RowEnd {
    /// Four (or the last `count`) values from `j` on.
    #[inline(always)]
    unsafe fn vector(&self, j: usize, count: usize, sums: v128) {
        let mut value = sums;
        if !self.bias.is_null() {
            value = f32x4_add(value, load_some(self.bias.add(j), count));
        }
        if self.activation != UNARY_IDENTITY {
            value = activation(self.activation, value);
        }
        if !self.gate.is_null() {
            value = f32x4_mul(value, load_some(self.gate.add(j), count));
        }
        if !self.residual.is_null() {
            value = f32x4_add(value, load_some(self.residual.add(j), count));
        }
        store_some(self.output.add(j), value, count);
    }
}

impl Finish for Epilogue {
    unsafe fn row(&self, row: usize, column: usize, columns: usize, sums: *const f32) {
        let at = |rows: Rows| {
            if rows.is_absent() { rows.data } else { rows.at(row).add(column) }
        };
        let end = RowEnd {
            output: at(self.output),
            bias: if self.bias.is_null() { self.bias } else { self.bias.add(column) },
            gate: at(self.gate),
            residual: at(self.residual),
            activation: self.activation,
        };
        let whole = columns & !3;
        for j in (0..whole).step_by(4) {
            end.vector(j, 4, load(sums.add(j)));
        }
        if whole < columns {
            end.vector(whole, columns - whole, load(sums.add(whole)));
        }
    }
}

/// Packs the rows of a step for all tiles of the product that follows.
pub unsafe fn pack_rows(p: &Linear, context: &Context) {
    let (rows, k) = (p.rows as usize, p.k as usize);
    let strips = rows.div_ceil(MR);
    while let Some(tile) = context.next_tile(strips.div_ceil(PACK_STRIPS)) {
        for strip in tile * PACK_STRIPS..((tile + 1) * PACK_STRIPS).min(strips) {
            let row = strip * MR;
            for block in (0..k).step_by(K_BLOCK) {
                let count = K_BLOCK.min(k - block);
                let to = p.packed.at(row, block, count);
                p.x.pack(p.first as usize + row, MR.min(rows - row), block, count, to);
            }
        }
    }
}

pub unsafe fn run(p: &Linear, context: &Context) {
    let (m, n, k) = (p.rows as usize, p.n as usize, p.k as usize);
    let weight = &*p.weight;
    let finish = p.epilogue.from(p.first as usize);
    if m <= gemv::MAX_ROWS {
        return gemv::run(context, &p.x.from(p.first as usize), weight, &finish, m, n, k);
    }
    let rows: &dyn PackRows = if p.packed.data.is_null() { &p.x } else { &p.packed };
    let tiling = Tiling::new(m, n, context.threads);
    while let Some(tile) = context.next_tile(tiling.total) {
        gemm::tile(context, rows, weight, &finish, tiling.tile(tile, m, n), k);
    }
}
