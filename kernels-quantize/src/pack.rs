//! Codes, one per byte, into a dense little-endian bit stream.

/// Packs `count` codes; nothing behind the last byte changes.
pub unsafe fn pack(codes: *const u8, count: usize, bits: u32, out: *mut u8) {
    if bits == 8 {
        return core::ptr::copy_nonoverlapping(codes, out, count);
    }
    let bytes = bits as usize;
    let end = (count * bytes).div_ceil(8);
    for i in (0..count).step_by(8) {
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

/// Eight codes of one byte each, joined to eight codes of `bits` bits.
#[inline(always)]
pub fn join(codes: u64, bits: u32) -> u64 {
    let pairs = (codes & 0x00ff_00ff_00ff_00ff) | (codes & 0xff00_ff00_ff00_ff00) >> (8 - bits);
    let fours =
        (pairs & 0x0000_ffff_0000_ffff) | (pairs & 0xffff_0000_ffff_0000) >> (16 - 2 * bits);
    (fours & 0xffff_ffff) | (fours >> 32) << (4 * bits)
}
