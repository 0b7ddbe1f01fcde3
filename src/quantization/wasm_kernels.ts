/** The kernels of kernels-quantize, over the module's own memory. */

import { packedBytes } from "./codes.ts";
import type { EncodeRule, SmallFloatCodes } from "./encode_rule.ts";
import { MODULE_BASE64 } from "./generated/quantize_kernels.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";
import { ggufTypeInfo } from "./gguf_types.ts";
import {
  type BlocksJob,
  type EncodeJob,
  groupsOf,
  type GroupsOfRun,
  HQQ_POWER,
  type HqqJob,
  type JobValues,
  type KernelJob,
  PIECE,
  placesOf,
  type QuantizeKernels,
  type RangesJob,
  valueBytes,
} from "./kernel_job.ts";

interface Exports {
  readonly memory: WebAssembly.Memory;
  readonly __heap_base: WebAssembly.Global;
  ranges(
    input: number,
    dtype: number,
    count: number,
    head: number,
    group: number,
    least: number,
    largest: number,
  ): number;
  encode(rule: number, input: number, out: number): number;
  blocks(kind: number, input: number, dtype: number, count: number, out: number): number;
  hqq(turn: number, input: number, errors: number): number;
}

const DTYPES = { float32: 0, bfloat16: 1, float16: 2 } as const;
const TO_FLOAT16 = 4;
const CODERS = { integer: 0, float: 1, levels: 2 } as const;
const BLOCK_KINDS: Readonly<Record<GgufQuantType, number>> = {
  Q4_0: 0,
  Q4_1: 1,
  Q5_0: 2,
  Q5_1: 3,
  Q8_0: 4,
  Q2_K: 5,
  Q3_K: 6,
  Q4_K: 7,
  Q5_K: 8,
  Q6_K: 9,
  IQ4_NL: 10,
  IQ4_XS: 11,
  MXFP4: 12,
  NVFP4: 13,
};

/** Words of a rule before its bounds; kernels-quantize/src/encode.rs has the same order. */
const RULE_WORDS = 21;
const RULE_BYTES = 4 * RULE_WORDS + 4 * 16 + 16;
/** Those that differ from piece to piece. */
const [COUNT, HEAD] = [5, 6];
/** The same of a turn, whose order kernels-quantize/src/hqq.rs has. */
const TURN_COUNT = 1;
const PAGE = 65536;
/** The kernels may write a little behind a result. */
const SLACK = 64;

let compiled: Promise<WebAssembly.Module> | undefined;

/** Compiles the module, once. */
export function quantizeModule(): Promise<WebAssembly.Module> {
  compiled ??= WebAssembly.compile(
    Uint8Array.from(atob(MODULE_BASE64), (character) => character.charCodeAt(0)),
  );
  return compiled;
}

/** An instance with its own memory. */
export async function instantiateKernels(module: WebAssembly.Module): Promise<QuantizeKernels> {
  const instance = await WebAssembly.instantiate(module, {});
  return new WasmKernels(instance.exports as unknown as Exports);
}

/** Where a job has its things in the module's memory. */
interface Places {
  readonly input: number;
  readonly output: number;
  readonly rule: number;
  /** The numbers of a piece's groups: factors, shifts, biases, zeros. */
  readonly numbers: readonly { readonly address: number; readonly values: Float32Array }[];
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly floats: Float32Array;
}

class WasmKernels implements QuantizeKernels {
  readonly #exports: Exports;
  /** The last job, as its pieces come one after another. */
  #job: KernelJob | undefined;
  #places!: Places;

  constructor(exports: Exports) {
    this.#exports = exports;
  }

  run(job: KernelJob, start: number, values: Uint8Array, result: Uint8Array): boolean {
    if (job !== this.#job) this.#layOut(job);
    this.#places.bytes.set(values, this.#places.input);
    const count = values.length / valueBytes(job.values);
    switch (job.kind) {
      case "ranges":
        return this.#ranges(job, start, count, result);
      case "encode":
        return this.#encode(job, start, count, result);
      case "blocks":
        return this.#blocks(job, start, count, result);
      case "hqq":
        return this.#hqq(job, start, count, result);
    }
  }

  #ranges(job: RangesJob, start: number, count: number, result: Uint8Array): boolean {
    const { input, output, floats } = this.#places;
    const groups = groupsOf(job.groupSize, start, count);
    const [least, largest] = [output / 4, output / 4 + groups.count];
    const ends = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
    const place = placesOf(groups, start);
    const [dtype, { head }] = [dtypeCode(job.values), groups];
    const finite = this.#exports
      .ranges(input, dtype, count, head, job.groupSize, output, 4 * largest);
    ends.set(floats.subarray(least, largest), place);
    ends.set(floats.subarray(largest, largest + groups.count), ends.length / 2 + place);
    return finite === 1;
  }

