// A stand-in for libcuda: the symbols that src/backends/cuda/driver.ts calls, over host memory and the kernels
// built for the host. Streams are real threads, so that what is not waited for is not there yet. It checks
// what a GPU would not forgive (ranges of copies, sizes of parameters, kernels missing from the module) and
// fails on demand.
#include <elf.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda_syntax.h"
#include "driver.h"

namespace stand_in {

// For the failing ones: which call from now fails, 0 for none.
std::atomic<int64_t> settings[SETTINGS] = {12080, 1, 0, 0, int64_t(8) << 30, 90, 0, 0, 130101,
                                           0, 0, 0, 0, 92000};
std::atomic<int64_t> counts[COUNTS];
std::atomic<int64_t> microseconds;

bool fails(Setting setting) {
  int64_t left = settings[setting];
  if (left <= 0) return false;
  settings[setting] = left - 1;
  return left == 1;
}

}  // namespace stand_in

namespace {

using namespace stand_in;

enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILED = 719,
  CAPTURE_UNSUPPORTED = 900,
};

std::atomic<bool> initialized{false};
thread_local bool has_context = false;

// Memory of the device, or pinned memory of the host, by address.
struct Allocations {
  std::mutex mutex;
  std::map<uint64_t, size_t> blocks;
  int64_t held = 0;
  bool is_device;
  explicit Allocations(bool is_device) : is_device(is_device) {}

  uint64_t take(size_t bytes) {
    if (fails(FAIL_ALLOCATION)) return 0;
    if (counts[LIVE_BYTES] + (int64_t)bytes > settings[MEMORY_BYTES]) return 0;
    void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
    if (!memory) return 0;
    std::memset(memory, 0xff, bytes);  // NaN: what is read before it was written shows
    std::lock_guard<std::mutex> lock(mutex);
    blocks[(uint64_t)memory] = bytes;
    counts[LIVE_ALLOCATIONS]++;
    counts[LIVE_BYTES] += bytes;
    // The most since the device was last empty.
    if (is_device && held == 0) counts[DEVICE_PEAK] = 0;
    held += bytes;
    if (is_device && held > counts[DEVICE_PEAK]) counts[DEVICE_PEAK] = held;
    return (uint64_t)memory;
  }
  bool give_back(uint64_t address) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = blocks.find(address);
    if (found == blocks.end()) return false;
    counts[LIVE_ALLOCATIONS]--;
    counts[LIVE_BYTES] -= found->second;
    held -= found->second;
    blocks.erase(found);
    std::free((void*)address);
    return true;
  }
  bool contain(uint64_t address, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return false;
    auto block = std::prev(after);
    return address + bytes <= block->first + block->second;
  }
};
Allocations device_memory(true), pinned_memory(false);

typedef std::function<int()> Work;

struct Graph {
  std::vector<Work> nodes;
};

// A queue with a thread of its own. The first failure stays, as a CUDA context's does.
struct Stream {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool busy = false, ending = false;
  int failure = SUCCESS;
  std::unique_ptr<Graph> captured;
  std::thread thread;

  Stream() : thread([this] { work(); }) {}
  ~Stream() {
    {
      std::lock_guard<std::mutex> lock(mutex);
      ending = true;
    }
    changed.notify_all();
    thread.join();
  }
  int add(Work item) {
    if (captured) {
      captured->nodes.push_back(std::move(item));
      return SUCCESS;
    }
    std::lock_guard<std::mutex> lock(mutex);
    if (failure != SUCCESS) return failure;
    queue.push_back(std::move(item));
    changed.notify_all();
    return SUCCESS;
  }
  int finish() {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [this] { return queue.empty() && !busy; });
    return failure;
  }
  void work() {
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      changed.wait(lock, [this] { return ending || !queue.empty(); });
      if (queue.empty()) return;
      Work item = std::move(queue.front());
      queue.pop_front();
      busy = true;
      bool skips = failure != SUCCESS;
      lock.unlock();
      int result = skips ? SUCCESS : item();
      lock.lock();
      busy = false;
      if (failure == SUCCESS) failure = result;
      changed.notify_all();
    }
  }
};

