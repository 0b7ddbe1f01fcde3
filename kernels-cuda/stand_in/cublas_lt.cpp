// A stand-in for cuBLASLt: the symbols that src/backends/cuda/cublas_lt_symbols.ts names, over host memory. A
// product does what its descriptors say: types, transposes, leading dimensions, epilogue, TF32. It checks what a
// device would not forgive: sizes of attributes, ranges, alignments that were promised, an algorithm of
// another product.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../activation.h"
#include "driver.h"
#include "tensor_float32.h"

namespace {

using namespace stand_in;

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, ALLOC_FAILED = 3, INVALID_VALUE = 7, EXECUTION_FAILED = 13,
              NOT_SUPPORTED = 15 };
enum DataType { R_32F = 0, R_16F = 2, R_8I = 3, R_32I = 10, R_16BF = 14, R_8F_E4M3 = 28 };
enum ComputeType { COMPUTE_32F = 68, COMPUTE_32I = 72, COMPUTE_32F_FAST_TF32 = 77 };
enum ScaleMode { SCALE_SCALAR = 0, SCALE_OUTER_VECTOR = 3 };
enum Epilogue { EPILOGUE_DEFAULT = 1, EPILOGUE_RELU = 2, EPILOGUE_BIAS = 4, EPILOGUE_GELU = 32 };

// Versions that first know modes of scales, and one scale a row.
constexpr int64_t FIRST_SCALE_MODES = 120800, FIRST_OUTER_VECTORS = 120900;

// An attribute: its number, where it lies, its bytes.
struct Attribute {
  int number;
  void* data;
  size_t bytes;
};

struct Operation {
  int32_t compute, scale, pointer_mode = 0, transpose_a = 0, transpose_b = 0;
  uint32_t epilogue = EPILOGUE_DEFAULT;
  uint64_t bias = 0, scale_a = 0, scale_b = 0;
  int8_t fast_accumulation = 0;
  int32_t bias_type = -1;  // as the results
  int32_t scale_mode_a = SCALE_SCALAR, scale_mode_b = SCALE_SCALAR;
  std::vector<Attribute> attributes() {
    std::vector<Attribute> all = {{0, &compute, 4}, {1, &scale, 4}, {2, &pointer_mode, 4},
                                  {3, &transpose_a, 4}, {4, &transpose_b, 4}, {7, &epilogue, 4},
                                  {8, &bias, 8}, {17, &scale_a, 8}, {18, &scale_b, 8},
                                  {25, &fast_accumulation, 1}, {26, &bias_type, 4}};
    if (settings[LIBRARY_VERSION] < FIRST_SCALE_MODES) return all;
    all.push_back({31, &scale_mode_a, 4});
    all.push_back({32, &scale_mode_b, 4});
    return all;
  }
};
struct Layout {
  uint32_t type;
  int32_t order = 0;
  uint64_t rows, columns;
  int64_t leading;
  int32_t batches = 1;
  int64_t apart = 0;  // elements from a matrix of a batch to the next
  std::vector<Attribute> attributes() {
    return {{0, &type, 4}, {1, &order, 4}, {2, &rows, 8}, {3, &columns, 8}, {4, &leading, 8},
            {5, &batches, 4}, {6, &apart, 8}};
  }
  size_t item() const {
    if (type == R_8I || type == R_8F_E4M3) return 1;
    return type == R_32F || type == R_32I ? 4 : 2;
  }
  // Bytes from the first element to the last, columns lying apart.
  size_t bytes() const { return ((batches - 1) * apart + (columns - 1) * leading + rows) * item(); }
};
struct Preference {
  uint32_t search = 0;
  uint64_t workspace = 0;
  uint32_t reductions = 7;
  uint32_t alignments[4] = {256, 256, 256, 256};
  std::vector<Attribute> attributes() {
    return {{0, &search, 4}, {1, &workspace, 8}, {3, &reductions, 4}, {5, &alignments[0], 4}, {6, &alignments[1], 4},
            {7, &alignments[2], 4}, {8, &alignments[3], 4}};
  }
};
struct Library {};

Handles<Library> libraries;
Handles<Operation> operations;
Handles<Layout> layouts;
Handles<Preference> preferences;

