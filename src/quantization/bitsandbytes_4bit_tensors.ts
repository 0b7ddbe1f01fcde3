/**
 * The tensors of a bitsandbytes 4-bit weight X.weight in a state dict, to the layout and back:
 *
 *     X.weight                                   uint8 [(n + 1) / 2, 1] (or a float view of it)
 *     X.weight.absmax                            float32 [groups], uint8 [groups] when nested
 *     X.weight.quant_map                         float32 [16]
 *     X.weight.nested_absmax, .nested_quant_map  float32 [groups / 256], [256]
 *     X.weight.quant_state.bitsandbytes__nf4     uint8 [length], JSON
 *
 * The library packs element 2j into the high nibble; the layout has it low.
 */

import { HalftoneError } from "../errors.ts";
import { type DType, itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import { type QuantState, readQuantState, writeQuantState } from "./bitsandbytes_state.ts";
import type { DenseDType } from "./bitsandbytes_state.ts";
import type { FourBitType } from "./bitsandbytes_tables.ts";
import { packedBytes } from "./codes.ts";
import { checkFinite } from "./float_slices.ts";
import type {
  EncodedWeight,
  NamedTensor,
  PieceReader,
  PutBytes,
  StreamedTensor,
  TensorReader,
} from "./quantizer.ts";
import type { QuantizedLayout, QuantizedTensor, ScaleData } from "./quantized_tensor.ts";
import { type CodeChange, streamCodes, swapNibbles as swapPieceNibbles } from "./stored_codes.ts";

/** Types bnb_4bit_quant_storage may name; the bytes are the same under each. */
export const STORAGE_DTYPES = [
  "uint8",
  "int8",
  "float16",
  "bfloat16",
  "float32",
  "float64",
] as const satisfies readonly StorageDType[];
/** A type of `STORAGE_DTYPES`. */
export type StorageDType = Extract<
  DType,
  "uint8" | "int8" | "float16" | "bfloat16" | "float32" | "float64"
>;

const STATE_PREFIX = ".quant_state.bitsandbytes__";
const COMPANIONS = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];

/** The name of the weight that a companion belongs to; null for other tensors. */
export function fourBitOwner(name: string): string | null {
  const state = name.lastIndexOf(STATE_PREFIX);
  if (state > 0) return name.slice(0, state);
  const suffix = COMPANIONS.find((ending) => name.endsWith(`.weight${ending}`));
  return suffix ? name.slice(0, -suffix.length) : null;
}

/** The 4-bit type that the checkpoint's keys say the weight has; null when it is not a 4-bit weight. */
export function storedFourBitType(name: string, checkpoint: TensorReader): FourBitType | null {
  if (checkpoint.entries.has(`${name}${STATE_PREFIX}nf4`)) return "nf4";
  return checkpoint.entries.has(`${name}${STATE_PREFIX}fp4`) ? "fp4" : null;
}

/** What the small companions of a stored weight say. */
export interface FourBitHeader {
  readonly state: QuantState;
  readonly layout: QuantizedLayout;
}

/** Reads the small companions (state and maps) and checks every shape against them. */
export async function readFourBitHeader(
  name: string,
  checkpoint: TensorReader,
): Promise<FourBitHeader> {
  const type = storedFourBitType(name, checkpoint);
  const stateName = `${name}${STATE_PREFIX}${type ?? "nf4"}`;
  const state = readQuantState(stateName, await readCompanion(stateName, checkpoint));
  if (state.quantType !== type) throw wrongType(stateName, state.quantType, type);
  const table = await readMap(`${name}.quant_map`, checkpoint, 16);
  const layout: QuantizedLayout = {
    bits: 4,
    value: { kind: "table", table },
    groupSize: state.blockSize,
    scale: state.nested ? await nestedScale(name, checkpoint, state.nested.blockSize) : FLOAT_SCALE,
    offset: null,
  };
  checkShapes(name, checkpoint, state);
  return { state, layout };
}

const FLOAT_SCALE = { kind: "float", dtype: "float32" } as const;

async function nestedScale(
  name: string,
  checkpoint: TensorReader,
  superGroupSize: number,
): Promise<QuantizedLayout["scale"]> {
  const table = await readMap(`${name}.nested_quant_map`, checkpoint, 256);
  const value = { kind: "table", table } as const;
  return { kind: "coded", bits: 8, value, superGroupSize, superDtype: "float32" };
}

