/** NVIDIAModelOptConfig with the fields, defaults and checks of Diffusers' quantization_config.py. */

import { HalftoneError } from "../errors.ts";
import { ACTIVATION_TYPES, type ModelOptActivationType } from "./modelopt_activations.ts";
import { plainNumber, plainText } from "./plain_values.ts";
import type { JsonValue } from "./python_json.ts";
import type { QuantizationConfig } from "./quantizer.ts";

/** The types of weights. */
export type ModelOptType = "FP8" | "INT8" | "INT4" | "NF4" | "NVFP4";

/** How the ranges of weights are found: the largest |w|, or a search for the least squared error. */
export type ModelOptAlgorithm = "max" | "mse";

/** The types, in Diffusers' order. */
const TYPES: readonly ModelOptType[] = ["FP8", "INT8", "INT4", "NF4", "NVFP4"];

/** What an NVIDIAModelOptConfig may be given; the names are Diffusers' in camelCase. */
export interface NVIDIAModelOptOptions {
  /**
   * "FP8", "INT8", "INT4", "NF4" or "NVFP4"; with `weightOnly` false the type of activations may follow, as in
   * "FP8_INT8": "FP8", "INT8" (which is meant when it is absent) or "INT4".
   */
  readonly quantType: string;
  /** Parts of module names that stay dense. Default none. */
  readonly modulesToNotConvert?: readonly string[] | null;
  /** Whether activations stay in float. Default true. */
  readonly weightOnly?: boolean;
  /**
   * The largest |x| that the inputs of modules reached, by the module's name: what ModelOpt finds with its
   * forward loop. Modules without one find it in each input. It is stored with the weights, not in config.json.
   */
  readonly inputAmax?: Readonly<Record<string, number>>;
  /** 0 for a scale per row; -1 together with `blockQuantize`. Default none: one for the tensor. */
  readonly channelQuantize?: number | null;
  /** Weights per scale. */
  readonly blockQuantize?: number | null;
  /** -1 together with `scaleBlockQuantize`. */
  readonly scaleChannelQuantize?: number | null;
  /** Scales per scale of scales; NF4 and NVFP4 need it. */
  readonly scaleBlockQuantize?: number | null;
  /**
   * How the ranges of weights are found: "max", the largest |w|; or "mse", of 39 multiples of it, from 1/4 to 4,
   * the one with the least squared error, for FP8 only. (ModelOpt's compressed layers of other types take the
   * largest |w| whatever it is.) Those of activations are `inputAmax`. Default "max".
   */
  readonly algorithm?: string;
  /** Kept for checkpoints. Default false. */
  readonly disableConvQuantization?: boolean;
}

/** How to quantize with NVIDIA ModelOpt. */
export class NVIDIAModelOptConfig implements QuantizationConfig {
  /** The method as config.json names it. */
  readonly quantMethod = "modelopt";
  /** The key of the method in Diffusers' mapping. */
  readonly backend = "modelopt";
  /** What weights become. */
  readonly quantType: ModelOptType;
  /** What activations are rounded to; null when they stay in float. */
  readonly activationType: ModelOptActivationType | null;
  /** See `NVIDIAModelOptOptions.inputAmax`. */
  readonly inputAmax: Readonly<Record<string, number>>;
  /** See `NVIDIAModelOptOptions.modulesToNotConvert`. */
  readonly modulesToNotConvert: readonly string[] | null;
  /** See `NVIDIAModelOptOptions.channelQuantize`. */
  readonly channelQuantize: number | null;
  /** See `NVIDIAModelOptOptions.blockQuantize`. */
  readonly blockQuantize: number | null;
  /** See `NVIDIAModelOptOptions.scaleChannelQuantize`. */
  readonly scaleChannelQuantize: number | null;
  /** See `NVIDIAModelOptOptions.scaleBlockQuantize`. */
  readonly scaleBlockQuantize: number | null;
  /** See `NVIDIAModelOptOptions.algorithm`. */
  readonly algorithm: ModelOptAlgorithm;
  /** See `NVIDIAModelOptOptions.disableConvQuantization`. */
  readonly disableConvQuantization: boolean;

