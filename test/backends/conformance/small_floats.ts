/** Narrow floats by their definition, apart from the project's own conversion tables. */

import type { DType } from "../../../src/tensor/dtype.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import type { Random } from "./random.ts";

interface Encoding {
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly bias: number;
}

/** The float types a weight or a scale may have. */
export type FloatDType = Extract<
  DType,
  "float32" | "float16" | "bfloat16" | "float8_e4m3fn" | "float8_e5m2"
>;

const ENCODINGS: Record<FloatDType, Encoding> = {
  float32: { exponentBits: 8, mantissaBits: 23, bias: 127 },
  float16: { exponentBits: 5, mantissaBits: 10, bias: 15 },
  bfloat16: { exponentBits: 8, mantissaBits: 7, bias: 127 },
  float8_e4m3fn: { exponentBits: 4, mantissaBits: 3, bias: 7 },
  float8_e5m2: { exponentBits: 5, mantissaBits: 2, bias: 15 },
};

/** A tensor of random finite values of magnitude about `scale`, with zeros, -0 and subnormals among them. */
export function randomFloats(
  random: Random,
  dtype: FloatDType,
  shape: Shape,
  options: { scale?: number; positive?: boolean } = {},
): { tensor: HostTensor; values: Float64Array } {
  const { exponentBits, mantissaBits, bias } = ENCODINGS[dtype];
  const itemBytes = (1 + exponentBits + mantissaBits) / 8;
  const tensor = HostTensor.zeros(dtype, shape);
  const values = new Float64Array(tensor.size);
  const middle = bias + Math.round(Math.log2(options.scale ?? 1));
  for (let index = 0; index < values.length; index++) {
    const isSpecial = random.uniform() < 0.05 && !options.positive;
    const exponent = isSpecial ? 0 : Math.max(1, middle - random.integer(0, 3));
    const isZero = isSpecial && random.uniform() < 0.5;
    const mantissa = isZero ? 0 : random.integer(0, 2 ** mantissaBits - 1);
    const sign = options.positive || random.uniform() < 0.5 ? 0 : 1;
    const code = (sign * 2 ** exponentBits + exponent) * 2 ** mantissaBits + mantissa;
    writeCode(tensor.bytes, index * itemBytes, itemBytes, code);
    const significand = mantissa / 2 ** mantissaBits + (exponent === 0 ? 0 : 1);
    values[index] = (sign ? -1 : 1) * significand * 2 ** (Math.max(exponent, 1) - bias);
  }
  return { tensor, values };
}

function writeCode(bytes: Uint8Array, offset: number, size: number, code: number): void {
  for (let byte = 0; byte < size; byte++) {
    bytes[offset + byte] = Math.floor(code / 256 ** byte) % 256;
  }
}
