/** The options that several commands share, and how their values are read. */

import { type Command, InvalidArgumentError, Option } from "commander";
import { MATMUL_PRECISIONS, type MatmulPrecision } from "../src/backends/cuda/matmul_precision.ts";
import { BACKEND_NAMES, type BackendName } from "../src/backends/select.ts";
import { ATTENTION_CHOICES, type AttentionChoice } from "../src/pipelines/attention_choice.ts";
import {
  ACTIVATION_CHOICES,
  type ActivationChoice,
} from "../src/quantization/activation_choice.ts";

/** The options of every command that opens a model. */
export interface ModelOptions {
  readonly model?: string;
  readonly backend: BackendName;
  readonly threads?: number;
  readonly strict?: true;
  readonly matmulPrecision?: MatmulPrecision;
  readonly dtype?: "float32" | "bfloat16";
  readonly quantize: readonly string[];
  readonly activations?: ActivationChoice;
  readonly attention?: AttentionChoice;
  readonly quantizeOuter?: true;
  readonly transformer?: string;
  readonly textEncoder2?: string;
}

/** Adds the options of `ModelOptions`. */
export function addModelOptions(command: Command): Command {
  return addQuantizeOption(
    command
      .addOption(activationsOption())
      .addOption(
        new Option(
          "--attention <type>",
          "what the transformer's attention rounds queries and keys to",
        )
          .choices(ATTENTION_CHOICES),
      )
      .option("--model <dir|id>", "the model's folder (default: the demo model)")
      .option("--transformer <file>", "a .gguf or .safetensors file with the transformer's weights")
      .option("--text-encoder-2 <file>", "the same for T5")
      .addOption(
        new Option("--backend <name>", "where the arithmetic runs")
          .choices(["auto", ...BACKEND_NAMES]).default("auto"),
      )
      .option("--threads <n>", "threads of the wasm backend (default: one per processor)", integer)
      .option("--strict", "no relaxed SIMD: the same bytes on every machine")
      .addOption(
        new Option(
          "--matmul-precision <type>",
          "how exactly the cuda backend computes large products, attention and convolutions (default: float32)",
        )
          .choices(MATMUL_PRECISIONS),
      )
      .addOption(
        new Option(
          "--dtype <type>",
          "type of the weights that are not quantized (default: as stored)",
        )
          .choices(["float32", "bfloat16"]),
      ),
  );
}

/** `--activations`. */
export function activationsOption(): Option {
  return new Option(
    "--activations <type>",
    "what layers with quantized weights round their input to, per token (default: as the format has it)",
  ).choices(ACTIVATION_CHOICES);
}

/** Adds `--quantize`, which may be given several times, and what goes with it. */
export function addQuantizeOption(command: Command): Command {
  command.option(
    "--quantize-outer",
    "quantize Flux's embedders and last modulation too, as Diffusers does by default",
  );
  return command.option(
    "--quantize <[component=]method:format>",
    "quantize a component, such as bitsandbytes:nf4; `halftone formats` lists them (repeatable; " +
      "without a component: transformer and text_encoder_2)",
    (value: string, previous: readonly string[]) => [...previous, value],
    [] as readonly string[],
  );
}

/** A whole number; ranges are the pipeline's to check, so that code and command line agree. */
export function integer(text: string): number {
  if (!/^[+-]?\d+$/.test(text)) throw new InvalidArgumentError("It is not a whole number.");
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError("It is too large.");
  return value;
}

/** A finite decimal number. */
export function decimal(text: string): number {
  const value = Number(text);
  if (text.trim() === "" || !Number.isFinite(value)) {
    throw new InvalidArgumentError("It is not a number.");
  }
  return value;
}