  #encode(job: EncodeJob, start: number, count: number, result: Uint8Array): boolean {
    const { input, output, rule, words, bytes } = this.#places;
    const groups = groupsOf(job.groupSize, start, count);
    words[rule / 4 + COUNT] = count;
    words[rule / 4 + HEAD] = groups.head;
    this.#putNumbers(groups);
    const finite = this.#exports.encode(rule, input, output);
    const made = bytes.subarray(output, output + packedBytes(count, job.bits));
    result.set(made, start / 8 * job.bits);
    return finite === 1;
  }

  #blocks({ type, values }: BlocksJob, start: number, count: number, result: Uint8Array): boolean {
    const { input, output, bytes } = this.#places;
    const { elements, bytes: size } = ggufTypeInfo(type);
    const kind = BLOCK_KINDS[type];
    const finite = this.#exports.blocks(kind, input, dtypeCode(values), count, output);
    const made = bytes.subarray(output, output + count / elements * size);
    result.set(made, start / elements * size);
    return finite === 1;
  }

  #hqq({ groupSize, zero }: HqqJob, start: number, count: number, result: Uint8Array): boolean {
    const { input, output, rule, numbers, words, floats } = this.#places;
    const groups = groupsOf(groupSize, start, count);
    words[rule / 4 + TURN_COUNT] = count;
    this.#putNumbers(groups);
    const finite = this.#exports.hqq(rule, input, output);
    const made = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
    const zeros = numbers[1].address / 4;
    made.set(floats.subarray(zeros, zeros + groups.count), groups.first);
    made.set(floats.subarray(output / 4, output / 4 + count), zero.length + start);
    return finite === 1;
  }

  #putNumbers({ first, count }: GroupsOfRun): void {
    const { numbers, floats } = this.#places;
    for (const { address, values } of numbers) {
      floats.set(values.subarray(first, first + count), address / 4);
    }
  }

  /** Gives every thing of a job its place. */
  #layOut(job: KernelJob): void {
    const { memory, __heap_base } = this.#exports;
    let top = __heap_base.value;
    const reserve = (bytes: number) => {
      const address = Math.ceil(top / 16) * 16;
      top = address + bytes + SLACK;
      return address;
    };
    const groups = job.kind === "blocks" ? 0 : Math.ceil(PIECE / job.groupSize) + 1;
    const input = reserve(PIECE * valueBytes(job.values));
    const output = reserve(Math.max(4 * PIECE, 8 * groups)); // no value takes more
    const rule = reserve(RULE_BYTES);
    const numbers = numbersOf(job).map((values) => {
      return values && { address: reserve(4 * groups), values };
    });
    const missing = top - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    const bytes = new Uint8Array(memory.buffer);
    const words = new Int32Array(memory.buffer);
    const floats = new Float32Array(memory.buffer);
    const present = numbers.filter((part) => part !== undefined);
    this.#places = { input, output, rule, numbers: present, bytes, words, floats };
    const addresses = numbers.map((part) => part?.address ?? 0);
    if (job.kind === "encode") putRule(job, this.#places, addresses);
    if (job.kind === "hqq") putTurn(job, this.#places, addresses);
    this.#job = job;
  }
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

function putRule(
  { rule, groupSize, bits, values }: EncodeJob,
  { rule: address, bytes, words: allWords, floats: allFloats }: Places,
  numbers: readonly number[],
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
  { rule, words, floats }: Places,
  numbers: readonly number[],
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

function dtypeCode({ dtype, toFloat16 }: JobValues): number {
  return DTYPES[dtype] + (toFloat16 && dtype !== "float16" ? TO_FLOAT16 : 0);
}
