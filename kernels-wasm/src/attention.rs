//! attention: softmax(scale q k^T + bias) v per head, over blocks of keys with an online softmax (Dao et al.,
//! FlashAttention), so that no [queries, keys] matrix is ever stored.
//!
//! Everything is computed transposed, for panels of 8 queries: scores [keys, 8] = k q^T and sums [features, 8]
//! += v^T weights. So the scores lie as the second product reads them, the softmax runs down the lanes, and
//! only k and v are packed, once for all queries of a tile.

use crate::attention_int8::{rounding_floats, Rounding};
use crate::control::Context;
use crate::gemm::{self, MR, NR, SCRATCH_BYTES};
use crate::linear::Rows;
use crate::softmax::{soften, Softmax};
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
    /// 1: q and k are rounded to int8.
    int8: u32,
    q: Rows,
    k: Rows,
    v: Rows,
    output: Rows,
    bias: *const f32,
    /// Elements from head to head and from query to query of the bias.
    bias_head_stride: u32,
    bias_query_stride: u32,
}

/// Keys of a block, and of heads so wide that their packed keys would fill the caches.
const KEYS: usize = 132;
const WIDE_KEYS: usize = 60;
const WIDE: usize = 256;
/// The widest head; src/backends/wasm/encode_fused.ts holds the same.
const MAX_SIZE: usize = 768;

const _: () = assert!(KEYS % MR == 0 && WIDE_KEYS % MR == 0);
const _: () = assert!(block_floats(WIDE) + 2 * panel_floats(WIDE) < SCRATCH_BYTES / 4);
const _: () = assert!(block_floats(MAX_SIZE) + 2 * panel_floats(MAX_SIZE) < SCRATCH_BYTES / 4);

/// Features, rounded up to what packing writes and to whole micro tiles.
const fn packed_size(size: usize) -> usize {
    size.div_ceil(4) * 4
}
const fn summed_size(size: usize) -> usize {
    size.div_ceil(MR) * MR
}

/// Packed queries and their scales, sums, bases and totals of the weights of 8 queries.
const fn panel_floats(size: usize) -> usize {
    (packed_size(size) + summed_size(size) + 3) * NR
}

const fn block_keys(size: usize) -> usize {
    if size > WIDE { WIDE_KEYS } else { KEYS }
}

/// Packed keys and values, scores, what rounding needs.
const fn block_floats(size: usize) -> usize {
    let keys = block_keys(size);
    keys * (packed_size(size) + summed_size(size) + NR) + rounding_floats(size, keys)
}

/// 8 queries on their way through the keys.
struct Panel {
    /// The first query.
    query: usize,
    /// [features, 8], or codes.
    q: *mut f32,
    /// [8]: what codes are worth, times the attention's scale.
    q_scales: *mut f32,
    softmax: Softmax,
}

/// The regions of one worker's scratch.
struct Block {
    size: usize,
    /// Keys of a block.
    keys: usize,
    k: *mut f32,
    v: *mut f32,
    scores: *mut f32,
    rounding: Rounding,
    panels: *mut f32,
    /// Panels that fit.
    most_panels: usize,
}

impl Block {
    unsafe fn new(context: &Context, size: usize) -> Block {
        let keys = block_keys(size);
        let k = context.scratch as *mut f32;
        let v = k.add(keys * packed_size(size));
        let scores = v.add(keys * summed_size(size));
        let rounding = Rounding::new(scores.add(keys * NR), size);
        let panels = k.add(block_floats(size));
        let most_panels = (SCRATCH_BYTES / 4 - block_floats(size)) / panel_floats(size);
        Block { size, keys, k, v, scores, rounding, panels, most_panels }
    }

    /// Panel `index` of a tile that begins at query `first`.
    unsafe fn panel(&self, first: usize, index: usize) -> Panel {
        let q = self.panels.add(index * panel_floats(self.size));
        let features = summed_size(self.size);
        let sums = q.add(packed_size(self.size) * NR);
        let base = sums.add(features * NR);
        let softmax = Softmax { base, total: base.add(NR), sums, features };
        Panel { query: first + index * NR, q, q_scales: base.add(2 * NR), softmax }
    }
}

