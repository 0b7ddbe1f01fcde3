/** Latent pictures: their sizes, their noise, and their packing into tokens of 2x2 latent pixels. */

import { HostTensor } from "../tensor/host_tensor.ts";
import type { TorchGenerator } from "../tensor/random.ts";

/** Sizes of one latent picture. */
export interface LatentSizes {
  /** Tokens down. */
  readonly rows: number;
  /** Tokens across. */
  readonly columns: number;
  /** Tokens of the picture. */
  readonly tokens: number;
  /** Channels of a latent pixel; a token has four times as many features. */
  readonly channels: number;
}

/**
 * Latent sizes of a picture. Sides that are not divisible by 2 * scaleFactor come out smaller, as in
 * Diffusers.
 */
export function latentSizes(
  picture: { readonly width: number; readonly height: number },
  scaleFactor: number,
  tokenFeatures: number,
): LatentSizes {
  const rows = Math.floor(picture.height / (2 * scaleFactor));
  const columns = Math.floor(picture.width / (2 * scaleFactor));
  return { rows, columns, tokens: rows * columns, channels: Math.floor(tokenFeatures / 4) };
}

/**
 * Packed noise for a batch, [count, tokens, 4 * channels]. One generator draws the whole batch at
 * once; a list draws picture by picture.
 */
export function drawLatents(
  generators: readonly TorchGenerator[],
  count: number,
  sizes: LatentSizes,
): Float32Array {
  const { rows, columns, channels } = sizes;
  const shape = [channels, 2 * rows, 2 * columns];
  const drawn = generators.length === 1
    ? [generators[0].randn([count, ...shape])]
    : generators.map((generator) => generator.randn([1, ...shape]));
  const packed = drawn.map((noise) => packLatents(noise.toFloat32(), sizes));
  return concatenated(packed);
}

/** [count, channels, 2 * rows, 2 * columns] -> [count, tokens, channels * 4], (dy, dx) fastest. */
export function packLatents(values: Float32Array, sizes: LatentSizes): Float32Array {
  const packed = new Float32Array(values.length);
  forEachLatent(values.length, sizes, (plane, token) => packed[token] = values[plane]);
  return packed;
}

/** [tokens, channels * 4] of one picture -> [2 * rows, 2 * columns, channels]. */
export function unpackLatents(packed: Float32Array, sizes: LatentSizes): HostTensor {
  const { rows, columns, channels } = sizes;
  const area = 4 * rows * columns;
  const values = new Float32Array(packed.length);
  forEachLatent(packed.length, sizes, (plane, token) => {
    const channel = Math.floor(plane / area);
    values[(plane % area) * channels + channel] = packed[token];
  });
  return HostTensor.fromFloat32(values, [2 * rows, 2 * columns, channels]);
}

/** Visits every latent by its index in channel planes and in tokens. */
function forEachLatent(
  length: number,
  { rows, columns, channels }: LatentSizes,
  visit: (plane: number, token: number) => void,
): void {
  const width = 2 * columns;
  const area = 2 * rows * width;
  for (let plane = 0; plane < length; plane++) {
    const x = plane % width;
    const y = Math.floor(plane / width) % (2 * rows);
    const channel = Math.floor(plane / area) % channels;
    const picture = Math.floor(plane / (area * channels));
    const place = picture * rows * columns + (y >> 1) * columns + (x >> 1);
    visit(plane, place * 4 * channels + channel * 4 + (y & 1) * 2 + (x & 1));
  }
}

/** Latents as the autoencoder wants them: z / scaling + shift, in float32. */
export function unscaleLatents(
  latents: HostTensor,
  { scalingFactor, shiftFactor }: { scalingFactor: number; shiftFactor: number },
): HostTensor {
  const scaling = Math.fround(scalingFactor);
  const shift = Math.fround(shiftFactor);
  const values = latents.toFloat32().map((z) => Math.fround(z / scaling) + shift);
  return HostTensor.fromFloat32(values, latents.shape);
}

/** Arrays end to end. */
export function concatenated(parts: readonly Float32Array[]): Float32Array {
  const whole = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
