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
  "dequantize_bfloat16",
  "dequantize_float16",
  "dequantize_float32",
  "end_float8",
  "end_float8_codes",
  "end_int8",
  "end_int8_codes",
  "end_product_bfloat16",
  "end_product_float16",
  "end_product_float32",
  "gather",
  "group_join",
  "group_moments",
  "group_norm",
  "head_norm_rope",
  "head_norm_rope_bfloat16",
  "head_norm_rope_float16",
  "linear",
  "linear_bfloat16",
  "linear_float16",
  "linear_float32",
  "linear_float8_e4m3fn",
  "linear_int8",
  "llm_int8_clear",
  "llm_int8_end",
  "llm_int8_linear",
  "llm_int8_list",
  "llm_int8_mark",
  "matmul",
  "narrow_bfloat16",
  "narrow_float16",
  "reduce",
  "round_ranges",
  "round_rows",
  "row_norm",
  "row_norm_bfloat16",
  "row_norm_codes",
  "row_norm_float16",
  "sign_codes",
  "unary",
  "unpack_int8",
] as const;

/** The name of a kernel. */
export type KernelName = typeof KERNEL_NAMES[number];
