/** Walks over a dense matrix group by group: first the range of each group, then its codes. */

import { HalftoneError } from "../errors.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { EncodeRule, LevelCodes } from "./encode_rule.ts";
import { checkFinite, floatSlices } from "./float_slices.ts";
import { groupsOf, PIECE, placeCount, placesOf } from "./kernel_job.ts";
import { jobValues, runKernels } from "./kernel_runs.ts";
import type { Pause } from "./pause.ts";

/** The smallest and largest value of every group. */
export interface GroupRanges {
  readonly min: Float32Array;
  readonly max: Float32Array;
}

/** How the values of a matrix are read. */
export interface ReadOptions {
  /** Rounded to float16 first. */
  readonly toFloat16?: boolean;
  /** What may have made values infinite, for the message. */
  readonly cause?: string;
}

/** Finds the ranges of all groups; throws `non_finite_weight` naming `name`. */
export async function groupRanges(
  name: string,
  dense: HostTensor,
  groupSize: number,
  pause: Pause,
  { toFloat16, cause }: ReadOptions = {},
): Promise<GroupRanges> {
  const result = await runKernels({
    dense,
    job: { kind: "ranges", values: jobValues(dense, toFloat16), groupSize },
    refuse: () => refuse(name, dense, { toFloat16, cause }),
  }, pause);
  return mergedRanges(result, groupSize, dense.size);
}

/** The ranges of groups out of those of pieces. Only the first group of a piece may be another's too. */
function mergedRanges(result: Uint8Array, groupSize: number, size: number): GroupRanges {
  const places = placeCount(groupSize, size);
  const ends = new Float32Array(result.buffer, result.byteOffset, 2 * places);
  const min = new Float32Array(Math.ceil(size / groupSize)).fill(Infinity);
  const max = new Float32Array(min.length).fill(-Infinity);
  for (let start = 0; start < size; start += PIECE) {
    const groups = groupsOf(groupSize, start, Math.min(PIECE, size - start));
    const place = placesOf(groups, start);
    const { first, count } = groups;
    const [low, high] = [ends[place], ends[places + place]];
    if (low < min[first]) min[first] = low; // of equal zeros the first counts
    if (high > max[first]) max[first] = high;
    min.set(ends.subarray(place + 1, place + count), first + 1);
    max.set(ends.subarray(places + place + 1, places + place + count), first + 1);
  }
  return { min, max };
}

/** What a function makes of each group's number; several times faster than `map` of typed arrays. */
export function mapGroups(
  values: Float32Array,
  make: (value: number, group: number) => number,
): Float32Array {
  const made = new Float32Array(values.length);
  for (let group = 0; group < made.length; group++) made[group] = make(values[group], group);
  return made;
}

/** The largest magnitude of every group. */
export function magnitudes({ min, max }: GroupRanges): Float32Array {
  return mapGroups(max, (high, group) => Math.max(Math.abs(high), Math.abs(min[group])));
}

/** Which part of a matrix is coded, and how. */
export interface EncodeOptions extends ReadOptions {
  readonly groupSize: number;
  readonly bits: number;
  readonly rule: EncodeRule;
}

/** How groups are brought to [-1, 1], and what becomes of that. */
export interface NormalizeOptions {
  /** A divisor of `PIECE`. */
  readonly groupSize: number;
  readonly bits: number;
  /** What magnitudes count as at least. */
  readonly least: number;
  readonly code: LevelCodes;
}

/** The largest magnitudes of groups, and the codes of values over them. */
export interface NormalizedCodes {
  readonly magnitudes: Float32Array;
  /** Packed, perhaps in shared memory. */
  readonly codes: Uint8Array;
}

/** Codes of values times the reciprocal of their group's largest magnitude; throws `non_finite_weight` naming `name`. */
export async function normalizeGroups(
  name: string,
  dense: HostTensor,
  options: NormalizeOptions,
  pause: Pause,
): Promise<NormalizedCodes> {
  if (PIECE % options.groupSize !== 0) {
    throw new RangeError(`groups of ${options.groupSize} do not divide pieces`);
  }
  const groups = Math.ceil(dense.size / options.groupSize);
  const result = await runKernels({
    dense,
    job: { kind: "normalize", values: jobValues(dense), groups, ...options },
    refuse: () => refuse(name, dense),
  }, pause);
  const magnitudes = new Float32Array(result.buffer, result.byteOffset, groups).slice();
  return { magnitudes, codes: result.subarray(4 * groups) };
}

/** The codes of a matrix, packed, perhaps in shared memory; throws `non_finite_weight` naming `name`. */
export async function encodeGroups(
  name: string,
  dense: HostTensor,
  { groupSize, bits, rule, toFloat16, cause }: EncodeOptions,
  pause: Pause,
): Promise<Uint8Array> {
  return await runKernels({
    dense,
    job: { kind: "encode", values: jobValues(dense, toFloat16), groupSize, rule, bits },
    refuse: () => refuse(name, dense, { toFloat16, cause }),
  }, pause);
}

/** Throws `non_finite_weight` naming the first value that is not finite, where a kernel has found some. */
export function refuse(
  name: string,
  dense: HostTensor,
  { toFloat16, cause }: ReadOptions = {},
): never {
  for (const slice of floatSlices(dense, 1, toFloat16 ? "float16" : dense.dtype)) {
    checkFinite(slice, name, cause);
  }
  throw new HalftoneError("backend_failed", "Cannot find the value that a kernel refused", {
    tensor: name,
  });
}
