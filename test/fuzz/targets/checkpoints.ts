/** Tiny checkpoints of every format, with wrong names, types, shapes, bytes, states and configs. */

import { checkFinite } from "../../../src/io/finite.ts";
import { createQuantizer } from "../../../src/quantization/auto.ts";
import { packedBytes } from "../../../src/quantization/codes.ts";
import { dequantizeRows } from "../../../src/quantization/dequantize.ts";
import { formatTable } from "../../../src/quantization/format_table.ts";
import { type QuantizeFormat, quantizeFormats } from "../../../src/quantization/formats.ts";
import { groupCount, weightBytes } from "../../../src/quantization/layout_bytes.ts";
import type {
  QuantizedTensor,
  ScaleData,
  ScaleLayout,
} from "../../../src/quantization/quantized_tensor.ts";
import type { TensorReader } from "../../../src/quantization/quantizer.ts";
import { type ComponentWeights, openWeights } from "../../../src/quantization/weights.ts";
import { type DType, itemSize } from "../../../src/tensor/dtype.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { elementCount, type Shape } from "../../../src/tensor/shape.ts";
import { noPause, randomValues, tensorOf } from "../../quantization/support.ts";
import type { FuzzTarget } from "../target.ts";
import { mutateCheckpoint } from "./mutate_checkpoint.ts";

/** A tensor as a file has it; the bytes fit type and shape. */
export interface StoredTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
  readonly bytes: Uint8Array;
}

/** A component's files. */
export interface StoredCheckpoint {
  readonly tensors: readonly StoredTensor[];
  readonly metadata: Readonly<Record<string, string>>;
  /** What its config.json holds under quantization_config, if anything. */
  readonly config?: unknown;
}

const LINEAR = ["blocks.0.attn.to_q.weight", "blocks.0.ff.weight"];

/** One target per format whose checkpoints are written and read. */
export async function checkpointTargets(): Promise<FuzzTarget<StoredCheckpoint>[]> {
  const rows = new Map(formatTable().map((row) => [row.name, row]));
  const formats = quantizeFormats().filter(({ fullName }) => {
    const { load, save } = rows.get(fullName)!;
    return load && save;
  });
  return await Promise.all(formats.map(checkpointTarget));
}

async function checkpointTarget(format: QuantizeFormat): Promise<FuzzTarget<StoredCheckpoint>> {
  const good = await goodCheckpoint(format);
  return {
    name: `checkpoint ${format.fullName}`,
    make: (random) => mutateCheckpoint(random, good),
    size: ({ tensors }) => tensors.reduce((sum, { bytes }) => sum + bytes.length, 0),
    run: readAll,
  };
}

/** Two quantized weights of 256 columns, as every block size wants, and a bias. */
async function goodCheckpoint(format: QuantizeFormat): Promise<StoredCheckpoint> {
  const config = format.config();
  const quantizer = createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
  const shape = [4, 256];
  const bias = tensorOf(randomValues(4, 9), [4], "bfloat16");
  const tensors = [{ name: "blocks.0.ff.bias", tensor: bias }];
  for (const [index, name] of LINEAR.entries()) {
    const dense = tensorOf(randomValues(4 * 256, index), shape, "bfloat16");
    tensors.push(...quantizer.write(name, await quantizer.quantize(name, dense, noPause)));
  }
  const written = LINEAR.map((
    name,
  ) => ({ name, shape, dtype: "bfloat16", quantized: true } as const));
  return {
    tensors: tensors.map(({ name, tensor: { dtype, shape, bytes } }) => {
      return { name, dtype, shape, bytes };
    }),
    metadata: { format: "pt", ...quantizer.fileMetadata?.(written) },
    config: JSON.parse(JSON.stringify(config)),
  };
}

async function readAll({ tensors, metadata, config }: StoredCheckpoint): Promise<void> {
  const reader = readerOf(tensors, metadata);
  const weights = await openWeights(reader, {
    config: { _class_name: "FluxTransformer2DModel", quantization_config: config },
    linearNames: (name) => LINEAR.includes(name),
    onWarning: () => {},
  });
  weights.memory();
  for (const name of LINEAR) await readWeight(name, weights);
}

function readerOf(
  tensors: readonly StoredTensor[],
  metadata: Readonly<Record<string, string>>,
): TensorReader {
  const entries = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const read: TensorReader["read"] = (name, options) => {
    const { dtype, shape, bytes } = entries.get(name)!;
    const tensor = new HostTensor(dtype, shape, bytes);
    if (!options?.packed) checkFinite(tensor, name);
    return Promise.resolve(tensor);
  };
  return { entries, metadata, read };
}

async function readWeight(name: string, weights: ComponentWeights): Promise<void> {
  const info = weights.catalog.lookup(name);
  if (!info) return;
  const { shape, format } = info;
  const bytes = weightBytes(shape, format);
  const stored = await weights.source.read({ name, shape, format, arrangement: "rows", bytes });
  if (stored.kind === "quantized") checkTensor(stored.tensor);
}

/** A backend trusts these sizes. */
function checkTensor({ shape, layout, codes, scale, offset }: QuantizedTensor): void {
  const count = elementCount(shape);
  const groups = groupCount(shape, layout);
  assertEqual("codes", codes.length, packedBytes(count, layout.bits));
  if (layout.value.kind === "table") {
    assertEqual("table", layout.value.table.length, 2 ** layout.bits);
  }
  checkScale("scale", groups, layout.scale, scale);
  assertEqual("offset", offset === null, layout.offset === null);
  if (layout.offset && offset) checkScale("offset", groups, layout.offset, offset);
  if (count > 0) dequantizeRows({ shape, layout, codes, scale, offset }, 0, 1);
}

function checkScale(what: string, groups: number, layout: ScaleLayout, data: ScaleData): void {
  assertEqual(`${what} kind`, data.kind, layout.kind);
  if (layout.kind === "float" && data.kind === "float") {
    assertEqual(`${what} type`, data.values.dtype, layout.dtype);
    return assertEqual(what, data.values.size, groups);
  }
  if (layout.kind === "float" || data.kind === "float") return;
  const supers = Math.ceil(groups / layout.superGroupSize);
  assertEqual(`${what} codes`, data.codes.length, packedBytes(groups, layout.bits));
  assertEqual(`${what} super-scales`, data.supers.size, supers);
  assertEqual(`${what} super-scale type`, data.supers.dtype, layout.superDtype);
}

function assertEqual(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw new Error(`${what}: ${found} where ${expected} belongs`);
}

/** Bytes that a tensor of this type and shape has. */
export function byteCount(dtype: DType, shape: Shape): number {
  return elementCount(shape) * itemSize(dtype);
}
