import { test } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { packCodes } from "../../src/quantization/codes.ts";
import { dequantize, dequantizeRows } from "../../src/quantization/dequantize.ts";
import { groupCount, layoutBytes, weightBytes } from "../../src/quantization/layout_bytes.ts";
import type { QuantizedLayout, QuantizedTensor } from "../../src/quantization/quantized_tensor.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { randomValues } from "./support.ts";

const fround = Math.fround;

/** A tensor with every feature of the layout, and its codes one per byte. */
interface Sample {
  readonly tensor: QuantizedTensor;
  readonly codes: number[];
  readonly scaleCodes: number[];
  readonly supers: Float32Array;
}

const SAMPLES = fc.record({
  rows: fc.integer({ min: 1, max: 6 }),
  columns: fc.integer({ min: 1, max: 40 }),
  bits: fc.integer({ min: 1, max: 8 }),
  groupSize: fc.constantFrom(1, 3, 16, 32),
  superGroupSize: fc.constantFrom(2, 4),
  isTable: fc.boolean(),
  constant: fc.constantFrom(0, 0.5, -0.125),
  seed: fc.nat(),
});

type Parameters = typeof SAMPLES extends fc.Arbitrary<infer T> ? T : never;

function sampleOf(p: Parameters): Sample {
  const count = p.rows * p.columns;
  const groups = Math.ceil(count / p.groupSize);
  const codes = integers(count, 2 ** p.bits, p.seed);
  const scaleCodes = integers(groups, 64, p.seed + 1);
  const supers = randomValues(Math.ceil(groups / p.superGroupSize), p.seed + 2);
  const layout: QuantizedLayout = {
    bits: p.bits,
    value: p.isTable
      ? { kind: "table", table: randomValues(2 ** p.bits, p.seed + 3) }
      : { kind: "integer", zeroPoint: 3 },
    groupSize: p.groupSize,
    scale: {
      kind: "coded",
      bits: 6,
      value: { kind: "integer", zeroPoint: 32 },
      superGroupSize: p.superGroupSize,
      superDtype: "float32",
    },
    offset: { kind: "float", dtype: "float32" },
  };
  const scale = {
    kind: "coded",
    codes: packCodes(Uint8Array.from(scaleCodes), 6),
    supers: HostTensor.fromFloat32(supers),
    constant: p.constant,
  } as const;
  const offset = {
    kind: "float",
    values: HostTensor.fromFloat32(randomValues(groups, 9)),
  } as const;
  const packed = packCodes(Uint8Array.from(codes), p.bits);
  const tensor = { shape: [p.rows, p.columns], layout, codes: packed, scale, offset } as const;
  return { tensor, codes, scaleCodes, supers };
}

function integers(count: number, below: number, seed: number): number[] {
  return Array.from(randomValues(count, seed), (value) => Math.floor((value + 1) / 2 * below));
}

/** The formula of the layout, one weight at a time. */
function expectedWeight({ tensor, codes, scaleCodes, supers }: Sample, index: number): number {
  const { layout, scale, offset } = tensor;
  assert.ok(layout.scale.kind === "coded" && scale.kind === "coded" && offset?.kind === "float");
  const group = Math.floor(index / layout.groupSize);
  const product = fround(
    (scaleCodes[group] - 32) * supers[Math.floor(group / layout.scale.superGroupSize)],
  );
  const value = layout.value.kind === "table" ? layout.value.table[codes[index]] : codes[index] - 3;
  const scaled = fround(value * fround(product + scale.constant));
  return fround(scaled + offset.values.toFloat32()[group]);
}

test("dequantizing follows the formula of the layout in float32 for every width", () => {
  fc.assert(fc.property(SAMPLES, (parameters) => {
    const sample = sampleOf(parameters);
    const expected = sample.codes.map((_, index) => expectedWeight(sample, index));
    assert.deepEqual(dequantize(sample.tensor), Float32Array.from(expected));
  }));
});

test("some rows dequantize as they do within the whole", () => {
  fc.assert(fc.property(SAMPLES, fc.nat(5), fc.nat(5), (parameters, a, b) => {
    const { tensor } = sampleOf(parameters);
    const [rows, columns] = tensor.shape;
    const start = Math.min(a, b, rows), end = Math.min(Math.max(a, b), rows);
    const whole = dequantize(tensor).slice(start * columns, end * columns);
    assert.deepEqual(dequantizeRows(tensor, start, end), whole);
  }));
});

test("a multiplier comes after the scale, each rounded", () => {
  const [value, scale, multiplier] = [101, fround(0.77), fround(1 / 127)];
  const tensor: QuantizedTensor = {
    shape: [1, 1],
    layout: {
      bits: 8,
      value: { kind: "integer", zeroPoint: 128 },
      groupSize: 1,
      scale: { kind: "float", dtype: "float32", multiplier },
      offset: null,
    },
    codes: Uint8Array.of(value + 128),
    scale: { kind: "float", values: HostTensor.fromFloat32(Float32Array.of(scale)) },
    offset: null,
  };
  assert.deepEqual([...dequantize(tensor)], [fround(fround(value * scale) * multiplier)]);
});

test("the bytes of a layout are those of its parts", () => {
  fc.assert(fc.property(SAMPLES, (parameters) => {
    const { tensor, supers } = sampleOf(parameters);
    const { layout, scale, offset } = tensor;
    assert.ok(scale.kind === "coded" && offset?.kind === "float");
    const table = layout.value.kind === "table" ? layout.value.table.byteLength : 0;
    const parts = tensor.codes.length + scale.codes.length + supers.byteLength +
      offset.values.bytes.length + table;
    assert.equal(layoutBytes(tensor.shape, layout), parts);
    assert.equal(groupCount(tensor.shape, layout), offset.values.size);
  }));
});

test("a dense weight takes its elements' bytes", () => {
  assert.equal(weightBytes([3, 5, 2], { kind: "dense", dtype: "bfloat16" }), 60);
});