  /** Throws `quantization_config`, or `unsupported` for other algorithms, and activations in blocks. */
  constructor(options: NVIDIAModelOptOptions) {
    const weightOnly = options.weightOnly ?? true;
    this.quantType = typeOf(options.quantType);
    this.activationType = weightOnly ? null : activationTypeOf(options.quantType);
    this.inputAmax = amaxOf(options.inputAmax ?? {}, weightOnly);
    this.modulesToNotConvert = namesOf(options.modulesToNotConvert ?? null);
    this.channelQuantize = options.channelQuantize ?? null;
    this.blockQuantize = options.blockQuantize ?? null;
    this.scaleChannelQuantize = options.scaleChannelQuantize ?? null;
    this.scaleBlockQuantize = options.scaleBlockQuantize ?? null;
    this.disableConvQuantization = options.disableConvQuantization ?? false;
    this.algorithm = algorithmOf(options.algorithm ?? "max", this.quantType);
    checkBlocks(this);
  }

  /** From config.json's dictionary, or the options in camelCase. Throws `quantization_config`. */
  static fromDict(dict: Readonly<Record<string, unknown>>): NVIDIAModelOptConfig {
    const number = (snake: string, camel: string) => {
      const value = dict[snake] ?? dict[camel] ?? null;
      return value === null ? null : plainNumber(value);
    };
    return new NVIDIAModelOptConfig({
      quantType: (dict.quant_type ?? dict.quantType) as string,
      modulesToNotConvert: (dict.modules_to_not_convert ?? dict.modulesToNotConvert) as undefined,
      weightOnly: (dict.weight_only ?? dict.weightOnly) as boolean | undefined,
      channelQuantize: number("channel_quantize", "channelQuantize"),
      blockQuantize: number("block_quantize", "blockQuantize"),
      scaleChannelQuantize: number("scale_channel_quantize", "scaleChannelQuantize"),
      scaleBlockQuantize: number("scale_block_quantize", "scaleBlockQuantize"),
      algorithm: (dict.algorithm ?? storedAlgorithm(dict)) as string | undefined,
      disableConvQuantization: Boolean(
        dict.disable_conv_quantization ?? dict.disableConvQuantization,
      ),
    });
  }

  /** The same config, calibrated ranges included, with another list of modules that stay dense. */
  skipping(modulesToNotConvert: readonly string[]): NVIDIAModelOptConfig {
    const { quant_type: quantType, weight_only: weightOnly } = this.toDict();
    return new NVIDIAModelOptConfig({
      ...this,
      quantType: quantType as string,
      weightOnly: weightOnly as boolean,
      modulesToNotConvert,
    });
  }

  /** The arguments in Diffusers' spelling; it makes ModelOpt's own config from them again. */
  toDict(): { readonly [key: string]: JsonValue } {
    return {
      quant_method: this.quantMethod,
      quant_type: this.activationType ? `${this.quantType}_${this.activationType}` : this.quantType,
      modules_to_not_convert: this.modulesToNotConvert,
      weight_only: this.activationType === null,
      channel_quantize: this.channelQuantize,
      block_quantize: this.blockQuantize,
      calib_cfg: { method: this.algorithm },
      forward_loop: null,
      scale_channel_quantize: this.scaleChannelQuantize,
      scale_block_quantize: this.scaleBlockQuantize,
      disable_conv_quantization: this.disableConvQuantization,
    };
  }

  /** The same, for JSON.stringify. */
  toJSON(): unknown {
    return this.toDict();
  }
}

/** Diffusers would take FP8 for an unknown type, with a warning; that is refused here. */
function typeOf(text: unknown): ModelOptType {
  const [name, activations, ...rest] = plainText(text).split("_");
  const type = TYPES.find((candidate) => candidate === name);
  const known = activations === undefined || TYPES.some((candidate) => candidate === activations);
  if (type && known && rest.length === 0) return type;
  throw invalid("quant_type", text, TYPES.join(", "));
}

