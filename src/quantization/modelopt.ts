/** NVIDIA ModelOpt as a quantization method. */

import type { WeightInfo } from "../ops/graph.ts";
import type { DType } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { INPUT_AMAX, modelOptMode, readInputAmax } from "./modelopt_activations.ts";
import { NVIDIAModelOptConfig, type NVIDIAModelOptOptions } from "./modelopt_config.ts";
import { encodeModelOpt } from "./modelopt_encode.ts";
import { MODELOPT_STATE_NAME, modelOptState } from "./modelopt_state.ts";
import {
  assemble,
  dequantizeModelOpt,
  describeModelOpt,
  isModelOptCompanion,
  isModelOptWeight,
  modelOptLayout,
  modelOptMetadata,
  readModelOpt,
  streamModelOpt,
  typeOf,
  writeModelOpt,
} from "./modelopt_tensors.ts";
import type { Pause } from "./pause.ts";
import { pythonJson } from "./python_json.ts";
import type { QuantizedLayout } from "./quantized_tensor.ts";
import type {
  EncodedWeight,
  Method,
  ModelModules,
  NamedTensor,
  PieceReader,
  PutBytes,
  Quantizer,
  QuantizerTarget,
  StateFile,
  StreamedTensor,
  TensorHeaders,
  TensorReader,
  WrittenTensor,
} from "./quantizer.ts";
import { moduleOf, weightOnlyInfo } from "./quantizer.ts";

/** Where the files' headers keep the config, as config.json may not. */
const CONFIG_KEY = "quantization_config";

/** Weights per scale of NF4 where no config says it. */
const NF4_BLOCK = 64;

/** ModelOpt: FP8, INT8, INT4, NF4, NVFP4. */
export const MODELOPT: Method = {
  name: "modelopt",
  backends: ["modelopt"],
  sharedWithTransformers: false,
  accepts: (config) => config instanceof NVIDIAModelOptConfig,
  fromDict: (dict) => NVIDIAModelOptConfig.fromDict(dict),
  create: (config, target) => new ModelOptQuantizer(config as NVIDIAModelOptConfig, target),
  skipList: {
    key: "modules_to_not_convert",
    spellings: (module) => [module],
    replaced: (config, entries) => (config as NVIDIAModelOptConfig).skipping(entries),
  },
  stateFileName: MODELOPT_STATE_NAME,
  detect: detectConfig,
  formats: [
    format("fp8", "float8 e4m3, one scale", { quantType: "FP8" }),
    format("int8", "int8, a scale per row", { quantType: "INT8", channelQuantize: 0 }),
    format("int4", "int4, a scale per 128 weights", blocks("INT4", 128)),
    format("fp8_fp8", "float8 e4m3, one scale; activations likewise", {
      quantType: "FP8_FP8",
      weightOnly: false,
    }),
    format("int8_int8", "int8, a scale per row; activations int8, one scale", {
      quantType: "INT8_INT8",
      weightOnly: false,
      channelQuantize: 0,
    }),
    format("nf4", "NormalFloat4 of four decimals, an 8-bit scale per 64 weights", {
      ...blocks("NF4", NF4_BLOCK),
      scaleChannelQuantize: -1,
      scaleBlockQuantize: 256,
    }),
    format("nvfp4", "e2m1, an e4m3 scale per 16 weights and one for all", {
      ...blocks("NVFP4", 16),
      scaleChannelQuantize: -1,
      scaleBlockQuantize: 8,
    }),
  ],
};

function format(name: string, description: string, options: NVIDIAModelOptOptions) {
  return { name, description, config: () => new NVIDIAModelOptConfig(options) };
}

function blocks(quantType: string, blockQuantize: number): NVIDIAModelOptOptions {
  return { quantType, channelQuantize: -1, blockQuantize };
}

/** Modules that ModelOpt never quantizes, of those a diffusion pipeline may have. */
const DEFAULT_DISABLED = [
  /lm_head/,
  /proj_out\./,
  /output_layer/,
  /router/,
  /mlp\.gate\./,
  /vision_model/,
  /vision_tower/,
  /^output\./,
];

class ModelOptQuantizer implements Quantizer {
  readonly config: NVIDIAModelOptConfig;
  readonly #skipped: readonly string[];
  readonly #modules: ModelModules;

  constructor(config: NVIDIAModelOptConfig, target: QuantizerTarget) {
    this.config = config;
    this.#modules = target.modules ?? {};
    this.#skipped = [...config.modulesToNotConvert ?? [], ...target.keepInFloat32];
  }

  /**
   * With a quantization_config Diffusers 0.42 makes plain parameters of the weights: integers it refuses, and float8
   * ModelOpt cannot multiply with then. Without one, as ModelOpt itself saves, the state file suffices.
   */
  get configless(): boolean {
    return this.#modules.layerNorms !== undefined;
  }

  /** Anywhere in the name of the module's quantizer, with ModelOpt's own exceptions. */
  skips(module: string): boolean {
    const quantizer = `${module}.weight_quantizer`;
    return this.#skipped.some((entry) => wildcard(entry).test(quantizer)) ||
      DEFAULT_DISABLED.some((pattern) => pattern.test(quantizer));
  }

