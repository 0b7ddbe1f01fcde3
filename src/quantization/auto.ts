/**
 * Which method a config means: the registry of methods and the dispatch rules of Diffusers'
 * quantizers/auto.py. A new method is one entry of `METHODS`.
 */

import { HalftoneError } from "../errors.ts";
import { BITSANDBYTES } from "./bitsandbytes.ts";
import { GGUF } from "./gguf.ts";
import { LAYERWISE } from "./layerwise_casting.ts";
import { LayerwiseCastingConfig } from "./layerwise_casting_config.ts";
import { LayerwiseRest } from "./layerwise_rest.ts";
import { MODELOPT } from "./modelopt.ts";
import type {
  Method,
  QuantizationConfig,
  Quantizer,
  QuantizerTarget,
  SkipList,
  TensorReader,
} from "./quantizer.ts";
import { QUANTO } from "./quanto.ts";
import { TORCHAO } from "./torchao.ts";

export type { QuantizationConfig, Quantizer } from "./quantizer.ts";

/** All methods, those with keys of their own before layerwise casting, which has none. */
export const METHODS: readonly Method[] = [
  BITSANDBYTES,
  TORCHAO,
  QUANTO,
  MODELOPT,
  LAYERWISE,
  GGUF,
];

/** A config, or the dictionary of one as config.json holds it. */
export type QuantizationConfigLike = QuantizationConfig | Readonly<Record<string, unknown>>;

/**
 * The config of a dictionary: a true load_in_4bit or load_in_8bit means bitsandbytes, else
 * quant_method decides. Throws `quantization_config`.
 */
export function configFromDict(dict: Readonly<Record<string, unknown>>): QuantizationConfig {
  return methodOfBackend(backendOf(dict)).fromDict(dict);
}

function backendOf(dict: Readonly<Record<string, unknown>>): unknown {
  if (dict.load_in_4bit) return "bitsandbytes_4bit";
  if (dict.load_in_8bit) return "bitsandbytes_8bit";
  if (dict.quant_method !== undefined && dict.quant_method !== null) return dict.quant_method;
  throw new HalftoneError(
    "quantization_config",
    "Cannot tell the method of a quantization config",
    {
      field: "quant_method",
      found: "nothing",
      expected: `one of ${backendNames().join(", ")}`,
      remedy: "Check that the model was quantized correctly",
    },
  );
}

/** The keys of all methods in Diffusers' mapping. */
export function backendNames(): string[] {
  return METHODS.flatMap((method) => method.backends);
}

/** The names of all files that libraries keep beside weights. */
export function stateFileNames(): string[] {
  return METHODS.flatMap(({ stateFileName }) => stateFileName ?? []);
}

/** The method of a key of Diffusers' mapping. Throws `quantization_config`. */
export function methodOfBackend(backend: unknown): Method {
  const method = METHODS.find((candidate) => candidate.backends.some((name) => name === backend));
  if (method) return method;
  throw new HalftoneError("quantization_config", "Cannot use an unknown quantization method", {
    field: "quant_method",
    found: backend,
    expected: `one of ${backendNames().join(", ")}`,
  });
}

/** Whether a value is a config object of a known method. */
export function isQuantizationConfig(value: unknown): value is QuantizationConfig {
  return METHODS.some((method) => method.accepts(value as QuantizationConfig));
}

/** A config object from either form. Throws `quantization_config`. */
export function toConfig(config: QuantizationConfigLike): QuantizationConfig {
  if (isQuantizationConfig(config)) return config;
  if (typeof config === "object" && config !== null && !Array.isArray(config)) {
    return configFromDict(config as Readonly<Record<string, unknown>>);
  }
  throw new HalftoneError("quantization_config", "Cannot use a quantization config", {
    found: config,
    expected: "a config object or its dictionary",
  });
}

/** The quantizer of a config. Throws `quantization_config`, `unsupported`. */
export function createQuantizer(
  config: QuantizationConfigLike,
  target: QuantizerTarget,
): Quantizer {
  const resolved = toConfig(config);
  const quantizer = methodOf(resolved).create(resolved, target);
  const first = resolved instanceof LayerwiseCastingConfig ? resolved.quantizationConfig : null;
  return first ? new LayerwiseRest(createQuantizer(first, target), quantizer, resolved) : quantizer;
}

/** The config with these entries where it has no skip list of its own, and its method has skip lists. */
export function withSkipModules(
  config: QuantizationConfig,
  choose: (
    withEntries: (entries: readonly string[]) => QuantizationConfig,
    list: SkipList,
  ) => readonly string[],
): QuantizationConfig {
  if (config instanceof LayerwiseCastingConfig) {
    const inner = config.quantizationConfig;
    return inner ? config.over(withSkipModules(inner, choose)) : config;
  }
  const { skipList, fromDict } = methodOf(config);
  const dict = config.toDict();
  if (skipList === undefined || (dict[skipList.key] ?? null) !== null) return config;
  const withEntries = (entries: readonly string[]) =>
    skipList.replaced?.(config, entries) ?? fromDict({ ...dict, [skipList.key]: [...entries] });
  return withEntries(choose(withEntries, skipList));
}

function methodOf(config: QuantizationConfig): Method {
  return METHODS.find((candidate) => candidate.accepts(config))!;
}

/** The config that the keys of a checkpoint show it was quantized with; null when it was not. */
export function detectQuantization(checkpoint: TensorReader): QuantizationConfig | null {
  for (const method of METHODS) {
    const dict = method.detect(checkpoint);
    if (dict) return method.fromDict(dict);
  }
  return null;
}

/** The checkpoint's own config wins over the caller's, with one warning. */
export function mergeQuantizationConfigs(
  fromCheckpoint: QuantizationConfigLike,
  fromCaller: QuantizationConfigLike | null | undefined,
  onWarning: (message: string) => void = console.warn,
): QuantizationConfig {
  if (fromCaller) {
    onWarning(
      "A quantization config was given, but the checkpoint is quantized already; " +
        "the checkpoint's own config is used.",
    );
  }
  return toConfig(fromCheckpoint);
}