// Where a stream was when an event was recorded.
struct Mark {
  std::atomic<bool> done{false};
  std::atomic<int64_t> at{0};
};
struct Event {
  std::shared_ptr<Mark> mark;
  Stream* stream = nullptr;
  bool is_timed = false;
  bool is_reached() const { return !mark || mark->done; }
};

struct Module {
  std::string image;
};

Handles<Stream> streams;
Handles<Event> events;
Handles<Module> modules;
Handles<Graph> graphs;  // and executable ones: both are lists of work

int removed(bool was_there) { return was_there ? SUCCESS : INVALID_HANDLE; }

// The bytes of a cubin, by its section table; of PTX, by its end.
size_t image_bytes(const void* image) {
  if (std::memcmp(image, ELFMAG, SELFMAG) != 0) return std::strlen((const char*)image);
  const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
  return header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
}

int ready() {
  if (!initialized) return NOT_INITIALIZED;
  return has_context ? SUCCESS : INVALID_CONTEXT;
}

int run_kernel(const Registration* kernel, Index3 grid, unsigned threads,
               const std::vector<char>& parameters) {
  counts[LAUNCHES]++;
  kernel->launches++;
  if (fails(FAIL_EXECUTION)) return ILLEGAL_ADDRESS;
  // A device that does nothing, for the backend's own test of it.
  if (settings[MISCALCULATE]) return SUCCESS;
  const char* fault = stand_in::run_grid(*kernel, grid, threads, parameters.data());
  if (fault) std::fprintf(stderr, "stand-in: kernel %s: %s\n", kernel->name, fault);
  return fault ? LAUNCH_FAILED : SUCCESS;
}

}  // namespace

bool stand_in::on_device(uint64_t address, size_t bytes) { return device_memory.contain(address, bytes); }
bool stand_in::enqueue(uint64_t handle, std::function<int()> work) {
  Stream* stream = streams.find(handle);
  return stream && stream->add(std::move(work)) == SUCCESS;
}

EXPORT void halftone_stand_in_set(int setting, int64_t value) { settings[setting] = value; }
EXPORT int64_t halftone_stand_in_count(int count) { return counts[count]; }
EXPORT int64_t halftone_stand_in_parameter_bytes(const char* name) {
  const Registration* kernel = stand_in::find_kernel(name);
  return kernel ? (int64_t)kernel->parameter_bytes : 0;
}
EXPORT int64_t halftone_stand_in_launches(const char* name) {
  const Registration* kernel = stand_in::find_kernel(name);
  return kernel ? (int64_t)kernel->launches : 0;
}

EXPORT int cuInit(unsigned) {
  if (settings[DEVICE_COUNT] == 0) return NO_DEVICE;
  initialized = true;
  return SUCCESS;
}
EXPORT int cuDriverGetVersion(int* version) {
  *version = (int)settings[DRIVER_VERSION];
  return SUCCESS;
}
EXPORT int cuDeviceGetCount(int* count) {
  *count = (int)settings[DEVICE_COUNT];
  return SUCCESS;
}
EXPORT int cuDeviceGet(int* device, int ordinal) {
  if (ordinal < 0 || ordinal >= settings[DEVICE_COUNT]) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}
