/**
 * torchao's safetensors layout (prototype/safetensors): a weight X.weight is stored as
 *
 *     X._weight_qdata       codes: int8 [rows, columns], or float8, or packed int4 [rows, columns / 2]
 *     X._weight_scale       [rows, groups]; int4: [groups, rows]
 *     X._weight_zero_point  likewise, int8 (int4: a float)
 *
 * and the header's metadata says under "X.weight" of which class it is, as JSON. Small floats (fpx) have
 * no such class in torchao, which could only pickle them; ours is called FloatxTensor and follows suit.
 */

import { HalftoneError } from "../errors.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, sameShape } from "../tensor/shape.ts";
import { packCodes, packedBytes, unpackCodes } from "./codes.ts";
import { floatxFormat, floatxTable } from "./floatx.ts";
import { checkFinite } from "./float_slices.ts";
import { plainNumber, plainText } from "./plain_values.ts";
import type { QuantizedLayout } from "./quantized_tensor.ts";
import {
  type EncodedWeight,
  moduleOf,
  type NamedTensor,
  type PieceReader,
  type PutBytes,
  type StreamedTensor,
  type TensorReader,
} from "./quantizer.ts";
import { flipSigns, streamCodes } from "./stored_codes.ts";
import { int4Form } from "./torchao_int4_tensors.ts";
import {
  blockOf,
  dtypeOf,
  entryOf,
  expectDType,
  flat,
  invalid,
  parsed,
  PREFIX,
  shapeOf,
  tagged,
  unwritable,
} from "./torchao_parts.ts";
import {
  ACTIVATION_SCALE,
  ACTIVATION_ZERO,
  type StaticActivationScale,
  staticScale,
  storedActivations,
  type TorchaoActivations,
} from "./torchao_activations.ts";
import {
  type Float8DType,
  float8Table,
  FORMS,
  integerLayout,
  offsetsOf,
  scaleType,
  tableLayout,
  ZERO_POINT,
} from "./torchao_schemes.ts";

/** The parts of a weight, as torchao would store them. */
export function writeTorchao(name: string, weight: EncodedWeight): NamedTensor[] {
  const { tensor, form, verbatim } = weight;
  if (tensor.scale.kind !== "float") throw unwritable(name);
  const [rows] = tensor.shape;
  const groups = tensor.scale.values.size;
  const part = (suffix: string, value: HostTensor): NamedTensor => {
    return { name: `${moduleOf(name)}${PREFIX}${suffix}`, tensor: value };
  };
  const int4 = int4Form(form);
  if (int4) return int4.write(weight).map(([suffix, value]) => part(suffix, value));
  const shape = groups % rows === 0 ? [rows, groups / rows] : [1, 1];
  const parts = [
    part("qdata", codesTensor(weight)),
    part("scale", tensor.scale.values.reshape(shape)),
  ];
  const beside = [...verbatim ?? []].map(([suffix, value]) => {
    return { name: `${moduleOf(name)}.${suffix}`, tensor: value };
  });
  return [...parts, ...beside];
}

function codesTensor({ tensor, form }: EncodedWeight): HostTensor {
  const { shape, codes, layout } = tensor;
  if (form === "FloatxTensor") return new HostTensor("uint8", [codes.length], codes);
  if (layout.value.kind === "table") {
    const isE5m2 = layout.value.table[1] === 2 ** -16;
    return new HostTensor(isE5m2 ? "float8_e5m2" : "float8_e4m3fn", shape, codes);
  }
  const middle = layout.value.zeroPoint;
  const bytes = unpackCodes(codes, layout.bits, elementCount(shape));
  for (let index = 0; index < bytes.length; index++) bytes[index] -= middle; // modulo 256: an int8
  return new HostTensor("int8", shape, bytes);
}

/** What a header says of a stored weight, checked. */
export interface StoredTorchao {
  readonly form: string;
  readonly shape: readonly [number, number];
  readonly dtype: DType;
  readonly bits: number;
  readonly groupSize: number;
  /** Of a small float. */
  readonly table?: Float32Array;
}