/** Reads a stored weight whole. */
export async function readFourBit(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
  const { state, layout } = await readFourBitHeader(name, checkpoint);
  const packed = await checkpoint.read(name, { packed: true });
  const count = elementCount(state.shape);
  const codes = swapNibbles(packed.bytes);
  if (count % 2 === 1) codes[codes.length - 1] &= 15; // the library pads with a code, the layout with 0
  const verbatim = await readVerbatim(name, checkpoint, state, packed);
  const scale = await readScale(name, checkpoint, state);
  return {
    tensor: { shape: state.shape, layout, codes, scale, offset: null },
    dtype: state.dtype,
    verbatim,
  };
}

/** Reads a stored weight, whose codes go to `put`. */
export async function streamFourBit(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
): Promise<StreamedTensor> {
  const { state, layout } = await readFourBitHeader(name, checkpoint);
  const count = elementCount(state.shape);
  const change: CodeChange = (piece, kernels) => {
    const { bytes, start } = piece;
    swapPieceNibbles(piece, kernels);
    if (2 * (start + bytes.length) > count) bytes[bytes.length - 1] &= 15; // as in `readFourBit`
  };
  await streamCodes(name, checkpoint, put, { change, packed: true });
  const scale = await readScale(name, checkpoint, state);
  return { shape: state.shape, layout, scale, offset: null };
}

async function readScale(
  name: string,
  checkpoint: TensorReader,
  state: QuantState,
): Promise<ScaleData> {
  const absmax = await checkpoint.read(`${name}.absmax`);
  if (!state.nested) return { kind: "float", values: finite(`${name}.absmax`, absmax) };
  const supers = await checkpoint.read(`${name}.nested_absmax`);
  return {
    kind: "coded",
    codes: absmax.bytes,
    supers: finite(`${name}.nested_absmax`, supers),
    constant: Math.fround(state.nested.offset),
  };
}

/** What writing would not give back byte for byte: another spelling, storage type, shape or padding. */
async function readVerbatim(
  name: string,
  checkpoint: TensorReader,
  state: QuantState,
  packed: HostTensor,
): Promise<Map<string, HostTensor>> {
  const count = elementCount(state.shape);
  const verbatim = new Map<string, HostTensor>();
  const stored = await checkpoint.read(`${name}${STATE_PREFIX}${state.quantType}`);
  if (!sameBytes(stored.bytes, writeQuantState(state).bytes)) verbatim.set(STATE_KEY, stored);
  const usual = packed.dtype === "uint8" && sameShape(packed.shape, packedShape(count, "uint8"));
  if (!usual || count % 2 === 1) verbatim.set(WEIGHT_KEY, packed);
  return verbatim;
}

const STATE_KEY = "quant_state";
const WEIGHT_KEY = "weight";

/** The state-dict tensors of a weight, in the library's order. */
export function writeFourBit(
  name: string,
  weight: EncodedWeight,
  type: FourBitType,
  storage: StorageDType,
): NamedTensor[] {
  const { tensor, verbatim } = weight;
  const packed = verbatim?.get(WEIGHT_KEY) ?? packTensor(tensor, type, storage);
  const state = verbatim?.get(STATE_KEY) ?? writeQuantState(stateOf(weight, type));
  return [
    { name, tensor: packed },
    ...scaleTensors(name, tensor.scale),
    { name: `${name}.quant_map`, tensor: mapTensor(tensor.layout.value) },
    ...nestedTensors(name, weight),
    { name: `${name}${STATE_PREFIX}${type}`, tensor: state },
  ];
}

/** The shape of a packed weight of `count` elements under a storage type. */
export function packedShape(count: number, storage: DType): Shape {
  return [packedBytes(count, 4) / itemSize(storage), 1];
}

function packTensor(tensor: QuantizedTensor, type: FourBitType, dtype: StorageDType): HostTensor {
  const count = elementCount(tensor.shape);
  const bytes = swapNibbles(tensor.codes);
  // The library pads with the value 0 before it looks for the code.
  if (count % 2 === 1) bytes[bytes.length - 1] |= type === "nf4" ? 7 : 0;
  return new HostTensor(dtype, packedShape(count, dtype), bytes);
}

function scaleTensors(name: string, scale: ScaleData): NamedTensor[] {
  const tensor = scale.kind === "float"
    ? scale.values
    : new HostTensor("uint8", [scale.codes.length], scale.codes);
  return [{ name: `${name}.absmax`, tensor }];
}

function nestedTensors(name: string, { tensor }: EncodedWeight): NamedTensor[] {
  const { layout, scale } = tensor;
  if (scale.kind === "float" || layout.scale.kind === "float") return [];
  return [
    { name: `${name}.nested_absmax`, tensor: scale.supers },
    { name: `${name}.nested_quant_map`, tensor: mapTensor(layout.scale.value) },
  ];
}

