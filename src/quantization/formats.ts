/** The command line's names of formats, `METHOD:FORMAT`, taken from the registry of methods. */

import { HalftoneError } from "../errors.ts";
import { METHODS } from "./auto.ts";
import { PipelineQuantizationConfig } from "./pipeline_config.ts";
import type { MethodFormat, QuantizationConfig } from "./quantizer.ts";

/** A format with its full name. */
export interface QuantizeFormat extends MethodFormat {
  /** `METHOD:FORMAT`. */
  readonly fullName: string;
}

/** A parsed `--quantize` value. */
export interface QuantizeFlag {
  /** The component it is for; the usual two when absent. */
  readonly component?: string;
  readonly format: QuantizeFormat;
  readonly config: QuantizationConfig;
}

/** The components quantized when a flag names none: those that hold nearly all weights. */
export const DEFAULT_QUANTIZED_COMPONENTS: readonly string[] = ["transformer", "text_encoder_2"];

/** All formats in the order of the registry. */
export function quantizeFormats(): QuantizeFormat[] {
  return METHODS.flatMap((method) =>
    method.formats.map((format) => ({ ...format, fullName: `${method.name}:${format.name}` }))
  );
}

/** Parses `[COMPONENT=]METHOD:FORMAT`. Throws `invalid_argument` listing the formats. */
export function parseQuantizeFlag(flag: string): QuantizeFlag {
  const equals = flag.indexOf("=");
  const name = flag.slice(equals + 1);
  const format = quantizeFormats().find((candidate) => candidate.fullName === name);
  if (!format || equals === 0) throw unknownFormat(flag);
  const component = equals < 0 ? undefined : flag.slice(0, equals);
  return { component, format, config: format.config() };
}

/**
 * The config of several `--quantize` flags, those that name their component before the one that does
 * not; undefined when there are none. Throws `invalid_argument`, also for two of the same component.
 */
export function parseQuantizeFlags(
  flags: readonly string[],
): PipelineQuantizationConfig | undefined {
  if (flags.length === 0) return undefined;
  const named = new Map<string | undefined, QuantizationConfig>();
  for (const { component, config } of flags.map(parseQuantizeFlag)) {
    if (named.has(component)) throw givenTwice(component, flags);
    named.set(component, config);
  }
  const quantMapping: Record<string, QuantizationConfig> = {};
  const usual = named.get(undefined);
  if (usual) { for (const name of DEFAULT_QUANTIZED_COMPONENTS) quantMapping[name] = usual; }
  for (const [name, config] of named) if (name !== undefined) quantMapping[name] = config;
  return new PipelineQuantizationConfig({ quantMapping });
}

function givenTwice(component: string | undefined, flags: readonly string[]): HalftoneError {
  const what = component ?? DEFAULT_QUANTIZED_COMPONENTS.join(" and ");
  return new HalftoneError("invalid_argument", `Cannot quantize ${what} in two formats`, {
    field: "--quantize",
    found: flags.join(" "),
    expected: "one format for a component",
  });
}

function unknownFormat(flag: string): HalftoneError {
  return new HalftoneError("invalid_argument", "Cannot understand a quantization format", {
    field: "--quantize",
    found: flag,
    expected: "[COMPONENT=]METHOD:FORMAT with one of " +
      quantizeFormats().map((format) => format.fullName).join(", "),
  });
}