/** Parses the metadata of a weight. Throws `missing_tensor`, `unsupported`, `tensor_shape_mismatch`. */
export function describeTorchao(name: string, checkpoint: TensorReader): StoredTorchao {
  const { _type: form, _data: data } = parsed(name, checkpoint);
  const qdata = entryOf(name, "qdata", checkpoint);
  const isPacked = int4Form(form) !== undefined || form === "FloatxTensor";
  const shape = shapeOf(name, isPacked ? data.shape : qdata.shape);
  refuseScaledActivations(name, checkpoint);
  switch (form) {
    case "Int8Tensor":
      expectDType(name, qdata.dtype, ["int8"]);
      return {
        form,
        shape,
        bits: 8,
        groupSize: blockOf(name, data, shape),
        dtype: dtypeOf(name, data.dtype),
      };
    case "IntxUnpackedToInt8Tensor": {
      expectDType(name, qdata.dtype, ["int8"]);
      const bits = Number(/^int([1-8])$/.exec(plainText(tagged(data.target_dtype)))?.[1]);
      if (!(bits >= 1)) throw invalid(name, "target_dtype", data.target_dtype, "int1 to int8");
      return {
        form,
        shape,
        bits,
        groupSize: blockOf(name, data, shape),
        dtype: dtypeOf(name, data.dtype),
      };
    }
    case "Int4Tensor":
    case "Int4PlainInt32Tensor":
    case "Int4TilePackedTo4dTensor": {
      const groupSize = blockOf(name, data, shape);
      if (groupSize % 2 !== 0 || shape[1] % groupSize !== 0) {
        throw invalid(name, "block_size", groupSize, "an even part of a row");
      }
      const { dtype } = int4Form(form)!.describe(name, { shape, groupSize }, checkpoint);
      return { form, shape, bits: 4, groupSize, dtype };
    }
    case "Float8Tensor": {
      const kind = expectDType(name, qdata.dtype, ["float8_e4m3fn", "float8_e5m2"]) as Float8DType;
      const groupSize = blockOf(name, data, shape);
      return {
        form,
        shape,
        bits: 8,
        groupSize,
        dtype: dtypeOf(name, data.dtype),
        table: float8Table(kind),
      };
    }
    case "FloatxTensor": {
      expectDType(name, qdata.dtype, ["uint8"]);
      const [ebits, mbits] = [plainNumber(data.ebits), plainNumber(data.mbits)];
      const valid = Number.isInteger(ebits) && Number.isInteger(mbits) && ebits > 0 && mbits >= 0 &&
        ebits + mbits <= 7;
      if (!valid) throw invalid(name, "ebits, mbits", `${ebits}, ${mbits}`, "at most 7 in all");
      const format = floatxFormat(ebits, mbits);
      const bytes = packedBytes(elementCount(shape), format.bits);
      if (!sameShape(qdata.shape, [bytes])) {
        throw invalid(name, "qdata", `[${qdata.shape}]`, `[${bytes}]`);
      }
      const dtype = dtypeOf(name, data.dtype);
      return {
        form,
        shape,
        bits: format.bits,
        groupSize: shape[1],
        dtype,
        table: floatxTable(format),
      };
    }
  }
  throw new HalftoneError("unsupported", "Cannot read a torchao weight of this class", {
    tensor: name,
    found: form,
    expected: Object.values(FORMS).join(", "),
  });
}

/** The layout of a stored weight; `zeroPoint` as it was read. */
export function storedTorchaoLayout(
  stored: StoredTorchao,
  scale: DType,
  zeroPoint: HostTensor | undefined,
): QuantizedLayout {
  const own = { kind: "float", dtype: scaleType(scale) } as const;
  if (stored.table) return tableLayout(stored.bits, stored.table, stored.groupSize, own);
  const shifted = zeroPoint?.bytes.some((byte) => byte !== 0) ?? false;
  const offset = shifted ? { kind: "float", dtype: "float32" } as const : null;
  return integerLayout(stored.bits, stored.groupSize, own, offset);
}

/** The layout of a stored weight; reads its zero points only. */
export async function readTorchaoLayout(
  name: string,
  checkpoint: TensorReader,
): Promise<{ stored: StoredTorchao; layout: QuantizedLayout; zeroPoint?: HostTensor }> {
  const stored = describeTorchao(name, checkpoint);
  const int4 = int4Form(stored.form);
  if (int4) return { stored, layout: int4.describe(name, stored, checkpoint).layout };
  const scale = entryOf(name, "scale", checkpoint);
  checkParts(name, stored, checkpoint);
  const zeroName = `${moduleOf(name)}${PREFIX}zero_point`;
  const zeroPoint = checkpoint.entries.has(zeroName) ? await checkpoint.read(zeroName) : undefined;
  return { stored, layout: storedTorchaoLayout(stored, scale.dtype, zeroPoint), zeroPoint };
}

/** Reads a stored weight. */
export async function readTorchao(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
  const { stored, layout, zeroPoint } = await readTorchaoLayout(name, checkpoint);
  const { form, dtype, bits } = stored;
  const int4 = int4Form(form);
  if (int4) return { form, dtype, ...await int4.read(name, stored, checkpoint) };
  const { bytes } = await checkpoint.read(`${moduleOf(name)}${PREFIX}qdata`);
  const codes = stored.table ? bytes : middleCodes(name, bytes, bits);
  const rest = await readRest(name, { stored, layout, zeroPoint }, checkpoint);
  const { parts } = await readTorchaoActivations(name, checkpoint);
  const verbatim = zeroPoint && new Map([[ZERO_POINT, zeroPoint], ...parts]);
  return { form, dtype, verbatim, tensor: { ...rest, codes } };
}

