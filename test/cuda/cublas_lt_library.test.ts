/** NVIDIA's own cuBLASLt where it is installed: what of it works without a GPU, and the stand-in beside it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { CublasLtCalls } from "../../src/backends/cuda/cublas_lt_calls.ts";
import { CublasLt } from "../../src/backends/cuda/cublas_lt.ts";
import { MatmulDescriptors } from "../../src/backends/cuda/cublas_lt_descriptors.ts";
import { cublasLtLibraries } from "../../src/backends/cuda/library_paths.ts";
import {
  COMPUTE_TYPE,
  type CublasLtFunction,
  DATA_TYPE,
  DESC,
  LAYOUT,
  PREFERENCE,
} from "../../src/backends/cuda/cublas_lt_symbols.ts";
import type { MatmulProblem } from "../../src/backends/cuda/matmul_problem.ts";
import { HalftoneError } from "../../src/errors.ts";
import { addressOf } from "../../src/runtime/foreign.ts";
import { openStandIn } from "./stand_in.ts";

/** A library that opens, or why there is none. */
async function openGenuine(): Promise<CublasLtCalls | string> {
  let reason = "";
  for (const library of await cublasLtLibraries(13000)) {
    try {
      return new CublasLtCalls(library);
    } catch (error) {
      if (!(error instanceof HalftoneError)) throw error;
      reason = error.message;
    }
  }
  return `no cuBLASLt is installed: ${reason}`;
}

const genuine = await openGenuine();
const standIn = openStandIn("cublas_lt_library");
const subjects = {
  "NVIDIA's cuBLASLt": genuine,
  "the stand-in for cuBLASLt": typeof standIn === "string"
    ? standIn
    : new CublasLtCalls(standIn.library),
};

/** No device: nothing runs here. */
const DEVICE = {
  name: "none",
  capability: 90,
  compute: 0,
  measureFrom: Infinity,
  milliseconds: () => 0,
  after: (bytes: Uint8Array) => bytes,
  warn: () => {},
};
const PROBLEM: MatmulProblem = {
  m: 72,
  n: 40,
  k: 24,
  operands: "bfloat16",
  scaling: "none",
  tensorFloat32: false,
  xStride: 26,
  weightStride: 24,
  outputStride: 50,
  addedStride: 45,
  bias: true,
  activation: "gelu_tanh",
  alignments: { x: 4, weight: 256, added: 4, output: 16 },
  workspaceBytes: 2 ** 20,
};

