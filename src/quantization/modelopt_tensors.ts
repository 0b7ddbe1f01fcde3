/**
 * ModelOpt's state dict of a compressed linear layer, both ways:
 *
 *     X.weight                     float8 or int8 [rows, columns]; packed uint8 [rows, columns / 2], flat for NF4
 *     X.input_quantizer._amax      the range of rounded activations, see modelopt_activations.ts
 *     X.weight_quantizer._amax     calibration; nothing needs it to run
 *     X.weight_quantizer._scale, ._double_scale, ._scale_zeros   see modelopt_encode.ts
 *
 * Of two packed codes the first is the high nibble, in NVFP4 the low one. ModelOpt keeps the shapes and
 * settings in a pickle beside the weights, which is not read: types and shapes of these tensors suffice. It is
 * written, for ModelOpt to read: see modelopt_state.ts.
 */

import { HalftoneError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, type Shape } from "../tensor/shape.ts";
import { unpackCodes } from "./codes.ts";
import { checkFinite } from "./float_slices.ts";
import { INPUT_AMAX, readInputAmax } from "./modelopt_activations.ts";
import type { ModelOptType } from "./modelopt_config.ts";
import { E2M1, MODELOPT_NF4, nf4Scales } from "./modelopt_encode.ts";
import { pythonJson } from "./python_json.ts";
import type { QuantizedLayout, ScaleData, ScaleLayout } from "./quantized_tensor.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type PieceReader,
  type PutBytes,
  type StreamedTensor,
  type TensorHeader,
  type TensorHeaders,
  type TensorReader,
  type WrittenTensor,
} from "./quantizer.ts";
import { rounderOf } from "./rounding.ts";
import {
  type CodeChange,
  flipSigns,
  streamCodes,
  swapNibbles as swapPieceNibbles,
} from "./stored_codes.ts";
import { float8Table, integerLayout, scaleType, tableLayout } from "./torchao_schemes.ts";

/** What follows the module's name in the names of a weight's buffers. */
export const PREFIX = "weight_quantizer.";
/** The buffers, in ModelOpt's order. */
export const BUFFERS = ["_amax", "_global_amax", "_scale", "_double_scale", "_scale_zeros"];

/** The layout of a weight of this type. */
export function modelOptLayout(
  type: ModelOptType,
  shape: Shape,
  dtype: DType,
  groupSize: number,
): QuantizedLayout {
  const own: ScaleLayout = { kind: "float", dtype: scaleType(dtype) };
  switch (type) {
    case "FP8":
      return tableLayout(8, float8Table("float8_e4m3fn"), groupSize, own);
    case "INT8":
      return integerLayout(8, groupSize, own, null);
    case "INT4":
      return integerLayout(4, groupSize, { kind: "float", dtype: "float32" }, null);
    case "NF4":
      return tableLayout(4, MODELOPT_NF4, groupSize, own);
    case "NVFP4":
      return tableLayout(4, E2M1, groupSize, {
        kind: "coded",
        bits: 8,
        value: { kind: "table", table: float8Table("float8_e4m3fn") },
        superGroupSize: elementCount(shape) / groupSize,
        superDtype: "float32",
      });
  }
}

/** A weight from its codes, packed, and buffers. */
export function assemble(
  type: ModelOptType,
  shape: readonly [number, number],
  dtype: DType,
  groupSize: number,
  codes: Uint8Array,
  buffers: ReadonlyMap<string, HostTensor>,
): EncodedWeight {
  const layout = modelOptLayout(type, shape, dtype, groupSize);
  const scale = scaleData(type, layout, buffers, elementCount(shape) / groupSize);
  const tensor = { shape, layout, codes, scale, offset: null };
  return { form: type, dtype, verbatim: buffers, tensor };
}

