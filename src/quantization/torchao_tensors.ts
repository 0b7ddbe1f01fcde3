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
import { type DType, DTYPES } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { elementCount, sameShape, type Shape } from "../tensor/shape.ts";
import { packCodes, packedBytes, unpackCodes } from "./codes.ts";
import { floatxFormat, floatxTable } from "./floatx.ts";
import { checkFinite } from "./float_slices.ts";
import { plainNumber, plainText } from "./plain_values.ts";
import { type JsonValue, pythonJson } from "./python_json.ts";
import type { QuantizedLayout } from "./quantized_tensor.ts";
import { type EncodedWeight, moduleOf, type NamedTensor, type TensorReader } from "./quantizer.ts";
import {
  type Float8DType,
  float8Table,
  FORMS,
  granularityOf,
  groupSizeOf,
  integerLayout,
  offsetsOf,
  scaleType,
  type Scheme,
  tableLayout,
  ZERO_POINT,
} from "./torchao_schemes.ts";

const PREFIX = "._weight_";

/** The weight that a stored part belongs to; the name itself when it is no part. */
export function torchaoWeightOf(tensor: string): string {
  const start = tensor.indexOf(PREFIX);
  return start < 0 ? tensor : `${tensor.slice(0, start)}.weight`;
}

/** Whether a stored tensor is a part other than the codes. */
export function isTorchaoCompanion(tensor: string): boolean {
  return tensor.includes(PREFIX) && !tensor.endsWith(`${PREFIX}qdata`);
}

/** Whether the checkpoint holds this weight in parts. */
export function isTorchaoWeight(name: string, checkpoint: TensorReader): boolean {
  return name.endsWith(".weight") && checkpoint.entries.has(`${moduleOf(name)}${PREFIX}qdata`);
}

/** The metadata of a file: what each tensor is. */
export function torchaoMetadata(
  tensors: readonly { name: string; json: string | null }[],
): Record<string, string> {
  const metadata: Record<string, string> = {};
  for (const { name, json } of tensors) metadata[name] = json ?? pythonJson({ _type: "Tensor" });
  return { ...metadata, tensor_names: pythonJson(tensors.map(({ name }) => name)) };
}

/** What the header says of a weight made by a scheme. */
export function schemeJson(scheme: Scheme, shape: Shape, dtype: DType): string {
  const group = groupSizeOf(shape, granularityOf(scheme)) ?? shape[1];
  const block = group === elementCount(shape) ? [...shape] : [1, group];
  const names = ["qdata", "scale", "zero_point"];
  switch (scheme.kind) {
    case "int8":
      return objectJson("Int8Tensor", ["zero_point", "qdata", "scale"], {
        act_quant_kwargs: null,
        reduce_range: false,
        block_size: block,
        dtype: dtypeJson(dtype),
      });
    case "intx":
      return objectJson("IntxUnpackedToInt8Tensor", names, {
        target_dtype: dtypeJson(`int${scheme.bits}`),
        block_size: block,
        dtype: dtypeJson(dtype),
        activation_quantization: null,
      });
    case "int4":
      return objectJson("Int4Tensor", names, {
        activation_dtype: dtypeJson("bfloat16"),
        block_size: block,
        shape: [...shape],
      });
    case "float8":
      return objectJson("Float8Tensor", ["qdata", "scale"], {
        block_size: block,
        mm_config: null,
        act_quant_kwargs: null,
        kernel_preference: { _type: "KernelPreference", _data: "AUTO" },
        dtype: dtypeJson(dtype),
      });
    case "floatx":
      return objectJson(FORMS.floatx, ["qdata", "scale"], {
        ebits: scheme.format.exponentBits,
        mbits: scheme.format.mantissaBits,
        shape: [...shape],
        dtype: dtypeJson(dtype),
      });
  }
}

function objectJson(type: string, names: readonly string[], data: JsonValue): string {
  return pythonJson({ _type: type, _data: data, _tensor_data_names: names });
}

function dtypeJson(name: string): JsonValue {
  return { _type: "torch.dtype", _data: name };
}

