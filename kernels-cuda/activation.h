// The elementwise functions of the op table, and what ends a product: residual + gate * act(sum + bias).
#pragma once

#include "numbers.h"
#include "opcodes.h"
#include "portable.h"

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

DEVICE float activate(int kind, float x) {
  switch (kind) {
    case UNARY_SILU: return x * sigmoid(x);
    // (1 + tanh(u)) / 2 = sigmoid(2 u), which loses no digits where tanh(u) is near -1.
    case UNARY_GELU_TANH: return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
    case UNARY_GELU_ERF: return x * 0.5f * erfcf(-x * 0.70710678118654752f);
    case UNARY_QUICK_GELU: return x * sigmoid(1.702f * x);
    case UNARY_RELU: return x < 0 ? 0 : x;
    default: return x;
  }
}

// Rows with a stride; a stride of 0 repeats one row. Strides are in elements.
struct Rows {
  const float* data;
  int32_t stride;
  int32_t unused;

  DEVICE float at(int row, int column) const { return data[(int64_t)row * stride + column]; }
};

struct Epilogue {
  void* output;
  const float* bias;  // null when absent, as gate.data and residual.data
  Rows gate;
  Rows residual;
  int32_t output_stride;
  int32_t activation;
  int32_t output_dtype;  // FLOAT32, or 16 bits where all who read it would round it to them
  int32_t unused;

  DEVICE float ended(int row, int column, float sum) const {
    float value = activate(activation, bias ? sum + bias[column] : sum);
    if (gate.data) value *= gate.at(row, column);
    if (residual.data) value += residual.at(row, column);
    return value;
  }
  DEVICE void keep(int row, int column, float value) const {
    int64_t index = (int64_t)row * output_stride + column;
    switch (output_dtype) {
      case FLOAT16: return narrow(value, ((Float16*)output)[index]);
      case BFLOAT16: return narrow(value, ((BFloat16*)output)[index]);
      default: ((float*)output)[index] = value;
    }
  }
  DEVICE void store(int row, int column, float sum) const { keep(row, column, ended(row, column, sum)); }
};
