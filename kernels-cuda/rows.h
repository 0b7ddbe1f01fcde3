// reduce, gather and dequantization (unpack, and slices for a product).
#pragma once

#include "activation.h"
#include "reduce.h"
#include "weight.h"

struct ReduceParameters {
  Rows input;
  float* output;
  int32_t columns, output_stride, kind, unused;
};

// input [rows, columns] -> output [rows, 1], a block a row.
KERNEL(reduce, BLOCK, ReduceParameters) {
  int row = blockIdx.x;
  bool is_max = p.kind == REDUCE_MAX;
  float value = is_max ? -INFINITY : 0;
  for (int column = threadIdx.x; column < p.columns; column += BLOCK) {
    float x = p.input.at(row, column);
    value = is_max ? fmaxf(value, x) : value + x;
  }
  value = is_max ? reduce_block(value, Largest()) : reduce_block(value, Sum());
  if (p.kind == REDUCE_MEAN) value /= p.columns;
  if (threadIdx.x == 0) p.output[(int64_t)row * p.output_stride] = value;
}

// What went wrong in a run; zeroed at its start. The first fault stays.
struct Fault {
  int32_t code, step, value, unused;
};
enum FaultCode { FAULT_NONE, FAULT_GATHER_RANGE };

struct GatherParameters {
  const int32_t* ids;
  float* output;
  Fault* fault;
  Weight table;
  int32_t id_stride, output_stride, step, unused;
};

// ids [n], table [entries, columns] in any layout -> output [n, columns], a block an id.
KERNEL(gather, BLOCK, GatherParameters) {
  int row = blockIdx.x;
  int32_t id = p.ids[(int64_t)row * p.id_stride];
  if (id < 0 || id >= p.table.rows) {
    if (threadIdx.x == 0 && atomicCAS(&p.fault->code, FAULT_NONE, FAULT_GATHER_RANGE) == FAULT_NONE) {
      p.fault->step = p.step;
      p.fault->value = id;
    }
    return;
  }
  for (int column = threadIdx.x; column < p.table.columns; column += BLOCK) {
    int64_t index = (int64_t)id * p.table.columns + column;
    p.output[(int64_t)row * p.output_stride + column] = weight_at(p.table, index);
  }
}

struct DequantizeParameters {
  float* output;
  Weight weight;
  int32_t first_row, rows, output_stride, unused;
};

// Rows [first_row, first_row + rows) of a weight; a thread does eight consecutive weights.
KERNEL(dequantize, 256, DequantizeParameters) {
  int64_t columns = p.weight.columns;
  int64_t begin = p.first_row * columns, end = begin + p.rows * columns;
  int64_t first = ((begin >> 3) + (int64_t)blockIdx.x * 256 + threadIdx.x) << 3;
  if (first >= end) return;
  float values[8];
  int count = end - first < 8 ? (int)(end - first) : 8;
  eight_weights(p.weight, first, count, values);
  for (int i = 0; i < count; i++) {
    int64_t index = first + i - begin;
    if (index >= 0) p.output[index / columns * p.output_stride + index % columns] = values[i];
  }
}
