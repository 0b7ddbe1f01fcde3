// TF32, which the host has no type for.
#pragma once

#include "../numbers.h"

namespace stand_in {

// To 10 bits of mantissa, ties away from zero, as cvt.rna.tf32 does.
inline float to_tensor_float32(float x) {
  return x == x ? from_bits((to_bits(x) + 0x1000) & 0xffffe000) : x;
}

}  // namespace stand_in
