// A libcuda without a device, for NVIDIA's own cuDNN: enough to compile kernels for a device that only a description
// tells of. Modules load, nothing runs. Tests see by it whether cuDNN has a plan, without a GPU.
#include <cstdint>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {
constexpr int SUCCESS = 0, NOT_SUPPORTED = 801, DRIVER_VERSION = 13000, LARGEST_CLUSTER = 16;
constexpr uint64_t CONTEXT = 0x1000, LIBRARY = 0x2000, KERNEL = 0x3000;

template <class Value>
int give(Value* place, Value value) {
  *place = value;
  return SUCCESS;
}
}  // namespace

EXPORT int cuDriverGetVersion(int* version) { return give(version, DRIVER_VERSION); }
EXPORT int cuDeviceGetCount(int* count) { return give(count, 0); }
EXPORT int cuDeviceGet(int* device, int) { return give(device, 0); }
EXPORT int cuCtxGetCurrent(uint64_t* context) { return give(context, CONTEXT); }
EXPORT int cuCtxPopCurrent(uint64_t* context) { return give(context, CONTEXT); }
EXPORT int cuCtxPushCurrent(uint64_t) { return SUCCESS; }
EXPORT int cuCtxGetLimit(uint64_t* value, int) { return give(value, uint64_t(0)); }
EXPORT int cuLibraryLoadData(uint64_t* library, const void*, void*, void**, unsigned, void*, void**, unsigned) {
  return give(library, LIBRARY);
}
EXPORT int cuLibraryGetKernel(uint64_t* kernel, uint64_t, const char*) { return give(kernel, KERNEL); }
EXPORT int cuLibraryUnload(uint64_t) { return SUCCESS; }
EXPORT int cuKernelSetAttribute(int, int, uint64_t, int) { return SUCCESS; }
EXPORT int cuKernelGetAttribute(int* value, int, uint64_t, int) { return give(value, 0); }
EXPORT int cuOccupancyMaxPotentialClusterSize(int* size, uint64_t, const void*) { return give(size, LARGEST_CLUSTER); }
EXPORT int cuGetErrorName(int, const char** name) { return give(name, (const char*)"none"); }
EXPORT int cuGetErrorString(int, const char** text) { return give(text, (const char*)"none"); }

#define UNUSED(name) \
  EXPORT int name() { return NOT_SUPPORTED; }
UNUSED(cuLaunchCooperativeKernel)
UNUSED(cuLaunchKernel)
UNUSED(cuLaunchKernelEx)
UNUSED(cuLibraryLoadFromFile)
UNUSED(cuLinkAddData)
UNUSED(cuLinkComplete)
UNUSED(cuLinkCreate)
UNUSED(cuLinkDestroy)
UNUSED(cuStreamGetCtx)
