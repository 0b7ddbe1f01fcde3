/** The kernels of kernels-cuda by name. */

/** Threads of a block, in every kernel. */
export const BLOCK_THREADS = 256;

/** All names. */
export const KERNEL_NAMES = [
  "attention_64",
  "attention_128",
  "attention_1024",
  "binary",
  "conv2d",
  "copy",
  "dequantize",
  "gather",
  "group_moments",
  "group_norm",
  "head_norm_rope",
  "linear",
  "linear_float",
  "llm_int8_clear",
  "llm_int8_linear",
  "llm_int8_list",
  "llm_int8_mark",
  "matmul",
  "reduce",
  "round_ranges",
  "round_rows",
  "row_norm",
  "unary",
] as const;

/** The name of a kernel. */
export type KernelName = typeof KERNEL_NAMES[number];
