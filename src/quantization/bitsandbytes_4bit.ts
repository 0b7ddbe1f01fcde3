/**
 * bitsandbytes' 4-bit quantization (NF4, FP4), byte for byte as the CPU path of version 0.50 does it.
 * The CUDA kernels differ in two corners: an all-zero block gets NF4 code 0 there and 7 here (both are
 * zero), and some FP4 near-ties fall to the other side.
 */

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
import { packedBytes } from "./codes.ts";
import {
  bitsOf,
  checkFinite,
  type FloatSlice,
  floatSlices,
  INFINITY_BITS,
  largestMagnitude,
} from "./float_slices.ts";
import type { Pause } from "./pause.ts";
import type { QuantizedLayout, QuantizedTensor, ScaleData } from "./quantized_tensor.ts";

const fround = Math.fround;

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

/** Quantizes a dense matrix; NaN or infinity throws `non_finite_weight` naming `name`. */
export async function quantizeFourBit(
  name: string,
  dense: HostTensor,
  options: FourBitOptions,
  pause: Pause,
): Promise<QuantizedTensor> {
  const [rows, columns] = dense.shape;
  const codes = new Uint8Array(packedBytes(dense.size, 4));
  const absmax = new Float32Array(Math.ceil(dense.size / options.blockSize));
  const encoder = new BlockEncoder(options, dense.size, absmax, codes);
  for (const slice of floatSlices(dense, options.blockSize)) {
    if (!encoder.measure(slice)) checkFinite(slice, name);
    encoder.encode(slice);
    await pause();
  }
  const scale = options.doubleQuant
    ? quantizeAbsmax(absmax, options.nestedPath)
    : floatScale(absmax);
  return { shape: [rows, columns], layout: fourBitLayout(options), codes, scale, offset: null };
}

function floatScale(absmax: Float32Array): ScaleData {
  return { kind: "float", values: HostTensor.fromFloat32(absmax) };
}

/** Bins of the scaled range [-1, 1]; narrower than any two bounds lie apart, so that each holds one at most. */
const BINS = 1024;

class BlockEncoder {
  readonly #blockSize: number;
  readonly #count: number;
  readonly #absmax: Float32Array;
  readonly #codes: Uint8Array;
  readonly #bounds: Float32Array;
  readonly #order: Uint8Array;
  /** Per bin, how many bounds lie in lower bins; one comparison then tells the rank. */
  readonly #ranks: Uint8Array;
  readonly #scaled: Float32Array;

  constructor(options: FourBitOptions, count: number, absmax: Float32Array, codes: Uint8Array) {
    const grid = fourBitGrid(options.quantType);
    this.#blockSize = options.blockSize;
    this.#count = count;
    this.#absmax = absmax;
    this.#codes = codes;
    this.#bounds = grid.bounds;
    this.#order = grid.order;
    this.#ranks = ranksOfBins(grid.bounds);
    this.#scaled = new Float32Array(options.blockSize);
  }

  /** Writes the absmax of each block of the slice; false when a value is NaN or infinite. */
  measure(slice: FloatSlice): boolean {
    const bits = bitsOf(slice.values);
    const largest = new Int32Array(this.#absmax.buffer);
    let block = slice.start / this.#blockSize;
    let finite = true;
    for (let begin = 0; begin < bits.length; begin += this.#blockSize) {
      const magnitude = largestMagnitude(
        bits,
        begin,
        Math.min(bits.length, begin + this.#blockSize),
      );
      if (magnitude >= INFINITY_BITS) finite = false;
      largest[block] = magnitude;
      if (this.#isShort(block)) {
        this.#absmax[block] = Math.max(this.#absmax[block], SMALLEST_ABSMAX);
      }
      block++;
    }
    return finite;
  }

  /** Writes the codes of the slice, whose absmax are known. */
  encode(slice: FloatSlice): void {
    const { start, values } = slice;
    for (let begin = 0; begin < values.length; begin += this.#blockSize) {
      const end = Math.min(values.length, begin + this.#blockSize);
      const block = (start + begin) / this.#blockSize;
      this.#pack(this.#scale(values.subarray(begin, end), block), (start + begin) / 2);
    }
  }

  /** A block brought to [-1, 1]: times a reciprocal, but a short last block by division. */
  #scale(block: Float32Array, index: number): Float32Array {
    const scaled = this.#scaled.subarray(0, block.length);
    const divisor = Math.max(this.#absmax[index], SMALLEST_ABSMAX);
    if (this.#isShort(index)) {
      for (let i = 0; i < block.length; i++) scaled[i] = block[i] / divisor;
      return scaled;
    }
    const reciprocal = fround(1 / divisor);
    for (let i = 0; i < block.length; i++) scaled[i] = block[i] * reciprocal;
    return scaled;
  }

  #pack(scaled: Float32Array, byte: number): void {
    const codes = this.#codes, ranks = this.#ranks, bounds = this.#bounds, order = this.#order;
    const even = scaled.length - scaled.length % 2;
    for (let index = 0; index < even; index += 2) {
      const first = scaled[index], second = scaled[index + 1];
      const low = ranks[(first + 1) * (BINS / 2) | 0];
      const high = ranks[(second + 1) * (BINS / 2) | 0];
      codes[byte++] = order[first > bounds[low] ? low + 1 : low] |
        order[second > bounds[high] ? high + 1 : high] << 4;
    }
    if (even === scaled.length) return;
    const rank = ranks[(scaled[even] + 1) * (BINS / 2) | 0];
    codes[byte] = order[scaled[even] > bounds[rank] ? rank + 1 : rank];
  }

  #isShort(block: number): boolean {
    return (block + 1) * this.#blockSize > this.#count;
  }
}

function ranksOfBins(bounds: Float32Array): Uint8Array {
  const ranks = new Uint8Array(BINS + 1);
  for (let bin = 0; bin <= BINS; bin++) {
    ranks[bin] = bounds.findIndex((bound) => (bound + 1) * (BINS / 2) >= bin);
  }
  return ranks;
}