function mapTensor(value: QuantizedLayout["value"]): HostTensor {
  if (value.kind === "table") return HostTensor.fromFloat32(value.table);
  throw new HalftoneError(
    "unsupported",
    "Cannot write integer codes as a bitsandbytes 4-bit weight",
  );
}

function stateOf({ tensor, dtype }: EncodedWeight, quantType: FourBitType): QuantState {
  const { layout, scale, shape } = tensor;
  const nested = scale.kind === "coded" && layout.scale.kind === "coded"
    ? { blockSize: layout.scale.superGroupSize, offset: scale.constant }
    : null;
  return { quantType, blockSize: layout.groupSize, dtype: dtype as DenseDType, shape, nested };
}

/** Four bytes at a time: loading is as fast as this. */
function swapNibbles(bytes: Uint8Array): Uint8Array {
  const swapped = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  swapped.set(bytes);
  const words = new Uint32Array(swapped.buffer);
  for (let index = 0; index < words.length; index++) {
    const word = words[index];
    words[index] = (word & 0x0f0f0f0f) << 4 | word >>> 4 & 0x0f0f0f0f;
  }
  return swapped.subarray(0, bytes.length);
}

function checkShapes(name: string, checkpoint: TensorReader, state: QuantState): void {
  const count = elementCount(state.shape);
  const groups = Math.ceil(count / state.blockSize);
  checkPacked(name, checkpoint, count);
  checkEntry(`${name}.absmax`, checkpoint, state.nested ? "uint8" : "float32", [groups]);
  if (!state.nested) return;
  const supers = Math.ceil(groups / state.nested.blockSize);
  checkEntry(`${name}.nested_absmax`, checkpoint, "float32", [supers]);
}

function checkPacked(name: string, checkpoint: TensorReader, count: number): void {
  const entry = checkpoint.entries.get(name);
  if (!entry) throw missing(name, checkpoint);
  const known = STORAGE_DTYPES.some((dtype) => dtype === entry.dtype);
  const expected = packedShape(count, known ? entry.dtype : "uint8");
  const transposed = [expected[1], expected[0]]; // old versions of the library stored X.weight.t()
  if (known && (sameShape(entry.shape, expected) || sameShape(entry.shape, transposed))) return;
  throw mismatch(name, entry.file, `${entry.dtype} [${entry.shape}]`, `uint8 [${expected}]`);
}

function checkEntry(name: string, checkpoint: TensorReader, dtype: DType, shape: Shape): void {
  const entry = checkpoint.entries.get(name);
  if (!entry) throw missing(name, checkpoint);
  if (entry.dtype === dtype && sameShape(entry.shape, shape)) return;
  throw mismatch(name, entry.file, `${entry.dtype} [${entry.shape}]`, `${dtype} [${shape}]`);
}

async function readMap(
  name: string,
  checkpoint: TensorReader,
  length: number,
): Promise<Float32Array> {
  checkEntry(name, checkpoint, "float32", [length]);
  return finite(name, await checkpoint.read(name)).toFloat32();
}

async function readCompanion(name: string, checkpoint: TensorReader): Promise<HostTensor> {
  const entry = checkpoint.entries.get(name);
  if (!entry) throw missing(name, checkpoint);
  if (entry.dtype !== "uint8" || elementCount(entry.shape) > MAX_STATE_BYTES) {
    throw mismatch(name, entry.file, `${entry.dtype} [${entry.shape}]`, "uint8, a short JSON text");
  }
  return await checkpoint.read(name);
}

/** A quant_state is some 150 bytes of JSON. */
const MAX_STATE_BYTES = 4096;

function finite(name: string, tensor: HostTensor): HostTensor {
  checkFinite({ start: 0, values: tensor.toFloat32() }, name);
  return tensor;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function missing(name: string, checkpoint: TensorReader): HalftoneError {
  const file = checkpoint.entries.get(fourBitOwner(name) ?? name)?.file;
  return new HalftoneError("missing_tensor", "Cannot read a bitsandbytes 4-bit weight", {
    file,
    tensor: name,
    remedy: "The checkpoint is incomplete; save it again with Diffusers or halftone quantize",
  });
}

function mismatch(tensor: string, file: string | undefined, found: string, expected: string) {
  return new HalftoneError(
    "tensor_shape_mismatch",
    "Cannot read a bitsandbytes 4-bit weight",
    { file, tensor, found, expected },
  );
}

function wrongType(tensor: string, found: string, expected: string | null): HalftoneError {
  return new HalftoneError("quantization_config", "Cannot use a quant_state", {
    tensor,
    field: "quant_type",
    found,
    expected: expected ?? "nf4 or fp4",
  });
}
