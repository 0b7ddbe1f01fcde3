/** Writes the flat tape of 32-bit words that the kernels walk. */

/** Opcodes of steps only this backend knows; kernels-wasm/src/tape.rs holds the same numbers. */
export const TAPE_OPCODE = {
  markOutliers: 100,
  roundRows: 101,
  linearInt8: 102,
  groupSums: 103,
  groupApply: 104,
  waitSegment: 105,
  releaseSegment: 106,
  findRanges: 107,
  linearInteger: 108,
  packRows: 109,
  transformWeights: 110,
  winograd: 111,
} as const;

/** A parameter word: an integer, or a float by `float()`. */
export type Word = number | Float32Word;

/** A float in a tape. */
export class Float32Word {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}

/** Marks a parameter as a float. */
export function float(value: number): Float32Word {
  return new Float32Word(value);
}

/** A growing tape. */
export class TapeWriter {
  /** Steps written so far. */
  steps = 0;
  /** Word offset of each step. */
  readonly starts: number[] = [];
  readonly #words: Word[] = [];

  /** Words written so far. */
  get length(): number {
    return this.#words.length;
  }

  /** Adds a step: [opcode, words, plan step, parameters...]. */
  step(opcode: number, planStep: number, parameters: readonly Word[]): void {
    this.starts.push(this.#words.length);
    this.#words.push(opcode, parameters.length + 3, planStep, ...parameters);
    this.steps++;
  }

  /** Copies the tape into memory. */
  writeTo(words: Int32Array): void {
    const floats = new Float32Array(words.buffer, words.byteOffset, words.length);
    this.#words.forEach((word, index) => {
      if (typeof word === "number") words[index] = word;
      else floats[index] = word.value;
    });
  }
}
