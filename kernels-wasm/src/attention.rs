//! attention: softmax(scale q k^T + bias) v per head, over blocks of queries and keys with an online
//! softmax (Dao et al., FlashAttention), so that no [queries, keys] matrix is ever stored.

use crate::control::Context;
use crate::gemm::{self, MR, NR};
use crate::linear::Rows;
use crate::math::{exp_negative, exp_scalar};
use crate::simd::*;

#[repr(C)]
pub struct Attention {
    queries: u32,
    keys: u32,
    heads: u32,
    /// Features of a head.
    size: u32,
    scale: f32,
    causal: u32,
    q: Rows,
    k: Rows,
    v: Rows,
    output: Rows,
    bias: *const f32,
    /// Elements from head to head and from query to query of the bias.
    bias_head_stride: u32,
    bias_query_stride: u32,
}

/// Keys of a block; half as many for heads so wide that their packed keys would not fit.
const KEYS: usize = 128;
const WIDE: usize = 512;
/// Floats of packed queries (and of output sums) a worker holds.
const QUERY_FLOATS: usize = 192 * 128;

/// The regions of one worker's scratch.
struct Block {
    /// Features of a head, rounded up to a micro tile.
    size: usize,
    /// Keys of a block.
    keys: usize,
    q: *mut f32,
    k: *mut f32,
    v: *mut f32,
    scores: *mut f32,
    weights: *mut f32,
    sums: *mut f32,
    largest: *mut f32,
    total: *mut f32,
}

impl Block {
    unsafe fn new(context: &Context, rows: usize, size: usize) -> Block {
        let mut at = context.scratch as *mut f32;
        let keys = if size > WIDE { KEYS / 2 } else { KEYS };
        let mut take = |count: usize| {
            let region = at;
            at = at.add(gemm::round_up(count, 16));
            region
        };
        Block {
            size,
            keys,
            q: take(rows * size),
            k: take(keys * size),
            v: take(keys * size),
            scores: take(rows * keys),
            weights: take(MR * keys),
            sums: take(rows * size),
            largest: take(rows),
            total: take(rows),
        }
    }
}

/// Queries of a block: as many as fit, fewer when there would be too few blocks to share.
fn block_rows(p: &Attention, size: usize, threads: usize) -> usize {
    let mut rows = (QUERY_FLOATS / size).min(192) / MR * MR;
    rows = rows.min(gemm::round_up(p.queries as usize, MR));
    let wanted = if threads == 1 { 1 } else { 3 * threads };
    while rows > 24 && p.heads as usize * (p.queries as usize).div_ceil(rows) < wanted {
        rows = gemm::round_up(rows / 2, MR);
    }
    rows
}

pub unsafe fn run(p: &Attention, context: &Context) {
    let size = gemm::round_up(p.size as usize, NR);
    let rows = block_rows(p, size, context.threads);
    let blocks = (p.queries as usize).div_ceil(rows);
    let block = Block::new(context, rows, size);
    while let Some(tile) = context.next_tile(blocks * p.heads as usize) {
        let first = tile % blocks * rows;
        let count = rows.min(p.queries as usize - first);
        p.run_block(&block, tile / blocks, first, count);
    }
}

impl Attention {
    unsafe fn run_block(&self, block: &Block, head: usize, first: usize, count: usize) {
        let size = block.size;
        let padded = gemm::round_up(count, MR);
        let column = head * self.size as usize;
        self.pack_queries(block, column, first, count);
        core::ptr::write_bytes(block.sums, 0, padded * size);
        for i in 0..padded {
            *block.largest.add(i) = f32::NEG_INFINITY;
            *block.total.add(i) = 0.0;
        }
        let end = if self.causal != 0 {
            (self.keys as usize).min(first + count)
        } else {
            self.keys as usize
        };
        for key in (0..end).step_by(block.keys) {
            let keys = block.keys.min(end - key);
            self.score(block, column, key, keys, padded);
            for i in 0..count {
                self.soften(block, head, first + i, i, key, keys);
            }
            self.add_values(block, column, key, keys, padded);
        }
        self.store(block, column, first, count);
    }

    unsafe fn pack_queries(&self, block: &Block, column: usize, first: usize, count: usize) {
        let size = block.size;
        let features = self.size as usize;
        core::ptr::write_bytes(block.q, 0, gemm::round_up(count, MR) * size);
        for i in (0..count).step_by(MR) {
            let source = |r: usize| self.q.at(first + i + r).add(column) as *const f32;
            gemm::pack_rows(source, MR.min(count - i), features, block.q.add(i * size));
        }
        let whole = gemm::round_up(count, MR) * size;
        for i in (0..whole).step_by(4) {
            let at = block.q.add(i);
            store(at, f32x4_mul(load(at), f32x4_splat(self.scale)));
        }
    }

    /// scores [padded, keys] = scale q k^T of one block of keys.
    unsafe fn score(&self, block: &Block, column: usize, key: usize, keys: usize, padded: usize) {
        let (size, features) = (block.size, self.size as usize);
        for j in (0..keys).step_by(NR) {
            let source = |r: usize| self.k.at(key + j + r).add(column) as *const f32;
            gemm::pack_panel(source, NR.min(keys - j), features, block.k.add(j * size));
        }
        for i in (0..padded).step_by(MR) {
            for j in (0..keys).step_by(NR) {
                let to = block.scores.add(i * block.keys + j);
                let panel = block.k.add(j * size);
                gemm::kernel(block.q.add(i * size), panel, features, to, block.keys, false);
            }
        }
    }

