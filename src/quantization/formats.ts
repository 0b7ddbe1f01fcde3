/** The command line's names of formats, `METHOD:FORMAT`, taken from the registry of methods. */

import { HalftoneError } from "../errors.ts";
import { METHODS, withSkipModules } from "./auto.ts";
import { LayerwiseCastingConfig } from "./layerwise_casting_config.ts";
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

/** What goes for all `--quantize` flags. */
export interface QuantizeFlagOptions {
  /** Whether modules that a model class leaves dense by default are quantized too, as in Diffusers. */
  readonly quantizeOuter?: boolean;
}

/** The components quantized when a flag names none: those that hold nearly all weights. */
export const DEFAULT_QUANTIZED_COMPONENTS: readonly string[] = ["transformer", "text_encoder_2"];

/** All formats in the order of the registry. */
export function quantizeFormats(): QuantizeFormat[] {
  return METHODS.flatMap((method) =>
    method.formats.map((format) => ({ ...format, fullName: `${method.name}:${format.name}` }))
  );
}

/**
 * Parses `[COMPONENT=]METHOD:FORMAT`, and after it `+layerwise:FORMAT` for what the method leaves dense.
 * Throws `invalid_argument` listing the formats.
 */
export function parseQuantizeFlag(flag: string): QuantizeFlag {
  const equals = flag.indexOf("=");
  const [name, ...rest] = flag.slice(equals + 1).split("+");
  const formats = quantizeFormats();
  const [format, casting] = [name, rest[0]].map((wanted) => {
    return formats.find((candidate) => candidate.fullName === wanted);
  });
  const isKnown = rest.length === 0 || (rest.length === 1 && casting !== undefined);
  if (!format || !isKnown || equals === 0) throw unknownFormat(flag);
  const component = equals < 0 ? undefined : flag.slice(0, equals);
  const config = format.config();
  return { component, format, config: casting ? castRest(flag, config, casting.config()) : config };
}

function castRest(
  flag: string,
  config: QuantizationConfig,
  casting: QuantizationConfig,
): QuantizationConfig {
  const isCasting = (config: QuantizationConfig) => config instanceof LayerwiseCastingConfig;
  if (casting instanceof LayerwiseCastingConfig && !isCasting(config)) return casting.over(config);
  throw new HalftoneError("invalid_argument", "Cannot combine these formats", {
    field: "--quantize",
    found: flag,
    expected: "METHOD:FORMAT+layerwise:FORMAT",
  });
}

/**
 * The config of several `--quantize` flags, those that name their component before the one that does
 * not; undefined when there are none. Throws `invalid_argument`, also for two of the same component.
 */
export function parseQuantizeFlags(
  flags: readonly string[],
  { quantizeOuter = false }: QuantizeFlagOptions = {},
): PipelineQuantizationConfig | undefined {
  if (flags.length === 0) return undefined;
  const named = new Map<string | undefined, QuantizationConfig>();
  for (const { component, config } of flags.map(parseQuantizeFlag)) {
    if (named.has(component)) throw givenTwice(component, flags);
    named.set(component, quantizeOuter ? skippingNothing(config) : config);
  }
  const quantMapping: Record<string, QuantizationConfig> = {};
  const usual = named.get(undefined);
  if (usual) { for (const name of DEFAULT_QUANTIZED_COMPONENTS) quantMapping[name] = usual; }
  for (const [name, config] of named) if (name !== undefined) quantMapping[name] = config;
  return new PipelineQuantizationConfig({ quantMapping });
}

/** The config with an empty skip list, so that the model class's default one is not taken. */
export function skippingNothing(config: QuantizationConfig): QuantizationConfig {
  return withSkipModules(config, () => []);
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
    expected: "[COMPONENT=]METHOD:FORMAT[+layerwise:FORMAT] with one of " +
      quantizeFormats().map((format) => format.fullName).join(", "),
  });
}