template <class Object>
Attribute attribute_of(Object* object, int number) {
  if (object) {
    for (const Attribute& attribute : object->attributes()) {
      if (attribute.number == number) return attribute;
    }
  }
  return {number, nullptr, 0};
}
template <class Object>
int set_attribute(Object* object, int number, const void* value, size_t bytes) {
  Attribute attribute = attribute_of(object, number);
  if (!attribute.data || !value || bytes != attribute.bytes) return INVALID_VALUE;
  std::memcpy(attribute.data, value, bytes);
  return SUCCESS;
}
template <class Object>
int get_attribute(Object* object, int number, void* value, size_t bytes, size_t* written) {
  Attribute attribute = attribute_of(object, number);
  if (!attribute.data || (bytes != 0 && bytes != attribute.bytes)) return INVALID_VALUE;
  if (bytes != 0) std::memcpy(value, attribute.data, bytes);
  *written = attribute.bytes;
  return SUCCESS;
}

// A product without its addresses; what an algorithm of 64 bytes is for.
struct Product {
  Operation operation;
  Layout a, b, c, d;

  // What must be the same for an algorithm to fit.
  uint64_t fingerprint() const {
    uint64_t hash = 1469598103934665603u;
    auto add = [&](uint64_t word) { hash = (hash ^ word) * 1099511628211u; };
    for (uint64_t word : {(uint64_t)operation.compute, (uint64_t)operation.transpose_a,
                          (uint64_t)operation.transpose_b, (uint64_t)operation.epilogue,
                          (uint64_t)operation.bias_type,
                          (uint64_t)operation.scale_mode_a, (uint64_t)operation.scale_mode_b}) add(word);
    for (const Layout* layout : {&a, &b, &c, &d}) {
      for (uint64_t word : {(uint64_t)layout->type, layout->rows, layout->columns, (uint64_t)layout->leading,
                            (uint64_t)layout->batches, (uint64_t)layout->apart}) {
        add(word);
      }
    }
    return hash;
  }
  uint64_t m() const { return operation.transpose_a ? a.columns : a.rows; }
  uint64_t k() const { return operation.transpose_a ? a.rows : a.columns; }
  uint64_t n() const { return operation.transpose_b ? b.rows : b.columns; }

  bool is_valid() const {
    bool fits = (operation.transpose_b ? b.columns : b.rows) == k() && d.rows == m() && d.columns == n() &&
                c.rows == m() && c.columns == n();
    bool leads = true;
    for (const Layout* layout : {&a, &b, &c, &d}) {
      leads = leads && layout->rows > 0 && layout->columns > 0 && layout->leading >= (int64_t)layout->rows &&
              layout->batches == d.batches && layout->apart >= 0;
    }
    return fits && leads && operation.pointer_mode == 0 && (is_int8() || is_float8() || is_float());
  }
  bool is_float() const {
    bool types = a.type == b.type && (a.type == R_32F || a.type == R_16F || a.type == R_16BF) &&
                 c.type == d.type && (d.type == R_32F || d.type == a.type);
    bool computes = operation.compute == COMPUTE_32F ||
                    (operation.compute == COMPUTE_32F_FAST_TF32 && a.type == R_32F);
    return types && computes && operation.scale == R_32F && !operation.scale_a && !operation.scale_b;
  }
  // Codes are multiplied in one arrangement: A transposed, B not.
  bool is_of_codes(uint32_t operand, int32_t scale) const {
    return a.type == operand && b.type == operand && c.type == d.type && operation.scale == scale &&
           operation.transpose_a && !operation.transpose_b;
  }
  bool is_int8() const {
    return is_of_codes(R_8I, R_32I) && d.type == R_32I && operation.compute == COMPUTE_32I &&
           operation.epilogue == EPILOGUE_DEFAULT;
  }
  bool is_float8() const {
    return is_of_codes(R_8F_E4M3, R_32F) && (d.type == R_32F || d.type == R_16BF) &&
           operation.compute == COMPUTE_32F;
  }
  // What a bias is taken for, whatever it is.
  int bias_dtype() const {
    switch (operation.bias_type < 0 ? (int32_t)d.type : operation.bias_type) {
      case R_16F: return FLOAT16;
      case R_16BF: return BFLOAT16;
      default: return FLOAT32;
    }
  }
  size_t bias_bytes() const { return m() * (bias_dtype() == FLOAT32 ? 4 : 2); }
  // What no tensor core takes, or not of this device or version.
  bool is_supported() const {
    if (is_int8()) {
      return m() % 4 == 0 && k() % 4 == 0 && a.leading % 4 == 0 && b.leading % 4 == 0 &&
             c.leading % 4 == 0 && d.leading % 4 == 0;
    }
    if (!is_float8()) return true;
    bool is_outer = operation.scale_mode_a == SCALE_OUTER_VECTOR;
    bool modes = operation.scale_mode_b == operation.scale_mode_a &&
                 (operation.scale_mode_a == SCALE_SCALAR || is_outer);
    bool has_vectors = operation.scale_a && operation.scale_b && settings[CAPABILITY] >= 90 &&
                       settings[LIBRARY_VERSION] >= FIRST_OUTER_VECTORS;
    return settings[CAPABILITY] >= 89 && m() % 16 == 0 && k() % 16 == 0 && a.leading % 16 == 0 &&
           b.leading % 16 == 0 && d.leading % 4 == 0 && c.leading % 4 == 0 && modes &&
           (!is_outer || has_vectors);
  }
};