    /// Turns a row of scores into weights e^(score - largest), rescaling what was summed before.
    unsafe fn soften(
        &self,
        block: &Block,
        head: usize,
        query: usize,
        i: usize,
        key: usize,
        keys: usize,
    ) {
        let scores = block.scores.add(i * block.keys);
        self.add_bias(scores, head, query, key, keys);
        let before = *block.largest.add(i);
        let largest = largest_of(scores, keys, before);
        // A row that sees no key yet keeps weights of zero instead of e^(inf - inf).
        let base = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
        let total = exponentials(scores, keys, base);
        if before != largest {
            let factor = exp_scalar(before - base);
            *block.total.add(i) *= factor;
            scale_run(block.sums.add(i * block.size), block.size, factor);
            *block.largest.add(i) = largest;
        }
        *block.total.add(i) += total;
    }

    /// Adds the bias and hides keys beyond the causal edge and beyond `keys` (to a multiple of 4).
    #[inline(always)]
    unsafe fn add_bias(&self, scores: *mut f32, head: usize, query: usize, key: usize, keys: usize) {
        if !self.bias.is_null() {
            let bias = self.bias.add(
                head * self.bias_head_stride as usize + query * self.bias_query_stride as usize + key,
            );
            for j in (0..keys).step_by(4) {
                let sum = f32x4_add(load(scores.add(j)), load_some(bias.add(j), keys - j));
                store(scores.add(j), sum);
            }
        }
        let visible = if self.causal != 0 && query + 1 < key + keys {
            (query + 1).saturating_sub(key)
        } else {
            keys
        };
        for j in visible..gemm::round_up(keys, 4) {
            *scores.add(j) = f32::NEG_INFINITY;
        }
    }

    /// sums [padded, size] += weights [padded, keys] v [keys, size].
    unsafe fn add_values(
        &self,
        block: &Block,
        column: usize,
        key: usize,
        keys: usize,
        padded: usize,
    ) {
        let size = block.size;
        let features = self.size as usize;
        for j in (0..size).step_by(NR) {
            let panel = block.v.add(j * block.keys);
            for r in 0..keys {
                for half in (0..NR).step_by(4) {
                    let value = if j + half < features {
                        let from = self.v.at(key + r).add(column + j + half);
                        load_some(from, features - j - half)
                    } else {
                        f32x4_splat(0.0)
                    };
                    store(panel.add(r * NR + half), value);
                }
            }
        }
        for i in (0..padded).step_by(MR) {
            let source = |r: usize| block.scores.add((i + r) * block.keys) as *const f32;
            gemm::pack_rows(source, MR, keys, block.weights);
            for j in (0..size).step_by(NR) {
                let to = block.sums.add(i * size + j);
                gemm::kernel(block.weights, block.v.add(j * block.keys), keys, to, size, true);
            }
        }
    }

    unsafe fn store(&self, block: &Block, column: usize, first: usize, count: usize) {
        let size = block.size;
        let features = self.size as usize;
        for i in 0..count {
            let inverse = f32x4_splat(1.0 / *block.total.add(i));
            let to = self.output.at(first + i).add(column);
            for j in (0..features).step_by(4) {
                let value = f32x4_mul(load(block.sums.add(i * size + j)), inverse);
                store_some(to.add(j), value, features - j);
            }
        }
    }
}

/// The largest of `start` and a run padded to whole vectors with -infinity.
#[inline(always)]
unsafe fn largest_of(scores: *const f32, count: usize, start: f32) -> f32 {
    let mut largest = [f32x4_splat(start); 2];
    let mut j = 0;
    while j + 8 <= count {
        largest[0] = f32x4_pmax(largest[0], load(scores.add(j)));
        largest[1] = f32x4_pmax(largest[1], load(scores.add(j + 4)));
        j += 8;
    }
    while j < count {
        largest[0] = f32x4_pmax(largest[0], load(scores.add(j)));
        j += 4;
    }
    max_lanes(f32x4_pmax(largest[0], largest[1]))
}

/// Replaces a run of scores by e^(score - base) and gives their sum.
#[inline(always)]
unsafe fn exponentials(scores: *mut f32, count: usize, base: f32) -> f32 {
    let base = f32x4_splat(base);
    let mut total = f32x4_splat(0.0);
    let pairs = count & !7;
    for j in (0..pairs).step_by(8) {
        let shifted = [0, 4].map(|i| f32x4_sub(load(scores.add(j + i)), base));
        let [first, second] = exp_negative(shifted);
        total = f32x4_add(f32x4_add(total, first), second);
        store(scores.add(j), first);
        store(scores.add(j + 4), second);
    }
    for j in (pairs..count).step_by(4) {
        let [weight] = exp_negative([f32x4_sub(load(scores.add(j)), base)]);
        total = f32x4_add(total, weight);
        store(scores.add(j), weight);
    }
    sum_lanes(total)
}

#[inline(always)]
unsafe fn scale_run(values: *mut f32, count: usize, factor: f32) {
    for j in (0..count).step_by(4) {
        store(values.add(j), f32x4_mul(load(values.add(j)), f32x4_splat(factor)));
    }
}
