//! The kernels of halftone's WebAssembly backend. Every worker calls `run_tape`: it walks the plan's
//! steps, takes tiles of each step from a shared counter and meets the others at a barrier.
//!
//! Nothing here allocates: the host hands out every byte. The result of a tile never depends on which
//! worker computes it, so a run gives the same bytes for any number of threads.

#![no_std]
#![feature(asm_experimental_arch, optimize_attribute, stdarch_wasm_atomic_wait)]
#![allow(clippy::missing_safety_doc, clippy::too_many_arguments, clippy::needless_range_loop)]

mod activations;
mod attention;
mod attention_int8;
mod codes;
mod control;
mod convolution;
mod elementwise;
mod gemm;
mod gemv;
mod integer_gemm;
mod integer_kernel;
mod integer_pack;
mod kernel_rates;
mod linear;
mod linear_int8;
mod linear_integer;
mod math;
mod matmul;
mod microkernel;

mod norm;
mod opcodes;
mod rope;
mod simd;
mod softmax;
mod strips;
mod tape;
mod weight;
mod winograd;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// Bytes of scratch every worker needs.
#[no_mangle]
pub extern "C" fn scratch_bytes() -> usize {
    gemm::SCRATCH_BYTES
}

/// Runs `steps` steps of the tape as worker `thread` of `threads`; gives 0 when all of them ran.
#[no_mangle]
pub unsafe extern "C" fn run_tape(
    tape: *const u32,
    steps: usize,
    control: *mut u32,
    thread: usize,
    threads: usize,
    scratch: *mut u8,
) -> u32 {
    tape::run(tape, steps, &control::Context::new(control, thread, threads, scratch))
}

/// Runs a microkernel alone; see kernel_rates.rs.
#[no_mangle]
pub unsafe extern "C" fn run_microkernel(kind: u32, times: usize, scratch: *mut u8) -> usize {
    kernel_rates::run(kind, times, scratch)
}

/// Numeric self-test of the relaxed instructions: 0 when they do what the kernels rely on.
#[no_mangle]
pub unsafe extern "C" fn self_test() -> u32 {
    simd::self_test()
}
