/** The kernels of kernels-quantize, over the module's own memory. */

import type { EncodeJob, KernelJob, QuantizeKernels, RangesJob } from "./kernel_job.ts";
import { groupCount, type JobValues, resultBytes } from "./kernel_job.ts";
import type { SmallFloatCodes } from "./encode_rule.ts";
import { MODULE_BASE64 } from "./generated/quantize_kernels.ts";
import type { GgufQuantType } from "./gguf_quantizers.ts";

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

class WasmKernels implements QuantizeKernels {
  readonly #exports: Exports;
  #top = 0;

  constructor(exports: Exports) {
    this.#exports = exports;
  }

  run(job: KernelJob, input: Uint8Array, result: ArrayBuffer): boolean {
    this.#top = this.#exports.__heap_base.value;
    const address = this.#put(input);
    const bytes = resultBytes(job);
    const finite = this.#call(job, address, () => this.#reserve(bytes + SLACK));
    const made = new Uint8Array(this.#exports.memory.buffer, this.#top - bytes - SLACK, bytes);
    new Uint8Array(result, 0, bytes).set(made);
    return finite;
  }

  /** Runs the kernel of a job; the result is the last thing that is reserved. */
  #call(job: KernelJob, input: number, reserveResult: () => number): boolean {
    const dtype = dtypeCode(job.values);
    const { count } = job.values;
    switch (job.kind) {
      case "ranges":
        return this.#ranges(job, dtype, input, reserveResult());
      case "encode": {
        const rule = this.#putRule(job, dtype);
        return this.#exports.encode(rule, input, reserveResult()) === 1;
      }
      case "blocks":
        return this.#exports.blocks(
          BLOCK_KINDS[job.type],
          input,
          dtype,
          count,
          reserveResult(),
        ) === 1;
    }
  }

  #ranges(job: RangesJob, dtype: number, input: number, out: number): boolean {
    const largest = out + 4 * groupCount(job);
    const { head, groupSize, values: { count } } = job;
    return this.#exports.ranges(input, dtype, count, head, groupSize, out, largest) === 1;
  }

  #putRule({ rule, head, groupSize, bits, values }: EncodeJob, dtype: number): number {
    const { code } = rule;
    const factor = this.#put(rule.factor);
    const [shift, bias, zero] = code.kind === "integer"
      ? [code.shift, code.bias, code.zero].map((values) => values ? this.#put(values) : 0)
      : [0, 0, 0];
    const address = this.#reserve(RULE_BYTES);
    const words = new Int32Array(this.#exports.memory.buffer, address, RULE_BYTES / 4);
    words.set([dtype, DTYPES[rule.rounding], rule.operation === "divide" ? 1 : 0]);
    words.set([CODERS[code.kind], bits, values.count, head, groupSize], 3);
    words.set([factor, shift, bias, zero], 8);
    const floats = new Float32Array(words.buffer, address, RULE_BYTES / 4);
    if (code.kind === "integer") {
      floats.set([code.low, code.high], 12);
      words.set([code.origin, code.nanIsZero ? 1 : 0], 14);
    } else if (code.kind === "float") {
      floats[13] = Math.min(code.limit, largestValue(code));
      words.set([code.mantissaBits, code.leastExponent, code.largestCode, code.signBit], 16);
      words[20] = code.signedZero ? 1 : 0;
    } else {
      floats.set(code.bounds.subarray(0, 15), RULE_WORDS);
      new Uint8Array(words.buffer, address + 4 * (RULE_WORDS + 16), 16).set(code.order);
    }
    return address;
  }

  #put(values: Uint8Array | Float32Array): number {
    const address = this.#reserve(values.byteLength + SLACK);
    new Uint8Array(this.#exports.memory.buffer, address, values.byteLength)
      .set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    return address;
  }

  /** The next bytes of the memory, which grows where they do not fit. */
  #reserve(bytes: number): number {
    const address = Math.ceil(this.#top / 16) * 16;
    this.#top = address + bytes;
    const { memory } = this.#exports;
    const missing = this.#top - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    return address;
  }
}

/** What the largest code stands for; infinity counts as the power of two that it stands in for. */
function largestValue({ mantissaBits, leastExponent, largestCode }: SmallFloatCodes): number {
  const exponent = (largestCode >> mantissaBits) - 1 + leastExponent;
  return (1 + (largestCode % 2 ** mantissaBits) / 2 ** mantissaBits) * 2 ** exponent;
}

function dtypeCode({ dtype, toFloat16 }: JobValues): number {
  return DTYPES[dtype] + (toFloat16 && dtype !== "float16" ? TO_FLOAT16 : 0);
}
