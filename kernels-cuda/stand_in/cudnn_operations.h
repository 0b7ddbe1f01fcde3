// What the stand-in for cuDNN computes, over host memory: attention and convolution as plain loops, sums in float,
// operands and results of the tensors' types.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor_float32.h"

namespace stand_in {

// cudnnDataType_t.
enum DataType { DATA_FLOAT = 0, DATA_HALF = 2, DATA_INT32 = 4, DATA_BFLOAT16 = 9 };

// A tensor as its descriptor says, at an address.
struct Tensor {
  int type;
  int64_t dimensions[4], strides[4];
  char* data;

  int dtype() const { return type == DATA_FLOAT ? FLOAT32 : type == DATA_HALF ? FLOAT16 : BFLOAT16; }
  size_t item() const { return type == DATA_FLOAT ? 4 : 2; }
  // Bytes from the first element to the last.
  size_t bytes() const {
    int64_t last = 0;
    for (int axis = 0; axis < 4; axis++) last += (dimensions[axis] - 1) * strides[axis];
    return (last + 1) * item();
  }
  int64_t index(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3];
  }
  float at(int64_t b, int64_t c, int64_t d) const { return load_float(data, dtype(), index(0, b, c, d)); }
  void set(int64_t b, int64_t c, int64_t d, float value) const {
    int64_t at = index(0, b, c, d);
    if (type == DATA_FLOAT) ((float*)data)[at] = value;
    if (type == DATA_HALF) ((uint16_t*)data)[at] = float_to_half(value);
    if (type == DATA_BFLOAT16) ((uint16_t*)data)[at] = float_to_bfloat16(value);
  }
};

inline float rounded_to(int type, float x) {
  if (type == DATA_HALF) return half_to_float(float_to_half(x));
  if (type == DATA_BFLOAT16) return bfloat16_to_float(float_to_bfloat16(x));
  return x;
}

// Tensors [1, heads, rows, size]. The shares are rounded to the type before they meet v, their sum is not.
struct Attention {
  Tensor q, k, v, output;
  float scale;

  void run() const {
    int64_t keys = k.dimensions[2], size = q.dimensions[3];
    std::vector<float> shares(keys);
    for (int64_t head = 0; head < q.dimensions[1]; head++) {
      for (int64_t query = 0; query < q.dimensions[2]; query++) {
        float most = -INFINITY, total = 0;
        for (int64_t key = 0; key < keys; key++) {
          float sum = 0;
          for (int64_t i = 0; i < size; i++) sum += q.at(head, query, i) * k.at(head, key, i);
          shares[key] = sum * scale;
          most = std::fmax(most, shares[key]);
        }
        for (float& share : shares) {
          share = std::exp(share - most);
          total += share;
          share = rounded_to(q.type, share);
        }
        for (int64_t i = 0; i < size; i++) {
          float sum = 0;
          for (int64_t key = 0; key < keys; key++) sum += shares[key] * v.at(head, key, i);
          output.set(head, query, i, sum / total);
        }
      }
    }
  }
};

// x and y [1, channels, height, width], w [out channels, channels, kernel, kernel].
struct Convolution {
  Tensor x, w, y;
  int64_t stride[2], top_left[2];
  bool tensor_float32;

  float weight(int64_t out, int64_t channel, int64_t ky, int64_t kx) const {
    float value = load_float(w.data, w.dtype(), w.index(out, channel, ky, kx));
    return tensor_float32 ? to_tensor_float32(value) : value;
  }
  float pixel(int64_t channel, int64_t row, int64_t column) const {
    if (row < 0 || column < 0 || row >= x.dimensions[2] || column >= x.dimensions[3]) return 0;
    float value = x.at(channel, row, column);
    return tensor_float32 ? to_tensor_float32(value) : value;
  }
  float sum_at(int64_t out, int64_t row, int64_t column) const {
    float sum = 0;
    for (int64_t ky = 0; ky < w.dimensions[2]; ky++) {
      for (int64_t kx = 0; kx < w.dimensions[3]; kx++) {
        for (int64_t channel = 0; channel < w.dimensions[1]; channel++) {
          sum += pixel(channel, row * stride[0] - top_left[0] + ky, column * stride[1] - top_left[1] + kx) *
                 weight(out, channel, ky, kx);
        }
      }
    }
    return sum;
  }
  void run() const {
    for (int64_t row = 0; row < y.dimensions[2]; row++) {
      for (int64_t column = 0; column < y.dimensions[3]; column++) {
        for (int64_t out = 0; out < y.dimensions[1]; out++) y.set(out, row, column, sum_at(out, row, column));
      }
    }
  }
};

}  // namespace stand_in
