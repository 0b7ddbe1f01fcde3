//! The one matrix product, C = A B^T, that linear, matmul and convolution share. A and B come through
//! packers, so any storage works; B is unpacked once per (k block, 8 columns) and reused by all rows.
//!
//! Every sum runs over k in blocks of `K_BLOCK`, first inside a block and then over the blocks, so the
//! result does not depend on how the tiles are cut.

use crate::control::Context;
use crate::microkernel::multiply_6x8;
use crate::simd::*;

pub const K_BLOCK: usize = 256;
/// Rows of a micro tile.
pub const MR: usize = 6;
/// Columns of a micro tile.
pub const NR: usize = 8;
pub const MAX_ROWS: usize = 576;
pub const MAX_COLUMNS: usize = 192;

pub const STRIP_BYTES: usize = MR * K_BLOCK * 4;
pub const PANELS_BYTES: usize = MAX_COLUMNS * K_BLOCK * 4;
pub const ROWS_BYTES: usize = NR * K_BLOCK * 4;
pub const SUMS_BYTES: usize = MAX_ROWS * MAX_COLUMNS * 4;

/// Scratch of one worker; the largest user is LLM.int8 with two sets of sums.
pub const SCRATCH_BYTES: usize = STRIP_BYTES + PANELS_BYTES + ROWS_BYTES + 2 * SUMS_BYTES + 4096;

/// Gives micro tile rows of A as [k][MR], zeros beyond `rows`: the address where they lie, which is `into`
/// unless they were packed before.
pub trait PackRows {
    unsafe fn pack(
        &self,
        row: usize,
        rows: usize,
        k: usize,
        count: usize,
        into: *mut f32,
    ) -> *const f32;
}

/// Gives 8 columns of B^T (rows of B) as [k][8], zeros beyond `columns`.
pub trait PackPanel {
    unsafe fn pack(
        &self,
        column: usize,
        columns: usize,
        k: usize,
        count: usize,
        rows: *mut f32,
        into: *mut f32,
    );
}

/// Takes finished sums: `columns` values of row `row` from column `column` on.
pub trait Finish {
    unsafe fn row(&self, row: usize, column: usize, columns: usize, sums: *const f32);
}

/// How a product [m, n] is cut into tiles.
pub struct Tiling {
    rows_per_tile: usize,
    columns_per_tile: usize,
    column_tiles: usize,
    pub total: usize,
}

#[inline(always)]
pub fn round_up(value: usize, to: usize) -> usize {
    value.div_ceil(to) * to
}

impl Tiling {
    /// Large tiles for reuse, but three per worker where that leaves 64 columns, for which packing A is worth
    /// while, and one per worker where there are rows and columns enough.
    pub fn new(m: usize, n: usize, threads: usize) -> Self {
        Tiling::within(m, n, threads, (MAX_ROWS, MAX_COLUMNS), (MR, NR))
    }

    /// The same for other most rows and columns, and other units of them.
    pub fn within(
        m: usize,
        n: usize,
        threads: usize,
        most: (usize, usize),
        unit: (usize, usize),
    ) -> Self {
        let mut rows = even_share(m, most.0, unit.0);
        let mut columns = even_share(n, most.1, unit.1);
        let wanted = if threads == 1 { 1 } else { 3 * threads };
        loop {
            let tiles = m.div_ceil(rows) * n.div_ceil(columns);
            if tiles >= wanted {
                break;
            } else if rows > 192 {
                rows = round_up(rows / 2, unit.0);
            } else if columns > 64 || (columns > 32 && tiles < threads) {
                columns = round_up(columns / 2, unit.1);
            } else if rows > 48 && tiles < threads {
                rows = round_up(rows / 2, unit.0);
            } else {
                break;
            }
        }
        let column_tiles = n.div_ceil(columns);
        let total = m.div_ceil(rows) * column_tiles;
        Tiling { rows_per_tile: rows, columns_per_tile: columns, column_tiles, total }
    }

    /// (first row, rows, first column, columns) of a tile.
    pub fn tile(&self, tile: usize, m: usize, n: usize) -> (usize, usize, usize, usize) {
        let row = tile / self.column_tiles * self.rows_per_tile;
        let column = tile % self.column_tiles * self.columns_per_tile;
        let rows = self.rows_per_tile.min(m - row);
        (row, rows, column, self.columns_per_tile.min(n - column))
    }
}

/// The size of equal parts of `total`, each at most `most` and a multiple of `unit`.
fn even_share(total: usize, most: usize, unit: usize) -> usize {
    let parts = total.div_ceil(most).max(1);
    round_up(total.div_ceil(parts), unit)
}

/// The regions of a worker's scratch.
pub struct Regions {
    pub strip: *mut f32,
    pub rows: *mut f32,
    pub panels: *mut f32,
    pub sums: *mut f32,
    pub more_sums: *mut f32,
}

pub unsafe fn regions(context: &Context) -> Regions {
    let strip = context.scratch;
    let rows = strip.add(STRIP_BYTES);
    let panels = rows.add(ROWS_BYTES);
    let sums = panels.add(PANELS_BYTES);
    Regions {
        strip: strip as *mut f32,
        rows: rows as *mut f32,
        panels: panels as *mut f32,
        sums: sums as *mut f32,
        more_sums: sums.add(SUMS_BYTES) as *mut f32,
    }
}

/// Computes one tile of C and hands its rows to `finish`.
#[inline(never)]
pub unsafe fn tile(
    context: &Context,
    a: &dyn PackRows,
    b: &dyn PackPanel,
    finish: &dyn Finish,
    (row, rows, column, columns): (usize, usize, usize, usize),
    k: usize,
) {
    let regions = regions(context);
    let stride = round_up(columns, NR);
    accumulate(&regions, a, b, (row, rows, column, columns), k, regions.sums);
    for i in 0..rows {
        finish.row(row + i, column, columns, regions.sums.add(i * stride));
    }
}