struct Algorithm {
  uint64_t fingerprint, workspace;
  uint32_t alignments[4];
  uint32_t number;
  uint32_t reductions;  // how parts of sums may be joined
  char unused[64 - 40];
};
// Ways to join parts of sums in the type of results: where they lie, or in the workspace.
constexpr uint32_t REDUCES_IN_PLACE = 1, REDUCES_IN_OUTPUT_TYPE = 4;
// Algorithms that run, and one that is offered and then does not.
constexpr uint32_t RUNNING = 3, OFFERED = 4;
static_assert(sizeof(Algorithm) == 64, "as cublasLtMatmulAlgo_t");
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace;
  int32_t state;
  float waves;
  int32_t reserved[4];
};
static_assert(sizeof(HeuristicResult) == 96, "as cublasLtMatmulHeuristicResult_t");

bool product_of(uint64_t operation, uint64_t a, uint64_t b, uint64_t c, uint64_t d, Product* product) {
  Operation* found = operations.find(operation);
  Layout* parts[4] = {layouts.find(a), layouts.find(b), layouts.find(c), layouts.find(d)};
  if (!found || !parts[0] || !parts[1] || !parts[2] || !parts[3]) return false;
  *product = {*found, *parts[0], *parts[1], *parts[2], *parts[3]};
  return product->is_valid();
}

int dtype_of(const Layout& layout) {
  switch (layout.type) {
    case R_32F: return FLOAT32;
    case R_16F: return FLOAT16;
    case R_16BF: return BFLOAT16;
    default: return FLOAT8_E4M3;
  }
}

void store_float(float value, void* data, int dtype, uint64_t index) {
  if (dtype == FLOAT16) ((uint16_t*)data)[index] = float_to_half(value);
  else if (dtype == BFLOAT16) ((uint16_t*)data)[index] = float_to_bfloat16(value);
  else ((float*)data)[index] = value;
}

// An operand as [lines, k], whichever way it lies.
std::vector<float> gathered(const Layout& layout, const char* data, bool transposed, bool tensor_float32) {
  uint64_t lines = transposed ? layout.columns : layout.rows;
  uint64_t depth = transposed ? layout.rows : layout.columns;
  int dtype = dtype_of(layout);
  std::vector<float> out(lines * depth);
  for (uint64_t line = 0; line < lines; line++) {
    for (uint64_t k = 0; k < depth; k++) {
      uint64_t index = transposed ? line * layout.leading + k : k * layout.leading + line;
      float x = load_float(data, dtype, index);
      out[line * depth + k] = tensor_float32 ? to_tensor_float32(x) : x;
    }
  }
  return out;
}

struct Addresses {
  const char *a, *b;
  const char* c;
  char* d;
};

// Whole sums of int8, kept in 32 bits as they are: no order changes them.
void multiply_integers(const Product& product, const Addresses& at, int32_t alpha, int32_t beta) {
  uint64_t m = product.m(), n = product.n(), k = product.k();
  for (uint64_t column = 0; column < n; column++) {
    for (uint64_t row = 0; row < m; row++) {
      const int8_t* a = (const int8_t*)at.a + row * product.a.leading;
      const int8_t* b = (const int8_t*)at.b + column * product.b.leading;
      int32_t sum = 0;
      for (uint64_t i = 0; i < k; i++) sum += a[i] * b[i];
      int32_t value = alpha * sum;
      if (beta != 0) value += beta * ((const int32_t*)at.c)[column * product.c.leading + row];
      ((int32_t*)at.d)[column * product.d.leading + row] = value;
    }
  }
}

