/**
 * bitsandbytes' double quantization: the distances of absmax from their mean, 256 to a nested absmax,
 * coded in the signed 8-bit dynamic map (quantize_blockwise of bitsandbytes/functional.py).
 *
 * The library has two CPU paths for it. "native", its compiled library, is what an installed
 * bitsandbytes runs on a CPU: it rounds a value to one of 65,536 bins before it looks for the nearest
 * entry, so distances near zero get coarser codes. "portable", its PyTorch code, takes the nearest entry
 * as the CUDA kernels do.
 */

import { HostTensor } from "../tensor/host_tensor.ts";
import { dynamicMapTable, midpoints } from "./bitsandbytes_tables.ts";
import type { ScaleData } from "./quantized_tensor.ts";
import { torchMean } from "./torch_mean.ts";

const fround = Math.fround;

/** Which CPU path of the library is followed. */
export type NestedPath = "native" | "portable";

/** Groups per nested absmax; bitsandbytes knows no other. */
export const NESTED_BLOCK_SIZE = 256;

/** The smallest divisor of a block in the library's PyTorch code; it keeps 1 / absmax finite. */
export const SMALLEST_ABSMAX: number = fround(1e-38);

/** Quantizes the absmax of all groups. */
export function quantizeAbsmax(absmax: Float32Array, path: NestedPath = "native"): ScaleData {
  const mean = torchMean(absmax);
  const distances = absmax.map((value) => value - mean);
  const supers = new Float32Array(Math.ceil(distances.length / NESTED_BLOCK_SIZE));
  const codes = new Uint8Array(distances.length);
  const encode = path === "native" ? nativeEncoder() : portableEncoder();
  for (let block = 0; block < supers.length; block++) {
    const begin = block * NESTED_BLOCK_SIZE;
    const run = distances.subarray(begin, begin + NESTED_BLOCK_SIZE);
    const largest = run.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const encoded = encode(run, largest);
    supers[block] = encoded.absmax;
    codes.set(encoded.codes, begin);
  }
  return { kind: "coded", codes, supers: HostTensor.fromFloat32(supers), constant: mean };
}

interface EncodedBlock {
  readonly absmax: number;
  readonly codes: Uint8Array;
}

type BlockEncoder = (run: Float32Array, largest: number) => EncodedBlock;

/** Bins the native path rounds [-1, 1] to. */
const BINS = 65536;

function nativeEncoder(): BlockEncoder {
  const bins = codesOfBins(dynamicMapTable());
  return (run, largest) => {
    if (largest === 0) return { absmax: 0, codes: new Uint8Array(run.length) };
    const reciprocal = fround(1 / largest);
    const codes = Uint8Array.from(run, (value) => {
      const scaled = Math.min(Math.max(fround(value * reciprocal), -1), 1);
      const half = fround(scaled + 1) / 2;
      return bins[fround(fround(half * (BINS - 1)) + 0.5) | 0]; // NaN (0 * Infinity) is bin 0
    });
    return { absmax: largest, codes };
  };
}

function codesOfBins(map: Float32Array): Uint8Array {
  const bounds = midpoints(map);
  const bins = new Uint8Array(BINS);
  let code = 0;
  for (let bin = 0; bin < BINS; bin++) {
    const value = fround(fround(2 * bin / (BINS - 1)) - 1);
    while (bounds[code] < value) code++;
    bins[bin] = code;
  }
  return bins;
}

function portableEncoder(): BlockEncoder {
  const bounds = midpoints(dynamicMapTable());
  return (run, largest) => {
    const isShort = run.length < NESTED_BLOCK_SIZE;
    const divisor = Math.max(largest, SMALLEST_ABSMAX);
    const reciprocal = fround(1 / divisor);
    const codes = Uint8Array.from(run, (value) => {
      return lowerBound(bounds, fround(isShort ? value / divisor : value * reciprocal));
    });
    return { absmax: isShort ? divisor : largest, codes };
  };
}

/** The first index whose bound is not below the value. */
function lowerBound(bounds: Float32Array, value: number): number {
  let low = 0;
  let high = bounds.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (bounds[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
