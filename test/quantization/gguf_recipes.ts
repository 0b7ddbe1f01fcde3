/** The inputs of test/goldens/make_gguf_goldens.py, made again bit for bit. */

import { type GgufBlockType, ggufTypeInfo } from "../../src/quantization/gguf_types.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";

const COUNT = 4096;

/** A linear congruential generator's upper 24 bits. */
function words(seed: number, count: number): Uint32Array {
  let state = seed;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 8;
  });
}

/** Sums of 12 uniform numbers, minus 6. */
function normal(seed: number): (index: number) => number {
  const drawn = words(seed, 12 * COUNT);
  return (index) => {
    let sum = 0;
    for (let i = 0; i < 12; i++) sum += drawn[12 * index + i] / 2 ** 24;
    return sum - 6;
  };
}

function recipe(value: (index: number) => number): Float32Array {
  return Float32Array.from({ length: COUNT }, (_, index) => value(index));
}

/** The values of an input by its name in blocks.json. */
export function ggufInput(name: string): Float32Array {
  return RECIPES[name]();
}

const RECIPES: Readonly<Record<string, () => Float32Array>> = {
  periodic: () =>
    recipe((i) => ((37 * i) % 101 - 50) / 50 * (0.5 + 0.5 * (Math.floor(i / 32) % 3))),
  normal: () => recipe(normal(1)),
  weights: () => scaled(2, 0.02),
  heavy: () => {
    const value = normal(3);
    return recipe((i) => value(i) * value(i) * value(i));
  },
  mixed: () => {
    const value = normal(7);
    return recipe((i) => value(i) * (Math.floor(i / 32) % 5 === 0 ? 0 : i % 97 === 0 ? 50 : 1));
  },
  positive: () => {
    const value = normal(4);
    return recipe((i) => Math.abs(value(i)));
  },
  negative: () => {
    const value = normal(5);
    return recipe((i) => -Math.abs(value(i)) - 1);
  },
  constant: () => recipe(() => 0.375),
  minus: () => recipe(() => -0.3),
  zero: () => recipe(() => 0),
  tiny: () => scaled(6, 2 ** -20),
  vanishing: () => scaled(8, 2 ** -70),
  large: () => scaled(9, 1000),
  powers: () => recipe((i) => (1 - (i % 3) / 2 ** 24) * 2 ** (Math.floor(i / 32) % 64 - 60)),
  bfloat16: () => HostTensor.fromFloat32(scaled(10, 0.05)).cast("bfloat16").toFloat32(),
};

function scaled(seed: number, scale: number): Float32Array {
  const value = normal(seed);
  return recipe((i) => value(i) * scale);
}

/** Byte offsets of the float16 numbers of a block. */
const FLOATS: Readonly<Partial<Record<GgufBlockType, readonly number[]>>> = {
  Q2_K: [80, 82],
  Q3_K: [108],
  Q6_K: [208],
  Q4_1: [0, 2],
  Q5_1: [0, 2],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  MXFP4: [],
  NVFP4: [],
};

/** 64 blocks of random bytes with finite scales. */
export function randomBlocks(type: GgufBlockType): Uint8Array {
  const size = ggufTypeInfo(type).bytes;
  const seed = new TextEncoder().encode(type).reduce((sum, byte) => sum + byte, 0);
  const blocks = Uint8Array.from(words(seed, 64 * size), (word) => word & 255);
  for (const at of FLOATS[type] ?? [0]) {
    for (let block = 0; block < 64; block++) blocks[block * size + at + 1] &= 0xbf;
  }
  return blocks;
}
