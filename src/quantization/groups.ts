/** Walks over a dense matrix group by group: first the range of each group, then its codes. */

import { HalftoneError } from "../errors.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { packedBytes } from "./codes.ts";
import { type EncodeRule, ruleOfGroups } from "./encode_rule.ts";
import { checkFinite, floatSlices } from "./float_slices.ts";
import { groupCount, type RangesJob } from "./kernel_job.ts";
import { groupsOfRun, type Run, runKernels } from "./kernel_runs.ts";
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
  const groups = Math.ceil(dense.size / groupSize);
  const min = new Float32Array(groups).fill(Infinity);
  const max = new Float32Array(groups).fill(-Infinity);
  const jobOf = (run: Run): RangesJob => {
    return { kind: "ranges", values: run.values, ...groupsOfRun(run, groupSize) };
  };
  const merge = new RangeMerger({ min, max }, groupSize);
  await runKernels({
    dense,
    toFloat16,
    jobOf,
    take: (run, buffer) => merge.take(run, groupCount(jobOf(run)), buffer),
    refuse: () => refuse(name, dense, { toFloat16, cause }),
  }, pause);
  merge.finish();
  return { min, max };
}

/** Writes the ranges of runs into those of the matrix. Only a run's ends may belong to other runs' groups. */
class RangeMerger {
  readonly #ranges: GroupRanges;
  readonly #groupSize: number;
  /** Shared groups: by the start of the run, as the first of equal zeros counts. */
  readonly #shared: { start: number; group: number; low: number; high: number }[] = [];

  constructor(ranges: GroupRanges, groupSize: number) {
    this.#ranges = ranges;
    this.#groupSize = groupSize;
  }

  take({ start }: Run, groups: number, buffer: ArrayBuffer): void {
    const low = new Float32Array(buffer, 0, groups);
    const high = new Float32Array(buffer, 4 * groups, groups);
    const first = Math.floor(start / this.#groupSize);
    this.#ranges.min.set(low.subarray(1), first + 1);
    this.#ranges.max.set(high.subarray(1), first + 1);
    this.#shared.push({ start, group: first, low: low[0], high: high[0] });
  }

  finish(): void {
    const { min, max } = this.#ranges;
    for (const { group, low, high } of this.#shared.sort((a, b) => a.start - b.start)) {
      if (low < min[group]) min[group] = low;
      if (high > max[group]) max[group] = high;
    }
  }
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

/** The codes of a matrix, packed; throws `non_finite_weight` naming `name`. */
export async function encodeGroups(
  name: string,
  dense: HostTensor,
  { groupSize, bits, rule, toFloat16, cause }: EncodeOptions,
  pause: Pause,
): Promise<Uint8Array> {
  const codes = new Uint8Array(packedBytes(dense.size, bits));
  const jobOf = (run: Run) => {
    const groups = groupsOfRun(run, groupSize);
    const first = Math.floor(run.start / groupSize);
    const end = Math.floor((run.start + run.values.count - 1) / groupSize) + 1;
    const { values } = run;
    return {
      kind: "encode",
      values,
      rule: ruleOfGroups(rule, first, end),
      bits,
      ...groups,
    } as const;
  };
  await runKernels({
    dense,
    toFloat16,
    jobOf,
    take: (run, buffer) => {
      const bytes = packedBytes(run.values.count, bits);
      codes.set(new Uint8Array(buffer, 0, bytes), run.start / 8 * bits);
    },
    refuse: () => refuse(name, dense, { toFloat16, cause }),
  }, pause);
  return codes;
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
