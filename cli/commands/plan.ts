/** `halftone plan`: what a run will need, without loading weights. */

import { Command } from "commander";
import { FluxPipeline } from "../../src/pipelines/flux.ts";
import type { FluxPlanReport } from "../../src/pipelines/flux_plans.ts";
import { writeText } from "../../src/runtime/system.ts";
import { byteText, tableText } from "../byte_text.ts";
import { given } from "../given.ts";
import { readGenerationDefaults } from "../generation_defaults.ts";
import { interruptible } from "../interrupt.ts";
import { modelPath } from "../model_path.ts";
import { addModelOptions, integer, type ModelOptions } from "../options.ts";
import { pipelineOptions } from "../pipeline.ts";

interface PlanOptions extends ModelOptions {
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  readonly maxSequenceLength?: number;
  readonly text?: true;
  readonly json?: true;
}

/** The command. */
export function planCommand(): Command {
  const command = new Command("plan")
    .description("Say what a run will need, without loading weights")
    .option("--width <n>", "pixels (default: the model's own)", integer)
    .option("--height <n>", "pixels (default: the model's own)", integer)
    .option("--steps <n>", "denoising steps (default: the model's own)", integer)
    .option("--max-sequence-length <n>", "tokens of T5 (default: the model's own)", integer)
    .option("--text", "print the plans step by step")
    .option("--json", "print one JSON object");
  return addModelOptions(command).action((options: PlanOptions) =>
    interruptible((signal) => plan(options, signal))
  );
}

async function plan(options: PlanOptions, signal: AbortSignal): Promise<void> {
  const path = await modelPath(options.model);
  const { guidanceScale: _, ...defaults } = await readGenerationDefaults(path);
  const report = await FluxPipeline.describe(path, {
    ...await pipelineOptions(options, path),
    ...defaults,
    ...given({
      width: options.width,
      height: options.height,
      numInferenceSteps: options.steps,
      maxSequenceLength: options.maxSequenceLength,
    }),
    signal,
  });
  if (options.json) writeText(`${JSON.stringify(withoutPlans(report), null, 2)}\n`);
  else if (options.text) writeText(report.stages.map(({ text }) => `${text}\n`).join("\n"));
  else writeText(`${textOf(report)}\n`);
}

/** A plan as data is long, and `--text` says the same better. */
function withoutPlans({ stages, ...report }: FluxPlanReport): unknown {
  return { ...report, stages: stages.map(({ text: _text, ...stage }) => stage) };
}

function textOf(report: FluxPlanReport): string {
  const { width, height, numInferenceSteps, backend, planHash, memory } = report;
  const components = report.components.map((component) => [
    component.name,
    component.quantMethod ?? "dense",
    byteText(component.storedBytes),
  ]);
  const stages = report.stages.map((stage) => [
    stage.name,
    stage.hash,
    byteText(stage.weightBytes),
    byteText(stage.arenaBytes),
    byteText(stage.scratchBytes),
    stage.keepsWeights ? "kept" : "released",
  ]);
  return [
    `${width}x${height}, ${numInferenceSteps} steps, backend ${backend}, plan ${planHash}`,
    tableText([["component", "format", "weights"], ...components], [2]),
    tableText(
      [["stage", "plan", "weights", "arena", "scratch", "after use"], ...stages],
      [2, 3, 4],
    ),
    `stored ${byteText(memory.stored)}, resident ${byteText(memory.resident)}, peak ${
      byteText(memory.peak)
    }${memory.devicePeak === undefined ? "" : `, of the device's ${byteText(memory.devicePeak)}`}`,
  ].join("\n\n");
}
