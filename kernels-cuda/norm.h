// norm: output = act((norm(x) * weight + bias) * (1 + scale) + shift), over rows or over groups.
#pragma once

#include "activation.h"
#include "numbers.h"
#include "reduce.h"
#include "rounding.h"

struct NormParameters {
  Rows x;
  float* output;
  const float* weight;  // null when absent, as bias, scale.data and shift.data
  const float* bias;
  Rows scale, shift;
  float* moments;  // of groups: mean and squared deviation of each chunk [chunks, groups, 2]
  int32_t rows, columns, output_stride, kind, groups;
  float epsilon;
  int32_t activation, chunk_rows, chunks, unused;
};

DEVICE float finished(const NormParameters& p, int row, int column, float value) {
  if (p.weight) value *= p.weight[column];
  if (p.bias) value += p.bias[column];
  if (p.scale.data) value *= 1.0f + p.scale.at(row, column);
  if (p.shift.data) value += p.shift.at(row, column);
  return activate(p.activation, value);
}

// A row after its norm; all of the block must make it.
struct NormalizedRow {
  const NormParameters& p;
  float mean, inverse;

  DEVICE NormalizedRow(const NormParameters& p, int row) : p(p), mean(0) {
    if (p.kind == NORM_LAYER) {
      float sum = 0;
      for (int i = threadIdx.x; i < p.columns; i += BLOCK) sum += p.x.at(row, i);
      mean = reduce_block(sum, Sum()) / p.columns;
    }
    float squares = 0;
    for (int i = threadIdx.x; i < p.columns; i += BLOCK) {
      float centred = p.x.at(row, i) - mean;
      squares += centred * centred;
    }
    float variance = reduce_block(squares, Sum()) / p.columns;
    inverse = 1.0f / sqrtf(variance + p.epsilon);
  }
  DEVICE float at(int row, int column) const {
    return finished(p, row, column, (p.x.at(row, column) - mean) * inverse);
  }
  DEVICE void keep(int row, int column, float value) const {
    if (p.output) p.output[(int64_t)row * p.output_stride + column] = value;
  }
};

// Layer and RMS norm: a block a row.
KERNEL(row_norm, BLOCK, NormParameters) {
  int row = blockIdx.x;
  NormalizedRow normalized(p, row);
  for (int i = threadIdx.x; i < p.columns; i += BLOCK) normalized.keep(row, i, normalized.at(row, i));
}

struct NormCodesParameters {
  NormParameters norm;  // output null where nobody reads the floats
  Rounding to;
};

// The same, rounded for the linear layers that follow.
KERNEL(row_norm_codes, BLOCK, NormCodesParameters) {
  round_row(p.to, NormalizedRow(p.norm, blockIdx.x), blockIdx.x);
}

template <class Number>
struct NarrowNormParameters {
  NormParameters norm;  // output null where nobody reads the floats
  Number* output;       // [rows, columns], close together
};

// The same in 16 bits, for the linear layers that follow.
template <class Number>
DEVICE void norm_narrow(const NarrowNormParameters<Number>& p) {
  int row = blockIdx.x;
  NormalizedRow normalized(p.norm, row);
  for (int i = threadIdx.x; i < p.norm.columns; i += BLOCK) {
    float value = normalized.at(row, i);
    normalized.keep(row, i, value);
    narrow(value, p.output[(int64_t)row * p.norm.columns + i]);
  }
}

KERNEL(row_norm_float16, BLOCK, NarrowNormParameters<Float16>) { norm_narrow(p); }
KERNEL(row_norm_bfloat16, BLOCK, NarrowNormParameters<BFloat16>) { norm_narrow(p); }

