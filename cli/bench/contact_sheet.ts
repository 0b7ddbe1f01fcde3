/** Many pictures on one sheet, with lines of text under each. */

import { PipelineImage } from "../../src/pipelines/image.ts";
import { GLYPH_HEIGHT, GLYPH_WIDTH, hasDot } from "./glyphs.ts";

/** A picture and what stands under it. */
export interface SheetEntry {
  readonly image: PipelineImage;
  readonly lines: readonly string[];
}

/** Pictures larger than this are made smaller by a whole factor. */
const LARGEST_SIDE = 128;
const GAP = 8;
const LINE_HEIGHT = GLYPH_HEIGHT + 2;
const SHEET_WIDTH = 1120;
/** Light grey, so that the edges of white pictures are seen. */
const PAPER = 236;
const INK = 24;

/** The sheet: rows of pictures in their order. */
export function contactSheet(entries: readonly SheetEntry[]): PipelineImage {
  const cells = entries.map(({ image, lines }) => ({ image: reduced(image), lines }));
  const width = Math.max(
    ...cells.map(({ image, lines }) => Math.max(image.width, ...widths(lines))),
  );
  const pictureHeight = Math.max(...cells.map(({ image }) => image.height));
  const lines = Math.max(...cells.map(({ lines }) => lines.length));
  const height = pictureHeight + GAP / 2 + lines * LINE_HEIGHT;
  const columns = Math.min(cells.length, Math.max(1, Math.floor(SHEET_WIDTH / (width + GAP))));
  const rows = Math.ceil(cells.length / columns);
  const sheet = new Sheet(GAP + columns * (width + GAP), GAP + rows * (height + GAP));
  for (const [index, { image, lines }] of cells.entries()) {
    const left = GAP + index % columns * (width + GAP);
    const top = GAP + Math.floor(index / columns) * (height + GAP);
    sheet.draw(image, left, top);
    for (const [line, text] of lines.entries()) {
      sheet.write(text, left, top + pictureHeight + GAP / 2 + line * LINE_HEIGHT);
    }
  }
  return sheet.image;
}

function widths(lines: readonly string[]): number[] {
  return lines.map((line) => line.length * (GLYPH_WIDTH + 1));
}

class Sheet {
  readonly image: PipelineImage;

  constructor(width: number, height: number) {
    this.image = new PipelineImage(width, height, new Uint8Array(width * height * 3).fill(PAPER));
  }

  draw({ width, height, pixels }: PipelineImage, left: number, top: number): void {
    for (let row = 0; row < height; row++) {
      const line = pixels.subarray(row * width * 3, (row + 1) * width * 3);
      this.image.pixels.set(line, 3 * ((top + row) * this.image.width + left));
    }
  }

  write(text: string, left: number, top: number): void {
    for (const [index, character] of [...text].entries()) {
      for (let column = 0; column < GLYPH_WIDTH; column++) {
        for (let row = 0; row < GLYPH_HEIGHT; row++) {
          if (!hasDot(character, column, row)) continue;
          const x = left + index * (GLYPH_WIDTH + 1) + column;
          const pixel = 3 * ((top + row) * this.image.width + x);
          this.image.pixels.fill(INK, pixel, pixel + 3);
        }
      }
    }
  }
}

/** The picture made smaller by averaging squares of pixels, when it is large. */
function reduced(image: PipelineImage): PipelineImage {
  const factor = Math.ceil(Math.max(image.width, image.height) / LARGEST_SIDE);
  if (factor === 1) return image;
  const [width, height] = [Math.floor(image.width / factor), Math.floor(image.height / factor)];
  const pixels = new Uint8Array(width * height * 3);
  for (let index = 0; index < pixels.length; index++) {
    const [channel, x] = [index % 3, Math.floor(index / 3) % width];
    const y = Math.floor(index / 3 / width);
    pixels[index] = meanOfSquare(image, x * factor, y * factor, channel, factor);
  }
  return new PipelineImage(width, height, pixels);
}

function meanOfSquare(
  { width, pixels }: PipelineImage,
  left: number,
  top: number,
  channel: number,
  side: number,
): number {
  let sum = 0;
  for (let y = top; y < top + side; y++) {
    for (let x = left; x < left + side; x++) sum += pixels[3 * (y * width + x) + channel]!;
  }
  return Math.round(sum / side ** 2);
}
