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

template <class Number>
struct DequantizeParameters {
  Number* output;
  Weight weight;
  int32_t first_row, rows, output_stride, unused;
};

// Rows [first_row, first_row + rows) of a weight; a thread does eight consecutive weights.
template <class Number>
DEVICE void dequantize_rows(const DequantizeParameters<Number>& p) {
  int64_t columns = p.weight.columns;
  int64_t begin = p.first_row * columns, end = begin + p.rows * columns;
  int64_t first = ((begin >> 3) + (int64_t)blockIdx.x * 256 + threadIdx.x) << 3;
  if (first >= end) return;
  float values[8] = {};
  int count = end - first < 8 ? (int)(end - first) : 8;
  eight_weights(p.weight, first, count, values);
  if (columns % 8 == 0 && lies_on_eight(p.output, p.output_stride)) {
    int64_t row = quotient(first - begin, columns);
    return store_eight(values, p.output + row * p.output_stride + (first - begin - row * columns));
  }
  UNROLL for (int i = 0; i < 8; i++) {
    int64_t index = first + i - begin;
    if (i < count && index >= 0) narrow(values[i], p.output[index / columns * p.output_stride + index % columns]);
  }
}

KERNEL(dequantize_float32, 256, DequantizeParameters<float>) { dequantize_rows(p); }
KERNEL(dequantize_float16, 256, DequantizeParameters<Float16>) { dequantize_rows(p); }
KERNEL(dequantize_bfloat16, 256, DequantizeParameters<BFloat16>) { dequantize_rows(p); }

template <class Number>
struct NarrowParameters {
  Rows input;
  Number* output;
  int32_t rows, columns;
};

// input [rows, columns] -> output [rows, columns] of 16 bits, close together; a thread does eight neighbours.
template <class Number>
DEVICE void narrow_rows(const NarrowParameters<Number>& p) {
  int eights = ceil_div(p.columns, 8);
  int64_t index = (int64_t)blockIdx.x * 256 + threadIdx.x;
  if (index >= (int64_t)p.rows * eights) return;
  int row = quotient(index, eights), first = 8 * (int)(index - (int64_t)row * eights);
  Number* output = p.output + (int64_t)row * p.columns + first;
  float values[8] = {};
  int count = least(8, p.columns - first);
  UNROLL for (int i = 0; i < 8; i++) {
    if (i < count) values[i] = p.input.at(row, first + i);
  }
  if (p.columns % 8 == 0) return store_eight(values, output);
  UNROLL for (int i = 0; i < 8; i++) {
    if (i < count) narrow(values[i], output[i]);
  }
}

KERNEL(narrow_float16, 256, NarrowParameters<Float16>) { narrow_rows(p); }
KERNEL(narrow_bfloat16, 256, NarrowParameters<BFloat16>) { narrow_rows(p); }
