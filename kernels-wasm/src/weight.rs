//! Weights as they are stored: dense of several types, or codes with scales. Everything a kernel
//! needs of a weight is a run of its values as f32; the words below are written by
//! src/backends/wasm/weight_layout.ts in this order.

use crate::codes::*;
use crate::simd::*;

const DTYPE_F16: u32 = 1;
const DTYPE_BF16: u32 = 2;
const DTYPE_E4M3: u32 = 3;
const DTYPE_E5M2: u32 = 4;

pub const KIND_DENSE: u32 = 0;
const VALUE_TABLE: u32 = 1;
const SCALE_FLOAT: u32 = 0;
const SCALE_NONE: u32 = 2;

/// How the scales (or offsets) of the groups are stored.
#[repr(C)]
pub struct Scale {
    kind: u32,
    dtype: u32,
    data: *const u8,
    bits: u32,
    value_kind: u32,
    zero_point: f32,
    table: *const f32,
    super_group: u32,
    supers: *const u8,
    /// Added last to a coded scale.
    constant: *const f32,
    /// Multiplied last into every weight of a float scale.
    multiplier: f32,
}

/// A weight matrix.
#[repr(C)]
pub struct Weight {
    pub kind: u32,
    dtype: u32,
    pub rows: u32,
    pub columns: u32,
    /// Elements from row to row (dense only).
    row_stride: u32,
    data: *const u8,
    bits: u32,
    value_kind: u32,
    zero_point: f32,
    table: *const f32,
    group: u32,
    scale: Scale,
    offset: Scale,
}

/// As many words as the host writes; src/backends/wasm/weight_layout.ts, DESCRIPTOR_WORDS.
const _: () = assert!(core::mem::size_of::<Weight>() == 33 * 4);

