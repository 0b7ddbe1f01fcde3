/** Tiny checkpoints of every format, with wrong names, types, shapes, bytes, states and configs. */

import { checkFinite } from "../../../src/io/finite.ts";
import { createQuantizer } from "../../../src/quantization/auto.ts";
import { formatTable } from "../../../src/quantization/format_table.ts";
import { type QuantizeFormat, quantizeFormats } from "../../../src/quantization/formats.ts";
import type { Quantizer, TensorReader } from "../../../src/quantization/quantizer.ts";
import {
  openWeights,
  type OpenWeightsOptions,
  resolveQuantizer,
} from "../../../src/quantization/weights.ts";
import { type DType, itemSize } from "../../../src/tensor/dtype.ts";
import { HostTensor } from "../../../src/tensor/host_tensor.ts";
import { piecesOf } from "../../../src/tensor/piece_memory.ts";
import type { Shape } from "../../../src/tensor/shape.ts";
import { noPause, randomValues, tensorOf } from "../../quantization/support.ts";
import type { FuzzTarget } from "../target.ts";
import { mutateCheckpoint } from "./mutate_checkpoint.ts";
import { readWeight } from "./read_weight.ts";

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

/** One target per format whose checkpoints are written and read as safetensors. */
export async function checkpointTargets(): Promise<FuzzTarget<StoredCheckpoint>[]> {
  const rows = new Map(formatTable().map((row) => [row.name, row]));
  const formats = quantizeFormats().filter(({ fullName }) => {
    const { load, save, method } = rows.get(fullName)!;
    return load && save && method !== "gguf";
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
  const options: OpenWeightsOptions = {
    config: { _class_name: "FluxTransformer2DModel", quantization_config: config },
    linearNames: (name) => LINEAR.includes(name),
    onWarning: () => {},
  };
  const weights = await openWeights(reader, options);
  weights.memory();
  for (const name of LINEAR) await readWeight(name, weights);
  const { quantizer, preQuantized } = resolveQuantizer(reader, options);
  if (quantizer && preQuantized) await writeAgain(quantizer, reader);
}

/** What was read is written as it was; spelled another way it may be, but no value is lost. */
async function writeAgain(quantizer: Quantizer, reader: TensorReader): Promise<void> {
  for (const name of LINEAR.filter((name) => quantizer.isStored(name, reader))) {
    const written = quantizer.write(name, await quantizer.read(name, reader));
    for (const { name, tensor } of written) {
      if (!reader.entries.has(name)) continue;
      const source = await reader.read(name, { packed: true });
      const isSpelledAlike = source.dtype === tensor.dtype && source.size === tensor.size;
      if (!isSpelledAlike) continue;
      const differs = source.bytes.findIndex((byte, index) => byte !== tensor.bytes[index]);
      if (differs >= 0) throw new Error(`${name} is written otherwise at byte ${differs}`);
    }
  }
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
  const readPieces: TensorReader["readPieces"] = async (name, memory, take, options) => {
    const { dtype, bytes } = await read(name, options);
    piecesOf(bytes, memory, { unit: itemSize(dtype) }, take);
  };
  return { entries, metadata, read, readPieces };
}
