/** A caller's own choice of how activations are treated, whatever the format of the weights. */

import { HalftoneError, invalidOption } from "../errors.ts";
import type { ActivationMode, QuantizedActivations } from "../ops/activation_mode.ts";
import type { WeightCatalog, WeightInfo } from "../ops/graph.ts";

/**
 * "float"; or codes with a scale per row (token) found at every run: "int8", "float8" (e4m3).
 * "int8_int16_tables" is int8, and tables of 16 values (NF4) may be rounded to 16 bits for integer arithmetic.
 */
export type ActivationChoice = "float" | "int8" | "int8_int16_tables" | "float8";

/** All choices. */
export const ACTIVATION_CHOICES: readonly ActivationChoice[] = [
  "float",
  "int8",
  "int8_int16_tables",
  "float8",
];

/** Throws `invalid_argument` for anything but a choice or nothing. */
export function checkActivations(value: unknown): void {
  if (value === undefined || ACTIVATION_CHOICES.some((choice) => choice === value)) return;
  throw invalidOption("activations", value, ACTIVATION_CHOICES.join(", "));
}

/** The mode of the linear op that a choice means. */
export function modeOfChoice(choice: ActivationChoice): ActivationMode {
  if (choice === "float") return { kind: "float" };
  if (choice === "float8") return perRow("float8_e4m3fn", 448);
  const int8 = perRow("int8", 127);
  return choice === "int8" ? int8 : { ...int8, int16Tables: true };
}

function perRow(dtype: QuantizedActivations["dtype"], levels: number): QuantizedActivations {
  return {
    kind: "quantized",
    dtype,
    granularity: "row",
    lowest: -levels,
    highest: levels,
    scale: { kind: "dynamic", mapping: "symmetric", levels, least: 0, rounding: "ratio" },
  };
}

/**
 * The catalog with the choice for the quantized weights of token layers, which see a row per token. Other
 * linear layers see a row or two, where rounding saves nothing, and their outputs steer all tokens: they
 * stay as their method has them. "float" is for every layer.
 */
export function withActivations(
  catalog: WeightCatalog,
  choice: ActivationChoice,
  isTokenLayer: (name: string) => boolean,
): WeightCatalog {
  const activations = modeOfChoice(choice);
  const concerns = (name: string, info: WeightInfo) =>
    info.format.kind === "quantized" && (choice === "float" || isTokenLayer(name));
  return {
    lookup(name) {
      const info = catalog.lookup(name);
      return info && concerns(name, info) ? { ...info, activations } : info;
    },
  };
}

/** Rounding activations of a model whose weights are all dense costs accuracy and saves nothing. */
export function nothingToRound(choice: ActivationChoice): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot round activations of a dense model", {
    field: "activations",
    found: choice,
    expected: "quantized weights in the transformer or text_encoder_2",
    remedy: "Quantize them too, with bitsandbytes:nf4 say, or leave activations out",
  });
}