function scaleData(
  type: ModelOptType,
  { scale: layout }: QuantizedLayout,
  buffers: ReadonlyMap<string, HostTensor>,
  groups: number,
): ScaleData {
  const stored = buffers.get("_scale")!;
  if (type === "NVFP4") {
    const supers = buffers.get("_double_scale")!.reshape([1]);
    return { kind: "coded", codes: stored.bytes, supers, constant: 0 };
  }
  const dtype = layout.kind === "float" ? layout.dtype : "float32";
  const values = (values: Float32Array) => HostTensor.fromFloat32(values).cast(dtype);
  if (type === "NF4") return { kind: "float", values: values(nf4Scales(buffers, groups)) };
  if (type === "INT4") {
    return { kind: "float", values: values(stored.toFloat32().map((inverse) => 1 / inverse)) };
  }
  return { kind: "float", values: stored.reshape([stored.size]) };
}

/** INT4 in its own type, by division; null where the layout's arithmetic is ModelOpt's. */
export function dequantizeModelOpt({ form, dtype, tensor, verbatim }: EncodedWeight) {
  const inverse = verbatim?.get("_scale")?.toFloat32();
  if (form !== "INT4" || !inverse) return null;
  const { shape, layout } = tensor;
  const round = rounderOf(dtype);
  const codes = unpackCodes(tensor.codes, layout.bits, elementCount(shape));
  const weights = Float32Array.from(codes, (code, index) => {
    return round((code - 8) / inverse[Math.floor(index / layout.groupSize)]);
  });
  return HostTensor.fromFloat32(weights, shape).cast(dtype);
}

/** The tensors of a weight in the order of ModelOpt's state dict. */
export function writeModelOpt(
  name: string,
  { form, tensor, verbatim }: EncodedWeight,
): NamedTensor[] {
  if (form === undefined || !verbatim) {
    throw new HalftoneError("unsupported", "Cannot write such a weight as ModelOpt", {
      tensor: name,
    });
  }
  const amax = verbatim.get(INPUT_AMAX);
  const inputs = amax ? [{ name: `${moduleOf(name)}.${INPUT_AMAX}`, tensor: amax }] : [];
  const buffers = BUFFERS.filter((buffer) => verbatim.has(buffer)).map((buffer) => {
    return { name: `${moduleOf(name)}.${PREFIX}${buffer}`, tensor: verbatim.get(buffer)! };
  });
  return [
    { name, tensor: packed(form as ModelOptType, tensor.shape, tensor.codes) },
    ...inputs,
    ...buffers,
  ];
}

function packed(type: ModelOptType, [rows, columns]: Shape, codes: Uint8Array): HostTensor {
  switch (type) {
    case "FP8":
      return new HostTensor("float8_e4m3fn", [rows, columns], codes);
    case "INT8":
      return new HostTensor("int8", [rows, columns], codes.map((code) => code ^ 128));
    case "NVFP4":
      return new HostTensor("uint8", [rows, columns / 2], codes);
    case "INT4":
      return new HostTensor("uint8", [rows, columns / 2], codes.map(swapNibbles));
    case "NF4":
      return new HostTensor("uint8", [codes.length], codes.map(swapNibbles));
  }
}

function swapNibbles(byte: number): number {
  return byte >> 4 | (byte & 15) << 4;
}

/** Whether the checkpoint holds this weight as ModelOpt compresses it. */
export function isModelOptWeight(name: string, checkpoint: TensorHeaders): boolean {
  return name.endsWith(".weight") && checkpoint.entries.has(`${moduleOf(name)}.${PREFIX}_scale`);
}

/** Whether a tensor is a buffer of a quantizer. */
export function isModelOptCompanion(tensor: string): boolean {
  return tensor.endsWith(`.${INPUT_AMAX}`) ||
    BUFFERS.some((buffer) => tensor.endsWith(`.${PREFIX}${buffer}`));
}

/** What our files' headers say of packed weights: nothing else tells NF4's rows or NVFP4's type. */
export function modelOptMetadata(tensors: readonly WrittenTensor[]): Record<string, string> {
  const named = tensors.filter(({ quantized }) => quantized);
  return Object.fromEntries(named.map(({ name, shape, dtype }) => {
    return [name, pythonJson({ shape, dtype })];
  }));
}

/** A stored weight as its tensors describe it. */
export interface StoredModelOpt {
  readonly type: ModelOptType;
  readonly shape: readonly [number, number];
  readonly groupSize: number;
  readonly dtype: DType;
}

