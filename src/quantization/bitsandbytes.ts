/** bitsandbytes as a method: its quantizers over the pure functions of the neighbouring files. */

import { HalftoneError } from "../errors.ts";
import type { ActivationMode } from "../ops/activation_mode.ts";
import type { WeightInfo } from "../ops/graph.ts";
import type { HostTensor } from "../tensor/host_tensor.ts";
import type { Shape } from "../tensor/shape.ts";
import { fourBitLayout, type FourBitOptions, quantizeFourBit } from "./bitsandbytes_4bit.ts";
import {
  fourBitOwner,
  readFourBit,
  readFourBitHeader,
  STORAGE_DTYPES,
  storedFourBitType,
  streamFourBit,
  writeFourBit,
} from "./bitsandbytes_4bit_tensors.ts";
import { BitsAndBytesConfig, type BitsAndBytesOptions } from "./bitsandbytes_config.ts";
import {
  int8Layout,
  int8Shape,
  isInt8Companion,
  isInt8Weight,
  quantizeInt8,
  readInt8,
  streamInt8,
  writeInt8,
} from "./bitsandbytes_int8.ts";
import type { Pause } from "./pause.ts";
import {
  type EncodedWeight,
  type Method,
  moduleOf,
  type NamedTensor,
  type PieceReader,
  type PutBytes,
  type Quantizer,
  type QuantizerTarget,
  type StreamedTensor,
  type TensorReader,
} from "./quantizer.ts";
import { skipsModule } from "./skip_modules.ts";

/** Weights per absmax in Linear4bit; no config changes it. */
const BLOCK_SIZE = 64;

/** bitsandbytes: NF4, FP4, both with double quantization, and LLM.int8(). */
export const BITSANDBYTES: Method = {
  name: "bitsandbytes",
  backends: ["bitsandbytes_4bit", "bitsandbytes_8bit"],
  sharedWithTransformers: true,
  accepts: (config) => config instanceof BitsAndBytesConfig,
  fromDict: (dict) => BitsAndBytesConfig.fromDict(dict),
  create: (config, target) => createQuantizer(config as BitsAndBytesConfig, target),
  skipList: { key: "llm_int8_skip_modules", spellings: (module) => [module] },
  detect: detectConfig,
  formats: [
    format("nf4", "NormalFloat4, absmax per 64 weights", fourBit("nf4", false)),
    format("nf4-dq", "NF4 with double quantization", fourBit("nf4", true)),
    format("fp4", "4-bit float, absmax per 64 weights", fourBit("fp4", false)),
    format("fp4-dq", "FP4 with double quantization", fourBit("fp4", true)),
    format("int8", "LLM.int8(): int8 rows and activations, outlier columns in float", {
      loadIn8bit: true,
    }),
  ],
};

function format(name: string, description: string, options: BitsAndBytesOptions) {
  return { name, description, config: () => new BitsAndBytesConfig(options) };
}

function fourBit(bnb4bitQuantType: "nf4" | "fp4", bnb4bitUseDoubleQuant: boolean) {
  return { loadIn4bit: true, bnb4bitQuantType, bnb4bitUseDoubleQuant };
}

function createQuantizer(config: BitsAndBytesConfig, target: QuantizerTarget): Quantizer {
  if (config.llmInt8HasFp16Weight) {
    throw new HalftoneError("unsupported", "Cannot keep 16-bit weights beside int8 ones", {
      field: "llm_int8_has_fp16_weight",
      found: true,
      expected: "false; true is for training",
    });
  }
  if (config.loadIn8bit) return new Int8Quantizer(config, target);
  if (config.loadIn4bit) return new FourBitQuantizer(config, target);
  throw new HalftoneError("quantization_config", "Cannot tell how many bits are wanted", {
    field: "load_in_4bit, load_in_8bit",
    found: "both false",
    expected: "one of them true",
  });
}

/** The dictionary that the keys of a checkpoint without config speak of; null when they do not. */
function detectConfig(checkpoint: TensorReader): Record<string, unknown> | null {
  for (const [name, entry] of checkpoint.entries) {
    if (name.endsWith(".SCB") && isInt8Weight(`${moduleOf(name)}.weight`, checkpoint)) {
      return { load_in_8bit: true };
    }
    const type = name.endsWith(".weight") ? storedFourBitType(name, checkpoint) : null;
    if (type === null) continue;
    return {
      load_in_4bit: true,
      bnb_4bit_quant_type: type,
      bnb_4bit_use_double_quant: checkpoint.entries.has(`${name}.nested_absmax`),
      bnb_4bit_quant_storage: STORAGE_DTYPES.find((dtype) => dtype === entry.dtype) ?? "uint8",
    };
  }
  return null;
}

