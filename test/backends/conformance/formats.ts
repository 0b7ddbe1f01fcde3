/** The weight formats every backend must take. */

import { ggufLayout } from "../../../src/quantization/gguf_blocks.ts";
import { ggufTypeInfo } from "../../../src/quantization/gguf_types.ts";
import type { QuantizedLayout, ScaleLayout } from "../../../src/quantization/quantized_tensor.ts";
import type { Random } from "./random.ts";
import type { FloatDType } from "./small_floats.ts";
import { denseWeight, quantizedWeight, type TestWeight } from "./weights.ts";

/** A named way to store a matrix. */
export interface TestFormat {
  readonly name: string;
  readonly kind: "dense" | "quantized";
  make(random: Random, rows: number, columns: number): TestWeight;
}

/** Dense types. */
export const DENSE_FORMATS: readonly TestFormat[] = ([
  "float32",
  "float16",
  "bfloat16",
  "float8_e4m3fn",
  "float8_e5m2",
] as FloatDType[]).map((dtype) => ({
  name: dtype,
  kind: "dense",
  make: (random, rows, columns) => denseWeight(random, dtype, [rows, columns]),
}));

const FLOAT: ScaleLayout = { kind: "float", dtype: "float32" };

/** Layouts; "row" and "tensor" groups depend on the shape. */
export const QUANTIZED_FORMATS: readonly TestFormat[] = [
  ...[1, 2, 3, 4, 5, 6, 7, 8].flatMap((bits) => [
    quantized(`${bits}-bit integer, 32 f16`, () => ({
      ...integer(bits),
      groupSize: 32,
      scale: { kind: "float", dtype: "float16" },
    })),
    quantized(`${bits}-bit table, 64 f32`, (random) => ({
      ...table(random, bits),
      groupSize: 64,
      scale: FLOAT,
    })),
  ]),
  ...[16, 128].map((groupSize) =>
    quantized(`4-bit table, ${groupSize} f32`, (random) => ({
      ...table(random, 4),
      groupSize,
      scale: FLOAT,
    }))
  ),
  quantized("8-bit integer, row f32 x 1/127", (_, __, columns) => ({
    ...integer(8),
    groupSize: columns,
    scale: { kind: "float", dtype: "float32", multiplier: Math.fround(1 / 127) },
  })),
  quantized("4-bit integer, row bf16", (_, __, columns) => ({
    ...integer(4),
    groupSize: columns,
    scale: { kind: "float", dtype: "bfloat16" },
  })),
  quantized("8-bit table, tensor f32", (random, rows, columns) => ({
    ...table(random, 8),
    groupSize: rows * columns,
    scale: FLOAT,
  })),
  quantized("8-bit integer without a zero point, 64 f32", () => ({
    bits: 8,
    value: { kind: "integer", zeroPoint: 0 },
    groupSize: 64,
    scale: FLOAT,
  })),
  quantized("4-bit table, 16 fp8", (random) => ({
    ...table(random, 4),
    groupSize: 16,
    scale: { kind: "float", dtype: "float8_e4m3fn" },
  })),
  // bitsandbytes with double quantization
  quantized("4-bit table, 64 coded by a table", (random) => ({
    ...table(random, 4),
    groupSize: 64,
    scale: coded(table(random, 8).value, 8, 256, "float32"),
  })),
  // the same with few groups in a super group, so that small tensors cross them
  quantized("4-bit table, 32 coded by a table per 3", (random) => ({
    ...table(random, 4),
    groupSize: 32,
    scale: coded(table(random, 8).value, 8, 3, "float32"),
  })),
  // GGUF Q3_K and Q6_K: signed codes of 6 and 8 bits, f16 per 256 weights
  quantized("3-bit integer, 16 coded in 6 bits", () => ({
    ...integer(3),
    groupSize: 16,
    scale: coded({ kind: "integer", zeroPoint: 32 }, 6, 16, "float16"),
  })),
  quantized("6-bit integer, 16 coded in 8 bits", () => ({
    ...integer(6),
    groupSize: 16,
    scale: coded({ kind: "integer", zeroPoint: 128 }, 8, 16, "float16"),
  })),
  // GGUF Q4_1
  quantized("4-bit integer, 32 f16, offset f16", () => ({
    bits: 4,
    value: { kind: "integer", zeroPoint: 0 },
    groupSize: 32,
    scale: { kind: "float", dtype: "float16" },
    offset: { kind: "float", dtype: "float16" },
  })),
  // GGUF Q4_K and Q2_K
  ...[[4, 32, 6, 8], [2, 16, 4, 16]].map(([bits, groupSize, scaleBits, superGroupSize]) =>
    quantized(`${bits}-bit integer, ${groupSize} coded, offset coded`, () => ({
      bits,
      value: { kind: "integer", zeroPoint: 0 },
      groupSize,
      scale: coded({ kind: "integer", zeroPoint: 0 }, scaleBits, superGroupSize, "float16"),
      offset: coded({ kind: "integer", zeroPoint: 0 }, scaleBits, superGroupSize, "float16"),
    }))
  ),
  // GGUF MXFP4
  quantized("4-bit table, 32 coded by a table, without another scale", (random, rows, columns) => ({
    ...table(random, 4),
    groupSize: 32,
    scale: coded(table(random, 8).value, 8, Math.ceil(rows * columns / 32), "float32"),
  })),
  // ModelOpt NVFP4
  quantized("4-bit table, 16 coded in fp8 x tensor f32", (random, rows, columns) => ({
    ...table(random, 4),
    groupSize: 16,
    scale: coded(
      table(random, 8).value,
      8,
      Math.ceil(rows * columns / 16),
      "float32",
    ),
  })),
];

/** GGUF types whose layout is none of the above. MXFP4 has a table with scales up to 2^127 of its own. */
export const GGUF_FORMATS: readonly TestFormat[] =
  (["Q5_1", "Q5_K", "IQ4_NL", "IQ4_XS", "NVFP4"] as const).map((type) =>
    quantized(
      `GGUF ${type}`,
      (_, rows, columns) =>
        ggufLayout(type, Math.ceil(rows * columns / ggufTypeInfo(type).elements)),
    )
  );

/** All formats. */
export const FORMATS: readonly TestFormat[] = [
  ...DENSE_FORMATS,
  ...QUANTIZED_FORMATS,
  ...GGUF_FORMATS,
];

/** A layout with no offset unless it says so. */
export type PartialLayout = Omit<QuantizedLayout, "offset"> & { offset?: ScaleLayout | null };

/** A format of quantized weights. */
export function quantized(
  name: string,
  layout: (random: Random, rows: number, columns: number) => PartialLayout,
): TestFormat {
  return {
    name,
    kind: "quantized",
    make: (random, rows, columns) =>
      quantizedWeight(random, [rows, columns], {
        offset: null,
        ...layout(random, rows, columns),
      }),
  };
}

/** Codes around the middle of their range. */
export function integer(bits: number): Pick<QuantizedLayout, "bits" | "value"> {
  return { bits, value: { kind: "integer", zeroPoint: 2 ** (bits - 1) } };
}

function table(random: Random, bits: number): Pick<QuantizedLayout, "bits" | "value"> {
  const entries = Float32Array.from({ length: 2 ** bits }, () => random.normal());
  entries[random.integer(0, entries.length - 1)] = 0;
  return { bits, value: { kind: "table", table: entries } };
}

/** Scales that are codes. */
export function coded(
  value: QuantizedLayout["value"],
  bits: number,
  superGroupSize: number,
  superDtype: "float32" | "float16",
): ScaleLayout {
  return { kind: "coded", bits, value, superGroupSize, superDtype };
}
