/**
 * Reads every quantized weight of a component folder into halftone's layout and writes it again:
 *
 *     deno run -A test/goldens/rewrite_checkpoint.ts FOLDER OUT.safetensors
 *
 * check_formats.py compares the tensors with those that the library saved.
 */

import process from "node:process";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { resolveQuantizer } from "../../src/quantization/weights.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";

const [folder, destination] = process.argv.slice(2);
const checkpoint = await openCheckpoint(folder);
const { quantizer, preQuantized } = resolveQuantizer(checkpoint, {
  config: await readConfig(folder),
});
const tensors: Record<string, HostTensor> = {};
for (const stored of checkpoint.entries.keys()) {
  const name = quantizer?.weightOf?.(stored, checkpoint) ?? stored;
  if (!preQuantized || !quantizer?.isStored(name, checkpoint)) {
    if (quantizer?.isCompanion(stored, checkpoint)) continue;
    tensors[stored] = await checkpoint.read(stored);
    continue;
  }
  if (quantizer.isCompanion(stored, checkpoint)) continue;
  for (const part of quantizer.write(name, await quantizer.read(name, checkpoint))) {
    tensors[part.name] = part.tensor;
  }
}
await checkpoint.close();
await writeSafetensors(destination, tensors);