abstract class BitsAndBytesQuantizer {
  readonly config: BitsAndBytesConfig;
  readonly #target: QuantizerTarget;
  readonly #skipped: readonly string[];

  constructor(config: BitsAndBytesConfig, target: QuantizerTarget) {
    this.config = config;
    this.#target = target;
    this.#skipped = [...config.llmInt8SkipModules ?? [], ...target.keepInFloat32];
  }

  skips(module: string): boolean {
    return skipsModule(module, this.#skipped, this.#target.library);
  }
}

class FourBitQuantizer extends BitsAndBytesQuantizer implements Quantizer {
  get #options(): FourBitOptions {
    const { bnb4bitQuantType: quantType, bnb4bitUseDoubleQuant: doubleQuant } = this.config;
    return { quantType, doubleQuant, blockSize: BLOCK_SIZE };
  }

  describe(shape: Shape): WeightInfo | null {
    return shape.length === 2 ? quantizedInfo(shape, fourBitLayout(this.#options), FLOAT) : null;
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    const tensor = await quantizeFourBit(name, dense, this.#options, pause);
    return { tensor, dtype: dense.dtype };
  }

  isCompanion(name: string, checkpoint: TensorReader): boolean {
    const owner = fourBitOwner(name);
    return owner !== null && checkpoint.entries.has(owner);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    const dtype = checkpoint.entries.get(name)?.dtype;
    return storedFourBitType(name, checkpoint) !== null ||
      (name.endsWith(".weight") && dtype === "uint8"); // its state is missing, which reading will say
  }

  async describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const { state, layout } = await readFourBitHeader(name, checkpoint);
    return quantizedInfo(state.shape, layout, FLOAT);
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readFourBit(name, checkpoint);
  }

  stream(name: string, checkpoint: PieceReader, put: PutBytes): Promise<StreamedTensor> {
    return streamFourBit(name, checkpoint, put);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeFourBit(
      name,
      weight,
      this.config.bnb4bitQuantType,
      this.config.bnb4bitQuantStorage,
    );
  }
}

class Int8Quantizer extends BitsAndBytesQuantizer implements Quantizer {
  describe(shape: Shape): WeightInfo | null {
    return shape.length === 2 ? quantizedInfo(shape, int8Layout(shape), this.#activations) : null;
  }

  async quantize(name: string, dense: HostTensor, pause: Pause): Promise<EncodedWeight> {
    return { tensor: await quantizeInt8(name, dense, pause), dtype: dense.dtype };
  }

  isCompanion(name: string, checkpoint: TensorReader): boolean {
    return isInt8Companion(name, checkpoint);
  }

  isStored(name: string, checkpoint: TensorReader): boolean {
    const dtype = checkpoint.entries.get(name)?.dtype;
    return isInt8Weight(name, checkpoint) || (name.endsWith(".weight") && dtype === "int8");
  }

  describeStored(name: string, checkpoint: TensorReader): Promise<WeightInfo> {
    const shape = int8Shape(name, checkpoint);
    return Promise.resolve(quantizedInfo(shape, int8Layout(shape), this.#activations));
  }

  read(name: string, checkpoint: TensorReader): Promise<EncodedWeight> {
    return readInt8(name, checkpoint);
  }

  stream(name: string, checkpoint: PieceReader, put: PutBytes): Promise<StreamedTensor> {
    return streamInt8(name, checkpoint, put);
  }

  write(name: string, weight: EncodedWeight): NamedTensor[] {
    return writeInt8(name, weight);
  }

  get #activations(): ActivationMode {
    return { kind: "llm_int8", threshold: this.config.llmInt8Threshold };
  }
}

const FLOAT: ActivationMode = { kind: "float" };

function quantizedInfo(
  shape: Shape,
  layout: ReturnType<typeof int8Layout>,
  activations: ActivationMode,
): WeightInfo {
  return { shape, format: { kind: "quantized", layout }, activations };
}
