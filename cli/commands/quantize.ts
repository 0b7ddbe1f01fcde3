/** `halftone quantize`: a checkpoint in the method's own layout. */

import { Command } from "commander";
import { HalftoneError } from "../../src/errors.ts";
import { readConfig } from "../../src/io/checkpoint.ts";
import { quantizeCheckpoint } from "../../src/io/quantize_checkpoint.ts";
import {
  parseQuantizeFlag,
  parseQuantizeFlags,
  skippingNothing,
} from "../../src/quantization/formats.ts";
import type { PipelineQuantizationConfig } from "../../src/quantization/pipeline_config.ts";
import type { QuantizationConfig } from "../../src/quantization/quantizer.ts";
import { statPath } from "../../src/runtime/files.ts";
import { writeText } from "../../src/runtime/system.ts";
import { requireComponents } from "../components.ts";
import { convertModel } from "../convert_model.ts";
import { interruptible } from "../interrupt.ts";
import { modelOfConfig } from "../model_classes.ts";
import { addQuantizeOption, type ModelOptions } from "../options.ts";
import { createProgress, type Progress } from "../progress.ts";
import { quantizeGgufFile } from "../quantize_gguf.ts";

/** The command. */
export function quantizeCommand(): Command {
  const command = new Command("quantize")
    .description("Write a checkpoint in a quantization method's own layout")
    .argument("<src>", "a model folder, a component's folder, or a .safetensors file")
    .argument("<dst>", "the same kind, to be written; or a .gguf file of one component");
  return addQuantizeOption(command).action(
    (
      source: string,
      destination: string,
      options: Pick<ModelOptions, "quantize" | "quantizeOuter">,
    ) => interruptible((signal) => quantize(source, destination, options, signal)),
  );
}

async function quantize(
  source: string,
  destination: string,
  options: Pick<ModelOptions, "quantize" | "quantizeOuter">,
  signal: AbortSignal,
): Promise<void> {
  const { quantize: flags } = options;
  if (flags.length === 0) throw nothingToDo();
  const progress = createProgress();
  if (destination.endsWith(".gguf")) {
    const line = await quantizeGgufFile(source, destination, flags, progress, signal);
    progress.close();
    return writeText(`${line}\n`);
  }
  const pipelineConfig = parseQuantizeFlags(flags, options)!;
  const lines = await convertModel(source, destination, {
    choose: (names) => Promise.resolve(chosenComponents(names, pipelineConfig)),
    convert: (from, to, name) => {
      const config = name === undefined ? singleConfig(options) : pipelineConfig.resolve(name)!;
      return quantizeOne(from, to, config, progress, signal);
    },
  });
  progress.close();
  writeText(lines.map((line) => `${line}\n`).join(""));
}

/** In a folder the model's class knows its linear layers; a lone file has every 2-D weight done. */
async function quantizeOne(
  source: string,
  destination: string,
  quantizationConfig: QuantizationConfig,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const isFolder = (await statPath(source))?.kind === "folder";
  const model = isFolder ? modelOfConfig(await readConfig(source), source) : undefined;
  await quantizeCheckpoint(source, destination, {
    quantizationConfig,
    linearNames: model && ((name) => model.isLinearWeight(name)),
    keepInFloat32: model?.keepInFloat32,
    modules: model,
    signal,
    onProgress: (done, total) => progress.show(`quantize ${source}`, done, total, "tensors"),
  });
}

function chosenComponents(
  names: readonly string[],
  config: PipelineQuantizationConfig,
): string[] {
  requireComponents(config, names);
  return names.filter((name) => config.resolve(name) !== undefined);
}

function singleConfig(
  { quantize: flags, quantizeOuter }: Pick<ModelOptions, "quantize" | "quantizeOuter">,
): QuantizationConfig {
  if (flags.length === 1) {
    const { config } = parseQuantizeFlag(flags[0]!);
    return quantizeOuter ? skippingNothing(config) : config;
  }
  throw new HalftoneError("invalid_argument", "Cannot quantize one file in several formats", {
    field: "--quantize",
    found: flags.join(" "),
    expected: "one method:format",
  });
}

function nothingToDo(): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot quantize without a format", {
    field: "--quantize",
    expected: "[component=]method:format, such as bitsandbytes:nf4",
  });
}
