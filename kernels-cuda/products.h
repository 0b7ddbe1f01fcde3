// linear, matmul and conv2d: who reads what in the shared product.
#pragma once

#include "activation.h"
#include "gemm.h"
#include "weight.h"

// A weight in any layout as the right operand: row o, element k. Read as stored, so best for few rows of x.
struct WeightRows {
  const Weight& weight;
  DEVICE float at(int row, int k) const {
    int64_t stride = weight.is_quantized ? weight.columns : weight.stride;
    return weight_at(weight, row * stride + k);
  }
};

struct LinearParameters {
  Rows x;
  Epilogue end;
  Weight weight;
  int32_t rows, columns, depth, unused;
};

// x [rows, depth], weight [columns, depth] in any layout -> output [rows, columns].
KERNEL(linear, GEMM_THREADS, LinearParameters) {
  multiply_tile(p.x, WeightRows{p.weight}, p.rows, p.columns, p.depth, p.end);
}

// Rows of numbers of any width as an operand.
template <class Number>
struct NumberRows {
  const Number* data;
  int32_t stride, unused;
  DEVICE float at(int row, int k) const { return widened(data[(int64_t)row * stride + k]); }
};

template <class Number>
struct LinearNumbersParameters {
  NumberRows<Number> x, weight;
  Epilogue end;
  int32_t rows, columns, depth, unused;
};

template <class Number>
DEVICE void multiply_numbers(const LinearNumbersParameters<Number>& p) {
  multiply_tile(p.x, p.weight, p.rows, p.columns, p.depth, p.end);
}

// The same over plain weights: dense ones, or a slice that was dequantized; x and weight of one type.
KERNEL(linear_float32, GEMM_THREADS, LinearNumbersParameters<float>) { multiply_numbers(p); }
KERNEL(linear_float16, GEMM_THREADS, LinearNumbersParameters<Float16>) { multiply_numbers(p); }
KERNEL(linear_bfloat16, GEMM_THREADS, LinearNumbersParameters<BFloat16>) { multiply_numbers(p); }

// Codes of float8 as the numbers they are; what they are worth is for the end.
KERNEL(linear_float8_e4m3fn, GEMM_THREADS, LinearNumbersParameters<Float8E4M3>) { multiply_numbers(p); }

template <class Number>
struct EndProductParameters {
  NumberRows<Number> sums;
  Epilogue end;
  uint32_t count;
  int32_t columns;
};

template <class Number>
DEVICE void end_numbers(const EndProductParameters<Number>& p) {
  uint32_t index = blockIdx.x * 256u + threadIdx.x;
  if (index >= p.count) return;
  int row = index / p.columns, column = index % p.columns;
  p.end.store(row, column, p.sums.at(row, column));
}

// What follows a product that a library made: bias, activation, gate, residual. Sums of float may lie in the output.
KERNEL(end_product_float32, 256, EndProductParameters<float>) { end_numbers(p); }
KERNEL(end_product_float16, 256, EndProductParameters<Float16>) { end_numbers(p); }
KERNEL(end_product_bfloat16, 256, EndProductParameters<BFloat16>) { end_numbers(p); }

// A matrix of a batch, any strides, in elements.
struct Strided {
  const float* data;
  int32_t batch_stride, row_stride, column_stride, unused;

  DEVICE const float* element(int batch, int row, int column) const {
    return data + (int64_t)batch * batch_stride + (int64_t)row * row_stride +
           (int64_t)column * column_stride;
  }
};

struct BatchMatrix {
  const Strided& matrix;
  int batch;
  DEVICE float at(int row, int k) const { return *matrix.element(batch, row, k); }
};

struct ScaledOutput {
  const Strided& output;
  int batch;
  float scale;
  DEVICE void store(int row, int column, float sum) const {
    *(float*)output.element(batch, row, column) = scale * sum;
  }
};

struct MatmulParameters {
  Strided a, b, output;
  int32_t m, n, k;
  float scale;
};

// a [batch, m, k], b [batch, n, k] -> output [batch, m, n] = scale * a b^T; a batch is a layer of blocks.
KERNEL(matmul, GEMM_THREADS, MatmulParameters) {
  int batch = blockIdx.y;
  multiply_tile(BatchMatrix{p.a, batch}, BatchMatrix{p.b, batch}, p.m, p.n, p.k,
                ScaledOutput{p.output, batch, p.scale});
}

struct Conv2dParameters {
  const float* x;
  Epilogue end;
  Weight weight;
  int32_t out_height, out_width, out_channels, height, width, channels;
  int32_t row_stride, pixel_stride;  // of x, in elements
  int32_t kernel, stride, top, left, upsample, unused;
};

// The patches of x as rows [out_height * out_width, kernel * kernel * channels]; padding reads as zero.
struct Patches {
  const Conv2dParameters& p;
  DEVICE float at(int pixel, int k) const {
    int tap = k / p.channels, channel = k % p.channels;
    int y = pixel / p.out_width * p.stride + tap / p.kernel - p.top;
    int x = pixel % p.out_width * p.stride + tap % p.kernel - p.left;
    if (y < 0 || x < 0 || y >= p.height * p.upsample || x >= p.width * p.upsample) return 0;
    int64_t line = (int64_t)(y / p.upsample) * p.row_stride;
    return p.x[line + (int64_t)(x / p.upsample) * p.pixel_stride + channel];
  }
};

// x [height, width, channels], weight [out, kernel, kernel, channels] -> output [out pixels, out channels].
KERNEL(conv2d, GEMM_THREADS, Conv2dParameters) {
  multiply_tile(Patches{p}, WeightRows{p.weight}, p.out_height * p.out_width, p.out_channels,
                p.kernel * p.kernel * p.channels, p.end);
}
