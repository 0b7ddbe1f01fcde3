/** PipelineQuantizationConfig, with the two forms and the errors of Diffusers' pipe_quant_config.py. */

import { HalftoneError } from "../errors.ts";
import {
  backendNames,
  isQuantizationConfig,
  methodOfBackend,
  METHODS,
  type QuantizationConfig,
} from "./auto.ts";

/** One backend for several components, or a config per component. */
export interface PipelineQuantizationOptions {
  /** A key of Diffusers' mapping, such as "bitsandbytes_4bit". */
  readonly quantBackend?: string;
  /** The arguments of the backend's config, in camelCase or as Diffusers spells them. */
  readonly quantKwargs?: Readonly<Record<string, unknown>>;
  /** The components the backend is for; all when absent or empty. */
  readonly componentsToQuantize?: string | readonly string[];
  /** A config per component. */
  readonly quantMapping?: Readonly<Record<string, QuantizationConfig>>;
}

/** How to quantize the components of a pipeline while they load. */
export class PipelineQuantizationConfig {
  /** See `PipelineQuantizationOptions.quantBackend`. */
  readonly quantBackend: string | undefined;
  /** See `PipelineQuantizationOptions.quantKwargs`. */
  readonly quantKwargs: Readonly<Record<string, unknown>>;
  /** The components the backend is for; all when empty. */
  readonly componentsToQuantize: readonly string[];
  /** A config per component. */
  readonly quantMapping: Readonly<Record<string, QuantizationConfig>> | undefined;

  /** Throws `quantization_config`. */
  constructor(options: PipelineQuantizationOptions = {}) {
    this.quantBackend = options.quantBackend || undefined;
    this.quantKwargs = options.quantKwargs ?? {};
    this.componentsToQuantize = listOf(options.componentsToQuantize);
    this.quantMapping = isEmpty(options.quantMapping) ? undefined : options.quantMapping;
    checkForms(this);
    if (this.quantBackend !== undefined) checkBackend(this.quantBackend, this.quantKwargs);
    for (const [name, config] of Object.entries(this.quantMapping ?? {})) checkConfig(name, config);
  }

  /** The config for a component; undefined when it stays as it is. */
  resolve(component: string): QuantizationConfig | undefined {
    if (this.quantMapping) {
      return Object.hasOwn(this.quantMapping, component) ? this.quantMapping[component] : undefined;
    }
    const wanted = this.componentsToQuantize;
    if (wanted.length > 0 && !wanted.includes(component)) return undefined;
    return backendConfig(this.quantBackend!, this.quantKwargs);
  }

  /** Named components that the pipeline lacks; worth a warning, not an error. */
  unknownComponents(components: readonly string[]): string[] {
    const named = this.quantMapping ? Object.keys(this.quantMapping) : this.componentsToQuantize;
    return named.filter((name) => !components.includes(name));
  }
}

/**
 * The config itself, or undefined for none. A pipeline refuses the config of a single model: throws
 * `quantization_config`.
 */
export function checkPipelineConfig(config: unknown): PipelineQuantizationConfig | undefined {
  if (config === undefined || config === null) return undefined;
  if (config instanceof PipelineQuantizationConfig) return config;
  throw new HalftoneError("quantization_config", "Cannot quantize a pipeline with this config", {
    field: "quantizationConfig",
    found: isQuantizationConfig(config) ? "the config of a single model" : typeof config,
    expected: "a PipelineQuantizationConfig",
    remedy: "Wrap it: new PipelineQuantizationConfig({ quantMapping: { transformer: config } })",
  });
}

function checkForms(config: PipelineQuantizationConfig): void {
  const { quantBackend, quantMapping, quantKwargs } = config;
  if (quantBackend !== undefined && quantMapping) {
    throw invalid("quantBackend, quantMapping", "both", "one of them");
  }
  if (quantBackend === undefined && !quantMapping) {
    throw invalid("quantBackend, quantMapping", "neither", "one of them");
  }
  if (!quantMapping && isEmpty(quantKwargs)) {
    throw invalid("quantKwargs", "nothing", "the arguments of the backend's config");
  }
}

function checkBackend(backend: string, kwargs: Readonly<Record<string, unknown>>): void {
  if (!backendNames().includes(backend)) {
    throw invalid("quantBackend", backend, `one of ${backendNames().join(", ")}`);
  }
  if (!methodOfBackend(backend).sharedWithTransformers) {
    const shared = METHODS.filter((method) => method.sharedWithTransformers);
    const names = shared.flatMap((method) => method.backends).join(", ");
    throw invalid("quantBackend", backend, `one of ${names}; use quantMapping for the others`);
  }
  backendConfig(backend, kwargs);
}

function backendConfig(
  backend: string,
  kwargs: Readonly<Record<string, unknown>>,
): QuantizationConfig {
  return methodOfBackend(backend).fromDict(kwargs);
}

function checkConfig(component: string, config: unknown): void {
  if (isQuantizationConfig(config)) return;
  const names = METHODS.map((method) => method.name).join(", ");
  throw invalid(`quantMapping.${component}`, typeof config, `a config of ${names}`);
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use a PipelineQuantizationConfig";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}

function listOf(value: string | readonly string[] | undefined): readonly string[] {
  const list = typeof value === "string" ? [value].filter(Boolean) : value ?? [];
  const isNames = Array.isArray(list) && list.every((name) => typeof name === "string");
  if (isNames) return [...list];
  throw invalid("componentsToQuantize", value, "a name or a list of names");
}

function isEmpty(record: object | undefined): boolean {
  return record === undefined || record === null || Object.keys(record).length === 0;
}
