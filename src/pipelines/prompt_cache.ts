/** What a text encoder made of the prompts it saw last, so that a prompt is encoded once. */

import type { HostTensor } from "../tensor/host_tensor.ts";

/** Eight prompts of 512 tokens through T5-XXL. */
const CACHE_BYTES = 64 * 2 ** 20;

/** States by prompt and number of tokens; the ones used longest ago give way. Nobody may change them. */
export class PromptCache {
  readonly #limit: number;
  readonly #states = new Map<string, HostTensor>();
  #bytes = 0;

  /** A cache of at most `limit` bytes. */
  constructor(limit: number = CACHE_BYTES) {
    this.#limit = limit;
  }

  /** Bytes it holds. */
  get bytes(): number {
    return this.#bytes;
  }

  /** The states of a prompt, [tokens, features], if it is remembered. */
  get(prompt: string, tokens: number): HostTensor | undefined {
    const key = keyOf(prompt, tokens);
    const states = this.#states.get(key);
    if (states === undefined) return undefined;
    this.#states.delete(key); // the one used last goes to the end
    this.#states.set(key, states);
    return states;
  }

  /** Remembers states, unless they alone are too large. */
  set(prompt: string, tokens: number, states: HostTensor): void {
    const key = keyOf(prompt, tokens);
    this.#forget(key);
    if (states.bytes.byteLength > this.#limit) return;
    this.#states.set(key, states);
    this.#bytes += states.bytes.byteLength;
    while (this.#bytes > this.#limit) this.#forget(this.#states.keys().next().value!);
  }

  #forget(key: string): void {
    this.#bytes -= this.#states.get(key)?.bytes.byteLength ?? 0;
    this.#states.delete(key);
  }
}

function keyOf(prompt: string, tokens: number): string {
  return `${tokens} ${prompt}`;
}
