/** Whole GGUF tensors: rows of blocks to the one weight layout, and back without loss. */

import { HalftoneError } from "../errors.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { packedBytes } from "./codes.ts";
import {
  type BlockScale,
  GGUF_BLOCKS,
  type GgufBlock,
  ggufLayout,
  ggufTypeOfLayout,
  unitScale,
} from "./gguf_blocks.ts";
import { type GgufBlockType, ggufTypeInfo } from "./gguf_types.ts";
import type { QuantizedTensor, ScaleData } from "./quantized_tensor.ts";

/** How many blocks a matrix has. Throws `tensor_shape_mismatch` when its rows are not whole blocks. */
export function blockCount(
  type: GgufBlockType,
  [rows, columns]: readonly [number, number],
  tensor?: string,
): number {
  const { elements } = ggufTypeInfo(type);
  if (columns % elements === 0) return rows * columns / elements;
  throw new HalftoneError("tensor_shape_mismatch", `Cannot divide a row into ${type} blocks`, {
    tensor,
    found: `${columns} columns`,
    expected: `a multiple of ${elements}`,
  });
}

/**
 * Decodes the blocks of a matrix, as kernels do (gguf_split.ts) where there are some. Throws
 * `non_finite_weight` for a scale that is NaN or infinite.
 */
export function decodeBlocks(
  type: GgufBlockType,
  bytes: Uint8Array,
  shape: readonly [number, number],
  name?: string,
): QuantizedTensor {
  const block = GGUF_BLOCKS[type];
  const blocks = blockCount(type, shape, name);
  const { bytes: stride } = ggufTypeInfo(type);
  const walk = { bytes, blocks, stride, name };
  return {
    shape: [shape[0], shape[1]],
    layout: ggufLayout(type, blocks),
    codes: readCodes(walk, block.planes, ggufTypeInfo(type).elements, block.bits),
    scale: readScale(walk, block.scale),
    offset: block.offset && readScale(walk, block.offset),
  };
}

interface Walk {
  readonly bytes: Uint8Array;
  readonly blocks: number;
  /** Bytes of a block. */
  readonly stride: number;
  readonly name?: string;
}

function readCodes(walk: Walk, planes: GgufBlock["planes"], count: number, bits: number) {
  const stream = new Uint8Array(packedBytes(walk.blocks * count, bits));
  const codes = new Uint8Array(count);
  const packer = new StreamPacker(stream, bits);
  for (let block = 0, at = 0; block < walk.blocks; block++, at += walk.stride) {
    planes.read(walk.bytes, at, codes);
    packer.add(codes);
  }
  packer.finish();
  return stream;
}

function readScale(walk: Walk, scale: BlockScale): ScaleData {
  if (scale.kind === "float") return { kind: "float", values: readFloats(walk, scale.at, false) };
  const codes = readCodes(walk, scale.planes, scale.groups, scale.bits);
  const supers = scale.superAt === null
    ? unitScale()
    : readFloats(walk, scale.superAt, scale.negated ?? false);
  return { kind: "coded", codes, supers, constant: 0 };
}

/** One float16 of each block; negating is a bit, so nothing is lost. */
function readFloats({ bytes, blocks, stride, name }: Walk, at: number, negated: boolean) {
  const words = new Uint16Array(blocks);
  const sign = negated ? 0x8000 : 0;
  for (let block = 0; block < blocks; block++, at += stride) {
    words[block] = (bytes[at] | bytes[at + 1] << 8) ^ sign;
  }
  const values = new HostTensor("float16", [blocks], new Uint8Array(words.buffer));
  const special = lastNotFinite(values);
  if (special >= 0) throw notFinite(name, special);
  return values;
}

/** The last NaN or infinity of float16 numbers; -1 when there is none. */
export function lastNotFinite({ bytes, size }: HostTensor): number {
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, size);
  let special = size - 1;
  while (special >= 0 && (words[special] & 0x7c00) !== 0x7c00) special--;
  return special;
}

/** Throws `non_finite_weight` when a scale or minimum of a block is NaN or infinite. */
export function checkBlockScales(type: GgufBlockType, bytes: Uint8Array, name?: string): void {
  const block = infiniteScale(type, bytes);
  if (block >= 0) throw notFinite(name, block);
}

/** The first block with a scale or minimum that is NaN or infinite; -1 when there is none. */
export function infiniteScale(type: GgufBlockType, bytes: Uint8Array): number {
  const { scale, offset } = GGUF_BLOCKS[type];
  const { bytes: stride } = ggufTypeInfo(type);
  for (const part of [scale, offset]) {
    const start = part?.kind === "coded" ? part.superAt : part?.at;
    if (start === null || start === undefined) continue;
    for (let at = start + 1; at < bytes.length; at += stride) {
      if ((bytes[at] & 0x7c) === 0x7c) return Math.floor(at / stride);
    }
  }
  return -1;
}

/** The error of a scale that is NaN or infinite. */
export function notFinite(tensor: string | undefined, block: number): HalftoneError {
  return new HalftoneError("non_finite_weight", "Cannot use a weight that is not finite", {
    tensor,
    found: `a scale that is NaN or infinite in block ${block}`,
    remedy: "The checkpoint is damaged or was saved after training diverged",
  });
}

/** The blocks of a matrix in the layout of `type`. Throws `unsupported` for another layout. */
export function encodeBlocks(type: GgufBlockType, tensor: QuantizedTensor): Uint8Array {
  const { bits, planes, scale, offset } = GGUF_BLOCKS[type];
  const { elements, bytes: stride } = ggufTypeInfo(type);
  const blocks = blockCount(type, tensor.shape);
  checkLayout(type, tensor);
  const walk = { bytes: new Uint8Array(blocks * stride), blocks, stride };
  writeCodes(walk, planes, elements, bits, tensor.codes);
  writeScale(walk, scale, tensor.scale);
  if (offset && tensor.offset) writeScale(walk, offset, tensor.offset);
  return walk.bytes;
}

