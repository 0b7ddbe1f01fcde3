// copy, unary, binary: one thread an element. Shapes come with axes of size 1 in front.
#pragma once

#include "activation.h"

struct CopyParameters {
  const uint32_t* input;
  uint32_t* output;
  uint32_t count, unused;
  int32_t shape[6], input_strides[6], output_strides[6];
};

// Any view to any view of the same shape, 32 bits an element.
KERNEL(copy, 256, CopyParameters) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.count) return;
  int64_t from = 0, to = 0;
  for (int axis = 5; index > 0 && axis >= 0; axis--) {
    uint32_t size = p.shape[axis], at = index % size;
    index /= size;
    from += (int64_t)at * p.input_strides[axis];
    to += (int64_t)at * p.output_strides[axis];
  }
  p.output[to] = p.input[from];
}

struct UnaryParameters {
  Rows input;
  float* output;
  uint32_t count;
  int32_t columns, output_stride, kind;
  float multiplier, addend;
};

// input [rows, columns] -> output.
KERNEL(unary, 256, UnaryParameters) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.count) return;
  int row = index / p.columns, column = index % p.columns;
  float x = p.input.at(row, column), y;
  switch (p.kind) {
    case UNARY_EXP: y = expf(x); break;
    case UNARY_RSQRT: y = 1.0f / sqrtf(x); break;
    case UNARY_AFFINE: y = x * p.multiplier + p.addend; break;
    default: y = activate(p.kind, x);
  }
  p.output[(int64_t)row * p.output_stride + column] = y;
}

struct BinaryParameters {
  const float* a;
  const float* b;
  float* output;
  uint32_t count;
  int32_t kind;
  int32_t shape[4], a_strides[4], b_strides[4], output_strides[4];
};

// a, b -> output; strides of 0 broadcast.
KERNEL(binary, 256, BinaryParameters) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.count) return;
  int64_t a = 0, b = 0, to = 0;
  for (int axis = 3; index > 0 && axis >= 0; axis--) {
    uint32_t size = p.shape[axis], at = index % size;
    index /= size;
    a += (int64_t)at * p.a_strides[axis];
    b += (int64_t)at * p.b_strides[axis];
    to += (int64_t)at * p.output_strides[axis];
  }
  float x = p.a[a], y = p.b[b];
  switch (p.kind) {
    case BINARY_ADD: p.output[to] = x + y; break;
    case BINARY_SUBTRACT: p.output[to] = x - y; break;
    case BINARY_MULTIPLY: p.output[to] = x * y; break;
    default: p.output[to] = x / y;
  }
}
