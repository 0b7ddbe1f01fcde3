/** Int8 weights that are multiplied slice by slice, each with its own codes, scales, sums and outliers. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { createCudaBackend } from "../../src/backends/cuda/mod.ts";
import type { ActivationMode } from "../../src/ops/activation_mode.ts";
import { linear } from "../../src/ops/builders.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { int8 } from "../backends/conformance/activation_cases.ts";
import { runCase } from "../backends/conformance/cases.ts";
import { integer } from "../backends/conformance/formats.ts";
import { roundToEven } from "../backends/conformance/rounded_activations.ts";
import { TestWeights } from "../backends/conformance/weights.ts";
import { openStandIn, type StandIn } from "./stand_in.ts";

/** 256 rows of this depth fill a slice. */
const [M, N, K] = [65, 288, 65536];
const CODES = Uint8Array.from({ length: N * K }, (_, i) => codeOf(Math.floor(i / K), i % K));
/** The column that holds an outlier, and what the others reach. */
const OUTLIER = { column: 5, value: 200 };
const REACH = 100;

const standIn = openStandIn("int8_slices");
if (typeof standIn === "string") {
  console.log(`cuda: slices of int8 are skipped: ${standIn}`);
  test("cuda on the stand-in: slices of int8", { skip: standIn }, () => {});
} else {
  registerAll(standIn);
}

function codeOf(row: number, column: number): number {
  return (column * 31 + (column >> 9) + row * 7 + (row >> 5)) & 255;
}

/** What a row's codes are worth. */
function scaleOf(row: number): number {
  return 1 + row / 64;
}

function activation(row: number, column: number): number {
  return (row * 13 + column * 7919) % (2 * REACH + 1) - REACH;
}

function registerAll(standIn: StandIn): void {
  /** Rows of outputs; the first row of x has an outlier where a mode keeps one apart. */
  async function multiply(mode: ActivationMode): Promise<Float32Array[]> {
    const x = Float32Array.from({ length: M * K }, (_, i) => activation(Math.floor(i / K), i % K));
    if (mode.kind === "llm_int8") x[OUTLIER.column] = OUTLIER.value;
    // Resident weights with such codes are read where they lie.
    const backend = await createCudaBackend({ ...standIn.libraries, residentWeightBytes: 1 });
    const before = standIn.count("integerProducts");
    const found = await runCase(backend, {
      name: "slices",
      op: "linear",
      budget: "linear/quantized activations",
      inputs: { x: HostTensor.fromFloat32(x, [M, K]) },
      weights: weightsFor(mode),
      build: (graph, inputs) => linear(inputs.x!, graph.weight("w", [N, K])),
      expected: () => [],
    });
    await backend.close();
    // Two slices, each once before the graphs are captured, after a product that is known.
    assert.equal(standIn.count("integerProducts") - before, 5);
    const y = found.toFloat32();
    return [0, M - 1].map((row) => y.subarray(row * N, (row + 1) * N));
  }

  test("every slice has its own codes, scales and sums", async () => {
    const zero = 27;
    const scale = { kind: "static", scale: 1, inverse: 1, zero } as const;
    const found = await multiply({ ...int8({}), scale });
    [0, M - 1].forEach((row, i) => {
      const seen = Float64Array.from(
        { length: K },
        (_, column) => Math.min(activation(row, column) + zero, 127) - zero,
      );
      const expected = sumsOf(seen).map((sum, n) => Math.fround(sum) * scaleOf(n));
      assert.deepEqual(found[i], Float32Array.from(expected));
    });
  });

  test("every slice of LLM.int8() has its own outliers", async () => {
    const found = await multiply({ kind: "llm_int8", threshold: 1.5 * REACH });
    [0, M - 1].forEach((row, i) => {
      const codes = Float64Array.from(
        { length: K },
        (_, column) => roundToEven(Math.fround(activation(row, column) * Math.fround(127 / REACH))),
      );
      codes[OUTLIER.column] = 0;
      const outlier = row === 0 ? OUTLIER.value : activation(row, OUTLIER.column);
      sumsOf(codes).forEach((sum, n) => {
        const kept = outlier * (codeOf(n, OUTLIER.column) - 128);
        const expected = (sum * REACH / 127 + kept) * scaleOf(n);
        const error = Math.abs(found[i]![n]! - expected);
        assert.ok(
          error <= 1e-6 * Math.abs(expected) + 1e-2,
          `${row}, ${n}: ${error} of ${expected}`,
        );
      });
    });
  });
}

/** Sums of whole numbers below 2^53, one for each row of the weight. */
function sumsOf(x: Float64Array): number[] {
  return Array.from({ length: N }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < K; i++) sum += x[i]! * (CODES[row * K + i]! - 128);
    return sum;
  });
}

function weightsFor(mode: ActivationMode): TestWeights {
  const layout = {
    ...integer(8),
    groupSize: K,
    scale: { kind: "float", dtype: "float32" },
    offset: null,
  } as const;
  const values = HostTensor.fromFloat32(Float32Array.from({ length: N }, (_, row) => scaleOf(row)));
  const scale = { kind: "float", values } as const;
  const tensor = { shape: [N, K], layout, codes: CODES, scale, offset: null } as const;
  const weights = new TestWeights(mode);
  weights.add("w", {
    shape: [N, K],
    format: { kind: "quantized", layout },
    stored: { kind: "quantized", tensor },
    values: new Float64Array(0),
  });
  return weights;
}
