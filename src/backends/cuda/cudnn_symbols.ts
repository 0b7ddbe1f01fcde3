/** The functions and numbers of NVIDIA's cuDNN that are used, as cudnn_graph.h of version 9.20 declares them. */

import { signature } from "./library_calls.ts";

/** The functions; those without another result give a cudnnStatus_t. */
export const CUDNN_SYMBOLS = {
  cudnnGetVersion: signature("", "u64"),
  cudnnGetErrorString: signature("i", "u64"),
  cudnnGetLastErrorString: { parameters: ["u64", "u64"], result: "void" },
  cudnnCreate: signature("p"),
  cudnnDestroy: signature("h"),
  cudnnSetStream: signature("hh"),
  cudnnBackendCreateDescriptor: signature("ip"),
  cudnnBackendDestroyDescriptor: signature("h"),
  cudnnBackendSetAttribute: signature("hiisp"),
  cudnnBackendGetAttribute: signature("hiispp"),
  cudnnBackendFinalize: signature("h"),
  cudnnBackendExecute: signature("hhh"),
} as const;

/** A function of cuDNN. */
export type CudnnFunction = keyof typeof CUDNN_SYMBOLS;

/** cudnnStatus_t, as far as it means something here; thousands are categories. */
export const CUDNN_STATUS = {
  success: 0,
  notSupportedCategory: 3,
  compilationFailed: 4001,
  hostAllocationFailed: 4003,
  deviceAllocationFailed: 4004,
} as const;
/** cudnnDataType_t. */
export const CUDNN_DATA = { float32: 0, float16: 2, bfloat16: 9 } as const;
/** cudnnBackendAttributeType_t. */
export const CUDNN_TYPE = {
  handle: 0,
  dataType: 1,
  boolean: 2,
  int64: 3,
  float: 4,
  voidPointer: 6,
  convolutionMode: 7,
  heuristicMode: 8,
  numericalNote: 11,
  descriptor: 15,
  char: 24,
} as const;
/** cudnnBackendDescriptorType_t. Attention came with version 9.13. */
export const CUDNN_DESCRIPTOR = {
  convolution: 1,
  engine: 2,
  engineConfig: 3,
  engineHeuristic: 4,
  executionPlan: 5,
  operationConvolutionForward: 10,
  operationGraph: 15,
  variantPack: 16,
  tensor: 17,
  deviceProperties: 38,
  operationAttentionForward: 41,
} as const;
/** cudnnConvolutionMode_t: what everyone calls a convolution is a cross-correlation. */
export const CUDNN_CROSS_CORRELATION = 1;
/** cudnnBackendHeurMode_t: what is fast, and what works in any case. */
export const CUDNN_HEURISTIC_MODE = { a: 3, fallback: 2 } as const;
/** cudnnBackendNumericalNote_t: what an engine may do to numbers. Any other note is none that we accept. */
export const CUDNN_NOTE = { tensorCore: 0, strictNanPropagation: 9 } as const;
/** How many notes an engine is asked for; 9.20 knows ten. */
export const CUDNN_NOTES = 32;

/** cudnnBackendAttributeName_t. */
export const CUDNN_ATTRIBUTE = {
  convolution: {
    computeType: 100,
    mode: 101,
    dilations: 102,
    strides: 103,
    postPaddings: 104,
    prePaddings: 105,
    spatialDimensions: 106,
  },
  heuristic: { mode: 200, operationGraph: 201, results: 202, deviceProperties: 204 },
  engineConfig: { engine: 300 },
  plan: { handle: 400, engineConfig: 401, workspaceSize: 402, deviceProperties: 407 },
  convolutionForward: { alpha: 700, beta: 701, convolution: 702, w: 703, x: 704, y: 705 },
  graph: { handle: 800, operations: 801 },
  tensor: {
    byteAlignment: 900,
    dataType: 901,
    dimensions: 902,
    strides: 903,
    uniqueId: 906,
    isByValue: 908,
  },
  variantPack: { uniqueIds: 1000, dataPointers: 1001, workspace: 1003 },
  engine: { numericalNote: 1303 },
  deviceProperties: { json: 2702 },
  attentionForward: { q: 2800, k: 2801, v: 2802, output: 2803, scale: 2805 },
} as const;
