// Products of codes, x and weight both int8 or both float8: a weight's rows as int8, the sums, and what follows
// them. A library may make the sums instead.
#pragma once

#include "activation.h"
#include "integer_gemm.h"
#include "numbers.h"
#include "reduce.h"
#include "rounding.h"
#include "weight.h"

struct UnpackInt8Parameters {
  uint8_t* output;  // [blocks, output_stride], zeros where the weight has nothing; null when not wanted
  int32_t* sums;    // [blocks], of a row's codes; null when not wanted
  Weight weight;
  int32_t first_row, rows, output_stride, unused;
};

// Integer codes of a weight's rows [first_row, first_row + rows) less their zero point, which 8 bits hold, and their
// sums; or only these. A block a row, a thread 16 codes at a time.
KERNEL(unpack_int8, BLOCK, UnpackInt8Parameters) {
  const Weight& w = p.weight;
  int row = blockIdx.x, zero = (int)w.zero_point;
  uint32_t mask = (1u << w.bits) - 1;
  int64_t begin = (int64_t)(p.first_row + row) * w.columns;
  float sum = 0;  // exact: below 2^24
  for (int first = 16 * threadIdx.x; first < p.output_stride; first += 16 * BLOCK) {
    uint32_t words[4] = {};
    UNROLL for (int half = 0; half < 2; half++) {
      int column = first + 8 * half, count = row < p.rows ? least(8, w.columns - column) : 0;
      uint64_t codes = count > 0 ? codes_from(w.data, w.bits, begin + column, count) : 0;
      UNROLL for (int i = 0; i < 8; i++) {
        uint32_t stored = (uint32_t)(codes >> (i * w.bits)) & mask;
        int code = i < count ? (int)(stored ^ w.flip) - zero : 0;
        words[2 * half + i / 4] |= (uint32_t)(code & 0xff) << (i % 4 * 8);
        sum += code;
      }
    }
    if (p.output) store_words(words, p.output + (int64_t)row * p.output_stride + first);
  }
  if (!p.sums) return;
  sum = reduce_block(sum, Sum());
  if (threadIdx.x == 0) p.sums[row] = (int32_t)sum;
}

struct SignCodesParameters {
  uint8_t* codes;  // on 16 bytes, a multiple of them long
  uint32_t sixteens;
  int32_t unused;
};

// Codes around 128 become signed numbers where they lie, which products read as they are; a thread does 16.
KERNEL(sign_codes, 256, SignCodesParameters) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.sixteens) return;
  uint32_t* at = (uint32_t*)p.codes + 4 * (int64_t)index;
  uint32_t words[4];
  UNROLL for (int i = 0; i < 4; i++) words[i] = at[i] ^ 0x80808080u;
  store_words(words, at);
}

struct LinearInt8Parameters {
  CodeRows x, weight;
  int32_t* sums;  // [rows, sums_stride]
  int32_t rows, columns, depth, sums_stride;
};

struct IntegerSums {
  const LinearInt8Parameters& p;
  DEVICE void store(int row, int column, int32_t sum, int32_t) const {
    p.sums[(int64_t)row * p.sums_stride + column] = sum;
  }
};

// x [rows, depth] int8, weight [columns, depth] int8 -> exact sums.
KERNEL(linear_int8, GEMM_THREADS, LinearInt8Parameters) {
  multiply_codes(p.x, p.weight, p.rows, p.columns, p.depth, IntegerSums{p});
}

template <class Sum>
struct EndCodesParameters {
  const Sum* sums;             // [rows, sums_stride]; may lie in the output
  const float* scales;         // [rows], of x
  const float* zeros;          // [rows], the codes of x that mean 0; null when all of them are 0
  const int32_t* weight_sums;  // [columns], of the weight's codes; null with them
  Epilogue end;
  Weight weight;
  uint32_t count;
  int32_t columns, sums_stride, first_row;
};

// A zero point that is no number comes with a scale that is none.
DEVICE float corrected(int32_t sum, float zero, int32_t weight_sum) {
  return (float)(sum - (zero == zero ? (int32_t)zero : 0) * weight_sum);
}
DEVICE float corrected(float sum, float, int32_t) { return sum; }

// What follows the sums of a weight's rows [first_row, first_row + columns): both sides' scales, then all that ends
// a product. A code of x means code - zero, so a sum has zero times the weight's codes too much.
template <class Sum>
struct EndedSums {
  const EndCodesParameters<Sum>& p;

  DEVICE float at(int row, int column) const {
    float zero = p.zeros ? p.zeros[row] : 0;
    int32_t weight_sum = p.zeros ? p.weight_sums[column] : 0;
    float sum = corrected(p.sums[(int64_t)row * p.sums_stride + column], zero, weight_sum);
    int64_t first = (int64_t)(p.first_row + column) * p.weight.columns;
    float factor = factor_of(p.weight, quotient(first, p.weight.group_size));
    return p.end.ended(row, column, scaled_sum(sum, p.scales[row], factor));
  }
  // Where a sum lay that nobody asks for any more.
  DEVICE void keep(int row, int column, float value) const {
    if (p.end.output) p.end.keep(row, column, value);
  }
};

template <class Sum>
DEVICE void end_codes(const EndCodesParameters<Sum>& p) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.count) return;
  int row = index / p.columns, column = index % p.columns;
  p.end.keep(row, column, EndedSums<Sum>{p}.at(row, column));
}

KERNEL(end_int8, 256, EndCodesParameters<int32_t>) { end_codes(p); }
KERNEL(end_float8, 256, EndCodesParameters<float>) { end_codes(p); }

template <class Sum>
struct EndRoundedParameters {
  EndCodesParameters<Sum> sums;  // its end's output null where nobody reads the floats
  Rounding to;
};

// The same, rounded for the linear layers that follow; a block a row.
KERNEL(end_int8_codes, BLOCK, EndRoundedParameters<int32_t>) {
  round_row(p.to, EndedSums<int32_t>{p.sums}, blockIdx.x);
}
KERNEL(end_float8_codes, BLOCK, EndRoundedParameters<float>) {
  round_row(p.to, EndedSums<float>{p.sums}, blockIdx.x);
}
