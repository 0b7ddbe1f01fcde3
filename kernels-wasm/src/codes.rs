//! Codes to floats, many at a time.

use crate::simd::*;

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

/// `count` (a multiple of 16) 4-bit codes through a table of 16.
#[inline(always)]
pub unsafe fn decode_nibble_table(
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
    let whole = count & !31;
    for i in (0..whole).step_by(32) {
        let (first, second) = nibbles(v128_load(codes.add(i >> 1) as *const v128));
        pick_floats(first, p0, p1, p2, p3, out.add(i));
        pick_floats(second, p0, p1, p2, p3, out.add(i + 16));
    }
    if whole < count {
        let (first, _) = nibbles(v128_load64_zero(codes.add(whole >> 1) as *const u64));
        pick_floats(first, p0, p1, p2, p3, out.add(whole));
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
        scale_four(quarter, zero, scale, out.add(4 * i));
    }
}

/// `count` (a multiple of 16) 4-bit codes: (code - zero) * scale.
#[inline(always)]
pub unsafe fn decode_nibble_integer(codes: *const u8, count: usize, zero: f32, scale: f32, out: *mut f32) {
    let (zero, scale) = (f32x4_splat(zero), f32x4_splat(scale));
    let whole = count & !31;
    for i in (0..whole).step_by(32) {
        let (first, second) = nibbles(v128_load(codes.add(i >> 1) as *const v128));
        widen_bytes(first, zero, scale, out.add(i));
        widen_bytes(second, zero, scale, out.add(i + 16));
    }
    if whole < count {
        let (first, _) = nibbles(v128_load64_zero(codes.add(whole >> 1) as *const u64));
        widen_bytes(first, zero, scale, out.add(whole));
    }
}

/// `count` (a multiple of 16) 8-bit codes: (code - zero) * scale.
#[inline(always)]
pub unsafe fn decode_bytes(codes: *const u8, count: usize, zero: f32, scale: f32, out: *mut f32) {
    let (zero, scale) = (f32x4_splat(zero), f32x4_splat(scale));
    for i in (0..count).step_by(16) {
        widen_bytes(v128_load(codes.add(i) as *const v128), zero, scale, out.add(i));
    }
}

/// `count` (a multiple of 8) 8-bit codes through a table of 256, times the scale.
#[inline(always)]
pub unsafe fn decode_byte_table(
    codes: *const u8,
    count: usize,
    table: *const f32,
    scale: f32,
    out: *mut f32,
) {
    let scale = f32x4_splat(scale);
    for i in (0..count).step_by(8) {
        let eight = core::ptr::read_unaligned(codes.add(i) as *const u64);
        for (half, four) in [eight as u32, (eight >> 32) as u32].into_iter().enumerate() {
            let entry = |lane: u32| table.add((four >> (8 * lane) & 255) as usize) as *const u32;
            let value = v128_load32_zero(entry(0));
            let value = v128_load32_lane::<1>(value, entry(1));
            let value = v128_load32_lane::<2>(value, entry(2));
            let value = v128_load32_lane::<3>(value, entry(3));
            store(out.add(i + 4 * half), f32x4_mul(value, scale));
        }
    }
}

/// How eight codes of some width are taken out of their bytes: each 16-bit lane gets the two bytes that
/// hold its code, a product moves the code to the lane's top, and one shift brings it down.
struct Extraction {
    first: [u8; 16],
    second: [u8; 16],
    factors: [u16; 8],
}

const fn extraction(bits: usize) -> Extraction {
    let mut e = Extraction { first: [0; 16], second: [0; 16], factors: [0; 8] };
    let mut lane = 0;
    while lane < 8 && bits > 0 {
        let bit = lane * bits;
        let byte = (bit / 8) as u8;
        e.first[2 * lane] = byte;
        e.first[2 * lane + 1] = byte + 1;
        e.second[2 * lane] = byte + bits as u8;
        e.second[2 * lane + 1] = byte + bits as u8 + 1;
        e.factors[lane] = 1 << (16 - bits - bit % 8);
        lane += 1;
    }
    e
}

