/** GGUF's blocks taken apart by kernels, piece by piece: codes go on as they come, scales are gathered. */

import { HostTensor } from "../tensor/host_tensor.ts";
import {
  hasPieceMemory,
  type Piece,
  type PieceMemory,
  piecesOf,
  withPieceMemory,
} from "../tensor/piece_memory.ts";
import type { ScratchBytes } from "../tensor/scratch_bytes.ts";
import { packedBytes } from "./codes.ts";
import { type BlockScale, GGUF_BLOCKS, ggufLayout, unitScale } from "./gguf_blocks.ts";
import { blockCount, decodeBlocks, lastNotFinite, notFinite } from "./gguf_tensors.ts";
import { type GgufBlockType, ggufTypeInfo } from "./gguf_types.ts";
import type { QuantizedTensor, ScaleData } from "./quantized_tensor.ts";
import type { PutBytes, StreamedTensor } from "./quantizer.ts";
import { blockKind, kernelsOver, type QuantizeExports } from "./wasm_kernels.ts";

/** A matrix in blocks. */
export interface BlockMatrix {
  readonly type: GgufBlockType;
  /** In elements. */
  readonly shape: readonly [number, number];
  /** For messages. */
  readonly name: string;
  /** Where scales, and codes that are kept, may lie until it is reset. */
  readonly scratch?: ScratchBytes;
}

/** Takes blocks in memory apart. Throws `non_finite_weight` for a scale that is NaN or infinite. */
export async function splitBlocks(
  matrix: BlockMatrix,
  bytes: Uint8Array,
): Promise<QuantizedTensor> {
  const { type, shape, name, scratch } = matrix;
  if (!hasPieceMemory()) return decodeBlocks(type, bytes, shape, name);
  const codes = room(shape[0] * packedBytes(shape[1], GGUF_BLOCKS[type].bits), scratch);
  const unit = ggufTypeInfo(type).bytes;
  const put: PutBytes = (part, start) => codes.set(part, start);
  const rest = await splitPieces(matrix, put, (memory, take) => {
    piecesOf(bytes, memory, { unit }, take);
    return Promise.resolve();
  });
  return { ...rest, codes };
}

/** Takes blocks apart that `pass` passes through piece memory; their codes go to `put`. Throws so too. */
export async function splitPieces(
  { type, shape, name, scratch }: BlockMatrix,
  put: PutBytes,
  pass: (memory: PieceMemory, take: (piece: Piece) => void) => Promise<void>,
): Promise<StreamedTensor> {
  const blocks = blockCount(type, shape, name);
  const splitter = new Splitter(type, blocks, put, scratch);
  await withPieceMemory(async (memory) => {
    const kernels = await kernelsOver(memory);
    await pass(memory, (piece) => splitter.take(piece, memory, kernels));
  });
  return { shape: [...shape], layout: ggufLayout(type, blocks), ...splitter.scales(name) };
}

/** Streams begin at multiples of it. */
const ALIGNMENT = 16;
/** The kernel may write so much behind a stream. */
const SLACK = 8;

/** Streams in the order of the kernel: codes, then scales and minima, each with what multiplies its codes. */
class Splitter {
  readonly #type: GgufBlockType;
  readonly #blocks: number;
  readonly #put: PutBytes;
  /** Bytes that a block adds to each stream. */
  readonly #widths: readonly number[];
  /** The streams but the first. */
  readonly #gathered: readonly Uint8Array[];

  constructor(type: GgufBlockType, blocks: number, put: PutBytes, scratch?: ScratchBytes) {
    const { bits, scale, offset } = GGUF_BLOCKS[type];
    const { elements } = ggufTypeInfo(type);
    this.#type = type;
    this.#blocks = blocks;
    this.#put = put;
    this.#widths = [packedBytes(elements, bits), ...widths(scale), ...widths(offset)];
    this.#gathered = this.#widths.slice(1).map((width) => room(width * blocks, scratch));
  }

  take({ bytes, start }: Piece, memory: PieceMemory, kernels: QuantizeExports): void {
    const { bytes: stride } = ggufTypeInfo(this.#type);
    const [first, count] = [start / stride, bytes.length / stride];
    const streams = this.#streams(memory.output, count);
    const [codes, scale, scaleSupers, offset, offsetSupers] = streams;
    const kind = blockKind(this.#type);
    kernels
      .split(kind, bytes.byteOffset, count, codes, scale, scaleSupers, offset, offsetSupers);
    streams.forEach((address, index) => {
      const width = this.#widths[index];
      const made = memory.view(address, width * count);
      if (index === 0) this.#put(made, width * first);
      else this.#gathered[index - 1].set(made, width * first);
    });
  }

  /** Where the streams of a piece go. */
  #streams(output: number, count: number): number[] {
    let end = output;
    return this.#widths.map((width) => {
      const start = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
      end = start + width * count + SLACK;
      return start;
    });
  }

  /** The scales and offsets of all pieces. */
  scales(name: string): Pick<QuantizedTensor, "scale" | "offset"> {
    const { scale, offset } = GGUF_BLOCKS[this.#type];
    const [scales, scaleSupers, offsets, offsetSupers] = this.#gathered;
    return {
      scale: this.#scaleData(scale, scales, scaleSupers, name),
      offset: offset && this.#scaleData(offset, offsets, offsetSupers, name),
    };
  }

  #scaleData(scale: BlockScale, codes: Uint8Array, supers: Uint8Array, name: string): ScaleData {
    if (scale.kind === "float") return { kind: "float", values: this.#floats(codes, name) };
    const values = scale.superAt === null ? unitScale() : this.#floats(supers, name);
    return { kind: "coded", codes, supers: values, constant: 0 };
  }

  #floats(bytes: Uint8Array, name: string): HostTensor {
    const values = new HostTensor("float16", [this.#blocks], bytes);
    const block = lastNotFinite(values);
    if (block >= 0) throw notFinite(name, block);
    return values;
  }
}

/** Bytes of a block's scale codes (or of its one number), and of what multiplies them. */
function widths(scale: BlockScale | null): [number, number] {
  if (scale === null) return [0, 0];
  if (scale.kind === "float") return [2, 0];
  return [packedBytes(scale.groups, scale.bits), scale.superAt === null ? 0 : 2];
}

function room(bytes: number, scratch: ScratchBytes | undefined): Uint8Array {
  return scratch?.take(bytes) ?? new Uint8Array(bytes);
}