// The factor of a row of A or a column of B.
float scale_at(uint64_t scales, int32_t mode, uint64_t index) {
  if (!scales) return 1;
  return ((const float*)scales)[mode == SCALE_OUTER_VECTOR ? index : 0];
}

void multiply_floats(const Product& product, const Addresses& at, float alpha, float beta, bool is_split) {
  const Operation& operation = product.operation;
  bool tensor_float32 = operation.compute == COMPUTE_32F_FAST_TF32;
  uint64_t m = product.m(), n = product.n(), k = product.k();
  std::vector<float> lines = gathered(product.a, at.a, operation.transpose_a, tensor_float32);
  std::vector<float> a(lines.size()), sums(m);  // [k, m], so that sums of a column grow side by side
  for (uint64_t row = 0; row < m; row++) {
    for (uint64_t i = 0; i < k; i++) a[i * m + row] = lines[row * k + i];
  }
  std::vector<float> b = gathered(product.b, at.b, !operation.transpose_b, tensor_float32);
  int activation = operation.epilogue & EPILOGUE_RELU   ? UNARY_RELU
                   : operation.epilogue & EPILOGUE_GELU ? UNARY_GELU_TANH
                                                        : UNARY_IDENTITY;
  bool has_bias = operation.epilogue & EPILOGUE_BIAS;
  int dtype = dtype_of(product.d);
  for (uint64_t column = 0; column < n; column++) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (uint64_t i = 0; i < k; i++) {
      const float* line = &a[i * m];
      float x = b[column * k + i];
      for (uint64_t row = 0; row < m; row++) sums[row] += line[row] * x;
      if (!is_split || i != k / 2) continue;
      for (float& sum : sums) {
        float part;  // room for any
        store_float(sum, &part, dtype, 0);
        sum = load_float(&part, dtype, 0);
      }
    }
    for (uint64_t row = 0; row < m; row++) {
      float sum = sums[row];
      sum *= scale_at(operation.scale_b, operation.scale_mode_b, column);
      sum *= scale_at(operation.scale_a, operation.scale_mode_a, row);
      float value = alpha * sum;
      if (beta != 0) value += beta * load_float(at.c, dtype, column * product.c.leading + row);
      if (has_bias) value += load_float((const void*)operation.bias, product.bias_dtype(), row);
      store_float(activate(activation, value), at.d, dtype, column * product.d.leading + row);
    }
  }
}

// Factors are of the scale type.
struct Factor {
  uint32_t bits;
  explicit Factor(const void* data) { std::memcpy(&bits, data, 4); }
};

// `is_split`: parts of sums are joined in the type of results of 16 bits.
int multiply(const Product& product, const Addresses& at, Factor alpha, Factor beta, bool is_split) {
  counts[PRODUCTS]++;
  if (product.is_int8()) counts[INTEGER_PRODUCTS]++;
  if (product.is_float8()) counts[FLOAT8_PRODUCTS]++;
  if (settings[MISCALCULATE_PRODUCTS] == 1) return SUCCESS;
  for (int32_t batch = 0; batch < product.d.batches; batch++) {
    auto skipped = [&](const Layout& layout) { return batch * layout.apart * layout.item(); };
    Addresses own = {at.a + skipped(product.a), at.b + skipped(product.b), at.c + skipped(product.c),
                     at.d + skipped(product.d)};
    if (product.is_int8()) multiply_integers(product, own, (int32_t)alpha.bits, (int32_t)beta.bits);
    else multiply_floats(product, own, from_bits(alpha.bits), from_bits(beta.bits), is_split);
  }
  uint64_t last = (product.n() - 1) * product.d.leading + product.m() - 1;
  if (settings[MISCALCULATE_PRODUCTS] == 2) at.d[last * product.d.item()] ^= 1;
  return SUCCESS;
}

// Whether the scales of an operand of float8 are there: `count` of them, or one.
bool has_scales(uint64_t scales, int32_t mode, uint64_t count) {
  return !scales || on_device(scales, 4 * (mode == SCALE_OUTER_VECTOR ? count : 1));
}

