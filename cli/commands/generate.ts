/** `halftone generate`: pictures from a prompt. */

import { Command } from "commander";
import { HalftoneError } from "../../src/errors.ts";
import { writeSafetensors } from "../../src/io/write_checkpoint.ts";
import type { FluxGenerateOptions, FluxPipelineOutput } from "../../src/pipelines/flux_options.ts";
import { folderOf, statPath } from "../../src/runtime/files.ts";
import { writeText } from "../../src/runtime/system.ts";
import { given } from "../given.ts";
import { interruptible } from "../interrupt.ts";
import { addModelOptions, decimal, integer, type ModelOptions } from "../options.ts";
import { outputNames } from "../output_names.ts";
import { openPipeline } from "../pipeline.ts";
import { createProgress } from "../progress.ts";

interface GenerateOptions extends ModelOptions {
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly seed: number;
  readonly guidanceScale?: number;
  readonly trueCfgScale?: number;
  readonly negativePrompt?: string;
  readonly prompt2?: string;
  readonly maxSequenceLength?: number;
  readonly numImages?: number;
  readonly output: string;
  readonly saveLatents?: string;
  readonly json?: true;
}

/** The command. */
export function generateCommand(): Command {
  const command = new Command("generate")
    .description("Make pictures from a prompt")
    .argument("<prompt>", "what to draw")
    .option("--width <n>", "pixels (default: the model's own)", integer)
    .option("--height <n>", "pixels (default: the model's own)", integer)
    .option("--steps <n>", "denoising steps (default: the model's own)", integer)
    .option("--seed <n>", "the same seed gives the same picture", integer, 0)
    .option("--guidance-scale <x>", "for models with a guidance embedding", decimal)
    .option("--true-cfg-scale <x>", "over 1, with a negative prompt: two passes a step", decimal)
    .option("--negative-prompt <text>", "what to stay away from")
    .option("--prompt-2 <text>", "another text for T5 (default: the prompt)")
    .option("--max-sequence-length <n>", "tokens of T5 (default: the model's own)", integer)
    .option("--num-images <n>", "pictures to make (default: 1)", integer)
    .option("--output <file>", "the PNG to write; several become out-0.png, ...", "out.png")
    .option("--save-latents <file>", "write the last packed latents as safetensors")
    .option("--json", "print one JSON object");
  return addModelOptions(command).action((prompt: string, options: GenerateOptions) =>
    interruptible((signal) => generate(prompt, options, signal))
  );
}

async function generate(
  prompt: string,
  options: GenerateOptions,
  signal: AbortSignal,
): Promise<void> {
  await checkFolders([options.output, options.saveLatents]);
  const progress = createProgress();
  try {
    const { pipeline, defaults } = await openPipeline(options, progress, signal);
    await using _disposed = pipeline;
    const output = await pipeline.generate({
      ...defaults,
      ...requestOf(prompt, options),
      signal,
      onStep: ({ step, steps }) => progress.show("denoise", step + 1, steps, "steps"),
    });
    progress.close();
    signal.throwIfAborted();
    const files = await writeFiles(output, options);
    const backend = pipeline.backend.name;
    writeText(options.json ? jsonOf(output, files, backend) : textOf(output, files, backend));
  } finally {
    progress.close();
  }
}

/** Only what was given, so that the model's own values stay for the rest. */
function requestOf(prompt: string, options: GenerateOptions): FluxGenerateOptions {
  return given({
    prompt,
    prompt2: options.prompt2,
    negativePrompt: options.negativePrompt,
    width: options.width,
    height: options.height,
    numInferenceSteps: options.steps,
    guidanceScale: options.guidanceScale,
    trueCfgScale: options.trueCfgScale,
    maxSequenceLength: options.maxSequenceLength,
    numImagesPerPrompt: options.numImages,
    seed: options.seed,
  });
}

/** A folder that is not there is better found out before the picture is made than after. */
async function checkFolders(files: readonly (string | undefined)[]): Promise<void> {
  for (const file of files.filter((name) => name !== undefined)) {
    if ((await statPath(folderOf(file)))?.kind === "folder") continue;
    throw new HalftoneError("write_failed", "Cannot write into a folder that is not there", {
      file,
      remedy: "Make the folder first",
    });
  }
}

async function writeFiles(
  output: FluxPipelineOutput,
  options: GenerateOptions,
): Promise<string[]> {
  const files = outputNames(options.output, output.images.length);
  for (const [index, image] of output.images.entries()) await image.save(files[index]!);
  if (options.saveLatents !== undefined) {
    await writeSafetensors(options.saveLatents, { latents: output.latents });
  }
  return files;
}

function jsonOf(
  output: FluxPipelineOutput,
  files: readonly string[],
  backend: string,
): string {
  const { seed, width, height, planHash, memory, timings } = output;
  const steps = timings.steps.length;
  const report = {
    files,
    seed,
    width,
    height,
    steps,
    backend,
    planHash,
    seconds: timings,
    bytes: memory,
  };
  return `${JSON.stringify(report, null, 2)}\n`;
}

function textOf(
  { width, height, timings }: FluxPipelineOutput,
  files: readonly string[],
  backend: string,
): string {
  const how = `${width}x${height}, ${timings.steps.length} steps, ${backend}`;
  const seconds = timings.total.toFixed(1);
  return files.map((file) => `${file}: ${how}, ${seconds} s in all\n`).join("");
}