/// Fills `sums` [rows to a multiple of MR, columns to a multiple of NR] with the tile's products.
#[inline(never)]
pub unsafe fn accumulate(
    regions: &Regions,
    a: &dyn PackRows,
    b: &dyn PackPanel,
    (row, rows, column, columns): (usize, usize, usize, usize),
    k: usize,
    sums: *mut f32,
) {
    let stride = round_up(columns, NR);
    let mut first = 0;
    while first < k {
        let count = K_BLOCK.min(k - first);
        let padded = round_up(count, 4);
        for j in (0..columns).step_by(NR) {
            let panel = regions.panels.add(j * padded);
            b.pack(column + j, NR.min(columns - j), first, count, regions.rows, panel);
        }
        for i in (0..rows).step_by(MR) {
            let strip = a.pack(row + i, MR.min(rows - i), first, count, regions.strip);
            for j in (0..columns).step_by(NR) {
                let panel = regions.panels.add(j * padded);
                kernel(strip, panel, count, sums.add(i * stride + j), stride, first > 0);
            }
        }
        first += count;
    }
}

/// C [MR, NR] (rows `stride` apart) = (C when `add`) + strip [count][MR] x panel [count][NR].
#[inline(always)]
pub unsafe fn kernel(
    strip: *const f32,
    panel: *const f32,
    count: usize,
    c: *mut f32,
    stride: usize,
    add: bool,
) {
    multiply_6x8(strip, panel, count, c, stride, add);
}

/// A row of zeros for what lies outside.
pub static ZEROS: [f32; K_BLOCK] = [0.0; K_BLOCK];

/// Packs MR rows of `count` values (`source(r)` gives row r) as [count][MR]; may write up to three k more.
/// Gives `into`.
#[inline(always)]
pub unsafe fn pack_rows(
    source: impl Fn(usize) -> *const f32,
    rows: usize,
    count: usize,
    into: *mut f32,
) -> *const f32 {
    let row = |r: usize| if r < rows { source(r) } else { ZEROS.as_ptr() };
    let rows = [row(0), row(1), row(2), row(3), row(4), row(5)];
    let whole = count & !3;
    pack_words(|r, k| load(rows[r].add(k)), whole, into);
    let rest = count - whole;
    pack_words(|r, _| load_some(rows[r].add(whole), rest), rest, into.add(whole * MR));
    into
}

/// Packs MR rows of 32-bit words; `words(r, k)` gives the four words of row r from k on.
#[inline(always)]
pub unsafe fn pack_words(words: impl Fn(usize, usize) -> v128, count: usize, into: *mut f32) {
    for k in (0..count).step_by(4) {
        let at = |r: usize| words(r, k);
        let (a, b, c, d) = transpose(at(0), at(1), at(2), at(3));
        let (e, f) = (at(4), at(5));
        let low = i32x4_shuffle::<0, 4, 1, 5>(e, f);
        let high = i32x4_shuffle::<2, 6, 3, 7>(e, f);
        let to = into.add(k * MR);
        store(to, a);
        v128_store64_lane::<0>(low, to.add(4) as *mut u64);
        store(to.add(MR), b);
        v128_store64_lane::<1>(low, to.add(MR + 4) as *mut u64);
        store(to.add(2 * MR), c);
        v128_store64_lane::<0>(high, to.add(2 * MR + 4) as *mut u64);
        store(to.add(3 * MR), d);
        v128_store64_lane::<1>(high, to.add(3 * MR + 4) as *mut u64);
    }
}

/// Transposes 8 rows of `count` values (`source(r)` gives row r; rows beyond `columns` are zero).
#[inline(always)]
pub unsafe fn pack_panel(
    source: impl Fn(usize) -> *const f32,
    columns: usize,
    count: usize,
    into: *mut f32,
) {
    let whole = if columns == NR { count & !3 } else { 0 };
    pack_whole_panel(&source, whole, into);
    for half in 0..2 {
        let at = |r: usize, k: usize, n: usize| {
            let row = 4 * half + r;
            if row < columns {
                load_some(source(row).add(k), n)
            } else {
                f32x4_splat(0.0)
            }
        };
        let mut k = whole;
        while k < count {
            let n = (count - k).min(4);
            let (a, b, c, d) = transpose(at(0, k, n), at(1, k, n), at(2, k, n), at(3, k, n));
            let to = into.add(k * NR + 4 * half);
            store(to, a);
            store(to.add(NR), b);
            store(to.add(2 * NR), c);
            store(to.add(3 * NR), d);
            k += 4;
        }
    }
}

/// The same for rows of `count` values that were decoded `K_BLOCK` apart.
#[inline(never)]
pub unsafe fn pack_decoded(rows: *const f32, columns: usize, count: usize, into: *mut f32) {
    pack_panel(|r| rows.add(r * K_BLOCK), columns, count, into);
}

/// The same for 8 rows of `count` values, a multiple of 4.
#[inline(always)]
unsafe fn pack_whole_panel(source: impl Fn(usize) -> *const f32, count: usize, into: *mut f32) {
    let rows: [*const f32; NR] = core::array::from_fn(source);
    for k in (0..count).step_by(4) {
        let at = |r: usize| load(rows[r].add(k));
        for half in [0, 4] {
            let (a, b, c, d) = transpose(at(half), at(half + 1), at(half + 2), at(half + 3));
            let to = into.add(k * NR + half);
            store(to, a);
            store(to.add(NR), b);
            store(to.add(2 * NR), c);
            store(to.add(3 * NR), d);
        }
    }
}
