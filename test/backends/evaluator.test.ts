/** The float64 evaluator that judges backends is itself judged by goldens from PyTorch. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { Activation, OpAttributes, UnaryKind } from "../../src/ops/op_table.ts";
import { compare } from "./conformance/cases.ts";
import * as evaluate from "./conformance/evaluator.ts";

interface Array64 {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

interface Golden<Attributes> {
  readonly attributes: Attributes;
  readonly arrays: Readonly<Record<string, Array64>>;
}

type Raw = Record<string, {
  attributes: unknown;
  arrays: Record<string, { shape: number[]; data: string }>;
}>;

const raw: Raw = JSON.parse(
  readFileSync(new URL("../goldens/ops.json", import.meta.url), "utf8"),
);

function golden<Attributes>(name: string): Golden<Attributes> {
  const { attributes, arrays } = raw[name];
  const decoded = Object.entries(arrays).map(([key, { shape, data }]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    return [key, { shape, data: new Float64Array(bytes.buffer) }];
  });
  return { attributes: attributes as Attributes, arrays: Object.fromEntries(decoded) };
}

/** float64 against float64, unless the library rounded on the way. */
function assertClose(found: ArrayLike<number>, expected: Array64, tolerance = 1e-13): void {
  const { maxAbs, nonFinite } = compare(found, expected.data);
  assert.equal(nonFinite, 0);
  assert.ok(maxAbs <= tolerance, `largest error ${maxAbs}`);
}

function matrix({ shape, data }: Array64): evaluate.Matrix {
  const columns = shape.at(-1)!;
  return { rows: data.length / columns, columns, data };
}

const UNARY: readonly UnaryKind[] = [
  "silu",
  "gelu_tanh",
  "gelu_erf",
  "quick_gelu",
  "relu",
  "exp",
  "rsqrt",
];

for (const kind of UNARY) {
  test(`the evaluator's ${kind} is PyTorch's`, () => {
    const { arrays: { x, y } } = golden(`unary ${kind}`);
    const attributes = { kind, multiplier: 1, addend: 0 };
    const found = x.data.map((value) => evaluate.unary(attributes, value));
    found.forEach((value, i) => {
      const error = Math.abs(value - y.data[i]);
      // The tail of PyTorch's own gelu cancels: it is right to an absolute 1e-15 only.
      assert.ok(error <= 1e-14 * Math.abs(y.data[i]) + 1e-15, `${kind}(${x.data[i]}) = ${value}`);
    });
  });
}

for (const kind of ["layer", "rms", "group"] as const) {
  test(`the evaluator's ${kind} norm is PyTorch's`, () => {
    const { attributes, arrays } = golden<{ epsilon: number; groups?: number }>(`norm ${kind}`);
    const { x, weight, bias, y } = arrays;
    const activation: Activation = "identity";
    const full = { kind, groups: 1, activation, ...attributes };
    const operands = { weight: weight.data, bias: bias?.data };
    assertClose(evaluate.norm(matrix(x), full, operands), y);
  });
}

for (const name of ["attention plain", "attention causal", "attention with bias"]) {
  test(`the evaluator's ${name} is PyTorch's`, () => {
    const { attributes, arrays } = golden<OpAttributes["attention"]>(name);
    const [q, k, v] = [arrays.q, arrays.k, arrays.v].map(matrix);
    assertClose(evaluate.attention(q, k, v, attributes, arrays.bias?.data), arrays.y);
  });
}

for (
  const name of ["conv2d same", "conv2d downsampling", "conv2d upsampling", "conv2d odd padding"]
) {
  test(`the evaluator's ${name} is PyTorch's`, () => {
    const { attributes, arrays } = golden<OpAttributes["conv2d"]>(name);
    const { x: { shape: [height, width, channels], data }, weight, bias, y } = arrays;
    const image = { height, width, channels, data };
    const out = weight.shape[0];
    const sums = evaluate.convolution(image, weight.data, out, attributes);
    assertClose(evaluate.finish(sums, out, { activation: "identity", bias: bias.data }), y);
  });
}

test("the evaluator's headNormRope is Diffusers'", () => {
  const { attributes, arrays: { x, weight, cos, sin, y } } = golden<{ epsilon: number }>(
    "headNormRope",
  );
  const angles = { cos: cos.data, sin: sin.data };
  const found = evaluate.headNormRope(matrix(x), weight.data, attributes.epsilon, angles);
  assertClose(found, y, 2e-7); // the library rotates in float32
});

for (const name of ["without outliers", "with outliers", "without a threshold"]) {
  test(`the evaluator's LLM.int8() ${name} is bitsandbytes'`, () => {
    const { attributes: { threshold }, arrays } = golden<{ threshold: number }>(`llm_int8 ${name}`);
    const { x, codes, rowAbsmax, y } = arrays;
    const weight = { codes: codes.data, rowAbsmax: rowAbsmax.data };
    // The library's 1 / 127^2 is 1.8e-5 too large on the CPU.
    assertClose(evaluate.llmInt8(matrix(x), weight, threshold), y, 2e-5);
  });
}
