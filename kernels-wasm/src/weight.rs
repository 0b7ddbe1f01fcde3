//! Weights as they are stored: dense of several types, or codes with scales. Everything a kernel
//! needs of a weight is a run of its values as f32; the words below are written by
//! src/backends/wasm/weight_layout.ts in this order.

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

/// Code `index` of a bit stream; reads one byte beyond its last (units are padded for that).
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
        let code = code_at(self.data, self.bits, group);
        let value = if self.value_kind == VALUE_TABLE {
            *self.table.add(code as usize)
        } else {
            code as f32 - self.zero_point
        };
        value * scalar(self.supers, self.dtype, group / self.super_group as usize) + *self.constant
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
            done = run & !31;
            let codes = self.data.add(flat >> 1);
            if is_table {
                decode_nibble_table(codes, done, self.table, scale, out);
            } else {
                decode_nibble_integer(codes, done, self.zero_point, scale, out);
            }
        } else if self.bits == 8 && !is_table {
            done = run & !15;
            decode_bytes(self.data.add(flat), done, self.zero_point, scale, out);
        }
        for i in done..run {
            let code = code_at(self.data, self.bits, flat + i);
            *out.add(i) = scale
                * if is_table { *self.table.add(code as usize) } else { code as f32 - self.zero_point };
        }
    }

    /// Writes the integers code - zero point of a row as i16.
    pub unsafe fn decode_integers(&self, row: usize, first: usize, count: usize, out: *mut i16) {
        let flat = row * self.columns as usize + first;
        let zero = self.zero_point as i32;
        let mut done = 0;
        if self.bits == 8 {
            done = count & !15;
            let zeros = i16x8_splat(zero as i16);
            for i in (0..done).step_by(16) {
                let codes = v128_load(self.data.add(flat + i) as *const v128);
                let low = i16x8_sub(u16x8_extend_low_u8x16(codes), zeros);
                let high = i16x8_sub(u16x8_extend_high_u8x16(codes), zeros);
                v128_store(out.add(i) as *mut v128, low);
                v128_store(out.add(i + 8) as *mut v128, high);
            }
        }
        for i in done..count {
            *out.add(i) = (code_at(self.data, self.bits, flat + i) as i32 - zero) as i16;
        }
    }

    /// What an integer code of `row` is worth, for weights with one scale per row.
    pub unsafe fn row_scale(&self, row: usize) -> f32 {
        self.scale.at(row) * self.scale.multiplier
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

#[inline(always)]
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

/// The byte planes of a table of 16 floats: plane b holds byte b of every entry.
#[inline(always)]
unsafe fn byte_planes(table: *const f32) -> (v128, v128, v128, v128) {
    let (a, b) = (load(table), load(table.add(4)));
    let (c, d) = (load(table.add(8)), load(table.add(12)));
    // Bytes of 4 entries grouped by plane, then 4x4 words transposed.
    let a = i8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(a, a);
    let b = i8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(b, b);
    let c = i8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(c, c);
    let d = i8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(d, d);
    transpose(a, b, c, d)
}

/// Splits 16 bytes into their 32 nibbles in order.
#[inline(always)]
fn nibbles(bytes: v128) -> (v128, v128) {
    let low = v128_and(bytes, u8x16_splat(15));
    let high = u8x16_shr(bytes, 4);
    (
        i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(low, high),
        i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(low, high),
    )
}

/// `count` (a multiple of 32) 4-bit codes through a table of 16.
#[inline(always)]
unsafe fn decode_nibble_table(
    codes: *const u8,
    count: usize,
    table: *const f32,
    scale: f32,
    out: *mut f32,
) {
    if count == 0 {
        return;
    }
    // Scaling the table first gives the same products: value * scale, rounded once.
    let mut scaled = [0f32; 16];
    for i in (0..16).step_by(4) {
        store(scaled.as_mut_ptr().add(i), f32x4_mul(load(table.add(i)), f32x4_splat(scale)));
    }
    let (p0, p1, p2, p3) = byte_planes(scaled.as_ptr());
    for i in (0..count).step_by(32) {
        let (first, second) = nibbles(v128_load(codes.add(i >> 1) as *const v128));
        pick_floats(first, p0, p1, p2, p3, out.add(i));
        pick_floats(second, p0, p1, p2, p3, out.add(i + 16));
    }
}

/// 16 table entries by their indices, assembled from the byte planes.
#[inline(always)]
unsafe fn pick_floats(indices: v128, p0: v128, p1: v128, p2: v128, p3: v128, out: *mut f32) {
    let (b0, b1) = (pick_bytes(p0, indices), pick_bytes(p1, indices));
    let (b2, b3) = (pick_bytes(p2, indices), pick_bytes(p3, indices));
    let low01 = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(b0, b1);
    let low23 = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(b2, b3);
    store(out, i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(low01, low23));
    store(out.add(4), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(low01, low23));
    let high01 = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(b0, b1);
    let high23 = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(b2, b3);
    store(out.add(8), i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(high01, high23));
    store(out.add(12), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(high01, high23));
}

/// 16 unsigned bytes as floats: (code - zero) * scale.
#[inline(always)]
unsafe fn widen_bytes(codes: v128, zero: v128, scale: v128, out: *mut f32) {
    let low = u16x8_extend_low_u8x16(codes);
    let high = u16x8_extend_high_u8x16(codes);
    let quarters = [
        u32x4_extend_low_u16x8(low),
        u32x4_extend_high_u16x8(low),
        u32x4_extend_low_u16x8(high),
        u32x4_extend_high_u16x8(high),
    ];
    for (i, quarter) in quarters.into_iter().enumerate() {
        let value = f32x4_sub(f32x4_convert_i32x4(quarter), zero);
        store(out.add(4 * i), f32x4_mul(value, scale));
    }
}

#[inline(always)]
unsafe fn decode_nibble_integer(codes: *const u8, count: usize, zero: f32, scale: f32, out: *mut f32) {
    let (zero, scale) = (f32x4_splat(zero), f32x4_splat(scale));
    for i in (0..count).step_by(32) {
        let (first, second) = nibbles(v128_load(codes.add(i >> 1) as *const v128));
        widen_bytes(first, zero, scale, out.add(i));
        widen_bytes(second, zero, scale, out.add(i + 16));
    }
}

#[inline(always)]
unsafe fn decode_bytes(codes: *const u8, count: usize, zero: f32, scale: f32, out: *mut f32) {
    let (zero, scale) = (f32x4_splat(zero), f32x4_splat(scale));
    for i in (0..count).step_by(16) {
        widen_bytes(v128_load(codes.add(i) as *const v128), zero, scale, out.add(i));
    }
}
