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
  float* moments;  // of groups: those of each chunk, and behind them what is made of all [chunks + 1, groups, 2]
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

// Group norm over rows [rows, columns], columns of a group side by side. A block takes a chunk of rows, its threads
// neighbouring columns, so that each row is read once from end to end whatever the groups are.
struct ChunkThread {
  int lanes, lines;  // columns that a block takes at once, and rows
  int lane, line, first, end;

  DEVICE ChunkThread(const NormParameters& p, int chunk)
      : lanes(least(p.columns, BLOCK)), lines(BLOCK / lanes), lane(threadIdx.x % lanes),
        line(threadIdx.x / lanes), first(chunk * p.chunk_rows), end(least(first + p.chunk_rows, p.rows)) {}
  // A thread beyond whole rows has none.
  DEVICE int begin() const { return line < lines ? first + line : end; }
};

// Mean and squared deviations of a group's values in a chunk.
DEVICE float* chunk_moments(const NormParameters& p, int chunk, int group) {
  return p.moments + ((int64_t)chunk * p.groups + group) * 2;
}
// Mean and inverse deviation of all of a group's values, behind the chunks' moments.
DEVICE float* group_result(const NormParameters& p, int group) { return chunk_moments(p, p.chunks, group); }

// A chunk's sums for each group: of its values, or of squared deviations from the means that are there. All of the
// block must call it.
template <bool SQUARES>
DEVICE void add_chunk(const NormParameters& p, const ChunkThread& t, int chunk) {
  SHARED float parts[BLOCK];
  int width = p.columns / p.groups;
  for (int base = 0; base < p.columns; base += t.lanes) {
    int column = base + t.lane;
    float sum = 0;
    if (column < p.columns) {
      float mean = SQUARES ? chunk_moments(p, chunk, column / width)[0] : 0;
      for (int row = t.begin(); row < t.end; row += t.lines) {
        float x = p.x.at(row, column);
        sum += SQUARES ? (x - mean) * (x - mean) : x;
      }
    }
    __syncthreads();  // the columns before have been added
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (int group = threadIdx.x; group < p.groups; group += BLOCK) {
      int begin = group * width, from = begin < base ? base : begin;
      int to = least(begin + width, base + t.lanes);
      if (from >= to) continue;
      float total = 0;
      for (int line = 0; line < t.lines; line++) {
        for (int i = from; i < to; i++) total += parts[line * t.lanes + i - base];
      }
      float* sums = chunk_moments(p, chunk, group) + SQUARES;
      *sums = from == begin ? total : *sums + total;
    }
  }
  __syncthreads();
}

// First of three: the moments of each group in each chunk.
KERNEL(group_moments, BLOCK, NormParameters) {
  int chunk = blockIdx.x;
  ChunkThread thread(p, chunk);
  add_chunk<false>(p, thread, chunk);
  int count = (thread.end - thread.first) * (p.columns / p.groups);
  for (int group = threadIdx.x; group < p.groups; group += BLOCK) chunk_moments(p, chunk, group)[0] /= count;
  __syncthreads();
  add_chunk<true>(p, thread, chunk);
}

// Count, mean and squared deviations, joined as Chan et al. do.
struct Moments {
  float count, mean, squares;

  DEVICE void join(Moments other) {
    if (other.count == 0) return;
    float delta = other.mean - mean, total = count + other.count, share = other.count / total;
    mean += delta * share;
    squares += other.squares + delta * delta * (count * share);
    count = total;
  }
};

// Second: all chunks of a group; a block a group.
KERNEL(group_join, BLOCK, NormParameters) {
  SHARED float counts[BLOCK], means[BLOCK], squares[BLOCK];
  int group = blockIdx.x, own = threadIdx.x;
  Moments moments = {0, 0, 0};
  for (int chunk = own; chunk < p.chunks; chunk += BLOCK) {
    const float* found = chunk_moments(p, chunk, group);
    int first = chunk * p.chunk_rows, rows = least(p.chunk_rows, p.rows - first);
    moments.join({(float)rows * (p.columns / p.groups), found[0], found[1]});
  }
  for (int step = BLOCK / 2; step > 0; step /= 2) {
    counts[own] = moments.count;
    means[own] = moments.mean;
    squares[own] = moments.squares;
    __syncthreads();
    if (own < step) moments.join({counts[own + step], means[own + step], squares[own + step]});
    __syncthreads();
  }
  if (own != 0) return;
  float* result = group_result(p, group);
  result[0] = moments.mean;
  result[1] = 1.0f / sqrtf(moments.squares / moments.count + p.epsilon);
}

// Third: a block normalises a chunk.
KERNEL(group_norm, BLOCK, NormParameters) {
  ChunkThread thread(p, blockIdx.x);
  int width = p.columns / p.groups;
  for (int column = thread.lane; column < p.columns; column += thread.lanes) {
    const float* result = group_result(p, column / width);
    float mean = result[0], inverse = result[1];
    for (int row = thread.begin(); row < thread.end; row += thread.lines) {
      float value = (p.x.at(row, column) - mean) * inverse;
      p.output[(int64_t)row * p.output_stride + column] = finished(p, row, column, value);
    }
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
