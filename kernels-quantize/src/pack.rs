//! Codes, one per byte, into a dense little-endian bit stream.

use core::arch::wasm32::*;

/// Packs `count` codes; nothing behind the last byte changes.
pub unsafe fn pack(codes: *const u8, count: usize, bits: u32, out: *mut u8) {
    if bits == 8 {
        return core::ptr::copy_nonoverlapping(codes, out, count);
    }
    let bytes = bits as usize;
    let end = (count * bytes).div_ceil(8);
    let packed = if bits == 4 { pack_nibbles(codes, count, out) } else { 0 };
    for i in (packed..count).step_by(8) {
        let eight = (codes.add(i) as *const u64).read_unaligned();
        let kept = if count - i < 8 { eight & ((1u64 << (8 * (count - i))) - 1) } else { eight };
        let (joined, at) = (join(kept, bits), i / 8 * bytes);
        if at + 8 <= end {
            (out.add(at) as *mut u64).write_unaligned(joined);
        } else {
            let rest = joined.to_le_bytes();
            core::ptr::copy_nonoverlapping(rest.as_ptr(), out.add(at), bytes.min(end - at));
        }
    }
}

/// Pairs of codes of four bits, 32 at a time; gives how many it did.
unsafe fn pack_nibbles(codes: *const u8, count: usize, out: *mut u8) -> usize {
    let pairs = |at: usize| {
        let sixteen = v128_load(codes.add(at) as *const v128);
        v128_and(v128_or(sixteen, u16x8_shr(sixteen, 4)), u16x8_splat(0xff))
    };
    let whole = count & !31;
    for i in (0..whole).step_by(32) {
        v128_store(out.add(i / 2) as *mut v128, u8x16_narrow_i16x8(pairs(i), pairs(i + 16)));
    }
    whole
}

/// Eight codes of one byte each, joined to eight codes of `bits` bits.
#[inline(always)]
pub fn join(codes: u64, bits: u32) -> u64 {
    let pairs = (codes & 0x00ff_00ff_00ff_00ff) | (codes & 0xff00_ff00_ff00_ff00) >> (8 - bits);
    let fours =
        (pairs & 0x0000_ffff_0000_ffff) | (pairs & 0xffff_0000_ffff_0000) >> (16 - 2 * bits);
    (fours & 0xffff_ffff) | (fours >> 32) << (4 * bits)
}
