/** `halftone dequantize`: a dense checkpoint from a quantized one. */

import { Command, Option } from "commander";
import { HalftoneError } from "../../src/errors.ts";
import { dequantizeCheckpoint, isQuantizedCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import type { WeightDType } from "../../src/quantization/weights.ts";
import { joinPath } from "../../src/runtime/files.ts";
import { writeText } from "../../src/runtime/system.ts";
import { convertModel } from "../convert_model.ts";
import { interruptible } from "../interrupt.ts";
import { createProgress } from "../progress.ts";

/** The command. */
export function dequantizeCommand(): Command {
  return new Command("dequantize")
    .description("Write a dense checkpoint from a quantized one")
    .argument("<src>", "a model folder, a component's folder, or a .safetensors file")
    .argument("<dst>", "the same kind, to be written")
    .addOption(
      new Option("--dtype <type>", "type of the weights (default: the one before quantizing)")
        .choices(["float32", "bfloat16", "float16"]),
    )
    .action((source: string, destination: string, options: { dtype?: WeightDType }) =>
      interruptible((signal) => dequantize(source, destination, options.dtype, signal))
    );
}

async function dequantize(
  source: string,
  destination: string,
  dtype: WeightDType | undefined,
  signal: AbortSignal,
): Promise<void> {
  const progress = createProgress();
  const lines = await convertModel(source, destination, {
    choose: quantizedComponents,
    convert: (from, to) =>
      dequantizeCheckpoint(from, to, {
        dtype,
        signal,
        onProgress: (done, total) => progress.show(`dequantize ${from}`, done, total, "tensors"),
      }),
  });
  progress.close();
  writeText(lines.map((line) => `${line}\n`).join(""));
}

async function quantizedComponents(names: readonly string[], folder: string): Promise<string[]> {
  const quantized: string[] = [];
  for (const name of names) {
    if (await isQuantizedCheckpoint(joinPath(folder, name))) quantized.push(name);
  }
  if (quantized.length > 0) return quantized;
  throw new HalftoneError("quantization_config", "Cannot dequantize a model that is dense", {
    file: folder,
  });
}
