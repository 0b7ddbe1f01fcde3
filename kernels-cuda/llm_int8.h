// LLM.int8() (Dettmers et al., 2022) as src/backends/reference/llm_int8.ts computes it: activations rounded to
// float16; columns with an entry of at least the threshold stay in float; the rest is int8 by rows
// (rounding.h).
#pragma once

#include "activation.h"
#include "gemm.h"
#include "reduce.h"
#include "weight.h"

struct LlmInt8Parameters {
  Rows x;
  Epilogue end;
  int32_t* marks;     // [depth], 1 for a column with an outlier
  int32_t* list;      // [depth + 1]: how many there are, then they in order
  const float* scales;  // [rows], of codes
  const int8_t* codes;  // [rows, code_stride], of round_rows
  Weight weight;
  int32_t rows, columns, depth, code_stride;
  float threshold;
  int32_t unused;
};

DEVICE float rounded(const LlmInt8Parameters& p, int row, int column) {
  return half_to_float(float_to_half(p.x.at(row, column)));
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
    bool is_outlier = p.threshold > 0 && fabsf(rounded(p, row, column)) >= p.threshold;
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

constexpr int PACKS = DEPTH / 4;  // of four codes in a word

// Four codes of a weight's row from k on as signed bytes around 128; zeros beyond its end.
DEVICE int32_t four_weights(const LlmInt8Parameters& p, int row, int k) {
  const uint8_t* codes = p.weight.data + (int64_t)row * p.depth + k;
  uint32_t packed = 0;
  for (int i = 0; i < 4; i++) {
    if (k + i < p.depth) packed |= (uint32_t)(codes[i] ^ 0x80) << (8 * i);
  }
  return (int32_t)packed;
}

// The outlier columns' part of an output, in float with the dequantized weight.
DEVICE float outlier_sum(const LlmInt8Parameters& p, int row, int column) {
  float sum = 0;
  for (int i = 0; i < p.list[0]; i++) {
    int k = p.list[1 + i];
    sum += rounded(p, row, k) * weight_at(p.weight, (int64_t)column * p.depth + k);
  }
  return sum;
}

// The product: exact integer sums, then scales, then the outliers. A code means code - zero_point, while
// the words hold code - 128, so each sum gets (128 - zero_point) times the row's codes.
KERNEL(llm_int8_linear, GEMM_THREADS, LlmInt8Parameters) {
  SHARED int32_t a[PACKS][TILE + 4], b[PACKS][TILE + 4];
  int first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
  int across = threadIdx.x % 16 * 4, down = threadIdx.x / 16 * 4;
  int32_t sums[4][4] = {}, row_sums[4] = {};
  for (int start = 0; start < p.depth; start += DEPTH) {
    int line = threadIdx.x / PACKS, pack = threadIdx.x % PACKS, k = start + 4 * pack;
    int row = first_row + line, column = first_column + line;
    const int32_t* words = (const int32_t*)(p.codes + (int64_t)row * p.code_stride + k);
    a[pack][line] = row < p.rows && k < p.code_stride ? *words : 0;
    b[pack][line] = column < p.columns && k < p.depth ? four_weights(p, column, k) : 0;
    __syncthreads();
    UNROLL for (int pack = 0; pack < PACKS; pack++) {
      UNROLL for (int i = 0; i < 4; i++) {
        row_sums[i] = __dp4a(a[pack][down + i], 0x01010101, row_sums[i]);
        UNROLL for (int j = 0; j < 4; j++) {
          sums[i][j] = __dp4a(a[pack][down + i], b[pack][across + j], sums[i][j]);
        }
      }
    }
    __syncthreads();
  }
  int32_t shift = 128 - (int32_t)p.weight.zero_point;
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int row = first_row + down + i, column = first_column + across + j;
      if (row < p.rows && column < p.columns) {
        float factor = scale_of(p.weight.scale, column) * p.weight.scale.multiplier;
        float value = (float)(sums[i][j] + shift * row_sums[i]) * p.scales[row] * factor;
        p.end.store(row, column, value + outlier_sum(p, row, column));
      }
    }
  }
}