/** An absent type is INT8, the default of ModelOpt's quantizers. */
function activationTypeOf(text: unknown): ModelOptActivationType {
  const name = plainText(text).split("_")[1] ?? "INT8";
  const type = ACTIVATION_TYPES.find((candidate) => candidate === name);
  if (type) return type;
  throw unsupported("quant_type", text, `activations of ${ACTIVATION_TYPES.join(", ")}`);
}

function algorithmOf(algorithm: string, quantType: ModelOptType): ModelOptAlgorithm {
  if (algorithm === "max" || (algorithm === "mse" && quantType === "FP8")) return algorithm;
  throw unsupported("algorithm", algorithm, `max${quantType === "FP8" ? " or mse" : ""}`);
}

/** What Diffusers writes of the algorithm; it reads it no more, and weights that are stored need none. */
function storedAlgorithm(dict: Readonly<Record<string, unknown>>): ModelOptAlgorithm | undefined {
  const { method } = (dict.calib_cfg ?? {}) as { method?: unknown };
  const isFloat8 = plainText(dict.quant_type).startsWith("FP8");
  return method === "mse" && isFloat8 ? "mse" : undefined;
}

function amaxOf(
  amax: Readonly<Record<string, number>>,
  weightOnly: boolean,
): Readonly<Record<string, number>> {
  const names = Object.keys(amax);
  if (weightOnly && names.length > 0) throw invalid("input_amax", names[0], "weight_only false");
  const bad = names.find((name) => !(amax[name] >= 0 && amax[name] < Infinity));
  if (bad === undefined) return amax;
  throw invalid(`input_amax of ${bad}`, amax[bad], "a number of at least 0");
}

/** The combinations that ModelOpt can really store. */
function checkBlocks(config: NVIDIAModelOptConfig): void {
  const { quantType, channelQuantize, blockQuantize, scaleBlockQuantize } = config;
  if (config.activationType !== null && blockQuantize !== null) {
    throw unsupported("weight_only", false, "true with blocks");
  }
  const needsBlocks = quantType !== "FP8" && quantType !== "INT8";
  if (blockQuantize === null) {
    if (needsBlocks) throw invalid("block_quantize", null, `a block size for ${quantType}`);
    if (channelQuantize === null || channelQuantize === 0) return;
    throw unsupported("channel_quantize", channelQuantize, "0 or none");
  }
  const valid = Number.isInteger(blockQuantize) && blockQuantize > 0 && blockQuantize % 2 === 0;
  if (!valid) throw invalid("block_quantize", blockQuantize, "an even number");
  if (channelQuantize !== -1) {
    throw unsupported("channel_quantize", channelQuantize, "-1 with blocks");
  }
  const needsScaleBlocks = quantType === "NF4" || quantType === "NVFP4";
  const isBlock = Number.isInteger(scaleBlockQuantize) && scaleBlockQuantize! > 0;
  if (needsScaleBlocks && !(isBlock && config.scaleChannelQuantize === -1)) {
    const expected = `a block size, and scale_channel_quantize -1, for ${quantType}`;
    throw invalid("scale_block_quantize", scaleBlockQuantize, expected);
  }
}

function namesOf(names: unknown): readonly string[] | null {
  if (names === null) return null;
  if (typeof names === "string") return [names];
  const valid = Array.isArray(names) && names.every((name) => typeof name === "string");
  if (valid) return [...names as string[]];
  throw invalid("modules_to_not_convert", names, "a list of module names");
}

function invalid(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use an NVIDIAModelOptConfig";
  return new HalftoneError("quantization_config", message, { field, found, expected });
}

function unsupported(field: string, found: unknown, expected: string): HalftoneError {
  const message = "Cannot use an NVIDIAModelOptConfig";
  return new HalftoneError("unsupported", message, { field, found, expected });
}
