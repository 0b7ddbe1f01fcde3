// What the kernels need of their compiler: nvcc, or a host compiler with the stand-in's syntax.
// A kernel is KERNEL(name, threads of a block, Parameters) { ... p.field ... }; its one parameter is a
// struct whose pointers come before its 32-bit words, so that both sides lay it out alike.
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define KERNEL(name, threads, Parameters) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Parameters p)
#define DEVICE __device__ __forceinline__
#define SHARED __shared__
#define UNROLL _Pragma("unroll")
#else
#include "stand_in/cuda_syntax.h"
#endif

DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }
// 64-bit division is slow on a device, and hardly ever needed.
DEVICE int64_t quotient(int64_t a, uint32_t b) {
  return a <= 0xffffffff ? (uint32_t)a / b : a / b;
}
DEVICE int least(int a, int b) { return a < b ? a : b; }