EXPORT int cuDeviceGetName(char* name, int length, int) {
  std::strncpy(name, "stand-in for a GPU", length);
  return SUCCESS;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case 75: *value = (int)settings[CAPABILITY] / 10; return SUCCESS;
    case 76: *value = (int)settings[CAPABILITY] % 10; return SUCCESS;
    case 115: *value = 1; return SUCCESS;  // memory pools
    default: return INVALID_VALUE;
  }
}
EXPORT int cuDevicePrimaryCtxRetain(uint64_t* context, int device) {
  if (!initialized) return NOT_INITIALIZED;
  *context = 0x1000 + device;
  counts[LIVE_OBJECTS]++;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
  counts[LIVE_OBJECTS]--;
  return SUCCESS;
}
EXPORT int cuCtxSetCurrent(uint64_t context) {
  has_context = context != 0;
  return SUCCESS;
}
EXPORT int cuDeviceGetDefaultMemPool(uint64_t* pool, int) {
  *pool = 0x2000;
  return SUCCESS;
}
EXPORT int cuMemPoolSetAttribute(uint64_t pool, int, const void*) {
  return pool == 0x2000 ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuMemPoolTrimTo(uint64_t pool, size_t) { return pool == 0x2000 ? SUCCESS : INVALID_VALUE; }
EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  if (int result = ready()) return result;
  *total = settings[MEMORY_BYTES];
  *free = *total - counts[LIVE_BYTES];
  return SUCCESS;
}

