// A stand-in for cuDNN: the symbols that src/backends/cuda/cudnn_symbols.ts names, over host memory. It keeps
// descriptors and refuses what the real one does: attributes of another type or count, what is not finalized,
// shapes that do not meet. Of the engines that it suggests only the later ones keep numbers as they are meant; what
// each takes of the device's time is as a test says.
#include <memory>

#include "cudnn_descriptors.h"
#include "cudnn_operations.h"
#include "driver.h"

namespace {

using namespace stand_in;

struct Library {
  uint64_t stream = 0;
};
Handles<Library> libraries;
Handles<Descriptor> descriptors;

// Engines, best first; more are counted than come. The first needs too much workspace, the second rounds its
// operands, the third is not the same every time; one of the others turns out not to run after all.
enum Engine { GREEDY, DOWN_CONVERTING, NONDETERMINISTIC, TENSOR_CORES, PLAIN, NOT_RUNNING, TILED, SPARE, ENGINES };
const std::vector<int32_t> NOTES[ENGINES] = {{0}, {0, 1}, {0, 4}, {0}, {9}, {9}, {9}, {9}};
constexpr int COUNTED = ENGINES + 2;
constexpr int64_t WORKSPACE = 256, GREEDY_WORKSPACE = int64_t(1) << 40;

Descriptor* of_type(uint64_t handle, int type) {
  Descriptor* found = descriptors.find(handle);
  return found && found->type == type && found->finalized ? found : nullptr;
}
Descriptor* referred(const Descriptor* from, int attribute, int type) {
  return of_type(from->value<uint64_t>(attribute), type);
}

Tensor tensor_of(const Descriptor* from, int attribute) {
  Descriptor* found = referred(from, attribute, TENSOR);
  Tensor tensor = {};
  tensor.type = found->value<int32_t>(901);
  for (int axis = 0; axis < 4; axis++) {
    tensor.dimensions[axis] = found->value<int64_t>(902, axis);
    tensor.strides[axis] = found->value<int64_t>(903, axis);
  }
  return tensor;
}

bool is_plain_type(const Tensor& tensor) {
  return tensor.type == DATA_FLOAT || tensor.type == DATA_HALF || tensor.type == DATA_BFLOAT16;
}
bool has_dimensions(const Tensor& tensor, std::initializer_list<int64_t> expected) {
  return std::equal(expected.begin(), expected.end(), tensor.dimensions);
}

int check_attention(const Descriptor* operation) {
  Tensor q = tensor_of(operation, 2800), k = tensor_of(operation, 2801), v = tensor_of(operation, 2802),
         output = tensor_of(operation, 2803);
  int64_t heads = q.dimensions[1], queries = q.dimensions[2], keys = k.dimensions[2], size = q.dimensions[3];
  bool fits = has_dimensions(q, {1, heads, queries, size}) && has_dimensions(k, {1, heads, keys, size}) &&
              has_dimensions(v, {1, heads, keys, size}) && has_dimensions(output, {1, heads, queries, size});
  if (!fits) return CUDNN_SHAPE_MISMATCH;
  bool supported = (q.type == DATA_HALF || q.type == DATA_BFLOAT16) && k.type == q.type && v.type == q.type &&
                   output.type == q.type && size % 8 == 0 && q.strides[3] == 1 && k.strides[3] == 1 &&
                   v.strides[3] == 1 && output.strides[3] == 1;
  return supported ? CUDNN_SUCCESS : CUDNN_NOT_SUPPORTED;
}

int check_convolution(const Descriptor* operation) {
  Tensor x = tensor_of(operation, 704), w = tensor_of(operation, 703), y = tensor_of(operation, 705);
  const Descriptor* geometry = referred(operation, 702, CONVOLUTION);
  for (int axis = 0; axis < 2; axis++) {
    int64_t padded = x.dimensions[2 + axis] + geometry->value<int64_t>(105, axis) + geometry->value<int64_t>(104, axis);
    int64_t size = (padded - w.dimensions[2 + axis]) / geometry->value<int64_t>(103, axis) + 1;
    if (y.dimensions[2 + axis] != size || geometry->value<int64_t>(102, axis) != 1) return CUDNN_SHAPE_MISMATCH;
  }
  if (x.dimensions[1] != w.dimensions[1] || y.dimensions[1] != w.dimensions[0]) return CUDNN_SHAPE_MISMATCH;
  bool supported = is_plain_type(x) && w.type == x.type && y.type == x.type && x.strides[1] == 1 &&
                   w.strides[1] == 1 && y.strides[1] == 1 && geometry->value<int32_t>(101) == 1 &&
                   geometry->value<int32_t>(100) == DATA_FLOAT && geometry->value<int64_t>(106) == 2 &&
                   operation->value<float>(700) == 1 && operation->value<float>(701) == 0;
  return supported ? CUDNN_SUCCESS : CUDNN_NOT_SUPPORTED;
}

int finalize(Descriptor* descriptor) {
  if (descriptor->finalized || !descriptor->is_complete()) return CUDNN_BAD_PARAM;
  for (const Rule& rule : RULES) {
    bool refers = rule.descriptor == descriptor->type && rule.refers >= 0 && descriptor->length(rule.attribute);
    if (refers && !referred(descriptor, rule.attribute, rule.refers)) return CUDNN_NOT_FINALIZED;
  }
  int status = CUDNN_SUCCESS;
  for (int axis = 0; descriptor->type == TENSOR && axis < 4; axis++) {
    if (descriptor->value<int64_t>(902, axis) < 1) status = CUDNN_BAD_PARAM;
  }
  if (descriptor->type == OPERATION_SDPA) {
    status = settings[CUDNN_VERSION] < 91300 ? CUDNN_NOT_SUPPORTED : check_attention(descriptor);
  }
  if (descriptor->type == OPERATION_CONVOLUTION) status = check_convolution(descriptor);
  if (descriptor->type == OPERATIONGRAPH) {
    bool has_one = descriptor->length(801) == 1 && libraries.find(descriptor->value<uint64_t>(800));
    uint64_t operation = descriptor->value<uint64_t>(801);
    bool is_known = of_type(operation, OPERATION_SDPA) || of_type(operation, OPERATION_CONVOLUTION);
    status = has_one && is_known ? CUDNN_SUCCESS : CUDNN_BAD_PARAM;
  }
  if (descriptor->type == ENGINEHEUR && settings[REFUSE_OPERATIONS]) status = CUDNN_NOT_SUPPORTED;
  if (descriptor->type == EXECUTION_PLAN) {
    Descriptor* config = referred(descriptor, 401, ENGINECFG);
    descriptor->engine = config->engine;
    descriptor->graph = config->graph;
    // Attention is compiled where it runs.
    bool compiles = of_type(of_type(config->graph, OPERATIONGRAPH)->value<uint64_t>(801), OPERATION_SDPA);
    if (compiles && settings[FAIL_COMPILER]) status = CUDNN_COMPILATION_FAILED;
  }
  if (descriptor->type == VARIANT_PACK && descriptor->length(1000) != descriptor->length(1001)) {
    status = CUDNN_BAD_PARAM;
  }
  descriptor->finalized = status == CUDNN_SUCCESS;
  if (descriptor->type == EXECUTION_PLAN && descriptor->finalized) counts[PLANS_MADE]++, counts[LIVE_PLANS]++;
  return status;
}

// What is not kept but found: suggestions, an engine, its notes, a plan's workspace.
int find(Descriptor* from, int attribute, int64_t requested, int64_t* count, void* values) {
  uint64_t* handles = (uint64_t*)values;
  if (from->type == ENGINEHEUR && attribute == 202) {
    *count = requested == 0 ? COUNTED : ENGINES;
    if (requested != 0 && requested < COUNTED) return CUDNN_BAD_PARAM;
    for (int i = 0; requested != 0 && i < ENGINES; i++) {
      Descriptor* config = descriptors.find(handles[i]);
      if (!config || config->type != ENGINECFG) return CUDNN_BAD_PARAM;
      config->engine = i;
      config->graph = from->value<uint64_t>(201);
      config->finalized = true;
    }
    return CUDNN_SUCCESS;
  }
  if (from->type == ENGINECFG && attribute == 300) {
    Descriptor* engine = requested == 1 ? descriptors.find(handles[0]) : nullptr;
    if (!engine || engine->type != ENGINE) return CUDNN_BAD_PARAM;
    engine->engine = from->engine;
    engine->finalized = true;
    *count = 1;
    return CUDNN_SUCCESS;
  }
  if (from->type == ENGINE && attribute == 1303) {
    const std::vector<int32_t>& notes = NOTES[from->engine];
    *count = notes.size();
    for (int64_t i = 0; i < *count && i < requested; i++) ((int32_t*)values)[i] = notes[i];
    return CUDNN_SUCCESS;
  }
  if (from->type == EXECUTION_PLAN && attribute == 402 && requested == 1) {
    *(int64_t*)values = from->engine == GREEDY ? GREEDY_WORKSPACE : WORKSPACE;
    *count = 1;
    return CUDNN_SUCCESS;
  }
  return CUDNN_NOT_SUPPORTED;
}

// The operand of an operation at the address that the pack gives it, or a status.
int place(const Descriptor* pack, const Descriptor* operation, int attribute, Tensor* tensor) {
  const Descriptor* found = referred(operation, attribute, TENSOR);
  *tensor = tensor_of(operation, attribute);
  for (int64_t i = 0; i < pack->length(1000); i++) {
    if (pack->value<int64_t>(1000, i) != found->value<int64_t>(906)) continue;
    tensor->data = pack->value<char*>(1001, i);
  }
  if (!tensor->data) return CUDNN_NULL_POINTER;
  if (found->value<char>(908)) return CUDNN_SUCCESS;
  if ((uint64_t)tensor->data % found->value<int64_t>(900) != 0) return CUDNN_MISALIGNED;
  return on_device((uint64_t)tensor->data, tensor->bytes()) ? CUDNN_SUCCESS : CUDNN_OUT_OF_BOUND;
}

int place_all(const Descriptor* pack, const Descriptor* operation,
              std::initializer_list<std::pair<int, Tensor*>> operands) {
  for (auto [attribute, tensor] : operands) {
    if (int status = place(pack, operation, attribute, tensor)) return status;
  }
  return CUDNN_SUCCESS;
}

// What an execution will do.
int work_of(const Descriptor* pack, const Descriptor* operation, int engine, std::function<void()>* work) {
  if (operation->type == OPERATION_SDPA) {
    Attention attention = {};
    Tensor scale = {};
    int status = place_all(pack, operation, {{2800, &attention.q}, {2801, &attention.k}, {2802, &attention.v},
                                             {2803, &attention.output}, {2805, &scale}});
    if (status) return status;
    attention.scale = *(const float*)scale.data;
    *work = [=] { attention.run(); };
    return CUDNN_SUCCESS;
  }
  Convolution convolution = {};
  int status = place_all(pack, operation, {{704, &convolution.x}, {703, &convolution.w}, {705, &convolution.y}});
  if (status) return status;
  const Descriptor* geometry = referred(operation, 702, CONVOLUTION);
  for (int axis = 0; axis < 2; axis++) {
    convolution.stride[axis] = geometry->value<int64_t>(103, axis);
    convolution.top_left[axis] = geometry->value<int64_t>(105, axis);
  }
  convolution.tensor_float32 = convolution.x.type == DATA_FLOAT && engine == TENSOR_CORES;
  *work = [=] { convolution.run(); };
  return CUDNN_SUCCESS;
}

int execute(Library* library, const Descriptor* plan, const Descriptor* pack) {
  const Descriptor* graph = of_type(plan->graph, OPERATIONGRAPH);
  if (!graph || plan->engine < TENSOR_CORES) return CUDNN_EXECUTION_FAILED;
  if (plan->engine == NOT_RUNNING) return CUDNN_NOT_SUPPORTED;
  char* workspace = pack->value<char*>(1003);
  if (!on_device((uint64_t)workspace, WORKSPACE)) return CUDNN_OUT_OF_BOUND;
  std::function<void()> work;
  const Descriptor* operation = descriptors.find(graph->value<uint64_t>(801));
  if (int status = work_of(pack, operation, plan->engine, &work)) return status;
  // The workspace is the library's: whoever keeps something there loses it.
  int64_t engine = plan->engine;
  bool enqueued = enqueue(library->stream, [=] {
    counts[OPERATIONS]++;
    counts[LAST_ENGINE] = engine;
    microseconds += settings[OPERATION_MICROSECONDS] * (1 + std::abs(engine - settings[FASTEST_ENGINE]));
    std::memset(workspace, 0xff, WORKSPACE);
    if (!settings[MISCALCULATE_OPERATIONS]) work();
    return 0;
  });
  return enqueued ? CUDNN_SUCCESS : CUDNN_EXECUTION_FAILED;
}

const char* name_of(int status) {
  switch (status) {
    case CUDNN_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_NOT_INITIALIZED: return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_NULL_POINTER: return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case CUDNN_MISALIGNED: return "CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER";
    case CUDNN_NOT_FINALIZED: return "CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED";
    case CUDNN_OUT_OF_BOUND: return "CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND";
    case CUDNN_SHAPE_MISMATCH: return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case CUDNN_ATTRIBUTE_TYPE: return "CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE";
    case CUDNN_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_INTERNAL_ERROR: return "CUDNN_STATUS_INTERNAL_ERROR";
    case CUDNN_COMPILATION_FAILED: return "CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED";
    case CUDNN_EXECUTION_FAILED: return "CUDNN_STATUS_EXECUTION_FAILED";
    default: return "CUDNN_STATUS_UNKNOWN";
  }
}

}  // namespace

