/** The kernels of kernels-quantize, in a memory of their own or where values and results lie. */

import { instantiateOver, moduleBytes } from "../runtime/wasm_module.ts";
import type { PieceMemory } from "../tensor/piece_memory.ts";
import { packedBytes } from "./codes.ts";
import { MODULE_BASE64 } from "./generated/quantize_kernels.ts";
import { type GgufBlockType, ggufTypeInfo } from "./gguf_types.ts";
import {
  type BlocksJob,
  type EncodeJob,
  groupsOf,
  type GroupsOfRun,
  type HqqJob,
  type KernelJob,
  type NormalizeJob,
  placesOf,
  type QuantizeKernels,
  type RangesJob,
  valueBytes,
} from "./kernel_job.ts";
import {
  dtypeCode,
  type JobLayout,
  layOut,
  type MemoryViews,
  putPiece,
  putRule,
} from "./kernel_layout.ts";

/** What the module exports. */
export interface QuantizeExports {
  readonly __heap_base: WebAssembly.Global;
  readonly __stack_pointer: WebAssembly.Global;
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
  normalize(rule: number, input: number, ends: number, least: number, out: number): number;
  blocks(kind: number, input: number, dtype: number, count: number, out: number): number;
  hqq(turn: number, input: number, errors: number): number;
  split(
    kind: number,
    input: number,
    count: number,
    codes: number,
    scale: number,
    scaleSupers: number,
    offset: number,
    offsetSupers: number,
  ): void;
  swap_nibbles(bytes: number, count: number): void;
  flip_bits(bytes: number, count: number, mask: number): void;
  is_finite(bytes: number, count: number, special: number, lowest: number, sign: number): number;
}