/** Reads a stored weight, whose codes go to `put`; null where they are no bytes, or lie in another order. */
export async function streamTorchao(
  name: string,
  checkpoint: PieceReader,
  put: PutBytes,
): Promise<StreamedTensor | null> {
  const described = await readTorchaoLayout(name, checkpoint);
  const { form, table, bits } = described.stored;
  if (int4Form(form) || (!table && bits !== 8)) return null;
  const change = table ? null : flipSigns;
  await streamCodes(`${moduleOf(name)}${PREFIX}qdata`, checkpoint, put, { change });
  return await readRest(name, described, checkpoint);
}

/** All but the codes. */
async function readRest(
  name: string,
  { stored, layout, zeroPoint }: Awaited<ReturnType<typeof readTorchaoLayout>>,
  checkpoint: TensorReader,
): Promise<StreamedTensor> {
  const module = moduleOf(name);
  const scale = await checkpoint.read(`${module}${PREFIX}scale`);
  checkFinite({ start: 0, values: scale.toFloat32() }, `${module}${PREFIX}scale`);
  const values = flat(scale);
  const offset = layout.offset && zeroPoint
    ? HostTensor.fromFloat32(offsetsOf(zeroPoint.toFloat32(), values.toFloat32()))
    : null;
  // Their product may overflow though both are finite.
  if (offset) checkFinite({ start: 0, values: offset.toFloat32() }, `${module}${PREFIX}zero_point`);
  return {
    shape: stored.shape,
    layout,
    scale: { kind: "float", values },
    offset: offset && { kind: "float", values: offset },
  };
}

/** How the activations of a stored weight are rounded, and what is stored of that. */
export async function readTorchaoActivations(
  name: string,
  checkpoint: TensorReader,
): Promise<{
  readonly activations: TorchaoActivations | null;
  readonly fixed: StaticActivationScale | null;
  readonly parts: ReadonlyMap<string, HostTensor>;
}> {
  const activations = storedActivations(name, parsed(name, checkpoint)._data);
  const parts = new Map<string, HostTensor>();
  for (const suffix of activations?.kind === "int8" ? [ACTIVATION_SCALE, ACTIVATION_ZERO] : []) {
    const tensor = `${moduleOf(name)}.${suffix}`;
    if (checkpoint.entries.has(tensor)) parts.set(suffix, await checkpoint.read(tensor));
  }
  return { activations, fixed: staticScale(name, parts), parts };
}

/** int8 values of `bits` bits as packed codes. */
function middleCodes(name: string, bytes: Uint8Array, bits: number): Uint8Array {
  const middle = 2 ** (bits - 1);
  const codes = new Uint8Array(bytes.length);
  for (let index = 0; index < bytes.length; index++) {
    const code = (bytes[index] + middle) & 255;
    if (code >= 2 * middle) {
      throw invalid(name, "qdata", (bytes[index] << 24) >> 24, `integers of ${bits} bits`);
    }
    codes[index] = code;
  }
  return packCodes(codes, bits);
}

function checkParts(name: string, stored: StoredTorchao, checkpoint: TensorReader): void {
  const [rows, columns] = stored.shape;
  const groups = rows * columns / stored.groupSize;
  const expected = groups % rows === 0 ? [rows, groups / rows] : [1, 1];
  const scale = entryOf(name, "scale", checkpoint);
  expectDType(name, scale.dtype, ["float32", "bfloat16", "float16"]);
  const squeezed = stored.form === "FloatxTensor" && sameShape(scale.shape, [rows]);
  if (!sameShape(scale.shape, expected) && !squeezed) {
    throw invalid(name, "scale", `[${scale.shape}]`, `[${expected}]`);
  }
  const zero = checkpoint.entries.get(`${moduleOf(name)}${PREFIX}zero_point`);
  if (!zero) return;
  expectDType(name, zero.dtype, ["int8"]);
  if (!sameShape(zero.shape, expected)) {
    throw invalid(name, "zero_point", `[${zero.shape}]`, `[${expected}]`);
  }
}

/** AWQ and SmoothQuant of torchao divide activations by a factor per column first. */
function refuseScaledActivations(name: string, checkpoint: TensorReader): void {
  const tensor = `${moduleOf(name)}${PREFIX}act_pre_scale`;
  if (!checkpoint.entries.has(tensor)) return;
  throw new HalftoneError("unsupported", "Cannot run a torchao weight that scales activations", {
    tensor,
    expected: "no such tensor",
  });
}
