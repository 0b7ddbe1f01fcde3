// LLM.int8() (Dettmers et al., 2022) as src/backends/reference/llm_int8.ts computes it: activations rounded to
// float16; columns with an entry of at least the threshold stay in float; the rest is int8 by rows
// (rounding.h).
#pragma once

#include "activation.h"
#include "integer_gemm.h"
#include "reduce.h"
#include "weight.h"

struct LlmInt8Parameters {
  Rows x;
  Epilogue end;
  int32_t* marks;     // [depth], 1 for a column with an outlier
  int32_t* list;      // [depth + 1]: how many there are, then they in order
  const float* scales;  // [rows], of codes
  const uint8_t* codes;  // [rows, code_stride], of round_rows
  Weight weight;
  int32_t rows, columns, depth, code_stride;
  float threshold;
  int32_t unused;
};

DEVICE float rounded(const Rows& x, int row, int column) {
  return half_to_float(float_to_half(x.at(row, column)));
}

// No column is marked. Blocks over columns.
KERNEL(llm_int8_clear, BLOCK, LlmInt8Parameters) {
  int column = blockIdx.x * BLOCK + threadIdx.x;
  if (column < p.depth) p.marks[column] = 0;
}

// Marks columns with an outlier; a block a row. Many blocks may write the same 1.
KERNEL(llm_int8_mark, BLOCK, LlmInt8Parameters) {
  int row = blockIdx.x;
  for (int column = threadIdx.x; column < p.depth; column += BLOCK) {
    bool is_outlier = p.threshold > 0 && fabsf(rounded(p.x, row, column)) >= p.threshold;
    if (is_outlier) p.marks[column] = 1;
  }
}

// Lists the marked columns. One block; a thread takes a run of marks.
KERNEL(llm_int8_list, BLOCK, LlmInt8Parameters) {
  SHARED int counts[BLOCK];
  int run = ceil_div(p.depth, BLOCK);
  int begin = least(threadIdx.x * run, p.depth), end = least(begin + run, p.depth);
  int own = 0;
  for (int column = begin; column < end; column++) own += p.marks[column];
  counts[threadIdx.x] = own;
  __syncthreads();
  int before = 0;
  for (int thread = 0; thread < (int)threadIdx.x; thread++) before += counts[thread];
  for (int column = begin; column < end; column++) {
    if (p.marks[column]) p.list[1 + before++] = column;
  }
  if (threadIdx.x == BLOCK - 1) p.list[0] = before;
}

// The outlier columns of x, and of the weight with its values: operands of a float product.
struct OutlierColumns {
  const Rows& x;
  const int32_t* list;
  DEVICE float at(int row, int i) const { return rounded(x, row, list[1 + i]); }
};
struct OutlierWeights {
  const Weight& weight;
  const int32_t* list;
  int first_row;
  DEVICE float at(int row, int i) const {
    return weight_at(weight, (int64_t)(first_row + row) * weight.columns + list[1 + i]);
  }
};

// A weight's codes as signed bytes around 128; zeros beyond a row's end.
struct WeightCodes {
  const Weight& weight;
  DEVICE int32_t four(int row, int k) const {
    const uint8_t* codes = weight.data + (int64_t)row * weight.columns + k;
    uint32_t packed = 0;
    for (int i = 0; i < 4; i++) {
      if (k + i < weight.columns) packed |= (codes[i] ^ 0x80 ^ weight.flip) << (8 * i);
    }
    return (int32_t)packed;
  }
};

// Scales, then the outliers in float. A code means code - zero_point, while the words hold code - 128, so each
// sum gets (128 - zero_point) times the row's codes.
struct LlmInt8Sink {
  const LlmInt8Parameters& p;
  DEVICE void store(int row, int column, int32_t sum, int32_t row_sum) const {
    int32_t shift = 128 - (int32_t)p.weight.zero_point;
    float value = scaled_sum((float)(sum + shift * row_sum), p.scales[row], factor_of(p.weight, column));
    OutlierColumns x{p.x, p.list};
    OutlierWeights weight{p.weight, p.list, 0};
    float outliers = 0;
    for (int i = 0; i < p.list[0]; i++) outliers += x.at(row, i) * weight.at(column, i);
    p.end.store(row, column, value + outliers);
  }
};

// The product over the weight as it is stored, for few rows of x: exact integer sums and all that follows.
KERNEL(llm_int8_linear, GEMM_THREADS, LlmInt8Parameters) {
  CodeRows x{p.codes, p.code_stride, 0};
  multiply_codes(x, WeightCodes{p.weight}, p.rows, p.columns, p.code_stride, LlmInt8Sink{p});
}

struct LlmInt8EndParameters {
  Rows x;
  const int32_t* sums;  // [rows, sums_stride]; may lie in the output
  const float* scales;
  const int32_t* list;
  Epilogue end;
  Weight weight;
  int32_t rows, columns, sums_stride, first_row;
};

struct LlmInt8EndSink {
  const LlmInt8EndParameters& p;
  DEVICE void store(int row, int column, float outliers) const {
    float sum = (float)p.sums[(int64_t)row * p.sums_stride + column];
    float factor = factor_of(p.weight, p.first_row + column);
    p.end.store(row, column, scaled_sum(sum, p.scales[row], factor) + outliers);
  }
};

// What follows integer sums of a weight's rows [first_row, first_row + columns): scales and outliers.
KERNEL(llm_int8_end, GEMM_THREADS, LlmInt8EndParameters) {
  OutlierColumns x{p.x, p.list};
  OutlierWeights weight{p.weight, p.list, p.first_row};
  multiply_tile(x, weight, p.rows, p.columns, p.list[0], LlmInt8EndSink{p});
}
