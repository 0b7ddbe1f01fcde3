/** The 32-bit Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), PyTorch's CPU random engine. */

const SIZE = 624;
const SHIFT = 397;

/** A stream of uniform 32-bit words. */
export class MersenneTwister {
  readonly #state = new Uint32Array(SIZE);
  #next = SIZE;

  /** Seeds with the low 32 bits of `seed`, as `init_genrand` does. */
  constructor(seed: number) {
    const state = this.#state;
    state[0] = seed >>> 0;
    for (let i = 1; i < SIZE; i++) {
      const previous = state[i - 1] ^ (state[i - 1] >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
  }

  /** The next word, from 0 to 2^32 - 1. */
  nextUint32(): number {
    if (this.#next === SIZE) this.#regenerate();
    let word = this.#state[this.#next++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  #regenerate(): void {
    const state = this.#state;
    for (let i = 0; i < SIZE; i++) {
      const following = i + 1 < SIZE ? state[i + 1] : state[0];
      const distant = i + SHIFT < SIZE ? state[i + SHIFT] : state[i + SHIFT - SIZE];
      const mixed = (state[i] & 0x80000000) | (following & 0x7fffffff);
      state[i] = distant ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }
}
