// CUDA's syntax for a host compiler: indices, shared memory, barriers and shuffles. The threads of a block are
// fibers on one thread of the host (stand_in/fibers.cpp), so a kernel's source is the same on both sides.
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define DEVICE inline
// One grid runs at a time (run_grid holds a lock), so these need not belong to a thread. The linker gathers them
// (build.sh), and they are NaN when a block starts.
#define SHARED static
#define UNROLL _Pragma("GCC unroll 16")
#define KERNEL(name, threads, Parameters)                                                        \
  static void name(const Parameters& p);                                                         \
  static const stand_in::Registration registered_##name(                                         \
      #name, threads, sizeof(Parameters),                                                        \
      [](const void* parameters) { name(*static_cast<const Parameters*>(parameters)); });        \
  static void name(const Parameters& p)

struct Index3 {
  unsigned x, y, z;
};
extern Index3 threadIdx, blockIdx;

namespace stand_in {

// A kernel by name, found by the driver's cuModuleGetFunction.
struct Registration {
  const char* name;
  unsigned threads;
  size_t parameter_bytes;
  void (*run)(const void*);
  mutable std::atomic<int64_t> launches{0};
  const Registration* next;
  Registration(const char* name, unsigned threads, size_t parameter_bytes, void (*run)(const void*));
};
const Registration* find_kernel(const char* name);

// Runs all blocks of a grid, one after another, and their threads in an order that tests choose (THREAD_ORDER).
// Gives what a device would not have forgiven, or null.
const char* run_grid(const Registration& kernel, Index3 grid, unsigned threads, const void* parameters);

// The first thing that a grid did wrong; the text must stay.
void fault(const char* text);
bool has_fault();

// A word of each thread of the caller's warp, exchanged: gives what `lane` holds. All lanes must take part.
uint32_t exchange(unsigned mask, uint32_t word, unsigned lane);

}  // namespace stand_in

void __syncthreads();

template <class To, class From>
inline To reinterpreted(From from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float __shfl_xor_sync(unsigned lanes, float value, int mask) {
  unsigned lane = (threadIdx.x % 32) ^ (unsigned)mask;
  return reinterpreted<float>(stand_in::exchange(lanes, reinterpreted<uint32_t>(value), lane));
}

// The build forbids contraction, so these round each on their own, as the device's do.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }

inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum) {
  for (int i = 0; i < 4; i++) sum += (int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i));
  return sum;
}

// One thread runs at a time, so this needs no lock.
inline int32_t atomicCAS(int32_t* address, int32_t expected, int32_t value) {
  int32_t found = *address;
  if (found == expected) *address = value;
  return found;
}