/** Checks the headers of a stored weight. Throws `missing_tensor`, `tensor_shape_mismatch`. */
export function describeModelOpt(
  name: string,
  checkpoint: TensorHeaders,
  nf4Block: number,
): StoredModelOpt {
  const weight = entryOf(name, checkpoint);
  const scale = bufferOf(name, "_scale", checkpoint);
  const type = typeOf(name, checkpoint);
  const shape = shapeOf(name, type, checkpoint);
  const count = shape[0] * shape[1];
  const amax = checkpoint.entries.get(`${moduleOf(name)}.${PREFIX}_amax`);
  const padded = amax ? elementCount(amax.shape) : count / nf4Block; // scales are padded to whole blocks
  const groups = type === "NF4" ? padded : elementCount(scale.shape);
  const groupSize = count / groups;
  const isWhole = Number.isInteger(groups) && Number.isInteger(groupSize);
  if (!isWhole || (groups > 1 && shape[1] % groupSize !== 0)) {
    throw mismatch(`${moduleOf(name)}.${PREFIX}_scale`, `[${scale.shape}]`, `blocks of [${shape}]`);
  }
  const needed = {
    FP8: [],
    INT8: [],
    INT4: [],
    NF4: ["_double_scale", "_scale_zeros"],
    NVFP4: ["_double_scale"],
  };
  const sources = needed[type].map((buffer) => bufferOf(name, buffer, checkpoint));
  if (type === "NF4") checkNf4(name, groups, scale.shape, sources[0].shape);
  if (type === "NVFP4") checkDoubleScale(name, sources[0]);
  const dtype = denseType(type, name, scale.dtype, sources.at(-1)?.dtype, checkpoint);
  const isFloat = ["float32", "bfloat16", "float16"].includes(dtype);
  if (!isFloat || elementCount(weight.shape) === 0) throw mismatch(name, dtype, "float scales");
  return { type, shape, groupSize, dtype };
}

/** The type of the dense weight: that of its scales; NVFP4's say nothing. */
function denseType(
  type: ModelOptType,
  name: string,
  scale: DType,
  zeros: DType | undefined,
  checkpoint: TensorHeaders,
): DType {
  if (type === "NF4") return zeros!;
  if (type !== "NVFP4") return scale;
  const found = metadataOf(name, checkpoint)?.[2];
  return found === "float32" || found === "float16" ? found : "bfloat16";
}

/** [, rows, type] of the header's description. */
function metadataOf(name: string, checkpoint: TensorHeaders): RegExpExecArray | null {
  const description = /^\{"shape": \[([1-9]\d{0,9}), \d+\], "dtype": "(\w+)"\}$/;
  return description.exec(checkpoint.metadata?.[name] ?? "");
}

function checkDoubleScale(name: string, { dtype, shape }: TensorHeader): void {
  if (dtype === "float32" && elementCount(shape) === 1) return;
  const tensor = `${moduleOf(name)}.${PREFIX}_double_scale`;
  throw mismatch(tensor, `${dtype} [${shape}]`, "a float32 scalar");
}

function checkNf4(name: string, groups: number, scale: Shape, factors: Shape): void {
  const valid = scale.length === 2 && scale[0] * scale[1] >= groups &&
    elementCount(factors) === scale[0];
  if (valid) return;
  const tensor = `${moduleOf(name)}.${PREFIX}_scale`;
  throw mismatch(tensor, `[${scale}] and [${factors}]`, `[blocks, size] for ${groups} scales`);
}

/** The type that the tensors' types mean. */
export function typeOf(name: string, checkpoint: TensorHeaders): ModelOptType {
  const { dtype } = entryOf(name, checkpoint);
  const has = (buffer: string) => checkpoint.entries.has(`${moduleOf(name)}.${PREFIX}${buffer}`);
  if (dtype === "float8_e4m3fn") return "FP8";
  if (dtype === "int8") return "INT8";
  if (dtype !== "uint8") throw mismatch(name, dtype, "float8_e4m3fn, int8 or uint8");
  if (has("_scale_zeros")) return "NF4";
  return bufferOf(name, "_scale", checkpoint).dtype === "float8_e4m3fn" ? "NVFP4" : "INT4";
}