for (const [name, calls] of Object.entries(subjects)) {
  const skip = typeof calls === "string" ? calls : false;
  if (skip) console.log(`cuda: ${name} is not tried: ${skip}`);

  test(`${name} says its version and what its statuses mean`, { skip }, () => {
    if (typeof calls === "string") return;
    assert.match(calls.versionText, /^1[2-9]\.\d+\.\d+$/);
    assert.equal(calls.textOf(0), "CUBLAS_STATUS_SUCCESS (0): success");
    assert.equal(
      calls.textOf(15),
      "CUBLAS_STATUS_NOT_SUPPORTED (15): the requested functionality is not supported",
    );
    assert.match(calls.textOf(3), /^CUBLAS_STATUS_ALLOC_FAILED/);
  });

  test(`${name} keeps the descriptors as they are meant`, { skip }, () => {
    if (typeof calls === "string") return;
    const descriptors = new MatmulDescriptors(calls, PROBLEM);
    descriptors.setVectors(PROBLEM, { bias: 0x1234_5678_9a00, xScales: 0, weightScales: 0 });
    const desc = descReader(calls, descriptors);
    assert.deepEqual(
      [desc(0), desc(1), desc(DESC.transposeA), desc(DESC.transposeB), desc(DESC.epilogue)],
      [COMPUTE_TYPE.float32, DATA_TYPE.float32, 1, 0, 32 + 4],
    );
    assert.equal(desc(DESC.biasPointer, 8), 0x1234_5678_9a00);
    const layout = (handle: number) =>
      ([[LAYOUT.type, 4], [LAYOUT.rows, 8], [LAYOUT.columns, 8], [
        LAYOUT.leadingDimension,
        8,
      ]] as const)
        .map(([attribute, bytes]) =>
          attributeOf(calls, "cublasLtMatrixLayoutGetAttribute", handle, attribute, bytes)
        );
    assert.deepEqual(layout(descriptors.weight), [DATA_TYPE.bfloat16, 24, 40, 24]);
    assert.deepEqual(layout(descriptors.x), [DATA_TYPE.bfloat16, 24, 72, 26]);
    assert.deepEqual(layout(descriptors.added), [DATA_TYPE.float32, 40, 72, 45]);
    assert.deepEqual(layout(descriptors.output), [DATA_TYPE.float32, 40, 72, 50]);
    descriptors.free();
  });

  test(`${name} takes batches of matrices that lie in rows or in columns`, { skip }, () => {
    if (typeof calls === "string") return;
    const batch = { count: 3, x: 2000, weight: 0, output: 4000 };
    const problem = { ...PROBLEM, xByColumns: true, weightByColumns: true, xStride: 80, batch };
    const descriptors = new MatmulDescriptors(calls, { ...problem, weightStride: 44 });
    const desc = descReader(calls, descriptors);
    assert.deepEqual([desc(DESC.transposeA), desc(DESC.transposeB)], [0, 1]);
    const layout = (handle: number) =>
      ([[LAYOUT.rows, 8], [LAYOUT.columns, 8], [LAYOUT.leadingDimension, 8], [
        LAYOUT.batchCount,
        4,
      ], [LAYOUT.batchOffset, 8]] as const)
        .map(([attribute, bytes]) =>
          attributeOf(calls, "cublasLtMatrixLayoutGetAttribute", handle, attribute, bytes)
        );
    assert.deepEqual(layout(descriptors.weight), [40, 24, 44, 3, 0]);
    assert.deepEqual(layout(descriptors.x), [72, 24, 80, 3, 2000]);
    assert.deepEqual(layout(descriptors.added), [40, 72, 45, 3, 4000]);
    assert.deepEqual(layout(descriptors.output), [40, 72, 50, 3, 4000]);
    descriptors.free();
  });

  test(`${name} takes TF32 and every operand type`, { skip }, () => {
    if (typeof calls === "string") return;
    for (const operands of ["float32", "float16", "bfloat16"] as const) {
      const problem = { ...PROBLEM, operands, tensorFloat32: true, bias: false } as const;
      const descriptors = new MatmulDescriptors(calls, problem);
      const compute = attributeOf(
        calls,
        "cublasLtMatmulDescGetAttribute",
        descriptors.operation,
        0,
        4,
      );
      const expected = operands === "float32"
        ? COMPUTE_TYPE.fastTensorFloat32
        : COMPUTE_TYPE.float32;
      assert.equal(compute, expected);
      descriptors.free();
    }
  });

  test(`${name} takes results of 16 bits, and how parts of sums are joined`, { skip }, () => {
    if (typeof calls === "string") return;
    for (const results of ["float16", "bfloat16"] as const) {
      const problem: MatmulProblem = { ...PROBLEM, operands: results, results, addedStride: 0 };
      const descriptors: MatmulDescriptors = new MatmulDescriptors(calls, problem);
      const type = DATA_TYPE[results];
      assert.deepEqual(typesOf(calls, descriptors), [type, type, type, type]);
      const preference = descriptors.makePreference(problem);
      const ask = "cublasLtMatmulPreferenceGetAttribute";
      assert.equal(attributeOf(calls, ask, preference, PREFERENCE.reductionSchemes, 4), 2);
      descriptors.free();
    }
  });

  test(`${name} takes int8 with sums in int32`, { skip }, () => {
    if (typeof calls === "string") return;
    const problem: MatmulProblem = {
      ...PROBLEM,
      operands: "int8",
      bias: false,
      activation: "identity",
      addedStride: 0,
    };
    const descriptors = new MatmulDescriptors(calls, problem);
    const desc = descReader(calls, descriptors);
    assert.deepEqual(
      [desc(0), desc(1), desc(DESC.transposeA), desc(DESC.transposeB), desc(DESC.epilogue)],
      [COMPUTE_TYPE.int32, DATA_TYPE.int32, 1, 0, 1],
    );
    assert.deepEqual(typesOf(calls, descriptors), [3, 3, 10, 10]);
    descriptors.free();
  });

  test(`${name} takes float8 with scales of rows, of all, or none`, { skip }, () => {
    if (typeof calls === "string") return;
    for (const [scaling, mode] of [["rows", 3], ["tensor", 0], ["none", 0]] as const) {
      const problem: MatmulProblem = {
        ...PROBLEM,
        operands: "float8_e4m3fn",
        bias: false,
        scaling,
      };
      const descriptors: MatmulDescriptors = new MatmulDescriptors(calls, problem);
      const desc = descReader(calls, descriptors);
      const pointers = { bias: 0, xScales: 0x1234_5678_9a00, weightScales: 0x2345_6789_ab00 };
      descriptors.setVectors(problem, pointers);
      assert.deepEqual([desc(0), desc(1)], [COMPUTE_TYPE.float32, DATA_TYPE.float32]);
      assert.deepEqual([desc(DESC.scaleModeA), desc(DESC.scaleModeB)], [mode, mode]);
      assert.deepEqual(
        [desc(DESC.scalePointerA, 8), desc(DESC.scalePointerB, 8)],
        scaling === "none" ? [0, 0] : [pointers.weightScales, pointers.xScales],
      );
      assert.equal(desc(DESC.fastAccumulation, 1), 0);
      assert.deepEqual(typesOf(calls, descriptors), [28, 28, 0, 0]);
      descriptors.free();
    }
  });

  test(`${name} takes float8 with a bias of bfloat16, whatever the results are`, { skip }, () => {
    if (typeof calls === "string") return;
    const problem: MatmulProblem = { ...PROBLEM, operands: "float8_e4m3fn", scaling: "rows" };
    for (const [results, type] of [[undefined, 0], ["bfloat16", 14]] as const) {
      const descriptors: MatmulDescriptors = new MatmulDescriptors(calls, {
        ...problem,
        ...(results && { results }),
      });
      const desc = descReader(calls, descriptors);
      assert.deepEqual([desc(DESC.biasType), desc(DESC.epilogue)], [DATA_TYPE.bfloat16, 32 + 4]);
      assert.deepEqual(typesOf(calls, descriptors), [28, 28, type, type]);
      descriptors.free();
    }
  });

  test(`${name} refuses an attribute of another size`, { skip }, () => {
    if (typeof calls === "string") return;
    const descriptors = new MatmulDescriptors(calls, PROBLEM);
    const word = new BigUint64Array(1);
    const statuses = (attribute: number) =>
      [1, 4, 8].map((bytes) =>
        calls.try(
          "cublasLtMatmulDescSetAttribute",
          descriptors.operation,
          attribute,
          addressOf(word),
          bytes,
        )
      );
    for (const attribute of [DESC.transposeA, DESC.scaleModeA, DESC.scaleModeB]) {
      assert.deepEqual(statuses(attribute), [7, 0, 7]);
    }
    for (const attribute of [DESC.biasPointer, DESC.scalePointerA, DESC.scalePointerB]) {
      assert.deepEqual(statuses(attribute), [7, 7, 0]);
    }
    assert.deepEqual(statuses(DESC.fastAccumulation), [0, 7, 7]);
    descriptors.free();
  });
}