const BLOCK_KINDS: Readonly<Record<GgufBlockType, number>> = {
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

/** How kernels number a type. */
export function blockKind(type: GgufBlockType): number {
  return BLOCK_KINDS[type];
}

const PAGE = 65536;
/** What the module's memory may have at most; build.sh says the same. */
const MOST_PAGES = 16384;
/** Enough for the data and the stack of the module. */
const FIRST_PAGES = 4;
/** Bytes of a stack. */
const STACK = 65536;

const compiled = new Map<boolean, Promise<WebAssembly.Module>>();

/** Compiles the module, once: over shared memory or an ordinary one. */
export function quantizeModule({ shared }: { shared: boolean }): Promise<WebAssembly.Module> {
  const known = compiled.get(shared);
  if (known) return known;
  const module = WebAssembly.compile(moduleBytes(MODULE_BASE64, shared));
  compiled.set(shared, module);
  return module;
}

/** Instantiates the module over a memory. */
export function instantiateQuantize(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
): Promise<QuantizeExports> {
  return instantiateOver(module, memory);
}

const overPieces = new WeakMap<PieceMemory, Promise<QuantizeExports>>();

/** The module over piece memory. */
export function kernelsOver(pieces: PieceMemory): Promise<QuantizeExports> {
  const known = overPieces.get(pieces);
  if (known) return known;
  const exports = quantizeModule({ shared: false })
    .then((module) => instantiateQuantize(module, pieces.memory));
  overPieces.set(pieces, exports);
  return exports;
}

/** Kernels with a memory of their own, which bring values and results in and out. */
export async function instantiateKernels(
  module: WebAssembly.Module,
  { shared }: { shared: boolean },
): Promise<QuantizeKernels> {
  const limits = { initial: FIRST_PAGES, maximum: MOST_PAGES, shared };
  const memory = new WebAssembly.Memory(limits);
  const exports = await instantiateQuantize(module, memory);
  return new WasmKernels(exports, memory, exports.__heap_base.value, false);
}

/**
 * Kernels that find values and results in their memory; `area` is the address of `areaBytes` of it, which
 * no other thread uses.
 */
export function kernelsInPlace(
  exports: QuantizeExports,
  memory: WebAssembly.Memory,
  area: number,
): QuantizeKernels {
  exports.__stack_pointer.value = area + STACK;
  return new WasmKernels(exports, memory, area + STACK, true);
}

/** Bytes that a thread needs for a job in place. */
export function areaBytes(job: KernelJob): number {
  return STACK + layOut(job, 0, true).end;
}

class WasmKernels implements QuantizeKernels {
  readonly #exports: QuantizeExports;
  readonly #memory: WebAssembly.Memory;
  readonly #start: number;
  readonly #inPlace: boolean;
  /** The last job, as its pieces come one after another. */
  #job: KernelJob | undefined;
  #layout!: JobLayout;
  #views!: MemoryViews;

  constructor(
    exports: QuantizeExports,
    memory: WebAssembly.Memory,
    start: number,
    inPlace: boolean,
  ) {
    this.#exports = exports;
    this.#memory = memory;
    this.#start = start;
    this.#inPlace = inPlace;
  }

  run(job: KernelJob, start: number, values: Uint8Array, result: Uint8Array): boolean {
    if (job !== this.#job) this.#begin(job);
    const input = this.#bring(values);
    const count = values.length / valueBytes(job.values);
    switch (job.kind) {
      case "ranges":
        return this.#ranges(job, start, count, input, result);
      case "encode":
        return this.#encode(job, start, count, input, result);
      case "normalize":
        return this.#normalize(job, start, count, input, result);
      case "blocks":
        return this.#blocks(job, start, count, input, result);
      case "hqq":
        return this.#hqq(job, start, count, input, result);
    }
  }

  #ranges(job: RangesJob, start: number, count: number, input: number, result: Uint8Array) {
    const { output } = this.#layout;
    const { floats } = this.#views;
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

  #encode(job: EncodeJob, start: number, count: number, input: number, result: Uint8Array) {
    const groups = groupsOf(job.groupSize, start, count);
    putPiece(job, this.#layout, { count, head: groups.head }, this.#views);
    this.#putNumbers(groups);
    return this.#write(result, start / 8 * job.bits, packedBytes(count, job.bits), (out) => {
      return this.#exports.encode(this.#layout.rule, input, out);
    });
  }

  #normalize(job: NormalizeJob, start: number, count: number, input: number, result: Uint8Array) {
    const { rule, ends } = this.#layout;
    const groups = groupsOf(job.groupSize, start, count);
    putPiece(job, this.#layout, { count, head: groups.head }, this.#views);
    const at = 4 * job.groups + start / 8 * job.bits;
    const isFinite = this.#write(result, at, packedBytes(count, job.bits), (out) => {
      return this.#exports.normalize(rule, input, ends, job.least, out);
    });
    const largest = ends / 4 + groups.count;
    const magnitudes = new Float32Array(result.buffer, result.byteOffset, job.groups);
    magnitudes.set(this.#views.floats.subarray(largest, largest + groups.count), groups.first);
    return isFinite;
  }

  #blocks(
    { type, values }: BlocksJob,
    start: number,
    count: number,
    input: number,
    result: Uint8Array,
  ) {
    const { elements, bytes } = ggufTypeInfo(type);
    const [kind, dtype] = [blockKind(type), dtypeCode(values)];
    return this.#write(result, start / elements * bytes, count / elements * bytes, (out) => {
      return this.#exports.blocks(kind, input, dtype, count, out);
    });
  }

  #hqq(job: HqqJob, start: number, count: number, input: number, result: Uint8Array): boolean {
    const { rule, numbers } = this.#layout;
    const groups = groupsOf(job.groupSize, start, count);
    putPiece(job, this.#layout, { count, head: groups.head }, this.#views);
    this.#putNumbers(groups);
    const at = 4 * (job.zero.length + start);
    const finite = this.#write(result, at, 4 * count, (out) => this.#exports.hqq(rule, input, out));
    const zeros = numbers[1]!.address / 4;
    const made = new Float32Array(result.buffer, result.byteOffset, result.length / 4);
    made.set(this.#views.floats.subarray(zeros, zeros + groups.count), groups.first);
    return finite;
  }

  /** The address of values. */
  #bring(values: Uint8Array): number {
    if (this.#inPlace) return values.byteOffset;
    this.#views.bytes.set(values, this.#layout.input);
    return this.#layout.input;
  }

  /** Has a part of the result written; nothing beside it changes, as that may be another thread's. */
  #write(result: Uint8Array, at: number, count: number, kernel: (out: number) => number): boolean {
    if (this.#inPlace) return kernel(result.byteOffset + at) === 1;
    const { output } = this.#layout;
    const finite = kernel(output);
    result.set(this.#views.bytes.subarray(output, output + count), at);
    return finite === 1;
  }

  #putNumbers({ first, count }: GroupsOfRun): void {
    for (const part of this.#layout.numbers) {
      if (!part) continue;
      this.#views.floats.set(part.values.subarray(first, first + count), part.address / 4);
    }
  }

  #begin(job: KernelJob): void {
    const memory = this.#memory;
    this.#layout = layOut(job, this.#start, this.#inPlace);
    const missing = this.#layout.end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
    const { buffer } = memory;
    this.#views = {
      bytes: new Uint8Array(buffer),
      words: new Int32Array(buffer),
      floats: new Float32Array(buffer),
    };
    putRule(job, this.#layout, this.#views);
    this.#job = job;
  }
}
