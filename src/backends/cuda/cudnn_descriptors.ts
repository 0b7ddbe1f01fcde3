/** Descriptors of cuDNN's backend API: made, filled, finalized and given back together. */

import { addressOf } from "../../runtime/foreign.ts";
import type { CudnnCalls } from "./cudnn_calls.ts";
import { CUDNN_TYPE } from "./cudnn_symbols.ts";

type Words = BigInt64Array<ArrayBuffer>;

/** Descriptors for one purpose, such as "prepare a convolution", which errors name. */
export class CudnnDescriptors {
  readonly doing: string;
  readonly #calls: CudnnCalls;
  readonly #made: number[] = [];
  readonly #word: Words = new BigInt64Array(new ArrayBuffer(8));

  constructor(calls: CudnnCalls, doing: string) {
    this.#calls = calls;
    this.doing = doing;
  }

  /** A new descriptor of a type. */
  make(type: number): number {
    this.#word[0] = 0n;
    const place = addressOf(this.#word);
    this.#calls.run("cudnnBackendCreateDescriptor", this.doing, type, place);
    const descriptor = Number(this.#word[0]);
    this.#made.push(descriptor);
    return descriptor;
  }

  /** 64-bit integers. */
  setIntegers(descriptor: number, attribute: number, ...values: readonly number[]): void {
    this.#set(descriptor, attribute, CUDNN_TYPE.int64, words(values), values.length);
  }

  /** Members of an enumeration. */
  setMember(descriptor: number, attribute: number, type: number, value: number): void {
    this.#set(descriptor, attribute, type, new Int32Array(new ArrayBuffer(4)).fill(value), 1);
  }

  /** A float32. */
  setFloat(descriptor: number, attribute: number, value: number): void {
    const float = new Float32Array(new ArrayBuffer(4)).fill(value);
    this.#set(descriptor, attribute, CUDNN_TYPE.float, float, 1);
  }

  /** A truth value of one byte. */
  setBoolean(descriptor: number, attribute: number, value: boolean): void {
    const byte = new Uint8Array(new ArrayBuffer(1)).fill(value ? 1 : 0);
    this.#set(descriptor, attribute, CUDNN_TYPE.boolean, byte, 1);
  }

  /** Bytes of a text. */
  setText(descriptor: number, attribute: number, text: string): void {
    const bytes = new TextEncoder().encode(text);
    this.#set(descriptor, attribute, CUDNN_TYPE.char, new Uint8Array(bytes), bytes.length);
  }

  /** Descriptors. */
  setDescriptors(descriptor: number, attribute: number, ...values: readonly number[]): void {
    this.#set(descriptor, attribute, CUDNN_TYPE.descriptor, words(values), values.length);
  }

  /** Handles or pointers. */
  setPointers(
    descriptor: number,
    attribute: number,
    type: number,
    ...values: readonly number[]
  ): void {
    this.#set(descriptor, attribute, type, words(values), values.length);
  }

  /** Fills `values` with elements of an attribute; gives how many there are, or were written. */
  get(
    descriptor: number,
    attribute: number,
    type: number,
    values: BigInt64Array<ArrayBuffer> | Int32Array<ArrayBuffer> | null,
  ): number {
    this.#word[0] = 0n;
    this.#calls.run(
      "cudnnBackendGetAttribute",
      this.doing,
      descriptor,
      attribute,
      type,
      values?.length ?? 0,
      addressOf(this.#word),
      values === null ? 0 : addressOf(values),
    );
    return Number(this.#word[0]);
  }

  /** No more attributes. */
  finalize(descriptor: number): void {
    this.#calls.run("cudnnBackendFinalize", this.doing, descriptor);
  }

  /** Gives one back that nothing refers to. */
  drop(descriptor: number): void {
    this.#made.splice(this.#made.lastIndexOf(descriptor), 1);
    this.#calls.try("cudnnBackendDestroyDescriptor", descriptor);
  }

  /** Gives all back, the last first. */
  free(): void {
    for (const descriptor of this.#made.splice(0).reverse()) {
      this.#calls.try("cudnnBackendDestroyDescriptor", descriptor);
    }
  }

  #set(
    descriptor: number,
    attribute: number,
    type: number,
    values: ArrayBufferView,
    count: number,
  ): void {
    this.#calls.run(
      "cudnnBackendSetAttribute",
      this.doing,
      descriptor,
      attribute,
      type,
      count,
      addressOf(values),
    );
  }
}

function words(values: readonly number[]): Words {
  const array = new BigInt64Array(new ArrayBuffer(8 * values.length));
  array.set(values.map(BigInt));
  return array;
}