/** [rows, columns]; of flat codes from the header's metadata or the bias. */
function shapeOf(
  name: string,
  type: ModelOptType,
  checkpoint: TensorHeaders,
): readonly [number, number] {
  const { shape } = entryOf(name, checkpoint);
  if (type === "NF4") {
    const count = elementCount(shape) * 2;
    const rows = Number(metadataOf(name, checkpoint)?.[1]) ||
      checkpoint.entries.get(`${moduleOf(name)}.bias`)?.shape[0];
    if (rows && count % rows === 0) return [rows, count / rows];
    throw mismatch(name, `[${shape}]`, "a bias, or metadata, that gives its rows");
  }
  if (shape.length !== 2) throw mismatch(name, `[${shape}]`, "[rows, columns]");
  return [shape[0], type === "FP8" || type === "INT8" ? shape[1] : shape[1] * 2];
}

/** Reads a stored weight. */
export async function readModelOpt(
  name: string,
  checkpoint: TensorReader,
  nf4Block: number,
): Promise<EncodedWeight> {
  const stored = describeModelOpt(name, checkpoint, nf4Block);
  const buffers = await readBuffers(name, checkpoint);
  const { bytes } = await checkpoint.read(name);
  return checked(name, assembled(stored, unpacked(stored.type, bytes), buffers));
}

/** Reads a stored weight, whose codes go to `put`. */
export async function streamModelOpt(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
  nf4Block: number,
): Promise<StreamedTensor> {
  const stored = describeModelOpt(name, checkpoint, nf4Block);
  const buffers = await readBuffers(name, checkpoint);
  await streamCodes(name, checkpoint, put, { change: changeOf(stored.type) });
  const { codes: _, ...rest } = checked(name, assembled(stored, NO_CODES, buffers)).tensor;
  return rest;
}

const NO_CODES = new Uint8Array(0);

/** As `unpacked`. */
function changeOf(type: ModelOptType): CodeChange | null {
  if (type === "FP8" || type === "NVFP4") return null;
  return type === "INT8" ? flipSigns : swapPieceNibbles;
}

async function readBuffers(name: string, checkpoint: TensorReader) {
  const buffers = new Map<string, HostTensor>();
  for (const buffer of BUFFERS) {
    const tensor = `${moduleOf(name)}.${PREFIX}${buffer}`;
    // An inverse scale is infinite where all weights of a block are zero.
    if (checkpoint.entries.has(tensor)) {
      buffers.set(buffer, await checkpoint.read(tensor, { packed: true }));
    }
  }
  const amax = await readInputAmax(name, checkpoint);
  if (amax) buffers.set(INPUT_AMAX, amax);
  return buffers;
}

function assembled(
  { type, shape, dtype, groupSize }: ReturnType<typeof describeModelOpt>,
  codes: Uint8Array,
  buffers: ReadonlyMap<string, HostTensor>,
): EncodedWeight {
  return assemble(type, shape, dtype, groupSize, codes, buffers);
}

function checked(name: string, weight: EncodedWeight): EncodedWeight {
  const { scale } = weight.tensor;
  const values = scale.kind === "float" ? scale.values : scale.supers;
  checkFinite({ start: 0, values: values.toFloat32() }, `${moduleOf(name)}.${PREFIX}_scale`);
  return weight;
}

/** The codes as the layout packs them. */
function unpacked(type: ModelOptType, bytes: Uint8Array): Uint8Array {
  if (type === "FP8" || type === "NVFP4") return bytes;
  return type === "INT8" ? bytes.map((byte) => byte ^ 128) : bytes.map(swapNibbles);
}

function bufferOf(name: string, buffer: string, checkpoint: TensorHeaders) {
  return entryOf(`${moduleOf(name)}.${PREFIX}${buffer}`, checkpoint);
}

function entryOf(tensor: string, checkpoint: TensorHeaders) {
  const entry = checkpoint.entries.get(tensor);
  if (entry) return entry;
  throw new HalftoneError("missing_tensor", "Cannot read a ModelOpt weight", {
    tensor,
    remedy: "The checkpoint is incomplete; save it again",
  });
}

function mismatch(tensor: string, found: string, expected: string): HalftoneError {
  const message = "Cannot read a ModelOpt weight";
  return new HalftoneError("tensor_shape_mismatch", message, { tensor, found, expected });
}