bool lies_right(const Algorithm& algorithm, const uint64_t addresses[4]) {
  for (int i = 0; i < 4; i++) {
    if (addresses[i] % algorithm.alignments[i] != 0) return false;
  }
  return true;
}

const char* const NAMES[][2] = {
    {"CUBLAS_STATUS_SUCCESS", "success"},
    {"CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {"CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {"CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed to the function"},
    {"CUBLAS_STATUS_EXECUTION_FAILED", "the function failed to launch on the GPU"},
    {"CUBLAS_STATUS_NOT_SUPPORTED", "the requested functionality is not supported"},
    {"unrecognized status", "unrecognized status"},
};
const char* text_of(int status, int which) {
  switch (status) {
    case SUCCESS: return NAMES[0][which];
    case NOT_INITIALIZED: return NAMES[1][which];
    case ALLOC_FAILED: return NAMES[2][which];
    case INVALID_VALUE: return NAMES[3][which];
    case EXECUTION_FAILED: return NAMES[4][which];
    case NOT_SUPPORTED: return NAMES[5][which];
    default: return NAMES[6][which];
  }
}

int removed(bool was_there) { return was_there ? SUCCESS : INVALID_VALUE; }

}  // namespace

EXPORT size_t cublasLtGetVersion() { return settings[LIBRARY_VERSION]; }
EXPORT const char* cublasLtGetStatusName(int status) { return text_of(status, 0); }
EXPORT const char* cublasLtGetStatusString(int status) { return text_of(status, 1); }
EXPORT int cublasLtCreate(uint64_t* handle) {
  if (settings[FAIL_LIBRARY_START]) return (int)settings[FAIL_LIBRARY_START];
  *handle = libraries.add(new Library());
  return SUCCESS;
}
EXPORT int cublasLtDestroy(uint64_t handle) { return removed(libraries.remove(handle)); }

EXPORT int cublasLtMatmulDescCreate(uint64_t* handle, int compute, int scale) {
  Operation* operation = new Operation();
  operation->compute = compute;
  operation->scale = scale;
  *handle = operations.add(operation);
  return SUCCESS;
}
EXPORT int cublasLtMatmulDescDestroy(uint64_t handle) { return removed(operations.remove(handle)); }
EXPORT int cublasLtMatmulDescSetAttribute(uint64_t handle, int number, const void* value, size_t bytes) {
  return set_attribute(operations.find(handle), number, value, bytes);
}
EXPORT int cublasLtMatmulDescGetAttribute(uint64_t handle, int number, void* value, size_t bytes,
                                          size_t* written) {
  return get_attribute(operations.find(handle), number, value, bytes, written);
}

EXPORT int cublasLtMatrixLayoutCreate(uint64_t* handle, int type, uint64_t rows, uint64_t columns,
                                      int64_t leading) {
  Layout* layout = new Layout();
  layout->type = type;
  layout->rows = rows;
  layout->columns = columns;
  layout->leading = leading;
  *handle = layouts.add(layout);
  return SUCCESS;
}
EXPORT int cublasLtMatrixLayoutDestroy(uint64_t handle) { return removed(layouts.remove(handle)); }
EXPORT int cublasLtMatrixLayoutSetAttribute(uint64_t handle, int number, const void* value, size_t bytes) {
  return set_attribute(layouts.find(handle), number, value, bytes);
}
EXPORT int cublasLtMatrixLayoutGetAttribute(uint64_t handle, int number, void* value, size_t bytes,
                                            size_t* written) {
  return get_attribute(layouts.find(handle), number, value, bytes, written);
}

EXPORT int cublasLtMatmulPreferenceCreate(uint64_t* handle) {
  *handle = preferences.add(new Preference());
  return SUCCESS;
}
EXPORT int cublasLtMatmulPreferenceDestroy(uint64_t handle) { return removed(preferences.remove(handle)); }
EXPORT int cublasLtMatmulPreferenceSetAttribute(uint64_t handle, int number, const void* value,
                                                size_t bytes) {
  return set_attribute(preferences.find(handle), number, value, bytes);
}
EXPORT int cublasLtMatmulPreferenceGetAttribute(uint64_t handle, int number, void* value, size_t bytes,
                                                size_t* written) {
  return get_attribute(preferences.find(handle), number, value, bytes, written);
}

