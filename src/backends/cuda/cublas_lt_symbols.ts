/** The functions and numbers of NVIDIA's cuBLASLt that are used, as cublasLt.h and library_types.h declare them. */

import { signature } from "./library_calls.ts";

/** The functions; those without another result give a cublasStatus_t. */
export const CUBLAS_LT_SYMBOLS = {
  cublasLtGetVersion: signature("", "u64"),
  cublasLtGetStatusName: signature("i", "u64"),
  cublasLtGetStatusString: signature("i", "u64"),
  cublasLtCreate: signature("p"),
  cublasLtDestroy: signature("h"),
  cublasLtMatmulDescCreate: signature("pii"),
  cublasLtMatmulDescDestroy: signature("h"),
  cublasLtMatmulDescSetAttribute: signature("hips"),
  cublasLtMatmulDescGetAttribute: signature("hipsp"),
  cublasLtMatrixLayoutCreate: signature("pisss"),
  cublasLtMatrixLayoutDestroy: signature("h"),
  cublasLtMatrixLayoutSetAttribute: signature("hips"),
  cublasLtMatrixLayoutGetAttribute: signature("hipsp"),
  cublasLtMatmulPreferenceCreate: signature("p"),
  cublasLtMatmulPreferenceDestroy: signature("h"),
  cublasLtMatmulPreferenceSetAttribute: signature("hips"),
  cublasLtMatmulPreferenceGetAttribute: signature("hipsp"),
  cublasLtMatmulAlgoGetHeuristic: signature("hhhhhhhipp"),
  cublasLtMatmul: signature("hhpphphpphphppsh"),
} as const;

/** A function of cuBLASLt. */
export type CublasLtFunction = keyof typeof CUBLAS_LT_SYMBOLS;

/** cublasStatus_t, as far as it means something here. */
export const CUBLAS_STATUS = {
  success: 0,
  allocationFailed: 3,
  invalidValue: 7,
  notSupported: 15,
} as const;
/** cudaDataType_t. */
export const DATA_TYPE = {
  float32: 0,
  float16: 2,
  int8: 3,
  int32: 10,
  bfloat16: 14,
  float8_e4m3fn: 28,
} as const;
/** cublasComputeType_t: sums in float32, of operands as they are or as TF32; sums in int32. */
export const COMPUTE_TYPE = { float32: 68, int32: 72, fastTensorFloat32: 77 } as const;
/** cublasOperation_t. */
export const OPERATION = { none: 0, transpose: 1 } as const;
/** cublasLtEpilogue_t: flags, a bias and an activation. Its GELU is the one with tanh. */
export const EPILOGUE = { none: 1, relu: 2, bias: 4, gelu: 32 } as const;
/** cublasLtMatmulDescAttributes_t. */
export const DESC = {
  transposeA: 3,
  transposeB: 4,
  epilogue: 7,
  biasPointer: 8,
  scalePointerA: 17,
  scalePointerB: 18,
  fastAccumulation: 25,
  biasType: 26,
  scaleModeA: 31,
  scaleModeB: 32,
} as const;
/** cublasLtMatmulMatrixScale_t: one float32 for all of a matrix, or one for each row of A and column of B. */
export const SCALE_MODE = { scalar: 0, outerVector: 3 } as const;
/** cublasLtMatrixLayoutAttribute_t. */
export const LAYOUT = {
  type: 0,
  rows: 2,
  columns: 3,
  leadingDimension: 4,
  batchCount: 5,
  batchOffset: 6,
} as const;
/** cublasLtMatmulPreferenceAttributes_t. */
export const PREFERENCE = {
  workspaceBytes: 1,
  reductionSchemes: 3,
  alignmentA: 5,
  alignmentB: 6,
  alignmentC: 7,
  alignmentD: 8,
} as const;
/** cublasLtReductionScheme_t: how parts of sums may be joined, apart from not at all. */
export const REDUCTION_SCHEME = { computeType: 2 } as const;
/** cublasLtMatmulHeuristicResult_t: a cublasLtMatmulAlgo_t of 64 bytes, its workspace, its status. */
export const HEURISTIC = { bytes: 96, algorithmBytes: 64, workspace: 64, state: 72 } as const;