/// Panels of a tile: as many as fit, fewer when there would be too few tiles to share.
fn tile_panels(panels: usize, most: usize, heads: usize, threads: usize) -> usize {
    let wanted = if threads == 1 { 1 } else { 3 * threads };
    let mut tiles = panels.div_ceil(most);
    while heads * tiles < wanted && tiles * 4 <= panels {
        tiles *= 2;
    }
    panels.div_ceil(tiles)
}

pub unsafe fn run(p: &Attention, context: &Context) {
    let block = Block::new(context, p.size as usize);
    let panels = (p.queries as usize).div_ceil(NR);
    let heads = p.heads as usize;
    let per_tile = tile_panels(panels, block.most_panels, heads, context.threads);
    let tiles = panels.div_ceil(per_tile);
    while let Some(tile) = context.next_tile(tiles * heads) {
        let first = tile % tiles * per_tile;
        p.run_tile(&block, tile / tiles, first * NR, per_tile.min(panels - first));
    }
}

impl Attention {
    unsafe fn run_tile(&self, block: &Block, head: usize, first: usize, panels: usize) {
        let column = head * self.size as usize;
        if self.int8 != 0 {
            block.rounding.find_mean(|j| self.k.at(j).add(column), self.keys as usize);
        }
        for i in 0..panels {
            self.begin(block, &block.panel(first, i), column);
        }
        let end = self.visible_keys(first + (panels - 1) * NR);
        for key in (0..end).step_by(block.keys) {
            let keys = block.keys.min(end - key);
            self.pack_keys(block, column, key, keys);
            self.pack_values(block, column, key, keys);
            for i in 0..panels {
                let panel = block.panel(first, i);
                let seen = self.visible_keys(panel.query).saturating_sub(key).min(keys);
                self.score(block, &panel, seen);
                self.add_bias(block, &panel, head, key, seen);
                soften(block.scores, seen, &panel.softmax);
                self.add_values(block, &panel, keys, seen);
            }
        }
        for i in 0..panels {
            self.store(&block.panel(first, i), column);
        }
    }

    /// Keys that any query of the panel that begins at `query` sees.
    fn visible_keys(&self, query: usize) -> usize {
        let keys = self.keys as usize;
        if self.causal != 0 { keys.min(query + NR) } else { keys }
    }

    /// Queries of a panel; a full one but at the end.
    fn count(&self, panel: &Panel) -> usize {
        NR.min(self.queries as usize - panel.query)
    }

    /// Packs the queries of a panel and empties its sums.
    unsafe fn begin(&self, block: &Block, panel: &Panel, column: usize) {
        let features = self.size as usize;
        let source = |r: usize| self.q.at(panel.query + r).add(column) as *const f32;
        let (count, scale) = (self.count(panel), f32x4_splat(self.scale));
        if self.int8 != 0 {
            block.rounding.pack_queries(source, count, panel.q, panel.q_scales);
            scale_run(panel.q_scales, NR, scale);
        } else {
            gemm::pack_panel(source, count, features, panel.q);
            scale_run(panel.q, features * NR, scale);
        }
        core::ptr::write_bytes(panel.softmax.sums, 0, summed_size(features) * NR);
        // Without any key the sums are not divided.
        let total = f32x4_splat(if self.keys == 0 { 1.0 } else { 0.0 });
        for half in [0, 4] {
            store(panel.softmax.base.add(half), f32x4_splat(f32::NEG_INFINITY));
            store(panel.softmax.total.add(half), total);
        }
    }

