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
// Of an index below 2^32, as all of weights are: 64-bit division is a slow call on a device.
DEVICE int64_t quotient(int64_t index, uint32_t divisor) { return (uint32_t)index / divisor; }
DEVICE int least(int a, int b) { return a < b ? a : b; }
