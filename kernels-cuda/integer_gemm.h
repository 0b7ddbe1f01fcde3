// Products of int8 codes: tiles of 64 x 64 exact integer sums, 16 a thread, four codes of a row in a word.
// Operands say how to read four codes, the sink what to do with a sum.
#pragma once

#include "gemm.h"

constexpr int PACKS = DEPTH / 4;  // of four codes

// The sink also gets the sum of the left row's codes.
template <class Left, class Right, class Sink>
DEVICE void multiply_codes(const Left& left, const Right& right, int rows, int columns, int depth,
                           const Sink& sink) {
  SHARED int32_t a[PACKS][TILE + 4], b[PACKS][TILE + 4];
  TileOrigin origin = tile_origin(columns);
  int first_row = origin.row, first_column = origin.column;
  int across = threadIdx.x % 16 * 4, down = threadIdx.x / 16 * 4;
  int32_t sums[4][4] = {}, row_sums[4] = {};
  for (int start = 0; start < depth; start += DEPTH) {
    int line = threadIdx.x / PACKS, pack = threadIdx.x % PACKS, k = start + 4 * pack;
    int row = first_row + line, column = first_column + line;
    a[pack][line] = row < rows && k < depth ? left.four(row, k) : 0;
    b[pack][line] = column < columns && k < depth ? right.four(column, k) : 0;
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
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int row = first_row + down + i, column = first_column + across + j;
      if (row < rows && column < columns) sink.store(row, column, sums[i][j], row_sums[i]);
    }
  }
}

// Rows of codes close together, a stride of whole words.
struct CodeRows {
  const uint8_t* codes;
  int32_t stride, unused;
  DEVICE int32_t four(int row, int k) const {
    return *(const int32_t*)(codes + (int64_t)row * stride + k);
  }
};

// A sum of products of codes times what the codes of both sides are worth.
DEVICE float scaled_sum(float sum, float row_scale, float factor) {
  return __fmul_rn(__fmul_rn(sum, row_scale), factor);
}
