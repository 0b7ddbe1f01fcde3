/**
 * The one weight layout: every quantization method stores small codes plus scales, so every method
 * is these few parameters:
 *
 *     w[o, i] = value(code[o, i]) * scale(group) + offset(group)
 *
 * A float scale may carry a constant `multiplier`, as LLM.int8() does (scale: the row's absmax as
 * stored, multiplier: 1 / 127): then w = (value * scale) * multiplier + offset, in this order. Every
 * product and sum is rounded to float32.
 *
 * A quantizer turns its library's bytes into this and back without loss; a backend has one matmul
 * over it. See docs/architecture.md, "One weight layout".
 */

import type { HostTensor } from "../tensor/host_tensor.ts";
import type { DType } from "../tensor/dtype.ts";

/** What a code stands for: `code - zeroPoint`, or an entry of a table of 2^bits floats. */
export type CodeValue =
  | { readonly kind: "integer"; readonly zeroPoint: number }
  | { readonly kind: "table"; readonly table: Float32Array };

/** How the scales (or offsets) of the groups are stored. */
export type ScaleLayout =
  /** One float per group; `multiplier` (1 when absent) is a constant multiplied in last. */
  | { readonly kind: "float"; readonly dtype: ScaleDType; readonly multiplier?: number }
  /** value(code) * super[group / superGroupSize] + constant, one code per group (the data hold the constant). */
  | {
    readonly kind: "coded";
    readonly bits: number;
    readonly value: CodeValue;
    readonly superGroupSize: number;
    readonly superDtype: ScaleDType;
  };

/** Types a stored scale may have. */
export type ScaleDType = Extract<DType, "float32" | "float16" | "bfloat16" | "float8_e4m3fn">;

/** The parameters of a quantized matrix, without its data. */
export interface QuantizedLayout {
  /** Width of a code, 1 to 8. */
  readonly bits: number;
  readonly value: CodeValue;
  /** Consecutive weights, in row-major order and across row ends, that share a scale. */
  readonly groupSize: number;
  readonly scale: ScaleLayout;
  readonly offset: ScaleLayout | null;
}

/**
 * The data of the scales (or offsets): `values` [groups] when "float"; codes, supers and the constant
 * (float32, 0 for none) when "coded". A layout is thus known before its weight is read or quantized.
 */
export type ScaleData =
  | { readonly kind: "float"; readonly values: HostTensor }
  | {
    readonly kind: "coded";
    readonly codes: Uint8Array;
    readonly supers: HostTensor;
    readonly constant: number;
  };

/**
 * A quantized matrix [rows, columns].
 *
 * `codes` is one dense little-endian bit stream over the row-major flat index: code k occupies bits
 * [k * bits, (k + 1) * bits) of the stream, bit b of the stream being bit (b % 8) of byte b >> 3.
 * So 8-bit codes are bytes, and of two 4-bit codes the first is the low nibble. Coded scales use
 * the same stream over the group index. The last byte is padded with zero bits.
 */
export interface QuantizedTensor {
  readonly shape: readonly [rows: number, columns: number];
  readonly layout: QuantizedLayout;
  readonly codes: Uint8Array;
  readonly scale: ScaleData;
  readonly offset: ScaleData | null;
}
