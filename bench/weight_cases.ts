/** Random weights in the stored forms that matter; only their time counts. */

import type { StoredWeight } from "../src/backends/backend.ts";
import { type ActivationMode, LLM_INT8_ROWS } from "../src/ops/activation_mode.ts";
import type { WeightFormat } from "../src/plan/plan.ts";
import { FLOATX_FORMATS, floatxTable } from "../src/quantization/floatx.ts";
import { packedBytes } from "../src/quantization/codes.ts";
import { groupCount } from "../src/quantization/layout_bytes.ts";
import type {
  QuantizedLayout,
  ScaleData,
  ScaleLayout,
} from "../src/quantization/quantized_tensor.ts";
import { float8Table } from "../src/quantization/torchao_schemes.ts";
import { HostTensor } from "../src/tensor/host_tensor.ts";
import { randomBytes } from "./random_values.ts";

/** A stored form and how a linear layer treats its activations. */
export interface WeightCase {
  readonly name: string;
  readonly format: WeightFormat;
  readonly activations: ActivationMode;
}

const NF4_TABLE = Float32Array.from({ length: 16 }, (_, code) => Math.tanh((code - 7.5) / 5));
const IQ4_TABLE = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const E2M1_TABLE = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];
const float: ActivationMode = { kind: "float" };

function quantized(layout: Partial<QuantizedLayout>): WeightFormat {
  const scale = { kind: "float", dtype: "float32" } as const;
  const value = { kind: "integer", zeroPoint: 8 } as const;
  return {
    kind: "quantized",
    layout: { bits: 4, value, groupSize: 64, scale, offset: null, ...layout },
  };
}

/** Integer codes whose group scales are codes themselves, one float per 256 weights. */
function twoLevel(bits: number, groupSize: number, scaleBits: number, offset: boolean) {
  const scale = {
    kind: "coded",
    bits: scaleBits,
    value: { kind: "integer", zeroPoint: 0 },
    superGroupSize: 256 / groupSize,
    superDtype: "float16",
  } as const;
  const value = { kind: "integer", zeroPoint: offset ? 0 : 1 << (bits - 1) } as const;
  return quantized({ bits, value, groupSize, scale, offset: offset ? scale : null });
}

/** The cases, for weights of k columns. */
export function weightCases(k: number): WeightCase[] {
  const table = { kind: "table", table: NF4_TABLE } as const;
  const row = quantized({ bits: 8, value: { kind: "integer", zeroPoint: 128 }, groupSize: k });
  const fp8 = { kind: "table", table: float8Table("float8_e4m3fn") } as const;
  const fp6 = { kind: "table", table: floatxTable(FLOATX_FORMATS.fp6) } as const;
  const bytes = { kind: "table", table: randomFloats(256) } as const;
  const outliers: ActivationMode = { kind: "llm_int8", threshold: 6 };
  return [
    { name: "float32", format: { kind: "dense", dtype: "float32" }, activations: float },
    { name: "bfloat16", format: { kind: "dense", dtype: "bfloat16" }, activations: float },
    { name: "nf4", format: quantized({ value: table }), activations: float },
    { name: "int4 group 32", format: quantized({ groupSize: 32 }), activations: float },
    { name: "Q4_K", format: twoLevel(4, 32, 6, true), activations: float },
    { name: "Q5_K", format: twoLevel(5, 32, 6, true), activations: float },
    { name: "Q6_K", format: twoLevel(6, 16, 8, false), activations: float },
    { name: "Q2_K", format: twoLevel(2, 16, 4, true), activations: float },
    { name: "fp8", format: quantized({ bits: 8, value: fp8, groupSize: k }), activations: float },
    { name: "fp6", format: quantized({ bits: 6, value: fp6, groupSize: k }), activations: float },
    {
      name: "8-bit table",
      format: quantized({ bits: 8, value: bytes, groupSize: k }),
      activations: float,
    },
    { name: "int8 row", format: row, activations: float },
    { name: "llm_int8", format: row, activations: outliers },
  ];
}

/** Cases with int8 activations, multiplied in integers, for weights of k columns. */
export function integerCases(k: number): WeightCase[] {
  const activations = int8Activations();
  const named = (name: string) => ({ ...weightCase(name, k), activations });
  const table = { kind: "table", table: Float32Array.from(IQ4_TABLE) } as const;
  const halves = { kind: "table", table: Float32Array.from(E2M1_TABLE) } as const;
  return [
    ...["int4 group 32", "Q4_K", "Q5_K", "Q6_K", "Q2_K", "int8 row"].map(named),
    { name: "int4 row", format: quantized({ groupSize: k }), activations },
    { name: "IQ4_NL", format: quantized({ value: table, groupSize: 32 }), activations },
    { name: "MXFP4", format: quantized({ value: halves, groupSize: 32 }), activations },
    named("nf4"),
    {
      ...named("nf4"),
      name: "nf4, int16 table",
      activations: { ...LLM_INT8_ROWS, int16Tables: true },
    },
  ].map((one) => ({ ...one, name: `${one.name} x int8` }));
}

/** The case of a name. */
export function weightCase(name: string, k: number): WeightCase {
  const found = weightCases(k).find((one) => one.name === name);
  if (!found) throw new Error(`no weight case is called ${name}`);
  return found;
}

/** Random codes and scales. */
export function randomWeight(shape: readonly number[], format: WeightFormat): StoredWeight {
  if (format.kind === "dense") {
    const size = shape.reduce((product, length) => product * length, 1);
    const values = HostTensor.fromFloat32(randomFloats(size), shape);
    return { kind: "dense", tensor: values.cast(format.dtype) };
  }
  const { layout } = format;
  const [rows, columns] = shape as [number, number];
  const { codes, groups } = randomCodes(shape, layout);
  const tensor = {
    shape: [rows, columns] as const,
    layout,
    codes,
    scale: randomScale(layout.scale, groups),
    offset: layout.offset && randomScale(layout.offset, groups),
  };
  return { kind: "quantized", tensor };
}

/** The codes of a matrix, and how many groups its layout makes of it. */
export function randomCodes(shape: readonly number[], layout: QuantizedLayout) {
  const [rows, columns] = shape as [number, number];
  const codes = randomBytes(packedBytes(rows * columns, layout.bits), finiteCode(layout));
  return { codes, groups: groupCount([rows, columns], layout) };
}

/** Bytes of float8 that are no number become 0. */
function finiteCode({ bits, value }: QuantizedLayout): ((code: number) => number) | undefined {
  if (bits !== 8 || value.kind !== "table" || value.table.every(Number.isFinite)) return undefined;
  const { table } = value;
  return (code) => Number.isFinite(table[code]) ? code : 0;
}

function randomScale(layout: ScaleLayout, groups: number): ScaleData {
  if (layout.kind === "float") {
    return { kind: "float", values: HostTensor.fromFloat32(randomFloats(groups)) };
  }
  const supers = HostTensor.fromFloat32(randomFloats(Math.ceil(groups / layout.superGroupSize)));
  return {
    kind: "coded",
    codes: randomBytes(packedBytes(groups, layout.bits)),
    supers: supers.cast(layout.superDtype),
    constant: 0,
  };
}

/** Random numbers between -0.5 and 0.5. */
export function randomFloats(count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count }, () => Math.random() - 0.5);
}

/** Activations rounded to int8, one scale a row. */
export function int8Activations(): ActivationMode {
  return LLM_INT8_ROWS;
}