  describe(shape: Shape, dtype: DType = "float32", name = ""): WeightInfo | null {
    const groupSize = shape.length === 2 ? this.#groupSize(shape) : null;
    if (groupSize === null) return null;
    const layout = modelOptLayout(this.config.quantType, shape, dtype, groupSize);
    return this.#info(shape, layout, this.config.inputAmax[moduleOf(name)] ?? null);
  }

  #info(shape: Shape, layout: QuantizedLayout, amax: number | null): WeightInfo {
    const { activationType } = this.config;
    const info = weightOnlyInfo(shape, layout);
    return activationType ? { ...info, activations: modelOptMode(activationType, amax) } : info;
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    const { quantType, scaleBlockQuantize, algorithm } = this.config;
    const { dtype } = dense;
    const shape = [dense.shape[0], dense.shape[1]] as const;
    const groupSize = this.#groupSize(shape)!;
    const isBlock = this.config.blockQuantize !== null;
    const settings = { groupSize, isBlock, scaleBlock: scaleBlockQuantize ?? 1, algorithm };
    const { codes, buffers } = await encodeModelOpt(quantType, name, dense, settings, pause);
    const amax = this.config.inputAmax[moduleOf(name)];
    const all = amax === undefined ? buffers : new Map([...buffers, [INPUT_AMAX, scalar(amax)]]);
    return assemble(quantType, shape, dtype, groupSize, codes, all);
  }

  isCompanion(name: string): boolean {
    return isModelOptCompanion(name);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    return isModelOptWeight(name, checkpoint);
  }

  async describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const stored = describeModelOpt(name, checkpoint, this.#nf4Block);
    const { type, shape, dtype, groupSize } = stored;
    const amax = this.config.activationType && await readInputAmax(name, checkpoint);
    const layout = modelOptLayout(type, shape, dtype, groupSize);
    return this.#info(shape, layout, amax?.toFloat32()[0] ?? null);
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readModelOpt(name, checkpoint, this.#nf4Block);
  }

  stream(name: string, checkpoint: PieceReader, put: PutBytes): Promise<StreamedTensor> {
    return streamModelOpt(name, checkpoint, put, this.#nf4Block);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeModelOpt(name, weight);
  }

  dequantize(weight: EncodedWeight): HostTensor | null {
    return dequantizeModelOpt(weight);
  }

  fileMetadata(tensors: readonly WrittenTensor[]): Readonly<Record<string, string>> {
    const { quantType } = this.config;
    const named = quantType === "NF4" || quantType === "NVFP4" ? modelOptMetadata(tensors) : {};
    return { [CONFIG_KEY]: pythonJson(this.config.toDict()), ...named };
  }

  stateFile(written: TensorHeaders): StateFile | null {
    const names = [...written.entries.keys()].sort();
    const layerNorms = this.#modules.layerNorms?.(names);
    if (!layerNorms) return null;
    const modules = names.filter((name) => name.endsWith(".weight")).map(moduleOf);
    const linear = modules.filter((name) => this.#modules.classOfModule?.(name) === "Linear");
    return modelOptState(this.config, written, { linear, layerNorms });
  }

  /** Weights per scale; null where blocks do not divide a row. */
  #groupSize([rows, columns]: Shape): number | null {
    const { blockQuantize, channelQuantize } = this.config;
    if (blockQuantize === null) return channelQuantize === 0 ? columns : rows * columns;
    return columns % blockQuantize === 0 ? blockQuantize : null;
  }

  get #nf4Block(): number {
    return this.config.blockQuantize ?? NF4_BLOCK;
  }
}

function scalar(value: number): HostTensor {
  return HostTensor.fromFloat32(Float32Array.of(value), []);
}

/** A shell pattern (* and ?) found anywhere. */
function wildcard(entry: string): RegExp {
  const escaped = entry.replace(/[.+^${}()|\\[\]]/g, "\\$&");
  return new RegExp(escaped.replaceAll("*", ".*").replaceAll("?", "."));
}

/** The config in the files' headers, which halftone writes; null where there is none. */
function saidConfig({ metadata }: TensorReader): Record<string, unknown> | null {
  try {
    const said = JSON.parse(metadata?.[CONFIG_KEY] ?? "null");
    return said?.quant_method === "modelopt" ? said : null;
  } catch {
    return null;
  }
}

/** The config that the keys of a checkpoint speak of; null when no weight is ModelOpt's. */
function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  for (const name of checkpoint.entries.keys()) {
    if (!isModelOptWeight(name, checkpoint)) continue;
    const said = saidConfig(checkpoint);
    if (said) return said;
    const type = typeOf(name, checkpoint);
    if (type === "FP8" || type === "INT8") {
      // Nothing says what a calibrated input is rounded to; the type of its weight is the likely one.
      const isCalibrated = [...checkpoint.entries.keys()].some((key) => key.endsWith(INPUT_AMAX));
      return isCalibrated
        ? { quant_type: `${type}_${type}`, weight_only: false }
        : { quant_type: type };
    }
    const scales = checkpoint.entries.get(name.replace(/weight$/, "weight_quantizer._scale"))!;
    const { groupSize } = describeModelOpt(name, checkpoint, NF4_BLOCK);
    return {
      quant_type: type,
      channel_quantize: -1,
      block_quantize: groupSize,
      scale_channel_quantize: -1,
      scale_block_quantize: type === "NF4" ? scales.shape[1] : 8,
    };
  }
  return null;
}
