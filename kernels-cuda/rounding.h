// Rounding of activations to codes before a linear layer, as src/ops/activation_mode.ts says; every step is a
// float operation of its own, because which codes come out is part of the meaning. What is rounded lies in memory,
// or is the result of a norm or of a product that is made again whenever it is asked for.
#pragma once

#include "activation.h"
#include "numbers.h"
#include "reduce.h"

enum CodeRounding { ROUND_QUOTIENT, ROUND_RECIPROCAL, ROUND_RATIO };

struct Rounding {
  const int32_t* marks;  // LLM.int8() only: outlier columns, whose codes are 0; else null
  float* ranges;         // [rows, 2] when all rows share a scale that is found from x; else null
  float* scales;         // [rows], written
  float* zeros;          // [rows], the codes that mean 0; null when not wanted
  float* values;         // [rows, columns], what the codes stand for; null when not wanted
  uint8_t* codes;        // [rows, code_stride], int8 or e4m3, zeros behind a row; null when not wanted
  int32_t rows, columns, code_stride;
  int32_t dtype;         // INT8, or a float8 of numbers.h
  int32_t is_static, is_asymmetric, rounding;
  float levels, least, scale, inverse, zero, lowest, highest, threshold;
  int32_t unused;
};

struct RoundParameters {
  Rows x;
  Rounding to;
};
constexpr int INT8 = -1;

// Comparisons that keep a NaN, unlike fminf and fmaxf.
struct Least {
  DEVICE float operator()(float a, float b) const { return a < b || a != a ? a : b; }
};
struct Greatest {
  DEVICE float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

DEVICE float clamp(float x, float lowest, float highest) {
  return x < lowest ? lowest : x > highest ? highest : x;
}

// An activation as it is rounded: LLM.int8() goes through float16.
DEVICE float as_rounded(const Rounding& p, float x) { return p.marks ? half_to_float(float_to_half(x)) : x; }

// Activations that lie in memory; those that are made here write what else is wanted of them in `keep`.
struct StoredActivations {
  const Rows& x;
  DEVICE float at(int row, int column) const { return x.at(row, column); }
  DEVICE void keep(int, int, float) const {}
};

struct Range {
  float least, largest;
};

// The least and the largest value of a row, zero included, what LLM.int8() keeps apart left out.
template <class Activations>
DEVICE Range row_range(const Rounding& p, const Activations& x, int row) {
  float least = 0, largest = 0;
  for (int column = threadIdx.x; column < p.columns; column += BLOCK) {
    float value = as_rounded(p, x.at(row, column));
    if (p.threshold > 0 && fabsf(value) >= p.threshold) continue;
    least = Least()(least, value);
    largest = Greatest()(largest, value);
  }
  return {reduce_block(least, Least()), reduce_block(largest, Greatest())};
}

DEVICE Range shared_range(const Rounding& p) {
  float least = 0, largest = 0;
  for (int row = threadIdx.x; row < p.rows; row += BLOCK) {
    least = Least()(least, p.ranges[2 * row]);
    largest = Greatest()(largest, p.ranges[2 * row + 1]);
  }
  return {reduce_block(least, Least()), reduce_block(largest, Greatest())};
}

struct Scaling {
  float scale, zero, inverse;
  bool divides;  // by the scale, instead of multiplying by the inverse
};

DEVICE Scaling scaling_of(const Rounding& p, Range range) {
  float span = p.is_asymmetric ? range.largest - range.least : Greatest()(-range.least, range.largest);
  float scale = Greatest()(span / p.levels, p.least);
  float zero = 0;
  if (p.is_asymmetric) {
    float shift = scale == 0 ? 0 : rintf(range.least / scale);
    zero = clamp(p.lowest - shift, p.lowest, p.highest);
  }
  if (scale == 0) return {0, zero, 0, false};
  float inverse = p.rounding == ROUND_RATIO ? p.levels / span : 1.0f / scale;
  return {scale, zero, inverse, p.rounding == ROUND_QUOTIENT};
}

DEVICE float code_of(const Rounding& p, const Scaling& s, float x) {
  float exact = s.divides ? x / s.scale : __fmul_rn(x, s.inverse);
  if (p.dtype == INT8) return clamp(rintf(exact) + s.zero, p.lowest, p.highest);
  return round_to_float8(clamp(exact, p.lowest, p.highest), p.dtype);
}

DEVICE uint8_t byte_of(const Rounding& p, float code) {
  if (p.dtype != INT8) return float_to_e4m3(code);
  return code == code ? (uint8_t)(int8_t)code : 0;
}

// Codes of a row, what they stand for, or both; all of the block must call it.
template <class Activations>
DEVICE void round_row(const Rounding& p, const Activations& x, int row) {
  Scaling scaling = {p.scale, p.zero, p.inverse, false};
  if (!p.is_static) scaling = scaling_of(p, p.ranges ? shared_range(p) : row_range(p, x, row));
  int width = p.codes ? p.code_stride : p.columns;
  float broken = 0;
  for (int column = threadIdx.x; column < width; column += BLOCK) {
    float code = 0;
    if (column < p.columns) {
      float value = x.at(row, column);
      x.keep(row, column, value);
      if (!(p.marks && p.marks[column])) code = code_of(p, scaling, as_rounded(p, value));
    }
    if (code != code) broken = code;
    if (p.codes) p.codes[(int64_t)row * p.code_stride + column] = byte_of(p, code);
    if (p.values) {
      p.values[(int64_t)row * p.columns + column] = __fmul_rn(code - scaling.zero, scaling.scale);
    }
  }
  // No byte of an int8 says NaN, so the row's scale does.
  broken = reduce_block(broken, Greatest());
  if (threadIdx.x == 0) {
    p.scales[row] = scaling.scale + broken;
    if (p.zeros) p.zeros[row] = scaling.zero;
  }
}

// The range of each row, when all of them share a scale; a block a row.
KERNEL(round_ranges, BLOCK, RoundParameters) {
  int row = blockIdx.x;
  Range range = row_range(p.to, StoredActivations{p.x}, row);
  if (threadIdx.x == 0) {
    p.to.ranges[2 * row] = range.least;
    p.to.ranges[2 * row + 1] = range.largest;
  }
}

// A block a row.
KERNEL(round_rows, BLOCK, RoundParameters) { round_row(p.to, StoredActivations{p.x}, blockIdx.x); }
