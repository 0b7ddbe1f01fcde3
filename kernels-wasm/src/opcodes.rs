//! Generated from src/ops/op_table.ts by tools/generate_opcodes.ts; do not edit.
#![allow(dead_code)]

pub const OP_COPY: u32 = 1;
pub const OP_UNARY: u32 = 2;
pub const OP_BINARY: u32 = 3;
pub const OP_REDUCE: u32 = 4;
pub const OP_GATHER: u32 = 5;
pub const OP_MATMUL: u32 = 6;
pub const OP_UNPACK: u32 = 7;
pub const OP_CONV2D: u32 = 8;
pub const OP_LINEAR: u32 = 9;
pub const OP_NORM: u32 = 10;
pub const OP_ATTENTION: u32 = 11;
pub const OP_HEAD_NORM_ROPE: u32 = 12;
pub const UNARY_IDENTITY: u32 = 0;
pub const UNARY_SILU: u32 = 1;
pub const UNARY_GELU_TANH: u32 = 2;
pub const UNARY_GELU_ERF: u32 = 3;
pub const UNARY_QUICK_GELU: u32 = 4;
pub const UNARY_RELU: u32 = 5;
pub const UNARY_EXP: u32 = 6;
pub const UNARY_RSQRT: u32 = 7;
pub const UNARY_AFFINE: u32 = 8;
pub const BINARY_ADD: u32 = 0;
pub const BINARY_SUBTRACT: u32 = 1;
pub const BINARY_MULTIPLY: u32 = 2;
pub const BINARY_DIVIDE: u32 = 3;
pub const REDUCE_SUM: u32 = 0;
pub const REDUCE_MEAN: u32 = 1;
pub const REDUCE_MAX: u32 = 2;
pub const NORM_LAYER: u32 = 0;
pub const NORM_RMS: u32 = 1;
pub const NORM_GROUP: u32 = 2;