    /// Keys as strips [features][MR], or as codes.
    unsafe fn pack_keys(&self, block: &Block, column: usize, key: usize, keys: usize) {
        if self.int8 != 0 {
            return block.rounding.pack_keys(|r| self.k.at(key + r).add(column), keys, block.k);
        }
        for i in (0..keys).step_by(MR) {
            let source = |r: usize| self.k.at(key + i + r).add(column) as *const f32;
            let strip = block.k.add(i * packed_size(block.size));
            gemm::pack_rows(source, MR.min(keys - i), block.size, strip);
        }
    }

    /// Values as strips [keys][MR features], one for each MR features.
    unsafe fn pack_values(&self, block: &Block, column: usize, key: usize, keys: usize) {
        let whole = block.size / MR * MR;
        for r in 0..keys {
            let from = self.v.at(key + r).add(column) as *const f32;
            let at = |feature: usize| block.v.add(feature * keys + r * MR);
            for feature in (0..whole).step_by(MR) {
                store(at(feature), load(from.add(feature)));
                let rest = v128_load64_zero(from.add(feature + 4) as *const u64);
                v128_store64_lane::<0>(rest, at(feature).add(4) as *mut u64);
            }
            for feature in whole..summed_size(block.size) {
                let value = if feature < block.size { *from.add(feature) } else { 0.0 };
                *at(whole).add(feature - whole) = value;
            }
        }
    }

    /// scores [seen, 8] = k q^T of a block of keys.
    unsafe fn score(&self, block: &Block, panel: &Panel, seen: usize) {
        let size = block.size;
        if self.int8 != 0 {
            let Panel { q, q_scales, .. } = *panel;
            return block.rounding.score(block.k, q, q_scales, block.scores, seen);
        }
        for i in (0..seen).step_by(MR) {
            let strip = block.k.add(i * packed_size(size));
            gemm::kernel(strip, panel.q, size, block.scores.add(i * NR), NR, false);
        }
    }

    /// Adds the bias and hides keys beyond the causal edge.
    #[inline(always)]
    unsafe fn add_bias(&self, block: &Block, panel: &Panel, head: usize, key: usize, seen: usize) {
        if !self.bias.is_null() {
            let head = self.bias.add(head * self.bias_head_stride as usize);
            for i in 0..self.count(panel) {
                let row = head.add((panel.query + i) * self.bias_query_stride as usize + key);
                for j in 0..seen {
                    *block.scores.add(j * NR + i) += *row.add(j);
                }
            }
        }
        if self.causal != 0 {
            for j in (panel.query + 1).saturating_sub(key)..seen {
                let hidden = (key + j).saturating_sub(panel.query).min(NR);
                core::slice::from_raw_parts_mut(block.scores.add(j * NR), hidden)
                    .fill(f32::NEG_INFINITY);
            }
        }
    }

    /// sums [features, 8] += v^T weights.
    unsafe fn add_values(&self, block: &Block, panel: &Panel, keys: usize, seen: usize) {
        for feature in (0..block.size).step_by(MR) {
            let strip = block.v.add(feature * keys);
            gemm::kernel(strip, block.scores, seen, panel.softmax.sums.add(feature * NR), NR, true);
        }
    }

    unsafe fn store(&self, panel: &Panel, column: usize) {
        let features = self.size as usize;
        let count = self.count(panel);
        for half in (0..count).step_by(4) {
            let inverse = f32x4_div(f32x4_splat(1.0), load(panel.softmax.total.add(half)));
            for feature in (0..features).step_by(4) {
                let at = |r: usize| {
                    let from = panel.softmax.sums.add((feature + r) * NR + half);
                    f32x4_mul(load(from), inverse)
                };
                let (a, b, c, d) = transpose(at(0), at(1), at(2), at(3));
                for (r, row) in [a, b, c, d].into_iter().enumerate().take(count - half) {
                    let to = self.output.at(panel.query + half + r).add(column + feature);
                    store_some(to, row, features - feature);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn scale_run(values: *mut f32, count: usize, factor: v128) {
    for j in (0..count).step_by(4) {
        store(values.add(j), f32x4_mul(load(values.add(j)), factor));
    }
}
