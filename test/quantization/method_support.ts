/** What the tests of torchao, Quanto and ModelOpt share: inputs, hashes and whole checkpoints. */

import assert from "node:assert/strict";
import { openCheckpoint } from "../../src/io/checkpoint.ts";
import { createQuantizer, type QuantizationConfigLike } from "../../src/quantization/auto.ts";
import { dequantize } from "../../src/quantization/dequantize.ts";
import type {
  EncodedWeight,
  NamedTensor,
  Quantizer,
  TensorReader,
} from "../../src/quantization/quantizer.ts";
import { HostTensor } from "../../src/tensor/host_tensor.ts";
import { GOLDENS, sha256, withCheckpoints } from "./support.ts";

/** A case of a method's goldens: the hashes of what the library makes of an input. */
export interface MethodCase {
  readonly input: string;
  readonly scheme: string;
  readonly sha256: Readonly<Record<string, string>>;
}

/** Digits of the hashes in the goldens. */
const DIGITS = 24;

/** The hash as the goldens write it. */
export function shortHash(bytes: Uint8Array): string {
  return sha256(bytes).slice(0, DIGITS);
}

/** quantizer_inputs.safetensors: name.dtype -> matrix. */
export async function quantizerInputs(): Promise<ReadonlyMap<string, HostTensor>> {
  const inputs = new Map<string, HostTensor>();
  await withCheckpoints([`${GOLDENS}quantizer_inputs.safetensors`], async (checkpoint) => {
    for (const name of checkpoint.entries.keys()) inputs.set(name, await checkpoint.read(name));
  });
  return inputs;
}

/** The quantizer of a config, as Diffusers would use it. */
export function quantizerOf(config: QuantizationConfigLike): Quantizer {
  return createQuantizer(config, { library: "diffusers", keepInFloat32: [] });
}

/** Arguments of an NVIDIAModelOptConfig with so many weights per scale, and scales per scale of scales. */
export function modelOptBlocks(quantType: string, size: number, scaleBlockQuantize?: number) {
  const scales = scaleBlockQuantize && { scaleChannelQuantize: -1, scaleBlockQuantize };
  return { quantType, channelQuantize: -1, blockQuantize: size, ...scales };
}

/** A weight in the type the library gives it back in. */
export function dequantized(quantizer: Quantizer, weight: EncodedWeight): HostTensor {
  const { shape } = weight.tensor;
  return quantizer.dequantize?.(weight) ??
    HostTensor.fromFloat32(dequantize(weight.tensor), shape).cast(weight.dtype);
}

/** A checkpoint in memory with the metadata its quantizer writes for one weight. */
export function readerOf(
  quantizer: Quantizer,
  name: string,
  dense: HostTensor,
  tensors: readonly NamedTensor[],
): TensorReader {
  const entries = new Map(tensors.map(({ name, tensor }) => [name, tensor] as const));
  const { dtype, shape } = dense;
  const metadata = quantizer.fileMetadata?.([{ name, dtype, shape, quantized: true }]);
  return { entries, metadata, read: (name) => Promise.resolve(entries.get(name)!) };
}

/** Reads a written weight back and writes it again: nothing may change. */
export async function assertRoundTrip(
  quantizer: Quantizer,
  name: string,
  dense: HostTensor,
  weight: EncodedWeight,
): Promise<void> {
  const written = quantizer.write(name, weight);
  const reader = readerOf(quantizer, name, dense, written);
  const [stored] = written.filter((t) => !quantizer.isCompanion(t.name, reader));
  assert.equal(quantizer.weightOf?.(stored.name, reader) ?? stored.name, name);
  assert.ok(quantizer.isStored(name, reader));
  const again = await quantizer.read(name, reader);
  assert.deepEqual(
    again.tensor.layout,
    (await quantizer.describeStored(name, reader)).format.kind ===
        "quantized" && again.tensor.layout,
  );
  const rewritten = quantizer.write(name, again);
  assert.deepEqual(rewritten.map((t) => t.name), written.map((t) => t.name));
  rewritten.forEach(({ name, tensor }, index) => {
    assert.equal(tensor.dtype, written[index].tensor.dtype, name);
    assert.deepEqual([...tensor.shape], [...written[index].tensor.shape], name);
    assert.equal(shortHash(tensor.bytes), shortHash(written[index].tensor.bytes), name);
  });
  assert.equal(
    shortHash(dequantized(quantizer, again).bytes),
    shortHash(dequantized(quantizer, weight).bytes),
  );
}

/** The hashes of all tensors of a checkpoint, and its metadata. */
export async function checkpointHashes(path: string): Promise<{
  readonly hashes: Record<string, string>;
  readonly metadata: Readonly<Record<string, string>>;
}> {
  const checkpoint = await openCheckpoint(path);
  try {
    const hashes: Record<string, string> = {};
    for (const name of checkpoint.entries.keys()) {
      hashes[name] = shortHash((await checkpoint.read(name)).bytes);
    }
    return { hashes, metadata: checkpoint.metadata };
  } finally {
    await checkpoint.close();
  }
}
