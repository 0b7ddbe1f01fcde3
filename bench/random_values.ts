/** Random data of any size. Only its time counts, so a block of it is made and repeated. */

import { HostTensor } from "../src/tensor/host_tensor.ts";
import { TorchGenerator } from "../src/tensor/random.ts";
import { elementCount, type Shape } from "../src/tensor/shape.ts";

/** Elements of a block: a prime, so that rows do not begin alike. */
const BLOCK = 262_139;
/** Bytes that `crypto.getRandomValues` fills at once. */
const RANDOM_CHUNK = 65536;

/** Arrays that can be made so. */
type Values = Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;

/** An array of zeros whose beginning, a block at most, `fill` has filled, and which goes on with that again and again. */
export function repeating<Whole extends Values>(zeros: Whole, fill: (block: Whole) => void): Whole {
  const block = zeros.subarray(0, BLOCK) as Whole;
  fill(block);
  for (let done = block.length; done < zeros.length; done *= 2) zeros.copyWithin(done, 0, done);
  return zeros;
}

/** An array that is the same number throughout, `bytes` being that number. */
export function uniformBytes(bytes: Uint8Array, count: number): Uint8Array<ArrayBuffer> {
  return repeating(new Uint8Array(count * bytes.length), (block) => {
    for (let at = 0; at < block.length; at++) block[at] = bytes[at % bytes.length]!;
  });
}

/** Random bytes, or what `meant` makes of each. */
export function randomBytes(
  count: number,
  meant?: (byte: number) => number,
): Uint8Array<ArrayBuffer> {
  return repeating(new Uint8Array(count), (block) => {
    for (let at = 0; at < block.length; at += RANDOM_CHUNK) {
      crypto.getRandomValues(block.subarray(at, at + RANDOM_CHUNK));
    }
    if (meant) block.forEach((byte, at) => block[at] = meant(byte));
  });
}

/** One of 256 values for each random byte. */
export function randomLevels(count: number, levels: Uint16Array): Uint16Array<ArrayBuffer> {
  return repeating(new Uint16Array(count), (block) => {
    randomBytes(block.length).forEach((byte, at) => block[at] = levels[byte]!);
  });
}

/** Evenly spread numbers from -reach to reach. */
export function evenFloats(count: number, reach: number): Float32Array<ArrayBuffer> {
  return repeating(new Float32Array(count), (block) => {
    for (let at = 0; at < block.length; at++) block[at] = (2 * Math.random() - 1) * reach;
  });
}

/** Normal numbers of mean 0 and variance 1, the same each time. */
export function normalTensor(shape: Shape): HostTensor {
  const values = repeating(new Float32Array(elementCount(shape)), (block) => {
    block.set(new TorchGenerator(0).randnValues(block.length));
  });
  return HostTensor.fromFloat32(values, shape);
}
