/** Walks over a dense matrix group by group: first the range of each group, then its codes. */

import { forEachGroup } from "./group_runs.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { checkFinite, floatSlices } from "./float_slices.ts";
import type { Pause } from "./pause.ts";

/** The smallest and largest value of every group. */
export interface GroupRanges {
  readonly min: Float32Array;
  readonly max: Float32Array;
}

/** Called with each group's part of a slice: its values, and where their codes go. */
export type EncodeGroup = (group: number, values: Float32Array, codes: Uint8Array) => void;

/** Finds the ranges of all groups; throws `non_finite_weight` naming `name`. */
export async function groupRanges(
  name: string,
  dense: HostTensor,
  groupSize: number,
  pause: Pause,
): Promise<GroupRanges> {
  const groups = Math.ceil(dense.size / groupSize);
  const min = new Float32Array(groups).fill(Infinity);
  const max = new Float32Array(groups).fill(-Infinity);
  for (const slice of floatSlices(dense, Math.min(groupSize, dense.shape[1]))) {
    checkFinite(slice, name);
    forEachGroup(slice.start, slice.values.length, groupSize, (group, begin, end) => {
      let low = min[group], high = max[group];
      for (let index = begin; index < end; index++) {
        const value = slice.values[index];
        if (value < low) low = value;
        if (value > high) high = value;
      }
      min[group] = low;
      max[group] = high;
    });
    await pause();
  }
  return { min, max };
}

/** The largest magnitude of every group. */
export function magnitudes({ min, max }: GroupRanges): Float32Array {
  return max.map((high, group) => Math.max(Math.abs(high), Math.abs(min[group])));
}

/** One code per byte, made group by group. */
export async function encodeGroups(
  dense: HostTensor,
  groupSize: number,
  pause: Pause,
  encode: EncodeGroup,
): Promise<Uint8Array> {
  const codes = new Uint8Array(dense.size);
  for (const { start, values } of floatSlices(dense, Math.min(groupSize, dense.shape[1]))) {
    forEachGroup(start, values.length, groupSize, (group, begin, end) => {
      encode(group, values.subarray(begin, end), codes.subarray(start + begin, start + end));
    });
    await pause();
  }
  return codes;
}
