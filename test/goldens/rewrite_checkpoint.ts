/**
 * Reads every quantized weight of a component folder into halftone's layout and writes it again:
 *
 *     deno run -A test/goldens/rewrite_checkpoint.ts FOLDER OUT.safetensors|OUT
 *
 * A folder OUT gets config.json and the library's state file too. check_formats.py and check_modelopt_state.py
 * compare the tensors with those that the library saved.
 */

import process from "node:process";
import { modelOfConfig } from "../../cli/model_classes.ts";
import { openCheckpoint, readConfig } from "../../src/io/checkpoint.ts";
import { writeCheckpoint, writeSafetensors } from "../../src/io/write_checkpoint.ts";
import { resolveQuantizer } from "../../src/quantization/weights.ts";
import type { HostTensor } from "../../src/tensor/host_tensor.ts";

const [folder, destination] = process.argv.slice(2);
const checkpoint = await openCheckpoint(folder);
const config = await readConfig(folder);
const { quantizer, preQuantized } = resolveQuantizer(checkpoint, {
  config,
  modules: modelOfConfig(config, folder),
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
if (destination.endsWith(".safetensors")) await writeSafetensors(destination, tensors);
else {
  const named = Object.entries(tensors).map(([name, tensor]) => ({ name, tensor }));
  const stateFile = quantizer?.stateFile?.bind(quantizer);
  const metadata = { format: "pt", ...checkpoint.metadata, ...quantizer?.fileMetadata?.([]) };
  await writeCheckpoint(destination, config, named, { metadata, stateFile });
}
