/** Pictures as the pipelines give them: 8-bit RGB pixels, and PNG files made of them. */

import { encode } from "fast-png";
import type { HostTensor } from "../tensor/host_tensor.ts";
import { writeAtomic } from "../runtime/atomic_file.ts";

/** A picture of 8-bit RGB pixels. */
export class PipelineImage {
  /** Pixels across. */
  readonly width: number;
  /** Pixels down. */
  readonly height: number;
  /** Red, green, blue of each pixel, row by row: [height, width, 3]. */
  readonly pixels: Uint8Array;
  /** What the PNG says of how it was made: keywords and Latin-1 texts. */
  readonly text: Readonly<Record<string, string>>;

  /** Takes the pixels as they are, without a copy. */
  constructor(
    width: number,
    height: number,
    pixels: Uint8Array,
    text: Readonly<Record<string, string>> = {},
  ) {
    this.width = width;
    this.height = height;
    this.pixels = pixels;
    this.text = text;
  }

  /** The bytes of a PNG file; the same picture and text give the same bytes. */
  toPng(): Uint8Array {
    return encode({
      width: this.width,
      height: this.height,
      data: this.pixels,
      channels: 3,
      text: { ...this.text },
    });
  }

  /** Writes a PNG file, whole or not at all. Throws `write_failed`. */
  async save(path: string): Promise<void> {
    await writeAtomic(path, this.toPng());
  }
}

/**
 * Pixels of a decoded picture [height, width, 3] in -1..1: x / 2 + 1 / 2 clamped to 0..1, times 255,
 * rounded half to even as NumPy does.
 */
export function quantizePixels(decoded: HostTensor): Uint8Array {
  const pixels = new Uint8Array(decoded.size);
  decoded.toFloat32().forEach((value, index) => {
    const unit = Math.min(1, Math.max(0, Math.fround(Math.fround(value * 0.5) + 0.5)));
    pixels[index] = roundHalfToEven(Math.fround(unit * 255));
  });
  return pixels;
}

function roundHalfToEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest === 0.5) return below + below % 2;
  return rest < 0.5 ? below : below + 1;
}

/** JSON in ASCII, because text chunks of a PNG are Latin-1. */
export function asciiJson(value: unknown): string {
  return JSON.stringify(value).replaceAll(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
