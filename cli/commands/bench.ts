/** `halftone bench formats`: which format costs what, on this machine and this model. */

import { Command, Option } from "commander";
import { BACKEND_NAMES, type BackendName } from "../../src/backends/select.ts";
import { writeAtomic } from "../../src/runtime/atomic_file.ts";
import { joinPath, makeFolder, nameOf } from "../../src/runtime/files.ts";
import { machineSummary, writeText } from "../../src/runtime/system.ts";
import type { ActivationChoice } from "../../src/quantization/activation_choice.ts";
import { contactSheet } from "../bench/contact_sheet.ts";
import {
  type FormatReport,
  type FormatResult,
  psnrText,
  reportMarkdown,
} from "../bench/format_report.ts";
import { benchedFormats, type FormatBenchRequest } from "../bench/format_runs.ts";
import { type ComparedFormat, UnfinishedBench } from "../bench/unfinished.ts";
import { readGenerationDefaults } from "../generation_defaults.ts";
import { given } from "../given.ts";
import { interruptible } from "../interrupt.ts";
import { modelPath } from "../model_path.ts";
import { activationsOption, integer } from "../options.ts";
import { createProgress } from "../progress.ts";
import { type ComparedFormats, compareFormats } from "../bench/compare_formats.ts";

interface BenchFormatsOptions {
  readonly model?: string;
  readonly prompt: string;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly seed: number;
  readonly formats: readonly string[];
  readonly except: readonly string[];
  readonly activations?: ActivationChoice;
  readonly backend: BackendName;
  readonly threads?: number;
  readonly outputDir: string;
  readonly resume?: true;
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
    .option(
      "--prompt <text>",
      "what to draw",
      "a red star above a blue house on a white background",
    )
    .option("--width <n>", "pixels (default: the model's own)", integer)
    .option("--height <n>", "pixels (default: the model's own)", integer)
    .option("--steps <n>", "denoising steps (default: the model's own)", integer)
    .option("--seed <n>", "of the noise", integer, 0)
    .option("--formats <list>", "names with commas between them (default: all)", commaList, [])
    .option("--except <list>", "names of formats to leave out", commaList, [])
    .addOption(activationsOption())
    .addOption(
      new Option("--backend <name>", "where the arithmetic runs")
        .choices(["auto", ...BACKEND_NAMES]).default("auto"),
    )
    .option("--threads <n>", "threads of the wasm backend (default: one per processor)", integer)
    .option("--output-dir <dir>", "for the table, the JSON and the pictures", "format-bench")
    .option("--resume", "go on with a comparison that was interrupted")
    .option("--json", "print one JSON object")
    .action((options: BenchFormatsOptions) =>
      interruptible((signal) => benchFormats(options, signal))
    );
}

function commaList(text: string): string[] {
  return text.split(",").map((name) => name.trim()).filter(Boolean);
}

async function benchFormats(options: BenchFormatsOptions, signal: AbortSignal): Promise<void> {
  const names = benchedFormats(options.formats, options.except);
  const request = await requestOf(options, signal);
  const folder = joinPath(options.outputDir, `${nameOf(request.model)}.unfinished`);
  const unfinished = await UnfinishedBench.open(folder, settingsOf(request), !!options.resume);
  const progress = createProgress();
  const table = await compareFormats(names, request, { unfinished, progress });
  progress.close();
  const report = reportOf(request, table, options.except);
  const markdown = await writeReport(options.outputDir, report, table.formats);
  await unfinished.remove();
  writeText(options.json ? `${JSON.stringify(report, null, 2)}\n` : markdown);
}

/** What must be the same for a comparison to go on. */
function settingsOf({ model: _model, signal: _signal, ...settings }: FormatBenchRequest) {
  return { ...settings, machine: machineSummary() };
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
  { exact, formats, failures }: ComparedFormats,
  leftOut: readonly string[],
): FormatReport {
  return {
    model: nameOf(model),
    prompt,
    seed,
    steps: exact.stepSeconds.length,
    width: exact.image.width,
    height: exact.image.height,
    backend: exact.backend,
    machine: machineSummary(),
    formats: formats.map(({ result }) => result),
    failures,
    leftOut,
  };
}

/** Writes MODEL.md, MODEL.json and MODEL.png; returns the Markdown. */
async function writeReport(
  folder: string,
  report: FormatReport,
  formats: readonly ComparedFormat[],
): Promise<string> {
  await makeFolder(folder);
  const path = (extension: string) => joinPath(folder, `${report.model}.${extension}`);
  const markdown = reportMarkdown(report, `${report.model}.png`);
  const sheet = contactSheet(
    formats.map(({ image, result }) => ({ image, lines: labelOf(result) })),
  );
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
