/** `halftone bench formats`: which format costs what, on this machine and this model. */

import { Command, Option } from "commander";
import { BACKEND_NAMES, type BackendName } from "../../src/backends/select.ts";
import { writeAtomic } from "../../src/runtime/atomic_file.ts";
import { joinPath, makeFolder, nameOf } from "../../src/runtime/files.ts";
import {
  cpuCount,
  cpuModel,
  memoryBytes,
  platformName,
  runtimeName,
  runtimeVersion,
  writeText,
} from "../../src/runtime/system.ts";
import type { ActivationChoice } from "../../src/quantization/activation_choice.ts";
import { contactSheet } from "../bench/contact_sheet.ts";
import {
  compared,
  type FormatReport,
  type FormatResult,
  psnrText,
  reportMarkdown,
} from "../bench/format_report.ts";
import {
  benchedFormats,
  type FormatBenchRequest,
  type FormatRun,
  runFormat,
} from "../bench/format_runs.ts";
import { readGenerationDefaults } from "../generation_defaults.ts";
import { given } from "../given.ts";
import { interruptible } from "../interrupt.ts";
import { modelPath } from "../model_path.ts";
import { activationsOption, integer } from "../options.ts";
import { createProgress } from "../progress.ts";

interface BenchFormatsOptions {
  readonly model?: string;
  readonly prompt: string;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly seed: number;
  readonly formats: readonly string[];
  readonly activations?: ActivationChoice;
  readonly backend: BackendName;
  readonly threads?: number;
  readonly outputDir: string;
  readonly json?: true;
}

/** The command. */
export function benchCommand(): Command {
  return new Command("bench").description("Measure on this machine")
    .addCommand(benchFormatsCommand());
}

function benchFormatsCommand(): Command {
  return new Command("formats")
    .description("Draw one picture per format and compare bytes, seconds and quality with float32")
    .option("--model <dir|id>", "the model's folder (default: the demo model)")
    .option("--prompt <text>", "what to draw", "a red star above a blue house")
    .option("--width <n>", "pixels (default: the model's own)", integer)
    .option("--height <n>", "pixels (default: the model's own)", integer)
    .option("--steps <n>", "denoising steps (default: the model's own)", integer)
    .option("--seed <n>", "of the noise", integer, 0)
    .option("--formats <list>", "names with commas between them (default: all)", commaList, [])
    .addOption(activationsOption())
    .addOption(
      new Option("--backend <name>", "where the arithmetic runs")
        .choices(["auto", ...BACKEND_NAMES]).default("auto"),
    )
    .option("--threads <n>", "threads of the wasm backend (default: one per processor)", integer)
    .option("--output-dir <dir>", "for the table, the JSON and the pictures", "format-bench")
    .option("--json", "print one JSON object")
    .action((options: BenchFormatsOptions) =>
      interruptible((signal) => benchFormats(options, signal))
    );
}

function commaList(text: string): string[] {
  return text.split(",").map((name) => name.trim()).filter(Boolean);
}

async function benchFormats(options: BenchFormatsOptions, signal: AbortSignal): Promise<void> {
  const names = benchedFormats(options.formats);
  const request = await requestOf(options, signal);
  const progress = createProgress();
  const runs: FormatRun[] = [];
  for (const [index, name] of names.entries()) {
    progress.show(name, index, names.length, "formats");
    runs.push(await runFormat(name, request));
    signal.throwIfAborted();
  }
  progress.close();
  const report = reportOf(request, runs);
  const markdown = await writeReport(options.outputDir, report, runs);
  writeText(options.json ? `${JSON.stringify(report, null, 2)}\n` : markdown);
}

async function requestOf(
  { model, prompt, seed, backend, threads, activations, width, height, steps }: BenchFormatsOptions,
  signal: AbortSignal,
): Promise<FormatBenchRequest> {
  const path = await modelPath(model);
  return {
    model: path,
    ...await readGenerationDefaults(path),
    ...given({ width, height, numInferenceSteps: steps }),
    prompt,
    seed,
    backend,
    threads,
    activations,
    signal,
  };
}

function reportOf(
  { model, prompt, seed }: FormatBenchRequest,
  runs: readonly FormatRun[],
): FormatReport {
  const [exact] = runs as [FormatRun];
  return {
    model: nameOf(model),
    prompt,
    seed,
    steps: exact.stepSeconds.length,
    width: exact.image.width,
    height: exact.image.height,
    backend: exact.backend,
    machine: {
      processor: cpuModel(),
      processors: cpuCount(),
      memoryBytes: memoryBytes()?.total,
      platform: platformName(),
      runtime: `${runtimeName()} ${runtimeVersion()}`,
    },
    formats: runs.map((run) => compared(run, exact)),
  };
}

/** Writes MODEL.md, MODEL.json and MODEL.png; returns the Markdown. */
async function writeReport(
  folder: string,
  report: FormatReport,
  runs: readonly FormatRun[],
): Promise<string> {
  await makeFolder(folder);
  const path = (extension: string) => joinPath(folder, `${report.model}.${extension}`);
  const markdown = reportMarkdown(report, `${report.model}.png`);
  const sheet = contactSheet(runs.map(({ image }, index) => {
    return { image, lines: labelOf(report.formats[index]!) };
  }));
  await sheet.save(path("png"));
  await writeAtomic(path("json"), utf8(`${JSON.stringify(report, null, 2)}\n`));
  await writeAtomic(path("md"), utf8(markdown));
  return markdown;
}

/** The method over the format, because both in one line are wider than a small picture. */
function labelOf({ name, psnr }: FormatResult): string[] {
  const quality = psnr === null ? "same as float32" : `${psnrText(psnr)} dB`;
  const [method, format = ""] = name.split(":") as [string, string?];
  return [method, format, quality];
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