const skip = typeof genuine === "string" ? genuine : false;
test(
  "NVIDIA's cuBLASLt asked for an algorithm without a device says what is missing",
  { skip },
  () => {
    if (typeof genuine === "string") return;
    const descriptors = new MatmulDescriptors(genuine, PROBLEM);
    // The preference is made and filled before the library finds that there is no handle.
    assert.throws(() => descriptors.algorithms(0, PROBLEM), (error) => {
      assert.ok(error instanceof HalftoneError);
      assert.equal(error.detail.field, "cublasLtMatmulAlgoGetHeuristic");
      assert.match(error.message, /CUBLAS_STATUS_(NOT_INITIALIZED|INVALID_VALUE)/);
      return true;
    });
    descriptors.free();
  },
);

test("NVIDIA's cuBLASLt starts, or says why it does not", { skip }, () => {
  if (typeof genuine === "string") return;
  const opened = CublasLt.open([genuine.library], DEVICE);
  if (typeof opened !== "string") return opened.close();
  assert.match(opened, /Cannot start cuBLASLt.*CUBLAS_STATUS_/);
});

/** The types of weight, x, what is added and output. */
function typesOf(calls: CublasLtCalls, descriptors: MatmulDescriptors): number[] {
  return (["weight", "x", "added", "output"] as const).map((part) =>
    attributeOf(calls, "cublasLtMatrixLayoutGetAttribute", descriptors[part], LAYOUT.type, 4)
  );
}

/** Reads attributes of a product, of 4 bytes unless said otherwise. */
function descReader(calls: CublasLtCalls, { operation }: MatmulDescriptors) {
  return (attribute: number, bytes = 4) =>
    attributeOf(calls, "cublasLtMatmulDescGetAttribute", operation, attribute, bytes);
}

function attributeOf(
  calls: CublasLtCalls,
  ask: Extract<CublasLtFunction, `${string}GetAttribute`>,
  handle: number,
  attribute: number,
  bytes: number,
): number {
  const value = new BigUint64Array(1), written = new BigUint64Array(1);
  calls.run(
    ask,
    "read an attribute",
    handle,
    attribute,
    addressOf(value),
    bytes,
    addressOf(written),
  );
  assert.equal(Number(written[0]), bytes);
  return Number(value[0]);
}
