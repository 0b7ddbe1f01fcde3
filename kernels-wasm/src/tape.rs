//! The tape: [opcode, words, step, parameters...] per step, written by src/backends/wasm/encode.ts. A
//! step's parameters are the words of its kernel's struct.

use crate::control::{Context, ERROR_OPCODE};
use crate::opcodes::*;
use crate::{activations, attention, convolution, elementwise, linear, linear_int8, linear_integer, matmul, norm, rope, winograd};

// Opcodes of steps that only this backend knows; src/backends/wasm/tape_opcodes.ts holds the same.
const MARK_OUTLIERS: u32 = 100;
const ROUND_ROWS: u32 = 101;
const LINEAR_INT8: u32 = 102;
const GROUP_SUMS: u32 = 103;
const GROUP_APPLY: u32 = 104;
const WAIT_SEGMENT: u32 = 105;
const RELEASE_SEGMENT: u32 = 106;
const FIND_RANGES: u32 = 107;
const LINEAR_INTEGER: u32 = 108;
const PACK_ROWS: u32 = 109;
const TRANSFORM_WEIGHTS: u32 = 110;
const WINOGRAD: u32 = 111;

const HEADER: usize = 3;

/// Runs `steps` steps; 0 when none stopped the run.
pub unsafe fn run(tape: *const u32, steps: usize, context: &Context) -> u32 {
    let mut at = tape;
    for _ in 0..steps {
        let (opcode, words, step) = (*at, *at.add(1), *at.add(2));
        let parameters = at.add(HEADER);
        if opcode == WAIT_SEGMENT {
            // An abort ends the wait; the barrier below then makes all workers stop together.
            if !context.wait_segment(*parameters) && context.threads == 1 {
                return 1;
            }
        } else {
            run_step(opcode, parameters, step, context);
        }
        if opcode != RELEASE_SEGMENT && !context.barrier() {
            return 1;
        }
        at = at.add(words as usize);
    }
    0
}

macro_rules! call {
    ($parameters:expr, $kernel:path, $context:expr) => {
        $kernel(&*($parameters as *const _), $context)
    };
}

unsafe fn run_step(opcode: u32, parameters: *const u32, step: u32, context: &Context) {
    match opcode {
        OP_COPY => call!(parameters, elementwise::copy, context),
        OP_UNARY => call!(parameters, elementwise::unary, context),
        OP_BINARY => call!(parameters, elementwise::binary, context),
        OP_REDUCE => call!(parameters, elementwise::reduce, context),
        OP_GATHER => elementwise::gather(&*(parameters as *const _), context, step),
        OP_MATMUL => call!(parameters, matmul::run, context),
        OP_UNPACK => call!(parameters, elementwise::unpack, context),
        OP_CONV2D => call!(parameters, convolution::run, context),
        TRANSFORM_WEIGHTS => call!(parameters, winograd::transform_weights, context),
        WINOGRAD => call!(parameters, winograd::run, context),
        OP_LINEAR => call!(parameters, linear::run, context),
        PACK_ROWS => call!(parameters, linear::pack_rows, context),
        OP_NORM => call!(parameters, norm::rows, context),
        OP_ATTENTION => call!(parameters, attention::run, context),
        OP_HEAD_NORM_ROPE => call!(parameters, rope::run, context),
        MARK_OUTLIERS => call!(parameters, linear_int8::mark_outliers, context),
        ROUND_ROWS => call!(parameters, activations::round_rows, context),
        FIND_RANGES => call!(parameters, activations::find_ranges, context),
        LINEAR_INT8 => call!(parameters, linear_int8::multiply, context),
        LINEAR_INTEGER => call!(parameters, linear_integer::run, context),
        GROUP_SUMS => call!(parameters, norm::group_sums, context),
        GROUP_APPLY => call!(parameters, norm::group_apply, context),
        RELEASE_SEGMENT => {
            // Behind the last step's barrier: nobody reads the slot any more.
            if context.thread == 0 {
                context.release_segment(*parameters);
            }
        }
        _ => context.fail(ERROR_OPCODE, step, opcode),
    }
}
