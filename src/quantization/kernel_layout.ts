/** Where the kernels of kernels-quantize find a job: its rule and numbers, and room for values and results. */

import type { EncodeRule, SmallFloatCodes } from "./encode_rule.ts";
import {
  type EncodeJob,
  HQQ_POWER,
  type HqqJob,
  type JobValues,
  type KernelJob,
  type NormalizeJob,
  PIECE,
  valueBytes,
} from "./kernel_job.ts";

const DTYPES = { float32: 0, bfloat16: 1, float16: 2 } as const;
const TO_FLOAT16 = 4;
const CODERS = { integer: 0, float: 1, levels: 2 } as const;

/** Words of a rule before its bounds; kernels-quantize/src/encode.rs has the same order. */
const RULE_WORDS = 21;
const RULE_BYTES = 4 * RULE_WORDS + 4 * 16 + 16;
/** Those that differ from piece to piece. */
const [COUNT, HEAD] = [5, 6];
/** The same of a turn, whose order kernels-quantize/src/hqq.rs has. */
const TURN_COUNT = 1;
const NO_NUMBERS = new Float32Array(0);
/** Kernels may read a little behind their values. */
const SLACK = 64;

/** A job's numbers of groups in their place. */
export interface PlacedNumbers {
  readonly address: number;
  readonly values: Float32Array;
}

/** Addresses of what a job needs. */
export interface JobLayout {
  /** For a piece's values and results, where kernels do not have them in place; ranges always are brought. */
  readonly input: number;
  readonly output: number;
  readonly rule: number;
  /** For the ends of a piece's groups, the least and then the largest, where values are normalized by them. */
  readonly ends: number;
  /** The numbers of a piece's groups: factors, shifts, biases, zeros. */
  readonly numbers: readonly (PlacedNumbers | undefined)[];
  /** Behind all of it. */
  readonly end: number;
}

/** Lays out a job from an address on. */
export function layOut(job: KernelJob, start: number, inPlace: boolean): JobLayout {
  let end = start;
  const reserve = (bytes: number) => {
    const address = Math.ceil(end / 16) * 16;
    end = address + bytes + SLACK;
    return address;
  };
  const groups = job.kind === "blocks" ? 0 : Math.ceil(PIECE / job.groupSize) + 1;
  const input = reserve(inPlace ? 0 : PIECE * valueBytes(job.values));
  const results = inPlace ? 0 : 4 * PIECE; // no value takes more
  const output = reserve(Math.max(results, job.kind === "ranges" ? 8 * groups : 0));
  const rule = reserve(RULE_BYTES);
  const ends = job.kind === "normalize" ? reserve(8 * groups) : 0;
  const numbers = numbersOf(job).map((values) => {
    return values && { address: reserve(4 * groups), values };
  });
  return { input, output, rule, ends, numbers, end };
}

/** What differs from piece to piece. */
export function putPiece(
  { kind }: EncodeJob | NormalizeJob | HqqJob,
  { rule }: JobLayout,
  { count, head }: { readonly count: number; readonly head: number },
  { words }: MemoryViews,
): void {
  const at = rule / 4;
  if (kind === "hqq") words[at + TURN_COUNT] = count;
  else [words[at + COUNT], words[at + HEAD]] = [count, head];
}

/** A memory, as bytes and words. */
export interface MemoryViews {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly floats: Float32Array;
}

/** The numbers of groups, in the order of the kernel's rule or turn. */
function numbersOf(job: KernelJob): (Float32Array | undefined)[] {
  if (job.kind === "hqq") return [job.inverse, job.zero];
  return job.kind === "encode" ? numbersOfRule(job.rule) : [];
}

function numbersOfRule({ factor, code }: EncodeRule): (Float32Array | undefined)[] {
  const { shift, bias, zero } = code.kind === "integer" ? code : {};
  return [factor, shift, bias, zero];
}

/** Writes the rule or the turn of a job. */
export function putRule(
  job: KernelJob,
  { rule, ends, numbers }: JobLayout,
  views: MemoryViews,
): void {
  const addresses = numbers.map((part) => part?.address ?? 0);
  if (job.kind === "normalize") {
    const made = { rounding: "float32", operation: "multiply", factor: NO_NUMBERS } as const;
    // The kernel writes factors over the least ends.
    return putEncodeRule(
      { ...job, rule: { ...made, code: job.code } },
      rule,
      [ends, 0, 0, 0],
      views,
    );
  }
  if (job.kind === "encode") putEncodeRule(job, rule, addresses, views);
  if (job.kind === "hqq") putTurn(job, rule, addresses, views);
}

function putEncodeRule(
  { rule, groupSize, bits, values }: Omit<EncodeJob, "kind">,
  address: number,
  numbers: readonly number[],
  { bytes, words: allWords, floats: allFloats }: MemoryViews,
): void {
  const { code } = rule;
  const words = allWords.subarray(address / 4);
  const floats = allFloats.subarray(address / 4);
  words.set([dtypeCode(values), DTYPES[rule.rounding], rule.operation === "divide" ? 1 : 0]);
  words.set([CODERS[code.kind], bits, 0, 0, groupSize, ...numbers], 3);
  if (code.kind === "integer") {
    floats.set([code.low, code.high], 12);
    words.set([code.origin, code.nanIsZero ? 1 : 0], 14);
  } else if (code.kind === "float") {
    floats[13] = Math.min(code.limit, largestValue(code));
    words.set([code.mantissaBits, code.leastExponent, code.largestCode, code.signBit], 16);
    words[20] = code.signedZero ? 1 : 0;
  } else {
    floats.set(code.bounds.subarray(0, 15), RULE_WORDS);
    bytes.set(code.order, address + 4 * (RULE_WORDS + 16));
  }
}

function putTurn(
  { values, groupSize, threshold }: HqqJob,
  rule: number,
  numbers: readonly number[],
  { words, floats }: MemoryViews,
): void {
  words.set([dtypeCode(values), 0, groupSize], rule / 4);
  floats.set([threshold, surelyShrunk(threshold)], rule / 4 + 3);
  words.set(numbers, rule / 4 + 5);
}

/** Smaller errors shrink to nothing, however the power is rounded: x < threshold * x ** HQQ_POWER. */
function surelyShrunk(threshold: number): number {
  return threshold ** (1 / (1 - HQQ_POWER)) * (1 - 2 ** -12);
}

/** What the largest code stands for; infinity counts as the power of two that it stands in for. */
function largestValue({ mantissaBits, leastExponent, largestCode }: SmallFloatCodes): number {
  const exponent = (largestCode >> mantissaBits) - 1 + leastExponent;
  return (1 + (largestCode % 2 ** mantissaBits) / 2 ** mantissaBits) * 2 ** exponent;
}

/** How kernels are told the type of values. */
export function dtypeCode({ dtype, toFloat16 }: JobValues): number {
  return DTYPES[dtype] + (toFloat16 && dtype !== "float16" ? TO_FLOAT16 : 0);
}
