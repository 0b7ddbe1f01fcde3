/**
 * How torchao packs int4 weights, beside the plain way (quantize_/workflows/int4):
 *
 *     TILE_PACKED_TO_4D   for tinygemm's CUDA kernel: columns padded to 1024, rows to 8;
 *                         X._weight_qdata           int32 [rows / 8, columns / 128, 32, 4], see `tileOrder`
 *                         X._weight_scale_and_zero  bfloat16 [columns / group, rows, 2]
 *                         w = (q - 8) * scale + zero
 *     PLAIN_INT32         for XPU: X._weight_qdata int32 [rows, columns / 8], eight codes to a word, first lowest;
 *                         X._weight_scale [groups, rows], X._weight_zero_point int8 likewise;
 *                         w = (q - zero) * scale
 *
 * PRESHUFFLED belongs to a GPU library's kernel; torchao itself cannot put it into safetensors.
 */

import { fromFloat32 } from "../tensor/convert.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";

/** Where the codes of an int4 weight lie. */
export type Int4PackingFormat = "PLAIN" | "PLAIN_INT32" | "TILE_PACKED_TO_4D";

/** How scales and zeros of an int4 weight are chosen. */
export type Int4ChooseQParamsAlgorithm = "TINYGEMM" | "HQQ";

/** Rows of a tile, and columns of a run of tiles that a thread loads at once. */
const [TILE_ROWS, TILE_COLUMNS] = [8, 128];
/** The kernel's unit of columns. */
const PADDED_COLUMNS = 1024;
/** Bytes of a run of tiles: 32 threads with four words each. */
const TILE_BYTES = 32 * 16;

/** [rows, columns] as the kernel wants them. */
export function tilePaddedShape([rows, columns]: Shape): readonly [number, number] {
  const up = (size: number, unit: number) => Math.ceil(size / unit) * unit;
  return [up(rows, TILE_ROWS), up(columns, PADDED_COLUMNS)];
}

/** The shape of the packed codes. */
export function tileShape(shape: Shape): Shape {
  const [rows, columns] = tilePaddedShape(shape);
  return [rows / TILE_ROWS, columns / TILE_COLUMNS, 32, 4];
}

/**
 * Visits every byte of row-major codes (two to a byte, first lowest) with the place of its word and the
 * bits there: thread t of a warp holds row t / 4, and word w of it columns 32 w + 2 (t % 4) + {0, 8, 16, 24},
 * the even columns in the low half of the word and the odd ones in the high half.
 */
function tileOrder(
  [rows, columns]: Shape,
  visit: (byte: number, word: number, shift: number) => void,
): void {
  const half = columns / 2;
  const outer = tilePaddedShape([rows, columns])[1] / TILE_COLUMNS;
  for (let row = 0; row < rows; row++) {
    const tile = Math.floor(row / TILE_ROWS) * outer;
    const lane = (row % TILE_ROWS) * 4;
    for (let pair = 0; pair < half; pair++) {
      const [run, inner] = [pair >>> 6, pair & 63];
      const thread = lane + (inner & 3);
      const word = ((tile + run) * 32 + thread) * 4 + (inner >>> 4);
      visit(row * half + pair, word, ((inner >>> 2) & 3) * 4);
    }
  }
}

/** Row-major codes as tiles, the padding 0. */
export function packTiles(codes: Uint8Array, shape: Shape): HostTensor {
  const [tiles, runs] = tileShape(shape);
  const words = new Uint32Array(tiles * runs * TILE_BYTES / 4);
  tileOrder(shape, (byte, word, shift) => {
    words[word] |= (codes[byte] & 15) << shift | (codes[byte] >>> 4) << (shift + 16);
  });
  return new HostTensor("int32", tileShape(shape), new Uint8Array(words.buffer));
}

/** Tiles as row-major codes; whatever lies in the padding is left out. */
export function unpackTiles(tiles: Uint8Array, shape: Shape): Uint8Array {
  const words = new Uint32Array(tiles.slice().buffer);
  const codes = new Uint8Array(shape[0] * shape[1] / 2);
  tileOrder(shape, (byte, word, shift) => {
    const bits = words[word];
    codes[byte] = (bits >>> shift) & 15 | ((bits >>> (shift + 16)) & 15) << 4;
  });
  return codes;
}

/** Scales and zeros of the groups of all rows ([rows, groups] each) as the kernel reads them. */
export function packScaleAndZero(
  shape: Shape,
  groupSize: number,
  scale: Float32Array,
  zero: Float32Array,
  padding: readonly [scale: number, zero: number],
): HostTensor {
  const [rows, columns] = tilePaddedShape(shape);
  const groups = shape[1] / groupSize;
  const values = Float32Array.from({ length: columns / groupSize * rows * 2 }, (_, index) => {
    return padding[index % 2];
  });
  for (let row = 0; row < shape[0]; row++) {
    for (let group = 0; group < groups; group++) {
      const place = 2 * (group * rows + row);
      values[place] = scale[row * groups + group];
      values[place + 1] = zero[row * groups + group];
    }
  }
  return new HostTensor(
    "bfloat16",
    [columns / groupSize, rows, 2],
    fromFloat32("bfloat16", values),
  );
}

/** The reverse of `packScaleAndZero`, without the padding. */
export function unpackScaleAndZero(
  packed: HostTensor,
  shape: Shape,
  groupSize: number,
): { readonly scale: Float32Array; readonly zero: Float32Array } {
  const values = packed.toFloat32();
  const padded = tilePaddedShape(shape)[0];
  const groups = shape[1] / groupSize;
  const part = (offset: number) =>
    Float32Array.from({ length: shape[0] * groups }, (_, index) => {
      const [row, group] = [Math.floor(index / groups), index % groups];
      return values[2 * (group * padded + row) + offset];
    });
  return { scale: part(0), zero: part(1) };
}