EXPORT int cuMemAllocAsync(uint64_t* address, size_t bytes, uint64_t stream) {
  if (int result = ready()) return result;
  if (!streams.find(stream)) return INVALID_HANDLE;
  if (bytes == 0) return INVALID_VALUE;
  *address = device_memory.take(bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT int cuMemFreeAsync(uint64_t address, uint64_t handle) {
  Stream* stream = streams.find(handle);
  if (!stream) return INVALID_HANDLE;
  stream->finish();  // also after a failure, which ends all other work
  return device_memory.give_back(address) ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuMemHostAlloc(uint64_t* address, size_t bytes, unsigned) {
  if (int result = ready()) return result;
  *address = pinned_memory.take(bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT int cuMemFreeHost(uint64_t address) {
  return pinned_memory.give_back(address) ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, uint64_t handle) {
  Stream* stream = streams.find(handle);
  if (!stream) return INVALID_HANDLE;
  if (!device_memory.contain(to, bytes)) return INVALID_VALUE;
  if (pinned_memory.contain((uint64_t)from, bytes)) {
    return stream->add([=] { std::memcpy((void*)to, from, bytes); return SUCCESS; });
  }
  std::vector<char> staged((const char*)from, (const char*)from + bytes);
  return stream->add([=] { std::memcpy((void*)to, staged.data(), bytes); return SUCCESS; });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, uint64_t handle) {
  Stream* stream = streams.find(handle);
  if (!stream) return INVALID_HANDLE;
  if (!device_memory.contain(from, bytes)) return INVALID_VALUE;
  int result = stream->add([=] { std::memcpy(to, (void*)from, bytes); return SUCCESS; });
  bool waits = !pinned_memory.contain((uint64_t)to, bytes) && !stream->captured;
  return result == SUCCESS && waits ? stream->finish() : result;
}
EXPORT int cuMemsetD32Async(uint64_t to, unsigned value, size_t words, uint64_t handle) {
  Stream* stream = streams.find(handle);
  if (!stream) return INVALID_HANDLE;
  if (!device_memory.contain(to, words * 4)) return INVALID_VALUE;
  return stream->add([=] {
    for (size_t i = 0; i < words; i++) ((unsigned*)to)[i] = value;
    return SUCCESS;
  });
}

EXPORT int cuModuleLoadData(uint64_t* handle, const void* image) {
  if (int result = ready()) return result;
  bool is_cubin = std::memcmp(image, ELFMAG, SELFMAG) == 0;
  bool is_ptx = std::strncmp((const char*)image, "//", 2) == 0;
  if (!is_cubin && !is_ptx) return INVALID_IMAGE;
  *handle = modules.add(new Module{std::string((const char*)image, image_bytes(image))});
  return SUCCESS;
}
EXPORT int cuModuleUnload(uint64_t handle) { return removed(modules.remove(handle)); }
EXPORT int cuModuleGetFunction(uint64_t* function, uint64_t handle, const char* name) {
  Module* module = modules.find(handle);
  if (!module) return INVALID_HANDLE;
  const Registration* kernel = stand_in::find_kernel(name);
  if (!kernel || module->image.find(name) == std::string::npos) return NOT_FOUND;
  *function = (uint64_t)kernel;
  return SUCCESS;
}
EXPORT int cuLaunchKernel(uint64_t function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                          unsigned block_x, unsigned block_y, unsigned block_z, unsigned, uint64_t handle,
                          void** parameters, void** extra) {
  if (int result = ready()) return result;
  Stream* stream = streams.find(handle);
  const Registration* kernel = (const Registration*)function;
  if (!stream) return INVALID_HANDLE;
  if (fails(FAIL_LAUNCH)) return LAUNCH_FAILED;
  // CU_LAUNCH_PARAM_BUFFER_POINTER, address, CU_LAUNCH_PARAM_BUFFER_SIZE, address of the size, END.
  if (parameters || !extra || extra[0] != (void*)1 || extra[2] != (void*)2 || extra[4]) return INVALID_VALUE;
  size_t bytes = *(const size_t*)extra[3];
  bool fits = bytes == kernel->parameter_bytes && block_x == kernel->threads && block_y == 1 && block_z == 1;
  bool has_blocks = grid_x > 0 && grid_y > 0 && grid_y < 65536 && grid_z > 0 && grid_z < 65536;
  if (!fits || !has_blocks) return INVALID_VALUE;
  const char* buffer = (const char*)extra[1];
  std::vector<char> copy(buffer, buffer + bytes);
  Index3 grid = {grid_x, grid_y, grid_z};
  return stream->add([=] { return run_kernel(kernel, grid, block_x, copy); });
}

EXPORT int cuStreamCreate(uint64_t* handle, unsigned) {
  if (int result = ready()) return result;
  *handle = streams.add(new Stream());
  return SUCCESS;
}
EXPORT int cuStreamDestroy_v2(uint64_t handle) { return removed(streams.remove(handle)); }
EXPORT int cuStreamSynchronize(uint64_t handle) {
  Stream* stream = streams.find(handle);
  return stream ? stream->finish() : INVALID_HANDLE;
}
EXPORT int cuStreamWaitEvent(uint64_t handle, uint64_t event_handle, unsigned) {
  Stream* stream = streams.find(handle);
  Event* event = events.find(event_handle);
  if (!stream || !event) return INVALID_HANDLE;
  if (stream->captured) return CAPTURE_UNSUPPORTED;
  auto mark = event->mark;
  return stream->add([mark] {
    while (mark && !mark->done) std::this_thread::yield();
    return SUCCESS;
  });
}
EXPORT int cuEventCreate(uint64_t* handle, unsigned flags) {
  if (int result = ready()) return result;
  if (fails(FAIL_EVENT)) return LAUNCH_FAILED;
  Event* event = new Event();
  event->is_timed = !(flags & 2);
  *handle = events.add(event);
  return SUCCESS;
}
EXPORT int cuEventDestroy_v2(uint64_t handle) { return removed(events.remove(handle)); }
EXPORT int cuEventRecord(uint64_t handle, uint64_t stream_handle) {
  Event* event = events.find(handle);
  Stream* stream = streams.find(stream_handle);
  if (!event || !stream) return INVALID_HANDLE;
  if (stream->captured) return CAPTURE_UNSUPPORTED;
  if (fails(FAIL_EVENT)) return LAUNCH_FAILED;
  auto mark = std::make_shared<Mark>();
  event->mark = mark;
  event->stream = stream;
  return stream->add([mark] {
    mark->at = (int64_t)microseconds;
    mark->done = true;
    return SUCCESS;
  });
}
EXPORT int cuEventSynchronize(uint64_t handle) {
  Event* event = events.find(handle);
  if (!event) return INVALID_HANDLE;
  if (fails(FAIL_EVENT)) return LAUNCH_FAILED;
  return event->stream ? event->stream->finish() : SUCCESS;
}
EXPORT int cuEventElapsedTime(float* milliseconds, uint64_t start_handle, uint64_t end_handle) {
  Event *start = events.find(start_handle), *end = events.find(end_handle);
  if (!start || !end || !start->is_timed || !end->is_timed || !start->mark || !end->mark) return INVALID_HANDLE;
  if (fails(FAIL_EVENT)) return LAUNCH_FAILED;
  if (!start->is_reached() || !end->is_reached()) return NOT_READY;
  *milliseconds = (float)(end->mark->at - start->mark->at) / 1000;
  return SUCCESS;
}
EXPORT int cuEventQuery(uint64_t handle) {
  Event* event = events.find(handle);
  if (!event) return INVALID_HANDLE;
  if (event->is_reached()) return SUCCESS;
  std::lock_guard<std::mutex> lock(event->stream->mutex);
  return event->stream->failure != SUCCESS ? event->stream->failure : NOT_READY;
}

EXPORT int cuStreamBeginCapture_v2(uint64_t handle, int) {
  Stream* stream = streams.find(handle);
  if (!stream) return INVALID_HANDLE;
  if (stream->captured) return CAPTURE_UNSUPPORTED;
  stream->captured = std::make_unique<Graph>();
  return SUCCESS;
}
EXPORT int cuStreamEndCapture(uint64_t handle, uint64_t* graph) {
  Stream* stream = streams.find(handle);
  if (!stream || !stream->captured) return INVALID_HANDLE;
  *graph = graphs.add(stream->captured.release());
  return SUCCESS;
}
EXPORT int cuGraphInstantiateWithFlags(uint64_t* executable, uint64_t handle, uint64_t) {
  Graph* graph = graphs.find(handle);
  if (!graph) return INVALID_HANDLE;
  *executable = graphs.add(new Graph(*graph));
  return SUCCESS;
}
EXPORT int cuGraphDestroy(uint64_t handle) { return removed(graphs.remove(handle)); }
EXPORT int cuGraphExecDestroy(uint64_t handle) { return removed(graphs.remove(handle)); }
EXPORT int cuGraphLaunch(uint64_t handle, uint64_t stream_handle) {
  Graph* graph = graphs.find(handle);
  Stream* stream = streams.find(stream_handle);
  if (!graph || !stream) return INVALID_HANDLE;
  for (const Work& node : graph->nodes) {
    if (int result = stream->add(node)) return result;
  }
  return SUCCESS;
}

namespace {
struct ResultText {
  const char* name;
  const char* text;
};
ResultText text_of(int result) {
  switch (result) {
    case SUCCESS: return {"CUDA_SUCCESS", "no error"};
    case INVALID_VALUE: return {"CUDA_ERROR_INVALID_VALUE", "invalid argument"};
    case OUT_OF_MEMORY: return {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"};
    case NOT_INITIALIZED: return {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"};
    case NO_DEVICE: return {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"};
    case INVALID_DEVICE: return {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"};
    case INVALID_IMAGE: return {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"};
    case INVALID_CONTEXT: return {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"};
    case INVALID_HANDLE: return {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"};
    case NOT_FOUND: return {"CUDA_ERROR_NOT_FOUND", "named symbol not found"};
    case ILLEGAL_ADDRESS:
      return {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"};
    case LAUNCH_FAILED: return {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"};
    default: return {nullptr, nullptr};
  }
}
}  // namespace

EXPORT int cuGetErrorName(int result, const char** name) {
  *name = text_of(result).name;
  return *name ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuGetErrorString(int result, const char** text) {
  *text = text_of(result).text;
  return *text ? SUCCESS : INVALID_VALUE;
}
