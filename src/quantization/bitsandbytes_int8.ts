/**
 * bitsandbytes LLM.int8() weights, byte for byte: the weight is cast to float16, each row scaled by its
 * absmax (kept as SCB, float32) to int8 -127..127, rounding half to even. In a state dict:
 *
 *     X.weight         int8 [rows, columns]
 *     X.SCB            float32 [rows]
 *     X.weight_format  uint8 scalar, 0 for row-major, the only order left
 *
 * In the layout a code is the int8 value + 128, the scale of a row its SCB, and 1 / 127 the multiplier
 * applied last, in the order int8_vectorwise_dequant multiplies.
 */

import { HalftoneError } from "../errors.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { sameShape, type Shape } from "../tensor/shape.ts";
import { type EncodeRule, integerCodes } from "./encode_rule.ts";
import { checkFinite } from "./float_slices.ts";
import { flipSigns, streamCodes } from "./stored_codes.ts";
import { encodeGroups, groupRanges, magnitudes } from "./groups.ts";
import type { Pause } from "./pause.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type PieceReader,
  type PutBytes,
  type StreamedTensor,
  type TensorReader,
} from "./quantizer.ts";
import type { QuantizedLayout, QuantizedTensor } from "./quantized_tensor.ts";

const fround = Math.fround;

/** Added to an int8 value to make a code. */
const ZERO_POINT = 128;

/** 1 / 127 as bitsandbytes spells it (7.874015718698502e-3), in float32. */
const ONE_127TH = fround(7.874015718698502e-3);

/** The layout of an int8 matrix. */
export function int8Layout(shape: Shape): QuantizedLayout {
  return {
    bits: 8,
    value: { kind: "integer", zeroPoint: ZERO_POINT },
    groupSize: shape[1],
    scale: { kind: "float", dtype: "float32", multiplier: ONE_127TH },
    offset: null,
  };
}

/** Quantizes a dense matrix; a value outside float16 throws `non_finite_weight` naming `name`. */
export async function quantizeInt8(
  name: string,
  dense: HostTensor,
  pause: Pause,
): Promise<QuantizedTensor> {
  const [rows, columns] = dense.shape;
  const cast = { toFloat16: true, cause: " in float16, which LLM.int8() casts to" };
  const absmax = magnitudes(await groupRanges(name, dense, columns, pause, cast));
  const layout = int8Layout(dense.shape);
  const options = { groupSize: columns, bits: 8, rule: rowRule(absmax), ...cast };
  const codes = await encodeGroups(name, dense, options, pause);
  const values = HostTensor.fromFloat32(absmax);
  return { shape: [rows, columns], layout, codes, scale: { kind: "float", values }, offset: null };
}

/** torch's 127.0 / tensor is a reciprocal first; rows of zeros stay zeros. */
function rowRule(absmax: Float32Array): EncodeRule {
  const factor = absmax.map((size) => size === 0 ? 0 : fround(1 / size) * 127);
  return { rounding: "float32", operation: "multiply", factor, code: integerCodes(-128, 127) };
}

/** Whether the tensor accompanies an int8 weight. */
export function isInt8Companion(name: string, checkpoint: TensorReader): boolean {
  if (!name.endsWith(".SCB") && !name.endsWith(".weight_format")) return false;
  return isInt8Weight(`${moduleOf(name)}.weight`, checkpoint);
}

/** Whether the checkpoint holds this weight as LLM.int8(). */
export function isInt8Weight(name: string, checkpoint: TensorReader): boolean {
  return name.endsWith(".weight") && checkpoint.entries.has(`${moduleOf(name)}.SCB`);
}

/** Checks the headers of a stored int8 weight and gives its shape. */
export function int8Shape(name: string, checkpoint: TensorReader): readonly [number, number] {
  const entry = checkpoint.entries.get(name);
  const scb = checkpoint.entries.get(`${moduleOf(name)}.SCB`);
  if (!entry || !scb) throw missingScb(name, entry?.file);
  if (entry.dtype !== "int8" || entry.shape.length !== 2 || entry.shape.includes(0)) {
    throw mismatch(name, entry.file, `${entry.dtype} [${entry.shape}]`, "int8 [rows, columns]");
  }
  if (scb.dtype !== "float32" || !sameShape(scb.shape, [entry.shape[0]])) {
    const found = `${scb.dtype} [${scb.shape}]`;
    throw mismatch(`${moduleOf(name)}.SCB`, scb.file, found, `float32 [${entry.shape[0]}]`);
  }
  return [entry.shape[0], entry.shape[1]];
}

/** Reads a stored int8 weight. */
export async function readInt8(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
  const rest = await readRest(name, checkpoint);
  const { bytes } = await checkpoint.read(name);
  return { tensor: { ...rest, codes: shifted(bytes) }, dtype: "float16" };
}

/** Reads a stored int8 weight, whose codes go to `put`. */
export async function streamInt8(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
): Promise<StreamedTensor> {
  const rest = await readRest(name, checkpoint);
  await streamCodes(name, checkpoint, put, { change: flipSigns });
  return rest;
}

/** All but the codes. */
async function readRest(name: string, checkpoint: TensorReader): Promise<StreamedTensor> {
  const shape = int8Shape(name, checkpoint);
  await checkFormat(`${moduleOf(name)}.weight_format`, checkpoint);
  const scbName = `${moduleOf(name)}.SCB`;
  const values = await checkpoint.read(scbName);
  checkFinite({ start: 0, values: values.toFloat32() }, scbName);
  return { shape, layout: int8Layout(shape), scale: { kind: "float", values }, offset: null };
}

/** The state-dict tensors of an int8 weight, in the library's order. */
export function writeInt8(name: string, { tensor }: EncodedWeight): NamedTensor[] {
  if (tensor.scale.kind !== "float") {
    throw new HalftoneError("unsupported", "Cannot write coded scales as LLM.int8()", {
      tensor: name,
    });
  }
  const weight = new HostTensor("int8", tensor.shape, shifted(tensor.codes));
  return [
    { name, tensor: weight },
    { name: `${moduleOf(name)}.SCB`, tensor: tensor.scale.values },
    { name: `${moduleOf(name)}.weight_format`, tensor: HostTensor.zeros("uint8", []) },
  ];
}

/** int8 bytes to codes and back: flipping the sign bit adds 128 modulo 256. */
function shifted(bytes: Uint8Array): Uint8Array {
  const result = new Uint8Array(bytes.length);
  for (let index = 0; index < bytes.length; index++) result[index] = bytes[index] ^ ZERO_POINT;
  return result;
}

async function checkFormat(name: string, checkpoint: TensorReader): Promise<void> {
  const entry = checkpoint.entries.get(name);
  if (!entry) return; // older files lack it; they are row-major too
  const format = await checkpoint.read(name);
  if (format.dtype === "uint8" && format.size === 1 && format.bytes[0] === 0) return;
  throw new HalftoneError("unsupported", "Cannot read an int8 weight in this order", {
    file: entry.file,
    tensor: name,
    found: format.bytes[0],
    expected: "0 (row-major)",
  });
}

function missingScb(name: string, file: string | undefined): HalftoneError {
  return new HalftoneError("missing_tensor", "Cannot read an LLM.int8() weight", {
    file,
    tensor: `${moduleOf(name)}.SCB`,
    remedy: "The checkpoint is incomplete; save it again with Diffusers or halftone quantize",
  });
}

function mismatch(tensor: string, file: string | undefined, found: string, expected: string) {
  return new HalftoneError("tensor_shape_mismatch", "Cannot read an LLM.int8() weight", {
    file,
    tensor,
    found,
    expected,
  });
}
