/** The parts that torchao stores of a weight X.weight, X._weight_PART, and what the header says of them. */

import { HalftoneError } from "../errors.ts";
import { type DType, DTYPES, itemSize } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import { moduleOf, type TensorReader } from "./quantizer.ts";

/** Between the module and the part in a stored name. */
export const PREFIX = "._weight_";

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

/** An object of the header. */
export type Json = Readonly<Record<string, unknown>>;

/** What the header says of a weight. */
export function parsed(name: string, checkpoint: TensorReader): { _type: string; _data: Json } {
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

/** Columns that share a scale; blocks span part of a row, a row or everything. */
export function blockOf(name: string, data: Json, shape: readonly [number, number]): number {
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

/** [rows, columns], checked. */
export function shapeOf(name: string, shape: unknown): readonly [number, number] {
  const valid = Array.isArray(shape) && shape.length === 2 &&
    shape.every((size) => Number.isSafeInteger(size) && size > 0 && size < 2 ** 31);
  if (!valid) throw invalid(name, "shape", JSON.stringify(shape), "[rows, columns]");
  return [shape[0], shape[1]];
}

/** A torch.dtype of the header. */
export function dtypeOf(name: string, value: unknown): DType {
  const found = DTYPES.find((dtype) => dtype === tagged(value));
  if (found) return found;
  throw invalid(name, "dtype", JSON.stringify(value), "a torch.dtype");
}

/** The data of a tagged value. */
export function tagged(value: unknown): unknown {
  return typeof value === "object" && value !== null ? (value as Json)._data : undefined;
}

/** The type, when it is one of these. */
export function expectDType(name: string, dtype: DType, allowed: readonly DType[]): DType {
  if (allowed.includes(dtype)) return dtype;
  throw invalid(name, "dtype", dtype, allowed.join(" or "));
}

/** The header of a part. Throws `missing_tensor`. */
export function entryOf(name: string, part: string, checkpoint: TensorReader) {
  const tensor = `${moduleOf(name)}${PREFIX}${part}`;
  const entry = checkpoint.entries.get(tensor);
  if (entry) return entry;
  throw new HalftoneError("missing_tensor", "Cannot read a torchao weight", {
    tensor,
    remedy: "The checkpoint is incomplete; save it again with Diffusers or halftone quantize",
  });
}

/** A part or field that is not as it should be. */
export function invalid(
  tensor: string,
  field: string,
  found: unknown,
  expected: string,
): HalftoneError {
  const message = "Cannot read a torchao weight";
  return new HalftoneError("tensor_shape_mismatch", message, { tensor, field, found, expected });
}

/** A weight of another method. */
export function unwritable(tensor: string): HalftoneError {
  return new HalftoneError("unsupported", "Cannot write such a weight as torchao does", { tensor });
}

/** As a vector. */
export function flat(tensor: HostTensor): HostTensor {
  return tensor.reshape([tensor.size]);
}

/** [a, b] as [b, a]. */
export function transpose({ dtype, shape: [rows, columns], bytes }: HostTensor): HostTensor {
  const size = itemSize(dtype);
  const result = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = (row * columns + column) * size, to = (column * rows + row) * size;
      for (let byte = 0; byte < size; byte++) result[to + byte] = bytes[from + byte];
    }
  }
  return new HostTensor(dtype, [columns, rows], result);
}
