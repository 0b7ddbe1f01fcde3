// Stored number types, widened to float and back. Conversions to fewer bits round to nearest, ties to even.
#pragma once

#include "portable.h"

// In the order of KERNEL_DTYPES in src/backends/weight_unit.ts.
enum Dtype { FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3, FLOAT8_E5M2 };

#ifdef __CUDACC__
DEVICE uint32_t to_bits(float x) { return __float_as_uint(x); }
DEVICE float from_bits(uint32_t bits) { return __uint_as_float(bits); }
DEVICE float half_to_float(uint16_t half) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
  return x;
}
DEVICE uint16_t float_to_half(float x) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
  return half;
}
DEVICE uint16_t float_to_bfloat16(float x) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
#else
DEVICE uint32_t to_bits(float x) { return reinterpreted<uint32_t>(x); }
DEVICE float from_bits(uint32_t bits) { return reinterpreted<float>(bits); }
DEVICE float half_to_float(uint16_t half) { return (float)reinterpreted<_Float16>(half); }
DEVICE uint16_t float_to_half(float x) { return reinterpreted<uint16_t>((_Float16)x); }
DEVICE uint16_t float_to_bfloat16(float x) {
  uint32_t bits = to_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#endif

DEVICE float bfloat16_to_float(uint16_t bits) { return from_bits((uint32_t)bits << 16); }

// Numbers of 16 bits as types, for kernels that are templates over what they read or write.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
DEVICE float widened(float x) { return x; }
DEVICE float widened(Float16 x) { return half_to_float(x.bits); }
DEVICE float widened(BFloat16 x) { return bfloat16_to_float(x.bits); }
DEVICE void narrow(float x, float& to) { to = x; }
DEVICE void narrow(float x, Float16& to) { to.bits = float_to_half(x); }
DEVICE void narrow(float x, BFloat16& to) { to.bits = float_to_bfloat16(x); }

// Four words on 16 bytes at once: left to itself the compiler writes some of them one by one.
DEVICE void store_words(const uint32_t words[4], void* to) {
#ifdef __CUDACC__
  asm volatile(
      "{\n"
      ".reg .u64 at;\n"
      "cvta.to.global.u64 at, %0;\n"
      "st.global.v4.u32 [at], {%1, %2, %3, %4};\n"
      "}"
      :
      : "l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
      : "memory");
#else
  if ((uintptr_t)to % 16 != 0) stand_in::fault("sixteen bytes are stored at a misaligned address");
  memcpy(to, words, 16);
#endif
}

// Eight neighbours on 16 bytes, written in as few pieces as there are.
DEVICE void store_eight(const float values[8], float* to) {
  UNROLL for (int half = 0; half < 8; half += 4) {
    uint32_t words[4];
    UNROLL for (int i = 0; i < 4; i++) words[i] = to_bits(values[half + i]);
    store_words(words, to + half);
  }
}
template <class Number>
DEVICE void store_eight(const float values[8], Number* to) {
  uint32_t words[4];
  UNROLL for (int i = 0; i < 4; i++) {
    Number low, high;
    narrow(values[2 * i], low);
    narrow(values[2 * i + 1], high);
    words[i] = low.bits | (uint32_t)high.bits << 16;
  }
  store_words(words, to);
}
template <class Number>
DEVICE bool lies_on_eight(const Number* at, int64_t stride) {
  return (uint64_t)at % 16 == 0 && stride % 8 == 0;
}

DEVICE float e5m2_to_float(uint8_t bits) { return half_to_float((uint16_t)(bits << 8)); }

DEVICE float e4m3_to_float(uint8_t bits) {
  uint32_t magnitude = bits & 0x7f;
  float value;
  if (magnitude == 0x7f) value = from_bits(0x7fc00000);
  else if (magnitude < 8) value = (float)magnitude * 0x1p-9f;
  else value = from_bits((magnitude << 20) + (120u << 23));
  return bits & 0x80 ? -value : value;
}

// The byte of a value that float8 e4m3 holds.
DEVICE uint8_t float_to_e4m3(float x) {
  uint32_t bits = to_bits(x) & 0x7fffffff, sign = to_bits(x) >> 24 & 0x80;
  if (x != x) return 0x7f;
  if (fabsf(x) < 0x1p-6f) return (uint8_t)(sign | (uint32_t)(fabsf(x) * 0x1p9f));
  return (uint8_t)(sign | ((bits >> 20) - (120u << 3)));
}

struct Float8E4M3 {
  uint8_t bits;
};
DEVICE float widened(Float8E4M3 x) { return e4m3_to_float(x.bits); }

DEVICE float load_float(const void* data, int dtype, int64_t index) {
  switch (dtype) {
    case FLOAT32: return ((const float*)data)[index];
    case FLOAT16: return half_to_float(((const uint16_t*)data)[index]);
    case BFLOAT16: return bfloat16_to_float(((const uint16_t*)data)[index]);
    case FLOAT8_E4M3: return e4m3_to_float(((const uint8_t*)data)[index]);
    default: return e5m2_to_float(((const uint8_t*)data)[index]);
  }
}

// The nearest value with `kept` bits of mantissa; below `least_normal` the nearest multiple of `step`.
DEVICE float round_mantissa(float x, int kept, float least_normal, float step) {
  if (x != x) return x;
  if (fabsf(x) < least_normal) return rintf(x / step) * step;
  uint32_t bits = to_bits(x), dropped = 23 - kept;
  bits += (1u << (dropped - 1)) - 1 + (bits >> dropped & 1);
  return from_bits(bits & ~((1u << dropped) - 1));
}

// A value in the range of float8, as float8 would hold it.
DEVICE float round_to_float8(float x, int dtype) {
  return dtype == FLOAT8_E4M3 ? round_mantissa(x, 3, 0x1p-6f, 0x1p-9f)
                              : round_mantissa(x, 2, 0x1p-14f, 0x1p-16f);
}