// Group norm, first half: the moments of a group in a chunk of rows. Blocks: [chunks, groups].
KERNEL(group_moments, BLOCK, NormParameters) {
  int chunk = blockIdx.x, group = blockIdx.y;
  int width = p.columns / p.groups;
  int first = chunk * p.chunk_rows;
  int count = (least(first + p.chunk_rows, p.rows) - first) * width;
  float sum = 0;
  for (int i = threadIdx.x; i < count; i += BLOCK) {
    sum += p.x.at(first + i / width, group * width + i % width);
  }
  float mean = reduce_block(sum, Sum()) / count;
  float squares = 0;
  for (int i = threadIdx.x; i < count; i += BLOCK) {
    float centred = p.x.at(first + i / width, group * width + i % width) - mean;
    squares += centred * centred;
  }
  squares = reduce_block(squares, Sum());
  if (threadIdx.x == 0) {
    float* moments = p.moments + ((int64_t)chunk * p.groups + group) * 2;
    moments[0] = mean;
    moments[1] = squares;
  }
}

// Second half: joins the chunks' moments (Chan et al.) and normalises one chunk of one group.
KERNEL(group_norm, BLOCK, NormParameters) {
  int chunk = blockIdx.x, group = blockIdx.y;
  int width = p.columns / p.groups;
  float count = 0, mean = 0, squares = 0;
  for (int other = 0; other < p.chunks; other++) {
    const float* moments = p.moments + ((int64_t)other * p.groups + group) * 2;
    int begin = other * p.chunk_rows;
    float own = (float)((least(begin + p.chunk_rows, p.rows) - begin) * width);
    float delta = moments[0] - mean, total = count + own;
    mean += delta * (own / total);
    squares += moments[1] + delta * delta * (count * (own / total));
    count = total;
  }
  float inverse = 1.0f / sqrtf(squares / count + p.epsilon);
  int first = chunk * p.chunk_rows;
  int elements = (least(first + p.chunk_rows, p.rows) - first) * width;
  for (int i = threadIdx.x; i < elements; i += BLOCK) {
    int row = first + i / width, column = group * width + i % width;
    float value = (p.x.at(row, column) - mean) * inverse;
    p.output[(int64_t)row * p.output_stride + column] = finished(p, row, column, value);
  }
}

template <class Number>
struct HeadNormRopeParameters {
  Rows x;
  Number* output;
  const float* weight;
  Rows cosines, sines;  // data null when nothing is rotated
  int32_t rows, heads, size, output_stride;
  float epsilon;
  int32_t unused;
};

// RMS norm over each head's values, then rotation of adjacent pairs; a warp a head.
template <class Number>
DEVICE void norm_heads(const HeadNormRopeParameters<Number>& p) {
  int item = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
  int row = item / p.heads, first = item % p.heads * p.size;
  if (row >= p.rows) return;
  float squares = 0;
  for (int i = lane; i < p.size; i += 32) {
    float x = p.x.at(row, first + i);
    squares += x * x;
  }
  squares = reduce_warp(squares, Sum());
  float inverse = 1.0f / sqrtf(squares / p.size + p.epsilon);
  Number* output = p.output + (int64_t)row * p.output_stride + first;
  if (!p.cosines.data) {
    for (int i = lane; i < p.size; i += 32) narrow(p.x.at(row, first + i) * inverse * p.weight[i], output[i]);
    return;
  }
  for (int i = 2 * lane; i < p.size; i += 64) {
    float a = p.x.at(row, first + i) * inverse * p.weight[i];
    float b = p.x.at(row, first + i + 1) * inverse * p.weight[i + 1];
    narrow(a * p.cosines.at(row, i) - b * p.sines.at(row, i), output[i]);
    narrow(b * p.cosines.at(row, i + 1) + a * p.sines.at(row, i + 1), output[i + 1]);
  }
}

KERNEL(head_norm_rope, BLOCK, HeadNormRopeParameters<float>) { norm_heads(p); }
// For attention in 16 bits.
KERNEL(head_norm_rope_float16, BLOCK, HeadNormRopeParameters<Float16>) { norm_heads(p); }
KERNEL(head_norm_rope_bfloat16, BLOCK, HeadNormRopeParameters<BFloat16>) { norm_heads(p); }
