/**
 * Decoding a large picture tile by tile, with a quarter of overlap blended, as Diffusers does after
 * `enable_vae_tiling()`. Norms see a tile each, so the result differs a little from the whole.
 */

import type { AutoencoderKL } from "../models/autoencoder_kl.ts";
import { HostTensor } from "../tensor/host_tensor.ts";

/** Share of a tile that overlaps the next. */
const OVERLAP = 0.25;

/** A picture in memory, [height, width, channels]. */
interface Picture {
  readonly height: number;
  readonly width: number;
  readonly channels: number;
  readonly values: Float32Array;
}

/** Sides of the largest part that is decoded at once, for latents of these sides. */
export function tileSides(
  latents: { readonly height: number; readonly width: number },
  vae: AutoencoderKL,
): { height: number; width: number } {
  const { tileLatentSize } = vae;
  return {
    height: Math.min(latents.height, tileLatentSize),
    width: Math.min(latents.width, tileLatentSize),
  };
}

/** Decodes latents [height, width, channels] by tiles: a picture [height, width, channels]. */
export async function decodeTiled(
  latents: HostTensor,
  vae: AutoencoderKL,
  decodeTile: (tile: HostTensor) => Promise<HostTensor>,
): Promise<HostTensor> {
  const { tileLatentSize: tile, config: { sampleSize, outChannels } } = vae;
  const stride = Math.max(1, Math.trunc(tile * (1 - OVERLAP)));
  const blend = Math.trunc(sampleSize * OVERLAP);
  const kept = sampleSize - blend;
  const [height, width] = latents.shape;
  const rows: Picture[] = [];
  let above: Picture[] = [];
  for (let y = 0; y < height; y += stride) {
    const row: Picture[] = [];
    for (let x = 0; x < width; x += stride) {
      const part = crop(pictureOf(latents), y, x, tile);
      const decoded = pictureOf(await decodeTile(tensorOf(part)));
      const column = row.length;
      if (above[column]) blendDown(above[column], decoded, blend);
      if (column > 0) blendRight(row[column - 1], decoded, blend);
      row.push(decoded);
    }
    rows.push(beside(row.map((picture) => crop(picture, 0, 0, kept))));
    above = row;
  }
  return tensorOf(below(rows, outChannels));
}

function pictureOf(tensor: HostTensor): Picture {
  const [height, width, channels] = tensor.shape;
  return { height, width, channels, values: tensor.toFloat32() };
}

function tensorOf({ height, width, channels, values }: Picture): HostTensor {
  return HostTensor.fromFloat32(values, [height, width, channels]);
}

/** The part from (top, left), at most `side` high and wide. */
function crop(picture: Picture, top: number, left: number, side: number): Picture {
  const { channels, values } = picture;
  const height = Math.min(side, picture.height - top);
  const width = Math.min(side, picture.width - left);
  const part = new Float32Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * channels;
    part.set(values.subarray(start, start + width * channels), y * width * channels);
  }
  return { height, width, channels, values: part };
}

/** Lets the lowest rows of `above` run into the first rows of `picture`. */
function blendDown(above: Picture, picture: Picture, extent: number): void {
  const rows = Math.min(above.height, picture.height, extent);
  const length = picture.width * picture.channels;
  for (let y = 0; y < rows; y++) {
    const from = (above.height - rows + y) * length;
    for (let i = 0; i < length; i++) {
      mix(above.values, from + i, picture.values, y * length + i, y / rows);
    }
  }
}

/** Lets the rightmost columns of `left` run into the first columns of `picture`. */
function blendRight(left: Picture, picture: Picture, extent: number): void {
  const columns = Math.min(left.width, picture.width, extent);
  const { channels } = picture;
  for (let y = 0; y < picture.height; y++) {
    for (let x = 0; x < columns; x++) {
      const from = (y * left.width + left.width - columns + x) * channels;
      const to = (y * picture.width + x) * channels;
      for (let c = 0; c < channels; c++) {
        mix(left.values, from + c, picture.values, to + c, x / columns);
      }
    }
  }
}

function mix(a: Float32Array, from: number, b: Float32Array, to: number, share: number): void {
  b[to] = Math.fround(a[from] * (1 - share)) + Math.fround(b[to] * share);
}

function beside(pictures: readonly Picture[]): Picture {
  const [{ height, channels }] = pictures;
  const width = pictures.reduce((sum, picture) => sum + picture.width, 0);
  const values = new Float32Array(height * width * channels);
  let left = 0;
  for (const picture of pictures) {
    const length = picture.width * channels;
    for (let y = 0; y < height; y++) {
      const row = picture.values.subarray(y * length, (y + 1) * length);
      values.set(row, (y * width + left) * channels);
    }
    left += picture.width;
  }
  return { height, width, channels, values };
}

function below(pictures: readonly Picture[], channels: number): Picture {
  const height = pictures.reduce((sum, picture) => sum + picture.height, 0);
  const values = new Float32Array(
    pictures.reduce((sum, picture) => sum + picture.values.length, 0),
  );
  let at = 0;
  for (const picture of pictures) {
    values.set(picture.values, at);
    at += picture.values.length;
  }
  return { height, width: pictures[0].width, channels, values };
}
