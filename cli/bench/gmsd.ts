/**
 * Gradient magnitude similarity deviation (Xue et al. 2013, https://arxiv.org/abs/1308.3052): how unevenly the
 * edges of two pictures differ. Unlike the error of pixels it does not mind brightness or small even noise. 0 is
 * the same picture; the paper's worst ones reach 0.35.
 *
 *     GMS = (2 g h + c) / (g^2 + h^2 + c), c = 170 / 255^2;  GMSD = its standard deviation over all places
 *
 * with g and h the lengths of both pictures' Prewitt gradients, of luminance halved in size.
 */

import type { PipelineImage } from "../../src/pipelines/image.ts";

const STABILIZER = 170 / 255 ** 2;

interface Plane {
  readonly width: number;
  readonly height: number;
  readonly values: Float64Array;
}

/** The deviation of two pictures of the same size. */
export function gmsd(found: PipelineImage, exact: PipelineImage): number {
  const [a, b] = [found, exact].map((image) => gradients(halvedLuminance(image)));
  const similarity = a!.map((g, index) => {
    const h = b![index]!;
    return (2 * g * h + STABILIZER) / (g ** 2 + h ** 2 + STABILIZER);
  });
  const mean = sum(similarity) / similarity.length;
  return Math.sqrt(sum(similarity.map((value) => (value - mean) ** 2)) / similarity.length);
}

function sum(values: Float64Array): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Luminance in 0..1, the mean of each 2x2 pixels; black joins pictures of odd sides. */
function halvedLuminance({ width, height, pixels }: PipelineImage): Plane {
  const extra = Math.max(width % 2, height % 2);
  const plane = { width: (width + extra) >> 1, height: (height + extra) >> 1 };
  const values = new Float64Array(plane.width * plane.height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (x >> 1 >= plane.width || y >> 1 >= plane.height) continue;
      const [red, green, blue] = pixels.subarray(3 * (y * width + x));
      const luminance = (0.299 * red! + 0.587 * green! + 0.114 * blue!) / 255;
      values[(y >> 1) * plane.width + (x >> 1)]! += luminance / 4;
    }
  }
  return { ...plane, values };
}

/** The lengths of the Prewitt gradients; outside is black. */
function gradients({ width, height, values }: Plane): Float64Array {
  const at = (x: number, y: number) =>
    x < 0 || y < 0 || x >= width || y >= height ? 0 : values[y * width + x]!;
  return values.map((_, index) => {
    const x = index % width, y = Math.floor(index / width);
    let [across, down] = [0, 0];
    for (let offset = -1; offset <= 1; offset++) {
      across += at(x + 1, y + offset) - at(x - 1, y + offset);
      down += at(x + offset, y + 1) - at(x + offset, y - 1);
    }
    return Math.hypot(across / 3, down / 3);
  });
}
