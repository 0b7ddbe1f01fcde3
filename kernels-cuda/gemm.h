// The product that linear, matmul and conv2d share: tiles of 64 x 64 sums in float, 16 a thread. Operands
// say how to read an element, the sink what to do with a sum. Sums run over k in order.
#pragma once

#include "portable.h"

constexpr int TILE = 64;
constexpr int DEPTH = 16;
constexpr int GEMM_THREADS = 256;

// The first row and column of a block's tile; tiles lie along one axis of the grid, those of a row side by side.
struct TileOrigin {
  int row, column;
};
DEVICE TileOrigin tile_origin(int columns) {
  int across = ceil_div(columns, TILE);
  return {(int)(blockIdx.x / across) * TILE, (int)(blockIdx.x % across) * TILE};
}

template <class Left, class Right, class Sink>
DEVICE void multiply_tile(const Left& left, const Right& right, int rows, int columns, int depth,
                          const Sink& sink) {
  SHARED float a[DEPTH][TILE + 4], b[DEPTH][TILE + 4];
  TileOrigin origin = tile_origin(columns);
  int first_row = origin.row, first_column = origin.column;
  int across = threadIdx.x % 16 * 4, down = threadIdx.x / 16 * 4;
  float sums[4][4] = {};
  for (int start = 0; start < depth; start += DEPTH) {
    for (int i = threadIdx.x; i < TILE * DEPTH; i += GEMM_THREADS) {
      int line = i / DEPTH, k = i % DEPTH;
      int row = first_row + line, column = first_column + line;
      bool inside = start + k < depth;
      a[k][line] = inside && row < rows ? left.at(row, start + k) : 0;
      b[k][line] = inside && column < columns ? right.at(column, start + k) : 0;
    }
    __syncthreads();
    UNROLL for (int k = 0; k < DEPTH; k++) {
      UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int j = 0; j < 4; j++) sums[i][j] += a[k][down + i] * b[k][across + j];
      }
    }
    __syncthreads();
  }
  UNROLL for (int i = 0; i < 4; i++) {
    UNROLL for (int j = 0; j < 4; j++) {
      int row = first_row + down + i, column = first_column + across + j;
      if (row < rows && column < columns) sink.store(row, column, sums[i][j]);
    }
  }
}
