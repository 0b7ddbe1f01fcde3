// The one weight layout: w[o, i] = (value(code) * scale(group)) * multiplier + offset(group), each product
// and sum rounded to float in this order (src/quantization/dequantize.ts). Described by
// src/backends/cuda/weight_descriptor.ts.
#pragma once

#include "numbers.h"

enum ScaleKind { SCALE_FLOAT, SCALE_CODED, SCALE_NONE };

struct Scales {
  const uint8_t* data;  // floats, or codes
  const float* table;
  const void* supers;
  const float* constant;
  int32_t kind;
  int32_t dtype;  // of the floats, or of the supers
  int32_t bits;
  int32_t has_table;
  float zero_point;
  float multiplier;
  int32_t super_group_size;
  int32_t unused;
};

struct Weight {
  const uint8_t* data;  // floats, or codes
  const float* table;
  int32_t is_quantized;
  int32_t dtype;
  int32_t rows;
  int32_t columns;
  int32_t stride;  // of dense rows, in elements
  int32_t bits;
  int32_t has_table;
  float zero_point;
  uint32_t group_size;
  uint32_t flip;  // bits of a code that lie the other way round
  Scales scale;
  Scales offset;
};

// Two bytes are read: units have slack behind their last code.
DEVICE uint32_t code_at(const uint8_t* codes, int bits, int64_t index) {
  int64_t bit = index * bits;
  const uint8_t* byte = codes + (bit >> 3);
  uint32_t pair = byte[0] | (uint32_t)byte[1] << 8;
  return pair >> (bit & 7) & ((1u << bits) - 1);
}

// Codes [first, first + 8), first a multiple of 8: exactly `bits` bytes.
DEVICE uint64_t eight_codes(const uint8_t* codes, int bits, int64_t first) {
  const uint8_t* bytes = codes + (first >> 3) * bits;
  if (bits == 4) return *(const uint32_t*)bytes;
  if (bits == 8) return *(const uint64_t*)bytes;
  uint64_t packed = 0;
  for (int i = 0; i < bits; i++) packed |= (uint64_t)bytes[i] << (8 * i);
  return packed;
}

// Codes [first, first + count) of an eight, 0 beyond.
DEVICE uint64_t codes_from(const uint8_t* codes, int bits, int64_t first, int count) {
  if (first % 8 == 0 && count >= 8) return eight_codes(codes, bits, first);
  uint64_t packed = 0;
  UNROLL for (int i = 0; i < 8; i++) {
    if (i < count) packed |= (uint64_t)code_at(codes, bits, first + i) << (i * bits);
  }
  return packed;
}

DEVICE float scale_of(const Scales& s, int64_t group) {
  if (s.kind == SCALE_FLOAT) return load_float(s.data, s.dtype, group);
  uint32_t code = code_at(s.data, s.bits, group);
  float value = s.has_table ? s.table[code] : (float)code - s.zero_point;
  float product = __fmul_rn(value, load_float(s.supers, s.dtype, quotient(group, s.super_group_size)));
  float constant = *s.constant;
  return constant == 0 ? product : __fadd_rn(product, constant);
}

DEVICE float code_value(const Weight& w, uint32_t code) {
  return w.has_table ? w.table[code] : (float)code - w.zero_point;
}

DEVICE float scaled(const Weight& w, uint32_t code, float scale) {
  return __fmul_rn(__fmul_rn(code_value(w, code), scale), w.scale.multiplier);
}

// What a code of a group is worth in all.
DEVICE float factor_of(const Weight& w, int64_t group) {
  return __fmul_rn(scale_of(w.scale, group), w.scale.multiplier);
}

// The weight of a flat, row-major index.
DEVICE float weight_at(const Weight& w, int64_t index) {
  if (!w.is_quantized) return load_float(w.data, w.dtype, index);
  int64_t group = quotient(index, w.group_size);
  float value = scaled(w, code_at(w.data, w.bits, index) ^ w.flip, scale_of(w.scale, group));
  return w.offset.kind == SCALE_NONE ? value : __fadd_rn(value, scale_of(w.offset, group));
}

// Weights [first, first + count) of one aligned eight, first a multiple of 8. Loops run to 8, so that the eight
// stay in registers.
DEVICE void eight_weights(const Weight& w, int64_t first, int count, float out[8]) {
  if (!w.is_quantized) {
    UNROLL for (int i = 0; i < 8; i++) {
      if (i < count) out[i] = load_float(w.data, w.dtype, first + i);
    }
    return;
  }
  uint64_t codes = eight_codes(w.data, w.bits, first);
  uint32_t mask = (1u << w.bits) - 1;
  int64_t group = quotient(first, w.group_size);
  int64_t end = (group + 1) * w.group_size;
  float scale = scale_of(w.scale, group);
  bool has_offset = w.offset.kind != SCALE_NONE;
  float offset = has_offset ? scale_of(w.offset, group) : 0;
  UNROLL for (int i = 0; i < 8; i++) {
    if (i >= count) continue;
    if (first + i == end) {
      group++;
      end += w.group_size;
      scale = scale_of(w.scale, group);
      if (has_offset) offset = scale_of(w.offset, group);
    }
    float value = scaled(w, ((uint32_t)(codes >> (i * w.bits)) & mask) ^ w.flip, scale);
    out[i] = has_offset ? __fadd_rn(value, offset) : value;
  }
}
