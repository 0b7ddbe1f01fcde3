// What the stand-ins of NVIDIA's libraries share: settings of tests, counts, handles, streams.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace stand_in {

// What a test may set; halftone_stand_in_set's first argument.
enum Setting { DRIVER_VERSION, DEVICE_COUNT, FAIL_ALLOCATION, FAIL_LAUNCH, MEMORY_BYTES, CAPABILITY,
               FAIL_EXECUTION, MISCALCULATE, LIBRARY_VERSION, FAIL_LIBRARY_START, REFUSE_PRODUCTS,
               FAIL_PRODUCT, MISCALCULATE_PRODUCTS, CUDNN_VERSION, FAIL_CUDNN_START, FAIL_CUDNN,
               REFUSE_OPERATIONS, MISCALCULATE_OPERATIONS, PRODUCT_MICROSECONDS, FASTEST_ALGORITHM,
               FAIL_EVENT, FAIL_COMPILER, OPERATION_MICROSECONDS, FASTEST_ENGINE, THREAD_ORDER,
               SETTINGS };
// What a test may ask for.
enum Count { LIVE_ALLOCATIONS, LIVE_BYTES, LIVE_OBJECTS, LAUNCHES, PRODUCTS, DEVICE_PEAK, INTEGER_PRODUCTS,
             FLOAT8_PRODUCTS, OPERATIONS, HEURISTICS, LAST_ALGORITHM, LAST_ENGINE, PLANS_MADE, LIVE_PLANS, COUNTS };

extern std::atomic<int64_t> settings[SETTINGS];
extern std::atomic<int64_t> counts[COUNTS];

// What events note: time passes where a test says so, and not with the host's.
extern std::atomic<int64_t> microseconds;

// For settings that count: whether this is the call that fails.
bool fails(Setting setting);

// Whether bytes lie within one allocation of the device.
bool on_device(uint64_t address, size_t bytes);

// Puts work into a stream, or into the graph that it captures; false for an unknown or failed stream.
bool enqueue(uint64_t stream, std::function<int()> work);

// Handles are addresses of objects that live; anything else is refused.
template <class Object>
struct Handles {
  std::mutex mutex;
  std::set<Object*> live;
  uint64_t add(Object* object) {
    std::lock_guard<std::mutex> lock(mutex);
    live.insert(object);
    counts[LIVE_OBJECTS]++;
    return (uint64_t)object;
  }
  Object* find(uint64_t handle) {
    std::lock_guard<std::mutex> lock(mutex);
    auto object = live.find((Object*)handle);
    return object == live.end() ? nullptr : *object;
  }
  bool remove(uint64_t handle) {
    Object* object = find(handle);
    if (!object) return false;
    {
      std::lock_guard<std::mutex> lock(mutex);
      live.erase(object);
    }
    counts[LIVE_OBJECTS]--;
    delete object;
    return true;
  }
};

}  // namespace stand_in
