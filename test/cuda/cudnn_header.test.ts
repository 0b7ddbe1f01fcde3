/** The numbers of cuDNN's interface beside its own header, where a wheel has brought it along. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import * as symbols from "../../src/backends/cuda/cudnn_symbols.ts";
import { cudnnLibraries } from "../../src/backends/cuda/library_paths.ts";
import { Header, headerFolder } from "./header.ts";

const header = (await cudnnLibraries())
  .map((library) => library.replace(/lib\/[^/]*$/, "include/cudnn_graph.h"))
  .find(existsSync);
const skip = header === undefined && "no cuDNN with a header is installed";
if (skip) console.log(`cuda: cuDNN's header is not read: ${skip}`);

const { CUDNN_ATTRIBUTE: attribute, CUDNN_DESCRIPTOR, CUDNN_STATUS, CUDNN_TYPE } = symbols;

/** Our numbers by the header's names. */
const EXPECTED: Readonly<Record<string, number>> = {
  CUDNN_STATUS_SUCCESS: CUDNN_STATUS.success,
  CUDNN_STATUS_NOT_SUPPORTED: 1000 * CUDNN_STATUS.notSupportedCategory,
  CUDNN_STATUS_INTERNAL_ERROR_COMPILATION_FAILED: CUDNN_STATUS.compilationFailed,
  CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED: CUDNN_STATUS.hostAllocationFailed,
  CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED: CUDNN_STATUS.deviceAllocationFailed,
  CUDNN_DATA_FLOAT: symbols.CUDNN_DATA.float32,
  CUDNN_DATA_HALF: symbols.CUDNN_DATA.float16,
  CUDNN_DATA_BFLOAT16: symbols.CUDNN_DATA.bfloat16,
  CUDNN_TYPE_HANDLE: CUDNN_TYPE.handle,
  CUDNN_TYPE_DATA_TYPE: CUDNN_TYPE.dataType,
  CUDNN_TYPE_BOOLEAN: CUDNN_TYPE.boolean,
  CUDNN_TYPE_INT64: CUDNN_TYPE.int64,
  CUDNN_TYPE_FLOAT: CUDNN_TYPE.float,
  CUDNN_TYPE_VOID_PTR: CUDNN_TYPE.voidPointer,
  CUDNN_TYPE_CONVOLUTION_MODE: CUDNN_TYPE.convolutionMode,
  CUDNN_TYPE_HEUR_MODE: CUDNN_TYPE.heuristicMode,
  CUDNN_TYPE_NUMERICAL_NOTE: CUDNN_TYPE.numericalNote,
  CUDNN_TYPE_BACKEND_DESCRIPTOR: CUDNN_TYPE.descriptor,
  CUDNN_TYPE_CHAR: CUDNN_TYPE.char,
  CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR: CUDNN_DESCRIPTOR.convolution,
  CUDNN_BACKEND_ENGINE_DESCRIPTOR: CUDNN_DESCRIPTOR.engine,
  CUDNN_BACKEND_ENGINECFG_DESCRIPTOR: CUDNN_DESCRIPTOR.engineConfig,
  CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: CUDNN_DESCRIPTOR.engineHeuristic,
  CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: CUDNN_DESCRIPTOR.executionPlan,
  CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
    CUDNN_DESCRIPTOR.operationConvolutionForward,
  CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: CUDNN_DESCRIPTOR.operationGraph,
  CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: CUDNN_DESCRIPTOR.variantPack,
  CUDNN_BACKEND_TENSOR_DESCRIPTOR: CUDNN_DESCRIPTOR.tensor,
  CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR: CUDNN_DESCRIPTOR.deviceProperties,
  CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: CUDNN_DESCRIPTOR.operationAttentionForward,
  CUDNN_CROSS_CORRELATION: symbols.CUDNN_CROSS_CORRELATION,
  CUDNN_HEUR_MODE_A: symbols.CUDNN_HEURISTIC_MODE.a,
  CUDNN_HEUR_MODE_FALLBACK: symbols.CUDNN_HEURISTIC_MODE.fallback,
  CUDNN_NUMERICAL_NOTE_TENSOR_CORE: symbols.CUDNN_NOTE.tensorCore,
  CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP: symbols.CUDNN_NOTE.strictNanPropagation,
  CUDNN_ATTR_CONVOLUTION_COMP_TYPE: attribute.convolution.computeType,
  CUDNN_ATTR_CONVOLUTION_CONV_MODE: attribute.convolution.mode,
  CUDNN_ATTR_CONVOLUTION_DILATIONS: attribute.convolution.dilations,
  CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES: attribute.convolution.strides,
  CUDNN_ATTR_CONVOLUTION_POST_PADDINGS: attribute.convolution.postPaddings,
  CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS: attribute.convolution.prePaddings,
  CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS: attribute.convolution.spatialDimensions,
  CUDNN_ATTR_ENGINEHEUR_MODE: attribute.heuristic.mode,
  CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH: attribute.heuristic.operationGraph,
  CUDNN_ATTR_ENGINEHEUR_RESULTS: attribute.heuristic.results,
  CUDNN_ATTR_ENGINEHEUR_DEVICEPROP: attribute.heuristic.deviceProperties,
  CUDNN_ATTR_ENGINECFG_ENGINE: attribute.engineConfig.engine,
  CUDNN_ATTR_EXECUTION_PLAN_HANDLE: attribute.plan.handle,
  CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG: attribute.plan.engineConfig,
  CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE: attribute.plan.workspaceSize,
  CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP: attribute.plan.deviceProperties,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA: attribute.convolutionForward.alpha,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA: attribute.convolutionForward.beta,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC: attribute.convolutionForward.convolution,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W: attribute.convolutionForward.w,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X: attribute.convolutionForward.x,
  CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y: attribute.convolutionForward.y,
  CUDNN_ATTR_OPERATIONGRAPH_HANDLE: attribute.graph.handle,
  CUDNN_ATTR_OPERATIONGRAPH_OPS: attribute.graph.operations,
  CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT: attribute.tensor.byteAlignment,
  CUDNN_ATTR_TENSOR_DATA_TYPE: attribute.tensor.dataType,
  CUDNN_ATTR_TENSOR_DIMENSIONS: attribute.tensor.dimensions,
  CUDNN_ATTR_TENSOR_STRIDES: attribute.tensor.strides,
  CUDNN_ATTR_TENSOR_UNIQUE_ID: attribute.tensor.uniqueId,
  CUDNN_ATTR_TENSOR_IS_BY_VALUE: attribute.tensor.isByValue,
  CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS: attribute.variantPack.uniqueIds,
  CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS: attribute.variantPack.dataPointers,
  CUDNN_ATTR_VARIANT_PACK_WORKSPACE: attribute.variantPack.workspace,
  CUDNN_ATTR_ENGINE_NUMERICAL_NOTE: attribute.engine.numericalNote,
  CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION: attribute.deviceProperties.json,
  CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC: attribute.attentionForward.q,
  CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC: attribute.attentionForward.k,
  CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC: attribute.attentionForward.v,
  CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC: attribute.attentionForward.output,
  CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC: attribute.attentionForward.scale,
};

const types = await headerFolder("driver_types.h");
const skipTypes = skip || types === null && "no header of CUDA's types is installed";
test("cuDNN's functions are called as its header declares them", { skip: skipTypes }, () => {
  const declarations = new Header([header!, `${types}/driver_types.h`]);
  for (const [name, signature] of Object.entries(symbols.CUDNN_SYMBOLS)) {
    const declared = JSON.stringify(declarations.signatures(name));
    assert.ok(declarations.declares(name, signature), `${name}: ${declared}`);
  }
});

test("every number of cuDNN's interface is the header's, and none is left out", { skip }, () => {
  const found = new Header([header!]).numbers();
  for (const [name, value] of Object.entries(EXPECTED)) assert.equal(found.get(name), value, name);
  const ours = [CUDNN_DESCRIPTOR, CUDNN_TYPE, ...Object.values(attribute)]
    .flatMap((numbers) => Object.values<number>(numbers));
  assert.equal(Object.keys(EXPECTED).length, ours.length + 5 + 3 + 5);
});