/** The parts of a weight, as torchao would store them. */
export function writeTorchao(name: string, weight: EncodedWeight): NamedTensor[] {
  const { tensor, form, verbatim } = weight;
  if (tensor.scale.kind !== "float") throw unwritable(name);
  const [rows, columns] = tensor.shape;
  const groups = tensor.scale.values.size;
  const part = (suffix: string, value: HostTensor): NamedTensor => {
    return { name: `${moduleOf(name)}${PREFIX}${suffix}`, tensor: value };
  };
  if (form === "Int4Tensor") {
    const transposed = (values: HostTensor) => transpose(values.reshape([rows, groups / rows]));
    const offset = tensor.offset?.kind === "float" ? tensor.offset.values : undefined;
    if (!offset) throw unwritable(name);
    const packed = tensor.codes.map((byte) => byte ^ 0x88); // codes are q + 8, torchao's are q
    return [
      part("qdata", new HostTensor("int8", [rows, columns / 2], packed)),
      part("scale", transposed(tensor.scale.values)),
      part("zero_point", transposed(offset)),
    ];
  }
  const shape = groups % rows === 0 ? [rows, groups / rows] : [1, 1];
  const parts = [
    part("qdata", codesTensor(weight)),
    part("scale", tensor.scale.values.reshape(shape)),
  ];
  const zeroPoint = verbatim?.get(ZERO_POINT);
  return zeroPoint ? [...parts, part("zero_point", zeroPoint)] : parts;
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
  const shape = shapeOf(
    name,
    form === "Int4Tensor" || form === "FloatxTensor" ? data.shape : qdata.shape,
  );
  refuseActivations(name, data);
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
    case "Int4Tensor": {
      expectDType(name, qdata.dtype, ["int8", "uint8"]);
      const groupSize = blockOf(name, data, shape);
      if (groupSize % 2 !== 0 || !sameShape(qdata.shape, [shape[0], shape[1] / 2])) {
        throw invalid(name, "qdata", `[${qdata.shape}]`, `[${shape[0]}, ${shape[1] / 2}]`);
      }
      return { form, shape, bits: 4, groupSize, dtype: entryOf(name, "scale", checkpoint).dtype };
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
  if (stored.form === "Int4Tensor") return integerLayout(4, stored.groupSize, own, own);
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
  const scale = entryOf(name, "scale", checkpoint);
  checkParts(name, stored, checkpoint);
  const zeroName = `${moduleOf(name)}${PREFIX}zero_point`;
  const zeroPoint = checkpoint.entries.has(zeroName) ? await checkpoint.read(zeroName) : undefined;
  return { stored, layout: storedTorchaoLayout(stored, scale.dtype, zeroPoint), zeroPoint };
}

/** Reads a stored weight. */
export async function readTorchao(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
  const { stored, layout, zeroPoint } = await readTorchaoLayout(name, checkpoint);
  const { form, shape, dtype, bits } = stored;
  const module = moduleOf(name);
  const qdata = await checkpoint.read(`${module}${PREFIX}qdata`);
  const scale = await checkpoint.read(`${module}${PREFIX}scale`);
  checkFinite({ start: 0, values: scale.toFloat32() }, `${module}${PREFIX}scale`);
  const tensor = (codes: Uint8Array, values: HostTensor, offset: HostTensor | null) => ({
    shape,
    layout,
    codes,
    scale: { kind: "float", values } as const,
    offset: offset && { kind: "float", values: offset } as const,
  });
  if (form === "Int4Tensor") {
    const codes = qdata.bytes.map((byte) => byte ^ 0x88);
    const zero = flat(transpose(zeroPoint!));
    checkFinite({ start: 0, values: zero.toFloat32() }, `${module}${PREFIX}zero_point`);
    return { form, dtype, tensor: tensor(codes, flat(transpose(scale)), zero) };
  }
  const values = flat(scale);
  const codes = stored.table ? qdata.bytes : middleCodes(name, qdata.bytes, bits);
  const offset = layout.offset && zeroPoint
    ? HostTensor.fromFloat32(offsetsOf(zeroPoint.toFloat32(), values.toFloat32()))
    : null;
  // Their product may overflow though both are finite.
  if (offset) checkFinite({ start: 0, values: offset.toFloat32() }, `${module}${PREFIX}zero_point`);
  const verbatim = zeroPoint && new Map([[ZERO_POINT, zeroPoint]]);
  return { form, dtype, verbatim, tensor: tensor(codes, values, offset) };
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
  const natural = groups % rows === 0 ? [rows, groups / rows] : [1, 1];
  const expected = stored.form === "Int4Tensor" ? [groups / rows, rows] : natural;
  const scale = entryOf(name, "scale", checkpoint);
  expectDType(name, scale.dtype, ["float32", "bfloat16", "float16"]);
  const squeezed = stored.form === "FloatxTensor" && sameShape(scale.shape, [rows]);
  if (!sameShape(scale.shape, expected) && !squeezed) {
    throw invalid(name, "scale", `[${scale.shape}]`, `[${expected}]`);
  }
  const zero = checkpoint.entries.get(`${moduleOf(name)}${PREFIX}zero_point`);
  if (!zero && stored.form !== "Int4Tensor") return;
  const found = entryOf(name, "zero_point", checkpoint);
  expectDType(name, found.dtype, stored.form === "Int4Tensor" ? [scale.dtype] : ["int8"]);
  if (!sameShape(found.shape, expected)) {
    throw invalid(name, "zero_point", `[${found.shape}]`, `[${expected}]`);
  }
}

type Json = Readonly<Record<string, unknown>>;

function parsed(name: string, checkpoint: TensorReader): { _type: string; _data: Json } {
  const text = checkpoint.metadata?.[name];
  if (text === undefined) {
    throw new HalftoneError("missing_tensor", "Cannot read a torchao weight", {
      tensor: name,
      file: checkpoint.entries.get(`${moduleOf(name)}${PREFIX}qdata`)?.file,
      expected: "a description of it in the file's metadata",
      remedy: "Save the model again with Diffusers or halftone quantize",
    });
  }
  try {
    const value = JSON.parse(text) as { _type?: unknown; _data?: unknown };
    if (
      typeof value._type === "string" && typeof value._data === "object" && value._data !== null
    ) {
      return { _type: value._type, _data: value._data as Json };
    }
  } catch { /* told below */ }
  throw invalid(name, "metadata", text.slice(0, 80), "JSON with _type and _data");
}

function refuseActivations(name: string, data: Json): void {
  for (const field of ["act_quant_kwargs", "activation_quantization"]) {
    if (data[field] === undefined || data[field] === null) continue;
    throw new HalftoneError(
      "unsupported",
      "Cannot run a torchao weight that quantizes activations",
      {
        tensor: name,
        field,
        found: JSON.stringify(data[field]).slice(0, 80),
        expected: "null (weight-only)",
      },
    );
  }
}

/** Columns that share a scale; blocks span part of a row, a row or everything. */
function blockOf(name: string, data: Json, shape: readonly [number, number]): number {
  const block = data.block_size;
  const [rows, columns] = shape;
  if (Array.isArray(block) && block.length === 2) {
    const [down, across] = block as unknown[];
    if (down === rows && across === columns) return rows * columns;
    const divides = typeof across === "number" && Number.isInteger(across) && across > 0 &&
      columns % across === 0;
    if (down === 1 && divides) return across;
  }
  throw invalid(
    name,
    "block_size",
    JSON.stringify(block),
    `[1, a divisor of ${columns}] or [${shape}]`,
  );
}

function shapeOf(name: string, shape: unknown): readonly [number, number] {
  const valid = Array.isArray(shape) && shape.length === 2 &&
    shape.every((size) => Number.isSafeInteger(size) && size > 0 && size < 2 ** 31);
  if (!valid) throw invalid(name, "shape", JSON.stringify(shape), "[rows, columns]");
  return [shape[0], shape[1]];
}

function dtypeOf(name: string, value: unknown): DType {
  const found = DTYPES.find((dtype) => dtype === tagged(value));
  if (found) return found;
  throw invalid(name, "dtype", JSON.stringify(value), "a torch.dtype");
}

function tagged(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (value as Json)._data : undefined;
}

function expectDType(name: string, dtype: DType, allowed: readonly DType[]): DType {
  if (allowed.includes(dtype)) return dtype;
  throw invalid(name, "dtype", dtype, allowed.join(" or "));
}

function entryOf(name: string, part: string, checkpoint: TensorReader) {
  const tensor = `${moduleOf(name)}${PREFIX}${part}`;
  const entry = checkpoint.entries.get(tensor);
  if (entry) return entry;
  throw new HalftoneError("missing_tensor", "Cannot read a torchao weight", {
    tensor,
    remedy: "The checkpoint is incomplete; save it again with Diffusers or halftone quantize",
  });
}

function invalid(tensor: string, field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot read a torchao weight";
  return new HalftoneError("tensor_shape_mismatch", message, { tensor, field, found, expected });
}

function unwritable(tensor: string): HalftoneError {
  return new HalftoneError("unsupported", "Cannot write such a weight as torchao does", { tensor });
}

function flat(tensor: HostTensor): HostTensor {
  return tensor.reshape([tensor.size]);
}

/** [a, b] as [b, a]. */
function transpose(tensor: HostTensor): HostTensor {
  const [rows, columns] = tensor.shape;
  const values = tensor.toFloat32();
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column];
    }
  }
  return HostTensor.fromFloat32(result, [columns, rows]).cast(tensor.dtype);
}
