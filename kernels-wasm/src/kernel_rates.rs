//! The microkernels alone, on panels in the nearest cache: what bench/kernel_rates.ts measures, and what
//! whole layers are held against.

use crate::gemm::{self, K_BLOCK, MR, NR};
use crate::integer_gemm;

const FLOAT: u32 = 0;
const NARROW: u32 = 1;
const WIDE: u32 = 2;

/// Runs a microkernel `times` times on `scratch`; gives the operations (two per product) of one run, 0
/// when this build has no such kernel.
pub unsafe fn run(kind: u32, times: usize, scratch: *mut u8) -> usize {
    match kind {
        FLOAT => {
            let (strip, panel, c) = (scratch, scratch.add(16384), scratch.add(32768));
            for _ in 0..times {
                gemm::kernel(strip as *const f32, panel as *const f32, K_BLOCK, c as *mut f32, NR, false);
            }
            2 * MR * NR * K_BLOCK
        }
        NARROW => integer_gemm::run_kernel(true, times, scratch),
        WIDE => integer_gemm::run_kernel(false, times, scratch),
        _ => 0,
    }
}