// The first is none, the second too greedy for its workspace, as the real one's may be unusable; then those that
// are offered, as many as are asked for.
EXPORT int cublasLtMatmulAlgoGetHeuristic(uint64_t library, uint64_t operation, uint64_t a, uint64_t b,
                                          uint64_t c, uint64_t d, uint64_t preference_handle, int requested,
                                          HeuristicResult* results, int* found) {
  *found = 0;
  Product product;
  Preference* preference = preferences.find(preference_handle);
  if (!libraries.find(library)) return NOT_INITIALIZED;
  if (!preference || requested < 1 || !product_of(operation, a, b, c, d, &product)) return INVALID_VALUE;
  bool has_end = product.operation.epilogue != EPILOGUE_DEFAULT;
  bool is_scaled = product.operation.scale_a || product.operation.scale_b;
  bool is_code = product.is_int8() || product.is_float8();
  int64_t refused = settings[REFUSE_PRODUCTS];
  if (refused == 2 || (refused == 1 && (has_end || is_scaled)) || (refused == 3 && is_code)) {
    return NOT_SUPPORTED;
  }
  if (refused == 4 && is_code) return INVALID_VALUE;
  if (!product.is_supported()) return NOT_SUPPORTED;
  counts[HEURISTICS]++;
  auto offer = [&](uint32_t number, size_t workspace, int state) {
    if (*found == requested) return;
    Algorithm algorithm = {product.fingerprint(), workspace, {}, number, preference->reductions, {}};
    std::memcpy(algorithm.alignments, preference->alignments, sizeof algorithm.alignments);
    results[(*found)++] = {algorithm, workspace, state, 1, {}};
  };
  offer(OFFERED, preference->workspace, NOT_SUPPORTED);
  offer(OFFERED, preference->workspace + 1, SUCCESS);
  for (uint32_t number : {0u, RUNNING, 1u, 2u}) offer(number, preference->workspace, SUCCESS);
  return SUCCESS;
}

EXPORT int cublasLtMatmul(uint64_t library, uint64_t operation, const void* alpha, uint64_t a,
                          uint64_t a_layout, uint64_t b, uint64_t b_layout, const void* beta, uint64_t c,
                          uint64_t c_layout, uint64_t d, uint64_t d_layout, const Algorithm* algorithm,
                          uint64_t workspace, size_t workspace_bytes, uint64_t stream) {
  Product product;
  if (!libraries.find(library)) return NOT_INITIALIZED;
  if (!product_of(operation, a_layout, b_layout, c_layout, d_layout, &product)) return INVALID_VALUE;
  if (fails(FAIL_PRODUCT)) return EXECUTION_FAILED;
  const uint64_t addresses[4] = {a, b, c, d};
  if (!algorithm || algorithm->fingerprint != product.fingerprint() || !lies_right(*algorithm, addresses) ||
      workspace_bytes < algorithm->workspace || algorithm->number >= RUNNING) {
    return NOT_SUPPORTED;
  }
  bool has_bias = product.operation.epilogue & EPILOGUE_BIAS;
  const Operation& scaled = product.operation;
  bool is_there = has_scales(scaled.scale_a, scaled.scale_mode_a, product.m()) &&
                  has_scales(scaled.scale_b, scaled.scale_mode_b, product.n()) && on_device(a, product.a.bytes()) && on_device(b, product.b.bytes()) &&
                  on_device(c, product.c.bytes()) && on_device(d, product.d.bytes()) &&
                  (!has_bias || on_device(product.operation.bias, product.bias_bytes())) &&
                  (workspace_bytes == 0 || on_device(workspace, workspace_bytes));
  if (!is_there) return INVALID_VALUE;
  Factor one(alpha), carry(beta);
  Addresses at = {(const char*)a, (const char*)b, (const char*)c, (char*)d};
  // The workspace is the library's: whoever keeps something there loses it.
  int64_t number = algorithm->number;
  bool is_split = product.d.item() == 2 && algorithm->reductions & (REDUCES_IN_PLACE | REDUCES_IN_OUTPUT_TYPE);
  return enqueue(stream, [=] {
    counts[LAST_ALGORITHM] = number;
    microseconds += settings[PRODUCT_MICROSECONDS] * (1 + std::abs(number - settings[FASTEST_ALGORITHM]));
    std::memset((void*)workspace, 0xff, workspace_bytes);
    return multiply(product, at, one, carry, is_split);
  }) ? SUCCESS : EXECUTION_FAILED;
}
