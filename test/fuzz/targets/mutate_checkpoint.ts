/** Mutations of checkpoints that a safetensors file could hold: bytes always fit type and shape. */

import { type DType, DTYPES, itemSize } from "../../../src/tensor/dtype.ts";
import { elementCount, type Shape } from "../../../src/tensor/shape.ts";
import { copyJson, mutateBytes, mutateJson, mutateText } from "../mutate.ts";
import type { Random } from "../random.ts";
import type { StoredCheckpoint, StoredTensor } from "./checkpoints.ts";

/** The most bytes that a mutant's tensor may have. */
const MOST_BYTES = 2 ** 14;

/** Up to three changes, sometimes none; what is not changed is shared with the original. */
export function mutateCheckpoint(random: Random, original: StoredCheckpoint): StoredCheckpoint {
  let checkpoint = original;
  for (let i = random.below(4); i > 0; i--) checkpoint = mutateOnce(random, checkpoint);
  return checkpoint;
}

function mutateOnce(random: Random, checkpoint: StoredCheckpoint): StoredCheckpoint {
  const { tensors, metadata, config } = checkpoint;
  switch (random.below(10)) {
    case 0:
      return { ...checkpoint, config: mutatedCopy(random, config) };
    case 1:
      return { ...checkpoint, config: undefined };
    case 2:
      return { ...checkpoint, metadata: mutateMetadata(random, metadata) };
    case 3:
      return { ...checkpoint, tensors: tensors.filter(() => !random.once(tensors.length)) };
    case 4:
      return { ...checkpoint, tensors: rename(random, tensors) };
    default:
      return { ...checkpoint, tensors: mutateOne(random, tensors) };
  }
}

function mutatedCopy(random: Random, value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const copy = copyJson(value);
  mutateJson(random, copy);
  return copy;
}

/** Libraries put JSON into the texts. */
function mutateMetadata(
  random: Random,
  metadata: Readonly<Record<string, string>>,
): Record<string, string> {
  const key = random.pick(Object.keys(metadata));
  if (key === undefined) return { a: "b" };
  const { [key]: text, ...rest } = metadata;
  if (random.once(4)) return rest;
  return { ...rest, [key]: mutateJsonText(random, text) };
}

function mutateJsonText(random: Random, text: string): string {
  if (!/^[[{]/.test(text) || random.once(3)) return mutateText(random, text);
  try {
    return JSON.stringify(mutatedCopy(random, JSON.parse(text)));
  } catch {
    return mutateText(random, text);
  }
}

/** A name becomes another's with its ending, or an odd one; names stay unique. */
function rename(random: Random, tensors: readonly StoredTensor[]): StoredTensor[] {
  if (tensors.length === 0) return [];
  const [from, to] = [random.pick(tensors), random.pick(tensors)];
  const name = random.once(2) ? to.name : mutateText(random, from.name);
  const renamed = tensors.map((tensor) => {
    if (tensor === from) return { ...tensor, name };
    return tensor.name === name ? { ...tensor, name: from.name } : tensor;
  });
  if (random.once(3)) renamed.push({ ...from, name: `${from.name}.copy` });
  return renamed;
}

function mutateOne(random: Random, tensors: readonly StoredTensor[]): StoredTensor[] {
  const chosen = random.below(tensors.length);
  return tensors.map((tensor, index) => index === chosen ? mutateTensor(random, tensor) : tensor);
}

function mutateTensor(random: Random, tensor: StoredTensor): StoredTensor {
  switch (random.below(5)) {
    case 0:
      return fitted({ ...tensor, dtype: random.pick(DTYPES) });
    case 1:
      return fitted({ ...tensor, shape: mutateShape(random, tensor.shape) });
    case 2:
      return sameBytesAs(random, tensor);
    case 3:
      return { ...tensor, bytes: new Uint8Array(tensor.bytes.length).fill(random.pick([0, 255])) };
    default:
      return mutateContent(random, tensor);
  }
}

/** Another type or shape of the same bytes, such as float32 [n] for uint8 [4 n]. */
function sameBytesAs(random: Random, tensor: StoredTensor): StoredTensor {
  const dtype = random.pick(DTYPES);
  if (tensor.bytes.length % itemSize(dtype) !== 0) return tensor;
  const count = tensor.bytes.length / itemSize(dtype);
  const shape = random.pick([[count], [1, count], [count, 1], [count / 2, 2], [2, count / 2]]);
  return Number.isInteger(count / 2) ? { ...tensor, dtype, shape } : tensor;
}

const DIMENSIONS = [0, 1, 2, 3, 4, 5, 8, 16, 64, 128, 255, 256, 257];

function mutateShape(random: Random, shape: Shape): Shape {
  const at = random.below(shape.length);
  switch (random.below(6)) {
    case 0:
      return [...shape].reverse();
    case 1:
      return [...shape, 1];
    case 2:
      return shape.slice(1);
    case 3:
      return [elementCount(shape)];
    case 4:
      return shape.map((size, axis) =>
        axis === at ? Math.max(0, size + random.below(5) - 2) : size
      );
    default:
      return shape.map((size, axis) => axis === at ? random.pick(DIMENSIONS) : size);
  }
}

/** The bytes cut or repeated to what type and shape ask for. */
function fitted(tensor: StoredTensor): StoredTensor {
  const { dtype, shape, bytes } = tensor;
  const length = elementCount(shape) * itemSize(dtype);
  if (length > MOST_BYTES) return { ...tensor, dtype: "uint8", shape: [bytes.length] };
  const result = new Uint8Array(length);
  for (let at = 0; at < length && bytes.length > 0; at += bytes.length) {
    result.set(bytes.subarray(0, length - at), at);
  }
  return { ...tensor, bytes: result };
}

/** Bytes that are JSON stay JSON, mostly; the shape follows the length. */
function mutateContent(random: Random, tensor: StoredTensor): StoredTensor {
  const { bytes, dtype } = tensor;
  const isJson = dtype === "uint8" && bytes[0] === "{".charCodeAt(0);
  if (!isJson) return fitted({ ...tensor, bytes: mutateBytes(random, bytes) });
  const text = mutateJsonText(random, new TextDecoder().decode(bytes));
  const changed = new TextEncoder().encode(text);
  return {
    name: tensor.name,
    dtype: "uint8" satisfies DType,
    shape: [changed.length],
    bytes: changed,
  };
}
