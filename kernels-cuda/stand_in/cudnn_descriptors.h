// Descriptors of the stand-in for cuDNN: which attributes each type has, of which type and how many, which of
// them must be set, and what was set.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

namespace stand_in {

// cudnnStatus_t.
enum CudnnStatus { CUDNN_SUCCESS = 0, CUDNN_NOT_INITIALIZED = 1001, CUDNN_BAD_PARAM = 2000,
                   CUDNN_NULL_POINTER = 2002, CUDNN_MISALIGNED = 2003, CUDNN_NOT_FINALIZED = 2004,
                   CUDNN_OUT_OF_BOUND = 2005, CUDNN_SHAPE_MISMATCH = 2008, CUDNN_ATTRIBUTE_TYPE = 2010,
                   CUDNN_NOT_SUPPORTED = 3000, CUDNN_INTERNAL_ERROR = 4000, CUDNN_COMPILATION_FAILED = 4001, CUDNN_EXECUTION_FAILED = 5000 };
// cudnnBackendAttributeType_t.
enum AttributeType { TYPE_HANDLE = 0, TYPE_DATA_TYPE = 1, TYPE_BOOLEAN = 2, TYPE_INT64 = 3, TYPE_FLOAT = 4,
                     TYPE_VOID_PTR = 6, TYPE_CONVOLUTION_MODE = 7, TYPE_HEUR_MODE = 8,
                     TYPE_NUMERICAL_NOTE = 11, TYPE_DESCRIPTOR = 15 };
// cudnnBackendDescriptorType_t.
enum DescriptorType { CONVOLUTION = 1, ENGINE = 2, ENGINECFG = 3, ENGINEHEUR = 4, EXECUTION_PLAN = 5,
                      OPERATION_CONVOLUTION = 10, OPERATIONGRAPH = 15, VARIANT_PACK = 16, TENSOR = 17,
                      OPERATION_SDPA = 41 };

// An attribute that a descriptor may have; descriptors that it names are of `refers`.
struct Rule {
  int descriptor, attribute, type, least, most;
  bool required;
  int refers = -1;
};
constexpr int MANY = 64;
const Rule RULES[] = {
    {CONVOLUTION, 100, TYPE_DATA_TYPE, 1, 1, true},         {CONVOLUTION, 101, TYPE_CONVOLUTION_MODE, 1, 1, true},
    {CONVOLUTION, 102, TYPE_INT64, 2, 2, true},             {CONVOLUTION, 103, TYPE_INT64, 2, 2, true},
    {CONVOLUTION, 104, TYPE_INT64, 2, 2, true},             {CONVOLUTION, 105, TYPE_INT64, 2, 2, true},
    {CONVOLUTION, 106, TYPE_INT64, 1, 1, true},
    {ENGINEHEUR, 200, TYPE_HEUR_MODE, 1, 1, true},
    {ENGINEHEUR, 201, TYPE_DESCRIPTOR, 1, 1, true, OPERATIONGRAPH},
    {EXECUTION_PLAN, 400, TYPE_HANDLE, 1, 1, true},
    {EXECUTION_PLAN, 401, TYPE_DESCRIPTOR, 1, 1, true, ENGINECFG},
    {OPERATION_CONVOLUTION, 700, TYPE_FLOAT, 1, 1, true},   {OPERATION_CONVOLUTION, 701, TYPE_FLOAT, 1, 1, true},
    {OPERATION_CONVOLUTION, 702, TYPE_DESCRIPTOR, 1, 1, true, CONVOLUTION},
    {OPERATION_CONVOLUTION, 703, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_CONVOLUTION, 704, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_CONVOLUTION, 705, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATIONGRAPH, 800, TYPE_HANDLE, 1, 1, true},
    {OPERATIONGRAPH, 801, TYPE_DESCRIPTOR, 1, MANY, true},
    {TENSOR, 900, TYPE_INT64, 1, 1, true},                  {TENSOR, 901, TYPE_DATA_TYPE, 1, 1, true},
    {TENSOR, 902, TYPE_INT64, 4, 4, true},                  {TENSOR, 903, TYPE_INT64, 4, 4, true},
    {TENSOR, 906, TYPE_INT64, 1, 1, true},                  {TENSOR, 908, TYPE_BOOLEAN, 1, 1, false},
    {VARIANT_PACK, 1000, TYPE_INT64, 1, MANY, true},        {VARIANT_PACK, 1001, TYPE_VOID_PTR, 1, MANY, true},
    {VARIANT_PACK, 1003, TYPE_VOID_PTR, 1, 1, true},
    {OPERATION_SDPA, 2800, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_SDPA, 2801, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_SDPA, 2802, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_SDPA, 2803, TYPE_DESCRIPTOR, 1, 1, true, TENSOR},
    {OPERATION_SDPA, 2805, TYPE_DESCRIPTOR, 1, 1, false, TENSOR},
};

inline size_t element_bytes(int type) {
  switch (type) {
    case TYPE_BOOLEAN: return 1;
    case TYPE_HANDLE: case TYPE_INT64: case TYPE_VOID_PTR: case TYPE_DESCRIPTOR: return 8;
    default: return 4;
  }
}

struct Descriptor {
  int type;
  bool finalized = false;
  std::map<int, std::vector<char>> attributes;
  // Of an engine and its settings: which one, for which graph.
  int engine = -1;
  uint64_t graph = 0;

  const Rule* rule(int attribute) const {
    for (const Rule& rule : RULES) {
      if (rule.descriptor == type && rule.attribute == attribute) return &rule;
    }
    return nullptr;
  }
  int set(int attribute, int given, int64_t count, const void* values) {
    const Rule* found = rule(attribute);
    if (!found) return CUDNN_NOT_SUPPORTED;
    if (finalized) return CUDNN_BAD_PARAM;
    if (given != found->type) return CUDNN_ATTRIBUTE_TYPE;
    if (!values) return CUDNN_NULL_POINTER;
    if (count < found->least || count > found->most) return CUDNN_BAD_PARAM;
    const char* bytes = (const char*)values;
    attributes[attribute] = std::vector<char>(bytes, bytes + count * element_bytes(given));
    return CUDNN_SUCCESS;
  }
  int get(int attribute, int given, int64_t requested, int64_t* count, void* values) const {
    const Rule* found = rule(attribute);
    if (!found) return CUDNN_NOT_SUPPORTED;
    if (!finalized) return CUDNN_NOT_INITIALIZED;
    if (given != found->type) return CUDNN_ATTRIBUTE_TYPE;
    auto kept = attributes.find(attribute);
    int64_t has = kept == attributes.end() ? 0 : kept->second.size() / element_bytes(given);
    if (count) *count = has;
    int64_t copied = requested < has ? requested : has;
    if (copied > 0 && values) std::memcpy(values, kept->second.data(), copied * element_bytes(given));
    return CUDNN_SUCCESS;
  }
  bool is_complete() const {
    for (const Rule& rule : RULES) {
      if (rule.descriptor == type && rule.required && !attributes.count(rule.attribute)) return false;
    }
    return true;
  }
  template <class Value>
  Value value(int attribute, int index = 0) const {
    Value out = Value();
    auto kept = attributes.find(attribute);
    if (kept != attributes.end()) std::memcpy(&out, kept->second.data() + index * sizeof(Value), sizeof(Value));
    return out;
  }
  int64_t length(int attribute) const {
    auto kept = attributes.find(attribute);
    return kept == attributes.end() ? 0 : kept->second.size() / element_bytes(rule(attribute)->type);
  }
};

}  // namespace stand_in
