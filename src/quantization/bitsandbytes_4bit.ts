/**
 * bitsandbytes' 4-bit quantization (NF4, FP4), byte for byte as the CPU path of version 0.50 does it.
 * The CUDA kernels differ in two corners: an all-zero block gets NF4 code 0 there and 7 here (both are
 * zero), and some FP4 near-ties fall to the other side.
 */

import { itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import {
  NESTED_BLOCK_SIZE,
  type NestedPath,
  quantizeAbsmax,
  SMALLEST_ABSMAX,
} from "./bitsandbytes_nested.ts";
import {
  dynamicMapTable,
  fourBitGrid,
  fourBitTable,
  type FourBitType,
} from "./bitsandbytes_tables.ts";
import { encodeGroups, normalizeGroups } from "./groups.ts";
import type { Pause } from "./pause.ts";
import type { QuantizedLayout, QuantizedTensor, ScaleData } from "./quantized_tensor.ts";

/** What a 4-bit quantization needs to know. */
export interface FourBitOptions {
  readonly quantType: FourBitType;
  /** Weights per absmax: a power of two, 64 by default in bitsandbytes. */
  readonly blockSize: number;
  /** Whether the absmax values are quantized again. */
  readonly doubleQuant: boolean;
  /** Which of the library's two CPU paths codes them; "native" unless given. */
  readonly nestedPath?: NestedPath;
}

/** The layout these options give. */
export function fourBitLayout(options: FourBitOptions): QuantizedLayout {
  return {
    bits: 4,
    value: { kind: "table", table: fourBitTable(options.quantType) },
    groupSize: options.blockSize,
    scale: options.doubleQuant
      ? {
        kind: "coded",
        bits: 8,
        value: { kind: "table", table: dynamicMapTable() },
        superGroupSize: NESTED_BLOCK_SIZE,
        superDtype: "float32",
      }
      : { kind: "float", dtype: "float32" },
    offset: null,
  };
}

/** Quantizes a dense matrix, blocks times a reciprocal, but a short last block by division; NaN or infinity throws `non_finite_weight` naming `name`. */
export async function quantizeFourBit(
  name: string,
  dense: HostTensor,
  options: FourBitOptions,
  pause: Pause,
): Promise<QuantizedTensor> {
  const [rows, columns] = dense.shape;
  const { blockSize: groupSize } = options;
  const code = { kind: "levels", ...fourBitGrid(options.quantType) } as const;
  const normalization = { groupSize, bits: 4, least: SMALLEST_ABSMAX, code };
  const { magnitudes: absmax, codes } = await normalizeGroups(name, dense, normalization, pause);
  const last = absmax.length - 1;
  const isShort = dense.size % groupSize !== 0;
  if (isShort) absmax[last] = Math.max(absmax[last], SMALLEST_ABSMAX);
  if (isShort) {
    const tail = tailOf(dense, last * groupSize);
    const factor = absmax.subarray(last);
    const rule = { rounding: "float32", operation: "divide", factor, code } as const;
    const ends = await encodeGroups(name, tail, { groupSize, bits: 4, rule }, pause);
    codes.set(ends, last * groupSize / 2);
  }
  const scale = options.doubleQuant
    ? quantizeAbsmax(absmax, options.nestedPath)
    : floatScale(absmax);
  return { shape: [rows, columns], layout: fourBitLayout(options), codes, scale, offset: null };
}

function floatScale(absmax: Float32Array): ScaleData {
  return { kind: "float", values: HostTensor.fromFloat32(absmax) };
}

/** The elements from `begin` on. */
function tailOf({ dtype, bytes, size }: HostTensor, begin: number): HostTensor {
  return new HostTensor(dtype, [1, size - begin], bytes.subarray(begin * itemSize(dtype)));
}