static EXTRACTIONS: [Extraction; 8] = [
    extraction(0),
    extraction(1),
    extraction(2),
    extraction(3),
    extraction(4),
    extraction(5),
    extraction(6),
    extraction(7),
];

/// Eight codes in 16-bit lanes, from each of the two halves of the bytes of sixteen.
struct Extractor {
    first: v128,
    second: v128,
    factors: v128,
    bits: u32,
}

impl Extractor {
    #[inline(always)]
    unsafe fn new(bits: u32) -> Self {
        let e = &EXTRACTIONS[(bits & 7) as usize];
        Extractor {
            first: v128_load(e.first.as_ptr() as *const v128),
            second: v128_load(e.second.as_ptr() as *const v128),
            factors: v128_load(e.factors.as_ptr() as *const v128),
            bits,
        }
    }

    #[inline(always)]
    fn eight(&self, bytes: v128, indices: v128) -> v128 {
        u16x8_shr(i16x8_mul(pick_bytes(bytes, indices), self.factors), 16 - self.bits)
    }
}

/// `count` (a multiple of 16) codes of 1 to 7 bits, beginning at a whole byte: (code - zero) * scale. Reads
/// up to 14 bytes beyond them.
#[inline(always)]
pub unsafe fn decode_bits(
    codes: *const u8,
    bits: u32,
    count: usize,
    zero: f32,
    scale: f32,
    out: *mut f32,
) {
    let e = Extractor::new(bits);
    let (zero, scale) = (f32x4_splat(zero), f32x4_splat(scale));
    for i in (0..count).step_by(16) {
        let bytes = v128_load(codes.add(i / 8 * bits as usize) as *const v128);
        for (half, indices) in [e.first, e.second].into_iter().enumerate() {
            let eight = e.eight(bytes, indices);
            let to = out.add(i + 8 * half);
            scale_four(u32x4_extend_low_u16x8(eight), zero, scale, to);
            scale_four(u32x4_extend_high_u16x8(eight), zero, scale, to.add(4));
        }
    }
}

/// Codes whose bytes are held at once.
const CHUNK: usize = 64;

/// `count` (a multiple of 16) codes of 1 to 7 bits, beginning at a whole byte, through a table, times the scale.
/// Reads up to 14 bytes beyond them.
#[inline(always)]
pub unsafe fn decode_bits_table(
    codes: *const u8,
    bits: u32,
    count: usize,
    table: *const f32,
    scale: f32,
    out: *mut f32,
) {
    let mut bytes = [0u8; CHUNK];
    for i in (0..count).step_by(CHUNK) {
        let some = CHUNK.min(count - i);
        split_bits(codes.add(i / 8 * bits as usize), bits, some, bytes.as_mut_ptr());
        decode_byte_table(bytes.as_ptr(), some, table, scale, out.add(i));
    }
}

/// `count` (a multiple of 16) codes of 1 to 7 bits, beginning at a whole byte, as bytes. Reads up to 14
/// bytes beyond them.
#[inline(always)]
pub unsafe fn split_bits(codes: *const u8, bits: u32, count: usize, out: *mut u8) {
    let e = Extractor::new(bits);
    for i in (0..count).step_by(16) {
        let bytes = v128_load(codes.add(i / 8 * bits as usize) as *const v128);
        let (low, high) = (e.eight(bytes, e.first), e.eight(bytes, e.second));
        v128_store(out.add(i) as *mut v128, u8x16_narrow_i16x8(low, high));
    }
}

/// `count` (a multiple of 16) 4-bit codes as bytes.
#[inline(always)]
pub unsafe fn split_nibbles(codes: *const u8, count: usize, out: *mut u8) {
    for i in (0..count).step_by(16) {
        let (first, _) = nibbles(v128_load64_zero(codes.add(i >> 1) as *const u64));
        v128_store(out.add(i) as *mut v128, first);
    }
}

#[inline(always)]
unsafe fn scale_four(codes: v128, zero: v128, scale: v128, out: *mut f32) {
    store(out, f32x4_mul(f32x4_sub(f32x4_convert_i32x4(codes), zero), scale));
}