EXPORT size_t cudnnGetVersion() { return settings[CUDNN_VERSION]; }
EXPORT const char* cudnnGetErrorString(int status) { return name_of(status); }
EXPORT void cudnnGetLastErrorString(char* message, size_t size) { std::strncpy(message, "as the stand-in says", size); }
EXPORT int cudnnCreate(uint64_t* handle) {
  if (settings[FAIL_CUDNN_START]) return (int)settings[FAIL_CUDNN_START];
  *handle = libraries.add(new Library());
  return CUDNN_SUCCESS;
}
EXPORT int cudnnDestroy(uint64_t handle) { return libraries.remove(handle) ? CUDNN_SUCCESS : CUDNN_BAD_PARAM; }
EXPORT int cudnnSetStream(uint64_t handle, uint64_t stream) {
  if (fails(FAIL_CUDNN)) return CUDNN_INTERNAL_ERROR;
  Library* library = libraries.find(handle);
  if (!library) return CUDNN_NOT_INITIALIZED;
  library->stream = stream;
  return CUDNN_SUCCESS;
}
EXPORT int cudnnBackendCreateDescriptor(int type, uint64_t* descriptor) {
  if (fails(FAIL_CUDNN)) return CUDNN_INTERNAL_ERROR;
  Descriptor* made = new Descriptor();
  made->type = type;
  *descriptor = descriptors.add(made);
  return CUDNN_SUCCESS;
}
EXPORT int cudnnBackendDestroyDescriptor(uint64_t descriptor) {
  if (of_type(descriptor, EXECUTION_PLAN)) counts[LIVE_PLANS]--;
  return descriptors.remove(descriptor) ? CUDNN_SUCCESS : CUDNN_BAD_PARAM;
}
EXPORT int cudnnBackendSetAttribute(uint64_t descriptor, int attribute, int type, int64_t count, const void* values) {
  if (fails(FAIL_CUDNN)) return CUDNN_INTERNAL_ERROR;
  Descriptor* found = descriptors.find(descriptor);
  return found ? found->set(attribute, type, count, values) : CUDNN_BAD_PARAM;
}
EXPORT int cudnnBackendGetAttribute(uint64_t descriptor, int attribute, int type, int64_t requested, int64_t* count,
                                    void* values) {
  if (fails(FAIL_CUDNN)) return CUDNN_INTERNAL_ERROR;
  Descriptor* found = descriptors.find(descriptor);
  if (!found) return CUDNN_BAD_PARAM;
  if (found->rule(attribute)) return found->get(attribute, type, requested, count, values);
  return found->finalized ? ::find(found, attribute, requested, count, values) : CUDNN_NOT_INITIALIZED;
}
EXPORT int cudnnBackendFinalize(uint64_t descriptor) {
  if (fails(FAIL_CUDNN)) return CUDNN_INTERNAL_ERROR;
  Descriptor* found = descriptors.find(descriptor);
  return found ? finalize(found) : CUDNN_BAD_PARAM;
}
EXPORT int cudnnBackendExecute(uint64_t handle, uint64_t plan_handle, uint64_t pack_handle) {
  if (fails(FAIL_CUDNN)) return CUDNN_EXECUTION_FAILED;
  Library* library = libraries.find(handle);
  Descriptor* plan = of_type(plan_handle, EXECUTION_PLAN);
  Descriptor* pack = of_type(pack_handle, VARIANT_PACK);
  if (!library) return CUDNN_NOT_INITIALIZED;
  return plan && pack ? execute(library, plan, pack) : CUDNN_NOT_FINALIZED;
}