function checkLayout(type: GgufBlockType, { layout }: QuantizedTensor): void {
  if (ggufTypeOfLayout(layout) === type) return;
  throw new HalftoneError("unsupported", `Cannot write another layout as ${type}`);
}

function writeCodes(
  { bytes, blocks, stride }: Walk,
  planes: GgufBlock["planes"],
  count: number,
  bits: number,
  stream: Uint8Array,
): void {
  const codes = new Uint8Array(count);
  const unpacker = new StreamUnpacker(stream, bits);
  for (let block = 0, at = 0; block < blocks; block++, at += stride) {
    unpacker.next(codes);
    planes.write(bytes, at, codes);
  }
}

function writeScale(walk: Walk, scale: BlockScale, data: ScaleData): void {
  if (scale.kind === "float") {
    if (data.kind === "float") writeFloats(walk, scale.at, data.values, false);
  } else if (data.kind === "coded") {
    writeCodes(walk, scale.planes, scale.groups, scale.bits, data.codes);
    if (scale.superAt === null) return;
    writeFloats(walk, scale.superAt, data.supers, scale.negated ?? false);
  }
}

function writeFloats(
  { bytes, blocks, stride }: Walk,
  at: number,
  values: HostTensor,
  negated: boolean,
): void {
  const sign = negated ? 0x80 : 0;
  for (let block = 0; block < blocks; block++, at += stride) {
    bytes[at] = values.bytes[2 * block];
    bytes[at + 1] = values.bytes[2 * block + 1] ^ sign;
  }
}

/** Appends codes to a dense bit stream. */
class StreamPacker {
  #pending = 0;
  #width = 0;
  #position = 0;

  constructor(readonly stream: Uint8Array, readonly bits: number) {}

  add(codes: Uint8Array): void {
    if (this.bits === 8) {
      this.stream.set(codes, this.#position);
      this.#position += codes.length;
    } else if (this.bits === 4 && codes.length % 2 === 0 && this.#width === 0) {
      this.#addNibbles(codes);
    } else if (this.bits <= 6 && codes.length % 8 === 0) this.#addEights(codes);
    else this.#addBits(codes);
  }

  /** Eight codes are as many bytes as a code has bits, so runs of them begin and end with a byte. */
  #addEights(codes: Uint8Array): void {
    const { stream, bits } = this;
    let position = this.#position;
    for (let i = 0; i < codes.length; i += 8) {
      const low = codes[i] | codes[i + 1] << bits | codes[i + 2] << 2 * bits |
        codes[i + 3] << 3 * bits;
      const high = codes[i + 4] | codes[i + 5] << bits | codes[i + 6] << 2 * bits |
        codes[i + 7] << 3 * bits;
      position = this.#writeHalves(stream, position, low, high);
    }
    this.#position = position;
  }

  /** Two halves of 4 * bits each, at most 24 bits. */
  #writeHalves(stream: Uint8Array, position: number, low: number, high: number): number {
    switch (this.bits) {
      case 2:
        stream[position] = low;
        stream[position + 1] = high;
        return position + 2;
      case 3:
        stream[position] = low;
        stream[position + 1] = low >> 8 | high << 4;
        stream[position + 2] = high >> 4;
        return position + 3;
      case 5:
        stream[position] = low;
        stream[position + 1] = low >> 8;
        stream[position + 2] = low >> 16 | high << 4;
        stream[position + 3] = high >> 4;
        stream[position + 4] = high >> 12;
        return position + 5;
      default: // 6
        stream[position] = low;
        stream[position + 1] = low >> 8;
        stream[position + 2] = low >> 16;
        stream[position + 3] = high;
        stream[position + 4] = high >> 8;
        stream[position + 5] = high >> 16;
        return position + 6;
    }
  }

  #addNibbles(codes: Uint8Array): void {
    const stream = this.stream;
    let position = this.#position;
    for (let i = 0; i < codes.length; i += 2) stream[position++] = codes[i] | codes[i + 1] << 4;
    this.#position = position;
  }

  #addBits(codes: Uint8Array): void {
    const { stream, bits } = this;
    let pending = this.#pending, width = this.#width, position = this.#position;
    for (let i = 0; i < codes.length; i++) {
      pending |= codes[i] << width;
      width += bits;
      while (width >= 8) {
        stream[position++] = pending & 255;
        pending >>= 8;
        width -= 8;
      }
    }
    this.#pending = pending;
    this.#width = width;
    this.#position = position;
  }

  finish(): void {
    if (this.#width > 0) this.stream[this.#position] = this.#pending;
  }
}

/** Takes codes off a dense bit stream, one after another. */
class StreamUnpacker {
  #pending = 0;
  #width = 0;
  #position = 0;

  constructor(readonly stream: Uint8Array, readonly bits: number) {}

  next(codes: Uint8Array): void {
    const { stream, bits } = this;
    const mask = (1 << bits) - 1;
    let pending = this.#pending, width = this.#width, position = this.#position;
    for (let i = 0; i < codes.length; i++) {
      if (width < bits) {
        pending |= stream[position++] << width;
        width += 8;
      }
      codes[i] = pending & mask;
      pending >>= bits;
      width -= bits;
    }
    this.#pending = pending;
    this.#width = width;
    this.#position = position;
  }
}
