// Sums and maxima over a warp and over a block of 256 threads, in a fixed order.
#pragma once

#include "portable.h"

constexpr int BLOCK = 256;
constexpr int WARPS = BLOCK / 32;

struct Sum {
  DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Largest {
  DEVICE float operator()(float a, float b) const { return fmaxf(a, b); }
};

template <class Operation>
DEVICE float reduce_warp(float value, Operation operation) {
  UNROLL for (int step = 16; step > 0; step /= 2) {
    value = operation(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

// Every thread gets the result; all of the block must call it.
template <class Operation>
DEVICE float reduce_block(float value, Operation operation) {
  SHARED float parts[WARPS];
  value = reduce_warp(value, operation);
  __syncthreads();  // the last call's parts have been read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  value = parts[0];
  for (int warp = 1; warp < WARPS; warp++) value = operation(value, parts[warp]);
  return value;
}