#[inline(always)]
fn half_to_float(h: u32) -> f32 {
    // The exponent is rebased by a multiplication, which also makes subnormals exact.
    let magnitude = f32::from_bits((h & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    let bits = if h & 0x7c00 == 0x7c00 {
        0x7f80_0000 | (h & 0x3ff) << 13
    } else {
        magnitude.to_bits()
    };
    f32::from_bits(bits | (h & 0x8000) << 16)
}

#[inline(always)]
fn e4m3_to_float(code: u32) -> f32 {
    let magnitude = f32::from_bits((code & 0x7f) << 20) * f32::from_bits(0x7b80_0000); // 2^120
    let bits = if code & 0x7f == 0x7f { 0x7fc0_0000 } else { magnitude.to_bits() };
    f32::from_bits(bits | (code & 0x80) << 24)
}

#[inline(always)]
unsafe fn scalar(data: *const u8, dtype: u32, index: usize) -> f32 {
    match dtype {
        DTYPE_F16 => half_to_float(*(data as *const u16).add(index) as u32),
        DTYPE_BF16 => f32::from_bits((*(data as *const u16).add(index) as u32) << 16),
        DTYPE_E4M3 => e4m3_to_float(*data.add(index) as u32),
        DTYPE_E5M2 => half_to_float((*data.add(index) as u32) << 8),
        _ => *(data as *const f32).add(index),
    }
}

/// Code `index` of a bit stream; reads one byte beyond its last.
#[inline(always)]
unsafe fn code_at(data: *const u8, bits: u32, index: usize) -> u32 {
    if bits == 8 {
        return *data.add(index) as u32;
    }
    let bit = index as u64 * bits as u64;
    let pair = core::ptr::read_unaligned(data.add((bit >> 3) as usize) as *const u16) as u32;
    pair >> (bit & 7) & ((1 << bits) - 1)
}

impl Scale {
    #[inline(always)]
    unsafe fn at(&self, group: usize) -> f32 {
        if self.kind == SCALE_FLOAT {
            return scalar(self.data, self.dtype, group);
        }
        let unit = scalar(self.supers, self.dtype, group / self.super_group as usize);
        self.code_value(group) * unit + *self.constant
    }

    /// Those of `count` groups from `first` on.
    unsafe fn values(&self, first: usize, count: usize, out: *mut f32) {
        if self.kind == SCALE_FLOAT {
            return decode_dense(self.data, self.dtype, first, count, out);
        }
        let size = self.super_group as usize;
        let mut group = first;
        while group < first + count {
            let end = ((group / size + 1) * size).min(first + count);
            let unit = scalar(self.supers, self.dtype, group / size);
            for index in group..end {
                *out.add(index - first) = self.code_value(index) * unit + *self.constant;
            }
            group = end;
        }
    }

    /// What the code of a group stands for.
    #[inline(always)]
    unsafe fn code_value(&self, group: usize) -> f32 {
        let code = code_at(self.data, self.bits, group);
        if self.value_kind == VALUE_TABLE {
            *self.table.add(code as usize)
        } else {
            code as f32 - self.zero_point
        }
    }
}

impl Weight {
    /// Whether values are stored as they are, in f32.
    pub fn is_plain(&self) -> bool {
        self.kind == KIND_DENSE && self.dtype == 0
    }

    /// The address of a plain row.
    #[inline(always)]
    pub unsafe fn plain_row(&self, row: usize) -> *const f32 {
        (self.data as *const f32).add(row * self.row_stride as usize)
    }

    /// Writes the f32 values of row `row`, columns [first, first + count), to `out`.
    #[inline(never)]
    pub unsafe fn decode(&self, row: usize, first: usize, count: usize, out: *mut f32) {
        if self.kind == KIND_DENSE {
            let start = row * self.row_stride as usize + first;
            return decode_dense(self.data, self.dtype, start, count, out);
        }
        let group_size = self.group as usize;
        let mut flat = row * self.columns as usize + first;
        let end = flat + count;
        let mut out = out;
        let mut group = flat / group_size;
        while flat < end {
            let run = ((group + 1) * group_size).min(end) - flat;
            self.decode_group(group, flat, run, out);
            flat += run;
            out = out.add(run);
            group += 1;
        }
    }

    #[inline(always)]
    unsafe fn decode_group(&self, group: usize, flat: usize, run: usize, out: *mut f32) {
        let scale = self.scale.at(group);
        self.decode_values(flat, run, scale, out);
        let multiplier = self.scale.multiplier;
        if multiplier != 1.0 {
            for_each_vector(out, run, |v| f32x4_mul(v, f32x4_splat(multiplier)));
        }
        if self.offset.kind != SCALE_NONE {
            let offset = self.offset.at(group);
            for_each_vector(out, run, |v| f32x4_add(v, f32x4_splat(offset)));
        }
    }

    /// value(code) * scale of `run` codes from `flat` on.
    #[inline(always)]
    unsafe fn decode_values(&self, flat: usize, run: usize, scale: f32, out: *mut f32) {
        let is_table = self.value_kind == VALUE_TABLE;
        let mut done = 0;
        if self.bits == 4 && flat & 1 == 0 {
            done = run & !15;
            let codes = self.data.add(flat >> 1);
            if is_table {
                decode_nibble_table(codes, done, self.table, scale, out);
            } else {
                decode_nibble_integer(codes, done, self.zero_point, scale, out);
            }
        } else if self.bits == 8 {
            done = run & !15;
            let codes = self.data.add(flat);
            if is_table {
                decode_byte_table(codes, done, self.table, scale, out);
            } else {
                decode_bytes(codes, done, self.zero_point, scale, out);
            }
        } else if flat & 7 == 0 {
            done = run & !15;
            let codes = self.data.add((flat >> 3) * self.bits as usize);
            if is_table {
                decode_bits_table(codes, self.bits, done, self.table, scale, out);
            } else {
                decode_bits(codes, self.bits, done, self.zero_point, scale, out);
            }
        }
        for i in done..run {
            let code = code_at(self.data, self.bits, flat + i);
            *out.add(i) = scale
                * if is_table { *self.table.add(code as usize) } else { code as f32 - self.zero_point };
        }
    }

    /// Writes the codes of row `row`, columns [first, first + count), as bytes; may write up to 15 more.
    pub unsafe fn codes(&self, row: usize, first: usize, count: usize, out: *mut u8) {
        let flat = row * self.columns as usize + first;
        let bits = self.bits as usize;
        if bits == 8 {
            return core::ptr::copy_nonoverlapping(self.data.add(flat), out, count);
        }
        let mut done = 0;
        if bits == 4 && flat & 1 == 0 {
            done = count & !15;
            split_nibbles(self.data.add(flat >> 1), done, out);
        } else if flat & 7 == 0 {
            done = count & !15;
            split_bits(self.data.add((flat >> 3) * bits), self.bits, done, out);
        }
        for i in done..count {
            *out.add(i) = code_at(self.data, self.bits, flat + i) as u8;
        }
    }

    /// What an integer code of `row` is worth, where rows have one scale.
    #[inline(always)]
    pub unsafe fn row_scale(&self, row: usize) -> f32 {
        let group = row * self.columns as usize / self.group as usize;
        self.scale.at(group) * self.scale.multiplier
    }

    /// The scales of `runs` runs of `run` k from column `first` of a row on, each within one group.
    pub unsafe fn run_scales(&self, row: usize, first: usize, run: usize, runs: usize, out: *mut f32) {
        self.run_values(&self.scale, row, first, run, runs, out);
        let multiplier = f32x4_splat(self.scale.multiplier);
        for_each_vector(out, runs, |v| f32x4_mul(v, multiplier));
    }

    /// What is added to the weights of the same runs.
    pub unsafe fn run_offsets(&self, row: usize, first: usize, run: usize, runs: usize, out: *mut f32) {
        if self.offset.kind == SCALE_NONE {
            core::ptr::write_bytes(out, 0, runs);
        } else {
            self.run_values(&self.offset, row, first, run, runs, out);
        }
    }

    #[inline(always)]
    unsafe fn run_values(
        &self,
        scale: &Scale,
        row: usize,
        first: usize,
        run: usize,
        runs: usize,
        out: *mut f32,
    ) {
        let size = self.group as usize;
        let flat = row * self.columns as usize + first;
        if run == size && flat % size == 0 {
            return scale.values(flat / size, runs, out);
        }
        let (mut group, mut left) = (flat / size, size - flat % size);
        let mut value = scale.at(group);
        for index in 0..runs {
            if left == 0 {
                (group, left) = (group + 1, size);
                value = scale.at(group);
            }
            *out.add(index) = value;
            left = left.saturating_sub(run);
        }
    }
}

#[inline(always)]
unsafe fn for_each_vector(out: *mut f32, count: usize, f: impl Fn(v128) -> v128) {
    let whole = count & !3;
    for i in (0..whole).step_by(4) {
        store(out.add(i), f(load(out.add(i))));
    }
    if whole < count {
        store_some(out.add(whole), f(load_some(out.add(whole), count - whole)), count - whole);
    }
}

unsafe fn decode_dense(data: *const u8, dtype: u32, start: usize, count: usize, out: *mut f32) {
    let whole = count & !7;
    match dtype {
        0 => {
            core::ptr::copy_nonoverlapping((data as *const f32).add(start), out, count);
            return;
        }
        DTYPE_BF16 => {
            for i in (0..whole).step_by(8) {
                let half = v128_load((data as *const u16).add(start + i) as *const v128);
                let zero = u16x8_splat(0);
                store(out.add(i), i16x8_shuffle::<8, 0, 9, 1, 10, 2, 11, 3>(half, zero));
                store(out.add(i + 4), i16x8_shuffle::<8, 4, 9, 5, 10, 6, 11, 7>(half, zero));
            }
        }
        DTYPE_F16 => {
            for i in (0..whole).step_by(8) {
                let half = v128_load((data as *const u16).add(start + i) as *const v128);
                store(out.add(i), halves_to_floats(u32x4_extend_low_u16x8(half)));
                store(out.add(i + 4), halves_to_floats(u32x4_extend_high_u16x8(half)));
            }
        }
        DTYPE_E5M2 | DTYPE_E4M3 => {
            for i in (0..whole).step_by(8) {
                let codes = v128_load64_zero(data.add(start + i) as *const u64);
                let wide = u16x8_extend_low_u8x16(codes);
                let (low, high) = (u32x4_extend_low_u16x8(wide), u32x4_extend_high_u16x8(wide));
                if dtype == DTYPE_E5M2 {
                    store(out.add(i), halves_to_floats(u32x4_shl(low, 8)));
                    store(out.add(i + 4), halves_to_floats(u32x4_shl(high, 8)));
                } else {
                    store(out.add(i), e4m3_to_floats(low));
                    store(out.add(i + 4), e4m3_to_floats(high));
                }
            }
        }
        _ => {}
    }
    for i in whole..count {
        *out.add(i) = scalar(data, dtype, start + i);
    }
}

#[inline(always)]
fn halves_to_floats(h: v128) -> v128 {
    let magnitude = u32x4_shl(v128_and(h, u32x4_splat(0x7fff)), 13);
    let value = f32x4_mul(magnitude, u32x4_splat(0x7780_0000));
    let special = u32x4_ge(magnitude, u32x4_splat(0x7c00 << 13));
    let special_bits = v128_or(magnitude, u32x4_splat(0x7f80_0000));
    let sign = u32x4_shl(v128_and(h, u32x4_splat(0x8000)), 16);
    v128_or(v128_bitselect(special_bits, value, special), sign)
}

#[inline(always)]
fn e4m3_to_floats(codes: v128) -> v128 {
    let low = v128_and(codes, u32x4_splat(0x7f));
    let value = f32x4_mul(u32x4_shl(low, 20), u32x4_splat(0x7b80_0000));
    let nan = i32x4_eq(low, u32x4_splat(0x7f));
    let sign = u32x4_shl(v128_and(codes, u32x4_splat(0x80)), 24);
    v128_or(v128_bitselect(u32x4_splat(0x7fc0_0000), value, nan), sign)
}
