/** The functions and numbers of cuBLASLt beside its own headers, where a toolkit or a wheel has brought them along. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as symbols from "../../src/backends/cuda/cublas_lt_symbols.ts";
import { Header, headerFolder } from "./header.ts";

const NAMES = ["cublasLt.h", "cublas_api.h", "library_types.h", "driver_types.h"];
const folder = await headerFolder(...NAMES);
const skip = folder === null && "no headers of cuBLASLt are installed";
if (skip) console.log(`cuda: cuBLASLt's headers are not read: ${skip}`);
const read = () => new Header(NAMES.map((name) => `${folder}/${name}`));

/** Of each of our groups of numbers, the header's name of each. */
const NAMES_OF: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  CUBLAS_STATUS: {
    success: "CUBLAS_STATUS_SUCCESS",
    allocationFailed: "CUBLAS_STATUS_ALLOC_FAILED",
    invalidValue: "CUBLAS_STATUS_INVALID_VALUE",
    notSupported: "CUBLAS_STATUS_NOT_SUPPORTED",
  },
  DATA_TYPE: {
    float32: "CUDA_R_32F",
    float16: "CUDA_R_16F",
    int8: "CUDA_R_8I",
    int32: "CUDA_R_32I",
    bfloat16: "CUDA_R_16BF",
    float8_e4m3fn: "CUDA_R_8F_E4M3",
  },
  COMPUTE_TYPE: {
    float32: "CUBLAS_COMPUTE_32F",
    int32: "CUBLAS_COMPUTE_32I",
    fastTensorFloat32: "CUBLAS_COMPUTE_32F_FAST_TF32",
  },
  OPERATION: { none: "CUBLAS_OP_N", transpose: "CUBLAS_OP_T" },
  EPILOGUE: {
    none: "CUBLASLT_EPILOGUE_DEFAULT",
    relu: "CUBLASLT_EPILOGUE_RELU",
    bias: "CUBLASLT_EPILOGUE_BIAS",
    gelu: "CUBLASLT_EPILOGUE_GELU",
  },
  DESC: {
    transposeA: "CUBLASLT_MATMUL_DESC_TRANSA",
    transposeB: "CUBLASLT_MATMUL_DESC_TRANSB",
    epilogue: "CUBLASLT_MATMUL_DESC_EPILOGUE",
    biasPointer: "CUBLASLT_MATMUL_DESC_BIAS_POINTER",
    scalePointerA: "CUBLASLT_MATMUL_DESC_A_SCALE_POINTER",
    scalePointerB: "CUBLASLT_MATMUL_DESC_B_SCALE_POINTER",
    fastAccumulation: "CUBLASLT_MATMUL_DESC_FAST_ACCUM",
    biasType: "CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE",
    scaleModeA: "CUBLASLT_MATMUL_DESC_A_SCALE_MODE",
    scaleModeB: "CUBLASLT_MATMUL_DESC_B_SCALE_MODE",
  },
  SCALE_MODE: {
    scalar: "CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F",
    outerVector: "CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F",
  },
  LAYOUT: {
    type: "CUBLASLT_MATRIX_LAYOUT_TYPE",
    rows: "CUBLASLT_MATRIX_LAYOUT_ROWS",
    columns: "CUBLASLT_MATRIX_LAYOUT_COLS",
    leadingDimension: "CUBLASLT_MATRIX_LAYOUT_LD",
    batchCount: "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT",
    batchOffset: "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET",
  },
  PREFERENCE: {
    workspaceBytes: "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES",
    reductionSchemes: "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK",
    alignmentA: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES",
    alignmentB: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES",
    alignmentC: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES",
    alignmentD: "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES",
  },
  REDUCTION_SCHEME: { computeType: "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE" },
};

test("cuBLASLt's functions are called as its header declares them", { skip }, () => {
  const header = read();
  for (const [name, signature] of Object.entries(symbols.CUBLAS_LT_SYMBOLS)) {
    const declared = JSON.stringify(header.signatures(name));
    assert.ok(header.declares(name, signature), `${name}: ${declared}`);
  }
});

test("cuBLASLt's numbers are the headers', and none is left out", { skip }, () => {
  const found = read().numbers();
  // HEURISTIC says how a struct lies.
  const { CUBLAS_LT_SYMBOLS: _, HEURISTIC: __, ...groups } = symbols;
  for (const [group, numbers] of Object.entries(groups)) {
    for (const [key, value] of Object.entries(numbers)) {
      assert.equal(found.get(NAMES_OF[group]?.[key] ?? ""), value, `${group}.${key}`);
    }
  }
});
