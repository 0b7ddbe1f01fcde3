//! The kernels that quantize weights. Each call works on a run of a dense matrix, which lies in the memory or
//! was brought into it, and writes what it makes of it and nothing beside. Results are the bytes that the
//! Python libraries give on a CPU: every product, quotient and sum is rounded to float32, in their order.
//!
//! Nothing here allocates, and no engine may fuse anything: a run gives the same bytes on every machine.

#![no_std]
#![feature(abi_unadjusted, link_llvm_intrinsics, repr_simd, simd_ffi)]
#![allow(internal_features)]
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments, clippy::needless_range_loop)]

mod blocks;
mod blocks_32;
mod blocks_fp4;
mod blocks_iq4;
mod blocks_k;
mod bytes;
mod cast;
mod cells;
mod encode;
mod fused;
mod hqq;
mod lanes;
mod numbers;
mod pack;
mod power;
mod ranges;
mod searches;
mod split;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// The least and largest value of each group that the run touches; 1 when all values are finite, else 0.
/// `head` values belong to the first group, `group` to each of the others.
#[no_mangle]
pub unsafe extern "C" fn ranges(
    input: *const u8,
    dtype: u32,
    count: usize,
    head: usize,
    group: usize,
    least: *mut f32,
    largest: *mut f32,
) -> u32 {
    u32::from(ranges::run(input, dtype, count, head, group, least, largest))
}

/// Codes of a run, packed; 1 when all values are finite, else 0.
#[no_mangle]
pub unsafe extern "C" fn encode(rule: *const encode::Rule, input: *const u8, out: *mut u8) -> u32 {
    u32::from(encode::run(&*rule, input, out))
}

/// Codes of a run, packed, of values times the reciprocal of their group's largest magnitude, which counts as `least`
/// at least; 1 when all values are finite, else 0. `ends` is for two numbers a group: the rule's factors lie there
/// first, then the magnitudes.
#[no_mangle]
pub unsafe extern "C" fn normalize(
    rule: *const encode::Rule,
    input: *const u8,
    ends: *mut f32,
    least: f32,
    out: *mut u8,
) -> u32 {
    u32::from(encode::normalize(&*rule, input, ends, least, out))
}

/// Blocks of GGUF; 1 when all values are finite and in the range of float16 scales, else 0.
#[no_mangle]
pub unsafe extern "C" fn blocks(
    kind: u32,
    input: *const u8,
    dtype: u32,
    count: usize,
    out: *mut u8,
) -> u32 {
    let good = match kind {
        0..=4 => blocks_32::run(kind, input, dtype, count, out),
        5..=9 => blocks_k::run(kind, input, dtype, count, out),
        10 | 11 => blocks_iq4::run(kind, input, dtype, count, out),
        _ => blocks_fp4::run(kind, input, dtype, count, out),
    };
    u32::from(good & blocks::have_finite_scales(kind, count, out))
}

/// Takes `count` blocks of GGUF apart; each stream may be written 7 bytes further.
#[no_mangle]
pub unsafe extern "C" fn split(
    kind: u32,
    input: *const u8,
    count: usize,
    codes: *mut u8,
    scale: *mut u8,
    scale_supers: *mut u8,
    offset: *mut u8,
    offset_supers: *mut u8,
) {
    let mut streams = split::Streams { codes, scale, scale_supers, offset, offset_supers };
    split::run(kind, input, count, &mut streams);
}

/// Swaps the nibbles of bytes, in place.
#[no_mangle]
pub unsafe extern "C" fn swap_nibbles(bytes: *mut u8, count: usize) {
    bytes::swap_nibbles(bytes, count);
}

/// Turns the bits of `mask` over in all bytes, in place.
#[no_mangle]
pub unsafe extern "C" fn flip_bits(bytes: *mut u8, count: usize, mask: u8) {
    bytes::flip_bits(bytes, count, mask);
}

/// 1 when no number among bytes is NaN or infinite, else 0; the words repeat the bits of an element.
#[no_mangle]
pub unsafe extern "C" fn is_finite(
    bytes: *const u8,
    count: usize,
    special: i32,
    lowest: i32,
    sign: i32,
) -> u32 {
    u32::from(bytes::is_finite(bytes, count, special, lowest, sign))
}

/// One turn of half-quadratic quantization: `errors` before it, and new zeros in place of the turn's; 1 when
/// all values are finite, else 0.
#[no_mangle]
pub unsafe extern "C" fn hqq(turn: *const hqq::Turn, input: *const u8, errors: *mut f32) -> u32 {
    u32::from(hqq::run(&*turn, input, errors))
}

/// a * b + c of four lanes, which lie one after another, in place of a, and whether the quick way doubts it;
/// with `exact` by sums that leave no doubt. For tests.
#[no_mangle]
pub unsafe extern "C" fn multiply_add(lanes: *mut f32, exact: u32) -> u32 {
    let [a, b, c] = [0, 4, 8].map(|at| numbers::load(lanes.add(at)));
    let mut quick = fused::Fused::<false>::new();
    let found = match exact {
        0 => quick.multiply_add(a, b, c),
        _ => fused::Fused::<true>::new().multiply_add(a, b, c),
    };
    numbers::store(lanes, found);
    u32::from(quick.is_doubtful())
}

/// Numbers to the power -0.3, four at a time and in place; with `exact` by sums that leave no doubt. For tests.
#[no_mangle]
pub unsafe extern "C" fn powers(values: *mut f32, count: usize, exact: u32) {
    for i in (0..count).step_by(4) {
        let bases = numbers::load(values.add(i));
        let found = if exact != 0 { power::exact_powers(bases) } else { power::powers(bases) };
        numbers::store(values.add(i), found);
    }
}
